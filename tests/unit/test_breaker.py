"""The circuit breaker, walked through at random with a clock and a draw of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentic_flywheel.store.breaker import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    TIMEOUTS_TO_OPEN,
    Breaker,
    State,
)


class Walk(RuleBasedStateMachine):
    """Any order of answers, failures and probes; the model is the last three lines of its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.drawn = 0.0
        self.breaker = Breaker(clock=lambda: self.now, draw=lambda: self.drawn)
        self.in_a_row = 0
        self.probing = False
        self.open_since: float | None = None
        self.failed_probes = 0

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.probing)
    @rule(certain=st.booleans())
    def fails(self, certain: bool) -> None:
        self.in_a_row += 1
        opens = self.open_since is None and (certain or self.in_a_row >= TIMEOUTS_TO_OPEN)
        assert self.breaker.failed("no reply", certain=certain) is opens
        if opens:
            self.open_since, self.failed_probes = self.now, 0
        assert self.breaker.health.reason == "no reply"

    @precondition(lambda self: not self.probing)
    @rule()
    def answers(self) -> None:
        assert self.breaker.succeeded() is False  # an open breaker is not closed by what was asked before
        if self.open_since is None:
            self.in_a_row = 0

    @precondition(lambda self: self.open_since is not None and not self.probing)
    @rule()
    def probe(self) -> None:
        self.breaker.probe()
        self.probing = True
        with pytest.raises(RuntimeError):
            self.breaker.probe()

    @precondition(lambda self: self.probing)
    @rule(well=st.booleans())
    def probe_ends(self, well: bool) -> None:
        self.probing = False
        if well:
            assert self.breaker.succeeded() is True
            self.open_since, self.in_a_row = None, 0
            assert self.breaker.health.since == self.now
        else:
            assert self.breaker.failed("still away", certain=True) is False
            self.in_a_row += 1
            self.failed_probes += 1

    @invariant()
    def state_and_time(self) -> None:
        health = self.breaker.health
        expected = State.CLOSED if self.open_since is None else State.HALF_OPEN if self.probing else State.OPEN
        assert health.state is expected
        assert self.breaker.closed is (self.open_since is None)
        assert health.failures == self.in_a_row
        if self.open_since is not None:
            assert health.since == self.open_since

    @rule(drawn=st.floats(0, 1))
    def pauses_double_and_vary(self, drawn: float) -> None:
        self.drawn = drawn
        whole = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self.failed_probes)
        assert self.breaker.pause() == pytest.approx(whole * (0.5 + drawn / 2))


Walk.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestWalk = Walk.TestCase


def test_a_breaker_that_is_closed_needs_no_probe() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        Breaker().probe()

"""Whether a server is asked at all: the state of a circuit breaker, without clock, tasks or sockets.

Invariant: while the breaker is not closed nobody on the way of a question waits for the server; it closes only after
a probe that succeeded, and at most one probe is on its way. tests/unit/test_breaker.py walks through it at random.

The pauses between probes double from 0.25 s to 5 s and are drawn between half and the whole (equal jitter), so that
the processes of a machine that lost its server do not all come back in the same moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

#: So many time-outs in a row, each of which may have been met by many askers, open the breaker.
TIMEOUTS_TO_OPEN = 3
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0


class State(StrEnum):
    """`closed`: the server is asked. `open`: it is left alone. `half-open`: one probe is on its way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Health(msgspec.Struct, frozen=True):
    """What is known of a server from asking it: the state since when (epoch seconds), the last failure, and how many
    failures in a row."""

    state: State
    since: float
    reason: str = ""
    failures: int = 0


class Breaker:
    """The breaker of one server; `clock` gives epoch seconds, `draw` a number between 0 and 1.

    >>> breaker = Breaker(clock=lambda: 7.0, draw=lambda: 1.0)
    >>> breaker.failed("connection refused", certain=True), breaker.closed, breaker.pause()
    (True, False, 0.25)
    >>> breaker.probe(); breaker.succeeded(), breaker.closed
    (True, True)
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, draw: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._draw = draw
        self._state = State.CLOSED
        self._since = clock()
        self._reason = ""
        self._failed_probes = 0
        self.failures = 0

    @property
    def closed(self) -> bool:
        """Whether the server may be asked."""
        return self._state is State.CLOSED

    @property
    def health(self) -> Health:
        """What is known now."""
        return Health(self._state, self._since, self._reason, self.failures)

    def failed(self, reason: str, *, certain: bool) -> bool:
        """Note a failure; whether the breaker opened because of it.

        `certain` ones (nobody listens, credentials refused) open at once, others (no reply in time) when there are
        several in a row. While the breaker is open, what is still coming in from before changes nothing but the count.
        """
        self.failures += 1
        self._reason = reason
        if self._state is State.HALF_OPEN:
            self._state = State.OPEN
            self._failed_probes += 1
        elif self._state is State.CLOSED and (certain or self.failures >= TIMEOUTS_TO_OPEN):
            self._state = State.OPEN
            self._since = self._clock()
            self._failed_probes = 0
            return True
        return False

    def succeeded(self) -> bool:
        """Note that the server answered; whether the breaker closed because of it. Only a probe's answer closes it."""
        if self._state is State.OPEN:
            return False
        closing = self._state is State.HALF_OPEN
        if closing:
            self._state = State.CLOSED
            self._since = self._clock()
        self.failures = 0
        self._reason = ""
        return closing

    def probe(self) -> None:
        """Begin a probe; the next `failed` or `succeeded` is its outcome."""
        if self._state is not State.OPEN:
            raise RuntimeError(f"a breaker that is {self._state} needs no probe")
        self._state = State.HALF_OPEN

    def pause(self) -> float:
        """How long to wait before the next probe, in seconds."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failed_probes, 10))
        return longest * (0.5 + self._draw() / 2)

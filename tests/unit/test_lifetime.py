"""How long an answer stays good: the most particular rule, jitter, and what is left."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Entry, FlowType, Lifetime
from agentic_flywheel.policy.lifetime import lifetime_of, remaining_seconds, stored_seconds

DEFAULTS = {
    FlowType.TECHNICAL: timedelta(days=7),
    FlowType.CREATIVE: timedelta(days=30),
    FlowType.DOCUMENT: timedelta(days=3),
}


@pytest.mark.parametrize("flow_type", FlowType)
@pytest.mark.parametrize("given_rules", list(product((False, True), repeat=3)), ids=str)
def test_the_most_particular_rule_holds(flow_type: FlowType, given_rules: tuple[bool, bool, bool]) -> None:
    flow, registry, type_ = given_rules
    lifetime = lifetime_of(
        flow_type,
        defaults=DEFAULTS,
        flow_override=1.5 if flow else None,
        registry_ttl=timedelta(seconds=20) if registry else None,
        type_override=30.0 if type_ else None,
        sliding=True,
    )
    rules = [(flow, "flow", 1.5), (registry, "registry", 20.0), (type_, "type", 30.0)]
    rules.append((True, "default", DEFAULTS[flow_type].total_seconds()))
    origin, seconds = next((origin, seconds) for holds, origin, seconds in rules if holds)
    assert lifetime == Lifetime(ttl=timedelta(seconds=seconds), sliding=True, origin=origin)


@given(st.floats(1, 1e8), st.floats(0, 0.9), st.floats(-1, 1))
def test_jitter_stays_within_its_bounds(seconds: float, jitter: float, draw: float) -> None:
    lifetime = Lifetime(ttl=timedelta(seconds=seconds))
    whole = lifetime.ttl.total_seconds()
    stored = stored_seconds(lifetime, jitter=jitter, draw=draw)
    assert stored >= 1
    assert whole * (1 - jitter) * 0.999999 <= stored <= max(1, whole * (1 + jitter) * 1.000001)
    assert stored_seconds(lifetime, jitter=0, draw=draw) == max(1.0, whole)


def entry(*, created_at: float = 1000.0, ttl: float = 100.0) -> Entry:
    return Entry(
        question="q",
        identity="",
        answer="a",
        flow="f",
        flow_id="f",
        flow_name="f",
        fingerprint="p",
        generation=1,
        created_at=created_at,
        ttl_seconds=ttl,
        trace_id="",
        turn_id="",
    )


def lasting(seconds: float, *, sliding: bool = False) -> Lifetime:
    return Lifetime(ttl=timedelta(seconds=seconds), sliding=sliding)


@pytest.mark.parametrize(
    ("lifetime", "now", "left"),
    [
        (lasting(100), 1000.0, 100.0),
        (lasting(100), 1040.0, 60.0),
        (lasting(100), 1100.0, 0.0),
        (lasting(100), 1130.0, -30.0),
        (lasting(50), 1040.0, 10.0),  # shortened since: counts at once
        (lasting(50), 1060.0, -10.0),
        (lasting(500), 1060.0, 40.0),  # lengthened since: revives nothing
        (lasting(100, sliding=True), 9999.0, 100.0),  # starts anew with every hit
        (lasting(50, sliding=True), 1060.0, -10.0),  # but a lifetime that was shortened counts at once here too
        (lasting(500, sliding=True), 9999.0, 500.0),
    ],
)
def test_what_is_left(lifetime: Lifetime, now: float, left: float) -> None:
    assert remaining_seconds(entry(), lifetime, jitter=0, now=now) == pytest.approx(left)


@given(st.floats(1, 1e6), st.floats(0, 0.5), st.floats(-1, 1), st.floats(0, 2e6), st.booleans())
def test_jitter_never_makes_an_entry_expire_before_redis_drops_it(
    seconds: float, jitter: float, draw: float, age: float, sliding: bool
) -> None:
    lifetime = lasting(seconds, sliding=sliding)
    stored = entry(created_at=0.0, ttl=stored_seconds(lifetime, jitter=jitter, draw=draw))
    if age < stored.ttl_seconds - 1e-3:
        assert remaining_seconds(stored, lifetime, jitter=jitter, now=age) > 0

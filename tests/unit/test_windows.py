"""Stretches of time: covered without gap or overlap, at midnight and at the turn of hours too."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.windows import FEW, MOST_STEPS, STEPS, Window, buckets_of, step_of, window_of
from agentic_flywheel.store.counters import KEPT, MINUTES_KEPT, Tier

NOW = datetime(2026, 11, 22, 0, 30, tzinfo=UTC).timestamp()  # half an hour after midnight
HOURS = st.integers(0, 24 * 95)


@given(HOURS, HOURS, st.integers(0, 3600 * 24 * 95))
def test_buckets_cover_the_window_once(one: int, other: int, now: int) -> None:
    first, last = sorted((one, other))
    window = Window(float(first * 3600), float((last + 1) * 3600))
    covered: list[int] = []
    for tier, number in buckets_of(window, now=float(now)):
        hours = tier // Tier.HOUR
        covered += range(number * hours, (number + 1) * hours)
    beyond = [hour for hour in covered if hour > last]
    assert [hour for hour in covered if hour <= last] == list(range(first, last + 1))
    assert len(beyond) < 24
    assert all(hour * 3600 > now for hour in beyond), "only what nobody can have counted yet may be read besides"


@given(HOURS, st.integers(1, 24 * 90))
def test_as_few_buckets_as_can_be(first: int, hours: int) -> None:
    window = Window(float(first * 3600), float((first + hours) * 3600))
    found = buckets_of(window, now=1e12)
    assert len(found) <= 46 + hours // 24
    assert sum(tier is Tier.HOUR for tier, _ in found) < 47


def test_just_after_midnight_yesterday_s_hours_and_today_are_read() -> None:
    window = window_of(None, None, now=NOW, default_seconds=3 * 3600).aligned(Tier.HOUR)
    assert [datetime.fromtimestamp(moment, UTC).hour for moment in (window.since, window.until)] == [21, 1]
    day = int(NOW // 86400)
    assert buckets_of(window, now=NOW) == [
        (Tier.HOUR, day * 24 - 3),
        (Tier.HOUR, day * 24 - 2),
        (Tier.HOUR, day * 24 - 1),
        (Tier.DAY, day),
    ]


def test_a_window_ends_now_at_the_latest_and_begins_where_counters_do() -> None:
    window = window_of(0.0, NOW + 1000, now=NOW, default_seconds=60)
    assert window == Window(NOW - KEPT.total_seconds(), NOW)
    assert window_of(None, NOW - 10, now=NOW, default_seconds=60) == Window(NOW - 70, NOW - 10)


@pytest.mark.parametrize(
    ("since", "until"), [(NOW, NOW), (NOW - 5, NOW - 6), (NOW + 5, None), (None, 0.0), (0.0, 1.0), (math.nan, None)]
)
def test_a_window_without_time_in_it_is_refused(since: float | None, until: float | None) -> None:
    with pytest.raises(InputError):
        window_of(since, until, now=NOW, default_seconds=60)


@given(st.integers(60, int(KEPT.total_seconds())))
def test_a_series_has_few_steps_unless_more_are_asked_for(seconds: int) -> None:
    step = step_of(Window(NOW - seconds, NOW), None, now=NOW)
    assert step in STEPS
    assert seconds / step <= FEW


@pytest.mark.parametrize("step", [60, 300, 1800, 3600, 7200, 6 * 3600, 86400])
def test_steps_that_fit(step: int) -> None:
    assert step_of(Window(NOW - 5 * 86400, NOW), step, now=NOW) == step


@pytest.mark.parametrize("step", [0, -60, 1, 90, 420, 5400, 5 * 3600, 2 * 86400, 0.5, math.inf])
def test_steps_that_do_not_fit_are_refused(step: float) -> None:
    with pytest.raises(InputError, match="steps of whole minutes"):
        step_of(Window(NOW - 3600, NOW), step, now=NOW)


def test_minutes_are_only_told_as_long_as_they_are_kept() -> None:
    kept = MINUTES_KEPT.total_seconds()
    assert step_of(Window(NOW - kept, NOW), 60, now=NOW) == 60
    assert kept / 60 <= MOST_STEPS
    with pytest.raises(InputError, match="minutes are kept for 7 days"):
        step_of(Window(NOW - kept - 60, NOW - kept), 60, now=NOW)
    assert step_of(Window(NOW - kept - 600, NOW - kept), None, now=NOW) >= 3600

"""Percentiles from counts: as near to the true ones as is said, and additive."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.insight.latency import (
    BUCKETS,
    GROWTH,
    LONGEST_US,
    RELATIVE_ERROR,
    Latency,
    bucket_of,
    latency_of,
    percentile,
)

TIMES = st.floats(min_value=1.0, max_value=LONGEST_US)


def counted(times: list[float]) -> Counter[int]:
    return Counter(bucket_of(time) for time in times)


def true_percentile(times: list[float], share: float) -> float:
    """Nearest rank: the smallest time that at least `share` of all do not exceed."""
    return sorted(times)[max(1, math.ceil(share * len(times))) - 1]


@given(st.lists(TIMES, min_size=1, max_size=200), st.floats(min_value=0.0, max_value=1.0))
def test_a_percentile_is_wrong_by_no_more_than_is_said(times: list[float], share: float) -> None:
    told = percentile(counted(times), share)
    true = true_percentile(times, share)
    assert told is not None
    assert abs(told - true) <= true * (RELATIVE_ERROR + 1e-9)


def test_the_error_that_is_said_is_below_a_tenth() -> None:
    assert 0.09 < RELATIVE_ERROR < 0.1


@given(TIMES)
def test_a_time_lies_in_its_bucket(time: float) -> None:
    bucket = bucket_of(time)
    assert 0 <= bucket < BUCKETS
    assert time <= GROWTH**bucket * (1 + 1e-9)
    assert bucket == 0 or time > GROWTH ** (bucket - 1) * (1 - 1e-9)


@given(st.floats(min_value=0, max_value=1e15), st.floats(min_value=0, max_value=1e15))
def test_longer_times_are_in_no_lower_bucket(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


@given(st.lists(TIMES, min_size=1), st.lists(TIMES, min_size=1), st.floats(min_value=0, max_value=1))
def test_buckets_of_different_processes_add_up(mine: list[float], theirs: list[float], share: float) -> None:
    assert percentile(counted(mine) + counted(theirs), share) == percentile(counted(mine + theirs), share)


@given(st.lists(TIMES, min_size=1))
def test_percentiles_are_in_order(times: list[float]) -> None:
    latency = latency_of(counted(times), round(sum(times)))
    assert latency.count == len(times)
    assert latency.p50_ms is not None
    assert latency.p95_ms is not None
    assert latency.p99_ms is not None
    assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms


def test_of_nothing_nothing_is_told() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({3: 0}, 0.5) is None
    assert latency_of({}, 0) == Latency()


def test_a_slow_tail_shows_in_p99_and_not_before() -> None:
    latency = latency_of(counted([1000.0] * 98 + [2_000_000.0] * 2), 98 * 1000 + 4_000_000)
    assert latency.p95_ms is not None
    assert latency.p99_ms is not None
    assert 0.9 < latency.p95_ms < 1.1
    assert 1800 < latency.p99_ms < 2200
    assert latency.mean_ms == 40.98

"""Counts on their way to Redis: what adds up where, at the turn of hours and days, and through a long outage."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.store.counters import (
    ADD,
    KEPT,
    MINUTES_KEPT,
    MOST_MINUTES,
    Counters,
    Unsent,
    asker_digest,
    day_of,
)
from agentic_flywheel.store.keys import Keys

KEYS = Keys("t")
COUNTERS = Counters(None, KEYS)  # type: ignore[arg-type]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def added_to(unsent: Unsent) -> dict[str, tuple[int, list[Any]]]:
    """What is sent to each counter: seconds to keep it, then fields and amounts one after the other."""
    told = {}
    for _, sha, count, *rest in COUNTERS.commands(unsent):
        keys, arguments = rest[:count], rest[count:]
        for key in keys if sha == ADD.sha else ():
            seconds, fields = arguments[:2]
            told[key] = (seconds, arguments[2 : 2 + 2 * fields])
            arguments = arguments[2 + 2 * fields :]
        assert sha != ADD.sha or not arguments
    return told


def increments(unsent: Unsent) -> dict[tuple[str, str], int]:
    return {
        (key, field): amount
        for key, (_, told) in added_to(unsent).items()
        for field, amount in zip(told[::2], told[1::2], strict=True)
    }


def of(key: str, unsent: Unsent) -> dict[str, int]:
    return {field: n for (name, field), n in increments(unsent).items() if name == f"afw:v1:t:{key}"}


def test_one_question_counts_in_its_minute_its_hour_and_its_day() -> None:
    unsent = Unsent()
    unsent.add("f", at("2026-11-22T13:07:59"), {"outcome:hit": 1, "reason:exact": 1, "h38": 1})
    assert of("count:{f}:2026112213:minutes", unsent) == {"07:hit": 1}
    assert of("count:{f}:2026112213", unsent) == {"outcome:hit": 1, "reason:exact": 1, "h38": 1}
    assert of("count:{f}:20261122", unsent) == of("count:{f}:2026112213", unsent)
    days = {key: seconds / 86400 for key, (seconds, _) in added_to(unsent).items()}
    assert days == {
        "afw:v1:t:count:{f}:2026112213:minutes": MINUTES_KEPT.days,
        "afw:v1:t:count:{f}:2026112213": KEPT.days,
        "afw:v1:t:count:{f}:20261122": KEPT.days,
    }


def test_midnight_and_the_turn_of_an_hour_part_what_is_counted() -> None:
    unsent = Unsent()
    for moment in ("2026-12-31T22:59:59.999", "2026-12-31T23:59:59.999", "2027-01-01T00:00:00"):
        unsent.add("f", at(moment), {"outcome:miss": 1})
    assert {key for key, _ in increments(unsent)} == {
        f"afw:v1:t:count:{{f}}:{stamp}"
        for stamp in (
            "2026123122:minutes", "2026123122", "2026123123:minutes", "2026123123", "20261231",
            "2027010100:minutes", "2027010100", "20270101",
        )
    }  # fmt: skip
    assert of("count:{f}:20261231", unsent) == {"outcome:miss": 2}
    assert of("count:{f}:2027010100:minutes", unsent) == {"00:miss": 1}
    assert day_of(at("2026-12-31T23:59:59.999")) == "20261231"


def test_failures_stand_in_minutes_and_what_is_told_by_the_hour_stands_there_alone() -> None:
    unsent = Unsent()
    unsent.add("f", 0.0, {"failed": 2, "failed:flow_timeout": 2, "session:active@hour": 1, "session:active@day": 3})
    assert of("count:{f}:1970010100:minutes", unsent) == {"00:failed": 2}
    assert of("count:{f}:1970010100", unsent) == {"failed": 2, "failed:flow_timeout": 2, "session:active": 1}
    assert of("count:{f}:19700101", unsent) == {"failed": 2, "failed:flow_timeout": 2, "session:active": 3}


def test_nothing_is_sent_for_nothing() -> None:
    unsent = Unsent()
    assert not unsent
    unsent.add("f", 0.0, {"near": 0})
    assert COUNTERS.commands(unsent) == []


def test_users_are_digests_spread_over_shards() -> None:
    unsent = Unsent()
    for number in range(100):
        unsent.add_asker(asker_digest(f"user {number}"), 86400.0, {"asked": 1, "served": 1})
    calls: list[Any] = COUNTERS.commands(unsent)
    assert {key for _, _, _, key, *_ in calls} == {f"afw:v1:t:askers:19700102:{shard}" for shard in range(8)}
    assert sum(len(told) // 6 for _, _, _, _, _, _, *told in calls) == 100
    assert "user" not in repr(calls)
    assert len({asker_digest(f"user {number}") for number in range(10_000)}) == 10_000


ROW = st.tuples(
    st.sampled_from(["f", "g"]),
    st.floats(0, 10 * 86400),
    st.dictionaries(st.sampled_from(["outcome:hit", "failed", "hit_us"]), st.integers(1, 9), min_size=1),
)


@given(st.lists(st.lists(ROW, max_size=20), min_size=1, max_size=5))
def test_what_could_not_be_sent_is_sent_later_as_if_it_had_come_then(batches: list[list[Any]]) -> None:
    at_once, waiting = Unsent(), Unsent()
    for batch in batches:
        later = Unsent()
        for flow, moment, fields in batch:
            at_once.add(flow, moment, fields)
            later.add(flow, moment, fields)
        later.take_back(waiting)
        waiting = later
    assert increments(waiting) == increments(at_once)


def test_a_long_outage_keeps_hours_and_the_newest_minutes() -> None:
    waiting = Unsent()
    minutes = 3 * 1440
    for minute in range(minutes):
        later = Unsent()
        later.add("f", minute * 60.0, {"outcome:bypass": 1})
        later.take_back(waiting)
        waiting = later
    assert len(waiting.minutes) == MOST_MINUTES
    assert len(waiting.hours) <= minutes / 60
    assert sum(of(f"count:{{f}}:197001{day:02}", waiting)["outcome:bypass"] for day in (1, 2, 3)) == minutes
    newest = of("count:{f}:1970010323:minutes", waiting)
    assert newest == {f"{minute:02}:bypass": 1 for minute in range(60)}
    assert of("count:{f}:1970010100:minutes", waiting) == {}

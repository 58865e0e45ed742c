"""What counters come to: rates, money, sessions, conditions; and nothing where there is nothing to tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.flows.protocol import FlowHealth, FlowSpec
from agentic_flywheel.insight.condition import condition_of, state_of
from agentic_flywheel.insight.figures import Figures, Price, SessionFigures, figures_of, whole_of
from agentic_flywheel.insight.latency import Latency, bucket_of
from agentic_flywheel.insight.rows import row_of, series_of
from agentic_flywheel.store.counters import added

FIELDS = {
    "outcome:hit": 5, "outcome:similar": 1, "outcome:miss": 3, "outcome:joined": 1, "outcome:stale": 2,
    "reason:exact": 5, "reason:not_stored": 3, "reason:flow_failed": 1, "reason:max_stale": 1,
    "failed": 2, "failed:flow_timeout": 2, "refused": 1, "damaged": 4,
    "hit_us": 6000, f"h{bucket_of(1000)}": 6,
    "calls": 3, "flow_us": 6_000_000, f"f{bucket_of(2e6)}": 3, "errors": 1, "error:flow_timeout": 1,
    "saved_us": 14_000_000, f"s{bucket_of(2e6)}": 7,
    "tokens_in": 3000, "tokens_out": 600, "saved_in": 7000, "saved_out": 1400,
    "session:alone": 4, "session:begun": 2, "session:known": 6, "session:kept": 6, "session:paused": 1,
    "session:unread": 2,
}  # fmt: skip


def test_figures_of_counters() -> None:
    told = figures_of("docs", FIELDS, Price(0.01, 0.001, 0.002))
    assert (told.questions, told.served) == (12, 9)
    assert (told.hit_rate, told.miss_rate) == (9 / 12, 3 / 12)
    assert (told.failed, told.failures, told.refused, told.damaged) == (2, {"flow_timeout": 2}, 1, 4)
    assert (told.calls, told.failed_calls, told.error_rate) == (3, 1, 0.25)
    assert list(told.reasons.items())[:2] == [("exact", 5), ("not_stored", 3)]
    assert told.hits.count == 6
    assert told.hits.mean_ms == 1.0
    assert told.flow.p50_ms == pytest.approx(2000, rel=0.1)
    assert told.saved_seconds == 14
    assert told.saved_p50_seconds == pytest.approx(2, rel=0.1)
    assert told.spent == pytest.approx(3 * 0.01 + 3 * 0.001 + 0.6 * 0.002)
    # Eight of the nine: where an answer stood in for a flow that failed, the flow had been called.
    assert told.saved == pytest.approx(8 * 0.01 + 7 * 0.001 + 1.4 * 0.002)
    assert told.sessions == SessionFigures(
        new=6, alone=4, active=None, resumed=6, after_pause=1, unread=2, continuity=0.75
    )


def test_of_nothing_there_is_no_rate_no_time_and_no_money() -> None:
    told = figures_of("docs", {}, Price())
    assert told.questions == 0
    rates = (told.hit_rate, told.miss_rate, told.error_rate, told.saved_p50_seconds, told.sessions.continuity)
    assert rates == (None,) * 5
    assert told.hits == told.flow == Latency()
    assert (told.spent, told.saved) == (None, None)


@pytest.mark.parametrize(
    ("price", "calls", "tokens", "cost"),
    [
        (Price(), 3, (10, 10), None),
        (Price(0.0), 3, (0, 0), 0.0),
        (Price(0.5), 3, (0, 0), 1.5),
        (Price(None, 0.1, None), 3, (2000, 9000), 0.2),
        (Price(None, 0.1, 0.2), 3, (0, 0), None),  # the flow tells of no tokens, so nothing is known
        (Price(None, 0.1, 0.2), 0, (0, 0), 0.0),
    ],
)
def test_money_where_a_price_is_given(price: Price, calls: int, tokens: tuple[int, int], cost: float | None) -> None:
    assert price.sum(calls, *tokens) == (None if cost is None else pytest.approx(cost))


def test_flows_have_prices_of_their_own_and_the_whole_has_their_sum() -> None:
    free = ({"calls": 9}, Price())
    whole = whole_of([({"calls": 2}, Price(1.0)), ({"calls": 2, "outcome:hit": 1}, Price(0.25)), free], active=7)
    assert (whole.calls, whole.spent, whole.saved, whole.sessions.active) == (13, 2.5, 0.25, 7)
    assert whole_of([free]).spent is None


COUNTS = st.dictionaries(st.sampled_from(sorted(FIELDS)), st.integers(0, 1000))


@given(st.lists(COUNTS, min_size=1, max_size=6))
def test_the_whole_is_told_from_the_sums_of_its_parts(parts: list[dict[str, int]]) -> None:
    each = [figures_of("", part, Price()) for part in parts]
    whole = figures_of("", added(parts), Price())
    assert whole.questions == sum(one.questions for one in each)
    assert whole.hits.count == sum(one.hits.count for one in each)
    assert whole.hit_rate is None or 0 <= whole.hit_rate <= 1


def test_a_series_has_columns_of_one_length_and_zeros_where_nothing_was_asked() -> None:
    starts = [3600.0, 7200.0, 10800.0]
    series = series_of(starts, [{}, FIELDS, {}], step_seconds=3600, until=12000.0, flow="docs")
    columns: dict[str, Any] = {name: getattr(series, name) for name in series.__struct_fields__}
    lengths = {len(column) for column in columns.values() if isinstance(column, tuple)}
    assert lengths | {len(column) for column in series.outcomes.values()} == {3}
    assert series.questions == (0, 12, 0)
    assert series.outcomes["hit"] == (0, 5, 0)
    assert series.hit_rate == (None, 0.75, None)
    assert series.saved_seconds == (0.0, 14.0, 0.0)
    assert series_of(starts, [{}, {}, {}], step_seconds=60, until=12000.0, flow="").saved_seconds == (None,) * 3


def test_a_row_says_what_its_figures_do() -> None:
    row = row_of(figures_of("docs", FIELDS, Price(0.01)), name="2026-11-22", at=5.0)
    assert (row.name, row.at, row.questions, row.served, row.failed) == ("2026-11-22", 5.0, 12, 9, 2)
    assert row.saved == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("calls", "failed", "active", "reachable", "state"),
    [
        (0, 0, True, None, "unused"),
        (100, 2, True, True, "ok"),
        (9, 1, True, None, "failing"),
        (3, 1, True, None, "ok"),  # four calls say little
        (0, 5, True, True, "failing"),
        (100, 0, True, False, "unreachable"),
        (100, 0, False, None, "inactive"),
    ],
)
def test_a_word_for_the_condition_of_a_flow(
    calls: int, failed: int, active: bool, reachable: bool | None, state: str
) -> None:
    rate = failed / (calls + failed) if calls + failed else None
    figures = Figures(outcomes={}, questions=calls, calls=calls, failed_calls=failed, error_rate=rate)
    assert state_of(figures, active=active, reachable=reachable) == state


def test_a_condition_tells_what_was_seen_when_somebody_looked() -> None:
    spec = FlowSpec(key="docs", id="docs", kind="documents")
    figures = figures_of("docs", FIELDS, Price())
    looked = FlowHealth(ok=False, notes=("gone",), elapsed_ms=2.0)
    told = condition_of(spec, figures, {"wrong": 1}, looked)
    assert (told.state, told.reachable, told.notes, told.check_ms) == ("unreachable", False, ("gone",), 2.0)
    assert (told.reports, told.latency, told.error_rate) == ({"wrong": 1}, figures.flow, 0.25)
    assert condition_of(spec, figures, {}, None).reachable is None

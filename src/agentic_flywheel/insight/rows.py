"""Reports of usage as they are given out: in all, over time, and in rows; the same in Python, JSON and charts.

Invariant: a value that a row cannot tell is None; a count of nothing is 0. Times are epoch seconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentic_flywheel.insight.figures import SERVED, Figures, Price, figures_of
from agentic_flywheel.model import Outcome
from agentic_flywheel.store.counters import Tier


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What questions came to from `since` on, up to `until`: in all, and by flow. `flow` is "" or the one asked for."""

    since: float
    until: float
    flow: str = ""
    currency: str
    total: Figures
    flows: tuple[Figures, ...]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over time in columns of equal length, as charts take them. `at` is where each step begins.

    Times are None in steps without any, and in all steps of less than an hour.
    """

    since: float
    until: float
    step_seconds: int
    flow: str = ""
    at: tuple[float, ...]
    questions: tuple[int, ...]
    outcomes: dict[str, tuple[int, ...]]
    failed: tuple[int, ...]
    hit_rate: tuple[float | None, ...]
    hit_p50_ms: tuple[float | None, ...]
    hit_p95_ms: tuple[float | None, ...]
    flow_p50_ms: tuple[float | None, ...]
    flow_p95_ms: tuple[float | None, ...]
    saved_seconds: tuple[float | None, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a breakdown. `at` is when an hour or a day begins; `share` is of all questions."""

    name: str
    at: float | None = None
    questions: int
    served: int | None = None
    hit_rate: float | None = None
    share: float | None = None
    failed: int | None = None
    hit_p50_ms: float | None = None
    hit_p95_ms: float | None = None
    flow_p50_ms: float | None = None
    flow_p95_ms: float | None = None
    saved_seconds: float | None = None
    spent: float | None = None
    saved: float | None = None
    active_sessions: int | None = None


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Figures in rows by `by`: hour, day, flow, reason, intent or user."""

    by: str
    since: float
    until: float
    flow: str = ""
    currency: str
    rows: tuple[Row, ...]


def row_of(figures: Figures, *, name: str | None = None, at: float | None = None) -> Row:
    """Figures as a row."""
    return Row(
        name=figures.name if name is None else name,
        at=at,
        questions=figures.questions,
        served=figures.served,
        hit_rate=figures.hit_rate,
        failed=figures.failed,
        hit_p50_ms=figures.hits.p50_ms,
        hit_p95_ms=figures.hits.p95_ms,
        flow_p50_ms=figures.flow.p50_ms,
        flow_p95_ms=figures.flow.p95_ms,
        saved_seconds=figures.saved_seconds,
        spent=figures.spent,
        saved=figures.saved,
        active_sessions=figures.sessions.active,
    )


def series_of(
    starts: Sequence[float], steps: Sequence[Mapping[str, int]], *, step_seconds: int, until: float, flow: str
) -> Series:
    """Counters by step as a series."""
    outcomes = {outcome.value: tuple(fields.get(f"outcome:{outcome}", 0) for fields in steps) for outcome in Outcome}
    questions = tuple(map(sum, zip(*outcomes.values(), strict=True)))
    served = map(sum, zip(*(outcomes[name] for name in SERVED), strict=True))
    nothing = (None,) * len(steps)
    timed = [figures_of("", fields, Price()) for fields in steps] if step_seconds >= Tier.HOUR else []
    return Series(
        since=starts[0],
        until=until,
        step_seconds=step_seconds,
        flow=flow,
        at=tuple(starts),
        questions=questions,
        outcomes=outcomes,
        failed=tuple(fields.get("failed", 0) for fields in steps),
        hit_rate=tuple(hits / asked if asked else None for hits, asked in zip(served, questions, strict=True)),
        hit_p50_ms=tuple(row.hits.p50_ms for row in timed) or nothing,
        hit_p95_ms=tuple(row.hits.p95_ms for row in timed) or nothing,
        flow_p50_ms=tuple(row.flow.p50_ms for row in timed) or nothing,
        flow_p95_ms=tuple(row.flow.p95_ms for row in timed) or nothing,
        saved_seconds=tuple(row.saved_seconds for row in timed) or nothing,
    )

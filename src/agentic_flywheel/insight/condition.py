"""How a flow does: a word for it, and what the word rests on.

Invariant: pure; the word follows from the figures by the rules of `state_of` alone, worst first.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agentic_flywheel.flows.protocol import FlowHealth, FlowSpec
from agentic_flywheel.insight.figures import Figures
from agentic_flywheel.insight.latency import Latency

#: So many calls say something about a flow, and so large a share of failed ones is too many.
TELLING_CALLS = 5
FAILING_RATE = 0.1


class FlowCondition(msgspec.Struct, frozen=True, kw_only=True):
    """One flow: `state` is ok, failing (a tenth or more of its calls fail), unreachable, unused or inactive.

    `reachable` is None where nobody looked, `notes` what the look said. `calls` were answered, `failed_calls` not
    (`errors`, by code); `latency` is that of answered calls. `reports` counts what people said of its answers, by kind.
    """

    flow: str
    kind: str
    state: str
    reachable: bool | None = None
    notes: tuple[str, ...] = ()
    check_ms: float | None = None
    questions: int = 0
    hit_rate: float | None = None
    failed: int = 0
    calls: int = 0
    failed_calls: int = 0
    error_rate: float | None = None
    errors: dict[str, int] = {}
    latency: Latency = Latency()
    hits: Latency = Latency()
    reports: dict[str, int] = {}


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The condition of flows, from `since` on up to `until` (epoch seconds)."""

    since: float
    until: float
    flows: tuple[FlowCondition, ...]


def condition_of(
    spec: FlowSpec, figures: Figures, reports: Mapping[str, int], checked: FlowHealth | None
) -> FlowCondition:
    """The condition of a flow, from its figures and, where somebody looked, what was seen."""
    return FlowCondition(
        flow=spec.key,
        kind=spec.kind,
        state=state_of(figures, active=spec.active, reachable=None if checked is None else checked.ok),
        reachable=None if checked is None else checked.ok,
        notes=() if checked is None else checked.notes,
        check_ms=None if checked is None else checked.elapsed_ms,
        questions=figures.questions,
        hit_rate=figures.hit_rate,
        failed=figures.failed,
        calls=figures.calls,
        failed_calls=figures.failed_calls,
        error_rate=figures.error_rate,
        errors=figures.errors,
        latency=figures.flow,
        hits=figures.hits,
        reports=dict(reports),
    )


def state_of(figures: Figures, *, active: bool, reachable: bool | None) -> str:
    """A word for the condition of a flow.

    >>> state_of(Figures(outcomes={}), active=True, reachable=True)
    'unused'
    >>> state_of(Figures(outcomes={}, calls=7, failed_calls=3, error_rate=0.3), active=True, reachable=None)
    'failing'
    """
    if not active:
        return "inactive"
    if reachable is False:
        return "unreachable"
    calls = figures.calls + figures.failed_calls
    if calls >= TELLING_CALLS and (figures.error_rate or 0.0) >= FAILING_RATE:
        return "failing"
    return "ok" if figures.questions or calls or figures.failed else "unused"

"""What the tools about usage return: figures, rows, conditions of flows.

Invariant: as for `results`: these models describe what the facade gives, and compute nothing.
"""

from __future__ import annotations

from pydantic import Field

from agentic_flywheel.interfaces.mcp.results import Result


class LatencyResult(Result):
    """Times in milliseconds; null where there are none. The mean is exact, percentiles are right within 9.1 %."""

    count: int = 0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class SessionFiguresResult(Result):
    """What questions came to as parts of conversations."""

    new: int = Field(description="Conversations that began.")
    alone: int = Field(description="Of those, by a question that named none.")
    active: int | None = Field(None, description="Conversations with a question in this time; null: not known.")
    resumed: int = Field(description="Questions in a conversation that was there.")
    after_pause: int = Field(description="Of those, after half an hour or more.")
    unread: int = Field(description="Questions in a conversation that could not be read.")
    continuity: float | None = Field(None, description="Share of resumed questions that got the earlier turns, 0 to 1.")


class FiguresResult(Result):
    """What became of questions, of one flow or of all."""

    name: str = Field("", description="The flow's key; empty: all.")
    questions: int = Field(description="Answered questions.")
    served: int = Field(description="Of those, without a call of the flow of their own.")
    hit_rate: float | None = Field(None, description="served / questions, 0 to 1.")
    miss_rate: float | None = Field(None, description="Answered by the flow and stored, as a share of all, 0 to 1.")
    outcomes: dict[str, int]
    reasons: dict[str, int] = Field({}, description="Why answers were served, or not.")
    failed: int = Field(description="Questions that ended in an error of the flow.")
    failures: dict[str, int] = Field({}, description="Those by the error's code.")
    refused: int = 0
    damaged: int = 0
    hits: LatencyResult = Field(description="Times of hits.")
    flow: LatencyResult = Field(description="Times of the flow's calls.")
    calls: int = Field(description="Calls of the flow that were answered, in the background too.")
    warm_calls: int = Field(0, description="Those of them that warm-ups made.")
    failed_calls: int = 0
    errors: dict[str, int] = Field({}, description="Failed calls by the error's code.")
    error_rate: float | None = Field(None, description="Failed calls as a share of all calls, 0 to 1.")
    saved_seconds: float = 0.0
    saved_p50_seconds: float | None = Field(None, description="Half of the answers served again saved no more.")
    tokens_in: int = 0
    tokens_out: int = 0
    saved_tokens_in: int = 0
    saved_tokens_out: int = 0
    spent: float | None = Field(None, description="Cost of the calls; null: the registry has no price.")
    saved: float | None = Field(None, description="Cost of the calls that were not needed; null: no price.")
    sessions: SessionFiguresResult


class RowResult(Result):
    """One row; what it cannot tell is null."""

    name: str
    at: float | None = Field(None, description="When an hour or a day begins, epoch seconds.")
    questions: int
    served: int | None = None
    hit_rate: float | None = None
    share: float | None = Field(None, description="Of all questions, 0 to 1.")
    failed: int | None = None
    hit_p50_ms: float | None = None
    hit_p95_ms: float | None = None
    flow_p50_ms: float | None = None
    flow_p95_ms: float | None = None
    saved_seconds: float | None = None
    spent: float | None = None
    saved: float | None = None
    active_sessions: int | None = None


class UsageResult(Result):
    """Usage in all and in rows. Times are epoch seconds, widened to whole hours or days of UTC."""

    since: float
    until: float
    flow: str = Field("", description="The only flow that is counted; empty: all.")
    by: str
    currency: str
    total: FiguresResult
    rows: list[RowResult]


class FlowConditionResult(Result):
    """How one flow does."""

    flow: str
    kind: str
    state: str = Field(description="ok, failing, unreachable, unused or inactive.")
    reachable: bool | None = Field(None, description="Whether it could be asked just now; null: nobody looked.")
    notes: list[str] = Field([], description="What the look said.")
    check_ms: float | None = None
    questions: int = 0
    hit_rate: float | None = None
    failed: int = 0
    calls: int = 0
    failed_calls: int = 0
    error_rate: float | None = None
    errors: dict[str, int] = Field({}, description="Failed calls by the error's code.")
    latency: LatencyResult = Field(description="Times of its answered calls.")
    hits: LatencyResult
    reports: dict[str, int] = Field({}, description="What people said of its answers: wrong, outdated, private.")


class FlowHealthResult(Result):
    """How the flows do, from `since` on, up to `until`."""

    since: float
    until: float
    flows: list[FlowConditionResult]

"""The tools that look at answered questions one by one and judge them: `flowise_trace_view`, `flowise_trace_search`,
`flowise_quality_score`; and the resource `flowise://traces`.

Invariant: they translate; what is shown to whom, and what a judgement does, is decided by `Flywheel.traces` alone. They
work on the sessions' own record, so without Langfuse as well, and say so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self

import msgspec
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.interfaces.mcp.arguments import FlowFilter, Since, Until, UserId
from agentic_flywheel.interfaces.mcp.results import Config, Result, TurnResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.traced import Judgement, JudgementReceipt, TraceFound, TracePage, TraceView

_RECENT = 20


class JudgementResult(Result):
    """What somebody said of an answer."""

    name: Annotated[str, Field(description="quality (1 to 10), or reported_wrong, _outdated, _private.")]
    turn_id: Annotated[str, Field(description="Empty where it was said of the whole conversation.")]
    value: float
    why: str
    by: str
    at: float


class StepResult(Result):
    """One step that was taken; `ms` is null where only the trace itself tells."""

    name: str
    facts: dict[str, Any]
    ms: float | None


class TraceResult(Result):
    """One answered question."""

    trace_id: str
    name: Annotated[str, Field(description="What its trace is called: intent or flow, and the first words.")]
    turn: TurnResult
    flow_id: str
    flow_name: str
    cache_hit: bool
    response_length: int
    execution_ms: float
    steps: list[StepResult]
    judgements: list[JudgementResult]
    link: Annotated[str, Field(description="Where people look at the trace; empty where none is made.")]
    origin_link: Annotated[str, Field(description="The same for the trace that computed an answer from memory.")]
    previous_trace_id: str
    exported: Annotated[str, Field(description="Where traces go: otlp, langfuse; empty: nowhere.")]
    config_used: Config
    tokens_in: int
    tokens_out: int
    notes: list[str]

    @classmethod
    def of(cls, view: TraceView) -> Self:
        """The result for `view`."""
        facts = msgspec.structs.asdict(view) | {
            "turn": TurnResult.of(view.turn),
            "execution_ms": view.turn.elapsed_ms,
            "config_used": view.config,
        }
        return cls.model_validate(facts)


class TraceFoundResult(Result):
    """One question among the traces; flowise_trace_view tells more of it."""

    trace_id: str
    turn_id: str
    session_id: str
    at: float
    question: str
    flow: str
    user: str
    outcome: str
    cache_hit: bool
    elapsed_ms: float
    quality: Annotated[float | None, Field(description="The mean of what people gave, 1 to 10; null: nobody did.")]
    judgements: list[JudgementResult]
    link: str

    @classmethod
    def of(cls, found: TraceFound) -> Self:
        """The result for `found`."""
        turn = found.turn
        return cls(
            trace_id=found.trace_id,
            turn_id=turn.id,
            session_id=turn.session_id,
            at=turn.at,
            question=turn.question,
            flow=turn.flow,
            user=turn.user,
            outcome=turn.outcome.value,
            cache_hit=turn.outcome.value in {"hit", "similar", "stale"},
            elapsed_ms=turn.elapsed_ms,
            quality=found.quality,
            judgements=[JudgementResult.model_validate(one) for one in found.judgements],
            link=found.link,
        )


class TracePageResult(Result):
    """A page of traces."""

    found: list[TraceFoundResult]
    looked_at: Annotated[int, Field(description="How many questions were looked at for it.")]
    cursor: Annotated[str, Field(description="Continues the list; empty at its end.")]
    exported: Annotated[str, Field(description="Where traces go: otlp, langfuse; empty: nowhere.")]
    warnings: list[str]

    @classmethod
    def of(cls, page: TracePage) -> Self:
        """The result for `page`."""
        found = [TraceFoundResult.of(one) for one in page.found]
        return cls.model_validate(msgspec.structs.asdict(page) | {"found": found})


class QualityResult(Result):
    """A judgement that was kept."""

    judgement: JudgementResult
    session_id: str
    trace_id: str
    link: str
    exported: Annotated[str, Field(description="Where it went as well: otlp, langfuse; empty: nowhere.")]

    @classmethod
    def of(cls, receipt: JudgementReceipt) -> Self:
        """The result for `receipt`."""
        return cls.model_validate(receipt)


TraceId = Annotated[
    str | None,
    Field(min_length=1, description="The trace_id or turn_id of an answer, or `last` for that of session_id."),
]
InSession = Annotated[
    str | None,
    Field(description="The conversation of the answer; it is found sooner, and within a trace that you brought along."),
]
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


def add_trace_tools(server: FlywheelServer) -> None:
    """Register tools and resource on `server`."""
    flywheel = server.flywheel

    @server.tool(title="Look at a trace", annotations=_READS)
    async def flowise_trace_view(
        trace_id: TraceId = None, session_id: InSession = None, user_id: UserId = None
    ) -> Annotated[CallToolResult, TraceResult]:
        """Show what became of one question: steps taken, where its answer came from, its cost, judgements, the link.

        Use it to explain one answer, with the trace_id that came with it. Do not use it to read a conversation
        (flowise_session_history), nor to find questions (flowise_trace_search). It needs no Langfuse: it shows what
        the conversation has kept, and links to the full trace where traces are made.
        """
        view = await flywheel.traces.view(trace_id or "last", session=session_id, user=user_id)
        return answered(TraceResult.of(view), _view_text(view), *(f"Note: {note}" for note in view.notes))

    @server.tool(title="Search traces", annotations=_READS)
    async def flowise_trace_search(
        query: Annotated[str, Field(description="Words of question and answer; empty: the newest.")] = "",
        since: Since = None,
        until: Until = None,
        flow: FlowFilter = None,
        min_score: Annotated[float | None, Field(ge=1, le=10, description="Only answers judged so, or better.")] = None,
        max_score: Annotated[float | None, Field(ge=1, le=10, description="Only answers judged so, or worse.")] = None,
        session_id: Annotated[str | None, Field(description="Only this conversation.")] = None,
        user_id: UserId = None,
        limit: Annotated[int, Field(ge=1, le=100, description="How many.")] = 10,
        cursor: Annotated[str, Field(description="The cursor of the page before.")] = "",
    ) -> Annotated[CallToolResult, TracePageResult]:
        """List answered questions with outcome, time taken, judgements and link, by words, time, flow or score.

        Use it to find the trace_id of a question, or answers that people called bad (max_score). Do not use it to learn
        what was answered (flowise_search_history has excerpts), nor for figures (flowise_usage_analytics).
        """
        page = await flywheel.traces.search(
            query,
            since=since,
            until=until,
            flow=flow,
            user=user_id,
            session=session_id,
            least=min_score,
            most=max_score,
            limit=limit,
            cursor=cursor,
        )
        heading = f"{len(page.found)} answered questions, of {page.looked_at} looked at."
        more = f"More with cursor {page.cursor}." if page.cursor else ""
        notes = (f"Note: {warning}" for warning in page.warnings)
        return answered(TracePageResult.of(page), heading, *map(_found_text, page.found), *notes, more)

    @server.tool(
        title="Score an answer",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
        ),
    )
    async def flowise_quality_score(
        score: Annotated[float, Field(ge=1, le=10, description="How good it was: 1 (bad) to 10 (excellent).")],
        trace_id: TraceId = None,
        session_id: Annotated[
            str | None, Field(description="The conversation of the answer; alone, it is judged as a whole.")
        ] = None,
        feedback: Annotated[str, Field(max_length=2000, description="Why, in the person's own words.")] = "",
        user_id: UserId = None,
    ) -> Annotated[CallToolResult, QualityResult]:
        """Keep how good an answer (trace_id) or a conversation (session_id alone) was, 1 to 10; Langfuse is told too.

        Use it when the person you work for says how good something was. Do not use it for an answer that is wrong or
        outdated: flowise_report_answer takes that out of use; a score changes nothing of what is served.
        """
        receipt = await flywheel.traces.judge(score, id=trace_id, session=session_id, feedback=feedback, user=user_id)
        what = f"the answer of trace {receipt.trace_id}" if receipt.trace_id else f"session {receipt.session_id}"
        where = f", and passed on to where traces go ({receipt.exported})" if receipt.exported else ""
        return answered(QualityResult.of(receipt), f"Kept: {what} was given {score:g} of 10{where}.", receipt.link)

    @server.resource("flowise://traces", title="Newest questions", mime_type="application/json")
    async def traces() -> str:
        """The newest answered questions with outcome, time taken, judgements and the link to each trace."""
        page = await flywheel.traces.search(user=server.caller_user(), limit=_RECENT)
        return TracePageResult.of(page).model_dump_json(indent=2)


def _view_text(view: TraceView) -> str:
    turn = view.turn
    hit = "from memory" if view.cache_hit else "not from memory"
    came = f"{turn.outcome.value}, {turn.reason.value}, {hit}, {turn.elapsed_ms:.1f} ms"
    lines = [
        f"Trace {view.trace_id} ({view.name}): {came}.",
        f"Turn {turn.id} of session {turn.session_id}, {_moment(turn.at)}.",
        *(
            f"- {step.name}: {', '.join(f'{name} {value}' for name, value in step.facts.items() if value)}"
            + (f" ({step.ms:.1f} ms)" if step.ms is not None else "")
            for step in view.steps
        ),
        *(_judgement_text(one) for one in view.judgements),
    ]
    if view.link:
        lines.append(f"Trace: {view.link}")
    if view.origin_link:
        lines.append(f"Computed in: {view.origin_link}")
    return "\n".join(lines)


def _judgement_text(said: Judgement) -> str:
    value = f" {said.value:g}/10" if said.name == "quality" else ""
    return f"Said of it: {said.name}{value}" + (f" ({said.why})" if said.why else "")


def _found_text(found: TraceFound) -> str:
    turn = found.turn
    quality = "" if found.quality is None else f", quality {found.quality:g}/10"
    return (
        f"[{_moment(turn.at)}, {turn.flow}, {turn.outcome.value}, {turn.elapsed_ms:.0f} ms{quality}, "
        f"trace {found.trace_id}] {turn.question}"
    )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")

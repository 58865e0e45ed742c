"""The tool that asks before anybody asks: `flowise_warm_cache`.

Invariant: it only translates, and bounds; what may be warmed is decided by `Flywheel.warming` alone.
"""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from agentic_flywheel.amounts import counted
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter
from agentic_flywheel.interfaces.mcp.results import Result
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.warmups import WarmBudget, WarmPath, WarmReport

#: A client waits for the result, so one call stays small; the command and the schedule have no such bound.
_MOST_QUESTIONS = 50


class WarmQuestion(BaseModel):
    """A question to warm, and the follow-ups of its path."""

    model_config = ConfigDict(extra="forbid")

    question: Annotated[str, Field(min_length=1, description="The question, as people would ask it.")]
    then: Annotated[list[str], Field(max_length=10, description="Follow-ups, each asked after the one before.")] = []
    flow: Annotated[str, Field(description="Ask this flow (its key); empty: it is routed.")] = ""
    standalone: Annotated[bool, Field(description="It needs no earlier question, whatever its words.")] = False


class WarmItemResult(Result):
    """One question, and what came of it."""

    question: Annotated[str, Field(description="Empty where its words are not kept.")]
    path: Annotated[list[str], Field(description="The questions before it.")]
    flow: str
    outcome: Annotated[str, Field(description="stored, warm (it was already), refused, failed, left or due (dry run).")]
    reason: str
    note: str
    key: str


class WarmResult(Result):
    """What came of a warm-up."""

    job: Annotated[str, Field(description="Its id; give it as `resume` to go on. Empty for a dry run.")]
    state: Annotated[str, Field(description="done, left (a bound was reached) or dry.")]
    sources: list[str]
    total: Annotated[int, Field(description="How many questions there are.")]
    asked: Annotated[int, Field(description="Calls of flows.")]
    stored: int
    warm: Annotated[int, Field(description="A fresh answer was there already.")]
    refused: int
    failed: int
    left: int
    due: Annotated[int, Field(description="A dry run: would be asked.")]
    bound: Annotated[str | None, Field(description="What ended it early: calls, time, money, flow or stopped.")]
    refusals: Annotated[dict[str, int], Field(description="Why policy refused, and how often.")]
    failures: dict[str, int]
    money: Annotated[float | None, Field(description="What its calls cost; null: no price is known.")]
    currency: str
    seconds: float
    warnings: list[str]
    items: list[WarmItemResult]


def add_warming_tools(server: FlywheelServer) -> None:
    """Register the tool on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Ask questions before anybody does",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=True
        ),
    )
    async def flowise_warm_cache(
        ctx: Context[Any, Any],
        questions: Annotated[
            list[WarmQuestion], Field(max_length=_MOST_QUESTIONS, description="Questions, each with its follow-ups.")
        ] = [],  # noqa: B006 (pydantic copies it)
        popular: Annotated[int, Field(ge=0, le=_MOST_QUESTIONS, description="So many popular questions.")] = 0,
        follow_ups: Annotated[
            int, Field(ge=0, le=5, description="So many of what is asked next after each popular question.")
        ] = 0,
        faq: Annotated[bool, Field(description="The questions of the FAQ.")] = False,
        flow: FlowFilter = None,
        max_calls: Annotated[int, Field(ge=1, le=_MOST_QUESTIONS, description="Most calls of flows.")] = 20,
        max_seconds: Annotated[float, Field(gt=0, le=300, description="No call begins after so long.")] = 60,
        refresh: Annotated[bool, Field(description="Ask although a fresh answer is stored.")] = False,
        dry_run: Annotated[bool, Field(description="Only say what would be asked.")] = False,
        resume: Annotated[str, Field(description="Go on with the warm-up of this id, and nothing else.")] = "",
    ) -> Annotated[CallToolResult, WarmResult]:
        """Ask questions before anybody does and store the answers, so that whoever asks them is answered at once.

        Use it after a flow changed, before a team begins with it, or to fill the memory with popular questions. It
        runs flows, which may cost money: begin with dry_run. Do not use it to get an answer (flowise_query), not for a
        single question (flowise_query stores its answer by itself), and not for what belongs to one person: only what
        the whole team may share is asked. What its bounds leave goes on with resume, or with `afw warm`.
        """
        budget = WarmBudget(calls=max_calls, seconds=max_seconds)
        if resume:
            warm_up = await flywheel.warming.resume(resume, budget=budget)
        else:
            warm_up = await flywheel.warming.begin(
                [
                    WarmPath(questions=(one.question, *one.then), flow=one.flow, standalone=one.standalone)
                    for one in questions
                ],
                popular=popular,
                follow_ups=follow_ups,
                faq=faq,
                flow=flow,
                budget=budget,
                refresh=refresh,
                dry_run=dry_run,
            )
        try:
            async for progress in warm_up:
                told = f"{progress.item.outcome.value}: {progress.item.question}"
                await ctx.report_progress(progress.done, progress.total, told)
        finally:
            await warm_up.aclose()
        report = warm_up.report
        return answered(WarmResult.model_validate(report), _report_text(report))


def _report_text(report: WarmReport) -> str:
    counts = {
        "stored": report.stored,
        "warm already": report.warm,
        "would be asked": report.due,
        "refused": report.refused,
        "failed": report.failed,
        "left": report.left,
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to do"
    lines = [f"{counted(report.total, 'questions')}: {told}; {counted(report.asked, 'calls')} of flows."]
    for name, reasons in (("Refused", report.refusals), ("Failed", report.failures)):
        if reasons:
            lines.append(f"{name}: {', '.join(f'{count} {reason}' for reason, count in reasons.items())}.")
    if report.job and (report.left or report.failed):
        lines.append(f"Go on with resume={report.job!r}.")
    return "\n".join([*lines, *(f"Note: {warning}" for warning in report.warnings)])

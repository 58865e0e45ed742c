"""The tools that look after stored answers: `flowise_cache_stats`, `flowise_clear_cache`, `flowise_set_ttl`.

Invariant: nothing is removed unless the caller confirms; without confirmation the same call says what it would do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.amounts import counted
from agentic_flywheel.cache_figures import CacheFigures, FlowFigures
from agentic_flywheel.durations import parse_duration, show_duration
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter, Since, Until
from agentic_flywheel.interfaces.mcp.results import CacheStatsResult, LifetimeResult, ReceiptResult, TopQueryResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.model import Receipt

#: Questions that are told among the figures; flowise_popular_questions has more.
_TOP = 5


def add_cache_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Show what the memory saves",
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    async def flowise_cache_stats(
        flow: FlowFilter = None,
        days: Annotated[int, Field(ge=1, le=90, description="How many days back; today is one.")] = 7,
        since: Since = None,
        until: Until = None,
    ) -> Annotated[CallToolResult, CacheStatsResult]:
        """Count hits, misses and their reasons, times with and without the flow, stored answers; per flow and in all.

        Use it to judge how much is answered from memory; since and until take the place of days. Do not use it to find
        one answer: the flowise_query that gave it says where it came from; nor for who asks what, and when
        (flowise_usage_analytics).
        """
        figures, result = await cache_stats(flywheel, flow=flow, days=days, since=since, until=until)
        lines = [_figures_line(each) for each in (*figures.flows, figures.total)]
        window = f"The last {days} days" if since is None and until is None else "In this time"
        top = [f"{each.asked} times: {each.question}" for each in result.top_queries]
        return answered(result, f"{window}:\n" + "\n".join(lines), "Asked most:\n" + "\n".join(top) if top else "")

    @server.tool(
        title="Clear stored answers",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def flowise_clear_cache(
        flow: Annotated[str | None, Field(description="All answers of this flow (its key).")] = None,
        session_id: Annotated[str | None, Field(description="The answers that this conversation contributed.")] = None,
        user_id: Annotated[
            str | None, Field(description="The answers that this user's conversations contributed.")
        ] = None,
        key: Annotated[str | None, Field(description="The one answer under this key, from an earlier result.")] = None,
        everything: Annotated[bool, Field(description="All stored answers of the tenant.")] = False,
        confirm: Annotated[
            bool, Field(description="Do it. Left out or false: only say what would be removed.")
        ] = False,
    ) -> Annotated[CallToolResult, ReceiptResult]:
        """Remove stored answers of one flow, session, user or key, or everything: name exactly one. Turns are kept.

        Use it after something changed that a flow's configuration does not show (its documents, the world), and
        without confirm first. Do not use it after changing a flow's configuration: its old answers are no longer
        served anyway; nor for one fresh answer (flowise_query with no_cache).
        """
        receipt = await flywheel.cache.clear(
            flow=flow, session=session_id, user=user_id, key=key, everything=everything, dry_run=not confirm
        )
        return answered(ReceiptResult.model_validate(receipt), _receipt_text(receipt))

    @server.tool(
        title="Set how long answers stay good",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def flowise_set_ttl(
        name: Annotated[
            str,
            Field(description="A flow type (technical, creative, document) or a flow's key (`flow:KEY` if both)."),
        ],
        ttl: Annotated[
            str | None,
            Field(description="Such as 7d, 36h, 90m, 45s or whole seconds. Left out or null: back to the default."),
        ] = None,
    ) -> Annotated[CallToolResult, LifetimeResult]:
        """Set the lifetime of a flow's or a flow type's stored answers, in all running processes at once.

        Use it when answers of a flow go out of date faster or slower than its type suggests. Do not use it to be
        rid of answers that are wrong now (flowise_clear_cache).
        """
        if ttl is None:
            row = await flywheel.lifetimes.reset(name)
        else:
            row = await flywheel.lifetimes.set(name, parse_duration(ttl))
        shown = show_duration(timedelta(seconds=row.ttl_seconds))
        return answered(
            LifetimeResult.model_validate(row),
            f"Answers of {row.kind} {row.name} stay good for {shown} ({row.origin}).",
        )


async def cache_stats(
    flywheel: Flywheel,
    *,
    flow: str | None = None,
    days: int = 7,
    since: str | None = None,
    until: str | None = None,
) -> tuple[CacheFigures, CacheStatsResult]:
    """The figures of the cache, and what is told of them: with the questions that were asked most on these days."""
    figures = await flywheel.cache.stats(flow=flow, days=days, since=since, until=until)
    top = await flywheel.popular.list(flow=flow, limit=_TOP, since=figures.since, until=figures.until)
    result = CacheStatsResult.model_validate(figures)
    result.top_queries = [TopQueryResult.model_validate(question) for question in top]
    return figures, result


def _figures_line(figures: FlowFigures) -> str:
    times = [
        f"{what} {value:.0f} ms"
        for what, value in (("the mean hit took", figures.hit_ms), ("the flow", figures.flow_ms))
        if value is not None
    ]
    return ", ".join(
        [
            f"{figures.flow or 'all flows'}: {counted(figures.questions, 'questions')}",
            f"{figures.hit_rate:.0%} from memory",
            *times,
            f"{show_duration(timedelta(seconds=figures.saved_seconds))} saved",
            f"{counted(figures.entries, 'answers')} stored",
        ]
    )


def _receipt_text(receipt: Receipt) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in receipt.removed.items() if count) or "nothing"
    notes = "".join(f"\n{note}" for note in receipt.notes)
    if receipt.dry_run:
        return (
            f"Nothing was removed yet. {receipt.target}: {counts} would be removed, {receipt.unreachable} answers no "
            f"longer served. Call again with confirm=true to do it.{notes}"
        )
    return f"{receipt.target}: removed {counts}; {receipt.unreachable} answers are no longer served.{notes}"

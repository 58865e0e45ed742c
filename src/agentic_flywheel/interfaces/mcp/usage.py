"""The tools about usage: `flowise_usage_analytics`, `flowise_flow_health`.

Invariant: figures hold no words of anybody, and what each user asked is shown to that user and to the operator alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.amounts import counted
from agentic_flywheel.insight.condition import FlowCondition
from agentic_flywheel.insight.figures import Figures
from agentic_flywheel.insight.rows import Row
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter, Since, Until, UserId
from agentic_flywheel.interfaces.mcp.figures import FlowHealthResult, UsageResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered

_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
#: Rows that are written out in the text; all are in the structure.
_SHOWN = 40


def add_usage_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    @server.tool(title="Analyse usage", annotations=_READS)
    async def flowise_usage_analytics(
        since: Since = None,
        until: Until = None,
        flow: FlowFilter = None,
        by: Annotated[
            Literal["flow", "hour", "day", "reason", "intent", "user"], Field(description="A row for each of these.")
        ] = "flow",
        user_id: UserId = None,
    ) -> Annotated[CallToolResult, UsageResult]:
        """Tell how flows are used: questions, share from memory, percentiles of times, errors, time and money saved,
        conversations; in all, and in rows by flow, hour, day, reason, intent or user.

        Use it for questions such as who uses what, when, and what it saves. Do not use it to find out what was asked
        (flowise_search_history), nor whether a flow works now (flowise_flow_health). By user, somebody who is named
        (user_id) sees their own row alone.
        """
        broken = await flywheel.usage.by(by, since=since, until=until, flow=flow, user=user_id)
        report = await flywheel.usage.report(since=broken.since, until=broken.until, flow=flow)
        result = UsageResult.model_validate({**msgspec.structs.asdict(broken), "total": report.total})
        rows = [_row_line(row) for row in broken.rows[:_SHOWN]]
        more = f"\n... and {len(broken.rows) - _SHOWN} more" if len(broken.rows) > _SHOWN else ""
        heading = f"{_utc(report.since)} to {_utc(report.until)}: {_total_line(report.total, report.currency)}"
        return answered(result, heading, f"By {by}:\n" + "\n".join(rows) + more if rows else f"Nothing by {by}.")

    @server.tool(title="Check how flows do", annotations=_READS.model_copy(update={"open_world_hint": True}))
    async def flowise_flow_health(
        flow: FlowFilter = None, since: Since = None
    ) -> Annotated[CallToolResult, FlowHealthResult]:
        """Tell how flows do: whether each can be reached now, p50, p95 and p99 of its calls, share of failed calls with
        their errors, use, and what people reported of its answers; over the last day, or from `since` on.

        Use it when answers fail or are slow, or before a flow is recommended. Do not use it before every question: a
        flow that fails says so itself; nor for what is answered from memory (flowise_cache_stats).
        """
        health = await flywheel.usage.health(flow=flow, since=since)
        lines = [_condition_line(condition) for condition in health.flows] or ["There are no flows."]
        return answered(FlowHealthResult.model_validate(health), f"Since {_utc(health.since)}:\n" + "\n".join(lines))


def _total_line(total: Figures, currency: str) -> str:
    said = [counted(total.questions, "questions")]
    if total.hit_rate is not None:
        said.append(f"{total.hit_rate:.0%} from memory")
    if total.failed:
        said.append(f"{total.failed} failed")
    if total.hits.p50_ms is not None:
        said.append(f"half of the hits took {total.hits.p50_ms:.1f} ms or less")
    if total.flow.p50_ms is not None and total.flow.p95_ms is not None:
        said.append(f"the flows took {total.flow.p50_ms:.0f} ms (p50), {total.flow.p95_ms:.0f} ms (p95)")
    said.append(f"{total.saved_seconds:.0f} s saved")
    if total.saved is not None:
        said.append(f"{total.saved:.2f} {currency} saved")
    return ", ".join(said)


def _row_line(row: Row) -> str:
    said = [f"{row.name}: {counted(row.questions, 'questions')}"]
    if row.share is not None:
        said.append(f"{row.share:.0%} of all")
    if row.hit_rate is not None:
        said.append(f"{row.hit_rate:.0%} from memory")
    if row.failed:
        said.append(f"{row.failed} failed")
    return ", ".join(said)


def _condition_line(condition: FlowCondition) -> str:
    said = [f"{condition.flow} ({condition.kind}): {condition.state}"]
    if condition.error_rate is not None:
        calls = condition.calls + condition.failed_calls
        said.append(f"{condition.failed_calls} of {calls} calls failed ({condition.error_rate:.0%})")
    latency = condition.latency
    if latency.p50_ms is not None and latency.p95_ms is not None and latency.p99_ms is not None:
        said.append(f"p50 {latency.p50_ms:.0f} ms, p95 {latency.p95_ms:.0f} ms, p99 {latency.p99_ms:.0f} ms")
    said += [f"{count} reported {kind}" for kind, count in condition.reports.items()]
    notes = f". {' '.join(condition.notes)}" if condition.reachable is False else ""
    return ", ".join(said) + notes


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")

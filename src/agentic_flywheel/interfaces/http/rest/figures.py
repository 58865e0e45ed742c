"""Figures: what the memory comes to, in all, over time, in rows; of the cache; how flows do."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agentic_flywheel.cache_figures import CacheFigures
from agentic_flywheel.callers import Scope
from agentic_flywheel.insight.condition import HealthReport
from agentic_flywheel.insight.rows import Breakdown, Series, UsageReport
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import FlowFilter, Meta, Moment, Query, UserId
from agentic_flywheel.interfaces.http.rest.operations import Operations

figures = Operations("figures", "What the memory comes to.")


class Window(Query, frozen=True, kw_only=True):
    """Since when, up to when, of which flow; of the last 7 days if nothing is said."""

    since: Moment | None = None
    until: Moment | None = None
    flow: FlowFilter | None = None


@figures.get("/stats", needs=Scope.READ, by_flow=True)
async def usage(call: Call, query: Window) -> UsageReport:
    """What questions came to, in all and by flow: outcomes, times, what was saved, sessions."""
    return await call.flywheel.usage.report(since=query.since, until=query.until, flow=call.one_flow(query.flow))


class SeriesWindow(Window, frozen=True, kw_only=True):
    """The same, in steps."""

    step: Annotated[str, Meta(max_length=32, description="A duration: 5m, 1h, 1d.")] | None = None
    most: Annotated[int, Meta(ge=1, le=1000, description="No more steps than this, where no step is named.")] = 60


@figures.get("/stats/series", needs=Scope.READ, by_flow=True)
async def usage_series(call: Call, query: SeriesWindow) -> Series:
    """The same over time, in columns, as charts take them."""
    return await call.flywheel.usage.series(
        since=query.since, until=query.until, flow=call.one_flow(query.flow), step=query.step, most=query.most
    )


class BrokenDown(Window, frozen=True, kw_only=True):
    """The same, in rows."""

    by: Literal["hour", "day", "flow", "reason", "intent", "user"] = "flow"
    user_id: UserId | None = None


@figures.get("/stats/rows", needs=Scope.READ, by_flow=True)
async def usage_rows(call: Call, query: BrokenDown) -> Breakdown:
    """The same in rows, by flow, hour, day, reason, intent or user.

    By user, a key that is bound to one sees its own row alone.
    """
    return await call.flywheel.usage.by(
        query.by,
        since=query.since,
        until=query.until,
        flow=call.one_flow(query.flow),
        user=call.speaks_for(query.user_id),
    )


class CacheWindow(Window, frozen=True, kw_only=True):
    """Over so many days, unless since or until say otherwise."""

    days: Annotated[int, Meta(ge=1, le=90, description="Over so many days of UTC, today included.")] = 7


@figures.get("/stats/cache", needs=Scope.READ, by_flow=True)
async def cache_stats(call: Call, query: CacheWindow) -> CacheFigures:
    """What the stored answers of each flow came to, and how many there are."""
    found = await call.flywheel.cache.stats(
        flow=call.one_flow(query.flow), days=query.days, since=query.since, until=query.until
    )
    return found if call.caller.may(Scope.ADMIN) else msgspec.structs.replace(found, used_memory_bytes=None)


class HealthWindow(Query, frozen=True, kw_only=True):
    """Since when (the last day), of which flow."""

    since: Moment | None = None
    flow: FlowFilter | None = None
    check: Annotated[bool, Meta(description="Look whether each can be reached now.")] = True


@figures.get("/stats/flows", needs=Scope.READ, by_flow=True)
async def flow_health(call: Call, query: HealthWindow) -> HealthReport:
    """How flows do: whether each can be reached, times of its calls, failures, reports."""
    return await call.flywheel.usage.health(since=query.since, flow=call.one_flow(query.flow), check=query.check)

"""Stored answers: list, one of them and why it is (not) served, clear; and how long they stay good."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.durations import parse_duration
from agentic_flywheel.errors import InputError, UnknownKey
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    Cursor,
    DryRun,
    FlowFilter,
    Limit,
    Meta,
    Query,
    Why,
    carried_out,
)
from agentic_flywheel.interfaces.http.rest.operations import Items, Operations
from agentic_flywheel.model import FlowType, LifetimeRow, Receipt, StoredAnswer

entries = Operations("answers", "Stored answers, and how long they stay good.")

EntryKey = Annotated[str, Meta(min_length=1, max_length=1000, description="The Redis key of a stored answer.")]


class EntryFilter(Query, frozen=True, kw_only=True):
    """Of which flow."""

    flow: FlowFilter | None = None
    limit: Limit = 50
    cursor: Cursor = ""


class EntryItems(Items, frozen=True, kw_only=True):
    """Stored answers, flow by flow, longest-lived first. A page may hold fewer than the limit: what is kept for others
    is left out."""

    items: tuple[StoredAnswer, ...]


@entries.get("/entries", needs=Scope.READ, by_flow=True)
async def list_entries(call: Call, query: EntryFilter) -> EntryItems:
    """List stored answers; those that are kept for one session are for administrators."""
    flow = call.one_flow(query.flow)
    found, cursor = await call.flywheel.cache.list(flow=flow, limit=query.limit, cursor=query.cursor)
    return EntryItems(items=tuple(one for one in found if _sees(call, one)), next_cursor=cursor)


@entries.get("/entries/{key}", needs=Scope.READ, by_flow=True)
async def show_entry(call: Call, key: EntryKey) -> StoredAnswer:
    """One stored answer: where it came from, and whether it would be served now, and why."""
    found = await call.flywheel.cache.show(key)
    if not _sees(call, found):
        raise UnknownKey(f"nothing is stored under {key!r} (any more)", key=key)
    return found


def _sees(call: Call, stored: StoredAnswer) -> bool:
    """Whether a caller may look at an answer: the team's everybody, a user's that user and who speaks for all, a
    session's administrators and its own user."""
    caller = call.caller
    if caller.flows is not None and stored.entry.flow not in caller.flows:
        return False
    if stored.scope == "team" or caller.may(Scope.ADMIN):
        return True
    if caller.user is not None:
        return stored.entry.user == caller.user
    return stored.scope == "user"


class Cleared(Body, frozen=True, kw_only=True):
    """What is cleared: exactly one of the five."""

    flow: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    session_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    user_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    key: EntryKey | None = None
    everything: bool = False
    dry_run: DryRun = False
    why: Why = ""


@entries.post("/entries/clear", needs=Scope.ADMIN)
async def clear_entries(call: Call, body: Cleared) -> Receipt:
    """Clear stored answers: of a flow, those that a session or a user contributed, one, or all. Turns stay."""
    named = {
        "flow": body.flow,
        "session": body.session_id,
        "user": body.user_id,
        "key": body.key,
    }
    target = next((f"{what} {value}" for what, value in named.items() if value is not None), "everything")
    return await carried_out(
        call,
        "entries.clear",
        target,
        lambda dry: call.flywheel.cache.clear(**named, everything=body.everything, dry_run=dry),
        dry_run=body.dry_run,
        why=body.why,
    )


class LifetimeRows(msgspec.Struct, frozen=True, kw_only=True):
    """The lifetimes in force: the three types, then every flow."""

    items: tuple[LifetimeRow, ...]


LifetimeName = Annotated[
    str, Meta(min_length=1, max_length=256, description="technical, creative, document, or a flow's key (flow:KEY).")
]


@entries.get("/lifetimes", needs=Scope.READ, by_flow=True)
async def list_lifetimes(call: Call) -> LifetimeRows:
    """How long answers stay good, by type and by flow, and who said so."""
    rows = await call.flywheel.lifetimes.show()
    known = call.flows
    return LifetimeRows(items=tuple(row for row in rows if known is None or row.kind != "flow" or row.name in known))


class LifetimeSet(Body, frozen=True, kw_only=True):
    """The lifetime: as `ttl` (7d, 36h, 90m) or as `ttl_seconds`, one of both."""

    ttl: Annotated[str, Meta(max_length=64)] | None = None
    ttl_seconds: Annotated[float, Meta(ge=1, le=315_360_000)] | None = None
    why: Why = ""


@entries.put("/lifetimes/{name}", needs=Scope.ADMIN)
async def set_lifetime(call: Call, name: LifetimeName, body: LifetimeSet) -> LifetimeRow:
    """Set the lifetime of a flow type or a flow, at once in every process."""
    if (body.ttl is None) == (body.ttl_seconds is None):
        raise InputError("say ttl or ttl_seconds, one of both")
    ttl = timedelta(seconds=body.ttl_seconds or 0.0) if body.ttl is None else parse_duration(body.ttl)
    await _recorded(call, "lifetime.set", name, why=body.why, ttl_seconds=ttl.total_seconds())
    return await call.flywheel.lifetimes.set(name, ttl)


@entries.delete("/lifetimes/{name}", needs=Scope.ADMIN)
async def reset_lifetime(call: Call, name: LifetimeName) -> LifetimeRow:
    """Take back what was set: registry and settings hold again."""
    await _recorded(call, "lifetime.reset", name)
    return await call.flywheel.lifetimes.reset(name)


async def _recorded(call: Call, action: str, name: str, *, why: str = "", **facts: object) -> None:
    if name not in tuple(FlowType):
        call.flywheel.flows.show(name.removeprefix("flow:"))
    await call.flywheel.audit.record(action, name, by=call.caller.actor, why=why, **facts)

"""Sessions: list, read, name, tag, link, export, delete, forget."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError, NotAllowed, UnknownTurn
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    Cursor,
    DryRun,
    Limit,
    Meta,
    Query,
    Removal,
    SessionId,
    TurnId,
    UserId,
    Why,
    carried_out,
    own_or,
)
from agentic_flywheel.interfaces.http.rest.operations import Items, Operations
from agentic_flywheel.interfaces.http.sight import admit_session, seen_session, seen_sessions, seen_thread
from agentic_flywheel.model import Receipt, Session, Thread, Turn
from agentic_flywheel.threads import LinkedSessions

sessions = Operations("sessions", "Conversations that are kept.")

Tag = Annotated[str, Meta(min_length=1, max_length=256)]


class SessionFilter(Query, frozen=True, kw_only=True):
    """Which sessions."""

    user_id: UserId | None = None
    tag: Annotated[str, Meta(max_length=256, description="Only sessions with this tag.")] | None = None
    limit: Limit = 20
    cursor: Cursor = ""


class SessionItems(Items, frozen=True, kw_only=True):
    """Sessions, the one that was active last first; `warnings` are sentences for people. For a key that is limited to
    flows a page may hold fewer than the limit: sessions of other flows are left out."""

    items: tuple[Session, ...]
    warnings: tuple[str, ...] = ()


@sessions.get("/sessions", needs=Scope.ASK, by_flow=True)
async def list_sessions(call: Call, query: SessionFilter) -> SessionItems:
    """List sessions, the one that was active last first.

    Those of user_id, or of the user that the key speaks for; everybody's with the scope `read`.
    """
    user = call.speaks_for(query.user_id)
    own_or(call, user, call.caller.may(Scope.READ), "sessions")
    page = await call.flywheel.sessions.list(user=user, tag=query.tag, limit=query.limit, cursor=query.cursor)
    return SessionItems(items=await seen_sessions(call, page.sessions), warnings=page.warnings, next_cursor=page.cursor)


class Sweep(Body, frozen=True, kw_only=True):
    """Whether it is done."""

    dry_run: DryRun = False
    why: Why = ""


@sessions.post("/sessions/sweep", needs=Scope.ADMIN)
async def sweep_sessions(call: Call, body: Sweep) -> Receipt:
    """Delete the sessions that nobody has used for longer than `session.retention_days`, and turns past their policies'
    retention."""
    return await carried_out(
        call,
        "session.sweep",
        "past their retention",
        lambda dry: call.flywheel.retention.sweep(dry_run=dry),
        dry_run=body.dry_run,
        why=body.why,
    )


class Newest(Query, frozen=True, kw_only=True):
    """How much of a thread."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Only so many of the newest turns.")] | None = None


@sessions.get("/sessions/{session_id}", needs=Scope.ASK, by_flow=True)
async def show_session(call: Call, session_id: SessionId, query: Newest) -> Thread:
    """Read a session as a thread: its turns, oldest first, what changed between them, its links."""
    await admit_session(call, session_id)
    return seen_thread(call, await call.flywheel.sessions.show(session_id, limit=query.limit))


class TurnFilter(Query, frozen=True, kw_only=True):
    """Which turns."""

    limit: Limit = 20
    cursor: Cursor = ""


class TurnItems(Items, frozen=True, kw_only=True):
    """Turns of a session, the newest first."""

    items: tuple[Turn, ...]
    warnings: tuple[str, ...] = ()


@sessions.get("/sessions/{session_id}/turns", needs=Scope.ASK, by_flow=True)
async def list_turns(call: Call, session_id: SessionId, query: TurnFilter) -> TurnItems:
    """List the turns of a session, the newest first, page by page."""
    await admit_session(call, session_id)
    thread = await call.flywheel.sessions.show(session_id)
    turns, first = thread.turns[::-1], 0
    if query.cursor:
        first = next((at for at, turn in enumerate(turns, 1) if turn.id == query.cursor), -1)
        if first < 0:
            raise UnknownTurn(f"the turn that this page begins after is gone from {session_id!r}: start again")
    page = turns[first : first + query.limit]
    more = page[-1].id if first + query.limit < len(turns) else None
    return TurnItems(items=page, warnings=thread.warnings, next_cursor=more)


@sessions.get("/sessions/{session_id}/turns/{turn_id}", needs=Scope.ASK, by_flow=True)
async def show_turn(call: Call, session_id: SessionId, turn_id: TurnId) -> Turn:
    """Read one turn of a session."""
    await admit_session(call, session_id)
    turns = (await call.flywheel.sessions.show(session_id)).turns
    found = next((turn for turn in turns if turn.id == turn_id), None)
    if found is None:
        raise UnknownTurn(f"no turn {turn_id!r} in session {session_id!r}", turn_id=turn_id, session_id=session_id)
    return found


@sessions.delete("/sessions/{session_id}/turns/{turn_id}", needs=Scope.ASK, by_flow=True)
async def delete_turn(call: Call, session_id: SessionId, turn_id: TurnId, query: Removal) -> Receipt:
    """Remove one turn of a session, and the answer that was kept for it alone.

    For whoever the session belongs to, and administrators.
    """
    await _admit_removal(call, session_id)
    return await carried_out(
        call,
        "turn.delete",
        f"{session_id} {turn_id}",
        lambda dry: call.flywheel.sessions.delete_turn(session_id, turn_id, dry_run=dry),
        dry_run=query.dry_run,
        why=query.why,
    )


class SessionChange(Body, frozen=True, kw_only=True):
    """What is to be changed; what is left out stays. `title` null calls it by what was asked in it again."""

    title: Annotated[str, Meta(max_length=1000)] | msgspec.UnsetType | None = msgspec.UNSET
    add_tags: Annotated[tuple[Tag, ...], Meta(max_length=100)] = ()
    remove_tags: Annotated[tuple[Tag, ...], Meta(max_length=100)] = ()
    config: (
        Annotated[
            dict[str, Any], Meta(description="Laid over the flow's configuration for every later question of it.")
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


@sessions.patch("/sessions/{session_id}", needs=Scope.ASK, by_flow=True)
async def change_session(call: Call, session_id: SessionId, body: SessionChange) -> Session:
    """Give a session a title, tags, or a configuration of its own."""
    await admit_session(call, session_id)
    kept = call.flywheel.sessions
    changed = (await kept.show(session_id, limit=1)).session
    if body.title is not msgspec.UNSET:
        changed = await kept.rename(session_id, body.title)
    if body.add_tags or body.remove_tags:
        changed = await kept.tag(session_id, add=body.add_tags, remove=body.remove_tags)
    if body.config is not msgspec.UNSET:
        changed = await kept.configure(session_id, body.config)
    return seen_session(call, changed)


class LinkSearch(Query, frozen=True, kw_only=True):
    """Who looks, and how far."""

    user_id: UserId | None = None
    limit: Annotated[int, Meta(ge=0, le=50, description="At most so many on the same topic.")] = 5


@sessions.get("/sessions/{session_id}/links", needs=Scope.ASK)
async def show_links(call: Call, session_id: SessionId, query: LinkSearch) -> LinkedSessions:
    """Which sessions belong to one: those that were tied to it, and those of the same user on the same topic."""
    await admit_session(call, session_id)
    return await call.flywheel.links.of(session_id, user=call.speaks_for(query.user_id), limit=query.limit)


@sessions.put("/sessions/{session_id}/links/{other_id}", needs=Scope.ASK)
async def link_sessions(call: Call, session_id: SessionId, other_id: SessionId) -> Thread:
    """Tie two sessions of one user to each other."""
    await admit_session(call, session_id)
    await admit_session(call, other_id)
    return await call.flywheel.sessions.link(session_id, other_id)


@sessions.delete("/sessions/{session_id}/links/{other_id}", needs=Scope.ASK)
async def unlink_sessions(call: Call, session_id: SessionId, other_id: SessionId) -> Thread:
    """Untie two sessions."""
    await admit_session(call, session_id)
    return await call.flywheel.sessions.unlink(session_id, other_id)


class ExportForm(Query, frozen=True, kw_only=True):
    """How it is written."""

    form: Literal["markdown", "json"] = "markdown"
    limit: Annotated[int, Meta(ge=1, le=100_000, description="Only so many of the newest turns.")] | None = None
    private: Annotated[bool, Meta(description="With private turns.")] = True


@sessions.get(
    "/sessions/{session_id}/export",
    needs=Scope.ASK,
    produces={"text/markdown": "The session to read,", "application/json": "or for programs."},
)
async def export_session(call: Call, session_id: SessionId, query: ExportForm) -> Response:
    """A session as a document: Markdown to read, or JSON."""
    await admit_session(call, session_id)
    text = await call.flywheel.sessions.export(session_id, form=query.form, limit=query.limit, private=query.private)
    return Response(text, media_type="application/json" if query.form == "json" else "text/markdown")


@sessions.delete("/sessions/{session_id}", needs=Scope.ASK, by_flow=True)
async def delete_session(call: Call, session_id: SessionId, query: Removal) -> Receipt:
    """Delete a session: its turns go, and the answers that were kept for it alone.

    For whoever the session belongs to, and administrators. What it shared with others stays; /forget takes that, too.
    """
    await _admit_removal(call, session_id)
    return await carried_out(
        call,
        "session.delete",
        session_id,
        lambda dry: call.flywheel.sessions.delete(session_id, dry_run=dry),
        dry_run=query.dry_run,
        why=query.why,
    )


class Forgotten(Body, frozen=True, kw_only=True):
    """Of what or of whom everything is to be forgotten: a session, a user, or what holds `matching` words (everybody's,
    or those of `user_id` alone)."""

    session_id: SessionId | None = None
    user_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    matching: Annotated[str, Meta(min_length=4, max_length=1000)] | None = None
    dry_run: DryRun = False
    why: Why = ""


@sessions.post("/forget", needs=Scope.ASK)
async def forget(call: Call, body: Forgotten) -> Receipt:
    """Remove all that came of a session, of a user or of certain words, wherever it is kept.

    Turns go, and the answers that were computed for them, those that others share included; vectors, counts, wordings,
    drafts, reports. For whoever it is of, and administrators.
    """
    if body.session_id is not None and (body.user_id or body.matching):
        raise InputError("name a session alone, without user_id and matching")
    forgetting, user = call.flywheel.forgetting, body.user_id or ""
    if body.session_id is not None:
        await _admit_removal(call, body.session_id)
        work, action = partial(forgetting.session, body.session_id), "session.forget"
    elif not (user or body.matching):
        raise InputError("name one of session_id, user_id and matching")
    elif not (call.caller.may(Scope.ADMIN) or (user and call.caller.user == user)):
        raise _not_theirs(call)
    elif body.matching is not None:
        work, action = partial(forgetting.matching, body.matching, user=user), "words.forget"
    else:
        work, action = partial(forgetting.user, user), "user.forget"
    target = body.session_id or user or "of everybody"
    return await carried_out(call, action, target, lambda dry: work(dry_run=dry), dry_run=body.dry_run, why=body.why)


class Further(Body, frozen=True, kw_only=True):
    """Whether traces that wait are only to be counted, and why they are gone on with."""

    dry_run: DryRun = False
    why: Why = ""


@sessions.post("/forget/traces", needs=Scope.ADMIN)
async def forget_traces(call: Call, body: Further) -> Receipt:
    """Go on with traces of what was forgotten that wait to be deleted at Langfuse."""
    return await carried_out(
        call,
        "traces.forget",
        "what waits",
        lambda dry: call.flywheel.erasing.go_on(dry_run=dry),
        dry_run=body.dry_run,
        why=body.why,
    )


@sessions.get("/forget/traces/{erasure}", needs=Scope.ASK)
async def forgotten_traces(call: Call, erasure: str) -> Receipt:
    """How far the traces of something that was forgotten are deleted; signed once it is complete. `erasure` stands in
    the receipt of what was forgotten."""
    return await call.flywheel.erasing.receipt(erasure)


async def _admit_removal(call: Call, session: str) -> None:
    """Let a caller remove (of) a session: whose it is, or an administrator. Raises `NotAllowed`, `UnknownSession`."""
    await admit_session(call, session)
    if call.caller.may(Scope.ADMIN):
        return
    owner = (await call.flywheel.sessions.resume(session)).owner
    if call.caller.user is None or owner != call.caller.user:
        raise _not_theirs(call)


def _not_theirs(call: Call) -> NotAllowed:
    return NotAllowed(
        f"{call.caller.name!r} may only remove what belongs to the user that it is bound to",
        scope=Scope.ADMIN.value,
        key=call.caller.name,
    )

"""Why an answer was given: the decision of a turn, the stored answer behind it, and what would come of it now."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError, UnknownKey, UnknownTurn
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.likeness import Explanation
from agentic_flywheel.model import FlowChange, Session, StoredAnswer, Turn


class WhyView(msgspec.Struct, frozen=True, kw_only=True):
    """A turn (None: a stored answer by its key), its session, the stored answer (None: gone, or none was kept), the
    recorded changes of its flow, and what would come of the question now (None: not asked for)."""

    turn: Turn | None = None
    session: Session | None = None
    number: int = 0
    earlier: tuple[Turn, ...] = ()
    stored: StoredAnswer | None = None
    changes: tuple[FlowChange, ...] = ()
    now: Explanation | None = None


async def show(visit: Visit) -> Page:
    """Why: of `turn` in `session`, or of the stored answer under `key`. Raises `UnknownTurn`, `UnknownKey`."""
    key, turn_id = visit.text("key"), visit.text("turn")
    if bool(key) is bool(turn_id):
        raise InputError("name a turn and its session, or the key of a stored answer")
    view = await _of_turn(visit, visit.required("session"), turn_id) if turn_id else await _of_key(visit, key)
    flow = view.turn.flow if view.turn else view.stored.entry.flow if view.stored else ""
    if visit.may(Scope.READ) and any(spec.key == flow for spec in visit.flywheel.flows.list(inactive=True)):
        view = msgspec.structs.replace(view, changes=tuple(await visit.flywheel.flows.changes(flow))[:10])
    if visit.text("now") and visit.may(Scope.READ):
        question = view.turn.question if view.turn else view.stored.entry.asked if view.stored else ""
        explained = await visit.flywheel.similar.explain(question, flow=flow, user=visit.user)
        view = msgspec.structs.replace(view, now=explained)
    return Page("why.html", view)


async def _of_turn(visit: Visit, session: str, turn_id: str) -> WhyView:
    turn, thread, number = await turn_of(visit, session, turn_id)
    stored = None
    if turn.entry_key:
        try:
            stored = await _stored(visit, turn.entry_key)
        except UnknownKey:  # it has gone since, or is not for this caller: the page says that none is there
            stored = None
    wanted = set(turn.context)
    earlier = tuple(known for known in thread if known.id in wanted)
    known = await visit.flywheel.sessions.resume(session)
    return WhyView(turn=turn, session=known, number=number, earlier=earlier, stored=stored)


async def _of_key(visit: Visit, key: str) -> WhyView:
    visit.call.require(Scope.READ)
    return WhyView(stored=await _stored(visit, key))


async def turn_of(visit: Visit, session: str, turn_id: str) -> tuple[Turn, tuple[Turn, ...], int]:
    """A turn, all of its session, and its number there from 1. Raises `UnknownSession`, `UnknownTurn`."""
    await admit_session(visit.call, session)
    turns = (await visit.flywheel.sessions.show(session)).turns
    for number, turn in enumerate(turns, 1):
        if turn.id == turn_id:
            return turn, turns, number
    raise UnknownTurn(f"there is no turn {turn_id!r} in session {session!r}", turn_id=turn_id, session_id=session)


async def _stored(visit: Visit, key: str) -> StoredAnswer:
    """A stored answer that the caller may see: of the team, or their own. Raises `UnknownKey`."""
    stored = await visit.flywheel.cache.show(key)
    user = visit.caller.user
    if user is not None and stored.scope != "team" and stored.entry.user != user:
        raise UnknownKey(f"nothing is stored under {key!r} (any more)", key=key)
    return stored


async def clear(visit: Visit, form: Form) -> Went:
    """Have one stored answer served no more. Raises `UnknownKey`."""
    key = form.required("key")
    await _stored(visit, key)
    await visit.flywheel.cache.clear(key=key, dry_run=False)
    back = visit.link("/why", session=form.text("session"), turn=form.text("turn"))
    return Went(back if form.text("turn") else "/", said="cleared")


SCREENS = (Screen("/why", show, needs=Scope.ASK, name="why"),)
ACTIONS = (Action("/why/clear", clear, needs=Scope.ADMIN),)

"""Finding one turn by its id, for who may see it."""

from __future__ import annotations

from collections.abc import Collection

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import UnknownSession, UnknownTurn
from agentic_flywheel.model import Turn
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.store.store import Store


async def find_turn(
    store: Store,
    behind: WriteBehind,
    turn_id: str,
    *,
    session: str | None,
    user: str | None,
    among: Collection[str] | None = None,
) -> Turn:
    """The turn of this id, or of this trace; "last" is the newest one of `session`. With `among`, one of these flows.

    Raises `IdError`, `UnknownTurn`, and `UnknownSession` where it is in the session of another user than `user`.
    """
    admit_id(turn_id, "turn")
    await behind.flush()
    place = session or await store.sessions.find(turn_id)
    turns, _ = await store.sessions.turns(place) if place else ((), 0)
    found = next((turn for turn in turns if turn.id == turn_id), None)
    if found is None:  # a trace that a caller brought along may hold several questions: the newest
        found = next((turn for turn in reversed(turns) if turn.trace_id == turn_id), None)
    if turn_id == "last" and turns:
        found = turns[-1]
    if found is None or (among is not None and found.flow not in among):
        where = f"session {session!r}" if session else "any session"
        raise UnknownTurn(f"there is no turn {turn_id!r} in {where}", turn_id=turn_id)
    header = await store.sessions.header(found.session_id)
    if user and header is not None and header.owner and header.owner != user:
        raise UnknownSession(
            f"user {user!r} has no session {found.session_id!r}", session_id=found.session_id, user=user
        )
    return found

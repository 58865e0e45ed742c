"""Whose conversations a caller may name.

Invariant: to a caller that speaks for one user, another user's session does not exist, nor does one in which another
flow answered to a caller that is limited to flows: the error is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import UnknownSession
from agentic_flywheel.model import Session, Thread

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.call import Call


async def admit_session(call: Call, session: str) -> None:
    """Let a caller name a session. Raises `UnknownSession` for another user's; one that is nobody's yet passes."""
    user = call.caller.user
    if call.flows is not None and not await _within(call, session):
        raise _unknown(session)
    if user is None:
        return
    try:
        owner = (await call.flywheel.sessions.resume(session)).owner
    except UnknownSession:
        return
    if owner != user and owner:
        raise _unknown(session)


async def seen_sessions(call: Call, sessions: Sequence[Session]) -> tuple[Session, ...]:
    """Those of these sessions that a caller may see, as it may."""
    if call.flows is None:
        return tuple(sessions)
    return tuple([seen_session(call, one) for one in sessions if await _within(call, one.id)])


def seen_session(call: Call, session: Session) -> Session:
    """A session as its caller may see it: what it is tied to may be anybody's."""
    return session if call.flows is None else msgspec.structs.replace(session, links=())


def seen_thread(call: Call, thread: Thread) -> Thread:
    """A thread as its caller may see it."""
    if call.flows is None:
        return thread
    return msgspec.structs.replace(thread, session=seen_session(call, thread.session), links=())


async def _within(call: Call, session: str) -> bool:
    """Whether no other flow answered in a session than those that there are for the caller."""
    try:
        thread = await call.flywheel.sessions.show(session)
    except UnknownSession:
        return True
    answered = {thread.session.flow, *(turn.flow for turn in thread.turns)} - {""}
    return answered <= (call.flows or frozenset())


def _unknown(session: str) -> UnknownSession:
    return UnknownSession(f"no session {session!r}", session_id=session)

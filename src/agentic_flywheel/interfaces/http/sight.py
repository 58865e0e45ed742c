"""Whose conversations a caller may name.

Invariant: to a caller that speaks for one user, another user's session does not exist: the error is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentic_flywheel.errors import UnknownSession

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.call import Call


async def admit_session(call: Call, session: str) -> None:
    """Let a caller name a session. Raises `UnknownSession` for another user's; one that is nobody's yet passes."""
    user = call.caller.user
    if user is None:
        return
    try:
        owner = (await call.flywheel.sessions.resume(session)).owner
    except UnknownSession:
        return
    if owner != user and owner:
        raise UnknownSession(f"no session {session!r}", session_id=session)

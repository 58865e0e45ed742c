"""Parameters that several operations take, with their bounds and what they mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from agentic_flywheel.errors import NotAllowed
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.model import Receipt

Meta = msgspec.Meta

SessionId = Annotated[str, Meta(min_length=1, max_length=256, description="A session's id.", examples=["monday"])]
TurnId = Annotated[str, Meta(min_length=1, max_length=256, description="A turn's id, as every answer has it.")]
FlowKey = Annotated[str, Meta(min_length=1, max_length=256, description="A flow's key.", examples=["documents"])]
FlowFilter = Annotated[str, Meta(max_length=256, description="Only this flow (its key).")]
UserId = Annotated[
    str, Meta(max_length=256, description="In whose name; a key that is bound to a user can name no other.")
]
Question = Annotated[str, Meta(min_length=1, description="The question, in the asker's words.")]
Cursor = Annotated[str, Meta(max_length=1000, description="next_cursor of the page before.")]
Limit = Annotated[int, Meta(ge=1, le=100, description="At most so many.")]
Days = Annotated[int, Meta(ge=1, le=90, description="Over the last so many days.")]
Moment = Annotated[
    str, Meta(max_length=64, description="A date (2026-11-01), a time, or so long ago (2 days), of UTC.")
]
DryRun = Annotated[bool, Meta(description="Only say what would be done.")]
Why = Annotated[str, Meta(max_length=500, description="For the audit log.")]


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is asked for in a query."""


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a body says."""


class Removal(Query, frozen=True, kw_only=True):
    """How something is removed."""

    dry_run: DryRun = False
    why: Why = ""


async def carried_out(
    call: Call, action: str, target: str, work: Callable[[bool], Awaitable[Receipt]], *, dry_run: bool, why: str
) -> Receipt:
    """As `Audit.carry_out`, by whoever calls."""
    return await call.flywheel.audit.carry_out(action, target, work, by=call.caller.actor, why=why, dry_run=dry_run)


def person_of(call: Call, user: str | None) -> str:
    """Whose name stands under what is edited: the user's, else the caller's own."""
    return call.speaks_for(user) or call.caller.name


def own_or(call: Call, user: str | None, may: bool, what: str) -> None:
    """Raises `NotAllowed` for a caller that neither speaks for somebody nor `may` look at everybody's."""
    if user is None and not may:
        raise NotAllowed(
            f"{call.caller.name!r} may only look at {what} of a user that it speaks for: name one with user_id",
            scope="read",
            key=call.caller.name,
        )

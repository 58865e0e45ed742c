"""What every form needs that changes something: in whose name it is done, and that it is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.console.visit import Visit


def who(visit: Visit) -> str:
    """The name that stands beside what somebody did: the user whom they speak for, else the caller's own.

    Where nobody has to say who they are, that is the setting `user`, as for `afw`.
    """
    caller = visit.caller
    if caller.user:
        return caller.user
    return visit.flywheel.settings.text("user") if caller.proof == "none" else caller.name


async def written_down(visit: Visit, action: str, target: str, *, why: str = "", **facts: object) -> None:
    """Put into the audit log what is about to be done; do it afterwards. Raises `StoreError`: then do not."""
    await visit.flywheel.audit.record(action, target, by=visit.caller.actor, why=why, **facts)

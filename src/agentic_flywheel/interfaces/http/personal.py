"""All that is kept about a person, over HTTP; for REST and the console alike.

Invariant: handed out to that person and to administrators alone, and never without an entry of the audit log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import NotAllowed

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.own_data import OwnData

_MEDIA: Final = {
    "json": ("application/json", "json"),
    "markdown": ("text/markdown; charset=utf-8", "md"),
    "zip": ("application/zip", "zip"),
}


def admit_person(call: Call, user: str) -> None:
    """Raises `NotAllowed` for a caller that is neither this user nor an administrator."""
    if call.caller.user != user and not call.caller.may(Scope.ADMIN):
        raise NotAllowed(
            f"{call.caller.name!r} may only be given what is kept about the user that it is bound to",
            scope=Scope.ADMIN.value,
            key=call.caller.name,
        )


async def read_own(call: Call, user: str) -> OwnData:
    """What is kept about a user. Raises `NotAllowed`, `StoreError`."""
    admit_person(call, user)
    await call.flywheel.audit.record("user.export", user, by=call.caller.actor)
    return await call.flywheel.own_data.of(user)


async def data_of(call: Call, user: str, form: str) -> Response:
    """The same as a file."""
    from agentic_flywheel.own_data_pages import document_of

    data = await read_own(call, user)
    media_type, ending = _MEDIA[form]
    headers = {"Content-Disposition": f'attachment; filename="own-data.{ending}"', "Cache-Control": "no-store"}
    return Response(document_of(data, form), headers=headers, media_type=media_type)

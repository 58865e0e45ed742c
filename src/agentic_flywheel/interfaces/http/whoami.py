"""`/whoami`: who the service takes the caller for, and what that may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.call import call_of
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import INSIDE, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service


def room(_service: Service) -> Room:
    """What a key or token stands for."""
    return Room("whoami", [AccessRoute("/whoami", _who, needs=INSIDE, by_flow=True)])


async def _who(request: Request) -> Response:
    caller = call_of(request).caller
    found = {
        "name": caller.name,
        "proof": caller.proof,
        "tenant": caller.tenant,
        "user": caller.user,
        "flows": None if caller.flows is None else sorted(caller.flows),
        "scopes": [scope.value for scope in Scope if caller.may(scope)],
    }
    return Response(msgspec.json.encode(found), media_type="application/json")

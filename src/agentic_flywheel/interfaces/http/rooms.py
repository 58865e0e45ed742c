"""The parts of the service, and how one is added.

A room is a module of this package with a function `room(service)` that returns a `Room`: its routes, what is told of it
at the start, and what it keeps open while the service runs. To add one, write the module and name it in `_ROOMS`; the
order is that of matching, so what takes every path (`/{path:path}`) comes last.

    from agentic_flywheel.interfaces.http.call import call_of
    from agentic_flywheel.interfaces.http.routes import AccessRoute
    from agentic_flywheel.interfaces.http.rooms import Room

    def room(service: Service) -> Room:
        return Room("echo", [AccessRoute("/echo", _echo, methods=["POST"], needs=Scope.ASK)], "/echo says it again")

    async def _echo(request: Request) -> Response:
        call = call_of(request)                              # who calls, and for which tenant
        question = (await request.json())["question"]        # RequestTooLarge beyond the limit
        answer = await call.flywheel.ask(question, user=call.speaks_for(None))
        return Response(msgspec.json.encode(answer), media_type="application/json")

Handlers raise: every `FlywheelError` becomes a problem document with the right status (`problems`), anything else a
500 with an id that is in the log. The flywheel of a call stays open until its response, streamed ones included, has
been sent. Checks of host, origin, credentials, scope, rate and size were made before the handler runs; security headers
are added where the response has none of its own. Answers are counted where they are made (`Flywheel`), requests by
route: a room counts nothing by itself.

A room whose optional dependency is missing returns None; the service runs without it and says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from agentic_flywheel.errors import FlywheelError
    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.interfaces.http.routes import AccessRoute
    from agentic_flywheel.interfaces.http.service import Service

ErrorPage: TypeAlias = "Callable[[FlywheelError, Call, Mapping[str, str], Scope], Awaitable[Response | None]]"

_ROOMS = (
    "health",
    "console",
    "metrics",
    "whoami",
    "problems",
    "rest",
    "openai",
    "mcp",
    "flowise",
)


class Room(NamedTuple):
    """One part of the service: its routes, one line on what it serves where ("" to say nothing), and its lifespan.

    `errors` may answer with something else than a problem document where a request asks for it, whatever route it was
    for, or None.
    """

    name: str
    routes: Sequence[AccessRoute]
    says: str = ""
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None
    errors: ErrorPage | None = None


def rooms_of(service: Service) -> list[Room]:
    """All rooms that can be served here, in the order of matching."""
    built = (importlib.import_module(f"{__package__}.{name}").room(service) for name in _ROOMS)
    return [room for room in built if room is not None]

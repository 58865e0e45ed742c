"""Routes that say who may use them.

Invariant: every route of the service is an `AccessRoute`, so each states the scope that it needs, or that it is public;
the app refuses to be built otherwise. The scope is checked before anything of the route runs, a method it does not know
included, so that who may not use a route learns nothing of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import NotAllowed
from agentic_flywheel.interfaces.http.call import call_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Connection

#: A route that needs no credentials anywhere; it must tell nobody anything of the tenants.
PUBLIC: Final = "public"
#: A route that asks `Call.require` itself, because what it needs depends on what is asked of it.
INSIDE: Final = "inside"
#: Beginnings of paths whose routes are kept sorted out.
_MOST_BEGINNINGS: Final = 500
Needs: TypeAlias = Scope | Literal["public", "inside"]


class Switchboard(Router):
    """Starlette's router, which tries every route in turn, over those alone that a path's first two segments let in."""

    def __init__(self, routes: Sequence[AccessRoute], **options: Any) -> None:
        super().__init__(routes, redirect_slashes=False, **options)
        self._routers: dict[str, Router] = {}

    async def app(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer one request, or the lifespan."""
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        begins = "/".join(scope["path"].split("/", 3)[:3])
        router = self._routers.get(begins)
        if router is None:
            if len(self._routers) >= _MOST_BEGINNINGS:  # somebody tries addresses
                self._routers.clear()
            fitting = [route for route in self.routes if _may_begin(route, begins)]
            router = self._routers[begins] = Router(fitting, redirect_slashes=False, default=self.default)
        await router.app(scope, receive, send)


def _may_begin(route: BaseRoute, begins: str) -> bool:
    said = cast("AccessRoute", route).path.partition("{")[0]
    return said.startswith(begins) or begins.startswith(said)


class AccessRoute(Route):
    """A Starlette route with the scope that it needs.

    `endpoint` is a function from request to response, or an ASGI application; `methods` None takes every method.
    `body_limit` (bytes) replaces `serve.max_body_megabytes` for this route. `by_flow` says that the route keeps a
    caller that is limited to flows to those (`Call.flows`); all others are closed to such a caller.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        needs: Needs,
        methods: Collection[str] | None = ("GET",),
        name: str | None = None,
        body_limit: int | None = None,
        by_flow: bool = False,
    ) -> None:
        super().__init__(path, endpoint, methods=methods, name=name)
        if inspect.iscoroutinefunction(endpoint):
            self.app = _answering(endpoint)
        if methods is None:
            self.methods = None  # Starlette would take a function for an answer to GET alone
        self.needs = needs
        self.body_limit = body_limit
        self.by_flow = by_flow

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Check who calls, then answer."""
        call = call_of(scope)
        call.route = self.path
        if self.needs == INSIDE:
            call.caller  # noqa: B018 -- raises where nothing says who calls
        elif self.needs != PUBLIC:
            call.require(Scope(self.needs))
        if self.needs != PUBLIC and not self.by_flow and call.flows is not None:
            raise NotAllowed(
                f"{call.caller.name!r} is limited to {', '.join(sorted(call.flows))}: this is about all flows",
                suggestions=(
                    "Use a key that is not limited to flows.",
                    "Ask, or read what is of one flow: answers, sessions, search, figures.",
                    "See what the key may do with GET /whoami.",
                ),
                key=call.caller.name,
            )
        if self.body_limit is not None:
            call.body_limit = self.body_limit
        await super().handle(scope, receive, send)


def _answering(endpoint: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """An endpoint as an application. Starlette's own way catches exceptions for handlers of which there are none: what
    is raised here is the gate's."""

    async def app(scope: Connection, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app

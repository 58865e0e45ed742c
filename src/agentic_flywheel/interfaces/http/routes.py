"""Routes that say who may use them.

Invariant: every route of the service is an `AccessRoute`, so each states the scope that it needs, or that it is public;
the app refuses to be built otherwise. The scope is checked before anything of the route runs, a method it does not know
included, so that who may not use a route learns nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from starlette.routing import Route

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.call import call_of

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as Connection

#: A route that needs no credentials anywhere; it must tell nobody anything of the tenants.
PUBLIC: Final = "public"
#: A route that asks `Call.require` itself, because what it needs depends on what is asked of it.
INSIDE: Final = "inside"
Needs: TypeAlias = Scope | Literal["public", "inside"]


class AccessRoute(Route):
    """A Starlette route with the scope that it needs.

    `endpoint` is a function from request to response, or an ASGI application; `methods` None takes every method.
    `body_limit` (bytes) replaces `serve.max_body_megabytes` for this route.
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
    ) -> None:
        super().__init__(path, endpoint, methods=methods, name=name)
        if methods is None:
            self.methods = None  # Starlette would take a function for an answer to GET alone
        self.needs = needs
        self.body_limit = body_limit

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Check who calls, then answer."""
        call = call_of(scope)
        call.route = self.path
        if self.needs == INSIDE:
            call.caller  # noqa: B018 -- raises where nothing says who calls
        elif self.needs != PUBLIC:
            call.require(Scope(self.needs))
        if self.body_limit is not None:
            call.body_limit = self.body_limit
        await super().handle(scope, receive, send)

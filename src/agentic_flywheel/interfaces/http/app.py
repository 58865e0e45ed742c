"""The application: rooms, routes, the gate in front of them, and what is open while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.interfaces.http.gate import Gate
from agentic_flywheel.interfaces.http.problems import known_error
from agentic_flywheel.interfaces.http.rooms import Room, rooms_of
from agentic_flywheel.interfaces.http.routes import AccessRoute, Switchboard
from agentic_flywheel.interfaces.http.service import Service

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from agentic_flywheel.interfaces.http.call import Call


class App(Gate):
    """The ASGI application over a `Service`; `running()` is open while it serves.

    Servers that speak ASGI's lifespan protocol enter it by themselves; others do `async with app.running()`.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.rooms: list[Room] = rooms_of(service)
        routes = [route for room in self.rooms for route in room.routes]
        for route in routes:
            if not isinstance(route, AccessRoute):
                raise TypeError(f"{route!r} does not say who may use it: it must be an AccessRoute")
        router = Switchboard(routes, default=self.not_found, lifespan=self._lifespan)
        super().__init__(service, router)

    async def failure(self, error: FlywheelError, call: Call, headers: dict[str, str], scope: Scope) -> Response:
        """A problem document, unless a room has something better for who asked."""
        for room in self.rooms:
            if room.errors is None:
                continue
            try:
                response = await room.errors(error, call, headers, scope)
            except Exception as defect:  # noqa: BLE001 -- whoever asked is told of the error all the same
                known_error(defect, call)
                continue
            if response is not None:
                return response
        return await super().failure(error, call, headers, scope)

    @property
    def routes(self) -> list[AccessRoute]:
        """All routes, in the order of matching."""
        return [route for room in self.rooms for route in room.routes]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What the rooms keep open, inside the service; all of it is closed at the end, the service last."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.service)
            for room in self.rooms:
                if room.lifespan is not None:
                    await stack.enter_async_context(room.lifespan())
            yield

    @asynccontextmanager
    async def _lifespan(self, _app: Any) -> AsyncIterator[None]:
        async with self.running():
            yield

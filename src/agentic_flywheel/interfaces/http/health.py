"""`/healthz`: the process is alive. `/readyz`: it should be sent requests, and how well it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agentic_flywheel.errors import RegistryError, StoreError
from agentic_flywheel.interfaces.http.call import call_of
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import PUBLIC, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service


def room(_service: Service) -> Room:
    """Liveness and readiness."""
    routes = [AccessRoute("/healthz", _alive, needs=PUBLIC), AccessRoute("/readyz", _ready, needs=PUBLIC)]
    return Room("health", routes, "/healthz, /readyz: whether it is alive, and ready")


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _ready(request: Request) -> Response:
    status, found = await readiness(call_of(request).service)
    return Response(msgspec.json.encode(found), status, media_type="application/json")


async def readiness(service: Service) -> tuple[int, dict[str, Any]]:
    """The status to answer with, and what was found.

    Not ready (503): the service is closing, or there is no registry to answer from. `degraded` (200): Redis is away;
    questions are answered all the same, and their turns wait in the outbox.
    """
    checks = {"service": "closing" if service.closing else "ok", "registry": "ok", "redis": "ok"}
    try:
        service.registry.current()
        if service.registry.problem is not None:
            checks["registry"] = "stale"  # the last good reading is in force
    except RegistryError:
        checks["registry"] = "unreadable"
    try:
        await service.ping()
    except StoreError as error:
        checks["redis"] = error.code
    if checks["service"] == "closing" or checks["registry"] == "unreadable":
        return 503, {"status": "closing" if service.closing else "not_ready", "checks": checks}
    well = all(found == "ok" for found in checks.values())
    return 200, {"status": "ready" if well else "degraded", "checks": checks}

"""`/mcp`: the tools of `afw mcp` for MCP clients over HTTP; see `team`."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import INSIDE, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service


def room(_service: Service) -> Room | None:
    """The endpoint; None where the extra `mcp` is not installed."""
    if importlib.util.find_spec("mcp") is None:
        return None
    from agentic_flywheel.interfaces.http.team import Endpoint

    endpoint = Endpoint()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with endpoint.manager.run():
            yield

    # What a caller needs depends on the tool that is called.
    return Room(
        "mcp", [AccessRoute("/mcp", endpoint, methods=["POST"], needs=INSIDE, by_flow=True)], "MCP at /mcp", lifespan
    )

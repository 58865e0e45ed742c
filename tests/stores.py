"""The store of one tenant on a test server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.store import Store
from servers import Server


@asynccontextmanager
async def stored(server: Server, tenant: str = "team") -> AsyncIterator[Store]:
    settings = load_settings(
        {"redis_url": server.url, "tenant": tenant, "redis.command_timeout_seconds": 20.0},
        environ={},
        directory=Path("/"),
    )
    store = Store(settings)
    try:
        yield store
    finally:
        await store.aclose()

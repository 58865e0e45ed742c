"""The service in this process: the real app on a real Redis, spoken to without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http import app as app_module
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import AccessRoute
from agentic_flywheel.interfaces.http.service import Service
from flywheels import settings_for
from servers import Server


@asynccontextmanager
async def app_on(
    server: Server, folder: Path, routes: Sequence[AccessRoute] = (), **settings: Any
) -> AsyncIterator[App]:
    """The app, running; with `routes` it has those of the test and no other. Settings as for `flywheels.opened`."""
    with pytest.MonkeyPatch.context() as patch:
        if routes:
            patch.setattr(app_module, "rooms_of", lambda _service: [Room("test", routes)])
        app = App(Service(settings_for(server, folder, **settings)))
    async with app.running():
        yield app


def client_of(app: App, key: str = "") -> httpx2.AsyncClient:
    """A client of the app, with an API key where one is given."""
    headers = {"X-API-Key": key} if key else {}
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765", headers=headers)


async def key_for(app: App, *scopes: Scope, **more: Any) -> str:
    """The secret of a new key of the service's own tenant."""
    name = f"test-{'-'.join(scopes)}"
    return (await app.service.home.api_keys.create(name, set(scopes), by="test", **more)).secret

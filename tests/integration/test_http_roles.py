"""Every route against every role: who may not is told so before anything of the route has run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import NotAllowed
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.routes import PUBLIC, AccessRoute
from agentic_flywheel.interfaces.http.service import Service
from flywheels import opened, settings_for
from http_app import app_on, client_of
from http_routes import BY_FLOW, ROWS, row_of
from servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def app(valkey: Server, tmp_path: Path) -> AsyncIterator[App]:
    given = {"serve_credentials": "always", "tenant": "home", "serve_flowise_url": "http://127.0.0.1:9"}
    async with app_on(valkey, tmp_path, **given) as made:
        yield made


def methods_of(route: AccessRoute, app: App) -> list[str]:
    """The methods of a route, and one that no route of its path knows: the first of them answers that."""
    known = sorted((route.methods or {"GET", "POST"}) - {"HEAD"})
    first = next(one for one in app.routes if one.path == route.path)
    return [*known, "PURGE"] if route is first else known


async def test_every_route_has_its_row(app: App) -> None:
    assert {row_of(route): route.needs for route in app.routes} == {name: row[0] for name, row in ROWS.items()}
    assert len({row_of(route) for route in app.routes}) == len(app.routes)
    assert {row_of(route) for route in app.routes if route.by_flow} == BY_FLOW


async def test_public_routes_are_the_few_that_tell_nothing() -> None:
    public = {name for name, row in ROWS.items() if row[0] == PUBLIC}
    assert public == {
        *("GET /healthz", "GET /readyz", "GET /problems/{code}"),
        *("GET /api/v2/openapi.json", "GET /api/v2/docs"),  # the same wherever the service runs
        *("GET /signin", "POST /signin", "POST /signout", "POST /preferences", "GET /static/{digest}/{name:path}"),
    }


@pytest.mark.parametrize("role", ["nobody", *Scope])
async def test_every_route_against_every_role(app: App, role: str, valkey: Server, tmp_path: Path) -> None:
    key = ""
    if role != "nobody":
        key = (await app.service.home.api_keys.create(role, {Scope(role)}, by="test")).secret
    async with client_of(app, key) as client:
        for route in app.routes:
            needs, path = ROWS[row_of(route)]
            may = needs == PUBLIC or (role != "nobody" and needs in {"inside", role}) or role == Scope.ADMIN
            for method in methods_of(route, app):
                response = await client.request(method, path)
                refusal = 401 if role == "nobody" else 403
                assert (response.status_code != refusal) is may, (role, method, path, response.text)


async def test_every_route_against_a_key_that_is_limited_to_flows(app: App) -> None:
    made = await app.service.home.api_keys.create("few", {Scope.ASK, Scope.READ}, by="test", flows=["documents"])
    async with client_of(app, made.secret) as client:
        for route in app.routes:
            name = row_of(route)
            needs, path = ROWS[name]
            may = needs == PUBLIC or (name in BY_FLOW and needs in {"inside", Scope.ASK, Scope.READ})
            for method in sorted((route.methods or {"GET", "POST"}) - {"HEAD"}):
                response = await client.request(method, path)
                assert (response.status_code != 403) is may, (method, path, response.text)
                if needs in {"inside", Scope.ASK, Scope.READ} and not may:
                    assert "limited to documents" in response.json()["detail"], (method, path)


async def test_a_route_that_does_not_say_who_may_use_it_is_not_served(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.routing import Route

    from agentic_flywheel.interfaces.http import app as module
    from agentic_flywheel.interfaces.http.rooms import Room

    async def endpoint(request: object) -> None: ...

    monkeypatch.setattr(module, "rooms_of", lambda _service: [Room("odd", [Route("/odd", endpoint)])])
    with pytest.raises(TypeError, match="/odd"):
        App(Service(settings_for(valkey, tmp_path)))


async def test_a_caller_gets_the_flywheel_of_its_own_tenant_and_speaks_for_its_own_user(
    app: App, valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, tenant="other") as other:
        bound = (await other.api_keys.create("bound", {Scope.ASK}, by="test", user="ann")).secret
        free = (await other.api_keys.create("free", {Scope.ASK}, by="test")).secret
        admin = (await other.api_keys.create("admin", {Scope.ADMIN}, by="test", user="ann")).secret
    home = (await app.service.home.api_keys.create("home", {Scope.ADMIN}, by="test")).secret
    for key, tenant, bob, operator in (
        (bound, "other", None, False),
        (free, "other", "bob", False),
        (admin, "other", "bob", False),  # administers its tenant, and not what all share
        (home, "home", "bob", True),
    ):
        call = await _call_with(app, key)
        assert call.flywheel.settings.text("tenant") == tenant
        assert call.speaks_for(None) == ("ann" if key in {bound, admin} else None)
        if bob is None:
            with pytest.raises(NotAllowed):
                call.speaks_for("bob")
        else:
            assert call.speaks_for("bob") == bob
        if operator:
            call.require_operator()
        else:
            with pytest.raises(NotAllowed):
                call.require_operator()
        call.release()


async def _call_with(app: App, key: str) -> Call:
    """A call as the gate makes it of a request with this key."""
    call = Call(app.service)
    call.known = await app.service.admit(call, {b"x-api-key": key.encode()})
    return call

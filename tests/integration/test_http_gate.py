"""The gate: bodies, headers, origins and errors, for handlers of every kind."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlowLimited, NotAllowed, StoreUnavailable, UnknownFlow
from agentic_flywheel.interfaces.http.call import call_of
from agentic_flywheel.interfaces.http.routes import AccessRoute
from flywheels import opened
from http_app import app_on, client_of, key_for
from http_process import assert_problem
from servers import Server

pytestmark = pytest.mark.anyio

ORIGIN = "https://docs.example.com"


async def count(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def ask(request: Request) -> Response:
    call = call_of(request)
    answer = await call.flywheel.ask((await request.json())["question"], flow="documents")
    return PlainTextResponse(answer.outcome)


async def page(_request: Request) -> Response:
    return HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"})


async def stream(_request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("in the middle")

    return StreamingResponse(pieces())


FAILURES: dict[str, Exception] = {
    "flow": UnknownFlow("no flow 'x' in /etc/flows.yaml; did you mean 'y'?", flow="x", file="/etc/flows.yaml"),
    "limited": FlowLimited("asked too often", retry_after_seconds=2.4),
    "store": StoreUnavailable("Redis at redis://10.0.0.7:6379 cannot be reached", address="10.0.0.7"),
    "http": HTTPException(404),
    "defect": RuntimeError("SECRETWORD"),
    "scope": NotAllowed("no"),
}


async def fail(request: Request) -> Response:
    raise FAILURES[request.path_params["how"]]


ROUTES = [
    AccessRoute("/count", count, methods=["POST"], needs=Scope.ASK),
    AccessRoute("/count/more", count, methods=["POST"], needs=Scope.ASK, body_limit=5000),
    AccessRoute("/ask", ask, methods=["POST"], needs=Scope.ASK),
    AccessRoute("/page", page, needs=Scope.ASK),
    AccessRoute("/stream", stream, needs=Scope.ASK),
    AccessRoute("/fail/{how}", fail, needs=Scope.ASK),
]


@asynccontextmanager
async def client(
    server: Server, folder: Path, scope: Scope | None = None, **settings: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service with the routes of this test; with `scope`, credentials are demanded and sent."""
    if scope is not None:
        settings["serve_credentials"] = "always"
    async with (
        app_on(server, folder, ROUTES, **settings) as app,
        client_of(app, await key_for(app, scope) if scope else "") as connected,
    ):
        yield connected


async def test_bodies_up_to_the_limit_are_read_and_no_more(valkey: Server, tmp_path: Path) -> None:
    async with client(valkey, tmp_path, serve_max_body_megabytes=0.001) as http:

        async def chunks(size: int) -> AsyncIterator[bytes]:
            for _ in range(size):
                yield b"x"

        assert (await http.post("/count", content=b"x" * 1000)).text == "1000"
        assert (await http.post("/count", content=chunks(1000))).text == "1000"
        for body in (b"x" * 1001, chunks(1001)):
            problem = assert_problem(await http.post("/count", content=body), 413, "request_too_large")
            assert problem["details"]["limit_bytes"] == 1000
        assert (await http.post("/count/more", content=b"x" * 5000)).text == "5000"
        assert_problem(await http.post("/count/more", content=b"x" * 5001), 413, "request_too_large")
        lie = await http.post("/count", content=b"x" * 10, headers={"Content-Length": "1e3"})
        assert_problem(lie, 400, "invalid_input")


async def test_headers_of_a_handler_win(valkey: Server, tmp_path: Path) -> None:
    async with client(valkey, tmp_path) as http:
        headers = (await http.get("/page")).headers
        assert headers.get_list("content-security-policy") == ["default-src 'self'"]
        assert headers.get_list("cache-control") == ["no-cache"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_pages_of_listed_origins_may_read_and_ask(valkey: Server, tmp_path: Path) -> None:
    async with client(valkey, tmp_path, serve_origins=ORIGIN) as http:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        wanted = {"Access-Control-Request-Headers": "content-type, x-api-key"}
        preflight = await http.options("/count", headers={**asked, **wanted})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert preflight.headers["access-control-allow-headers"] == "content-type, x-api-key"
        posted = await http.post("/count", content=b"12", headers={"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"})
        assert posted.text == "2"
        assert posted.headers["access-control-allow-origin"] == ORIGIN
        assert posted.headers["cross-origin-resource-policy"] == "cross-origin"
        failed = await http.get("/fail/flow", headers={"Origin": ORIGIN})
        assert failed.headers["access-control-allow-origin"] == ORIGIN
        evil = {"Origin": "https://evil.example"}
        assert_problem(await http.options("/count", headers={**asked, **evil}), 403, "origin_refused")
        assert_problem(await http.post("/count", content=b"1", headers=evil), 403, "origin_refused")
        assert "access-control-allow-origin" not in (await http.get("/page", headers=evil)).headers


async def test_a_preflight_needs_no_credentials(valkey: Server, tmp_path: Path) -> None:
    async with client(valkey, tmp_path, Scope.ASK, serve_origins=ORIGIN) as http:
        del http.headers["X-API-Key"]
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        assert (await http.options("/count", headers=asked)).status_code == 204
        assert_problem(await http.options("/count"), 401, "credentials_missing")
        refused = await http.post("/count", content=b"1", headers={"Origin": ORIGIN})
        assert_problem(refused, 401, "credentials_missing")
        assert refused.headers["access-control-allow-origin"] == ORIGIN  # or the page would not learn why


@pytest.mark.parametrize("scope", [Scope.ASK, Scope.ADMIN])
async def test_errors_tell_each_caller_what_is_theirs_to_know(valkey: Server, tmp_path: Path, scope: Scope) -> None:
    async with client(valkey, tmp_path, scope) as http:
        flow = assert_problem(await http.get("/fail/flow"), 404, "unknown_flow")
        limited = await http.get("/fail/limited")
        assert_problem(limited, 429, "flow_limited")
        assert limited.headers["retry-after"] == "3"
        store = assert_problem(await http.get("/fail/store"), 503, "store_unavailable")
        if scope is Scope.ADMIN:
            assert flow["details"] == {"flow": "x", "file": "/etc/flows.yaml"}
            assert flow["detail"] == "no flow 'x' in /etc/flows.yaml; did you mean 'y'?"
            assert "10.0.0.7" in store["detail"]
        else:
            assert (flow["details"], flow["detail"]) == ({"flow": "x"}, "no flow 'x'; did you mean 'y'?")
            assert "10.0.0.7" not in json.dumps(store)
        assert_problem(await http.get("/fail/http"), 404, "unknown_address")
        assert_problem(await http.get("/fail/scope"), 403, "not_allowed")


async def test_a_defect_is_told_by_its_id_alone(
    valkey: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(valkey, tmp_path) as http:
        with caplog.at_level(logging.ERROR):
            response = await http.get("/fail/defect")
        problem = assert_problem(response, 500, "error")
        assert "SECRETWORD" not in response.text
        assert problem["error_id"] in caplog.text


async def test_a_stream_that_fails_is_cut_off(valkey: Server, tmp_path: Path) -> None:
    async with client(valkey, tmp_path) as http:
        with pytest.raises(RuntimeError, match="in the middle"):  # what a server takes for the end of the connection
            await http.get("/stream")


async def test_what_was_answered_is_written_when_the_app_closes(valkey: Server, tmp_path: Path) -> None:
    (tmp_path / "flows.yaml").write_text("flows:\n  documents: {kind: documents, folder: package:documentation}\n")
    async with client(valkey, tmp_path) as http:
        assert (await http.post("/ask", json={"question": "How long are answers kept?"})).text == "miss"
    async with opened(valkey, tmp_path) as flywheel:
        (session,) = (await flywheel.sessions.list()).sessions
        assert session.title == "How long are answers kept?"


async def test_handlers_ask_for_their_tenant(valkey: Server, tmp_path: Path) -> None:
    (tmp_path / "flows.yaml").write_text("flows:\n  documents: {kind: documents, folder: package:documentation}\n")
    async with client(valkey, tmp_path, Scope.ASK) as http:
        for outcome in ("miss", "hit"):
            response = await http.post("/ask", json={"question": "How long are answers kept?"})
            assert response.text == outcome

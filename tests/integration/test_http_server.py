"""`afw serve` as a process: what it says of itself, whom it lets in by the front door, how it ends."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from afw_command import Afw, assert_error
from http_app import app_on, client_of
from http_process import assert_problem, served
from servers import Server


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_it_says_what_it_serves_and_ends_in_order(afw: Afw) -> None:
    with served(afw) as server:
        assert server.said["event"] == "serving"
        assert server.said["pid"] == server.process.pid
        assert {"/healthz", "/readyz"} <= set(server.said["rooms"]["health"])
        with server.client() as client:
            assert client.get("/healthz").text == "alive\n"
            ready = client.get("/readyz")
            assert ready.json() == {"status": "ready", "checks": {"service": "ok", "registry": "ok", "redis": "ok"}}
            nothing = assert_problem(client.get("/nothing/here"), 404, "unknown_address")
            described = client.get(nothing["type"])
            assert described.json()["code"] == "unknown_address"
            assert described.json()["title"] == nothing["title"]
            assert_problem(client.delete("/healthz"), 405, "unknown_method")
            assert set(client.delete("/healthz").headers["allow"].split(", ")) == {"GET", "HEAD"}
            hard_to_misuse(client)
            names(client, urlsplit(server.url).port or 0)
        assert f"Serving at {server.url}" in server.log
        assert server.end() == 0
    assert "Traceback" not in server.log


def hard_to_misuse(client: httpx2.Client) -> None:
    """Every response has the headers that protect who reads it, and an id that is in the log."""
    for response in (client.get("/healthz"), client.get("/nothing")):
        assert response.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers
        assert len(response.headers["x-request-id"]) == 16
    assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/healthz", headers={"X-Request-ID": "a b<"}).headers["x-request-id"] != "a b<"


def names(client: httpx2.Client, port: int) -> None:
    """Only names of this machine are answered to."""
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "127.0.0.1.nip.io"):
        assert_problem(client.get("/healthz", headers={"Host": host}), 421, "host_refused")


@pytest.mark.anyio
async def test_it_is_degraded_while_redis_is_away_and_not_ready_without_a_registry(
    valkey: Server, tmp_path: Path
) -> None:
    async with app_on(valkey, tmp_path, redis_command_timeout_seconds=0.2) as app, client_of(app) as client:
        assert (await client.get("/readyz")).json()["status"] == "ready"
        valkey.pause()
        try:
            ready = await client.get("/readyz")
        finally:
            valkey.resume()
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert ready.json()["checks"]["redis"] == "store_unavailable"
    (tmp_path / "flows.yaml").write_text("flows: [")
    async with app_on(valkey, tmp_path) as app, client_of(app) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert ready.json()["checks"]["registry"] == "unreadable"
        (tmp_path / "flows.yaml").write_text("flows: {}")
        assert (await client.get("/readyz")).json()["status"] == "ready"
        (tmp_path / "flows.yaml").write_text("flows: [")
        ready = await client.get("/readyz")  # the last good reading is in force
        assert (ready.status_code, ready.json()["checks"]["registry"]) == (200, "stale")


def test_the_port_may_be_taken(afw: Afw) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = afw.json("serve", "--port", str(taken.getsockname()[1]), code=2)
    assert_error(error, "invalid_setting")
    assert "cannot listen on 127.0.0.1:" in error["error"]

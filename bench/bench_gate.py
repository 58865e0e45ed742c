"""What the gate of the service costs a request, without sockets: beside the same route on a bare Starlette router.

    python bench/bench_gate.py [--requests N] [--json]

The request is answered by a handler that does nothing, so what is measured is Starlette's own work, and what comes on
top of it: checks, credentials, headers, counting (the log of requests is off). With a key each request is one round
trip to Redis; with a token it is the check of a signature. Each is measured in turn, five times; the best counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http import app as app_module
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import AccessRoute
from agentic_flywheel.interfaces.http.service import Service
from agentic_flywheel.settings import load_settings
from private_server import private_server

AsgiApp = Callable[..., Awaitable[None]]
HEADERS = [(b"host", b"127.0.0.1:8765"), (b"accept", b"*/*"), (b"content-type", b"application/json")]


async def nothing(_request: Request) -> Response:
    """A handler that does nothing."""
    return Response(b"x" * 2000, media_type="application/json")


async def took(app: AsgiApp, requests: int, more: list[tuple[bytes, bytes]], *, at_once: int) -> float:
    """Microseconds a request."""

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    statuses = set()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    async def one(count: int) -> None:
        for _ in range(count):
            scope = {"type": "http", "method": "POST", "path": "/nothing", "query_string": b""}
            scope |= {"headers": HEADERS + more, "server": ("127.0.0.1", 8765), "scheme": "http", "http_version": "1.1"}
            await app(scope, receive, send)

    began = time.perf_counter()
    await asyncio.gather(*(one(requests // at_once) for _ in range(at_once)))
    assert statuses == {200}, statuses
    return (time.perf_counter() - began) / requests * 1e6


async def measure(url: str, folder: Path, requests: int) -> dict[str, float]:
    """The figures by what a request carries."""
    key = ec.generate_private_key(ec.SECP256R1())
    shown = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**shown, "kid": "k"}]}))
    named = {"redis_url": url, "data_dir": str(folder), "jwt.issuer": "i", "jwt.audience": "a", "jwt.jwks": "keys.json"}
    settings = load_settings(named, environ={"AFW_CONFIG_DIR": str(folder)}, directory=folder)
    claims = {"iss": "i", "aud": "a", "sub": "ann", "exp": int(time.time()) + 3600, "scope": "afw:ask"}
    token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"})
    routes = [AccessRoute("/nothing", nothing, methods=["POST"], needs=Scope.ASK)]
    app_module.rooms_of = lambda _service: [Room("bench", routes)]
    app = App(Service(settings))
    bare = Router([Route("/nothing", nothing, methods=["POST"])])
    async with app.running():
        secret = (await app.service.home.api_keys.create("bench", {Scope.ASK}, by="bench")).secret
        limited = (await app.service.home.api_keys.create("l", {Scope.ASK}, by="bench", rate_per_minute=10**6)).secret
        arms: dict[str, tuple[AsgiApp, list[tuple[bytes, bytes]], int]] = {
            "bare router": (bare, [], 1),
            "gate": (app, [], 1),
            "gate, key": (app, [(b"x-api-key", secret.encode())], 1),
            "gate, key, 32 at once": (app, [(b"x-api-key", secret.encode())], 32),
            "gate, key with a rate, 32 at once": (app, [(b"x-api-key", limited.encode())], 32),
            "gate, token": (app, [(b"authorization", f"Bearer {token}".encode())], 1),
        }
        best = dict.fromkeys(arms, float("inf"))
        for _ in range(5):
            for name, (target, more, at_once) in arms.items():
                best[name] = min(best[name], await took(target, requests, more, at_once=at_once))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with private_server("valkey") as server, tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(measure(server.urls["unix socket"], Path(folder), given.requests))
    if given.json:
        print(json.dumps(figures))
        return
    for name, micros in figures.items():
        print(f"{name:36} {micros:7.1f} us a request")


if __name__ == "__main__":
    main()

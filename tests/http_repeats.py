"""A client that can tell which way its requests took through the service.

That runs in this process on a real port, over the protocol that `afw serve` gives uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.serving import _protocol
from flowise_replay import FLOWS, ReplayFlowise
from flywheels import until
from http_app import app_on
from servers import Server

#: No proof of the near cache runs out, and no restriction of Flowise is asked for anew, while a test runs.
STEADY: dict[str, Any] = {"near_max_staleness_seconds": 600.0, "flow_check_every_seconds": 600.0}
NEAR = pytest.mark.parametrize("near", [False, True], ids=["redis", "near"])
PATH = f"/api/v1/prediction/{FLOWS['llm']}"
QUESTION = {"question": "How long are answers kept?"}
#: A request that says who it is is looked at anew each time.
WHOLE = {"X-Request-ID": "whole"}
_OWN = re.compile(
    rb'("(?:chatId|sessionId|chatMessageId|executionId|session_id|turn_id|trace_id|id)":\s*")[^"]*"'
    rb"|((?:date|age|x-request-id|x-afw-trace|x-afw-session|x-afw-turn): )[^\r]*"
    rb'|("(?:age_seconds|elapsed_ms|ttl_seconds|created)":\s*)[-0-9.e]+'
)


class Answered(NamedTuple):
    """A response as it came over the wire."""

    raw: bytes

    @property
    def alike(self) -> bytes:
        """Without what is of the one response alone; its length as well, where figures are in it."""
        plain = _OWN.sub(lambda m: (m[1] or m[2] or m[3]) + b"*", self.raw)
        return re.sub(rb"content-length: \d+", b"content-length: *", plain) if b"age_seconds" in self.raw else plain

    def header(self, name: str) -> str:
        found = re.search(rb"\r\n" + name.encode() + rb": ([^\r]*)", self.raw)
        return found[1].decode() if found else ""

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


class Client:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, app: App) -> None:
        self.reader, self.writer, self.app = reader, writer, app

    @property
    def repeated(self) -> int:
        """How many requests were answered without the whole way so far."""
        return self.app.service.repeats.answered

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
        self.writer.write(request(path, body, headers))
        return await self.response()

    async def response(self) -> Answered:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        found = re.search(rb"content-length: (\d+)", head)
        assert found, head
        return Answered(head + await asyncio.wait_for(self.reader.readexactly(int(found[1])), 20))

    async def again(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
        """Ask until it is answered without the whole way."""
        for _ in range(200):
            before = self.repeated
            response = await self.post(path, body, headers)
            if self.repeated > before:
                return response
            await asyncio.sleep(0.005)  # a channel of the near cache is being opened
        pytest.fail("the request goes the whole way each time")


def request(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(raw))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (named | dict(headers or {})).items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + raw


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def asked(
    valkey: Server, folder: Path, flowise: ReplayFlowise, *, near: bool, **more: Any
) -> AsyncIterator[Client]:
    """The service on a port, and a connection to it."""
    settings = STEADY | {"near_enabled": near, "serve_flowise_url": flowise.url} | more
    async with app_on(valkey, folder, **settings) as app:
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            http=_protocol(60.0, app.service.repeats),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
        )
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started, "the server to listen")
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Client(reader, writer, app)
        finally:
            writer.close()
            server.should_exit = True
            await serving

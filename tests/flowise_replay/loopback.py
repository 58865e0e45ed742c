"""A small HTTP/1.1 server on a random loopback port that has its bytes under control: chunks, cuts and silence.

It runs in the caller's event loop (`async with`) or in a thread of its own (`with`), for tests that block while a
subprocess asks.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What was asked; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


class HangupError(Exception):
    """Raised by a reply to end the connection without another byte."""


@dataclass(frozen=True)
class Reply:
    """A reply, byte by byte.

    `pieces` are sent as separate chunks (of chunked encoding, each flushed on its own). `ending` is `close` (the
    regular end), `cut` (the connection is dropped after the last piece, without the end of the body) or `hang`
    (nothing more is ever sent). A reply with status 0 sends not even its head.
    """

    status: int = 200
    content_type: str = "application/json; charset=utf-8"
    pieces: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: str = "close"

    @classmethod
    def json(cls, payload: Any, status: int = 200, **headers: str) -> Reply:
        return cls(status, pieces=(json.dumps(payload).encode(),), headers=headers)

    def in_pieces_of(self, size: int) -> Reply:
        """The same bytes, cut anew."""
        body = b"".join(self.pieces)
        pieces = tuple(body[at : at + size] for at in range(0, len(body), size))
        return Reply(self.status, self.content_type, pieces, self.headers, self.ending)

    def cut_after(self, size: int, ending: str = "cut") -> Reply:
        """The first `size` bytes of the body, then the connection drops (or stays silent, with `hang`)."""
        return Reply(self.status, self.content_type, (b"".join(self.pieces)[:size],), self.headers, ending)


#: Never a byte, until the asker gives up.
SILENCE = Reply(status=0, ending="hang")
#: The connection is accepted, the request read, the connection dropped.
DROPPED = Reply(status=0, ending="cut")


class LoopbackServer:
    """Base of the stubs: `respond` turns a request into a reply. `requests` lists everything that was asked."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._arrival = asyncio.Event()
        self.requests: list[Request] = []

    async def reached(self, method: str, times: int = 1) -> None:
        """Wait until so many requests of this method have arrived; the caller sets the deadline."""
        while sum(request.method == method for request in self.requests) < times:
            self._arrival.clear()
            await self._arrival.wait()

    async def respond(self, request: Request) -> Reply:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self._peers:
            peer.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)
        await self._server.wait_closed()

    def __enter__(self) -> Self:
        started = threading.Event()

        async def live() -> None:
            self._over = asyncio.Event()
            async with self:
                started.set()
                await self._over.wait()

        self._thread = threading.Thread(target=lambda: asyncio.run(live()), name=type(self).__name__)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError(f"{type(self).__name__} did not start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._over is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers.add(task)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                self._arrival.set()
                # The asker may give up meanwhile; then the work is over too, as the tests count who is waiting.
                await _send(writer, await self.respond(request))
        except (HangupError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the server ends; a task that ends cancelled would be reported by asyncio
        finally:
            self._peers.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return Request(method, unquote(parts.path), query, headers, body)


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    if reply.status:
        streamed = (
            reply.content_type.startswith("text/event-stream") or len(reply.pieces) > 1 or reply.ending != "close"
        )
        headers = {"content-type": reply.content_type, **reply.headers}
        headers |= (
            {"transfer-encoding": "chunked"} if streamed else {"content-length": str(len(b"".join(reply.pieces)))}
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} Replayed\r\n{lines}\r\n".encode("latin-1"))
        for piece in reply.pieces:
            if piece:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if streamed else piece)
                await writer.drain()
                await asyncio.sleep(0)  # lets each piece leave on its own
        if streamed and reply.ending == "close":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    if reply.ending == "hang":
        await asyncio.Event().wait()
    if reply.ending == "cut":
        raise HangupError

"""A client that asks one server over raw sockets, as fast as it answers or at a given rate, and checks every answer.

It knows just enough of HTTP/1.1 for that: bodies with a length, and chunked ones. A response must have status 200 and
hold the text that was expected; what does not is counted as wrong, with its first bytes kept.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import cast
from urllib.parse import urlsplit

import msgspec

#: A request as it is sent, and what its response must hold.
Sent = tuple[bytes, bytes]
_TICKS = os.sysconf("SC_CLK_TCK")


class Block(msgspec.Struct):
    """What came of one block of requests: seconds, nanoseconds of each, wrong ones, seconds of processor time."""

    seconds: float
    took_ns: list[int]
    wrong: list[bytes]
    processor_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.took_ns) / self.seconds


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A POST of JSON, ready to be sent."""
    parts = urlsplit(url)
    named = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (named | (headers or {})).items())
    return f"POST {parts.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One connection: asks the next question once it has the answer to the last, until `until` or none is left."""

    def __init__(self, requests: Iterator[Sent], block: Block, until: float) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._block = block
        self._until = until
        self._buffer = b""
        self._length = -1
        self._expected = b""
        self._began = 0
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods alone
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            self._length = length_of(self._buffer)
        if self._length < 0 and not self._buffer.endswith(b"\r\n0\r\n\r\n"):
            return
        if len(self._buffer) < self._length:
            return
        self._block.took_ns.append(perf_counter_ns() - self._began)
        if not self._buffer.startswith(b"HTTP/1.1 200") or self._expected not in self._buffer:
            self._block.wrong.append(self._buffer[:600])
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- the protocol's
        if not self._over:
            self._block.wrong.append(b"the connection was closed")
        self.done.set_result(None)

    def _next(self) -> None:
        sent = next(self._requests, None) if perf_counter() < self._until else None
        if sent is None:
            self._over = True
            self._transport.close()
            return
        request, self._expected = sent
        self._buffer, self._length = b"", -1
        self._began = perf_counter_ns()
        self._transport.write(request)


def length_of(response: bytes) -> int:
    """How long a whole response is; -1 where that is not known yet, or its end says so."""
    end = response.find(b"\r\n\r\n")
    if end < 0:
        return -1
    head = response[:end].lower()
    place = head.find(b"\r\ncontent-length:")
    if place < 0:
        return -1
    return end + 4 + int(head[place + 17 :].split(b"\r\n", 1)[0])


async def ask(
    url: str, requests: Iterator[Sent], *, connections: int, seconds: float = math.inf, pid: int = 0
) -> Block:
    """Ask for so long, or until there is nothing more to ask, over so many connections.

    `pid` is the process whose processor time counts.
    """
    parts = urlsplit(url)
    block = Block(0.0, [], [])
    used, began = processor_seconds(pid), perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Connection(requests, block, began + seconds), parts.hostname, parts.port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    block.seconds = perf_counter() - began
    block.processor_seconds = processor_seconds(pid) - used
    return block


def processor_seconds(pid: int) -> float:
    """What a process has used so far; 0.0 for none."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def percentile(took_ns: list[int], percent: int) -> float:
    """A percentile, in milliseconds."""
    return (statistics.quantiles(took_ns, n=100)[percent - 1] if len(took_ns) > 1 else took_ns[0]) / 1e6

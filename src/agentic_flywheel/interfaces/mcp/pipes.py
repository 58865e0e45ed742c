"""Standard input and output as the protocol's two pipes, such that waiting for either can be cancelled.

Invariant: no thread is ever blocked in a read or a write (the SDK's own transport uses such threads, which keep a
process from ending while the client neither sends nor reads). Once the pipes are taken, anything else that reads
standard input finds it empty, and anything that prints goes to standard error: the wire stays clean.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.lowlevel

logger = logging.getLogger(__name__)

#: A pipe that is ready for writing takes at least this much without blocking (POSIX: PIPE_BUF >= 512, Linux 4096).
_PIECE = 4096 if os.uname().sysname == "Linux" else 512


def take() -> tuple[int, int]:
    """Private descriptors of standard input and output, which stand for nothing and standard error from now on.

    They are taken for the rest of the process: what still sits in a buffer at its end must not reach the wire either.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


async def lines(descriptor: int, received: bytes = b"") -> AsyncIterator[str]:
    """The lines of a pipe, socket, terminal or file, as they come, those in what was `received` before first."""
    pieces: list[bytes] = []
    while True:
        if received:
            chunk, received = received, b""
        else:
            await _ready(anyio.wait_readable, descriptor)
            chunk = os.read(descriptor, 1 << 16)
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            yield b"".join([*pieces, line]).decode(errors="replace")
            pieces = []
        if rest:
            pieces.append(rest)
        if not chunk:
            if pieces:
                yield b"".join(pieces).decode(errors="replace")
            return


class Output:
    """The part of an asynchronous file that the SDK's transport writes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, text: str) -> None:
        """Write all of `text`, however slowly the client reads."""
        rest = memoryview(text.encode())
        while rest:
            await _ready(anyio.wait_writable, self._descriptor)
            rest = rest[os.write(self._descriptor, rest[:_PIECE]) :]

    async def flush(self) -> None:
        """Nothing is held back."""


class Repeated(Output):
    """An output whose first line was written before, by the process as it started: that line is dropped.

    It is the answer to the first line of `after_first`, since no other is let through until it has come.
    """

    def __init__(self, descriptor: int, answer: bytes) -> None:
        super().__init__(descriptor)
        self._answer = answer
        self._dropped = anyio.Event()

    async def write(self, text: str) -> None:
        """Write all of `text`, unless it is the first."""
        if self._dropped.is_set():
            await super().write(text)
            return
        if text.encode().rstrip() != self._answer:
            logger.error("the client was told something else at the start than is served: %s", text.rstrip())
        self._dropped.set()

    async def after_first(self, incoming: AsyncIterator[str]) -> AsyncIterator[str]:
        """The first line, and once it is answered all others."""
        async for line in incoming:
            yield line
            await self._dropped.wait()


async def _ready(wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
    try:
        await wait(descriptor)
    except PermissionError:
        await anyio.lowlevel.checkpoint()  # epoll refuses plain files, which never block

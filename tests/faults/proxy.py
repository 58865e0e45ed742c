"""A TCP proxy that treats connections badly: between the askers and a server that knows nothing of it.

Replies alone are damaged, never commands: TCP and TLS guard both, and a server that was told something wrong cannot
know. What is damaged on its way back stands for a server, or something in front of it, that has gone mad.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self


class Fault(Enum):
    """What is done to connections."""

    NONE = "passed on"
    CUT_REPLY = "cut in the middle of a reply"
    CUT_COMMAND = "cut in the middle of a command"
    ACK_LOST = "cut after the command, before its reply"
    STALL = "held back"
    DRIP = "one byte at a time"
    GARBAGE = "random bytes in a reply"
    HALF_OPEN = "neither passed on nor closed"
    REFUSE = "closed at once"


class Proxy:
    """Listens on a port of 127.0.0.1, in a thread of its own, and passes everything on to `target` (a port there)."""

    def __init__(self, target: int, seed: int) -> None:
        self.fault = Fault.NONE
        self.port = 0
        #: How often each fault has struck.
        self.struck = dict.fromkeys(Fault, 0)
        self._target = target
        self._draw = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._ready = threading.Event()
        self._changed = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.cancel)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def become(self, fault: Fault) -> None:
        """From now on, do this to every connection, those included that are open."""

        def change() -> None:
            self.fault = fault
            self._changed.set()
            self._changed = asyncio.Event()

        self._loop.call_soon_threadsafe(change)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.ensure_future(asyncio.Event().wait())
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            await self._ended
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        far: asyncio.StreamWriter | None = None
        try:
            if self.fault is Fault.REFUSE:
                self.struck[Fault.REFUSE] += 1
                return
            replies, far = await asyncio.open_connection("127.0.0.1", self._target)
            ways = (self._commands(reader, far), self._replies(replies, writer))
            await _first_end(*ways)
        except (OSError, asyncio.CancelledError):
            return  # the server is away, or the proxy ends: so does the connection
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    async def _commands(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65536):
            await self._hold()
            if self.fault is Fault.CUT_COMMAND and self._strikes(0.2):
                sink.write(chunk[: self._draw.randrange(len(chunk))])
                await sink.drain()
                return
            sink.write(chunk)
            await sink.drain()

    async def _replies(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(65536):
            await self._hold()
            match self.fault:
                case Fault.ACK_LOST if self._strikes(0.2):
                    return
                case Fault.CUT_REPLY if self._strikes(0.2):
                    sink.write(chunk[: self._draw.randrange(len(chunk))])
                    await sink.drain()
                    return
                case Fault.GARBAGE if self._strikes(0.2):
                    at = self._draw.randrange(len(chunk))
                    rubbish = self._draw.randbytes(self._draw.randint(1, 16))
                    chunk = chunk[:at] + rubbish + chunk[at + len(rubbish) :]
                case Fault.DRIP:
                    self.struck[Fault.DRIP] += 1
                    for place in range(len(chunk)):
                        sink.write(chunk[place : place + 1])
                        await sink.drain()
                        await asyncio.sleep(0)
                    continue
                case _:
                    pass
            sink.write(chunk)
            await sink.drain()

    async def _hold(self) -> None:
        """Wait while nothing is passed on; what was held back comes through afterwards."""
        while self.fault in (Fault.STALL, Fault.HALF_OPEN):
            self.struck[self.fault] += 1
            half_open = self.fault is Fault.HALF_OPEN
            await self._changed.wait()
            if half_open:  # as after a router that forgot the connection: it ends without a word, much later
                raise ConnectionResetError

    def _strikes(self, share: float) -> bool:
        strikes = self._draw.random() < share
        self.struck[self.fault] += strikes
        return strikes


async def _first_end(*ways: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

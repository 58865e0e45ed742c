"""One connection to a Redis, shared by all askers of a process.

Invariant: replies come back in the order in which commands went out (RESP guarantees it), so every asker gets its own
and nobody else's: one that stops waiting keeps its place in the order, and its replies are dropped when they come.
What is asked within one tick of the event loop leaves in one write.

Why not a client library's pool: on the way of a question this exchange costs a third of a GET through redis-py's
asyncio client (docs/decisions/0012-own-wire.md), no pool can starve, and a cancelled asker costs no connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

from agentic_flywheel.store.address import Address

Command = Sequence[Any]
#: Is given what a server says unasked.
Push = Callable[[Any], None]

_NOTHING = object()
_BUFFER_BYTES = 65_536


class Refusal(Exception):
    """An error that the server answered with; `status_code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.status_code = text.partition(" ")[0]


class Lost(ConnectionError):
    """The connection ended before all replies came; nothing says whether the commands were carried out."""


class _Place:
    """An asker's place in the order: how many replies it waits for, and those that came."""

    __slots__ = ("future", "replies", "since", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]], since: float) -> None:
        self.wanted = wanted
        self.since = since
        self.replies: list[Any] = []
        self.future = future


class Wire(asyncio.BufferedProtocol):
    """A connection that is open; made by `open_wire`.

    Nobody waits longer than `patience` seconds for a reply but the one who has waited longest: that one has `longest`
    seconds, so that a short stall costs one asker a moment and not everyone their memory. Then the connection ends,
    with `TimeoutError` for all. `on_push` is given what the server says unasked (RESP3).
    """

    def __init__(self, patience: float, on_push: Push | None = None) -> None:
        self._parser = hiredis.Reader(protocolError=Lost, replyError=Refusal, notEnoughData=_NOTHING)
        # Read into again and again: a new buffer for every reply costs more than its parsing.
        self._buffer = bytearray(_BUFFER_BYTES)
        self._buffer_view = memoryview(self._buffer)
        self._places: deque[_Place] = deque()
        self._unsent: list[bytes] = []
        self._wrote_this_tick = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._on_push = on_push
        self._patience = patience
        self.longest = patience
        self.stalled = False  # somebody has waited longer than the patience, and still waits
        self._watchdog: asyncio.TimerHandle | None = None
        self._ended: BaseException | None = None
        self._gone = self._loop.create_future()

    @property
    def usable(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and self._ended is None

    @property
    def patience(self) -> float:
        """Longest wait for a reply, in seconds."""
        return self._patience

    @patience.setter
    def patience(self, seconds: float) -> None:
        self._patience = seconds
        if self._watchdog is not None:  # it was set by the patience before
            self._watchdog.cancel()
            self._watchdog = self._loop.call_later(seconds, self._watch) if self._places else None

    def exchange(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands; the future gives their replies in order, errors among them as `Refusal` values.

        It raises `Lost` where the connection ends first, `TimeoutError` where the server is too slow, and may be
        cancelled at any time.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._ended is not None or self._transport is None:
            future.set_exception(self._ended or Lost("not connected"))
            return future
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
        self._places.append(_Place(len(commands), future, self._loop.time()))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._patience, self._watch)
        if self._wrote_this_tick:
            self._unsent.append(packed)
        else:
            self._wrote_this_tick = True
            self._loop.call_soon(self._end_tick)
            self._transport.write(packed)
        return future

    def close(self, reason: BaseException | None = None) -> None:
        """End the connection at once; whoever waits gets `reason`."""
        self._end(reason or Lost("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    def _watch(self) -> None:
        """One timer for all askers: looks at the one who has waited longest."""
        self._watchdog = None
        if not self._places:
            return
        now = self._loop.time()
        waited = now - self._places[0].since
        if waited >= max(self.longest, self._patience):
            self.close(TimeoutError(f"no reply within {waited:.3g} s"))
            return
        due = self._patience - waited
        if due <= 0:
            self.stalled = True
            self._send_away(now)
            due = min(max(self.longest, self._patience) - waited, self._patience / 4)
        self._watchdog = self._loop.call_later(due, self._watch)

    def _send_away(self, now: float) -> None:
        """End the wait of all but the one who has waited longest; their places in the order stay."""
        late = TimeoutError(f"no reply within {self._patience:g} s")
        for place in islice(self._places, 1, None):
            if now - place.since >= self._patience and not place.future.done():
                place.future.set_exception(late)

    async def gone(self) -> None:
        """Wait until the connection is gone; call `close` first."""
        await self._gone

    def _end_tick(self) -> None:
        self._wrote_this_tick = False
        if self._unsent and self._transport is not None:
            unsent, self._unsent = self._unsent, []
            self._transport.write(b"".join(unsent))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour, not by name

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - one buffer, whatever is expected
        return self._buffer_view

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self._parser.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # takes any buffer
            while (reply := self._parser.gets()) is not _NOTHING:
                self._take(reply)
        except Lost as error:  # bytes that are not the protocol: nothing after them can be trusted
            self.close(error)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if self._on_push is not None:
                self._on_push(reply)
            return
        if not self._places:
            raise Lost("the server answered what nobody asked")
        place = self._places[0]
        place.replies.append(reply)
        if len(place.replies) == place.wanted:
            self._places.popleft()
            self.stalled = False
            if not place.future.done():
                place.future.set_result(place.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        lost = Lost(str(exc) if exc else "the server closed the connection")
        lost.__cause__ = exc
        self._end(lost)
        if not self._gone.done():
            self._gone.set_result(None)

    def _end(self, reason: BaseException) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        places, self._places = self._places, deque()
        for place in places:
            if not place.future.done():
                place.future.set_exception(reason)


async def open_wire(
    address: Address,
    socket: Path | None = None,
    *,
    patience: float,
    on_push: Push | None = None,
) -> Wire:
    """Connect to `address` (or to the embedded server's `socket`), speak RESP3, log in, choose the database.

    Raises `OSError` where nobody answers and `Refusal` where the server does not want us. Connecting is not bounded
    in time: the caller knows how long it can wait.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(address.url)
    options = address.options
    user = unquote(parts.username or "") or options.get("username", "")
    password = unquote(parts.password or "") or options.get("password", "")
    if socket is not None or parts.scheme == "unix":
        path = str(socket) if socket is not None else unquote(parts.path)
        _, wire = await loop.create_unix_connection(lambda: Wire(patience, on_push), path)
    else:
        host, port = parts.hostname or "localhost", parts.port or 6379
        context = tls_context(options) if parts.scheme == "rediss" else None
        _, wire = await loop.create_connection(lambda: Wire(patience, on_push), host, port, ssl=context)
    try:
        login = ("AUTH", user or "default", password) if password or user else ()
        name = ("SETNAME", options["client_name"]) if "client_name" in options else ()
        greeting: list[Command] = [("HELLO", 3, *login, *name)]
        if address.database:
            greeting.append(("SELECT", address.database))
        replies = await wire.exchange(greeting)
    except BaseException:
        wire.close()
        raise
    refusal = next((reply for reply in replies if isinstance(reply, Refusal)), None)
    if refusal is not None:
        wire.close()
        raise refusal
    return wire


def tls_context(options: dict[str, str]) -> ssl.SSLContext:
    """TLS as the address asks for it (`ssl_cert_reqs`, `ssl_ca_certs`, `ssl_certfile`, ...); verified by default."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    required = options.get("ssl_cert_reqs", "required")
    checked = options.get("ssl_check_hostname", "true").lower() in {"true", "yes", "1"}
    context.check_hostname = checked and required == "required"
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[required]
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
    if ciphers := options.get("ssl_ciphers"):
        context.set_ciphers(ciphers)
    return context

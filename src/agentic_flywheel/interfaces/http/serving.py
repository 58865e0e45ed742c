"""`afw serve` in one process: the server around the app, its beginning and its end.

Invariant: what was answered is kept. SIGTERM or SIGINT ends a process in order: it says that it is not ready, stops
accepting, lets requests end within `serve.grace_seconds`, then sends what is written behind; a second signal skips the
waiting, never that. Whoever started it hears what is served once requests are accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvicorn

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.interfaces.http.again import Repeats
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.service import Service
from agentic_flywheel.settings import Settings

_log = logging.getLogger(__name__)

#: Connections that the system holds for a process that is busy.
_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: How long a connection is kept open between requests, in seconds.
_KEEP_ALIVE = 75
#: When the garbage collector looks at objects: so many new ones, and so many looks at those that are younger.
_COLLECT = (10_000, 20, 20)
#: What closing may take, and then how long threads are waited for, in seconds.
_CLOSING_SECONDS = 10.0
_THREADS_SECONDS = 2.0


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What is served: by which processes, at which address, the routes of each room, a line on each for people."""

    url: str
    pid: int
    rooms: dict[str, list[str]]
    lines: list[str]
    workers: list[int]


def serve_here(
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[Served], None],
    *,
    interrupts: bool = True,
    until: int | None = None,
) -> None:
    """Serve in this process until a signal comes; `ready` is called once requests are accepted.

    Without `interrupts` SIGINT is left to whoever started the process. `until` is a descriptor: when it can be read,
    that one is gone, and the process ends as by a signal.
    """
    app = App(Service(settings))
    server = _Server(app, settings, lambda: ready(_served(app, listener, settings)))
    server.heeded = _SIGNALS if interrupts else (signal.SIGTERM,)
    server.until = until
    if not interrupts:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.run_app(listener))


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `SettingsError`."""
    host, port = settings.text("serve.host"), int(settings["serve.port"])
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        family, _, _, _, place = socket.getaddrinfo(host or None, port, type=kind, flags=flags)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            suggestions=(
                "Choose another port: `afw serve --port 0` takes one that is free.",
                "End the program that listens there: another `afw serve`, perhaps.",
                "Choose an address of this machine: 127.0.0.1 for this machine alone, 0.0.0.0 for all.",
            ),
            host=host,
            port=port,
        ) from error
    return listener


def _served(app: App, listener: socket.socket, settings: Settings) -> Served:
    host, port = settings.text("serve.host"), listener.getsockname()[1]
    return Served(
        url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
        pid=os.getpid(),
        rooms={room.name: sorted({route.path for route in room.routes}) for room in app.rooms},
        lines=[room.says for room in app.rooms if room.says],
        workers=[os.getpid()],
    )


def _spare_collections() -> None:
    """Have the garbage collector pass over what stays as long as the process, and look less often at the rest: it took
    a tenth of the service's time, and there are next to no cycles in what a request leaves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def _leave_after(seconds: float, code: int) -> threading.Timer:
    """End the process even if a thread of it is stuck: a function that somebody registered as a flow, say."""

    def leave() -> None:
        _log.warning("a thread does not end: the process leaves it behind")
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer


def _protocol(client_seconds: float, repeats: Repeats) -> Any:
    if importlib.util.find_spec("httptools") is None:
        return "auto"  # the other one is made for small things, and knows no such bound
    from agentic_flywheel.interfaces.http.answering import answering, fits
    from agentic_flywheel.interfaces.http.slow_clients import impatient

    protocol = impatient(client_seconds)
    return answering(protocol, repeats) if fits(protocol) else protocol


class _Server(uvicorn.Server):
    """uvicorn, with our beginning and our end."""

    def __init__(self, app: App, settings: Settings, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=_protocol(settings.number("serve.client_seconds"), app.service.repeats),
            lifespan="off",  # ours is entered around it, so that a second signal cannot skip it
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here goes by the client's address, so nobody need be believed about it
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(settings.number("serve.grace_seconds"))),
        )
        super().__init__(config)
        self.heeded: tuple[signal.Signals, ...] = _SIGNALS
        self.until: int | None = None
        self._app = app
        self._ready = ready
        self._drain_seconds = settings.number("serve.drain_seconds")
        self._drained_at: float | None = None

    async def run_app(self, listener: socket.socket) -> None:
        """Open what the app needs, serve, close it again; then the process ends, whatever a flow's thread is doing."""
        async with self._app.running():
            await self.serve(sockets=[listener])
            last_resort = _leave_after(_CLOSING_SECONDS, 1)
        last_resort.cancel()
        _leave_after(_THREADS_SECONDS, 0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        _spare_collections()
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Heed signals while serving; uvicorn's own way would raise them again before the app is closed."""
        loop = asyncio.get_running_loop()
        for number in self.heeded:
            loop.add_signal_handler(number, self._signalled)
        if self.until is not None:
            loop.add_reader(self.until, self._abandoned)
        try:
            yield
        finally:
            for number in self.heeded:
                loop.remove_signal_handler(number)
            if self.until is not None:
                loop.remove_reader(self.until)

    def _signalled(self) -> None:
        """The first signal begins the drain, the second ends it, the third waits for no request."""
        now = asyncio.get_running_loop().time()
        self._app.service.closing = True
        if self._drained_at is None:
            self._drained_at = now + self._drain_seconds
        elif now < self._drained_at:
            self._drained_at = now
        else:
            self.force_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.close()

    def _abandoned(self) -> None:
        assert self.until is not None
        asyncio.get_running_loop().remove_reader(self.until)
        self.until = None
        self._drain_seconds = 0.0
        self._signalled()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop accepting."""
        if self._drained_at is not None and asyncio.get_running_loop().time() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

"""`afw serve`: the server, in this process or in several that share a port.

Invariant: what was answered is kept. SIGTERM or SIGINT ends a process in order: it says that it is not ready, stops
accepting, lets requests end within `serve.grace_seconds`, then sends what is written behind; a second signal skips the
waiting, never that. The line on standard error that says what is served, and the object on standard output, come
when requests are accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from agentic_flywheel.errors import SettingsError
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.service import Service, check_access
from agentic_flywheel.settings import Settings

_log = logging.getLogger(__name__)

#: Connections that the system holds for a process that is busy.
_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: How long a connection is kept open between requests, in seconds.
_KEEP_ALIVE = 75


def serve(settings: Settings, ready: Callable[[str, App], None]) -> None:
    """Serve until a signal comes; `ready` is called with the address once requests are accepted.

    Raises `SettingsError` where the settings do not allow it, or the port is taken.
    """
    if warning := asyncio.run(check_access(settings)):
        _log.warning("%s", warning)
    listener = listen(settings)
    app = App(Service(settings))
    server = _Server(app, settings, lambda: ready(_address(listener, settings), app))
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.run_app(listener))


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises `SettingsError`."""
    host, port = settings.text("serve.host"), int(settings["serve.port"])
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
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


def _address(listener: socket.socket, settings: Settings) -> str:
    host, port = settings.text("serve.host"), listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, with our beginning and our end."""

    def __init__(self, app: App, settings: Settings, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",  # ours is entered around it, so that a second signal cannot skip it
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, round(settings.number("serve.grace_seconds"))),
        )
        super().__init__(config)
        self._app = app
        self._ready = ready
        self._drain_seconds = settings.number("serve.drain_seconds")
        self._drained_at: float | None = None

    async def run_app(self, listener: socket.socket) -> None:
        """Open what the app needs, serve, close it again."""
        async with self._app.running():
            await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Heed signals while serving; uvicorn's own way would raise them again before the app is closed."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

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

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop accepting."""
        if self._drained_at is not None and asyncio.get_running_loop().time() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

"""`afw serve --workers N`: several processes that accept from one socket.

Invariant: the processes share nothing but the socket, Redis, and a folder of counts for `/metrics`. One that ends by
itself is replaced, unless it cannot even start, or too many do so at once: then all end, and the command fails. A
signal to the parent is passed on; the parent ends when all have. If the parent is gone, the others end too.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import msgspec

from agentic_flywheel.errors import ServiceFailed
from agentic_flywheel.interfaces.http.serving import Served, serve_here
from agentic_flywheel.settings import Settings

_log = logging.getLogger(__name__)
_spawn = multiprocessing.get_context("spawn")

#: So many unexpected ends within a minute are a defect that starting again does not mend.
_MOST_ENDS = 5
_WITHIN_SECONDS = 60.0
#: What closing may take after the grace of requests, before a worker is killed.
_CLOSING_SECONDS = 15.0
_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def serve_with_workers(settings: Settings, listener: socket.socket, ready: Callable[[Served], None]) -> None:
    """Serve with `serve.workers` processes until a signal comes. Raises `ServiceFailed`."""
    folder = tempfile.mkdtemp(prefix="afw-metrics-")
    os.environ[_FOLDER_VARIABLE] = folder
    try:
        with _signals() as signalled:
            _Workers(settings, listener, signalled).run(ready)
    finally:
        del os.environ[_FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


class _Worker:
    """One process, and the pipe by which it says that it is ready."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self.told, telling = _spawn.Pipe(duplex=False)
        self.served: Served | None = None
        self.process: SpawnProcess = _spawn.Process(target=_work, args=(settings, listener, telling))
        self.process.start()
        telling.close()


class _Workers:
    """All of them, as the parent looks after them; `signalled` can be read when a signal has come."""

    def __init__(self, settings: Settings, listener: socket.socket, signalled: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._signalled = signalled
        self._wanted = int(settings["serve.workers"])
        self._workers: list[_Worker] = []
        self._ends: deque[float] = deque()
        self._ending = False
        self._kill_at = float("inf")
        self._failure = ""

    def run(self, ready: Callable[[Served], None]) -> None:
        """Start them, keep them, end them."""
        self._workers = [_Worker(self._settings, self._listener) for _ in range(self._wanted)]
        said = False
        while self._workers:
            self._look()
            if not said and not self._ending and all(worker.served for worker in self._workers):
                said = True
                ready(self._all())
        if self._failure:
            raise ServiceFailed(self._failure)

    def _look(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        patience = max(0.0, self._kill_at - time.monotonic()) if self._kill_at < float("inf") else None
        pipes = {worker.told: worker for worker in self._workers if worker.served is None}
        ends = {worker.process.sentinel: worker for worker in self._workers}
        happened: list[Any] = wait([*pipes, *ends, self._signalled], patience)
        if self._signalled in happened:
            self._signalled.recv(64)
            self._end()
        for one in happened:
            if one in pipes:
                self._hear(pipes[one])
        for one in happened:
            if one in ends:
                self._ended(ends[one])
        if time.monotonic() >= self._kill_at:
            for worker in self._workers:
                _log.error("worker %s does not end: killed", worker.process.pid)
                worker.process.kill()
            self._kill_at = float("inf")

    def _hear(self, worker: _Worker) -> None:
        with contextlib.suppress(EOFError, OSError):  # it has ended, which its sentinel says
            worker.served = msgspec.msgpack.decode(worker.told.recv_bytes(), type=Served)

    def _ended(self, worker: _Worker) -> None:
        if worker.served is None and worker.told.poll():
            self._hear(worker)
        worker.process.join()
        worker.told.close()
        self._workers.remove(worker)
        _forget_counts_in_flight(worker.process.pid)
        if self._ending:
            return
        _log.error("worker %s ended with code %s", worker.process.pid, worker.process.exitcode)
        now = time.monotonic()
        self._ends.append(now)
        while self._ends[0] < now - _WITHIN_SECONDS:
            self._ends.popleft()
        if worker.served is None:
            self._failure = f"a worker could not start (exit code {worker.process.exitcode})"
        elif len(self._ends) >= _MOST_ENDS:
            self._failure = f"{len(self._ends)} workers ended within a minute"
        if self._failure:
            self._end()
        else:
            self._workers.append(_Worker(self._settings, self._listener))

    def _end(self) -> None:
        """Pass a signal on; each worker knows what the first and what the next ones mean."""
        self._ending = True
        patience = self._settings.number("serve.drain_seconds") + self._settings.number("serve.grace_seconds")
        self._kill_at = time.monotonic() + patience + _CLOSING_SECONDS
        for worker in self._workers:
            worker.process.terminate()

    def _all(self) -> Served:
        first = self._workers[0].served
        assert first is not None
        workers = [int(worker.process.pid or 0) for worker in self._workers]
        return msgspec.structs.replace(first, pid=os.getpid(), workers=workers)


def _work(settings: Settings, listener: socket.socket, telling: Connection) -> None:
    """What a worker does."""
    from agentic_flywheel.interfaces.http.logs import log_to_stderr

    log_to_stderr(settings.text("serve.log_format"))

    def ready(served: Served) -> None:
        telling.send_bytes(msgspec.msgpack.encode(served))
        telling.close()

    parent = multiprocessing.parent_process()
    until = parent.sentinel if parent is not None else None
    serve_here(settings, listener, ready, interrupts=False, until=until)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that can be read when SIGTERM or SIGINT has come."""
    hearing, telling = socket.socketpair()
    hearing.setblocking(False)
    telling.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    woken = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    try:
        yield hearing
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        hearing.close()
        telling.close()


def _forget_counts_in_flight(pid: int | None) -> None:
    """What a worker that has ended was just doing is done; what it has counted still counts."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]

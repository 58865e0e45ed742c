"""The thread in which one embedder lives.

Invariant: embedders are made, asked and closed in this thread alone, and it never touches the state of an event loop
but through `call_soon_threadsafe`. Questions go before work in bulk.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from agentic_flywheel.errors import EmbedderError, EmbedderUnavailable, FlywheelError
from agentic_flywheel.search.protocols import Embedder

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Matrix, Vector

#: The order in which the thread takes what waits.
END, QUESTION, BULK = -1, 0, 1


class Front(Protocol):
    """Whom the thread tells, on the event loop."""

    def loaded(self, worker: EmbedderThread, embedder: Embedder) -> None:
        """There is an embedder, and it passed its self-test."""

    def failed(self, worker: EmbedderThread, error: FlywheelError) -> None:
        """The embedder could not be loaded; the thread has ended."""

    def embedded(self, worker: EmbedderThread, rank: int, text: str, outcome: Vector | EmbedderError) -> None:
        """A text has its vector, or got none."""


class EmbedderThread:
    """Loads an embedder and gives it what is `put`, until it is told to `stop`."""

    def __init__(
        self,
        front: Front,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], Embedder],
        closes: bool,
        exit_seconds: float,
    ) -> None:
        self.ended = asyncio.Event()
        self._front = front
        self._loop = loop
        self._make = make
        self._closes = closes
        self._exit_seconds = exit_seconds
        self._jobs: queue.PriorityQueue[tuple[int, int, str]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._stopped = threading.Event()
        # A daemon, so that a service that does not answer cannot hold the process; `_leave` waits for what may not die.
        self._thread = threading.Thread(target=self._run, name="afw-embedder", daemon=True)

    def start(self) -> None:
        atexit.register(self._leave)
        self._thread.start()

    def put(self, rank: int, text: str) -> None:
        self._jobs.put((rank, next(self._numbers), text))

    def stop(self) -> None:
        """End as soon as what is under way is done."""
        self._stopped.set()
        self.put(END, "")

    def _leave(self) -> None:
        self.stop()
        if self._exit_seconds:
            self._thread.join(self._exit_seconds)

    def _run(self) -> None:
        try:
            embedder = self._loaded()
            if embedder is not None:
                try:
                    self._serve(embedder)
                finally:
                    if self._closes:
                        embedder.close()
        finally:
            atexit.unregister(self._leave)
            self._say(self.ended.set)

    def _loaded(self) -> Embedder | None:
        from agentic_flywheel.search.selftest import examine

        embedder = None
        try:
            embedder = self._make()
            if not self._stopped.is_set():
                examine(embedder)
        except Exception as error:  # noqa: BLE001 (a callable and native libraries raise what they like)
            if embedder is not None and self._closes:
                embedder.close()
            mapped = error if isinstance(error, FlywheelError) else _unforeseen(error)
            self._say(self._front.failed, self, mapped)
            return None
        self._say(self._front.loaded, self, embedder)
        return embedder

    def _serve(self, embedder: Embedder) -> None:
        most = at_once(embedder)
        while not self._stopped.is_set():
            jobs = [self._jobs.get()]
            while len(jobs) < most and not self._jobs.empty():
                jobs.append(self._jobs.get())
            wanted = [(rank, text) for rank, _, text in jobs if rank != END]
            if len(wanted) < len(jobs):
                return
            for (rank, text), outcome in zip(wanted, _embed(embedder, [text for _, text in wanted]), strict=True):
                self._say(self._front.embedded, self, rank, text, outcome)

    def _say(self, what: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop is closed: nobody is there to be told, and there is nothing more to do
            self._stopped.set()


def _embed(embedder: Embedder, texts: list[str]) -> list[Vector] | list[EmbedderError]:
    """The vectors of some texts. Where one of them spoils it for all, each is tried alone."""
    try:
        rows: Matrix = embedder.embed(texts)
        rows.flags.writeable = False
        return list(rows)
    except Exception as error:  # noqa: BLE001 (see `_loaded`)
        mapped = error if isinstance(error, EmbedderError) else _unforeseen(error)
        if len(texts) == 1 or mapped.retry_after_seconds:
            return [mapped] * len(texts)
    outcomes: list[Any] = [_embed(embedder, [text])[0] for text in texts]
    return outcomes


def at_once(embedder: Embedder | None) -> int:
    """Most texts that the embedder is given at once: 1, unless it says that more are no different from one."""
    return int(getattr(embedder, "at_once", 1))


def _unforeseen(error: Exception) -> EmbedderUnavailable:
    mapped = EmbedderUnavailable(f"the embedder failed: {type(error).__name__}: {error}")
    mapped.__cause__ = error
    return mapped

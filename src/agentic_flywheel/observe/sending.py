"""Hands traces over from a thread of its own, so that no question ever waits for whoever takes them.

Invariant: `put` is an append to a bounded queue, whatever the other side does; what finds no room is dropped and
counted. The thread begins with the first trace, and what it needs is imported there. It is a daemon and registers
nothing to run at the end of the program: closing takes `close_seconds` at most, and then the process may end, be the
other side slow, silent or gone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

_log = logging.getLogger(__name__)

#: How long traces are gathered before they are handed over together, and how many go at a time.
GATHER_SECONDS = 0.5
MOST_AT_A_TIME = 64
#: Between two traces the thread lets go of the interpreter, so that it never holds up the event loop for longer than
#: one trace takes to be spelt (about 0.2 ms).
_BREATH_SECONDS = 0.0002
#: How often whoever waits for the queue looks at it.
_LOOK_SECONDS = 0.02
#: Pauses before a batch is tried again where the other side could not be reached or was too busy.
RETRY_SECONDS = (1.0, 4.0, 10.0)


class Unreachable(Exception):
    """Nobody answered, or asked to be tried later: the same batch may be taken another time."""


class Refused(Exception):
    """The other side will not take this, now or later."""


class Courier(Protocol):
    """Brings traces to where they go; used by one thread alone, which makes it."""

    def spell(self, item: Any) -> Any:
        """One trace in the form in which it is handed over."""
        ...

    def deliver(self, spelt: Sequence[Any]) -> None:
        """Hand over what was spelt. Raises `Unreachable` and `Refused`."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How traces fare in this process: handed over, dropped since there was no room, given up since they were not
    taken; `problem` is what went wrong last, "" if nothing has since."""

    sent: int = 0
    waiting: int = 0
    dropped: int = 0
    failed: int = 0
    problem: str = ""


class Sender:
    """The queue and the thread of one flywheel. `put` and `aclose` are for one event loop's thread; `told` hears, from
    either thread, how many traces were sent, dropped or failed."""

    def __init__(
        self,
        courier: Callable[[], Courier],
        *,
        most: int,
        close_seconds: float,
        told: Callable[[str, int], None] | None = None,
    ) -> None:
        self._make = courier
        self._told = told or _nobody
        self._most = most
        self._close_seconds = close_seconds
        self._queue: deque[Any] = deque()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._tell: Callable[[], Any] = lambda: None
        self._in_hand = 0
        self._counts = {"sent": 0, "dropped": 0, "failed": 0}
        self._problem = ""

    def put(self, item: Any) -> None:
        """Queue a trace; never waits, never raises for what the other side does."""
        if self._closed or len(self._queue) >= self._most:
            self._count("dropped", 1)
            return
        self._queue.append(item)
        if not self._news.is_set():
            self._news.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="afw-traces", daemon=True)
                self._thread.start()

    @property
    def delivery(self) -> Delivery:
        """How it goes."""
        return Delivery(
            waiting=len(self._queue) + self._in_hand,
            problem=self._problem,
            **self._counts,
        )

    async def idle(self, seconds: float) -> None:
        """Wait until nothing is queued, so many seconds at most; off the way of questions."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._queue or self._in_hand:  # noqa: ASYNC110 -- whoever empties it is a thread
                    await asyncio.sleep(_LOOK_SECONDS)

    def hurry(self) -> None:
        """Begin to hand over what is queued: the program is about to end."""
        self._closing.set()
        self._news.set()

    async def aclose(self) -> None:
        """Hand over what is queued, for as long as that may take; what is left then is dropped. Safe to call twice."""
        self._closed = True
        self.hurry()  # in this order: the thread ends once both are so
        if self._thread is not None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            self._tell = lambda: loop.call_soon_threadsafe(ended.set)
            if not self._ended.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._close_seconds):
                        await ended.wait()
        if left := len(self._queue) + self._in_hand:
            self._queue.clear()
            self._count("dropped", left)
            self._in_hand = 0
            _log.warning("%d trace(s) were not handed over before the end: %s", left, self._problem or "too slow")

    def _run(self) -> None:
        try:
            courier = self._make()
        except Exception as error:  # noqa: BLE001 -- whatever is amiss with traces, questions go on
            self._trouble(f"{type(error).__name__}: {error}")
            self._give_up_all()
            return
        try:
            while not (self._closed and not self._queue):
                self._news.wait()
                self._closing.wait(GATHER_SECONDS)
                self._news.clear()
                while self._queue:
                    self._hand_over(courier)
        finally:
            courier.close()
            self._end()

    def _hand_over(self, courier: Courier) -> None:
        spelt: list[Any] = []
        while self._queue and len(spelt) < MOST_AT_A_TIME:
            item = self._queue.popleft()
            self._in_hand += 1
            try:
                spelt.append(courier.spell(item))
            except Exception:  # noqa: BLE001 -- a defect of ours costs this trace, not those after it
                _log.exception("a trace could not be spelt")
                self._in_hand -= 1
                self._count("failed", 1)
            if not self._closing.is_set():
                time.sleep(_BREATH_SECONDS)
        for pause in (*RETRY_SECONDS, None):
            try:
                if spelt:
                    courier.deliver(spelt)
            except Unreachable as error:
                self._trouble(str(error))
                if pause is None or self._closing.wait(pause):
                    self._count("failed", len(spelt))
                    break
            except Exception as error:  # noqa: BLE001 -- `Refused`, or a defect: the thread goes on with the next batch
                self._trouble(str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}")
                self._count("failed", len(spelt))
                break
            else:
                self._count("sent", len(spelt))
                self._problem = ""
                break
        self._in_hand = 0

    def _give_up_all(self) -> None:
        """Without a courier nothing is ever handed over: what comes is counted."""
        self._closed = True
        self._count("failed", len(self._queue))
        self._queue.clear()
        self._end()

    def _end(self) -> None:
        self._ended.set()
        with suppress(RuntimeError):  # the event loop did not wait so long
            self._tell()

    def _count(self, end: str, traces: int) -> None:
        if traces:
            self._counts[end] += traces
            self._told(end, traces)

    def _trouble(self, problem: str) -> None:
        if problem != self._problem:  # said once, not with every batch
            _log.warning("traces are not taken: %s", problem)
        self._problem = problem


def _nobody(_end: str, _traces: int) -> None:
    """Nobody counts besides."""

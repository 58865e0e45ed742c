"""An event loop whose clock stands still, and is put forward only when everybody waits for it.

So the time that passes while a question is asked is the time that it spent waiting for timers, on every machine: what
waits for a server that does not answer shows, and what the processor takes does not.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

_TICK_SECONDS = 1e-9


class FrozenLoop(asyncio.SelectorEventLoop):
    """Like any other until `freeze` is called."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.in_threads = 0
        self._now: float | None = None

    @property
    def frozen(self) -> bool:
        return self._now is not None

    def freeze(self) -> None:
        """From now on, time passes only while there is nothing else to do."""
        self._now = super().time()

    def time(self) -> float:
        return super().time() if self._now is None else self._now

    def put_forward(self, seconds: float) -> None:
        assert self._now is not None
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self.in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._out_of_thread)
        return future

    def _out_of_thread(self, _future: object) -> None:
        self.in_threads -= 1


class _Selector(selectors.DefaultSelector):
    """Tells the loop that nothing will happen before its next timer."""

    def __init__(self, loop: FrozenLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._loop.frozen or self._loop.in_threads or timeout is None:
            return super().select(timeout)
        events = super().select(0)
        # Never quite still: who finds that a moment is missing, by rounding, sets a timer for that moment.
        self._loop.put_forward(_TICK_SECONDS if events else timeout + _TICK_SECONDS)
        return events

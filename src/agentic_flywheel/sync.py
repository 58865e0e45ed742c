"""The flywheel for programs without an event loop: the same names, without `await`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from inspect import iscoroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from agentic_flywheel.flows.protocol import StreamEvent
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.model import Answer, Check

_T = TypeVar("_T")


class FlywheelSync:
    """`Flywheel` on an event loop of its own, in a thread; safe to use from several threads.

    with FlywheelSync.open(tenant="docs-team") as flywheel:
        print(flywheel.ask("How long are answers kept?").text)
    """

    def __init__(self, flywheel: Flywheel) -> None:
        self._flywheel = flywheel
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentic-flywheel", daemon=True)
        self._thread.start()
        self.settings = flywheel.settings
        self.registry = flywheel.registry
        self.sessions = _Waiting(flywheel.sessions, self._wait)
        self.cache = _Waiting(flywheel.cache, self._wait)
        self.flows = _Waiting(flywheel.flows, self._wait)
        self.lifetimes = _Waiting(flywheel.lifetimes, self._wait)
        self.similar = _Waiting(flywheel.similar, self._wait)
        self.history = _Waiting(flywheel.history, self._wait)

    @classmethod
    def open(cls, **arguments: Any) -> Self:
        """As `Flywheel.open`."""
        return cls(Flywheel.open(**arguments))

    def ask(self, question: str, **arguments: Any) -> Answer:
        """As `Flywheel.ask`."""
        return self._wait(self._flywheel.ask(question, **arguments))

    def stream(self, question: str, **arguments: Any) -> Generator[StreamEvent, None, None]:
        """As `Flywheel.stream`; closing it, or leaving the loop over it for good, stops listening."""
        return self._each(self._flywheel.stream(question, **arguments))

    def _each(self, events: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
        async def following() -> tuple[_T, ...]:
            try:
                return (await anext(events),)
            except StopAsyncIteration:
                return ()

        try:
            while event := self._wait(following()):
                yield event[0]
        except GeneratorExit:  # what else ends the loop has ended `events` too
            if not self._loop.is_closed():
                self._wait(events.aclose())
            raise

    @property
    def usage(self) -> Any:
        """As `Flywheel.usage`."""
        return _Waiting(self._flywheel.usage, self._wait)

    @property
    def policies(self) -> Any:
        """As `Flywheel.policies`."""
        return _Waiting(self._flywheel.policies, self._wait)

    @property
    def retention(self) -> Any:
        """As `Flywheel.retention`."""
        return _Waiting(self._flywheel.retention, self._wait)

    @property
    def forgetting(self) -> Any:
        """As `Flywheel.forgetting`."""
        return _Waiting(self._flywheel.forgetting, self._wait)

    @property
    def erasing(self) -> Any:
        """As `Flywheel.erasing`."""
        return _Waiting(self._flywheel.erasing, self._wait)

    @property
    def own_data(self) -> Any:
        """As `Flywheel.own_data`."""
        return _Waiting(self._flywheel.own_data, self._wait)

    @property
    def links(self) -> Any:
        """As `Flywheel.links`."""
        return _Waiting(self._flywheel.links, self._wait)

    @property
    def backup(self) -> Any:
        """As `Flywheel.backup`."""
        return _Waiting(self._flywheel.backup, self._wait)

    @property
    def popular(self) -> Any:
        """As `Flywheel.popular`."""
        return _Waiting(self._flywheel.popular, self._wait)

    @property
    def warming(self) -> Any:
        """As `Flywheel.warming`: `run`, `show` and `recent`."""
        return _Waiting(self._flywheel.warming, self._wait)

    @property
    def faq(self) -> Any:
        """As `Flywheel.faq`."""
        return _Waiting(self._flywheel.faq, self._wait)

    def doctor(self) -> list[Check]:
        """As `Flywheel.doctor`."""
        return self._wait(self._flywheel.doctor())

    def flush(self) -> None:
        """As `Flywheel.flush`."""
        self._wait(self._flywheel.flush())

    def close(self) -> None:
        """As `Flywheel.aclose`; the thread ends too. Safe to call twice."""
        with self._closing:  # whoever comes second waits until it is done
            if self._loop.is_closed():
                return
            self._wait(self._flywheel.aclose())
            self._wait(self._loop.shutdown_asyncgens())
            self._wait(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this flywheel is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting: the work must not go on behind the caller's back
            future.cancel()
            raise


class _Waiting:
    """An object whose coroutine methods are waited for."""

    def __init__(self, target: object, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._target = target
        self._wait = wait

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **named: Any) -> Any:
            result = attribute(*arguments, **named)
            return self._wait(result) if iscoroutine(result) else result

        return call

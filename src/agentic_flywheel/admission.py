"""Who may call a limited flow now: `max_concurrency` and `calls_per_minute` of the registry.

Invariant: a flow without limits costs nothing here. With Redis the limits hold over all processes; while it cannot be
asked, each process keeps to the concurrency by itself. Calls that nobody waits for have places of their own kind: they
wait behind everybody who asks, and give way to them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from agentic_flywheel.errors import FlowLimited, FlowUnavailable, StoreError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.limits import Limits

#: How often a call that nobody waits for looks whether somebody needs its place.
_LOOK_SECONDS = 0.1

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class GaveWay(FlowUnavailable):
    """A call that nobody waited for was given up, since somebody who asks needed its place."""


class Admission:
    """Lets calls through to the flows of one tenant."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._limits = limits
        self._patience = settings.number("flow.queue_seconds")
        self._timeout = settings.number("flow.timeout_seconds")
        self._own: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, spec: FlowSpec) -> AsyncIterator[None]:
        """Hold a place for one call. Raises `FlowLimited` where none is free within `flow.queue_seconds`."""
        if spec.max_concurrency is None and spec.calls_per_minute is None:
            yield
            return
        deadline = time.monotonic() + self._patience
        held = spec.timeout.total_seconds() if spec.timeout else self._timeout
        while True:
            token, wait = await self._try(spec, held)
            if wait <= 0:
                break
            if time.monotonic() + wait > deadline:
                raise FlowLimited(
                    f"the flow {spec.key!r} is limited ({_limits_of(spec)}) and no place is free",
                    retry_after_seconds=max(1.0, wait),
                    suggestions=(f"Raise max_concurrency or calls_per_minute of {spec.key!r} in the registry.",),
                    flow=spec.key,
                )
            await asyncio.sleep(wait * random.uniform(1.0, 1.2))
        self._own[spec.key] += 1
        try:
            yield
        finally:
            self._own[spec.key] -= 1
            if token and spec.max_concurrency is not None:
                await self._leave(spec.key, token)

    @asynccontextmanager
    async def spare(self, spec: FlowSpec) -> AsyncIterator[Spare]:
        """Hold a place that nobody who asks needs, however long it takes to get it. Raises `StoreError`."""
        if spec.max_concurrency is None and spec.calls_per_minute is None:
            yield Spare()
            return
        held = spec.timeout.total_seconds() if spec.timeout else self._timeout
        while True:
            token, wait = await self._limits.enter(
                spec.key, held_seconds=held, most=spec.max_concurrency, per_minute=spec.calls_per_minute, spare=True
            )
            if wait <= 0:
                break
            await asyncio.sleep(wait * random.uniform(1.0, 1.2))
        self._own[spec.key] += 1
        try:
            yield Spare(self._limits, spec.key, token) if spec.max_concurrency is not None else Spare()
        finally:
            self._own[spec.key] -= 1
            if spec.max_concurrency is not None:
                await self._leave(spec.key, token)

    async def _try(self, spec: FlowSpec, held: float) -> tuple[str, float]:
        try:
            return await self._limits.enter(
                spec.key,
                held_seconds=held,
                most=spec.max_concurrency,
                per_minute=spec.calls_per_minute,
            )
        except StoreError:
            full = spec.max_concurrency is not None and self._own[spec.key] >= spec.max_concurrency
            return "", 0.1 if full else 0.0

    async def _leave(self, flow: str, token: str) -> None:
        try:
            await self._limits.leave(flow, token)
        except StoreError as error:
            _log.warning("a place of flow %s frees itself when it runs out: %s", flow, error)


class Spare:
    """A place for a call that nobody waits for."""

    def __init__(self, limits: Limits | None = None, flow: str = "", token: str = "") -> None:
        self._limits = limits  # None: a place that nobody can need
        self._flow = flow
        self._token = token

    async def within(self, call: Coroutine[Any, Any, _T], *, gives_way: Callable[[], bool]) -> _T:
        """What `call` returns. It is given up when somebody needs the place, unless `gives_way` says that somebody
        waits for the call itself by now. Raises `GaveWay`."""
        limits = self._limits
        if limits is None:
            return await call
        task = asyncio.get_running_loop().create_task(call)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
                with suppress(StoreError):  # the place frees itself when it runs out
                    if not await limits.called_back(self._flow, self._token):
                        continue
                    if task.done():
                        break
                    if gives_way():
                        raise GaveWay(f"the call was given up, since somebody asked the flow {self._flow!r}")
                    await limits.stay(self._flow, self._token)
                    break
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _limits_of(spec: FlowSpec) -> str:
    limits = []
    if spec.max_concurrency is not None:
        limits.append(f"{spec.max_concurrency} at a time")
    if spec.calls_per_minute is not None:
        limits.append(f"{spec.calls_per_minute} a minute")
    return ", ".join(limits)

"""Who may call a limited flow now: `max_concurrency` and `calls_per_minute` of the registry.

Invariant: a flow without limits costs nothing here. With Redis the limits hold over all processes; while it cannot be
asked, each process keeps to the concurrency by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentic_flywheel.errors import FlowLimited, StoreError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.limits import Limits

_log = logging.getLogger(__name__)


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


def _limits_of(spec: FlowSpec) -> str:
    limits = []
    if spec.max_concurrency is not None:
        limits.append(f"{spec.max_concurrency} at a time")
    if spec.calls_per_minute is not None:
        limits.append(f"{spec.calls_per_minute} a minute")
    return ", ".join(limits)

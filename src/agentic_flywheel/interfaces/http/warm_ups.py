"""Warm-ups that callers begin over HTTP: they go on after the response, in the process that was asked.

Invariant: what a caller is told of is known in Redis already, so every worker can show it and stop it. The tenant's
flywheel is held until the warm-up has ended; one that is cut off because the service closes can be gone on with.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agentic_flywheel.errors import FlywheelError

if TYPE_CHECKING:
    from agentic_flywheel.insight.warming import WarmUp
    from agentic_flywheel.interfaces.http.tenants import Tenants

_log = logging.getLogger(__name__)


class WarmUps:
    """The warm-ups that run in this process."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._running: set[asyncio.Task[None]] = set()

    async def begin(self, tenant: str, warm_up: WarmUp) -> str:
        """Have a warm-up of a tenant run; its id. Raises `StoreError`: then nothing runs."""
        await warm_up.announce()
        flywheel = self._tenants.lend(tenant)
        task = asyncio.get_running_loop().create_task(_run(warm_up))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self._tenants.take_back(flywheel))
        return warm_up.job

    async def settled(self) -> None:
        """Wait until none runs here."""
        while self._running:
            await asyncio.wait(self._running)

    async def aclose(self) -> None:
        """Stop all of them."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _run(warm_up: WarmUp) -> None:
    try:
        async for _ in warm_up:
            pass
    except FlywheelError as error:
        _log.warning("the warm-up %s ended early: %s", warm_up.job, error.code)
    finally:
        await warm_up.aclose()

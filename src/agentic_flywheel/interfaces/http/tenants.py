"""The flywheels of a service: one for each tenant that is spoken to, as many as may be open at a time.

Invariant: a flywheel that a call holds is never closed under it. Beyond the bound the one that was used least recently
and is held by nobody is closed; where all are held, another tenant has to wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from agentic_flywheel.errors import FlywheelError, ServiceBusy
from agentic_flywheel.flywheel import Flywheel

_log = logging.getLogger(__name__)


class Tenants:
    """Flywheels by tenant; `open_one` makes one, and connects nothing yet. `on_close` is told of one that is closed to
    make room."""

    def __init__(
        self,
        open_one: Callable[[str], Flywheel],
        *,
        most: int,
        on_close: Callable[[Flywheel], None] = lambda _flywheel: None,
    ) -> None:
        self._open_one = open_one
        self._on_close = on_close
        self._most = most
        self._open: OrderedDict[str, Flywheel] = OrderedDict()
        self._held: dict[Flywheel, int] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def lend(self, tenant: str) -> Flywheel:
        """The flywheel of a tenant, until it is taken back. Raises `ServiceBusy`, `IdError`."""
        flywheel = self._open.get(tenant)
        if flywheel is None:
            if len(self._open) >= self._most:
                self._make_room()
            flywheel = self._open[tenant] = self._open_one(tenant)
        else:
            self._open.move_to_end(tenant)
        self._held[flywheel] = self._held.get(flywheel, 0) + 1
        return flywheel

    def take_back(self, flywheel: Flywheel) -> None:
        """A call is done with it."""
        left = self._held[flywheel] - 1
        if left:
            self._held[flywheel] = left
        else:
            del self._held[flywheel]

    def everyone(self) -> list[Flywheel]:
        """All that are open now."""
        return list(self._open.values())

    async def aclose(self) -> None:
        """Close all, what is written behind included."""
        flywheels, self._open = list(self._open.values()), OrderedDict()
        await asyncio.gather(*self._closing, *(_close(flywheel) for flywheel in flywheels))

    def _make_room(self) -> None:
        for tenant, flywheel in self._open.items():
            if flywheel not in self._held:
                del self._open[tenant]
                self._on_close(flywheel)
                task = asyncio.get_running_loop().create_task(_close(flywheel))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
                return
        raise ServiceBusy(f"{self._most} tenants are being served at this moment, and no more may be", most=self._most)


async def _close(flywheel: Flywheel) -> None:
    try:
        await flywheel.aclose()
    except FlywheelError as error:
        _log.error("a tenant was not closed in order: %s", error.message)

"""What must be tidied and nobody asks for: memory of answers that can no longer be served, sessions and turns past
their retention.

Invariant: tidying is never on the way of a question, runs in one process at a time (whoever takes the day's mark in
Redis; for an hour, and for the day once it is done, so that who dies over it is followed by somebody else), and removes
only what policy has given up already.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from agentic_flywheel.errors import StoreError
from agentic_flywheel.flights import Flights
from agentic_flywheel.sessions import Sessions
from agentic_flywheel.store.store import Store

#: How often one process looks whether the day's tidying is due.
LOOK_SECONDS = 3600.0
#: A process that has just begun has better things to do.
FIRST_LOOK_SECONDS = 60.0
_DAY_SECONDS = 86_400

_log = logging.getLogger(__name__)


class Housekeeping:
    """Tidies up after one tenant."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        flights: Flights,
        retained: Callable[[], Awaitable[bool]],
        erase: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._erase = erase  # goes on with traces that are still to be deleted
        self._store = store
        self._sessions = sessions
        self._flights = flights
        self._retained = retained  # goes on with the sweep of turns; whether it has come to its end
        self._next_look = time.monotonic() + FIRST_LOOK_SECONDS

    def flow_changed(self, flow: str, generation: int) -> None:
        """Free the memory of a flow's answers from before a change."""
        self._flights.go_on(self._reclaim(flow, generation))

    def look(self) -> None:
        """Begin the day's tidying if it is due; cheap, to be called with every question."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._flights.go_on(self._tidy())

    async def _tidy(self) -> None:
        try:
            if self._erase is not None:
                await self._erase()
            if not await self._store.take_mark("swept", seconds=int(LOOK_SECONDS)):
                return
            receipt = await self._sessions.sweep(dry_run=False)
            if receipt.removed["sessions"]:
                _log.info("swept sessions past their retention: %s", receipt.removed)
            for flow in await self._store.flows.known():
                state = await self._store.flows.state(flow)
                await self._store.entries.reclaim(flow, generation=state.generation, now=time.time())
            if not await self._retained():
                return  # much is left: the mark ends within the hour, and whoever takes it goes on
            await self._store.prolong_mark("swept", seconds=_DAY_SECONDS)
        except StoreError as error:
            _log.info("tidying is put off: %s", error)

    async def _reclaim(self, flow: str, generation: int) -> None:
        try:
            removed, _ = await self._store.entries.reclaim(flow, generation=generation, now=time.time())
        except StoreError as error:
            _log.info("answers of flow %s from before its change wait for the day's tidying: %s", flow, error)
        else:
            _log.info("flow %s changed: %d answers from before were removed", flow, removed)

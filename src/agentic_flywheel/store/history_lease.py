"""The lease of whoever brings the query engine's index of history up to date, of all processes of all machines.

Invariant: one at a time, as far as clocks can tell: a holder that stands still for longer than the lease loses it, and
what it does afterwards is done a second time by another without harm, or refused (`HistoryDocs.keep_places`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentic_flywheel.errors import StoreError
from agentic_flywheel.store.history_scripts import GIVE_UP, PROLONG
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link

#: A holder that says nothing for so long is taken for dead; it prolongs its lease three times in that time.
LEASE_SECONDS = 9.0
_LOOK_SECONDS = 0.02


class HistoryLease:
    """The lease as one process sees it; `token` is "" while it does not hold it."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._key = keys.history("lease")
        self.token = ""

    @asynccontextmanager
    async def held(self, *, patience: float) -> AsyncIterator[bool]:
        """Hold it inside; False where somebody else still does after `patience` seconds. Raises `StoreError`."""
        token, milliseconds = secrets.token_hex(8), round(LEASE_SECONDS * 1000)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while not (await self._link.run(("SET", self._key, token, "NX", "PX", milliseconds), slow=True))[0]:
            if loop.time() >= deadline:
                yield False
                return
            await asyncio.sleep(_LOOK_SECONDS)
        self.token = token
        prolonging = asyncio.create_task(self._prolong(token, milliseconds))
        try:
            yield True
        finally:
            self.token = ""
            prolonging.cancel()
            with contextlib.suppress(StoreError):  # it runs out by itself
                await self._link.run(GIVE_UP.call((self._key,), token), slow=True)

    async def _prolong(self, token: str, milliseconds: int) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            with contextlib.suppress(StoreError):  # tried again; whoever comes meanwhile does the same work
                await self._link.run(PROLONG.call((self._key,), token, milliseconds), slow=True)

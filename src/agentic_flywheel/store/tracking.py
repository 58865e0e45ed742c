"""What changes in Redis, as the server tells it: server-assisted tracking in broadcast mode (Redis >= 6, Valkey).

Invariant: `trusted_until` is a moment up to which everything that was known is still true, or was invalidated. The
server answers a PING only after the invalidations that came before it, so an answered PING proves all up to the
moment it was *sent*; without an answer the moment passes, and nobody may rely on what is remembered any more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import StoreError
from agentic_flywheel.store.link import Link

if TYPE_CHECKING:
    from agentic_flywheel.store.wire import Wire

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0


class Tracking:
    """A channel on which the server says which keys of some prefixes were written, evicted or expired.

    `on_change` is given the keys, or None where everything may have changed (a flush, a new channel).
    """

    def __init__(
        self, link: Link, prefixes: Sequence[str], *, bound: float, on_change: Callable[[list[bytes] | None], None]
    ) -> None:
        self._link = link
        self._prefixes = prefixes
        self._bound = bound
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self.trusted_until = 0.0  # monotonic clock

    def start(self) -> None:
        """Open the channel in the background; without effect where it was opened before."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def aclose(self) -> None:
        """Close the channel."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.trusted_until = 0.0

    async def _keep(self) -> None:
        """Hold a channel open, and open another when it is lost."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                wire = await self._link.dedicated(
                    key=self._prefixes[0], patience=max(self._bound, 0.05), on_push=self._heard
                )
                try:
                    await self._listen(wire)
                finally:
                    wire.close()
            except (StoreError, OSError) as error:
                _log.info("no word of changes from Redis: %s", error)
            pause = min(_LONGEST_PAUSE_SECONDS, pause * 2) if self.trusted_until < time.monotonic() else pause
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _listen(self, wire: Wire) -> None:
        options = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
        (reply,) = await wire.exchange([("CLIENT", "TRACKING", "ON", "BCAST", *options)])
        if isinstance(reply, Exception):
            raise self._link.error(reply, "CLIENT TRACKING") from reply
        # What was remembered before this channel existed may have changed unheard.
        self._on_change(None)
        while True:
            sent = time.monotonic()
            await wire.exchange([("PING",)])
            self.trusted_until = sent + self._bound
            await asyncio.sleep(self._bound / 3)

    def _heard(self, push: Any) -> None:
        if push and push[0] == b"invalidate":
            self._on_change(push[1])

"""What changes in Redis, as the server tells it: server-assisted tracking in broadcast mode (Redis >= 6.2, Valkey).

Invariant: `trusted_until` is a moment up to which everything that was known is still true, or was invalidated. The
server answers on this channel only after the invalidations of all that was written before it was asked, so an answer
proves all up to the moment the question was *sent*; without an answer the moment passes, and nobody may rely on what
is remembered any more. What is asked is whether the server still tracks: something in between may have changed servers.
A channel that does not tell of a change made for the purpose when it is opened is not trusted at all.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.store.link import Link

if TYPE_CHECKING:
    from agentic_flywheel.store.wire import Wire

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_CANARY_MS = 1000


class Tracking:
    """A channel on which the server says which keys of some prefixes were written, evicted or expired.

    `on_change` is given the keys, or None where everything may have changed (a flush, a new channel). `canary` is a key
    of this channel's own, which is written once to see that changes are told. `problem` says why there is no channel.
    """

    def __init__(
        self,
        link: Link,
        prefixes: Sequence[str],
        *,
        canary: str,
        bound: float,
        on_change: Callable[[list[bytes] | None], None],
    ) -> None:
        self._link = link
        self._prefixes = (*prefixes, canary)
        self._canary = canary
        self._bound = bound
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._sung = False
        self._news = asyncio.Event()
        self.problem = ""
        self.trusted_until = 0.0  # monotonic clock

    def start(self) -> None:
        """Open the channel in the background; without effect where it was opened, or closed, before."""
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def proven(self, within: float) -> bool:
        """Open the channel, and wait for its first proof or failure, at most `within` seconds."""
        self.start()
        if self.trusted_until < time.monotonic():
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._news.wait()
        return self.trusted_until >= time.monotonic()

    async def aclose(self) -> None:
        """Close the channel for good."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.trusted_until = 0.0

    async def _keep(self) -> None:
        """Hold a channel open, and open another when it is lost."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            proven = self.trusted_until
            try:
                await self._listen()
            except (StoreError, OSError) as error:
                self.problem = str(error)
                self._news.set()
                _log.info("no word of changes from Redis: %s", error)
            pause = _FIRST_PAUSE_SECONDS if self.trusted_until > proven else min(_LONGEST_PAUSE_SECONDS, pause * 2)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        wire = await self._link.dedicated(key=self._prefixes[0], patience=max(self._bound, 0.05), on_push=self._heard)
        try:
            options = [part for prefix in self._prefixes for part in ("PREFIX", prefix)]
            self._sung = False
            for reply in await wire.exchange(
                [
                    ("CLIENT", "TRACKING", "ON", "BCAST", *options),
                    ("SET", self._canary, "", "PX", _CANARY_MS),
                ]
            ):
                if isinstance(reply, Exception):
                    raise self._link.error(reply, "CLIENT TRACKING") from reply
            # What was remembered before this channel existed may have changed unheard.
            self._on_change(None)
            while True:
                sent = time.monotonic()
                await self._ask(wire)
                self.trusted_until = sent + self._bound
                self.problem = ""
                self._news.set()
                await asyncio.sleep(self._bound / 3)
        finally:
            wire.close()
            await wire.gone()

    async def _ask(self, wire: Wire) -> None:
        """Have the server say that it tracks, and thereby all that it has to say until now."""
        (reply,) = await wire.exchange([("CLIENT", "TRACKINGINFO")])
        if isinstance(reply, Exception):
            raise self._link.error(reply, "CLIENT TRACKINGINFO") from reply
        if b"bcast" not in reply[b"flags"]:
            raise StoreUnavailable("the server no longer says what changes", command="CLIENT TRACKINGINFO")
        if not self._sung:
            raise StoreUnavailable(
                "the server does not say what changes, although it agreed to", command="CLIENT TRACKING"
            )

    def _heard(self, push: Any) -> None:
        if push and push[0] == b"invalidate":
            keys: list[bytes] | None = push[1]
            self._sung = self._sung or keys is None or self._canary.encode() in keys
            self._on_change(keys)

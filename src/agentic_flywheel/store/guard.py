"""A circuit breaker at work: it notes failures, and probes in the background until the server is back.

Invariant: while the breaker is not closed exactly one task probes, and it ends with success or with `aclose`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.breaker import Breaker, Health
from agentic_flywheel.store.failures import store_error, words_of
from agentic_flywheel.store.wire import Refusal

_log = logging.getLogger(__name__)

#: What a probe may end with; anything else is a defect.
PROBE_FAILURES = (OSError, Refusal, StoreError)


class Guard:
    """The breaker of one server, `probe` being what must succeed before anybody asks it again; `opened` and
    `recovered` are told."""

    def __init__(
        self,
        address: Address,
        probe: Callable[[], Awaitable[None]],
        recovered: Callable[[], None],
        opened: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self._probe = probe
        self._recovered = recovered
        self._opened = opened
        self._breaker = Breaker()
        self._last: BaseException | None = None
        self._mending: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether the server may be asked."""
        return self._breaker.closed

    @property
    def health(self) -> Health:
        """What is known of the server."""
        return self._breaker.health

    def refusal(self, what: str) -> StoreError:
        """Why `what` is not even tried."""
        health = self._breaker.health
        since = datetime.fromtimestamp(health.since, UTC)
        return StoreUnavailable(
            f"Redis at {self.address.masked} has been left alone since {since:%H:%M:%S} UTC ({health.reason}); "
            "it is tried again in the background",
            retry_after_seconds=1,
            address=self.address.masked,
            origin=self.address.origin,
            command=what,
            since=since.isoformat(timespec="milliseconds"),
            reason=health.reason,
        )

    def failed(self, error: BaseException, what: str, *, certain: bool) -> StoreError:
        """Note a failure and say what it means; one failure that many askers met counts once."""
        if error is not self._last and self._breaker.closed:
            self._last = error
            if self._breaker.failed(words_of(error) or type(error).__name__, certain=certain):
                _log.warning("Redis at %s is left alone: %s", self.address.masked, self._breaker.health.reason)
                self._mending = asyncio.get_running_loop().create_task(self._mend())
                if self._opened is not None:
                    self._opened()
        return store_error(error, self.address, what)

    def answered(self) -> None:
        """Note that the server answered an asker."""
        if self._breaker.failures and self._breaker.closed:
            self._breaker.succeeded()

    async def aclose(self) -> None:
        """End the probing."""
        mending, self._mending = self._mending, None
        if mending is not None:
            mending.cancel()
            await asyncio.wait([mending])

    async def _mend(self) -> None:
        while not self._breaker.closed:
            await asyncio.sleep(self._breaker.pause())
            self._breaker.probe()
            try:
                await self._probe()
            except PROBE_FAILURES as error:
                self._breaker.failed(words_of(error) or type(error).__name__, certain=True)
                _log.debug("Redis at %s is still away: %s", self.address.masked, self._breaker.health.reason)
            except BaseException:
                self._breaker.failed("the probe was ended", certain=True)
                raise
            else:
                self._breaker.succeeded()
        _log.info("Redis at %s answers again", self.address.masked)
        self._last = None
        self._recovered()

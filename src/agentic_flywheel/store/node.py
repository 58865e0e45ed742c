"""One Redis server as askers see it: connections that are made when needed, and no longer waited for than allowed.

Invariant: on the way of a question nobody waits longer than the asker's own patience, whatever the server does: for a
reply, for a connection that broke, for a server that comes back. Only the first meeting may take the time of
connecting, and one asker at a time (`ELDEST_SECONDS`) waits on for a server that stalls. What takes longer goes on in
the background, and those who come later use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.breaker import Health
from agentic_flywheel.store.failures import store_error
from agentic_flywheel.store.guard import PROBE_FAILURES, Guard
from agentic_flywheel.store.wire import Command, Lost, Push, Refusal, Wire

#: Opens a connection that may wait so many seconds for its greeting; raises `OSError`, `Refusal` or `StoreError`.
Dial = Callable[[float, Push | None], Awaitable[Wire]]

#: The one asker who has waited longest waits so long for a server that stalls, while all others go on without it.
ELDEST_SECONDS = 0.25

#: What a server says that is not ready: as good as away.
_NOT_READY = frozenset({"LOADING", "MASTERDOWN"})


class Lane(Enum):
    """What a connection is for, so that nothing slow stands before an answer."""

    HOT = "on the way of a question"
    SLOW = "lists and sweeps"
    WAITING = "writes that wait for replicas"


class Node:
    """One server; `dial` reaches it, `patience` is how long each lane waits for a reply, in seconds.

    `moves` says that `dial` may find another server later (sentinels): one that turned read-only is then left.
    """

    def __init__(
        self,
        address: Address,
        dial: Dial,
        *,
        patience: Mapping[Lane, float],
        connect_seconds: float,
        start_seconds: float = 0.0,
        moves: bool = False,
        recovered: Callable[[], None],
        opened: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self._dial = dial
        self._patience = patience
        self._connect_seconds = connect_seconds
        self._open_seconds = connect_seconds + start_seconds
        self._moves = moves
        self._guard = Guard(address, self._probe, recovered, opened)
        self._wires: dict[Lane, Wire] = {}
        self._opening: dict[Lane, asyncio.Task[Wire]] = {}
        self._met: set[Lane] = set()
        self._closed = False

    @property
    def health(self) -> Health:
        """What is known of the server."""
        return self._guard.health

    async def exchange(self, commands: Sequence[Command], lane: Lane, within: float) -> list[Any]:
        """Send commands; their replies in order, errors among them as `Refusal`. Raises `StoreError`.

        A connection that breaks is replaced once, and the commands are sent once more, all of it `within` seconds.
        """
        guard, what = self._guard, str(commands[0][0])
        if lane is not Lane.SLOW:
            self._admit(lane, what)
        loop = asyncio.get_running_loop()
        began, broken = loop.time(), False
        while True:
            wire = self._wires.get(lane)
            if wire is None or not wire.usable:
                first = lane not in self._met
                wire = await self._opened(lane, within - (loop.time() - began), what)
                self._met.add(lane)
                if first:
                    began = loop.time()  # the first meeting is not on the asker's account
            left = within - (loop.time() - began)
            sent = loop.time()
            try:
                replies = await _replies(wire, commands, left)
            except TimeoutError as error:
                if lane is Lane.SLOW or left < wire.patience / 2:  # heavy work, or no fair chance: no sign of an outage
                    raise self._error(error, what) from error
                raise guard.failed(error, what, certain=False) from error
            except Lost as error:
                if self._closed:
                    raise self._error(error, what) from error
                if broken:
                    raise guard.failed(error, what, certain=True) from error
                broken = True
                continue
            refused = [reply for reply in replies if type(reply) is Refusal]
            if refused and self._has_moved(refused, wire) and not broken:
                broken = True
                continue
            if lane is not Lane.SLOW:
                self._heard(refused, what, late=loop.time() - sent >= wire.patience)
            return replies

    async def dedicated(self, on_push: Push | None, *, patience: float, key: str | None = None) -> Wire:  # noqa: ARG002 - one server has all keys
        """A connection of the caller's own, who closes it. Raises `StoreError`.

        That there is none (`maxclients`, say) is no sign that questions are not answered on theirs.
        """
        if not self._guard.closed:
            raise self._guard.refusal("CONNECT")
        try:
            async with asyncio.timeout(self._open_seconds):
                wire = await self._dial(self._connect_seconds, on_push)
        except PROBE_FAILURES as error:
            raise self._error(error, "CONNECT") from error
        wire.patience = patience
        return wire

    async def meet(self) -> None:
        """Connect for questions before the first one comes; a failure is noted, not raised."""
        if Lane.HOT in self._met:
            return
        with suppress(StoreError):  # the guard knows, and goes on trying
            await self._opened(Lane.HOT, self._open_seconds, "CONNECT")
        self._met.add(Lane.HOT)

    async def aclose(self) -> None:
        """Release every connection; what is on its way ends in `StoreUnavailable`. Safe to call twice."""
        self._closed = True
        await self._guard.aclose()
        opening = [task for task in self._opening.values() if not task.done()]
        for task in opening:
            task.cancel()
        if opening:
            await asyncio.wait(opening)
        while self._wires:
            _, wire = self._wires.popitem()
            wire.close()
            await wire.gone()

    async def _opened(self, lane: Lane, within: float, what: str) -> Wire:
        """The connection of a lane, made by one task however many wait for it."""
        if self._closed:
            raise self._gone(what)
        first = lane not in self._met
        task = self._connecting(lane)
        # Not `wait_for`: who gives up leaves the connection to those who come later.
        await asyncio.wait({task}, timeout=None if first or lane is Lane.SLOW else max(within, 0))
        if not task.done():
            late = TimeoutError(f"no connection within {max(within, 0) * 1000:.0f} ms")
            if within < self._patience[lane] / 2:
                raise self._error(late, what) from late
            raise self._guard.failed(late, what, certain=True) from late
        if task.cancelled():
            raise self._gone(what)
        try:
            return task.result()
        except PROBE_FAILURES as error:
            self._met.add(lane)
            raise self._guard.failed(error, what, certain=True) from error

    def _connecting(self, lane: Lane) -> asyncio.Task[Wire]:
        task = self._opening.get(lane)
        if task is None or task.done():
            task = self._opening[lane] = asyncio.get_running_loop().create_task(self._connect(lane))
            task.add_done_callback(_retrieve)
        return task

    async def _connect(self, lane: Lane) -> Wire:
        async with asyncio.timeout(self._open_seconds):
            try:
                wire = await self._dial(self._connect_seconds, None)
            except Lost:  # somebody was there, and broke off while greeting: a connection killed in passing
                wire = await self._dial(self._connect_seconds, None)
        wire.patience = self._patience[lane]
        if lane is Lane.HOT:
            wire.longest = max(wire.patience, ELDEST_SECONDS)
        self._wires[lane] = wire
        return wire

    async def _probe(self) -> None:
        wire = self._wires.get(Lane.HOT)
        if wire is None or not wire.usable:
            wire = await asyncio.shield(self._connecting(Lane.HOT))
        (reply,) = await wire.exchange([("PING",)])
        if isinstance(reply, Refusal):
            raise reply

    def _admit(self, lane: Lane, what: str) -> None:
        """Let nobody wait for a server that is left alone, or that somebody else waits for in vain already."""
        if not self._guard.closed:
            raise self._guard.refusal(what)
        wire = self._wires.get(lane)
        if wire is not None and wire.usable and wire.stalled:
            raise self._error(TimeoutError("the server does not answer just now"), what)

    def _heard(self, refused: list[Refusal], what: str, *, late: bool) -> None:
        """Note what the server said of itself, and whether it took longer than most would have waited."""
        if late:
            self._guard.failed(TimeoutError("replies take too long"), what, certain=False)
            return
        for refusal in refused:
            if refusal.status_code in _NOT_READY:
                self._guard.failed(refusal, what, certain=True)
                return
        self._guard.answered()

    def _has_moved(self, refused: list[Refusal], wire: Wire) -> bool:
        """Whether this is no longer the primary; its connections are then of no use."""
        if not self._moves or all(refusal.status_code != "READONLY" for refusal in refused):
            return False
        wire.close()
        for other in self._wires.values():
            other.close()
        return True

    def _error(self, error: BaseException, what: str) -> StoreError:
        return store_error(error, self.address, what)

    def _gone(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(f"the connection to Redis at {self.address.masked} was closed", command=what)


async def _replies(wire: Wire, commands: Sequence[Command], within: float) -> list[Any]:
    if within >= wire.patience:  # the usual case needs no timer of its own
        return await wire.exchange(commands)
    async with asyncio.timeout(max(within, 0)):
        return await wire.exchange(commands)


def _retrieve(task: asyncio.Task[Wire]) -> None:
    """A failure that nobody waits for any more is noted by the next probe."""
    if not task.cancelled():
        task.exception()

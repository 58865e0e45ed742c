"""A Redis Cluster: which of its servers has a key, and one `Node` for each of them.

Invariant: every command goes to the primary that has its key; replicas are never read. The replies of one list stand
in its order, however many servers gave them. The map of slots follows the cluster: what a server says (MOVED, ASK) is
followed at once, and as long as a server is away the others are asked who has its slots now.

The commands are our own, so where their keys stand is a short table (`key_of`), and all keys of one script share a
hash tag (`store.keys`). docs/decisions/0017-own-cluster.md says why this is not a client library's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from binascii import crc_hqx
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentic_flywheel.errors import StoreError
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.breaker import Health
from agentic_flywheel.store.guard import Guard
from agentic_flywheel.store.node import Lane, Node
from agentic_flywheel.store.wire import Command, Lost, Push, Refusal, Wire, open_wire

SLOTS = 16384
#: How often a command follows MOVED and ASK, and waits for a slot that is on its way.
_MOST_HOPS = 4
_PAUSE_SECONDS = 0.005
#: While a server is away, the others are asked for the map so often.
_FOLLOW_SECONDS = 0.25

_KEYLESS = frozenset({"ACL", "CONFIG", "DBSIZE", "FT._LIST", "INFO", "PING", "PUBLISH", "SCRIPT", "WAIT"})
_ELSEWHERE = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})

Place = tuple[str, int]
_log = logging.getLogger(__name__)


def key_of(command: Command) -> str | bytes | None:
    """The key that decides where a command goes; None for one that has none.

    >>> key_of(("GET", "k")), key_of(("EVALSHA", "sha", 1, "k", "x")), key_of(("PING",))
    ('k', 'k', None)
    """
    name = str(command[0]).upper()
    if name in ("EVAL", "EVALSHA"):
        return command[3] if int(command[2]) else None
    if name in ("XREAD", "XREADGROUP"):
        words = [str(word).upper() for word in command]
        key: str | bytes = command[words.index("STREAMS") + 1]
        return key
    return None if name in _KEYLESS or len(command) < 2 else command[1]


def slot_of(key: str | bytes) -> int:
    """The slot of a key: CRC-16 (XMODEM) of its hash tag, else of all of it.

    >>> slot_of("123456789"), slot_of("{user1000}.following") == slot_of("{user1000}.followers")
    (12739, True)
    """
    raw = key.encode() if isinstance(key, str) else key
    start = raw.find(b"{")
    if start >= 0 and (end := raw.find(b"}", start + 1)) > start + 1:
        raw = raw[start + 1 : end]
    return crc_hqx(raw, 0) % SLOTS


class Cluster:
    """All servers of a cluster; the same face as `Node`."""

    def __init__(
        self,
        address: Address,
        *,
        patience: Mapping[Lane, float],
        connect_seconds: float,
        recovered: Callable[[], None],
    ) -> None:
        self.address = address
        self._patience = patience
        self._connect_seconds = connect_seconds
        self._recovered = recovered
        self._nodes: dict[Place, Node] = {}
        self._owners: list[Place | None] = []  # by slot; empty until the cluster was met
        self._known: list[Place] = list(address.hosts)
        self._guard = Guard(address, self._refresh, recovered)  # of the map, until there is one
        self._meeting: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def health(self) -> Health:
        """That of the server that is worst off."""
        owners = {place for place in self._owners if place is not None}
        found = [self._guard.health, *(self._nodes[place].health for place in owners)]
        return max(found, key=lambda health: (health.state != "closed", health.failures, health.since))

    async def exchange(self, commands: Sequence[Command], lane: Lane, within: float) -> list[Any]:
        """Send commands to the servers that have their keys, all at once; their replies in order.

        A command without a key goes where the one before it went. Raises `StoreError` where one of the servers fails.
        """
        if not self._owners:
            await self._meet(str(commands[0][0]), None if lane is not Lane.SLOW else within)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        targets: list[tuple[Place, bool]] = []
        for command in commands:
            key = key_of(command)
            if key is not None:
                targets.append((self._owner(slot_of(key)), False))
            else:
                targets.append(targets[-1] if targets else (self._any_owner(), False))
        replies: list[Any] = [None] * len(commands)
        due = list(range(len(commands)))
        for hop in range(_MOST_HOPS):
            await self._send(commands, due, targets, replies, lane, deadline)
            due = [i for i in due if type(replies[i]) is Refusal and replies[i].status_code in _ELSEWHERE]
            if not due or hop + 1 == _MOST_HOPS:
                break
            wait = False
            for i in due:
                wait |= self._redirect(i, commands[i], replies[i], targets)
            if wait:
                if deadline - loop.time() < 2 * _PAUSE_SECONDS:
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
        return replies

    async def dedicated(self, on_push: Push | None, *, patience: float, key: str | None = None) -> Wire:
        """A connection of the caller's own to the server of `key`; to any primary without one."""
        if not self._owners:
            await self._meet("CONNECT", None)
        place = self._owner(slot_of(key)) if key is not None else self._any_owner()
        return await self._node(place).dedicated(on_push, patience=patience)

    async def aclose(self) -> None:
        """Release every connection. Safe to call twice."""
        self._closed = True
        await self._guard.aclose()
        for task in (self._meeting, self._following):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        for node in list(self._nodes.values()):
            await node.aclose()

    async def _send(
        self,
        commands: Sequence[Command],
        due: Sequence[int],
        targets: Sequence[tuple[Place, bool]],
        replies: list[Any],
        lane: Lane,
        deadline: float,
    ) -> None:
        """Send those that are due, grouped by server, and put their replies in place."""
        groups: dict[Place, list[int]] = {}
        for i in due:
            groups.setdefault(targets[i][0], []).append(i)
        within = deadline - asyncio.get_running_loop().time()

        async def send(place: Place, indexes: list[int]) -> None:
            words: list[Command] = []
            for i in indexes:
                if targets[i][1]:
                    words.append(("ASKING",))
                words.append(commands[i])
            answers = iter(await self._node(place).exchange(words, lane, within))
            for i in indexes:
                if targets[i][1]:
                    next(answers)
                replies[i] = next(answers)

        if len(groups) == 1:
            ((place, indexes),) = groups.items()
            await send(place, indexes)
            return
        ended = await asyncio.gather(*(send(*group) for group in groups.items()), return_exceptions=True)
        for error in ended:
            if error is not None:
                self._follow()
                raise error

    def _redirect(self, i: int, command: Command, refusal: Refusal, targets: list[tuple[Place, bool]]) -> bool:
        """Aim a command anew by what the server said; whether it makes sense to wait a little first."""
        words = str(refusal).split()
        if words[0] in ("MOVED", "ASK"):
            host, _, port = words[2].rpartition(":")
            place = (host or targets[i][0][0], int(port))
            targets[i] = (place, words[0] == "ASK")
            if words[0] == "MOVED":
                self._owners[int(words[1])] = place
                self._follow()
            return False
        self._follow()
        key = key_of(command)
        if key is not None:
            targets[i] = (self._owner(slot_of(key)), False)
        return True

    def _owner(self, slot: int) -> Place:
        owner = self._owners[slot]
        return owner if owner is not None else self._any_owner()  # nobody has it: the server says CLUSTERDOWN

    def _any_owner(self) -> Place:
        """A primary that is well, as far as is known."""
        owners = list({place for place in self._owners if place is not None})
        well = [place for place in owners if self._node(place).health.state == "closed"]
        return random.choice(well or owners)

    def _node(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            address = self.address.at(*place)

            async def dial(seconds: float, on_push: Push | None) -> Wire:
                return await open_wire(address, patience=seconds, on_push=on_push)

            node = self._nodes[place] = Node(
                address,
                dial,
                patience=self._patience,
                connect_seconds=self._connect_seconds,
                recovered=self._recovered,
                opened=self._follow,
            )
        return node

    async def _meet(self, what: str, within: float | None) -> None:
        """Get the first map; one task, however many wait for it."""
        if not self._guard.closed:
            raise self._guard.refusal(what)
        if self._meeting is None or self._meeting.done():
            self._meeting = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.wait({self._meeting}, timeout=within)
        if not self._meeting.done() or self._meeting.cancelled():
            raise self._guard.failed(TimeoutError("the cluster was not met"), what, certain=True)
        if error := self._meeting.exception():
            raise self._guard.failed(error, what, certain=True) from error

    def _follow(self) -> None:
        """Bring the map up to date, and keep at it as long as a server that has slots is away."""
        if not self._closed and (self._following is None or self._following.done()):
            self._following = asyncio.get_running_loop().create_task(self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            try:
                await self._refresh()
            except (OSError, Refusal, StoreError) as error:
                _log.info("no server of the cluster tells who has which slots: %s", error)
            if self.health.state == "closed":
                return
            await asyncio.sleep(_FOLLOW_SECONDS * random.uniform(0.5, 1.5))

    async def _refresh(self) -> None:
        """Ask for the map, meet those who are new in it, and take it over."""
        places = list(dict.fromkeys([*self._known, *self.address.hosts]))
        asking = [asyncio.create_task(self._map_of(place)) for place in places]
        last: BaseException = Lost("the cluster has no servers")
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    owners, known = await answer
                except (OSError, Refusal) as error:
                    last = error
                    continue
                break
            else:
                raise last
        finally:
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        serving = {place for place in owners if place is not None}
        met = [self._node(place) for place in serving]
        await asyncio.gather(*(node.meet() for node in met))
        self._owners, self._known = owners, known
        for place, node in list(self._nodes.items()):
            if place not in serving and node.health.state != "closed":
                del self._nodes[place]  # it has nothing to say any more, and nobody need try to reach it
                await node.aclose()

    async def _map_of(self, place: Place) -> tuple[list[Place | None], list[Place]]:
        """Who has which slot, and all servers, as one of them sees it."""
        async with asyncio.timeout(self._connect_seconds):
            wire = await open_wire(self.address.at(*place), patience=self._connect_seconds)
            try:
                (ranges,) = await wire.exchange([("CLUSTER", "SLOTS")])
            finally:
                wire.close()
        if isinstance(ranges, Refusal):
            raise ranges
        owners: list[Place | None] = [None] * SLOTS
        known: dict[Place, None] = {}
        for first, last, *servers in ranges:
            for server in servers:
                known[_place(server, place)] = None
            owners[first : last + 1] = [_place(servers[0], place)] * (last + 1 - first)
        if not known:
            raise Lost(f"{place[0]}:{place[1]} knows of no server that has slots")
        return owners, list(known)


def _place(server: Sequence[Any], asked: Place) -> Place:
    host = (server[0] or b"").decode()
    return (host if host not in ("", "?") else asked[0], int(server[1]))

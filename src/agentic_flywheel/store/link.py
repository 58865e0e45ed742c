"""One way to talk to Redis: a list of commands, one round trip, a list of replies.

Invariant: whatever goes wrong on the wire leaves here as a `StoreError`, and a question waits for Redis no longer than
its `Patience`. Two connections to a server serve a process: one for the way of a question, one for slow work, so that
a long list never stands before an answer. Lua scripts are sent by their hash, and once more by their source where the
server does not know them yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from hashlib import sha1
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentic_flywheel.errors import StoreError
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.address import Address, resolve_address
from agentic_flywheel.store.node import Lane, Node
from agentic_flywheel.store.seals import Seals
from agentic_flywheel.store.wire import Push, Refusal, Wire, open_wire

if TYPE_CHECKING:
    from agentic_flywheel.store.breaker import Health
    from agentic_flywheel.store.cluster import Cluster
    from agentic_flywheel.store.embedded import EmbeddedServer

Command = Sequence[Any]

#: Longest wait for slow work (lists, sweeps), in seconds.
SLOW_SECONDS = 10.0
#: What a question may wait for Redis in all, as a multiple of what it may wait for one reply: 0.04 s make 0.05 s.
QUESTION_SHARE = 1.25
#: How long the embedded server may take to start and load its data, in the first meeting and in the background.
EMBEDDED_START_SECONDS = 21.0

_log = logging.getLogger(__name__)
_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


class Script:
    """A Lua script: its source stands beside the typed function that calls it."""

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: str | bytes | float) -> Command:
        """The command that runs the script; all keys must share one hash tag."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Patience:
    """What one question may still wait for Redis, all its round trips together; made by `Link.patience`.

    `with patience:` may be entered as often as the question comes to wait for Redis, in whichever task; what it began
    and what goes on outside has its usual patience.
    """

    __slots__ = ("depth", "left")

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self.depth = 0

    def __enter__(self) -> Self:
        self.depth += 1
        _patience.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.depth -= 1  # the variable stays: it is of no effect outside, and tasks have copies of it anyway


#: What only reads may go along with the look at how the tenant is encrypted.
_READS = frozenset(
    "EXISTS GET HEXISTS HGET HGETALL HLEN HMGET LLEN LRANGE MGET PTTL SCARD SISMEMBER SMEMBERS STRLEN TTL XLEN XRANGE "
    "XREVRANGE ZCARD ZCOUNT ZRANGE ZREVRANGE ZSCORE".split()
)


class Link:
    """Connections to one Redis, made on first use; the embedded server is started where none is configured.

    `round_trips` counts what was asked of it so far, for tests and `--explain`; a look at whether the tenant is
    encrypted (with the first exchange, and every 30 s beside the others) is not in it.
    """

    def __init__(self, settings: Settings, scripts: Sequence[Script] = ()) -> None:
        self.settings = settings
        self.address: Address = resolve_address(settings)
        self.embedded: EmbeddedServer | None = None
        if self.address.embedded:
            from agentic_flywheel.store.embedded import EmbeddedServer

            self.embedded = EmbeddedServer(settings)
        self.round_trips = 0
        self.seals = Seals(settings)
        self._looking: asyncio.Task[None] | None = None
        self._sources = {script.sha: script.source for script in scripts}
        # What the address itself says wins over the settings, as with other clients.
        said = self.address.options
        connect = said.get("socket_connect_timeout") or settings.number("redis.connect_timeout_seconds")
        self._connect_seconds = float(connect)
        self._command_seconds = float(said.get("socket_timeout") or settings.number("redis.command_timeout_seconds"))
        self._question_seconds = self._command_seconds * QUESTION_SHARE
        self._wait_seconds = settings.number("redis.wait_timeout_seconds")
        self._recovered: list[Callable[[], None]] = []
        self._servers: Node | Cluster | None = None

    @property
    def health(self) -> Health:
        """What is known of the server: whether it is asked at all, since when, and why not."""
        return self._connections.health

    def on_recovered(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever the server was left alone and answers again."""
        self._recovered.append(callback)

    def learn(self, scripts: Sequence[Script]) -> None:
        """Know the sources of further scripts."""
        self._sources.update((script.sha, script.source) for script in scripts)

    def patience(self) -> Patience:
        """The patience of one question: everything that is run `with` it counts together."""
        return Patience(self._question_seconds)

    async def run(self, *commands: Command, slow: bool = False, waiting: bool = False) -> list[Any]:
        """Send commands together and return their replies in order; one round trip.

        The first reply that is an error raises, after all replies were read. `slow` work has a connection and a
        patience of its own, and so have writes that are `waiting` for replicas (WAIT). When the connection breaks,
        the commands are sent once more on a new one: turns and entries are idempotent; a counter may then count twice.
        """
        replies = await self.run_each(*commands, slow=slow, waiting=waiting)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, str(commands[0][0])) from reply
        return replies

    async def run_after(self, look: Command, *commands: Command) -> Any:
        """As `run`, after a read whose reply is returned, whatever it is."""
        looked, *replies = await self.run_each(look, *commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, str(commands[0][0])) from reply
        return looked

    async def run_each(
        self, *commands: Command, slow: bool = False, waiting: bool = False, reads_follow: bool = False
    ) -> list[Any]:
        """Like `run`, with errors of single commands as values (`wire.Refusal`).

        A script that the server does not know is sent once more, with its source, after the others have run. Where
        `reads_follow` it, they must see what it did, and are sent once more as well.
        """
        replies = await self._exchange(commands, slow=slow, waiting=waiting)
        missing = [i for i, reply in enumerate(replies) if type(reply) is Refusal and reply.status_code == "NOSCRIPT"]
        if missing:
            again = range(missing[0], len(commands)) if reads_follow else missing
            sent = [
                ("EVAL", self._sources[commands[i][1]], *commands[i][2:]) if i in missing else commands[i]
                for i in again
            ]
            for index, reply in zip(again, await self._exchange(sent, slow=slow, waiting=waiting), strict=True):
                replies[index] = reply
        return replies

    async def execute(self, *command: Any) -> Any:
        """One command, its reply; with the patience of slow work."""
        return (await self.run(command, slow=True))[0]

    async def dedicated(
        self, on_push: Push | None = None, *, key: str | None = None, patience: float = SLOW_SECONDS
    ) -> Wire:
        """A connection of its own, to the server of `key` in a cluster, else to the primary.

        For what would stand before others: blocking reads, subscriptions, tracking. The caller closes it; `patience`
        is how long it waits for a reply. Raises `StoreError`.
        """
        return await self._connections.dedicated(on_push, key=key, patience=patience)

    async def _exchange(self, commands: Sequence[Command], *, slow: bool, waiting: bool) -> list[Any]:
        self.round_trips += 1
        seals = self.seals
        if seals.new:
            if seals.touched(commands):
                if _READS.issuperset([command[0] for command in commands]):  # harmless, whatever the tenant is
                    looked, *replies = await self._carry([seals.look, *commands], slow=slow, waiting=waiting)
                    self._learn(looked)
                    seals.admit(commands)
                    return seals.opened(commands, replies)
                await self.look(slow=slow, waiting=waiting)
        elif seals.due() and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_again())
        seals.admit(commands)
        if (noting := seals.note(commands)) is not None:
            (reply,) = await self._carry([noting], slow=slow, waiting=waiting)
            if isinstance(reply, Refusal):
                raise self.error(reply, "HSET") from reply
            seals.noted()
        return seals.opened(commands, await self._carry(seals.sealed(commands), slow=slow, waiting=waiting))

    async def meet(self) -> None:
        """Know whether the tenant is encrypted, and that this process may use it. Raises `StoreError`."""
        if self.seals.new:
            await self.look()
        if self.seals.problem:
            raise self.seals.missing()

    async def look(self, *, slow: bool = False, waiting: bool = False) -> None:
        """Learn whether the tenant is encrypted, and with which keys."""
        (reply,) = await self._carry([self.seals.look], slow=slow, waiting=waiting)
        self._learn(reply)

    def _learn(self, reply: Any) -> None:
        if not isinstance(reply, Refusal) or reply.status_code in ("NOPERM", "WRONGTYPE"):
            self.seals.learn(reply)

    async def _look_again(self) -> None:
        try:
            await self.look()
        except StoreError as error:  # whoever asks for something is told; this is tried again with the next exchange
            _log.debug("whether the tenant is encrypted is not known: %s", error)
        finally:
            self._looking = None

    async def _carry(self, commands: Sequence[Command], *, slow: bool, waiting: bool) -> list[Any]:
        if slow:
            return await self._connections.exchange(commands, Lane.SLOW, SLOW_SECONDS)
        patience = _patience.get()
        if patience is not None and not patience.depth:
            patience = None
        within = self._question_seconds if patience is None else patience.left
        lane = Lane.HOT
        if waiting:
            lane, within = Lane.WAITING, within + self._wait_seconds
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            replies = await self._connections.exchange(commands, lane, within)
        except StoreError:
            if patience is not None:
                patience.left -= loop.time() - began
            raise
        if patience is not None:
            # Who waited for all others through a stall, and was answered, may still write what it has read.
            took = loop.time() - began
            patience.left -= took if took < self._command_seconds else self._command_seconds / 4
        return replies

    @property
    def _connections(self) -> Node | Cluster:
        if self._servers is None:
            self._servers = self._make_connections()
        return self._servers

    def _make_connections(self) -> Node | Cluster:
        from agentic_flywheel.store.sentinel import open_primary

        address, embedded = self.address, self.embedded
        patience = {
            Lane.HOT: self._command_seconds,
            Lane.SLOW: SLOW_SECONDS,
            Lane.WAITING: self._command_seconds + self._wait_seconds,
        }
        if address.kind == "cluster":
            from agentic_flywheel.store.cluster import Cluster

            return Cluster(address, patience=patience, connect_seconds=self._connect_seconds, recovered=self._recover)

        async def dial(seconds: float, on_push: Push | None) -> Wire:
            if address.kind == "sentinel":
                return await open_primary(address, patience=seconds, on_push=on_push)
            socket = None if embedded is None else await embedded.ensure()
            return await open_wire(address, socket, patience=seconds, on_push=on_push)

        return Node(
            address,
            dial,
            patience=patience,
            connect_seconds=self._connect_seconds,
            start_seconds=EMBEDDED_START_SECONDS if embedded is not None else 0.0,
            moves=address.kind == "sentinel",
            recovered=self._recover,
        )

    def _recover(self) -> None:
        for callback in self._recovered:
            callback()

    def error(self, error: BaseException, what: str) -> StoreError:
        """A failure of the wire or the server as a `StoreError` of this server."""
        from agentic_flywheel.store.failures import store_error

        return store_error(error, self.address, what)

    async def aclose(self) -> None:
        """Release every connection; what is on its way ends in `StoreUnavailable`. Safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._connections.aclose()

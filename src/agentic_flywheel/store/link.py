"""One way to talk to Redis: a list of commands, one round trip, a list of replies.

Invariant: whatever goes wrong on the wire leaves here as a `StoreError`. Two connections serve a process: one for the
way of a question, one for slow work, so that a long list never stands before an answer. Lua scripts are sent by their
hash, and once more by their source where the server does not know them yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.address import Address, resolve_address

if TYPE_CHECKING:
    from agentic_flywheel.store.embedded import EmbeddedServer
    from agentic_flywheel.store.wire import Wire

Command = Sequence[Any]

#: Longest wait for slow work (lists, sweeps), in seconds.
SLOW_SECONDS = 10.0


class Script:
    """A Lua script: its source stands beside the typed function that calls it."""

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: str | bytes | float) -> Command:
        """The command that runs the script; all keys must share one hash tag."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class Link:
    """Connections to one Redis, made on first use; the embedded server is started where none is configured.

    `round_trips` counts what was sent so far, for tests and `--explain`.
    """

    def __init__(self, settings: Settings, scripts: Sequence[Script] = ()) -> None:
        self.settings = settings
        self.address: Address = resolve_address(settings)
        self.embedded: EmbeddedServer | None = None
        if self.address.embedded:
            from agentic_flywheel.store.embedded import EmbeddedServer

            self.embedded = EmbeddedServer(settings)
        self.round_trips = 0
        self._sources = {script.sha: script.source for script in scripts}
        # What the address itself says wins over the settings, as with other clients.
        said = self.address.options
        connect = said.get("socket_connect_timeout") or settings.number("redis.connect_timeout_seconds")
        self._connect_seconds = float(connect)
        self._command_seconds = float(said.get("socket_timeout") or settings.number("redis.command_timeout_seconds"))
        self._wires: dict[bool, Wire] = {}
        self._met = False  # whether the server has been reached before
        self._closed = False
        self._opening: dict[bool, asyncio.Lock] = {False: asyncio.Lock(), True: asyncio.Lock()}

    async def run(self, *commands: Command, slow: bool = False) -> list[Any]:
        """Send commands together and return their replies in order; one round trip.

        The first reply that is an error raises, after all replies were read. `slow` work has a connection and a
        patience of its own. When the connection breaks, the commands are sent once more on a new one: turns and
        entries are idempotent; a counter may then count twice.
        """
        replies = await self.run_each(*commands, slow=slow)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, str(commands[0][0])) from reply
        return replies

    async def run_each(self, *commands: Command, slow: bool = False) -> list[Any]:
        """Like `run`, with errors of single commands as values (`wire.Refusal`)."""
        try:
            replies = await self._exchange(commands, slow=slow)
        except ConnectionError:
            try:
                replies = await self._exchange(commands, slow=slow)
            except ConnectionError as error:
                raise self.error(error, str(commands[0][0])) from error
        missing = [i for i, reply in enumerate(replies) if getattr(reply, "status_code", "") == "NOSCRIPT"]
        if missing:
            sent = [("EVAL", self._sources[commands[i][1]], *commands[i][2:]) for i in missing]
            for index, reply in zip(missing, await self.run_each(*sent, slow=slow), strict=True):
                replies[index] = reply
        return replies

    async def execute(self, *command: Any) -> Any:
        """One command, its reply; with the patience of slow work."""
        return (await self.run(command, slow=True))[0]

    async def _exchange(self, commands: Sequence[Command], *, slow: bool) -> list[Any]:
        """Raises `ConnectionError` where trying once more makes sense, and `StoreError`."""
        wire = self._wires.get(slow)
        if wire is None or not wire.usable:
            wire = await self._open(str(commands[0][0]), slow=slow)
        self.round_trips += 1
        try:
            return await wire.exchange(commands)
        except TimeoutError as error:
            raise self.error(error, str(commands[0][0])) from error

    async def _open(self, what: str, *, slow: bool) -> Wire:
        from agentic_flywheel.store.wire import Refusal, open_wire

        async with self._opening[slow]:
            wire = self._wires.get(slow)
            if wire is not None and wire.usable:
                return wire
            if self._closed:
                raise StoreUnavailable(f"the connection to Redis at {self.address.masked} was closed", command=what)
            patience = SLOW_SECONDS if slow else self._command_seconds
            try:
                # The embedded server may load its data when it is first met; after that, nobody waits for it so long.
                socket: Path | None = None
                if self.embedded is not None and not self._met:
                    socket = await self.embedded.ensure()
                async with asyncio.timeout(self._connect_seconds):
                    if self.embedded is not None and socket is None:
                        socket = await self.embedded.ensure()
                    wire = self._wires[slow] = await open_wire(self.address, socket, patience=patience)
                    self._met = True
            except (TimeoutError, Refusal, OSError) as error:
                # A refused connection was tried; only a broken one is worth a second attempt.
                raise self.error(error, what) from error
            return wire

    def error(self, error: BaseException, what: str) -> StoreError:
        """A failure of the wire or the server as a `StoreError` of this server."""
        from agentic_flywheel.store.failures import store_error

        return store_error(error, self.address, what)

    async def aclose(self) -> None:
        """Release every connection; what is on its way ends in `StoreUnavailable`. Safe to call twice."""
        self._closed = True
        for slow, lock in self._opening.items():
            async with lock:  # a connection that is just being opened is closed too
                wire = self._wires.pop(slow, None)
            if wire is not None:
                wire.close()
                await wire.gone()

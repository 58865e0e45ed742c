"""One way to talk to Redis: a list of commands, one round trip, a list of replies.

Invariant: whatever goes wrong on the wire leaves here as a `StoreError`; a connection whose conversation was cut in
the middle is never used again, so no reply can reach the wrong asker. Lua scripts are sent by their hash and once
more by their source where the server does not know them yet.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import StoreError
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.address import Address, resolve_address

if TYPE_CHECKING:
    from redis.asyncio import Connection, ConnectionPool

    from agentic_flywheel.store.embedded import EmbeddedServer

Command = Sequence[Any]


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
        self._pool: ConnectionPool | None = None

    async def run(self, *commands: Command, timeout: float | None = None) -> list[Any]:
        """Send commands together and return their replies in order; one round trip.

        The first reply that is an error raises, after all replies were read. `timeout` in seconds replaces the
        command timeout for slow work. When the connection breaks, the commands are sent once more on a new one: turns
        and entries are idempotent; a counter may then count twice.
        """
        replies = await self.run_each(*commands, timeout=timeout)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self.error(reply, str(commands[0][0]))
        return replies

    async def run_each(self, *commands: Command, timeout: float | None = None) -> list[Any]:
        """Like `run`, with errors of single commands as values (redis-py's `ResponseError`)."""
        try:
            replies = await self._exchange(commands, timeout)
        except _Dead:
            await self.drop()
            try:
                replies = await self._exchange(commands, timeout)
            except _Dead as error:
                raise self.error(error.cause, str(commands[0][0])) from error.cause
        missing = [index for index, reply in enumerate(replies) if type(reply).__name__ == "NoScriptError"]
        if missing:
            sent = [("EVAL", self._sources[commands[i][1]], *commands[i][2:]) for i in missing]
            for index, reply in zip(missing, await self.run_each(*sent, timeout=timeout), strict=True):
                replies[index] = reply
        return replies

    async def execute(self, *command: Any) -> Any:
        """One command, its reply."""
        return (await self.run(command, timeout=5.0))[0]

    async def drop(self) -> None:
        """Let go of every connection; the next command connects anew."""
        pool, self._pool = self._pool, None
        if pool is not None:
            with suppress(OSError):  # the other side is often gone already; there is nothing left to save
                await pool.disconnect()

    async def _exchange(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        from hiredis import pack_command
        from redis.exceptions import ConnectionError as RedisConnectionError
        from redis.exceptions import RedisError, ResponseError
        from redis.exceptions import TimeoutError as RedisTimeoutError

        pool = await self._connected()
        connection: Connection | None = None
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            self.round_trips += 1
            replies: list[Any] = []
            # One deadline for the whole exchange. redis-py's own would hold for each reply, and where a read is given
            # a timeout it answers None in its stead, as if the key were empty.
            async with asyncio.timeout(connection.socket_timeout if timeout is None else timeout):
                packed = b"".join(pack_command(tuple(command)) for command in commands)
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        replies.append(error)
        except (RedisTimeoutError, TimeoutError) as error:
            raise self.error(error, str(commands[0][0])) from error
        except (RedisConnectionError, OSError) as error:
            raise _Dead(error) from error
        except RedisError as error:
            raise self.error(error, str(commands[0][0])) from error
        else:
            complete, connection = connection, None
            await pool.release(complete)
            return replies
        finally:
            # Left by an error or a cancellation: replies may still be on their way, so the connection ends here.
            if connection is not None:
                await connection.disconnect(nowait=True)
                await pool.release(connection)

    async def _connected(self) -> ConnectionPool:
        if self._pool is None:
            from agentic_flywheel.store.connection import make_pool

            socket: Path | None = await self.embedded.ensure() if self.embedded else None
            if self._pool is None:
                self._pool = make_pool(self.settings, self.address, socket)
        return self._pool

    def error(self, error: BaseException, what: str) -> StoreError:
        """A failure of redis-py or the operating system as a `StoreError` of this server."""
        from agentic_flywheel.store.connection import store_error

        return store_error(error, self.address, what)

    async def aclose(self) -> None:
        """Release every connection."""
        await self.drop()


class _Dead(Exception):
    """The connection broke before all replies were read."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause

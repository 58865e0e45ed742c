"""What an outage costs a question, in waits for the store: a few in all, then none, whatever the server does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import StoreError, StoreRefused, StoreUnavailable
from agentic_flywheel.model import Outcome, Reason
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.breaker import TIMEOUTS_TO_OPEN, State
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.node import Lane, Node
from flywheels import Oracle, opened, until
from servers import Server, free_port

pytestmark = pytest.mark.anyio

QUICK = {"redis_command_timeout_seconds": 0.1}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What askers waited for on the way of a question: a line for each reply and each connection."""
    seen: list[str] = []

    def counted(what: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counting(*arguments: Any) -> Any:
            if Lane.SLOW not in arguments:
                seen.append(what)
            return await method(*arguments)

        return counting

    monkeypatch.setattr(Node, "_opened", counted("connection", Node._opened))
    monkeypatch.setattr("agentic_flywheel.store.node._replies", counted("reply", _replies))
    return seen


async def _replies(wire: Any, commands: Any, within: float) -> list[Any]:
    async with asyncio.timeout(min(within, wire.patience)):
        replies: list[Any] = await wire.exchange(commands)
        return replies


async def recovered(flywheel: Flywheel) -> None:
    link = flywheel._store.link
    again = asyncio.Event()
    link.on_recovered(again.set)
    if link.health.state is not State.CLOSED:
        async with asyncio.timeout(30):
            await again.wait()
    await until(lambda: not any(wire.stalled for wire in link._connections._wires.values()), "replies that are late")


async def ask_through(flywheel: Flywheel, count: int) -> None:
    """Questions one after the other and all at once, none of which the store has a part in."""
    for n in range(count):
        answer = await flywheel.ask(f"What is {n} of these?", session="s")
        assert (answer.outcome, answer.reason) == (Outcome.BYPASS, Reason.STORE_UNAVAILABLE)
        assert any("Answered without memory" in warning for warning in answer.warnings)
        assert not any(flywheel._store.link.address.masked in warning for warning in answer.warnings)  # doctor says it
    answers = await asyncio.gather(*(flywheel.ask(f"What is {n} of those?") for n in range(count)))
    assert {answer.outcome for answer in answers} == {Outcome.BYPASS}


async def test_a_server_that_was_killed(valkey: Server, tmp_path: Path, waits: list[str]) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("What is there at first?", session="s")
        waits.clear()
        valkey.kill()
        try:
            await ask_through(flywheel, 30)
            assert len(waits) <= 2, waits
            assert flywheel._store.link.health.state is not State.CLOSED
        finally:
            valkey.start()
        await recovered(flywheel)
        assert (await flywheel.ask("What is there at last?")).outcome is Outcome.MISS
        assert (await flywheel.ask("What is there at last?")).outcome is Outcome.HIT


async def test_a_server_that_hangs(valkey: Server, tmp_path: Path, waits: list[str]) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **QUICK) as flywheel:
        await flywheel.ask("What is there at first?", session="s")
        waits.clear()
        valkey.pause()
        try:
            await ask_through(flywheel, 30)
            # Each of the first questions waits for a reply or for a new connection, until it is plain.
            assert len(waits) <= 2 * TIMEOUTS_TO_OPEN, waits
        finally:
            valkey.resume()
        await recovered(flywheel)
        assert (await flywheel.ask("What is there at last?")).outcome is Outcome.MISS


async def test_many_at_once_wait_once(valkey: Server, tmp_path: Path, waits: list[str]) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **QUICK) as flywheel:
        await flywheel.ask("What is there at first?", session="s")
        waits.clear()
        valkey.pause()
        try:
            answers = await asyncio.gather(*(flywheel.ask(f"What is {n} of those?") for n in range(100)))
            assert {answer.outcome for answer in answers} == {Outcome.BYPASS}
            assert len(waits) <= 102, "more than one for a question, and two for what is written behind"
        finally:
            valkey.resume()
        await recovered(flywheel)


async def test_nobody_there_from_the_beginning(tmp_path: Path, waits: list[str]) -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}", tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask_through(flywheel, 20)
        assert waits == ["connection"]


async def test_credentials_that_are_refused(servers: Any, tmp_path: Path, waits: list[str]) -> None:
    server = servers.get("valkey9", "secret")
    async with linked(f"unix://:wrong@{server.socket}") as link:
        with pytest.raises(StoreRefused):
            await link.run(("PING",))
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match=r"left alone since .*WRONGPASS"):
                await link.run(("PING",))
        assert waits == ["connection"]


async def test_a_replica_that_lost_its_primary_and_says_so(valkey: Server) -> None:
    async with linked(valkey.url) as link:
        assert await link.run(("PING",)) == [b"PONG"]
        with valkey.client() as client:
            client.config_set("replica-serve-stale-data", "no")
            client.replicaof("127.0.0.1", free_port())
        try:
            with pytest.raises(StoreUnavailable, match="MASTERDOWN"):
                await link.run(("GET", "k"))
            with pytest.raises(StoreUnavailable, match=r"left alone since .*MASTERDOWN"):
                await link.run(("GET", "k"))
        finally:
            with valkey.client() as client:
                client.replicaof("NO", "ONE")
                client.config_set("replica-serve-stale-data", "yes")


async def test_an_error_that_says_nothing_of_the_server_leaves_it_be(valkey: Server) -> None:
    async with linked(valkey.url) as link:
        for _ in range(2 * TIMEOUTS_TO_OPEN):
            with pytest.raises(StoreError):
                await link.run(("NOSUCH",))
        assert link.health.failures == 0


async def test_the_round_trips_of_one_question_share_their_patience(valkey: Server) -> None:
    async with linked(valkey.url, **{"redis.command_timeout_seconds": 5}) as link:
        patience = link.patience()
        with patience:
            assert await link.run(("PING",)) == [b"PONG"]
            patience.left = 0.01
            with pytest.raises(StoreUnavailable, match="in time"):
                await link.run(("BLPOP", "nothing", "0.5"))
            with pytest.raises(StoreUnavailable, match="in time"):
                await link.run(("PING",))
        assert patience.left < 0.01
        assert await link.run(("PING",)) == [b"PONG"]  # another question has its own
        assert link.health.failures == 0  # no fair chance is no failure


async def test_an_embedded_server_that_hangs(tmp_path: Path) -> None:
    async with linked("", data_dir=str(tmp_path), **{"redis.command_timeout_seconds": 0.2}) as link:
        assert await link.run(("PING",)) == [b"PONG"]
        assert link.embedded is not None
        status = await link.embedded.status()
        assert status is not None
        os.kill(status.pid, signal.SIGSTOP)
        try:
            for _ in range(2 * TIMEOUTS_TO_OPEN):
                with pytest.raises(StoreUnavailable):
                    await link.run(("PING",))
            assert link.health.state is not State.CLOSED
        finally:
            os.kill(status.pid, signal.SIGCONT)
        again = asyncio.Event()
        link.on_recovered(again.set)
        if link.health.state is not State.CLOSED:
            async with asyncio.timeout(30):
                await again.wait()
        assert await link.run(("PING",)) == [b"PONG"]
        await link.embedded.stop()


@asynccontextmanager
async def linked(url: str, **settings: Any) -> AsyncIterator[Link]:
    arguments = {"redis_url": url, "redis.command_timeout_seconds": 5, "redis.connect_timeout_seconds": 5, **settings}
    link = Link(load_settings(arguments, environ={"PATH": os.environ["PATH"]}, directory=Path("/")))
    try:
        yield link
    finally:
        await link.aclose()

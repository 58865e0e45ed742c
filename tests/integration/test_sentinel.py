"""A primary found through sentinels, and a failover: questions keep being answered, and then everything works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentic_flywheel.errors import StoreUnavailable
from agentic_flywheel.model import Outcome
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.link import Link
from clusters import SERVICE, Sentinels
from flywheels import Oracle, opened
from servers import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("cluster")]


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    watched = Sentinels()
    yield watched
    watched.close()


async def test_failover(sentinels: Sentinels, tmp_path: Path) -> None:
    """Every turn that a replica confirmed is there afterwards, once; no question goes without an answer."""
    settings = {"redis_command_timeout_seconds": 0.5, "redis_wait_replicas": 1, "redis_wait_timeout_seconds": 0.5}
    asked: list[str] = []
    confirmed: list[str] = []
    async with opened(sentinels.url, tmp_path, {"oracle": Oracle()}, **settings) as flywheel:
        over = asyncio.Event()

        async def talk() -> None:
            while not over.is_set():
                turn = f"turn-{len(asked)}"
                asked.append(turn)
                answer = await flywheel.ask(f"What is {turn}?", session="s", turn_id=turn)
                assert turn in answer.text
                if answer.remembered and not answer.warnings:
                    confirmed.append(turn)

        talking = asyncio.create_task(talk())
        await until(lambda: len(confirmed) >= 5, "turns to be confirmed")
        old = sentinels.primary
        old.kill()
        before = len(asked)
        await until(lambda: len(asked) >= before + 5, "questions to be answered without the primary")
        await until(lambda: sentinels.primary is not None, "a new primary")
        since = len(confirmed)
        await until(lambda: len(confirmed) >= since + 5, "turns to be confirmed again")
        over.set()
        await talking
        assert (await flywheel.ask("What is turn-0?", session="other")).outcome is Outcome.HIT
        kept = [turn.id for turn in (await flywheel.sessions.show("s")).turns]
    assert len(kept) == len(set(kept))
    assert [turn for turn in kept if turn in set(confirmed)] == confirmed
    assert set(kept) <= set(asked)


async def test_a_primary_that_turned_into_a_replica_is_left(sentinels: Sentinels) -> None:
    """Without losing a connection: only its answer READONLY tells."""
    async with linked(sentinels.url) as link:
        await link.run(("SET", "k", 1), ("WAIT", 2, 5000), waiting=True)
        old = sentinels.primary
        sentinels.sentinels[0].ask("SENTINEL FAILOVER", SERVICE)
        await until(lambda: old.role == "slave", "the old primary to step down")
        again = asyncio.Event()
        link.on_recovered(again.set)
        if await _refused(link):  # it stepped down a moment before the other was ready
            async with asyncio.timeout(20):
                await again.wait()
        assert sentinels.primary is not old
        assert await link.run(("SET", "k", 2), ("GET", "k")) == [b"OK", b"2"]


async def _refused(link: Link) -> bool:
    try:
        await link.run(("SET", "k", 2))
    except StoreUnavailable:
        return True
    return False


async def test_sentinels_that_are_away_or_know_nothing(sentinels: Sentinels) -> None:
    sentinels.sentinels[0].kill()
    sentinels.sentinels[1].pause()
    try:
        async with linked(sentinels.url) as link:
            assert await link.run(("PING",)) == [b"PONG"]
        async with linked(sentinels.url.replace(SERVICE, "nothing")) as link:
            with pytest.raises(StoreUnavailable):
                await link.run(("PING",))
    finally:
        sentinels.sentinels[1].resume()


async def until(condition: object, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, 30)


class linked:  # noqa: N801 - used as a function
    """A link with the patience that a busy test machine needs."""

    def __init__(self, url: str) -> None:
        patient = {"redis.command_timeout_seconds": 5.0, "redis.connect_timeout_seconds": 2.0}
        self._link = Link(load_settings({"redis_url": url, **patient}, environ={}, directory=Path("/")))

    async def __aenter__(self) -> Link:
        return self._link

    async def __aexit__(self, *error: object) -> None:
        await self._link.aclose()

"""What is tidied in the background, once a day over all processes, and what is left alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import StoreUnavailable, UnknownSession
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.housekeeping import LOOK_SECONDS
from agentic_flywheel.store.keys import SHARDS, Keys
from flywheels import Oracle, everything, opened, settings_for, until
from servers import Server

pytestmark = pytest.mark.anyio

KEYS = Keys("default")
MARK = KEYS.mark("swept")
YEARS_AGO = 3 * 365 * 86400


def age(server: Server, session: str) -> None:
    """Let a session be as if nobody had spoken in it for three years."""
    long_ago = time.time() - YEARS_AGO
    with server.client() as client:
        client.hset(KEYS.session(session), "last_active_at", repr(long_ago))
        for shard in range(SHARDS):
            client.zadd(KEYS.sessions(shard), {session: long_ago}, xx=True)


def make_due(flywheel: Flywheel) -> None:
    """Let the time at which this process looks be now."""
    assert flywheel._housekeeping is not None
    flywheel._housekeeping._next_look = 0.0


async def idle(flywheel: Flywheel) -> None:
    """Wait until everything in the background is done."""
    await until(lambda: not flywheel._flights._work, "the work in the background to end")


def indexed(server: Server, flow: str) -> list[bytes]:
    with server.client() as client:
        return [member for shard in range(SHARDS) for member in client.zrange(KEYS.entries(flow, shard), 0, -1)]


async def test_old_sessions_are_swept_with_the_next_question_and_nothing_else(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for session in ("old", "new"):
            await flywheel.ask("What is said in it?", flow="oracle", session=session)
        await flywheel.flush()
        age(valkey, "old")
        before = everything(valkey)
        make_due(flywheel)
        await flywheel.ask("Something else entirely?", flow="oracle", directives=Directives(no_store=True))
        await idle(flywheel)
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show("old")
        assert len((await flywheel.sessions.show("new")).turns) == 1
        after = everything(valkey)
        gone = {key.decode() for key in before.keys() - after.keys()}
        assert {KEYS.session("old"), KEYS.turns("old"), KEYS.turn_ids("old")} <= gone
        assert all("old" in key or key.startswith(f"{KEYS.root}:sessions:") for key in gone)
        with valkey.client() as client:
            assert client.ttl(MARK) > LOOK_SECONDS  # done for the day


async def test_one_process_tidies_for_all(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as one, opened(valkey, tmp_path) as two:
        swept: list[str] = []
        for name, flywheel in (("one", one), ("two", two)):
            sweep = flywheel.sessions.sweep

            async def counted(*, dry_run: bool, name: str = name, sweep: Any = sweep) -> Any:
                swept.append(name)
                return await sweep(dry_run=dry_run)

            flywheel.sessions.sweep = counted  # type: ignore[method-assign]
            make_due(flywheel)
        for flywheel in (one, two):
            assert flywheel._housekeeping is not None
            flywheel._housekeeping.look()
            flywheel._housekeeping.look()  # not due any more
        await asyncio.gather(idle(one), idle(two))
        assert len(swept) == 1
        make_due(one)
        make_due(two)
        for flywheel in (one, two):
            assert flywheel._housekeeping is not None
            flywheel._housekeeping.look()
        await asyncio.gather(idle(one), idle(two))
        assert len(swept) == 1  # the day's mark stands


async def test_tidying_that_failed_is_tried_again_after_an_hour(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:

        async def fails(*, dry_run: bool) -> Any:
            raise StoreUnavailable("away", command="ZRANGEBYSCORE")

        flywheel.sessions.sweep = fails  # type: ignore[method-assign]
        make_due(flywheel)
        await flywheel.ask("What?", flow="oracle")
        await idle(flywheel)
        with valkey.client() as client:
            assert 0 < client.ttl(MARK) <= LOOK_SECONDS


async def test_a_session_that_is_resumed_while_others_are_swept_stays(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for session in ("first", "second"):
            await flywheel.ask("What is said in it?", flow="oracle", session=session)
            age(valkey, session)
        listed = flywheel._store.sessions.inactive_since

        async def resumed_meanwhile(moment: float) -> list[str]:
            found = await listed(moment)
            await flywheel.ask("And now?", flow="oracle", session="second")
            return found

        flywheel._store.sessions.inactive_since = resumed_meanwhile  # type: ignore[method-assign]
        receipt = await flywheel.sessions.sweep(dry_run=False)
        assert receipt.removed["sessions"] == 1
        assert len((await flywheel.sessions.show("second")).turns) == 2


async def test_answers_from_before_a_flows_change_are_removed(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"other": Oracle("other")}) as flywheel:
        flywheel.registry.register("oracle", Oracle(), options={"version": "1"})
        for number in range(20):
            await flywheel.ask(
                f"Question {number}?", flow="oracle", session="s", directives=Directives(standalone=True)
            )
        await flywheel.ask("Question 0?", flow="other", session="s")
        await flywheel.flush()
        old = indexed(valkey, "oracle")
        assert len(old) == 20
        before = everything(valkey)
        flywheel.registry.register("oracle", Oracle(), options={"version": "2"})
        await flywheel.ask("Question 0?", flow="oracle", session="t")
        await idle(flywheel)
        assert len(indexed(valkey, "oracle")) == 1
        assert len(indexed(valkey, "other")) == 1
        gone = before.keys() - everything(valkey).keys()
        answers = {member.partition(b"|")[2] for member in old}
        # The one that was asked again has been written anew under its key.
        assert len(gone & answers) == 19
        assert not any(b":session:" in key or b":other:" in key for key in gone)


async def test_programs_that_end_after_one_question_tidy_nothing(valkey: Server, tmp_path: Path) -> None:
    settings = settings_for(valkey, tmp_path)
    registry = Registry(settings)
    registry.register("oracle", Oracle(), options={"version": "1"})
    async with Flywheel.open(settings=settings, registry=registry, background=False) as flywheel:
        assert flywheel._housekeeping is None
        await flywheel.ask("Question 1?", flow="oracle", session="old")
        age(valkey, "old")
        registry.register("oracle", Oracle(), options={"version": "2"})
        await flywheel.ask("Question 2?", flow="oracle", session="new")
        await idle(flywheel)
    assert len(indexed(valkey, "oracle")) == 2
    with valkey.client() as client:
        assert client.exists(KEYS.session("old"))
        assert not client.exists(MARK)

"""Never in the way: whatever is wrong with Redis, the question is answered, nothing is raised, the answer says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import NotCached, StoreError
from agentic_flywheel.model import Answer
from flywheels import Oracle, opened, until
from servers import Server, free_port

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
OTHER = "Which commands does Redis Cluster refuse?"


def came(answer: Answer) -> tuple[str, str]:
    return answer.outcome.value, answer.reason.value


async def still_answers(flywheel: Flywheel, oracle: Oracle) -> None:
    """One-off and in a session, again and again: always the flow, always said so, never an exception."""
    for arguments in ({}, {"session": "s"}, {"session": "s", "user": "ana"}, {"directives": Directives(no_cache=True)}):
        calls = oracle.calls
        answer = await flywheel.ask(QUESTION, **arguments)
        assert answer.text == f"oracle {calls + 1}: {QUESTION}"
        assert came(answer) == ("bypass", "store_unavailable")
        assert answer.key is None
        assert answer.ttl_seconds is None
        assert answer.warnings
    with pytest.raises(NotCached) as caught:
        await flywheel.ask(QUESTION, directives=Directives(only_if_cached=True))
    assert caught.value.details["reason"] == "store_unavailable"
    private = await flywheel.ask(QUESTION, directives=Directives(no_store=True))
    assert private.outcome == "bypass"


async def test_nobody_there(tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(f"redis://127.0.0.1:{free_port()}", tmp_path, {"oracle": oracle}) as flywheel:
        await still_answers(flywheel, oracle)
        for work in (flywheel.cache.list, flywheel.cache.stats, flywheel.lifetimes.show):
            with pytest.raises(StoreError):
                await work()
        checks = {check.name: check.state for check in await flywheel.doctor()}
        assert checks["redis"] == "fail"


async def test_wrong_password(redis_password: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    url = redis_password.tcp_url().replace("p%40ss", "hunter2")
    async with opened(url, tmp_path, {"oracle": oracle}) as flywheel:
        await still_answers(flywheel, oracle)
        answer = await flywheel.ask(QUESTION)
        assert not any("hunter2" in warning for warning in answer.warnings)


async def test_stopped_in_the_middle_and_back_again(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        assert came(await flywheel.ask(QUESTION)) == ("miss", "not_stored")
        redis_server.stop()
        await still_answers(flywheel, oracle)
        redis_server.start()

        deadline = asyncio.get_running_loop().time() + 20
        while (await flywheel.ask(OTHER)).outcome == "bypass":
            assert asyncio.get_running_loop().time() < deadline, "waited 20 s for Redis to be used again"
            await asyncio.sleep(0.05)
        assert (await flywheel.ask(OTHER)).outcome == "hit"


async def test_stopped_while_the_flow_answers(valkey: Server, tmp_path: Path) -> None:
    gate = asyncio.Event()
    asked: list[str] = []

    async def answer(question: str) -> str:
        asked.append(question)
        await gate.wait()
        return "an answer"

    async with opened(valkey, tmp_path, {"slow": answer}) as flywheel:
        tasks = [asyncio.create_task(flywheel.ask(q, session=s)) for q, s in ((QUESTION, None), (OTHER, "s"))]
        await until(lambda: len(asked) == 2, "the flow to be asked")
        valkey.stop()
        gate.set()
        for answer_ in await asyncio.gather(*tasks):
            assert answer_.text == "an answer"
            assert answer_.key is None
            assert answer_.warnings


async def test_hanging(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, redis_command_timeout_seconds=0.1) as flywheel:
        await flywheel.ask(QUESTION, session="s")
        valkey.pause()
        try:
            answers = await asyncio.gather(*(flywheel.ask(f"{QUESTION} {n}", session="s") for n in range(20)))
            assert {came(answer) for answer in answers} == {("bypass", "store_unavailable")}
        finally:
            valkey.resume()


@asynccontextmanager
async def full(server: Server) -> AsyncIterator[None]:
    with server.client() as client:
        client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        with server.client() as client:
            client.config_set("maxmemory", 0)


async def test_full(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        async with full(redis_server):
            await answers_but_keeps_nothing(flywheel, OTHER)
        first = await flywheel.ask(QUESTION)
        async with full(redis_server):
            # Reading goes on: what is stored is served, also where the turn cannot be kept.
            again = await flywheel.ask(QUESTION, session="s")
            assert (came(again), again.text) == (("hit", "exact"), first.text)
            assert again.warnings
            await answers_but_keeps_nothing(flywheel, "What does Valkey add to Redis?")


async def answers_but_keeps_nothing(flywheel: Flywheel, question: str) -> None:
    answer = await flywheel.ask(question, session="s")
    assert question in answer.text
    assert came(answer) == ("bypass", "store_unavailable")
    assert (answer.key, answer.ttl_seconds) == (None, None)
    assert answer.warnings


async def test_a_read_only_replica(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION)
        with redis_server.client() as client:
            client.replicaof("127.0.0.1", free_port())
        try:
            again = await flywheel.ask(QUESTION)
            assert (again.outcome, again.text) == ("hit", first.text)
            await answers_but_keeps_nothing(flywheel, OTHER)
        finally:
            with redis_server.client() as client:
                client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    "key",
    [
        "afw:v1:default:flow:{oracle}",
        "afw:v1:default:ttl",
        "afw:v1:default:flows",
        "afw:v1:default:session:{s}",
        "afw:v1:default:session:{s}:turns",
        "afw:v1:default:session:{s}:ids",
        "afw:v1:default:user:{ana}:sessions",
        "afw:v1:default:flow:{oracle}:changes",
        "afw:v1:default:flow:{oracle}:entries:*",
        "afw:v1:default:sessions:*",
        "afw:v1:default:feed:*",
        "afw:v1:default:count:{oracle}:*",
        "afw:v1:default:askers:DAY:*",
    ],
)
async def test_somebody_else_s_value_under_a_key_of_ours(valkey: Server, tmp_path: Path, key: str) -> None:
    """Whichever key it is: every question is answered, and nobody is told that something was kept that was not."""
    from datetime import UTC, datetime

    day = datetime.now(UTC).strftime("%Y%m%d")
    key = key.replace("DAY", day)
    keys = [key.replace("*", str(n)) for n in (*range(16), day)] if key.endswith("*") else [key]
    with valkey.client() as client:
        for name in keys:
            client.set(name, "not ours", ex=600)
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        for n, session in enumerate((None, "s", "s")):
            answer = await flywheel.ask(f"{QUESTION} {n}", session=session, user="ana" if session else None)
            assert QUESTION in answer.text
            if answer.session_id == "s" and answer.remembered and not answer.warnings:
                thread = await flywheel.sessions.show("s")
                assert answer.turn_id in {turn.id for turn in thread.turns}


async def test_one_damaged_key_does_not_hold_up_the_others(valkey: Server, tmp_path: Path) -> None:
    """A turn that Redis will never take is given up; those that wait behind it are written."""
    with valkey.client() as client:
        client.set("afw:v1:default:user:{ana}:sessions", "not ours", ex=600)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        stuck = await flywheel.ask(QUESTION, user="ana")
        others = [await flywheel.ask(f"What is the number {n} called?") for n in range(150)]
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for answer in others:
            assert len((await flywheel.sessions.show(answer.session_id)).turns) == 1
        assert len((await flywheel.sessions.show(stuck.session_id)).turns) == 1


@pytest.mark.parametrize("value", ["text", b"\x01\x00" + bytes(40), b"\x09" + bytes(40)])
async def test_a_damaged_answer_is_a_counted_miss_and_is_replaced(
    redis_server: Server, tmp_path: Path, value: Any
) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION)
        with redis_server.client() as client:
            client.set(str(first.key), value, ex=600)
        assert came(await flywheel.ask(QUESTION)) == ("miss", "damaged")
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        assert (await flywheel.cache.stats()).damaged_values == 1


async def test_an_answer_of_another_type_is_a_counted_miss_and_is_replaced(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        first = await flywheel.ask(QUESTION)
        with redis_server.client() as client:
            client.delete(str(first.key))
            client.lpush(str(first.key), "x")
        assert came(await flywheel.ask(QUESTION)) == ("miss", "damaged")
        assert came(await flywheel.ask(QUESTION)) == ("hit", "exact")
        assert (await flywheel.cache.stats()).damaged_values == 1


async def test_a_damaged_turn_is_left_out_of_the_context_and_said(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="s")
        with redis_server.client() as client:
            client.xadd("afw:v1:default:session:{s}:turns", {"t": b"garbage"})
        answer = await flywheel.ask("And on Windows?", session="s")
        assert [e.question for e in oracle.asked[-1].history] == [QUESTION]
        assert any("1 earlier turn" in warning for warning in answer.warnings)


async def test_an_asker_who_leaves_in_the_middle(valkey: Server, tmp_path: Path) -> None:
    """Cancelling an ask at any moment breaks nothing for the askers after it."""
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="s")
        for steps in range(40):
            task = asyncio.create_task(flywheel.ask(f"What is the number {steps} called?", session="s"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            tag = f"How is the letter {steps} written?"
            answer = await flywheel.ask(tag, session=f"other {steps}")
            assert tag in answer.text
            assert came(answer) == ("miss", "not_stored")
        turns = (await flywheel.sessions.show("s")).turns
        assert all(turn.question in turn.answer for turn in turns)


async def test_closing_while_questions_are_on_their_way(valkey: Server, tmp_path: Path) -> None:
    """Nothing is left open, and every asker is told something."""
    gate = asyncio.Event()
    asked: list[str] = []

    async def slow(question: str) -> str:
        asked.append(question)
        await gate.wait()
        return "an answer"

    async with opened(valkey, tmp_path, {"slow": slow}) as flywheel:
        tasks = [asyncio.create_task(flywheel.ask(f"{QUESTION} {n}", session=f"s{n}")) for n in range(5)]
        await until(lambda: len(asked) == 5, "the flow to be asked")
        closing = asyncio.create_task(flywheel.aclose())
        await asyncio.sleep(0.05)
        gate.set()
        await closing
        for task in tasks:
            answer = await task
            assert answer.text == "an answer"
    with valkey.client() as client:
        ours = [c for c in client.client_list() if c["id"] != str(client.client_id())]
        assert ours == []

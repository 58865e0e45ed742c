"""Warm-ups beside people who ask: places, rates, and calls that give way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.store.store import Store
from agentic_flywheel.warmups import WarmOutcome
from askers import askers
from flywheels import opened, settings_for
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

HOUR = 3600.0
QUESTIONS = [f"Question number {number}?" for number in range(4)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def asked(stage: Stage) -> list[str]:
    """What the flow was asked, in order."""
    file = stage.folder / "calls"
    return [line.partition(" ")[2] for line in file.read_text().splitlines()] if file.exists() else []


async def test_spare_places_leave_one_free_and_are_called_back(redis_server: Server, tmp_path: Path) -> None:
    store = Store(settings_for(redis_server, tmp_path))
    try:
        limits = store.limits

        async def enter(flow: str = "f", most: int = 3, **facts: Any) -> tuple[str, float]:
            return await limits.enter(flow, held_seconds=HOUR, most=most, per_minute=None, **facts)

        spare = [await enter(spare=True) for _ in range(4)]
        held = [token for token, wait in spare if not wait]
        assert len(held) == 2
        assert not any([await limits.called_back("f", token) for token in held])
        person, wait = await enter()
        assert wait == 0  # the one that was left free
        assert (await enter())[1] > 0
        called = [token for token in held if await limits.called_back("f", token)]
        assert len(called) == 1
        assert (await enter())[1] > 0  # nobody else is called back while that one leaves
        assert [token for token in held if await limits.called_back("f", token)] == called
        await limits.leave("f", called[0])
        assert (await enter(spare=True))[1] > 0  # whoever waits comes first
        assert (await enter())[1] == 0
        kept = next(token for token in held if token not in called)
        await limits.stay("f", kept)
        assert (await enter())[1] > 0
        await limits.leave("f", kept)
        await limits.leave("f", person)
        assert (await enter())[1] == 0
        only, wait = await enter("one", 1, spare=True)
        assert wait == 0
        assert (await enter("one", 1))[1] > 0
        assert await limits.called_back("one", only)
    finally:
        await store.aclose()


async def test_spare_calls_take_of_a_full_bucket_alone(redis_server: Server, tmp_path: Path) -> None:
    store = Store(settings_for(redis_server, tmp_path))
    try:

        async def enter(*, spare: bool) -> float:
            return (await store.limits.enter("f", held_seconds=HOUR, most=None, per_minute=4, spare=spare))[1]

        assert await enter(spare=True) == 0
        assert 0 < await enter(spare=True) <= 15
        assert [await enter(spare=False) for _ in range(3)] == [0, 0, 0]
        assert await enter(spare=False) > 0
    finally:
        await store.aclose()


async def test_a_person_goes_first_where_one_call_at_a_time_is_allowed(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    fields = {"max_concurrency": 1}
    async with askers(valkey.url, tmp_path, 2, fields=fields, flow_queue_seconds=60) as (warming, asking):
        stage.hold()
        report = warming.warm(QUESTIONS, concurrency=4)
        await eventually(lambda: len(stage.calls) == 1, "the first warm call")
        answer = asking.ask("Somebody's question?")
        await eventually(lambda: asking.pid in stage.calls, "somebody's call")
        assert asked(stage)[1] == "Somebody's question?"  # before the other three, and without the first one's end
        assert len(stage.calls) == 2
        stage.release()
        (given,) = await answer
        (warmed,) = await report
    assert given["outcome"] == "miss"
    assert (warmed["stored"], warmed["state"]) == (4, "done")
    assert warmed["asked"] == 5  # the one that gave way is asked again
    assert stage.peak == 1


async def test_a_call_that_somebody_has_joined_does_not_give_way(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    flows = flow(tmp_path, max_concurrency=1)
    async with opened(valkey, tmp_path, flows, flow_queue_seconds=60) as flywheel:
        stage.hold()
        warming = asyncio.create_task(flywheel.warming.run(QUESTIONS[:1]))
        await eventually(lambda: stage.calls, "the warm call")
        joined = asyncio.create_task(flywheel.ask(QUESTIONS[0]))
        await eventually(lambda: any(f.joined for f in flywheel._flights._by_name.values()), "somebody to come aboard")
        other = asyncio.create_task(flywheel.ask("Somebody else's question?"))
        with valkey.client() as client:
            calls, _ = flywheel._store.keys.calls("oracle")
            members = lambda: client.zrange(calls, 0, -1)  # noqa: E731
            await eventually(lambda: members() and not members()[0].startswith((b"spare:", b"called:")), "it to stay")
        stage.release()
        assert (await joined).outcome == "joined"
        assert (await other).outcome == "miss"
        report = await warming
    assert (report.stored, report.asked) == (1, 1)
    assert asked(stage) == [QUESTIONS[0], "Somebody else's question?"]


async def test_who_asks_elsewhere_what_gives_way_takes_it_over(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    fields = {"max_concurrency": 1}
    async with askers(valkey.url, tmp_path, 2, fields=fields, flow_queue_seconds=60) as (warming, asking):
        stage.hold()
        report = warming.warm(QUESTIONS[:1])
        await eventually(lambda: len(stage.calls) == 1, "the warm call")
        same = asking.ask(QUESTIONS[0])  # hears the warm call, in another process
        other = asking.ask("Somebody's question?")
        await eventually(lambda: asking.pid in stage.calls, "somebody's call")
        stage.release()
        (first,), (second,) = await same, await other
        (warmed,) = await report
    assert {first["outcome"], second["outcome"]} <= {"miss", "joined", "hit"}
    assert warmed["stored"] + warmed["warm"] == 1
    assert first["text"].endswith(QUESTIONS[0])


async def test_a_question_that_waits_for_a_place_holds_nobody_up(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    """Whoever asks what a warm-up is about to ask does not wait with it, behind everybody else."""
    async with opened(valkey, tmp_path, flow(tmp_path, max_concurrency=2), flow_queue_seconds=60) as flywheel:
        stage.hold()
        person = asyncio.create_task(flywheel.ask("Somebody's question?"))
        await eventually(lambda: stage.calls, "somebody's call")
        warming = asyncio.create_task(flywheel.warming.run(QUESTIONS[:1]))
        with valkey.client() as client:
            await eventually(lambda: client.keys("*:warm:*"), "the warm-up to begin")
        same = asyncio.create_task(flywheel.ask(QUESTIONS[0]))
        await eventually(lambda: len(stage.calls) == 2, "the same question's own call")
        stage.release()
        assert (await same).outcome == "miss"
        await person
        report = await warming
    assert (report.warm, report.asked) == (1, 0)


async def test_what_gives_way_again_and_again_is_given_up(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path, max_concurrency=1), flow_queue_seconds=60) as flywheel:
        stage.hold()
        warming = asyncio.create_task(flywheel.warming.run(QUESTIONS[:1]))
        for number in range(1, 6):
            await eventually(lambda n=number: len(asked(stage)) == 2 * n - 1, "the warm call")  # type: ignore[misc]
            person = asyncio.create_task(flywheel.ask(f"Somebody's question {number}?"))
            await eventually(lambda n=number: len(asked(stage)) == 2 * n, "somebody's call")  # type: ignore[misc]
            stage.release()
            await person
            stage.hold()
        report = await warming
        stage.release()
    assert (report.asked, report.failures) == (5, {"gave_way": 1})
    assert report.items[0].outcome is WarmOutcome.FAILED

"""Warm-ups of what is popular and of the FAQ, and those that begin by themselves: after a change, so often, in one
process of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import FlowUnavailable
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.insight.warm_schedule import WarmSchedule
from flywheels import Oracle, opened, settings_for, text_anywhere, until
from servers import Server

pytestmark = pytest.mark.anyio

#: The first is asked most.
POPULAR = ["What is Redis persistence?", "How is Redis installed on Linux?", "Which ports does Redis use?"]
NEXT = "And how is it switched on?"


async def ask_around(flywheel: Flywheel, flow: str = "oracle") -> None:
    """Three people ask what will be popular; two of them go on with the same question."""
    for times, question in zip((3, 2, 1), POPULAR, strict=True):
        for person in ("ann", "bob", "cleo")[:times]:
            await flywheel.ask(question, flow=flow, user=person, session=f"{person} {question}")
    for person in ("ann", "bob"):
        await flywheel.ask(NEXT, user=person, session=f"{person} {POPULAR[0]}")
    await flywheel.flush()


class House:
    """A flywheel and what it does by itself, which tests begin."""

    def __init__(self, flywheel: Flywheel) -> None:
        flywheel.keep_house()
        assert flywheel._schedule is not None
        self.flywheel = flywheel
        self.schedule: WarmSchedule = flywheel._schedule


async def look(*houses: House) -> None:
    await asyncio.gather(*(house.schedule.look() for house in houses))
    for house in houses:
        await house.schedule.settled()


@asynccontextmanager
async def two(server: Server, folder: Path, oracle: Oracle, **settings: Any) -> AsyncIterator[list[House]]:
    """Two flywheels on one Redis, with one flow of which two popular questions are warmed after a change."""
    async with AsyncExitStack() as stack:
        houses = [House(await stack.enter_async_context(opened(server, folder, **settings))) for _ in range(2)]
        change(oracle, houses, "1")
        await ask_around(houses[0].flywheel)
        oracle.asked.clear()
        yield houses


def change(oracle: Oracle, houses: list[House], version: str, **fields: Any) -> None:
    for house in houses:
        house.flywheel.registry.register("oracle", oracle, options={"version": version}, **{"warm": 2, **fields})


def questions(oracle: Oracle) -> list[str]:
    return sorted(question.text for question in oracle.asked)


async def test_popular_questions_and_their_paths_are_warmed_without_keeping_their_words(
    redis_server: Server, tmp_path: Path
) -> None:
    oracle = Oracle()
    async with two(redis_server, tmp_path, oracle) as (house, _):
        flywheel = house.flywheel
        assert (await flywheel.warming.run(popular=5, follow_ups=2)).asked == 0  # all of it is fresh
        await flywheel.cache.clear(everything=True, dry_run=False)
        report = await flywheel.warming.run(popular=2, follow_ups=2)
        assert report.sources == ("2 popular questions", "2 follow-ups of each")
        assert questions(oracle) == sorted([*POPULAR[:2], NEXT])
        await flywheel.ask(POPULAR[0], session="new", flow="oracle")
        assert (await flywheel.ask(NEXT, session="new")).outcome == "hit"
        shown = await flywheel.warming.show()
        assert sorted(item.question for item in shown.items) == questions(oracle)  # as their answers have them
        assert all(item.path == () for item in shown.items)
        holding = text_anywhere(redis_server, "persistence")
        assert holding
        assert not [key for key in holding if b":warm" in key]


async def test_what_was_forgotten_meanwhile_is_not_asked_when_it_goes_on(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle) as (house, _):
        flywheel = house.flywheel
        await flywheel.cache.clear(everything=True, dry_run=False)
        warm_up = await flywheel.warming.begin(popular=3, concurrency=1)
        async for _ in warm_up:
            break
        await warm_up.aclose()
        await flywheel.settled()
        asked = questions(oracle)
        (gone, *_) = [question for question in POPULAR if question not in asked]
        await flywheel.popular.forget(gone, hide=True)
        resumed = await flywheel.warming.resume()
        async for _ in resumed:
            pass
        assert questions(oracle) == sorted(set(POPULAR) - {gone})


async def test_the_faq_is_warm_until_its_flow_changes(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle) as (house, _):
        flywheel = house.flywheel
        added = await flywheel.faq.add("What is a flywheel?", "A memory.", flow="oracle", by="ann")
        await flywheel.faq.approve(added.id, owner="ann", by="ann")
        report = await flywheel.warming.run(faq=True, refresh=True)
        assert (report.warm, report.asked, oracle.calls) == (1, 0, 0)
        change(oracle, [house], "2")
        report = await flywheel.warming.run(faq=True)
        assert (report.stored, questions(oracle)) == (1, ["What is a flywheel?"])


async def test_after_a_change_one_process_asks_what_is_popular(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle) as houses:
        await look(*houses)
        assert oracle.calls == 0  # nothing has changed since it is looked at
        change(oracle, houses, "2")
        await look(*houses)
        assert questions(oracle) == sorted(POPULAR[:2])
        for question in POPULAR[:2]:
            assert (await houses[1].flywheel.ask(question, flow="oracle")).outcome == "hit"
        await look(*houses)
        assert oracle.calls == 2
        (report,) = await houses[0].flywheel.warming.recent()
        assert (report.cause, report.asked, report.stored, report.state) == ("change", 2, 2, "done")
        change(oracle, houses, "3")  # a moment later
        await look(*houses)
        assert oracle.calls == 4


async def test_after_a_clearing_too(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle) as houses:
        await look(*houses)
        async with opened(valkey, tmp_path, {"oracle": (oracle, {"options": {"version": "1"}})}) as elsewhere:
            await elsewhere.cache.clear(flow="oracle", dry_run=False)
        await look(*houses)
        assert oracle.calls == 2


async def test_a_change_that_is_noticed_is_seen_to_at_once(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle, warm_look_seconds=3600) as houses:
        await look(houses[0])
        change(oracle, houses, "2")
        once = Directives(no_store=True)
        await houses[0].flywheel.ask("Something else entirely?", flow="oracle", directives=once)
        await until(lambda: oracle.calls == 3, "popular questions to be asked")
        await houses[0].schedule.settled()


async def test_who_dies_over_it_is_followed_and_the_budget_stays(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with two(valkey, tmp_path, oracle, warm_max_calls=3) as (one, other):
        await look(one)
        change(oracle, [one, other], "2", warm=3)
        dies = asyncio.Event()

        async def never_ends(*_: Any) -> Any:
            dies.set()
            await asyncio.Event().wait()

        one.flywheel.warming._warmer.call = never_ends  # type: ignore[method-assign]
        await one.schedule.look()
        await dies.wait()
        await other.schedule.look()
        assert other.schedule._work == {}  # the mark is held
        await one.schedule.aclose()
        with valkey.client() as client:
            client.delete(*client.keys("*:mark:warm-oracle"))
        await look(other)
        (report,) = await other.flywheel.warming.recent()
        # Two calls that may have been made when it died are spent.
        assert (report.asked, report.stored, report.left, oracle.calls) == (3, 1, 2, 1)


async def test_a_flow_that_fails_after_its_change_is_tried_again(valkey: Server, tmp_path: Path) -> None:
    oracle, fails = Oracle(), [False]

    def sometimes(question: FlowQuestion) -> str:
        if fails[0]:
            raise FlowUnavailable("it begins anew")
        return oracle(question)

    async with opened(valkey, tmp_path, {"oracle": (sometimes, {"warm": 3})}, warm_concurrency=1) as flywheel:
        await ask_around(flywheel)
        house = House(flywheel)
        await look(house)
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        fails[0] = True
        await look(house)
        fails[0] = False
        with valkey.client() as client:
            client.delete(*client.keys("*:mark:warm-oracle"))
        await look(house)
        report = await flywheel.warming.show()
        assert (report.stored, report.asked, report.state) == (3, 6, "done")


async def test_so_often_one_process_warms_for_all(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    settings = {"warm_every_seconds": 3600, "warm_popular": 3, "warm_follow_ups": 1}
    async with two(valkey, tmp_path, oracle, **settings) as houses:
        change(oracle, houses, "1", warm=0)
        await houses[0].flywheel.cache.clear(flow="oracle", dry_run=False)
        await houses[0].flywheel.ask(POPULAR[0], flow="oracle")
        await look(*houses)
        await look(*houses)
        (report,) = await houses[0].flywheel.warming.recent()
        assert (report.cause, report.warm, report.stored, oracle.calls) == ("schedule", 1, 3, 4)
        with valkey.client() as client:
            (mark,) = client.keys("*:mark:warm")
            assert 3000 < client.ttl(mark) <= 3600
            client.delete(mark)
        await look(*houses)
        assert oracle.calls == 4  # all of it is fresh


async def test_where_nothing_is_to_be_warmed_redis_is_not_asked(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await ask_around(flywheel)
        before = flywheel.redis_round_trips
        await look(House(flywheel))
        assert flywheel.redis_round_trips == before


async def test_a_flow_that_nobody_has_asked_is_left_alone(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": (oracle, {"warm": 2})}) as flywheel:
        await look(House(flywheel))
        assert oracle.calls == 0
        with valkey.client() as client:
            assert client.keys("afw:*") == []


async def test_programs_that_end_after_one_question_begin_nothing(valkey: Server, tmp_path: Path) -> None:
    async with Flywheel.open(settings=settings_for(valkey, tmp_path), background=False) as flywheel:
        flywheel.keep_house()
        assert flywheel._schedule is None

"""Answers near their end and past it: refreshed behind the askers' backs, and standing in for a flow that fails."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel import Answer, Directives, Flywheel
from agentic_flywheel.errors import FlowError, FlowRefused, FlowTimeout, FlowUnavailable
from agentic_flywheel.flows.protocol import Progress, TextPart
from agentic_flywheel.model import Entry
from agentic_flywheel.store.codec import decode, encode
from askers import askers
from flywheels import opened, settings_for
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
LIFE = 7 * 86400
FRESHNESS: dict[str, Any] = {"ttl_jitter": 0, "ttl_refresh_after": 0.8, "ttl_stale_seconds": 3600}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def entry_at(server: Server, key: str | None) -> Entry:
    assert key is not None
    with server.client() as client:
        return decode(client.get(key), Entry)


def make_old(server: Server, key: str | None, seconds: float) -> None:
    """As if it had been stored so long ago."""
    assert key is not None
    aged = msgspec.structs.replace(entry_at(server, key), created_at=time.time() - seconds)
    with server.client() as client:
        client.set(key, encode(aged), keepttl=True)


def came(answer: Answer) -> tuple[str, str, str]:
    return answer.outcome.value, answer.reason.value, answer.text


def nothing_under_way(flywheel: Flywheel) -> bool:
    return not flywheel._asking._flights._work


async def test_an_answer_near_its_end_is_served_at_once_and_refreshed(
    redis_server: Server, tmp_path: Path, stage: Stage
) -> None:
    async with opened(redis_server, tmp_path, flow(tmp_path), **FRESHNESS) as flywheel:
        first = await flywheel.ask(QUESTION)
        make_old(redis_server, first.key, 0.79 * LIFE)
        assert (await flywheel.ask(QUESTION)).outcome == "hit"
        assert nothing_under_way(flywheel), "not near enough"
        make_old(redis_server, first.key, 0.81 * LIFE)
        stage.hold()
        served = [await flywheel.ask(QUESTION) for _ in range(5)]  # while the flow is being asked
        assert {came(answer) for answer in served} == {("hit", "exact", f"Answer 1 to {QUESTION}")}
        await eventually(lambda: len(stage.calls) == 2, "the flow to be asked anew")
        stage.release()
        await eventually(lambda: nothing_under_way(flywheel), "the refresh to end")
        again = await flywheel.ask(QUESTION)
        assert came(again) == ("hit", "exact", f"Answer 2 to {QUESTION}")
        assert again.age_seconds < 0.5 * LIFE
        assert len(stage.calls) == 2
        entry = entry_at(redis_server, first.key)
        assert entry.first
        await flywheel.flush()
    with redis_server.client() as client:
        (counts,) = [client.hgetall(key) for key in client.scan_iter("afw:v1:*:count:{oracle}:????????")]
        assert counts[b"refreshes"] == b"1"


async def test_one_refresh_over_three_processes(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 3, **FRESHNESS) as processes:
        ((first,)) = await processes[0].ask(QUESTION)
        make_old(valkey, first["key"], 0.9 * LIFE)
        stage.hold()
        served = await asyncio.gather(*(process.ask(QUESTION, times=20) for process in processes))
        assert {(a["outcome"], a["text"]) for group in served for a in group} == {("hit", f"Answer 1 to {QUESTION}")}
        await eventually(lambda: len(stage.calls) == 2, "the flow to be asked anew")
        stage.release()
        await eventually(lambda: entry_at(valkey, first["key"]).answer.startswith("Answer 2"), "the new answer")
        served = await asyncio.gather(*(process.ask(QUESTION, times=20) for process in processes))
        assert {(a["outcome"], a["text"]) for group in served for a in group} == {("hit", f"Answer 2 to {QUESTION}")}
    assert len(stage.calls) == 2


async def test_a_refresh_that_fails_is_not_tried_again_at_once(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 3, **FRESHNESS) as processes:
        ((first,)) = await processes[0].ask(QUESTION)
        make_old(valkey, first["key"], 0.9 * LIFE)
        stage.fail(FlowUnavailable)
        for _ in range(3):
            served = await asyncio.gather(*(process.ask(QUESTION, times=5) for process in processes))
            assert {answer["outcome"] for group in served for answer in group} == {"hit"}
            await eventually(lambda: len(stage.calls) == 2, "the flow to be asked anew")
    assert len(stage.calls) == 2, "one attempt, in whichever process"


async def test_a_program_that_ends_after_one_question_refreshes_nothing(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    from agentic_flywheel.flows.registry import Registry

    settings = settings_for(valkey, tmp_path, **FRESHNESS)
    registry = Registry(settings)
    registry.register("oracle", stage)
    async with Flywheel.open(settings=settings, registry=registry, background=False) as flywheel:
        first = await flywheel.ask(QUESTION)
        make_old(valkey, first.key, 0.9 * LIFE)
        assert (await flywheel.ask(QUESTION)).outcome == "hit"
        assert nothing_under_way(flywheel)


@pytest.mark.parametrize("kind", [FlowUnavailable, FlowTimeout, FlowRefused])
async def test_an_answer_past_its_life_stands_in_for_a_flow_that_fails(
    kind: type[FlowError], valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path), **FRESHNESS) as flywheel:
        first = await flywheel.ask(QUESTION)
        make_old(valkey, first.key, LIFE + 1800)
        stage.fail(kind, message="it is down")
        for answer in await asyncio.gather(*(flywheel.ask(QUESTION, session=f"s{n}") for n in range(3))):
            assert came(answer) == ("stale", "flow_failed", first.text)
            assert "The flow did not answer: it is down." in answer.warnings
            assert LIFE + 1800 <= answer.age_seconds < LIFE + 1900
            assert (answer.ttl_seconds, answer.key, answer.remembered) == (0.0, first.key, True)
            assert answer.origin_trace_id == first.trace_id
        (turn,) = (await flywheel.sessions.show("s1")).turns
        assert (turn.outcome, turn.reason) == ("stale", "flow_failed")
        stage.recover()
        assert came(await flywheel.ask(QUESTION))[:2] == ("miss", "expired")


async def test_it_stands_in_for_a_stream_that_breaks(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path), **FRESHNESS) as flywheel:
        stage.say("Seven ", "days.")
        first = await flywheel.ask(QUESTION)
        make_old(valkey, first.key, LIFE + 1)
        stage.say("It ", "is a week.")
        stage.fail(FlowUnavailable, at=1)
        _decided, *events = [event async for event in flywheel.stream(QUESTION)]
        said = [TextPart("It "), Progress("restarted"), TextPart("Seven "), TextPart("days.")]
        assert events[:-1] == said
        assert isinstance(answer := events[-1], Answer)
        assert came(answer) == ("stale", "flow_failed", "Seven days.")


async def test_nothing_stands_in_that_was_not_allowed_to(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path), **FRESHNESS) as flywheel:
        first = await flywheel.ask(QUESTION)
        stage.fail(FlowUnavailable)
        make_old(valkey, first.key, LIFE + 3700)
        with pytest.raises(FlowUnavailable):
            await flywheel.ask(QUESTION)  # too long past its life
        make_old(valkey, first.key, LIFE + 10)
        for directives in (
            Directives(max_age=timedelta(hours=1)),
            Directives(no_cache=True),
            Directives(no_store=True),
        ):
            with pytest.raises(FlowUnavailable):
                await flywheel.ask(QUESTION, directives=directives)
        assert (await flywheel.ask(QUESTION)).outcome == "stale"
        async with opened(valkey, tmp_path, flow(tmp_path, config={"temperature": 1}), **FRESHNESS) as changed:
            with pytest.raises(FlowUnavailable):
                await changed.ask(QUESTION)
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        with pytest.raises(FlowUnavailable):
            await flywheel.ask(QUESTION)


async def test_redis_keeps_it_as_long_as_it_may_stand_in(redis_server: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(redis_server, tmp_path, flow(tmp_path), **FRESHNESS) as flywheel:
        answer = await flywheel.ask(QUESTION)
        assert answer.ttl_seconds == LIFE
        with redis_server.client() as client:
            assert LIFE + 3500 < client.ttl(answer.key) <= LIFE + 3600


async def test_a_sliding_answer_goes_when_its_life_does(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    """Redis alone knows when that is, so a longer stay would be served as fresh."""
    async with opened(valkey, tmp_path, flow(tmp_path, sliding=True), **FRESHNESS) as flywheel:
        for outcome in ("miss", "hit"):
            answer = await flywheel.ask(QUESTION)
            assert answer.outcome == outcome
            with valkey.client() as client:
                assert LIFE - 100 < client.ttl(answer.key) <= LIFE
        assert nothing_under_way(flywheel), "and is not refreshed: every hit begins its life anew"

"""Limited flows: how many calls are under way and how many begin, over all processes."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from agentic_flywheel.errors import FlowLimited, FlowRefused
from agentic_flywheel.store.limits import ENTER
from agentic_flywheel.store.store import Store
from askers import askers
from flywheels import opened, settings_for
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_places_are_counted_and_freed(redis_server: Server, tmp_path: Path) -> None:
    stores = [Store(settings_for(redis_server, tmp_path)) for _ in range(2)]
    try:
        one, two = (store.limits for store in stores)
        taken = await asyncio.gather(
            *(limits.enter("f", held_seconds=HOUR, most=3, per_minute=None) for limits in [one, two] * 5)
        )
        tokens = [token for token, wait in taken if wait == 0]
        assert len(tokens) == 3
        assert all(wait > 0 for token, wait in taken if token not in tokens)
        assert (await two.enter("other", held_seconds=HOUR, most=1, per_minute=None))[1] == 0
        await two.leave("f", tokens[0])
        assert (await one.enter("f", held_seconds=HOUR, most=3, per_minute=None))[1] == 0
        assert (await one.enter("f", held_seconds=HOUR, most=3, per_minute=None))[1] > 0
    finally:
        for store in stores:
            await store.aclose()


async def test_a_place_whose_holder_died_is_free_when_its_time_has_run_out(
    redis_server: Server, tmp_path: Path
) -> None:
    store = Store(settings_for(redis_server, tmp_path))
    try:
        limits = store.limits
        assert (await limits.enter("f", held_seconds=0.2, most=1, per_minute=None))[1] == 0
        with redis_server.client() as client:
            calls, _ = store.keys.calls("f")
            assert client.pttl(calls) <= 200
            await eventually(lambda: not client.exists(calls), "its time to run out")
        assert (await limits.enter("f", held_seconds=HOUR, most=1, per_minute=None))[1] == 0
    finally:
        await store.aclose()


async def test_a_script_that_is_sent_twice_takes_one_place(redis_server: Server, tmp_path: Path) -> None:
    store = Store(settings_for(redis_server, tmp_path))
    try:
        keys = store.keys.calls("f")
        assert await store.link.run(*[ENTER.call(keys, "token", 60000, 1, 2)] * 3) == [0, 0, 0]
        assert (await store.limits.enter("f", held_seconds=HOUR, most=1, per_minute=None))[1] > 0
    finally:
        await store.aclose()


async def test_the_rate_is_a_bucket_that_fills_evenly(redis_server: Server, tmp_path: Path) -> None:
    store = Store(settings_for(redis_server, tmp_path))
    try:
        limits = store.limits
        waits = [(await limits.enter("f", held_seconds=HOUR, most=None, per_minute=3))[1] for _ in range(5)]
        assert waits[:3] == [0, 0, 0]
        assert all(0 < wait <= 20 for wait in waits[3:])
        with redis_server.client() as client:
            (bucket,) = client.scan_iter("afw:v1:*:rate")
            at = float(client.hget(bucket, "at"))
            client.hset(bucket, "at", at - 20_000)  # a third of a minute ago
        assert (await limits.enter("f", held_seconds=HOUR, most=None, per_minute=3))[1] == 0
        assert (await limits.enter("f", held_seconds=HOUR, most=None, per_minute=3))[1] > 0
        with redis_server.client() as client:
            client.hset(bucket, "at", at - 3_600_000)  # an hour ago: still no more than a minute's worth
        waits = [(await limits.enter("f", held_seconds=HOUR, most=None, per_minute=3))[1] for _ in range(4)]
        assert [math.ceil(wait) > 0 for wait in waits] == [False, False, False, True]
    finally:
        await store.aclose()


async def test_no_more_calls_at_a_time_over_two_processes(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    fields = {"max_concurrency": 2}
    async with askers(valkey.url, tmp_path, 2, fields=fields, flow_queue_seconds=60) as processes:
        stage.hold()
        answers = [process.ask(f"Question {number}") for number in range(5) for process in processes]
        await eventually(lambda: len(stage.calls) == 2, "two calls to be under way")
        stage.release()
        given = [answer for group in await asyncio.gather(*answers) for answer in group]
    assert sum(answer["outcome"] == "miss" for answer in given) == 5
    assert len(stage.calls) == 5
    assert stage.peak == 2


async def test_beyond_the_limit_it_says_so(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    flows = flow(tmp_path, max_concurrency=1)
    async with opened(valkey, tmp_path, flows, flow_queue_seconds=0) as flywheel:
        stored = await flywheel.ask("Stored?")
        stage.hold()
        first = asyncio.create_task(flywheel.ask("First?"))
        await eventually(lambda: len(stage.calls) == 2, "the first call")
        with pytest.raises(FlowLimited) as caught:
            await flywheel.ask("Second?")
        error = caught.value
        assert "1 at a time" in error.message
        assert error.retry_after_seconds >= 1
        assert "max_concurrency" in error.suggestions[0]
        assert len(error.suggestions) >= 3
        assert error.details["flow"] == "oracle"
        joined = asyncio.create_task(flywheel.ask("first"))  # needs no place
        assert (await flywheel.ask("Stored?")).text == stored.text  # nor does a hit
        stage.release()
        assert (await first).text == (await joined).text
        assert (await flywheel.ask("Second?")).outcome == "miss"


async def test_a_place_is_freed_when_the_flow_fails(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    flows = flow(tmp_path, max_concurrency=1)
    async with opened(valkey, tmp_path, flows, flow_queue_seconds=0) as flywheel:
        stage.fail(FlowRefused)
        for number in range(3):
            with pytest.raises(FlowRefused):
                await flywheel.ask(f"Question {number}")
        stage.recover()
        assert (await flywheel.ask("Another?")).outcome == "miss"


async def test_a_place_is_freed_when_its_process_is_killed(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    fields = {"max_concurrency": 1}
    limits = {"flow_queue_seconds": 60, "flow_timeout_seconds": 2}
    async with askers(valkey.url, tmp_path, 2, fields=fields, **limits) as (one, two):
        stage.hold()
        one.ask("First?")
        await eventually(lambda: stage.calls == [one.pid], "the first call")
        one.kill()
        stage.release()
        (answer,) = await two.ask("Second?")
    assert answer["outcome"] == "miss"
    assert stage.calls == [one.pid, two.pid]


async def test_no_more_calls_a_minute_over_two_processes(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    fields = {"calls_per_minute": 3}
    async with askers(valkey.url, tmp_path, 2, fields=fields, flow_queue_seconds=0) as processes:
        given = []
        for number in range(3):
            given += [(await process.ask(f"Question {number} of {process.pid}"))[0] for process in processes]
    assert [answer.get("outcome", answer.get("error_type")) for answer in given] == ["miss"] * 3 + ["flow_limited"] * 3
    for error in given[3:]:
        assert "3 a minute" in error["error"]
        assert 1 <= error["retry_after_seconds"] <= 20
    assert len(stage.calls) == 3


async def test_everybody_who_asked_the_same_hears_of_the_limit(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    fields = {"max_concurrency": 1}
    async with askers(valkey.url, tmp_path, 2, fields=fields, flow_queue_seconds=0.5) as processes:
        stage.hold()
        first = processes[0].ask("First?")
        await eventually(lambda: stage.calls, "the first call")
        given = await asyncio.gather(*(process.ask("Second?", times=3) for process in processes))
        assert {answer["error_type"] for group in given for answer in group} == {"flow_limited"}
        assert len({tuple(answer["suggestions"]) for group in given for answer in group}) == 1
        stage.release()
        await first
    assert len(stage.calls) == 1


async def test_without_redis_a_process_keeps_to_its_share(tmp_path: Path, stage: Stage) -> None:
    nobody = f"unix://{tmp_path}/nobody.sock"
    async with opened(nobody, tmp_path, flow(tmp_path, max_concurrency=1), flow_queue_seconds=0) as flywheel:
        stage.hold()
        first = asyncio.create_task(flywheel.ask("First?"))
        await eventually(lambda: stage.calls, "the first call")
        with pytest.raises(FlowLimited):
            await flywheel.ask("Second?")
        stage.release()
        assert (await first).outcome == "bypass"
        assert (await flywheel.ask("Second?")).outcome == "bypass"

"""Many askers of one question at one moment, in several processes: the flow is called once.

What happens when the one who calls fails, dies, stalls or leaves, and when Redis goes away meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives
from agentic_flywheel.errors import (
    FlowError,
    FlowGarbled,
    FlowLimited,
    FlowMissing,
    FlowRefused,
    FlowTimeout,
    FlowUnavailable,
)
from agentic_flywheel.model import Entry
from agentic_flywheel.store.codec import decode
from askers import Asker, askers
from flywheels import opened
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
FLOW_ERRORS = (FlowRefused, FlowMissing, FlowTimeout, FlowGarbled, FlowLimited)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def together(answers: Sequence[asyncio.Future[list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """All answers of several processes, in the order of the processes."""
    async with asyncio.timeout(60):
        return [answer for group in await asyncio.gather(*answers) for answer in group]


def outcomes(answers: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(answer["outcome"] for answer in answers)


async def waiting_on(server: Server, count: int) -> None:
    """Until so many processes wait for another's call."""
    with server.client() as client:
        await eventually(lambda: client.info("clients")["blocked_clients"] == count, f"{count} processes to wait")


def entry_of(server: Server, key: str | None) -> Entry:
    assert key is not None
    with server.client() as client:
        return decode(client.get(key), Entry)


async def one_owner(processes: Sequence[Asker], stage: Stage, server: Server, *, times: int = 1, **facts: Any) -> Any:
    """All processes ask; the one whose call is held, the others, and everybody's answers to come."""
    stage.hold()
    answers = {process.pid: process.ask(QUESTION, times=times, **facts) for process in processes}
    (owner,) = await eventually(lambda: stage.calls, "the flow to be called")
    await waiting_on(server, len(processes) - 1)
    return (
        next(process for process in processes if process.pid == owner),
        [process for process in processes if process.pid != owner],
        answers,
    )


async def test_two_hundred_askers_in_four_processes(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 4) as processes:
        _, _, answers = await one_owner(processes, stage, valkey, times=50)
        stage.release()
        given = await together(list(answers.values()))
    assert len(stage.calls) == 1
    assert len(given) == 200
    assert {answer["text"] for answer in given} == {f"Answer 1 to {QUESTION}"}
    assert outcomes(given) == {"miss": 1, "joined": 199}
    assert {answer["reason"] for answer in given if answer["outcome"] == "joined"} == {"in_flight"}
    (first,) = (answer for answer in given if answer["outcome"] == "miss")
    assert {answer["origin"] for answer in given} == {first["trace"]}
    assert {answer["key"] for answer in given} == {first["key"]}
    assert len({answer["turn"] for answer in given}) == 200
    assert len({answer["trace"] for answer in given}) == 200
    assert all(answer["remembered"] and not answer["warnings"] for answer in given)


async def test_two_hundred_askers_whom_nothing_holds_together(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    """The call is over at any moment of the others' coming: some join, some are just late and hit."""
    async with askers(valkey.url, tmp_path, 4) as processes:
        for number in range(5):
            asked = f"{QUESTION} {number}"
            given = await together([process.ask(asked, times=50) for process in processes])
            assert len(stage.calls) == number + 1
            assert {answer["text"] for answer in given} == {f"Answer {number + 1} to {asked}"}
            assert outcomes(given)["miss"] == 1


async def test_an_owner_that_is_killed(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 5) as processes:
        owner, others, answers = await one_owner(processes, stage, valkey, times=3)
        stage.release()
        owner.stop()  # else it might end its call first
        owner.kill()
        with valkey.client() as client:
            client.config_resetstat()
            given = await together([answers[other.pid] for other in others])
            reads = client.info("commandstats")["cmdstat_xread"]["calls"]
    assert len(stage.calls) == 2, "exactly one more call"
    assert outcomes(given) == {"miss": 1, "joined": 11}
    assert {answer["text"] for answer in given} == {f"Answer 2 to {QUESTION}"}
    # Each process: the read that ends with the lease, one last look; then the new owner's words and its end.
    assert reads <= 4 * 6


@pytest.mark.parametrize("kind", FLOW_ERRORS)
async def test_an_error_that_another_attempt_would_not_mend_is_everybodys(
    kind: type[FlowError], valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    async with askers(valkey.url, tmp_path, 3) as processes:
        stage.fail(kind, message="it is so")
        _, _, answers = await one_owner(processes, stage, valkey, times=2)
        stage.release()
        given = await together(list(answers.values()))
    assert len(stage.calls) == 1
    assert {answer["error_type"] for answer in given} == {kind.code}
    assert {answer["error"] for answer in given} == {"it is so"}
    assert len({tuple(answer["suggestions"]) for answer in given}) == 1
    assert len(given[0]["suggestions"]) >= 3
    assert {answer["details"]["flow"] for answer in given} == {"oracle"}


async def test_an_error_that_may_pass_is_tried_once_more_and_no_more(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    async with askers(valkey.url, tmp_path, 4) as processes:
        stage.fail(FlowUnavailable)
        _, _, answers = await one_owner(processes, stage, valkey, times=5)
        stage.release()
        given = await together(list(answers.values()))
    assert len(stage.calls) == 2
    assert {answer["error_type"] for answer in given} == {"flow_unavailable"}


async def test_the_second_attempt_may_succeed(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 4) as processes:
        stage.fail(FlowUnavailable, last=1)
        owner, others, answers = await one_owner(processes, stage, valkey)
        stage.release()
        (failed,) = await together([answers[owner.pid]])
        given = await together([answers[other.pid] for other in others])
    assert failed["error_type"] == "flow_unavailable"
    assert outcomes(given) == {"miss": 1, "joined": 2}
    assert {answer["text"] for answer in given} == {f"Answer 2 to {QUESTION}"}
    assert len(stage.calls) == 2


async def test_an_owner_that_stalls_loses_its_lease_and_harms_nobody(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    async with askers(valkey.url, tmp_path, 3) as processes:
        owner, others, answers = await one_owner(processes, stage, valkey)
        owner.stop()
        await eventually(lambda: len(stage.calls) == 2, "another to take over")
        successor = next(other for other in others if other.pid == stage.calls[1])
        (last,) = (other for other in others if other is not successor)
        await waiting_on(valkey, 1)
        stage.hold(2)
        stage.release(0)  # the successor goes on to the end of its answer; there it waits
        await eventually(lambda: stage.told >= 2, "the successor to speak")
        owner.go_on()  # finds that another has its lease, ends its own call ...
        stage.hold(1)
        await eventually(lambda: stage.told >= 3, "the owner to speak")
        assert not answers[last.pid].done(), "... and not the one that others wait for"
        stage.release(1)
        stage.release(2)
        given = {pid: (await answer)[0] for pid, answer in answers.items()}
        assert len(stage.calls) == 2
        assert {answer["outcome"] for answer in given.values()} == {"miss", "joined"}
        assert given[last.pid]["text"] == given[successor.pid]["text"]
        assert given[last.pid]["origin"] == given[successor.pid]["trace"]
        entry = entry_of(valkey, given[last.pid]["key"])
        assert entry.trace_id in {given[owner.pid]["trace"], given[successor.pid]["trace"]}
        assert entry.answer in {given[owner.pid]["text"], given[successor.pid]["text"]}
        (later,) = await together([last.ask(QUESTION)])
        assert later["outcome"] == "hit"


async def test_redis_that_dies_while_they_wait(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 3) as processes:
        _, _, answers = await one_owner(processes, stage, valkey, times=4)
        valkey.kill()
        stage.release()
        given = await together(list(answers.values()))
    assert len(stage.calls) == 3, "each process asks by itself, once"
    assert outcomes(given)["joined"] == 9
    assert all(answer["text"].endswith(QUESTION) for answer in given)


async def test_without_redis_a_process_still_asks_once(tmp_path: Path, stage: Stage) -> None:
    stage.hold()
    async with opened(f"unix://{tmp_path}/nobody.sock", tmp_path, flow(tmp_path)) as flywheel:
        asking = [asyncio.create_task(flywheel.ask(QUESTION)) for _ in range(20)]
        await eventually(lambda: stage.calls, "the flow to be called")
        stage.release()
        answers = await asyncio.gather(*asking)
    assert len(stage.calls) == 1
    assert Counter(answer.outcome.value for answer in answers) == {"bypass": 1, "joined": 19}
    assert all(answer.warnings and answer.key is None for answer in answers)


async def test_an_answer_that_was_stored_between_look_and_lease_is_served(
    valkey: Server, tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        opened(valkey, tmp_path, flow(tmp_path)) as late,
        opened(valkey, tmp_path, flow(tmp_path)) as early,
    ):
        acquire = late._store.leases.acquire

        async def overtaken(*arguments: Any, **named: Any) -> Any:
            await early.ask(QUESTION)
            return await acquire(*arguments, **named)

        monkeypatch.setattr(late._store.leases, "acquire", overtaken)
        answer = await late.ask(QUESTION)
        assert (answer.outcome, answer.reason) == ("hit", "exact")
        assert answer.text == f"Answer 1 to {QUESTION}"
        assert len(stage.calls) == 1
        with valkey.client() as client:
            leases = [key for key in client.scan_iter("afw:v1:*:lease:*") if client.type(key) == b"string"]
        assert leases == [], "and the lease is given back"


@pytest.mark.parametrize("word", ["no_cache", "no_store", "private"])
async def test_who_wants_no_shared_answer_joins_nobody(word: str, valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 2) as (one, two):
        stage.hold()
        answers = [one.ask(QUESTION)]
        await eventually(lambda: len(stage.calls) == 1, "the first call")
        answers.append(one.ask(QUESTION, directives={word: True}))
        answers.append(two.ask(QUESTION, directives={word: True}))
        await eventually(lambda: len(stage.calls) == 3, "their own calls")
        stage.release()
        given = await together(answers)
    assert "joined" not in outcomes(given)
    assert len({answer["text"] for answer in given}) == 3


async def test_a_joined_asker_has_the_turn_in_its_session(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.hold()
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        first = asyncio.create_task(flywheel.ask(QUESTION, session="ann"))
        await eventually(lambda: stage.calls, "the flow to be called")
        second = asyncio.create_task(flywheel.ask(QUESTION.upper(), session="ben"))
        await eventually(lambda: len(flywheel._asking._flights._work) == 3, "the other to join")
        stage.release()
        mine, joined = await first, await second
        (turn,) = (await flywheel.sessions.show("ben")).turns
    assert (turn.outcome, turn.reason, turn.question) == ("joined", "in_flight", QUESTION.upper())
    assert (turn.answer, turn.origin_trace_id, turn.trace_id) == (mine.text, mine.trace_id, joined.trace_id)
    assert joined.trace_id != mine.trace_id
    assert (joined.key, joined.scope, joined.flow_ms) == (mine.key, "team", None)


async def test_who_leaves_ends_no_call(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.hold()
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        asking = asyncio.create_task(flywheel.ask(QUESTION, session="ann"))
        await eventually(lambda: stage.calls, "the flow to be called")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        joined = asyncio.create_task(flywheel.ask(QUESTION))
        stage.release()
        assert (await joined).text == f"Answer 1 to {QUESTION}"
        await eventually(lambda: not flywheel._asking._flights._work, "everything to be done")
        (turn,) = (await flywheel.sessions.show("ann")).turns
        assert (turn.answer, turn.outcome) == (f"Answer 1 to {QUESTION}", "miss")
        assert (await flywheel.ask(QUESTION)).outcome == "hit"
    assert len(stage.calls) == 1


async def test_closing_hands_the_lease_over(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 1) as (other,):
        stage.hold()
        async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
            asking = asyncio.create_task(flywheel.ask(QUESTION))
            await eventually(lambda: stage.calls, "the flow to be called")
            waits = other.ask(QUESTION)
            await waiting_on(valkey, 1)
            async with asyncio.timeout(20):
                await flywheel.aclose()
            with pytest.raises(FlowUnavailable, match="closed"):
                await asking
            await eventually(lambda: len(stage.calls) == 2, "the other to take over")
            with valkey.client() as client:
                begun = [client.xrange(key) for key in client.scan_iter("afw:v1:*:lease:*:parts")]
            assert [len(said) for said in begun] == [1], "handed over, not run out"
            stage.release()
            (answer,) = await together([waits])
    assert (answer["outcome"], answer["text"]) == ("miss", f"Answer 2 to {QUESTION}")


async def test_nobody_waits_for_another_longer_than_told(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    """Those who lose patience make one more call together, in each process."""
    async with askers(valkey.url, tmp_path, 2, flow_join_seconds=0.2) as processes:
        stage.hold()
        answers = [process.ask(QUESTION, times=5) for process in processes]
        await eventually(lambda: len(stage.calls) == 4, "those who wait to ask again, in either process")
        stage.release()
        given = await together(answers)
    assert Counter(stage.calls) == {process.pid: 2 for process in processes}
    assert outcomes(given) == {"miss": 4, "joined": 6}


async def test_a_flow_that_changed_is_another_call(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.hold()
    async with (
        opened(valkey, tmp_path, flow(tmp_path)) as old,
        opened(valkey, tmp_path, flow(tmp_path, config={"temperature": 1})) as new,
    ):
        asking = [asyncio.create_task(old.ask(QUESTION)), asyncio.create_task(new.ask(QUESTION))]
        await eventually(lambda: len(stage.calls) == 2, "two calls")
        stage.release()
        assert {answer.outcome for answer in await asyncio.gather(*asking)} == {"miss"}


async def test_who_wants_it_from_memory_alone_joins_nobody(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    from agentic_flywheel.errors import NotCached

    stage.hold()
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        asking = asyncio.create_task(flywheel.ask(QUESTION))
        await eventually(lambda: stage.calls, "the flow to be called")
        with pytest.raises(NotCached):
            await flywheel.ask(QUESTION, directives=Directives(only_if_cached=True))
        stage.release()
        await asking

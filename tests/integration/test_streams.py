"""Answers as they come: the parts make up the answer, whoever hears them and from wherever they come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_flywheel import Answer, Decided, Directives, FlywheelSync
from agentic_flywheel.errors import FlowTimeout, FlowUnavailable, NotCached
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowQuestion,
    Progress,
    SourcesFound,
    StreamEvent,
    TextPart,
)
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Source
from askers import askers
from flywheels import Oracle, opened, settings_for
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
RESTARTED = Progress("restarted")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def heard(stream: AsyncIterator[StreamEvent], into: list[StreamEvent]) -> Answer:
    """Listen to the end: first comes what was decided (left out of `into`), last the answer; between them its text."""
    decided: list[Decided] = []
    async for event in stream:
        if isinstance(event, Decided):
            assert not decided
            assert not into
            decided.append(event)
        else:
            into.append(event)
    answer = into[-1]
    if decided and decided[0].answer.text:
        assert decided[0].answer == answer
    assert isinstance(answer, Answer)
    assert not any(isinstance(event, Answer) for event in into[:-1])
    assert text_of(into) == answer.text
    return answer


def text_of(events: list[StreamEvent]) -> str:
    text = ""
    for event in events:
        if isinstance(event, TextPart):
            text += event.text
        elif event == RESTARTED:
            text = ""
    return text


def parts_of(events: list[StreamEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextPart)]


async def test_text_comes_as_the_flow_says_it(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "whole ", "days.")
    stage.hold(1)
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        events: list[StreamEvent] = []
        hearing = asyncio.create_task(heard(flywheel.stream(QUESTION, session="s"), events))
        await eventually(lambda: events, "the first part")
        assert events == [TextPart("Seven ")]
        stage.release(1)
        answer = await hearing
        assert parts_of(events) == ["Seven ", "whole ", "days."]
        assert (answer.text, answer.outcome, answer.remembered) == ("Seven whole days.", "miss", True)
        assert [turn.answer for turn in (await flywheel.sessions.show("s")).turns] == ["Seven whole days."]
        again: list[StreamEvent] = []
        replayed = await heard(flywheel.stream(QUESTION), again)
        assert (replayed.outcome, parts_of(again)) == ("hit", ["Seven ", "whole ", "days."])
    assert len(stage.calls) == 1


async def test_parts_make_up_the_answer_whatever_they_are(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    draw = random.Random(7)
    pieces = ["Seven", " ", "\n\n", "  days", "é", "…", "`code`\n", "0", "\u2003", "🎡", "end."]
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel, opened(valkey, tmp_path, flow(tmp_path)) as other:
        for number in range(40):
            parts = [*draw.choices(pieces, k=draw.randint(0, 12)), "x"]
            stage.say(*parts)
            told: list[list[StreamEvent]] = [[] for _ in range(5)]
            asked = f"{QUESTION} {number}"
            first = await asyncio.gather(
                heard(flywheel.stream(asked), told[0]),
                heard(flywheel.stream(asked), told[1]),
                heard(other.stream(asked), told[2]),
            )
            answers = [*first, await heard(flywheel.stream(asked), told[3])]
            no_cache = Directives(no_cache=True)
            answers += [await heard(flywheel.stream(asked, directives=no_cache), told[4])]
            assert {answer.text for answer in answers} == {"".join(parts)}
            assert all(RESTARTED not in events for events in told)


async def test_who_joins_late_hears_it_from_the_beginning(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "whole ", "days.")
    stage.hold(2)
    async with (
        askers(valkey.url, tmp_path, 1) as (far,),
        opened(valkey, tmp_path, flow(tmp_path)) as flywheel,
    ):
        first: list[StreamEvent] = []
        owner = asyncio.create_task(heard(flywheel.stream(QUESTION), first))
        await eventually(lambda: len(first) == 2, "the owner to hear two parts")
        near: list[StreamEvent] = []
        joined = asyncio.create_task(heard(flywheel.stream(QUESTION), near))
        await eventually(lambda: text_of(near) == "Seven whole ", "one in the same process to hear what was said")
        answered = far.ask(QUESTION, stream=True)
        await eventually(lambda: "".join(far.heard) == "Seven whole ", "one in another process to hear what was said")
        assert not owner.done()
        stage.release(2)
        (answer,) = await answered
        assert "".join(far.heard) == answer["text"] == "Seven whole days."
        assert answer["outcome"] == (await joined).outcome == "joined"
        assert (await owner).trace_id == answer["origin"]
    assert len(stage.calls) == 1


async def test_an_owner_that_dies_in_the_middle_of_a_word(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "whole ", "days.")
    stage.hold(1)
    async with askers(valkey.url, tmp_path, 1) as (owner,), opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        owner.ask(QUESTION, stream=True)
        await eventually(lambda: owner.heard == ["Seven "], "the owner to hear a part")
        events: list[StreamEvent] = []
        joined = asyncio.create_task(heard(flywheel.stream(QUESTION), events))
        await eventually(lambda: events == [TextPart("Seven ")], "the other to hear it too")
        owner.kill()
        stage.say("It ", "is a week.")
        await eventually(lambda: events[1:3] == [RESTARTED, TextPart("It ")], "another answer to begin")
        stage.release(1)
        answer = await joined
        assert (answer.text, answer.outcome) == ("It is a week.", "miss")
        assert (await flywheel.ask(QUESTION)).outcome == "hit"
    assert len(stage.calls) == 2


async def test_an_error_in_the_middle_is_raised_and_stores_nothing(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    stage.say("Seven ", "whole ", "days.")
    stage.fail(FlowTimeout, at=2)
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        events: list[StreamEvent] = []
        with pytest.raises(FlowTimeout) as caught:
            await heard(flywheel.stream(QUESTION, session="s"), events)
        assert text_of(events) == "Seven whole "
        assert caught.value.details["session_id"] == "s"
        with pytest.raises(NotCached):
            await flywheel.ask(QUESTION, directives=Directives(only_if_cached=True))
        stage.recover(2)
        assert (await flywheel.ask(QUESTION, session="s")).outcome == "miss"
        assert len((await flywheel.sessions.show("s")).turns) == 1


async def test_an_answer_that_was_cut_off_is_shown_and_never_stored(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentic_flywheel.flows.callable import PythonClient

    async def cut(self: PythonClient, question: FlowQuestion) -> AsyncIterator[FlowEvent]:
        yield TextPart("Seven ")
        yield AnswerDone(text="Seven ", complete=False)

    monkeypatch.setattr(PythonClient, "stream", cut)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for _ in range(2):
            answer = await heard(flywheel.stream(QUESTION), [])
            assert (answer.text, answer.outcome, answer.key) == ("Seven ", "miss", None)
            assert answer.warnings


async def test_a_whole_answer_that_differs_from_its_parts_takes_their_place(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentic_flywheel.flows.callable import PythonClient

    source = Source("Manual", "manual.md")

    async def differing(self: PythonClient, question: FlowQuestion) -> AsyncIterator[FlowEvent]:
        yield TextPart("Sevne days")
        yield SourcesFound((source,))
        yield AnswerDone(text="Seven days.", sources=(source,))

    monkeypatch.setattr(PythonClient, "stream", differing)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        events: list[StreamEvent] = []
        await heard(flywheel.stream(QUESTION), events)
        assert events[:-1] == [TextPart("Sevne days"), SourcesFound((source,)), RESTARTED, TextPart("Seven days.")]
        again: list[StreamEvent] = []
        await heard(flywheel.stream(QUESTION), again)
        assert again[:-1] == [TextPart("Seven "), TextPart("days."), SourcesFound((source,))]


async def test_who_stops_listening_does_not_end_the_call(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "days.")
    stage.hold(1)
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        stream = flywheel.stream(QUESTION, session="ann")
        decided = await anext(stream)
        assert isinstance(decided, Decided)
        assert (decided.answer.outcome, decided.answer.text) == ("miss", "")
        assert await anext(stream) == TextPart("Seven ")
        await stream.aclose()
        stage.release(1)
        await eventually(lambda: not flywheel._asking._flights._work, "everything to be done")
        assert (await flywheel.ask(QUESTION)).outcome == "hit"
        assert [turn.answer for turn in (await flywheel.sessions.show("ann")).turns] == ["Seven days."]
    assert len(stage.calls) == 1


async def test_who_leaves_at_once_is_remembered_too(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        stream = flywheel.stream(QUESTION, session="ann")
        assert isinstance(await anext(stream), Decided)
        await stream.aclose()
        await eventually(lambda: not flywheel._asking._flights._work, "everything to be done")
        assert len((await flywheel.sessions.show("ann")).turns) == 1


async def test_a_slow_listener_holds_nobody_up(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        slow = flywheel.stream(QUESTION)
        await anext(slow)  # decided
        first = await anext(slow)
        assert (await flywheel.ask(QUESTION)).outcome in {"joined", "hit"}
        events = [first]
        await heard(slow, events)


async def test_without_an_event_loop(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "whole ", "days.")
    settings = settings_for(valkey, tmp_path)
    registry = Registry(settings)
    registry.register("oracle", stage)

    def listen() -> None:
        with FlywheelSync.open(settings=settings, registry=registry) as flywheel:
            stage.hold(1)
            stream = flywheel.stream(QUESTION, session="s")
            assert isinstance(next(stream), Decided)
            assert next(stream) == TextPart("Seven ")
            stage.release(1)
            *events, answer = stream
            assert events == [TextPart("whole "), TextPart("days.")]
            assert isinstance(answer, Answer)
            assert (answer.text, answer.outcome) == ("Seven whole days.", "miss")
            left = flywheel.stream(QUESTION)
            decided = next(left)
            assert isinstance(decided, Decided)
            assert (decided.answer.outcome, decided.answer.text) == ("hit", "Seven whole days.")
            assert next(left) == TextPart("Seven ")
            left.close()
            stage.fail(FlowTimeout)
            with pytest.raises(FlowTimeout):
                list(flywheel.stream("Another?"))
            assert len(flywheel.sessions.show("s").turns) == 1

    await asyncio.to_thread(listen)


async def test_streams_without_redis(tmp_path: Path, stage: Stage) -> None:
    stage.say("Seven ", "days.")
    async with opened(f"unix://{tmp_path}/nobody.sock", tmp_path, flow(tmp_path)) as flywheel:
        told: list[list[StreamEvent]] = [[], []]
        one, two = await asyncio.gather(*(heard(flywheel.stream(QUESTION), events) for events in told))
    assert {one.outcome.value, two.outcome.value} == {"bypass", "joined"}
    assert len(stage.calls) == 1


async def test_an_error_that_another_call_mends_restarts_the_stream(
    valkey: Server, tmp_path: Path, stage: Stage
) -> None:
    stage.say("Seven ", "days.")
    stage.hold(1)
    stage.fail(FlowUnavailable, at=1, last=1)
    async with askers(valkey.url, tmp_path, 1) as (owner,), opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
        failing = owner.ask(QUESTION, stream=True)
        await eventually(lambda: owner.heard == ["Seven "], "the owner to hear a part")
        events: list[StreamEvent] = []
        joined = asyncio.create_task(heard(flywheel.stream(QUESTION), events))
        await eventually(lambda: events, "the other to hear it too")
        stage.release(1)
        (error,) = await failing
        assert error["error_type"] == "flow_unavailable"
        assert (await joined).text == "Seven days."
        assert events.count(RESTARTED) == 1

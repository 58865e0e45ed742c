"""Similar questions, end to end: served when that is justified, never across a boundary, explained, learnt from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Answer, Directives, Flywheel
from agentic_flywheel.errors import FlowUnavailable, NotCached
from agentic_flywheel.flows.protocol import FlowQuestion, TextPart
from agentic_flywheel.likeness import SimilarMode, SimilarPolicy
from agentic_flywheel.model import Outcome, Reason, Sharing
from flywheels import Oracle
from flywheels import opened as opened_cold
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

STORED = "How do I reset the router password?"
ASKED = "How can I reset the router password?"
EDITED = "How do I reset the router password 2 times?"
THINGS = """
apple anchor basket beacon bottle bridge bucket button camera candle canvas carpet castle cellar circle copper cotton
desert dinner dragon engine fabric falcon feather finger forest garden guitar hammer harbor helmet island jacket jungle
kettle ladder lantern lemon magnet marble meadow mirror needle orange paddle pepper pillow planet pocket rabbit ribbon
rocket saddle salmon shadow silver spider statue tunnel turtle valley velvet violin walnut window winter wizard
""".split()


@asynccontextmanager
async def opened(*arguments: Any, given: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Flywheel]:
    """A flywheel whose embedder is loaded, where it is given one."""
    more = {"similar_floor": 0.97} | more
    async with opened_cold(*arguments, given=given, **more) as flywheel:
        assert await flywheel.similar.ready() is bool(given)
        yield flywheel


def fixed(**more: Any) -> dict[str, Any]:
    return {"similar_mode": "fixed"} | more


def given(**more: Any) -> dict[str, Any]:
    """What is deterministic: vectors by words, answers are the same if their texts are, nothing is audited."""
    return {"embedder": Words(), "comparer": lambda one, two: one.answer == two.answer, "draw": lambda: 1.0} | more


async def test_another_wording_gets_the_stored_answer_and_says_so(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as flywheel:
        first = await flywheel.ask(STORED)
        second = await flywheel.ask(ASKED, session="s")
        assert (first.outcome, first.reason) == (Outcome.MISS, Reason.NOT_STORED)
        assert (second.outcome, second.reason) == (Outcome.SIMILAR, Reason.SIMILAR)
        assert second.text == first.text
        assert second.matched_question == STORED
        assert second.similarity is not None
        assert 0.97 <= second.similarity < 1
        assert second.origin_trace_id == first.trace_id
        assert second.key == first.key
        assert 0 <= second.age_seconds < 60
        assert second.context == ()
        assert oracle.calls == 1
        (turn,) = (await flywheel.sessions.show("s")).turns
        assert (turn.outcome, turn.similarity, turn.matched_question) == (Outcome.SIMILAR, second.similarity, STORED)
        figures = await flywheel.cache.stats()
        assert figures.total.outcomes["similar"] == 1
        assert figures.total.hit_rate == 0.5


async def test_the_exact_question_comes_before_any_similar_one(valkey: Server, tmp_path: Path) -> None:
    words = Words()
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=given(embedder=words), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        embedded = len(words.texts)
        assert (await flywheel.ask(STORED)).outcome is Outcome.HIT
        assert (await flywheel.ask(f"  {STORED.lower()} ")).outcome is Outcome.HIT
        assert len(words.texts) == embedded, "an exact hit pays nothing for similar ones"


async def test_a_guard_refuses_what_looks_alike_and_names_its_evidence(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(
        valkey, tmp_path, {"oracle": oracle}, given=given(), **fixed(similar_floor=0.5, similar_profile="faq")
    ) as flywheel:
        await flywheel.ask("Was the price of the garden tool raised in 2023?")
        answer = await flywheel.ask("Was the price of the garden tool raised in 2024?")
        assert answer.outcome is Outcome.MISS
        near = [candidate for candidate in answer.considered if candidate.similarity is not None]
        assert [candidate.verdict for candidate in near] == [Reason.NOT_ALIKE]
        assert "2024" in near[0].refusals[0]
        assert "2023" in near[0].refusals[0]
        assert oracle.calls == 2


async def test_without_an_embedder_only_the_exact_words_count(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, **fixed()) as flywheel:
        await flywheel.ask(STORED)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.MISS
        shown = await flywheel.similar.explain(ASKED)
        assert shown.outcome == "hit"
        assert shown.notes


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"acts": True}, "acts on the world"),
        ({"similar": SimilarPolicy(mode=SimilarMode.OFF)}, "off"),
        ({"similar": SimilarPolicy(mode=SimilarMode.SHADOW)}, "shadow"),
        ({"sharing": Sharing.SESSION}, "nobody else"),
        ({"sharing": Sharing.NONE}, "nobody else"),
    ],
)
async def test_a_flow_may_say_no(valkey: Server, tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": (oracle, fields)}, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        shown = await flywheel.similar.explain(ASKED)
        told = " ".join([*shown.notes, *(near.why for near in shown.similar)])
        assert why in told
        assert (await flywheel.ask(ASKED)).outcome in {Outcome.MISS, Outcome.BYPASS}
        assert oracle.calls == 2


@pytest.mark.parametrize("directives", [Directives(no_cache=True), Directives(no_store=True), Directives(private=True)])
async def test_an_asker_may_say_no(valkey: Server, tmp_path: Path, directives: Directives) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        await flywheel.ask(ASKED, directives=directives)
        assert oracle.calls == 2


async def test_whoever_wants_a_stored_answer_only_gets_a_similar_one_or_none(valkey: Server, tmp_path: Path) -> None:
    cached_only = Directives(only_if_cached=True)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        assert (await flywheel.ask(ASKED, directives=cached_only)).outcome is Outcome.SIMILAR
        with pytest.raises(NotCached):
            await flywheel.ask("Where is the nearest harbor?", directives=cached_only)


async def test_a_similar_answer_streams_like_any_other(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=given(), **fixed()) as flywheel:
        stored = await flywheel.ask(STORED)
        events = [event async for event in flywheel.stream(ASKED)]
        assert isinstance(events[-1], Answer)
        assert events[-1].outcome is Outcome.SIMILAR
        assert "".join(event.text for event in events if isinstance(event, TextPart)) == stored.text


async def test_a_follow_up_is_never_taken_for_another_question(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        await flywheel.ask("Which color has the kettle over there?", session="s")
        assert (await flywheel.ask(ASKED, session="s")).outcome is Outcome.MISS
        await flywheel.ask("Which size has the magnet over there?", session="r")
        alone = await flywheel.ask(ASKED, session="r", directives=Directives(standalone=True))
        assert alone.outcome is Outcome.SIMILAR
        # And what was answered with earlier turns is offered to nobody.
        await flywheel.ask("How do I polish the violin strings?", session="s")
        assert (await flywheel.ask("How can I polish the violin strings?")).outcome is Outcome.MISS


async def test_nothing_crosses_flows_users_tenants_overrides_or_languages(valkey: Server, tmp_path: Path) -> None:
    flows = {"one": Oracle("one"), "two": Oracle("two"), "own": (Oracle("own"), {"sharing": Sharing.USER})}
    async with opened(valkey, tmp_path, flows, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED, flow="one")
        assert (await flywheel.ask(ASKED, flow="one")).outcome is Outcome.SIMILAR
        assert (await flywheel.ask(ASKED, flow="two")).outcome is Outcome.MISS
        assert (await flywheel.ask(ASKED, flow="one", config={"temperature": 1})).outcome is Outcome.MISS
        await flywheel.ask(STORED, flow="own", user="ann")
        assert (await flywheel.ask(ASKED, flow="own", user="ben")).outcome is Outcome.MISS
        assert (await flywheel.ask(ASKED, flow="own", user="ann")).outcome is Outcome.SIMILAR
        # "my" narrows a question to whoever asks it, for similar ones as well.
        await flywheel.ask("How do I reset my router password?", flow="one", user="ann")
        assert (await flywheel.ask("How can I reset my router password?", flow="one", user="ben")).outcome is (
            Outcome.MISS
        )
    async with opened(valkey, tmp_path, flows, given=given(), tenant="others", **fixed()) as flywheel:
        assert (await flywheel.ask(ASKED, flow="one")).outcome is Outcome.MISS


async def test_an_old_configuration_and_cleared_answers_are_gone_at_once(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.MISS
    changed = {"oracle": (oracle, {"config": {"model": "another"}})}
    async with opened(valkey, tmp_path, changed, given=given(), **fixed()) as flywheel:
        assert (await flywheel.ask(STORED)).outcome is Outcome.MISS
        assert oracle.calls == 3


async def test_two_processes_find_each_others_questions(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with (
        opened(redis_server, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as one,
        opened(redis_server, tmp_path, {"oracle": oracle}, given=given(), **fixed()) as two,
    ):
        await two.ask("Where is the nearest harbor?")  # its partition is loaded, and knows nothing of what comes
        await one.ask(STORED)
        await asyncio.sleep(0)

        async def found() -> bool:
            return (await two.similar.explain(ASKED)).outcome == "similar"

        await _until(found, "the other process to find it")
        assert (await two.ask(ASKED)).outcome is Outcome.SIMILAR


async def test_evidence_opens_the_cut_and_every_change_is_recorded(valkey: Server, tmp_path: Path) -> None:
    """Nothing is served until labels prove it: the flow's answers to both wordings are compared, miss by miss."""
    flow = Answering(lambda text: "one thing is to be done with " + text.split()[-1].strip("?"))
    arguments = {"similar_mode": "learn", "similar_max_error": 0.1}
    async with opened(valkey, tmp_path, {"oracle": flow}, given=given(), **arguments) as flywheel:
        answers = []
        for thing in THINGS:
            await flywheel.ask(f"How do I polish the {thing}?")
            answers.append(await flywheel.ask(f"How can I polish the {thing}?"))
            await flywheel.settled()
        served = [answer for answer in answers if answer.outcome is Outcome.SIMILAR]
        opened_at = answers.index(served[0])
        assert opened_at >= 30, "30 labels at least"
        status = await flywheel.similar.status("oracle")
        assert status.labels == len(answers) - len(served)
        assert status.cut.value is not None
        assert status.cut.value >= status.terms.floor == 0.97
        assert all(answer.similarity is not None and answer.similarity >= status.cut.value for answer in served)
        first = status.changes[-1]
        assert (first.old, first.standing) == (None, "alone")
        assert first.new is not None
        assert 30 <= first.right <= opened_at
        assert first.wrong == 0
        assert first.bound is not None
        assert first.bound <= 0.1


async def test_wrong_answers_keep_the_cut_shut(valkey: Server, tmp_path: Path) -> None:
    async with opened(
        valkey, tmp_path, {"oracle": Oracle()}, given=given(), similar_mode="learn", similar_max_error=0.1
    ) as flywheel:
        for thing in THINGS[:40]:
            for way in ("do", "can"):
                assert (await flywheel.ask(f"How {way} I polish the {thing}?")).outcome is Outcome.MISS
            await flywheel.settled()
        status = await flywheel.similar.status("oracle")
        assert status.cut.value is None
        assert sum(band.wrong for band in status.bands) == 40


async def test_an_audit_finds_a_wrong_hit_blocks_the_pair_and_tightens(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, given=given(draw=lambda: 0.0), **fixed()) as flywheel:
        first = await flywheel.ask(STORED)
        second = await flywheel.ask(ASKED)
        assert second.outcome is Outcome.SIMILAR
        await flywheel.settled()
        assert oracle.calls == 2, "the flow was asked as well, off the asker's way"
        status = await flywheel.similar.status("oracle")
        assert (status.audits, status.audits_wrong) == (1, 1)
        third = await flywheel.ask(ASKED)
        assert (third.outcome, third.text) == (Outcome.HIT, f"oracle 2: {ASKED}")
        assert third.text != first.text
        shown = await flywheel.similar.explain(STORED)
        assert shown.outcome == "hit"
        assert all(near.blocked for near in shown.similar if near.question == ASKED)


async def test_an_audit_whose_flow_fails_harms_nobody(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    failing = False

    def answer(question: FlowQuestion) -> str:
        if failing:
            raise FlowUnavailable("gone")
        return oracle(question)

    async with opened(valkey, tmp_path, {"oracle": answer}, given=given(draw=lambda: 0.0), **fixed()) as flywheel:
        await flywheel.ask(STORED)
        failing = True
        assert (await flywheel.ask(ASKED)).outcome is Outcome.SIMILAR
        await flywheel.settled()
        assert (await flywheel.ask(ASKED)).outcome is Outcome.SIMILAR
        assert (await flywheel.similar.status("oracle")).audits == 0


async def test_entries_from_before_the_embedder_are_caught_up_with(redis_server: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(redis_server, tmp_path, flows) as flywheel:
        await flywheel.ask(STORED)
        await flywheel.ask("How do I polish the violin?")
    async with opened(redis_server, tmp_path, flows, given=given(), **fixed()) as flywheel:
        await flywheel.ask("Where is the nearest harbor?")
        await flywheel.settled()
        assert (await flywheel.ask(ASKED)).outcome is Outcome.SIMILAR
    # Another embedder does it again, and its vectors never meet the old ones.
    other = Words("other words")
    async with opened(redis_server, tmp_path, flows, given=given(embedder=other), **fixed()) as flywheel:
        await flywheel.ask("Where is the nearest castle?")
        await flywheel.settled()
        assert {STORED, "How do I polish the violin?"} <= set(other.texts)
        assert (await flywheel.ask("How can I polish the violin?")).outcome is Outcome.SIMILAR


async def test_the_near_cache_and_familiar_questions_hold_no_similar_answer(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=given(), near_enabled=True, **fixed()) as flywheel:
        await flywheel.ask(STORED)
        answers = [await flywheel.ask(ASKED) for _ in range(3)]
        assert {answer.outcome for answer in answers} == {Outcome.SIMILAR}
        assert not any(answer.near for answer in answers)


class Answering:
    """A flow that answers by the question's words."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self._answer = answer
        self.calls = 0

    def __call__(self, question: FlowQuestion) -> str:
        self.calls += 1
        return self._answer(question.text)


async def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"waited 20 s for {what}")
        await asyncio.sleep(0.005)


async def test_the_comparers_own_errors_are_counted(valkey: Server, tmp_path: Path) -> None:
    """A comparer that calls everything the same is found out: by answers far apart, refreshed ones and reports."""
    credulous = given(comparer=lambda one, two: True, draw=lambda: 0.0)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, given=credulous, **fixed()) as flywheel:
        await flywheel.ask("How do I polish the violin?")
        await flywheel.ask("Where is the nearest harbor?")
        await flywheel.settled()
        wrong = await flywheel.ask("How can I polish the violin?")
        assert wrong.outcome is Outcome.SIMILAR
        await flywheel.settled()
        await flywheel.similar.report(wrong.turn_id, "wrong", fresh=True)
    with valkey.client() as client:
        (key,) = client.keys("afw:v1:default:flow:{oracle}:similar:????????????????")
        counted = {
            name.decode().split(":")[-1]: int(n) for name, n in client.hgetall(key).items() if b"comparer" in name
        }
    assert counted == {"far": 1, "far_missed": 1, "different": 1, "missed": 1, "labels": 1}

"""The FAQ on the way of a question: what is served, to whom, in which process, and what takes it out of service."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Answer, Directives, Domain, Flywheel
from agentic_flywheel.curated import FaqBook, FaqState, FaqView
from agentic_flywheel.errors import InputError, NotCached
from agentic_flywheel.flows.protocol import TextPart
from agentic_flywheel.model import Origin, Outcome, Reason, Sharing
from flywheels import Oracle, opened, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I reset the router password?"
OTHER = "Router password reset: which steps?"
APPROVED = "Hold the button for ten seconds. (Written by a person.)"


async def approved(flywheel: Flywheel, *, flow: str = "oracle", answer: str = APPROVED, **more: Any) -> FaqView:
    draft = await flywheel.faq.add(QUESTION, answer, flow=flow, wordings=[OTHER], by="ann")
    return await flywheel.faq.approve(draft.id, owner="ann", by="ann", **more)


def from_faq(answer: Answer, view: FaqView) -> bool:
    return (answer.source, answer.faq, answer.text) == (Origin.FAQ, view.id, APPROVED)


async def test_an_approved_answer_is_served_to_each_of_its_wordings_as_a_hit(
    redis_server: Server, tmp_path: Path
) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        asked = await flywheel.ask(QUESTION)
        assert (asked.source, asked.faq) == (Origin.FLOW, "")
        assert (await flywheel.ask(QUESTION)).source is Origin.CACHE
        view = await approved(flywheel)
        assert view.state is FaqState.PUBLISHED
        for wording in (QUESTION, QUESTION.lower(), f"  {OTHER} ", OTHER.upper()):
            answer = await flywheel.ask(wording, session="s")
            assert from_faq(answer, view)
            assert (answer.outcome, answer.reason, answer.scope) == (Outcome.HIT, Reason.CURATED, "team")
            assert answer.ttl_seconds is None
            assert 0 <= answer.age_seconds < 60
            assert answer.considered[0].verdict is Reason.CURATED
        turns = (await flywheel.sessions.show("s")).turns
        assert [(turn.outcome, turn.faq, turn.answer) for turn in turns] == [(Outcome.HIT, view.id, APPROVED)] * 4
        assert oracle.calls == 1
        figures = await flywheel.cache.stats()
        assert figures.total.reasons["curated"] == 4
        assert figures.total.outcomes["hit"] == 5


async def test_a_draft_an_edit_and_a_retired_entry_are_not_served(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        draft = await flywheel.faq.add(QUESTION, APPROVED, flow="oracle")
        assert draft.state is FaqState.DRAFT
        assert (await flywheel.ask(QUESTION)).source is Origin.FLOW
        view = await flywheel.faq.approve(draft.id, owner="ann")
        edited = await flywheel.faq.edit(view.id, answer="Something else.")
        assert edited.entry.pending
        assert from_faq(await flywheel.ask(QUESTION), view)
        await flywheel.faq.approve(view.id)
        assert (await flywheel.ask(QUESTION)).text == "Something else."
        await flywheel.faq.retire(view.id, dry_run=True)
        assert (await flywheel.ask(QUESTION)).source is Origin.FAQ
        await flywheel.faq.retire(view.id, dry_run=False)
        assert (await flywheel.ask(QUESTION)).source is Origin.CACHE
        assert (await flywheel.faq.show(view.id)).state is FaqState.RETIRED


@pytest.mark.parametrize("near", [False, True])
async def test_what_is_done_in_one_process_holds_in_another_with_its_next_question(
    redis_server: Server, tmp_path: Path, near: bool
) -> None:
    flows = {"oracle": Oracle()}
    async with (
        opened(redis_server, tmp_path, flows) as curator,
        opened(redis_server, tmp_path, flows, near_enabled=near) as asker,
    ):
        await until(lambda: asker.registry.current() is asker.registry.current(), "the registry to settle")

        async def warm() -> Answer:
            """What the asker is given, once it has it at hand: as a familiar question, or in the near cache."""
            answers = [await asker.ask(QUESTION) for _ in range(3)]
            while near and not answers[-1].near:
                answers.append(await asker.ask(QUESTION))
            return answers[-1]

        async def told() -> Answer:
            """The next answer; with the near cache, the next one after Redis has told of the change."""
            if near and asker._near is not None:
                flow = asker._near._flows["oracle"]
                await until(lambda: flow.looked_at == -math.inf, "the change to be told")
            return await asker.ask(QUESTION)

        await asker.ask(QUESTION)
        before = await warm()
        assert (before.source, before.reason) == (Origin.CACHE, Reason.EXACT)
        view = await approved(curator)
        assert from_faq(await told(), view)
        again = await warm()
        assert from_faq(again, view)
        assert (again.reason, again.ttl_seconds) == (Reason.CURATED, None)
        await curator.faq.edit(view.id, answer="Newer.")
        await curator.faq.approve(view.id)
        assert (await told()).text == "Newer."
        assert (await warm()).text == "Newer."
        await curator.faq.retire(view.id, dry_run=False)
        assert (await told()).source is Origin.CACHE


def unreadable(*_: Any) -> Any:
    raise AssertionError("the FAQ was read")


async def test_what_is_at_hand_is_not_read_again_and_counted_as_what_it_is(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await until(lambda: flywheel.registry.current() is flywheel.registry.current(), "the registry to settle")
        await approved(flywheel)
        await flywheel.ask(QUESTION)
        monkeypatch.setattr(flywheel._store.faq, "book", unreadable)
        trips = []
        for _ in range(4):
            before = flywheel.redis_round_trips
            assert (await flywheel.ask(QUESTION)).source is Origin.FAQ
            trips.append(flywheel.redis_round_trips - before)
        assert min(trips) == 1, "an approved answer costs one look at Redis (what is written behind comes on top)"
        assert (await flywheel.ask(OTHER)).source is Origin.FAQ
        figures = await flywheel.cache.stats()
        assert (figures.total.reasons, figures.total.outcomes["hit"]) == ({"curated": 6}, 6)


async def test_a_flow_without_an_faq_pays_nothing(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = {"oracle": Oracle(), "other": Oracle("other")}
    async with opened(valkey, tmp_path, flows) as flywheel:
        await approved(flywheel, flow="other")
        monkeypatch.setattr(flywheel._store.faq, "book", unreadable)
        for outcome in (Outcome.MISS, Outcome.HIT, Outcome.HIT):
            assert (await flywheel.ask(QUESTION, flow="oracle")).outcome is outcome
        assert (await flywheel.ask(QUESTION, flow="oracle", session="s")).outcome is Outcome.HIT


async def test_a_change_of_the_flow_takes_it_out_at_once_until_somebody_approves_it_again(
    redis_server: Server, tmp_path: Path
) -> None:
    before, after = Oracle("before"), Oracle("after")
    async with (
        opened(redis_server, tmp_path, {"oracle": (before, {"options": {"version": "1"}})}) as old,
        opened(redis_server, tmp_path, {"oracle": (after, {"options": {"version": "2"}})}) as new,
    ):
        view = await approved(old)
        assert from_faq(await old.ask(QUESTION), view)
        answer = await new.ask(QUESTION)
        assert (answer.outcome, answer.reason, answer.source) == (Outcome.MISS, Reason.FLOW_CHANGED, Origin.FLOW)
        assert answer.considered[0].scope == "faq"
        stale = await new.faq.show(view.id)
        assert stale.state is FaqState.STALE
        assert not stale.state.served
        assert "changed" in stale.why
        assert (await new.ask(QUESTION)).source is Origin.CACHE
        with pytest.raises(NotCached):
            await new.ask(OTHER, directives=Directives(only_if_cached=True))
        await new.faq.approve(view.id, by="bob")
        assert from_faq(await new.ask(QUESTION), view)
        assert (await new.faq.show(view.id)).state is FaqState.PUBLISHED


async def test_neither_clearing_nor_time_takes_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"ttl": timedelta(seconds=1)})}) as flywheel:
        review = time.time() + 0.2
        view = await approved(flywheel, review_at=review)
        await flywheel.ask("Something else that is stored for a moment?")
        await flywheel.cache.clear(everything=True, dry_run=False)
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        await flywheel.cache.reclaim()
        assert from_faq(await flywheel.ask(QUESTION), view)
        await until(lambda: time.time() >= review, "the moment of its review")
        assert (await flywheel.faq.show(view.id)).state is FaqState.DUE
        with valkey.client() as client:
            assert client.pttl("afw:v1:default:flow:{oracle}:faq") == -1


async def test_directives_hold(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        view = await approved(flywheel)

        async def asked(**directives: Any) -> Answer:
            return await flywheel.ask(QUESTION, directives=Directives(**directives))

        assert from_faq(await asked(only_if_cached=True), view)
        assert from_faq(await asked(max_age=timedelta(hours=1)), view)
        assert from_faq(await asked(standalone=True), view)
        old = await asked(max_age=timedelta(0))
        assert (old.source, old.reason) == (Origin.FLOW, Reason.TOO_OLD)
        assert (await asked(no_cache=True)).reason is Reason.NO_CACHE
        assert (await asked(no_store=True)).outcome is Outcome.BYPASS
        assert (await asked(private=True)).source is Origin.FLOW
        assert oracle.calls == 4
        assert from_faq(await flywheel.ask(QUESTION), view), "what was stored meanwhile does not hide it"


async def test_whatever_else_a_question_is_asked_with_is_none_of_its_business(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await approved(flywheel)
        assert (await flywheel.ask(QUESTION, config={"temperature": 0})).source is Origin.FLOW
        assert (await flywheel.ask(QUESTION, domain=Domain(name="routers"))).source is Origin.FLOW


async def test_a_follow_up_gets_it_by_the_rule_of_the_very_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle(), "strict": (Oracle(), {"verbatim": False})}) as flywheel:
        view = await approved(flywheel)
        short = await flywheel.faq.add("And on mobile?", "Likewise.", flow="oracle")
        await flywheel.faq.approve(short.id, owner="ann")
        await flywheel.ask("Which routers are there in the house?", session="s", flow="oracle")
        answer = await flywheel.ask(QUESTION, session="s")
        assert from_faq(answer, view)
        assert answer.context == ()
        assert (await flywheel.ask("And on mobile?", session="s")).source is Origin.FLOW, "its words lean on others"
        assert (await flywheel.ask("And on mobile?", flow="oracle")).text == "Likewise."
        await approved(flywheel, flow="strict")
        await flywheel.ask("Which routers are there in the house?", session="t", flow="strict")
        assert (await flywheel.ask(QUESTION, session="t")).source is Origin.FLOW, "the flow allows no such exception"


@pytest.mark.parametrize("sharing", [Sharing.USER, Sharing.SESSION, Sharing.NONE])
async def test_only_flows_that_share_with_the_team_have_an_faq(
    valkey: Server, tmp_path: Path, sharing: Sharing
) -> None:
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"sharing": sharing})}) as closed:
        draft = await closed.faq.add(QUESTION, APPROVED, flow="oracle")
        with pytest.raises(InputError, match="shares no answers with the team"):
            await closed.faq.approve(draft.id, owner="ann")
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await flywheel.faq.approve(draft.id, owner="ann")
        assert from_faq(await flywheel.ask(QUESTION, user="u"), view)
    async with opened(valkey, tmp_path, {"oracle": (Oracle(), {"sharing": sharing})}) as closed:
        assert (await closed.ask(QUESTION, user="u")).source is Origin.FLOW
        assert (await closed.faq.show(view.id)).state is FaqState.UNSHARED
        assert not await closed.faq.published()
        assert APPROVED not in await closed.faq.export()


async def test_words_about_oneself_have_no_place_in_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for mine in ("How do I reset my password?", "Où est notre facture ?"):
            with pytest.raises(InputError, match="no place in the FAQ"):
                await flywheel.faq.add(mine, "x", flow="oracle")
            with pytest.raises(InputError, match="no place in the FAQ"):
                await flywheel.faq.add(QUESTION, "x", flow="oracle", wordings=[mine])
        view = await approved(flywheel)
        with pytest.raises(InputError, match="no place in the FAQ"):
            await flywheel.faq.edit(view.id, wordings=["How do I reset my router?"])
        assert (await flywheel.ask("How do I reset my router password?")).source is Origin.FLOW


async def test_a_flow_that_cannot_be_confirmed_makes_it_stale_not_fresh(valkey: Server, tmp_path: Path) -> None:
    from agentic_flywheel.policy.decision import Facts, decide

    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await approved(flywheel)
        step = await flywheel._asking.look(flywheel._planner.admit(QUESTION, flow="oracle"))
        fields = {name: getattr(step.facts, name) for name in Facts.__struct_fields__}
        decision, _ = decide(Facts(**{**fields, "verified": False}))
        assert decision.reason is Reason.FLOW_UNVERIFIED


async def test_one_that_takes_too_long_to_read_costs_no_answer_and_is_there_for_the_next(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, release = Oracle(), asyncio.Event()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as curator:
        view = await approved(curator)
    async with opened(valkey, tmp_path, {"oracle": oracle}, redis_command_timeout_seconds=0.3) as flywheel:
        read = flywheel._store.faq.book

        async def slowly(*arguments: Any) -> FaqBook:
            await release.wait()
            return await read(*arguments)

        monkeypatch.setattr(flywheel._store.faq, "book", slowly)
        await flywheel.ask("Something that opens the connection?", flow="oracle", directives=Directives(private=True))
        answer = await flywheel.ask(QUESTION)
        assert (answer.outcome, answer.reason) == (Outcome.BYPASS, Reason.STORE_UNAVAILABLE)
        assert "FAQ" in answer.warnings[0]
        release.set()
        await flywheel.settled()
        assert from_faq(await flywheel.ask(QUESTION), view)


async def test_a_reading_that_began_before_a_change_is_not_taken_for_the_change(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as curator, opened(valkey, tmp_path, flows) as asker:
        view = await approved(curator)
        read, release = asker._store.faq.book, asyncio.Event()
        began = asyncio.Event()

        async def held_back(*arguments: Any) -> FaqBook:
            book = await read(*arguments)
            began.set()
            await release.wait()
            return book

        monkeypatch.setattr(asker._store.faq, "book", held_back)
        first = asyncio.ensure_future(asker.ask(QUESTION))
        await began.wait()
        await curator.faq.edit(view.id, answer="Newer.")
        await curator.faq.approve(view.id)
        second = asyncio.ensure_future(asker.ask(OTHER))
        trips = asker.redis_round_trips
        await until(lambda: asker.redis_round_trips > trips, "the second question to be looked up")
        release.set()
        assert (await second).text == "Newer."
        assert (await first).source is Origin.FAQ
        assert (await asker.ask(QUESTION)).text == "Newer."


async def test_it_is_streamed_like_any_other(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await approved(flywheel)
        events = [event async for event in flywheel.stream(QUESTION)]
        assert isinstance(events[-1], Answer)
        assert from_faq(events[-1], view)
        assert "".join(event.text for event in events if isinstance(event, TextPart)) == APPROVED


async def test_an_faq_that_cannot_be_read_costs_no_answer(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await approved(flywheel)
    with valkey.client() as client:
        client.delete("afw:v1:default:flow:{oracle}:faq")
        client.set("afw:v1:default:flow:{oracle}:faq", "somebody else's", ex=100)
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        answer = await flywheel.ask(QUESTION)
        assert (answer.outcome, answer.reason) == (Outcome.BYPASS, Reason.STORE_UNAVAILABLE)
        assert answer.warnings


async def test_a_damaged_entry_is_never_served_and_said(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        view = await approved(flywheel)
        with valkey.client() as client:
            key = "afw:v1:default:flow:{oracle}:faq"
            raw = client.hget(key, view.id)
            client.hset(key, view.id, raw[:-1] + bytes([raw[-1] ^ 1]))
            client.hset("afw:v1:default:flow:{oracle}", "faq", "another version")
        assert (await flywheel.ask(QUESTION)).source is Origin.FLOW
        listed = await flywheel.faq.list()
        assert listed.entries == ()
        assert "damaged" in listed.warnings[0]

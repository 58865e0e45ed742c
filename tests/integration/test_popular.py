"""What is asked often: counted for every way of asking, merged over wordings and days, and only what all may see."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from agentic_flywheel import Directives, Domain, Flywheel
from agentic_flywheel.errors import InputError, UnknownFlow
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.model import Outcome
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.popularity import Count, Told
from agentic_flywheel.sync import FlywheelSync
from flywheels import Oracle, opened, text_anywhere, until
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

KEYS = "How do I rotate the signing keys?"
LOGS = "Where are the access logs kept?"
STORED = "How do I reset the router password?"
ASKED = "How can I reset the router password?"
FIXED = {"similar_mode": "fixed", "similar_floor": 0.97, "similar_audit_share": 0}


async def asked(flywheel: Flywheel, **named: object) -> dict[str, int]:
    """How often each question was asked, by its commonest wording."""
    return {each.question: each.asked for each in await flywheel.popular.list(**named)}


def traces(server: Server, text: str) -> list[bytes]:
    """The keys of what was counted that hold a text."""
    return [key for key in text_anywhere(server, text) if b":popular:" in key or b":paths:" in key]


async def only(flywheel: Flywheel) -> PopularQuestion:
    (found,) = await flywheel.popular.list()
    return found


async def test_every_way_of_asking_counts(redis_server: Server, tmp_path: Path) -> None:
    async def oracle(question: str) -> str:
        await asyncio.sleep(0.05)  # time that is saved by whoever is quicker
        return f"said: {question}"

    async with opened(redis_server, tmp_path, {"oracle": oracle}, near_enabled=True) as flywheel:
        first = await flywheel.ask(KEYS, user="ann")
        for _ in range(4):  # the whole way, then from what is at hand
            await flywheel.ask(KEYS, user="ann")
        await flywheel.ask("how do i rotate the signing KEYS", session="s", user="bob")
        await flywheel.ask(LOGS)
        found, other = await flywheel.popular.list()
        assert (found.question, found.asked, found.served, found.askers) == (KEYS, 6, 5, 2)
        assert found.hit_rate == pytest.approx(5 / 6)
        assert (found.flow, found.entry_key) == ("oracle", first.key)
        assert found.cluster in str(first.key)
        assert [(wording.text, wording.count) for wording in found.wordings] == [(KEYS, 6)]
        assert 0 < found.first_at <= found.last_at
        assert (other.question, other.asked, other.served, other.hit_rate) == (LOGS, 1, 0, 0.0)
        figures = await flywheel.cache.stats()
        saved = sum(each.saved_seconds for each in (found, other))
        assert saved == pytest.approx(figures.total.saved_seconds, abs=1e-5)
        assert len(await flywheel.popular.list(limit=1)) == 1


async def test_familiar_questions_count(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await until(lambda: flywheel.registry.current() is flywheel.registry.current(), "the registry to settle")
        for _ in range(5):
            await flywheel.ask(KEYS)
        assert len(flywheel._familiar._known) == 1
        assert (await only(flywheel)).asked == 5


async def test_questions_of_several_processes_are_one(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle()}
    async with opened(valkey, tmp_path, flows) as flywheel, opened(valkey, tmp_path, flows) as other:
        await flywheel.ask(KEYS, user="ann")
        await other.ask(KEYS, user="ann")
        await other.ask(KEYS, user="bob")
        await flywheel.flush()
        await other.flush()
        found = await only(flywheel)
        assert (found.asked, found.askers) == (3, 2)
        assert found == await only(other)


async def test_a_similar_hit_joins_for_good(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        first = await flywheel.ask(STORED)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.SIMILAR
        found = await only(flywheel)
        assert (found.asked, found.served, found.question) == (2, 1, STORED)
        assert {wording.text for wording in found.wordings} == {STORED, ASKED}
        assert found.entry_key == first.key
        # Its answer is gone, so the other wording is a question of its own to the cache; it is none to people.
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        assert (await flywheel.ask(ASKED)).outcome is Outcome.MISS
        again = await only(flywheel)
        assert (again.asked, again.cluster) == (3, found.cluster)
        # The wordings have changed places; the question keeps its name.
        assert (await flywheel.ask(STORED)).outcome is Outcome.SIMILAR
        assert (await only(flywheel)).cluster == found.cluster
        assert (await only(flywheel)).asked == 4


async def test_a_pair_that_was_called_wrong_is_two_questions(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        await flywheel.ask(STORED)
        wrong = await flywheel.ask(ASKED)
        await flywheel.similar.report(wrong.turn_id, "wrong")
        assert await asked(flywheel) == {STORED: 1, ASKED: 1}


async def test_what_is_not_for_all_is_never_counted(redis_server: Server, tmp_path: Path) -> None:
    def flow(question: FlowQuestion) -> str:
        return f"said: {question.text}"

    flows = {
        "team": flow,
        "user": (flow, {"sharing": "user"}),
        "session": (flow, {"sharing": "session"}),
        "none": (flow, {"sharing": "none"}),
    }
    async with opened(redis_server, tmp_path, flows) as flywheel:
        for directives in (Directives(private=True), Directives(no_store=True)):
            await flywheel.ask("Which colour has the secret door?", flow="team", directives=directives, user="ann")
        for closed in ("user", "session", "none"):
            for _ in range(2):
                await flywheel.ask("Which colour has the secret door?", flow=closed, user="ann")
        await flywheel.ask("Where is my secret invoice?", flow="team", user="ann")
        await flywheel.ask("Where is our secret invoice?", flow="team")
        await flywheel.ask("What is the first question?", flow="team", session="s")
        await flywheel.ask("And how secret is that?", flow="team", session="s")
        await flywheel.ask("How secret is the weather?", flow="team", domain=Domain(name="secret"))
        await flywheel.ask("How secret is the weather?", flow="team", config={"temperature": 1})
        await flywheel.flush()
        assert await asked(flywheel) == {"What is the first question?": 1}
        assert await asked(flywheel, flow="user") == {}
        with redis_server.client() as client:
            kept = [
                client.hgetall(key) for key in client.scan_iter("afw:v1:*:popular:*") if client.type(key) == b"hash"
            ]
        assert len(kept) == 1
        assert b"secret" not in repr(kept).encode()


async def test_a_flow_that_shares_no_more_is_not_shown(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(KEYS)
        assert await asked(flywheel) == {KEYS: 1}
        flywheel.registry.register("oracle", Oracle(), sharing="user")
        assert await asked(flywheel) == {}
    async with opened(valkey, tmp_path, {"another": Oracle()}) as flywheel:
        assert await asked(flywheel) == {}
        with pytest.raises(UnknownFlow):
            await flywheel.popular.list(flow="oracle")


async def test_a_question_that_was_called_private_is_gone_and_stays_away(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, given={"embedder": Words()}, **FIXED) as flywheel:
        assert await flywheel.similar.ready()
        await flywheel.ask(STORED, session="a")
        similar = await flywheel.ask(ASKED, session="b")
        assert similar.outcome is Outcome.SIMILAR
        for session in ("a", "b"):
            for then in ("And what about the second one?", "And the third one?"):
                await flywheel.ask(then, session=session)
        await flywheel.ask(KEYS)
        await flywheel.flush()
        assert len(traces(redis_server, "third one")) == len(traces(redis_server, "router")) == 1
        await flywheel.similar.report(similar.turn_id, "private")
        assert await asked(flywheel) == {KEYS: 1}
        assert await flywheel.popular.next(STORED) == []
        for text in ("router", "second one", "third one"):
            assert traces(redis_server, text) == []
        await flywheel.ask(ASKED)
        await flywheel.ask(STORED)
        assert await asked(flywheel) == {KEYS: 1}


async def test_deleting_takes_back_what_was_counted(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for session, user in (("a", "ann"), ("b", "bob")):
            await flywheel.ask(KEYS, session=session, user=user)
            await flywheel.ask("And what follows from it?", session=session, user=user)
        await flywheel.ask("How do zebras sleep in winter?", session="b2", user="bob")
        turn = (await flywheel.sessions.show("a")).turns[0]
        assert [step.count for step in await flywheel.popular.next(KEYS)] == [2]
        assert len(traces(redis_server, "zebras")) == 1
        await flywheel.sessions.delete("b2", dry_run=False)
        assert await asked(flywheel) == {KEYS: 2}
        assert traces(redis_server, "zebras") == []
        await flywheel.sessions.delete_turn("a", turn.id, dry_run=False)
        found = await only(flywheel)
        assert (found.asked, found.served, found.askers) == (1, 1, 1)
        assert await flywheel.popular.next(KEYS) == []
        assert [step.count for step in await flywheel.popular.next(KEYS, least_askers=1)] == [1]
        await flywheel.sessions.delete("b", dry_run=True)
        assert await asked(flywheel) == {KEYS: 1}
        await flywheel.sessions.delete("b", dry_run=False)
        assert await asked(flywheel) == {}
        await flywheel.sessions.delete("a", dry_run=False)
        assert traces(redis_server, "rotate") == traces(redis_server, "follows") == []


async def test_the_same_question_to_two_flows_is_two(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"one": Oracle(), "two": Oracle()}) as flywheel:
        keys = {flow: (await flywheel.ask(KEYS, flow=flow)).key for flow in ("one", "two")}
        await flywheel.ask(KEYS, flow="two")
        found = await flywheel.popular.list()
        assert [(each.flow, each.asked) for each in found] == [("two", 2), ("one", 1)]
        assert {each.flow: each.entry_key for each in found} == keys
        assert len({each.cluster for each in found}) == 1


async def test_what_the_faq_answers_is_one_question_in_all_its_wordings(valkey: Server, tmp_path: Path) -> None:
    other = "Router password reset: which steps?"
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        for question in (STORED, STORED, other):
            await flywheel.ask(question)
        assert await asked(flywheel) == {STORED: 2, other: 1}
        draft = await flywheel.faq.add(other, "Hold the button.", flow="oracle", wordings=[STORED], by="ann")
        assert await asked(flywheel) == {STORED: 2, other: 1}
        await flywheel.faq.approve(draft.id, owner="ann", by="ann")
        assert (await flywheel.ask(other)).faq == draft.id
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        found = await only(flywheel)
        assert (found.asked, found.served, found.faq, found.entry_key) == (4, 2, draft.id, None)
        assert {wording.text: wording.count for wording in found.wordings} == {STORED: 2, other: 2}
        await flywheel.faq.retire(draft.id, by="ann", dry_run=False)
        assert {each.faq for each in await flywheel.popular.list()} == {""}


async def test_a_question_is_forgotten_by_its_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"one": Oracle(), "two": Oracle()}) as flywheel:
        for flow in ("one", "two"):
            for session in ("a", "b"):
                await flywheel.ask(KEYS, flow=flow, session=flow + session)
                await flywheel.ask("And what follows from it?", flow=flow, session=flow + session)
        assert await asked(flywheel, flow="one") == {KEYS: 2}
        receipt = await flywheel.popular.forget("how do i rotate the SIGNING keys", flow="one")
        assert receipt.removed == {"counts": 2}
        assert (await asked(flywheel, flow="one"), await asked(flywheel, flow="two")) == ({}, {KEYS: 2})
        await flywheel.ask(KEYS, flow="one")
        assert await asked(flywheel, flow="one") == {KEYS: 1}
        await flywheel.popular.forget(KEYS, hide=True)
        await flywheel.ask(KEYS, flow="one")
        assert await asked(flywheel) == {}


async def test_answers_that_would_not_be_served_are_not_named(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(KEYS)
        assert (await only(flywheel)).entry_key is not None
        await flywheel._store.flows.clear("oracle")
        assert (await only(flywheel)).entry_key is None
        await flywheel.ask(KEYS)
        assert (await only(flywheel)).entry_key is not None
        stored = await flywheel.cache.show(str((await only(flywheel)).entry_key))
        old = msgspec.structs.replace(stored.entry, created_at=stored.entry.created_at - 86400)
        await flywheel._store.entries.put(stored.key, old)
        assert (await only(flywheel)).entry_key is not None
        await flywheel.lifetimes.set("oracle", timedelta(hours=1))
        assert (await only(flywheel)).entry_key is None
        flywheel.registry.register("oracle", Oracle("another"), options={"version": 2})
        await flywheel.ask(LOGS)
        assert [each.entry_key is None for each in await flywheel.popular.list()] == [True, False]


async def test_a_window_of_days_holds_what_was_asked_on_them(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(KEYS)
        await flywheel.flush()
        turn = (await flywheel.sessions.show((await flywheel.sessions.list()).sessions[0].id)).turns[0]
        now = turn.at
        for days, question in ((1, KEYS), (1, LOGS), (29, KEYS), (89, KEYS)):
            one = Count(question, now - 86400 * days)
            one.asked, one.marks = 2, {days}
            place = Told("oracle", day_of(now - 86400 * days), name_of(question))
            await flywheel._store.link.run(*flywheel._store.popularity.commands({place: one}))
        for days, expected in (
            (1, {KEYS: 1}),
            (2, {KEYS: 3, LOGS: 2}),
            (30, {KEYS: 5, LOGS: 2}),
            (90, {KEYS: 7, LOGS: 2}),
        ):
            assert await asked(flywheel, days=days) == expected
        found, _ = await flywheel.popular.list()
        assert (found.askers, found.first_at, found.last_at) == (3, int(now - 86400 * 29), int(now))
        assert await asked(flywheel, since=now - 86400 * 2, until=now - 86400) == {KEYS: 2, LOGS: 2}
        assert await asked(flywheel, since=now - 86400) == {KEYS: 3, LOGS: 2}
        assert await asked(flywheel, since=now - 86400 * 300) == {KEYS: 7, LOGS: 2}
        with pytest.raises(InputError):
            await flywheel.popular.list(since=now, until=now - 1)


@pytest.mark.parametrize("named", [{"days": 0}, {"days": 91}, {"limit": 0}])
async def test_windows_and_limits_are_checked(valkey: Server, tmp_path: Path, named: dict[str, int]) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        with pytest.raises(InputError):
            await flywheel.popular.list(**named)


def test_without_an_event_loop_it_is_the_same(valkey: Server, tmp_path: Path) -> None:
    with FlywheelSync.open(redis_url=valkey.url, data_dir=str(tmp_path), embedder_model="off") as flywheel:
        flywheel.registry.register("here", lambda question: f"about {question}")
        flywheel.ask(KEYS, flow="here")
        assert [each.asked for each in flywheel.popular.list()] == [1]
        assert flywheel.popular.next(KEYS) == []

"""The way of a question end to end: answered once, remembered, served again where that is right and only there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives
from agentic_flywheel.errors import NotCached, UnknownSession
from agentic_flywheel.model import Answer, Entry, FlowType, Outcome, Reason
from agentic_flywheel.policy.context import Domain
from agentic_flywheel.store.codec import decode, encode
from flywheels import Oracle, opened, text_anywhere, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable Redis persistence?"
OTHER = "Which commands does Redis Cluster refuse?"
DAY = timedelta(days=1)


def pttl(server: Server, key: str | None) -> int:
    assert key is not None
    with server.client() as client:
        return int(client.pttl(key))


def amend(server: Server, key: str | None, **changes: Any) -> None:
    """Rewrite a stored answer, as if it had been stored so."""
    import msgspec

    assert key is not None
    with server.client() as client:
        raw = client.get(key)
        client.set(key, encode(msgspec.structs.replace(decode(raw, Entry), **changes)), keepttl=True)


def came(answer: Answer) -> tuple[str, str]:
    return answer.outcome.value, answer.reason.value


async def test_a_question_is_answered_once(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION)
        assert came(first) == ("miss", "not_stored")
        assert first.text == f"oracle 1: {QUESTION}"
        second = await flywheel.ask("  how do I enable  redis persistence ", user="ben")
        assert came(second) == ("hit", "exact")
        assert second.text == first.text
        assert oracle.calls == 1
        assert (second.key, second.scope, second.fingerprint) == (first.key, "team", first.fingerprint)
        assert second.origin_trace_id == first.trace_id == first.origin_trace_id != second.trace_id
        assert len(first.trace_id) == 32
        assert (first.age_seconds, first.flow_ms is None) == (0.0, False)
        assert second.age_seconds >= 0
        assert second.flow_ms is None
        assert first.session_id != second.session_id
        assert first.remembered
        assert second.remembered
        assert first.warnings == second.warnings == ()
    # Another process, on the same Redis.
    other = Oracle("another process")
    async with opened(redis_server, tmp_path, {"oracle": other}) as flywheel:
        third = await flywheel.ask(QUESTION, user="ana")
        assert (came(third), third.text, other.calls) == (("hit", "exact"), first.text, 0)
        thread = await flywheel.sessions.show(first.session_id)
        assert [(t.question, t.answer, t.outcome) for t in thread.turns] == [(QUESTION, first.text, Outcome.MISS)]


async def test_another_question_another_answer(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        assert came(await flywheel.ask("What is C++?")) == ("miss", "not_stored")
        assert came(await flywheel.ask("What is C#?")) == ("miss", "not_stored")
        assert came(await flywheel.ask("What is c++")) == ("hit", "exact")


async def test_the_same_key_with_another_question_is_no_answer(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION)
        amend(valkey, first.key, question="something else that has the same hash")
        assert came(await flywheel.ask(QUESTION)) == ("miss", "collision")
        assert oracle.calls == 2


async def test_expiry_is_redis_own_and_set_with_the_answer(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    types = {kind.value: (oracle, {"type": kind, "id": kind.value}) for kind in FlowType}
    async with opened(redis_server, tmp_path, types, ttl_jitter=0.05) as flywheel:
        for kind, days in (("technical", 7), ("creative", 30), ("document", 3)):
            answer = await flywheel.ask(QUESTION, flow=kind)
            whole = days * DAY.total_seconds()
            left = pttl(redis_server, answer.key) / 1000
            assert whole * 0.949 < left <= whole * 1.05
            assert answer.ttl_seconds is not None
            assert abs(answer.ttl_seconds - left) < 60


async def test_jitter_spreads_lifetimes(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, ttl_jitter=0.5) as flywheel:
        answers = [await flywheel.ask(f"What is the number {n} called in Redis?") for n in range(20)]
        lives = {answer.ttl_seconds for answer in answers}
        assert len(lives) > 15
        assert all(life is not None and 3.4 * 86400 < life < 10.6 * 86400 for life in lives)


async def test_a_lifetime_set_at_run_time_holds_at_once_everywhere(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with (
        opened(redis_server, tmp_path, {"oracle": oracle}, ttl_jitter=0.0) as one,
        opened(redis_server, tmp_path, {"oracle": oracle}, ttl_jitter=0.0) as other,
    ):
        answer = await one.ask(QUESTION)
        assert came(await other.ask(QUESTION)) == ("hit", "exact")
        amend(redis_server, answer.key, created_at=_created(redis_server, answer) - 100)
        await one.lifetimes.set("oracle", timedelta(seconds=50))
        again = await other.ask(QUESTION)
        assert came(again) == ("miss", "expired")
        assert pttl(redis_server, again.key) <= 50_000
        await one.lifetimes.set("technical", timedelta(seconds=70))
        await one.lifetimes.reset("oracle")
        later = await other.ask(OTHER)
        assert 60_000 < pttl(redis_server, later.key) <= 70_000
        await other.lifetimes.reset("technical")
        assert pttl(redis_server, (await one.ask("What does Valkey add to Redis?")).key) > 6 * 86_400_000


def _created(server: Server, answer: Answer) -> float:
    with server.client() as client:
        return decode(client.get(answer.key), Entry).created_at


async def test_a_lifetime_of_the_registry_comes_before_that_of_the_type(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": (Oracle(), {"ttl": timedelta(seconds=90)})}
    async with opened(valkey, tmp_path, flows, ttl_jitter=0.0) as flywheel:
        await flywheel.lifetimes.set("technical", timedelta(seconds=10))
        assert 80_000 < pttl(valkey, (await flywheel.ask(QUESTION)).key) <= 90_000
        await flywheel.lifetimes.set("oracle", timedelta(seconds=20))
        assert pttl(valkey, (await flywheel.ask(OTHER)).key) <= 20_000


async def test_a_hit_extends_a_sliding_lifetime_and_no_other(redis_server: Server, tmp_path: Path) -> None:
    flows = {"sliding": (Oracle(), {"sliding": True}), "fixed": (Oracle(), {"id": "fixed"})}
    async with opened(redis_server, tmp_path, flows, ttl_jitter=0.0) as flywheel:
        for flow, extended in (("sliding", True), ("fixed", False)):
            answer = await flywheel.ask(QUESTION, flow=flow)
            with redis_server.client() as client:
                client.pexpire(answer.key, 60_000)
            assert came(await flywheel.ask(QUESTION, flow=flow)) == ("hit", "exact")
            assert (pttl(redis_server, answer.key) > 60_000) is extended


async def test_directives_of_age(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, ttl_jitter=0.0) as flywheel:
        first = await flywheel.ask(QUESTION)
        amend(valkey, first.key, created_at=_created(valkey, first) - 3600)
        assert came(await flywheel.ask(QUESTION, directives=Directives(max_age=2 * DAY))) == ("hit", "exact")
        too_old = await flywheel.ask(QUESTION, directives=Directives(max_age=timedelta(minutes=5)))
        assert came(too_old) == ("miss", "too_old")
        await flywheel.lifetimes.set("oracle", timedelta(hours=1))
        amend(valkey, first.key, created_at=_created(valkey, first) - 3700)
        stale = await flywheel.ask(QUESTION, directives=Directives(max_stale=timedelta(minutes=5)))
        assert came(stale) == ("stale", "max_stale")
        assert stale.text == too_old.text
        longer = await flywheel.ask(QUESTION, directives=Directives(max_stale=timedelta(seconds=1)))
        assert came(longer) == ("miss", "expired")


async def test_asking_afresh_replaces_the_answer(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask(QUESTION)
        afresh = await flywheel.ask(QUESTION, directives=Directives(no_cache=True))
        assert came(afresh) == ("miss", "no_cache")
        assert afresh.text.startswith("oracle 2")
        assert (await flywheel.ask(QUESTION)).text == afresh.text


async def test_only_if_cached_never_asks(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    only = Directives(only_if_cached=True)
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        with pytest.raises(NotCached) as caught:
            await flywheel.ask(QUESTION, directives=only)
        assert caught.value.details["reason"] == "not_stored"
        assert oracle.calls == 0
        first = await flywheel.ask(QUESTION)
        assert (await flywheel.ask(QUESTION, directives=only)).text == first.text
        for directives in (
            Directives(only_if_cached=True, no_cache=True),
            Directives(only_if_cached=True, no_store=True),
        ):
            with pytest.raises(NotCached):
                await flywheel.ask(QUESTION, directives=directives)
        assert oracle.calls == 1


@pytest.mark.parametrize("session", [None, "a session of mine"])
async def test_no_store_leaves_no_trace(redis_server: Server, tmp_path: Path, session: str | None) -> None:
    secret = "xylophone"
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        answer = await flywheel.ask(
            f"Where is the {secret} of the castle kept?",
            session=session,
            user=f"{secret} owner",
            directives=Directives(no_store=True),
        )
        assert came(answer) == ("bypass", "no_store")
        assert (answer.key, answer.remembered) == (None, False)
        await flywheel.flush()
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show(answer.session_id)
        assert text_anywhere(redis_server, secret) == []
        # The check itself sees what is kept.
        await flywheel.ask(f"Where is the {secret} of the castle kept?")
        await flywheel.flush()
        assert len(text_anywhere(redis_server, secret)) >= 3


async def test_no_store_in_a_session_uses_what_was_said_before(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask(QUESTION, session="s")
        await flywheel.ask("And how much does it cost?", session="s", directives=Directives(no_store=True))
        assert [e.question for e in oracle.asked[1].history] == [QUESTION]
        assert len((await flywheel.sessions.show("s")).turns) == 1


async def test_overrides_and_domain_are_part_of_what_was_asked(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        domain = Domain(name="Redis")
        variants: list[dict[str, Any]] = [
            {},
            {"config": {"temperature": 0}},
            {"config": {"temperature": 1}},
            {"domain": domain},
            {"domain": Domain(name="Redis", stack_info="Valkey")},
            {"domain": domain, "config": {"temperature": 0}},
        ]
        answers = [await flywheel.ask(QUESTION, **variant) for variant in variants]
        assert len({answer.key for answer in answers}) == len(variants)
        assert [came(await flywheel.ask(QUESTION, **variant)) for variant in variants] == [("hit", "exact")] * 6
        assert oracle.calls == len(variants)
        assert dict(oracle.asked[1].config) == {"temperature": 0}
        assert oracle.asked[3].text.startswith("Domain: Redis")


async def test_a_session_s_configuration_is_laid_under_the_question_s(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.sessions.configure("s", {"temperature": 1, "top": 5})
        await flywheel.ask(QUESTION, session="s", config={"temperature": 0})
        assert dict(oracle.asked[0].config) == {"temperature": 0, "top": 5}
        assert came(await flywheel.ask(QUESTION, config={"top": 5, "temperature": 0})) == ("hit", "exact")
        assert came(await flywheel.ask(QUESTION)) == ("miss", "not_stored")
        await flywheel.sessions.configure("s", {})
        assert (await flywheel.sessions.show("s")).session.config == {}


async def test_tenants_are_apart(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with (
        opened(redis_server, tmp_path, {"oracle": oracle}, tenant="one") as one,
        opened(redis_server, tmp_path, {"oracle": oracle}, tenant="two") as two,
    ):
        await one.ask(QUESTION, session="s", user="ana")
        assert came(await two.ask(QUESTION, session="s", user="ben")) == ("miss", "not_stored")
        assert [t.answer for t in (await two.sessions.show("s")).turns] == [f"oracle 2: {QUESTION}"]
        await two.cache.clear(everything=True, dry_run=False)
        assert came(await one.ask(QUESTION)) == ("hit", "exact")
        with redis_server.client() as client:
            assert {key.split(b":")[2] for key in client.scan_iter()} == {b"one", b"two"}


async def test_a_one_off_question_can_be_gone_on_with_at_once(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask(QUESTION)
        second = await flywheel.ask("How much does it cost?", session=first.session_id)
        assert second.context == (first.turn_id,)
        assert [e.answer for e in oracle.asked[1].history] == [first.text]


async def test_what_is_written_behind_is_there_after_closing(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        answers = [await flywheel.ask(f"What is the number {n} called in Redis?") for n in range(30)]
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for answer in answers:
            (turn,) = (await flywheel.sessions.show(answer.session_id)).turns
            assert turn.id == answer.turn_id


async def test_a_turn_given_twice_is_remembered_once(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for _ in range(3):
            await flywheel.ask(QUESTION, session="s", turn_id="once")
        await flywheel.ask(QUESTION, session="t", turn_id="once")
        for session in ("s", "t"):
            assert [t.id for t in (await flywheel.sessions.show(session)).turns] == ["once"]


async def test_figures_count_what_happened(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for question in (QUESTION, QUESTION, QUESTION, OTHER):
            await flywheel.ask(question)
        await flywheel.ask(QUESTION, directives=Directives(no_store=True))
        figures = await flywheel.cache.stats()
        assert figures.total.questions == 5
        assert figures.total.outcomes == {"hit": 2, "similar": 0, "miss": 2, "stale": 0, "joined": 0, "bypass": 1}
        assert figures.total.reasons == {"exact": 2, "not_stored": 2, "no_store": 1}
        assert figures.total.hit_rate == pytest.approx(0.4)
        assert figures.flows[0].entries == 2
        assert figures.damaged_values == 0


async def test_many_questions_at_once(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        names = [f"What is the number {n % 40} called in Redis?" for n in range(200)]
        await asyncio.gather(*(flywheel.ask(name) for name in names[:40]))
        answers = await asyncio.gather(*(flywheel.ask(name) for name in names))
        assert all(name in answer.text for name, answer in zip(names, answers, strict=True))
        assert {came(answer) for answer in answers} == {("hit", "exact")}
        assert oracle.calls == 40


async def test_what_is_stored_is_shown_as_it_would_be_served(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, ttl_jitter=0.5) as flywheel:
        answers = [await flywheel.ask(f"What is the number {n} called in Redis?") for n in range(12)]
        # All are so old that those whose jitter shortened their life are over, and the others not.
        for answer in answers:
            amend(redis_server, answer.key, created_at=_created(redis_server, answer) - 7 * 86400)
        stored, cursor = await flywheel.cache.list()
        assert cursor == ""
        served = {}
        for shown in stored:
            try:
                answer = await flywheel.ask(shown.entry.asked, directives=Directives(only_if_cached=True))
                served[shown.key] = (True, answer.reason)
            except NotCached as error:
                served[shown.key] = (False, Reason(error.details["reason"]))
        assert {shown.key: (shown.servable, shown.verdict) for shown in stored} == served
        assert len(served) > 2


async def test_the_key_is_told_without_asking(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}) as flywheel:
        told = await flywheel.cache.key(QUESTION)
        first = await flywheel.ask(QUESTION)
        assert told == first.key
        follow = "How much does the second variant cost?"
        in_session = await flywheel.cache.key(follow, session=first.session_id)
        assert (await flywheel.ask(follow, session=first.session_id)).key == in_session
        stored = await flywheel.cache.show(told)
        assert (stored.entry.answer, stored.servable) == (first.text, True)


async def test_the_same_turn_asked_again_is_the_same_question(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}) as flywheel:
        await flywheel.ask("What is a lease good for?", session="s")
        first = await flywheel.ask("And what about its end?", session="s", turn_id="again")
        second = await flywheel.ask("And what about its end?", session="s", turn_id="again")
        assert second.text == first.text
        assert second.context == first.context
        assert oracle.calls == 2
        assert len((await flywheel.sessions.show("s")).turns) == 2


async def test_two_users_beginning_one_session_at_once(redis_server: Server, tmp_path: Path) -> None:
    asked: list[str] = []
    gate = asyncio.Event()

    async def slow(question: str) -> str:
        asked.append(question)
        await gate.wait()
        return f"Answer to {question}"

    async with opened(redis_server, tmp_path, {"slow": slow}) as flywheel:
        asks = [asyncio.create_task(flywheel.ask(f"{QUESTION} {u}", session="s", user=u)) for u in ("ana", "bo")]
        await until(lambda: len(asked) == 2, "both questions reach the flow")
        gate.set()
        await asyncio.gather(*asks)
        thread = await flywheel.sessions.show("s")
        assert {turn.user for turn in thread.turns} == {thread.session.owner}
        other = "bo" if thread.session.owner == "ana" else "ana"
        assert not (await flywheel.sessions.list(user=other)).sessions
        assert (await flywheel.cache.clear(user=other, dry_run=True)).removed == {"entries": 0}

"""Turns from far back enrich a follow-up: chosen alike by every process, at a bounded cost, never one that is gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_ask_without_redis import full
from test_round_trips import Watched, flywheel_at, proxy_before
from test_store_sessions import turn

from agentic_flywheel import Directives, Flywheel, Outcome, recollection
from agentic_flywheel.model import Exchange
from agentic_flywheel.policy.relevance import MOST_BYTES, MOST_TURNS
from agentic_flywheel.threads import Carried
from flywheels import opened, text_anywhere
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

#: A session whose third turn is about a port; the newest five and the first are not.
PATH = [
    "How is the gateway installed?",
    "Who maintains the charts?",
    "Which port does Keycloak listen on?",
    "What do the liveness probes check?",
    "How often are images scanned?",
    "Where do the logs end up?",
    "When does the nightly job run?",
    "How long does a rollout take?",
    "Who may approve a release?",
    "How are secrets rotated?",
]
BACK = "And Keycloak, was it that port for the proxy as well?"


class Teller:
    """A flow that says what it was given."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    async def __call__(self, question: str, history: Sequence[Exchange]) -> str:
        self.given.append([exchange.question for exchange in history])
        return f"{len(self.given)}: {question}"


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def walk(flywheel: Flywheel, session: str, path: Sequence[str] = PATH) -> None:
    for question in path:
        await flywheel.ask(question, session=session, flow="teller")


async def test_what_bears_on_the_question_comes_along_and_says_why(valkey: Server, tmp_path: Path) -> None:
    teller = Teller()
    async with opened(valkey, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "s")
        answer = await flywheel.ask(BACK, session="s", flow="teller")
        turns = (await flywheel.sessions.show("s")).turns
    expected = [PATH[0], PATH[2], PATH[3], PATH[4], *PATH[5:]]  # two that come next, since no other shares a word
    assert teller.given[-1] == expected
    numbers = {turn.id: number for number, turn in enumerate(turns)}
    assert [(numbers[one.turn_id], one.why, one.words) for one in answer.enrichment] == [
        (0, Carried.FIRST, ()),
        (2, Carried.RELEVANT, ("keycloak", "port")),
        *((number, Carried.NEWEST, ()) for number in range(3, 10)),
    ]
    assert answer.context == tuple(one.turn_id for one in answer.enrichment) == turns[-1].context


async def test_every_process_chooses_the_same(valkey: Server, tmp_path: Path) -> None:
    """One went along from the start, one followed from afar, one is new: they give each other hits."""
    teller = Teller()
    long = [f"{question} In stage {stage}?" for stage in range(3) for question in PATH]
    async with (
        opened(valkey, made(tmp_path / "a"), {"teller": teller}) as one,
        opened(valkey, made(tmp_path / "b"), {"teller": teller}) as other,
    ):
        await walk(one, "alone", long)
        for number, question in enumerate(long):  # by turns: each learns of what the other did
            await (one if number % 3 else other).ask(question, session="shared", flow="teller")
        assert (await one.ask(BACK, session="alone", flow="teller")).outcome is Outcome.MISS
        calls = len(teller.given)
        answers = [await other.ask(BACK, session="shared", flow="teller")]
        await walk(other, "followed", long)
        async with opened(valkey, made(tmp_path / "c"), {"teller": teller}) as new:
            answers.append(await new.ask(BACK, session="followed", flow="teller"))
    assert [answer.outcome for answer in answers] == [Outcome.HIT] * 2
    assert len(teller.given) == calls
    assert [one.why for one in answers[1].enrichment].count(Carried.RELEVANT) == 3


async def test_a_path_that_differs_far_back_is_another_one_where_that_turn_counts(
    valkey: Server, tmp_path: Path
) -> None:
    teller = Teller()
    async with opened(valkey, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "one")
        await walk(flywheel, "two", [*PATH[:2], "Which port does Keycloak use for health checks?", *PATH[3:]])
        assert (await flywheel.ask(BACK, session="one", flow="teller")).outcome is Outcome.MISS
        assert (await flywheel.ask(BACK, session="two", flow="teller")).outcome is Outcome.MISS
        assert teller.given[-1][1] == "Which port does Keycloak use for health checks?"


async def test_a_warm_long_session_costs_two_round_trips_and_a_new_process_two_more_once(
    valkey: Server, tmp_path: Path
) -> None:
    async with proxy_before(valkey, tmp_path) as proxy, flywheel_at(f"unix://{proxy.path}", tmp_path) as flywheel:
        await flywheel.ask("What is the first question of all?", session="warm up", flow="echo")
        watched = Watched(flywheel, proxy)
        for session in ("one", "two", "three"):
            for question in PATH:
                await flywheel.ask(question, session=session, flow="echo")
        assert (await flywheel.ask(BACK, session="one", flow="echo")).outcome is Outcome.MISS
        assert await watched.ask(BACK, "two") == (Outcome.HIT, 2)
        await flywheel.ask("And why?", session="one", flow="echo")
        assert await watched.ask("And why?", "two") == (Outcome.HIT, 2)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        async with proxy_before(valkey, elsewhere) as second, flywheel_at(f"unix://{second.path}", elsewhere) as other:
            await other.ask("What is the first question of all?", session="warm up", flow="echo")
            await other.cache.key("Which port?", session="one")  # from now on the server knows the script
            away = Watched(other, second)
            assert await away.ask(BACK, "three") == (Outcome.HIT, 4)
            assert await away.ask("And why?", "three") == (Outcome.HIT, 2)


async def test_a_deleted_turn_goes_nowhere_even_if_a_process_remembers_it(valkey: Server, tmp_path: Path) -> None:
    teller = Teller()
    async with (
        opened(valkey, made(tmp_path / "a"), {"teller": teller}) as flywheel,
        opened(valkey, made(tmp_path / "b"), {"teller": teller}) as other,
    ):
        await walk(flywheel, "s")
        (gone,) = [turn for turn in (await other.sessions.show("s")).turns if turn.question == PATH[2]]
        await other.sessions.delete_turn("s", gone.id, dry_run=False)
        answer = await flywheel.ask(BACK, session="s", flow="teller")
        assert PATH[2] not in teller.given[-1]
        assert gone.id not in answer.context
        await flywheel.flush()
    assert not [key for key in text_anywhere(valkey, "Keycloak listen") if b":session:" in key]


async def test_a_private_turn_from_far_back_makes_the_answer_private(valkey: Server, tmp_path: Path) -> None:
    teller = Teller()
    async with opened(valkey, tmp_path, {"teller": teller}, session_relevant_turns=1) as flywheel:
        for number, question in enumerate(PATH):  # standing alone, so that none passes on what was private before
            directives = Directives(standalone=True, private=number == 2)
            await flywheel.ask(question, session="s", flow="teller", directives=directives)
        plain = await flywheel.ask("How often is it scanned?", session="s", flow="teller")
        answer = await flywheel.ask(BACK, session="s", flow="teller")
        turns = (await flywheel.sessions.show("s")).turns
    assert (PATH[4] in teller.given[-2], plain.scope, turns[-2].private) == (True, "team", False)
    assert (PATH[2] in teller.given[-1], answer.scope, turns[-1].private) == (True, "session", True)


async def test_it_is_a_setting_for_all_flows_or_one(valkey: Server, tmp_path: Path) -> None:
    teller, other = Teller(), Teller()
    flows = {"teller": teller, "other": (other, {"context_relevant": 1, "context_turns": 2})}
    async with opened(valkey, tmp_path, flows, session_relevant_turns=0) as flywheel:
        await walk(flywheel, "s")
        await flywheel.ask(BACK, session="s", flow="teller")
        await flywheel.ask(BACK, session="s", flow="other")
    assert teller.given[-1] == [PATH[0], *PATH[5:]]
    assert other.given[-1] == [PATH[0], PATH[2], PATH[9], BACK]


async def test_explaining_and_the_key_of_a_question_know_of_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"teller": Teller()}) as flywheel:
        await walk(flywheel, "s")
        async with opened(valkey, made(tmp_path / "new"), {"teller": Teller()}) as new:
            key = await new.cache.key(BACK, session="s", flow="teller")
            explained = await new.similar.explain(BACK, session="s", flow="teller")
        answer = await flywheel.ask(BACK, session="s", flow="teller")
    assert answer.key == key == explained.key
    assert explained.context == answer.enrichment


async def test_turns_that_wait_in_the_outbox_are_known_and_so_is_what_lies_before(
    redis_server: Server, tmp_path: Path
) -> None:
    teller = Teller()
    expected = [PATH[0], PATH[2], PATH[3], PATH[4], *PATH[5:]]
    async with opened(redis_server, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "s", PATH[:3])
        async with full(redis_server):  # it can be read, and takes nothing
            await walk(flywheel, "s", PATH[3:])
            assert flywheel.outbox.waits()
            async with opened(redis_server, made(tmp_path / "new"), {"teller": teller}) as new:
                await new.ask(BACK, session="s", flow="teller", directives=Directives(no_store=True))
                assert teller.given[-1] == PATH[:3]  # what waits on another disk is not known
            await flywheel.ask(BACK, session="s", flow="teller", directives=Directives(no_store=True))
            assert teller.given[-1] == expected
        await flywheel.outbox.settle()
        assert not flywheel.outbox.waits()
        await flywheel.ask(BACK, session="s", flow="teller")
        assert teller.given[-1] == expected


async def test_without_redis_what_is_remembered_comes_along(redis_server: Server, tmp_path: Path) -> None:
    teller = Teller()
    async with opened(redis_server, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "s", PATH[:8])
        redis_server.stop()
        await walk(flywheel, "s", PATH[8:])
        answer = await flywheel.ask(BACK, session="s", flow="teller")
        assert answer.outcome is Outcome.BYPASS
        assert teller.given[-1] == [PATH[0], PATH[2], PATH[3], PATH[4], *PATH[5:]]


@pytest.mark.parametrize("place", [3, 7])
async def test_a_damaged_turn_is_left_out(valkey: Server, tmp_path: Path, place: int) -> None:
    teller = Teller()
    async with opened(valkey, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "s")
    async with stored(valkey, tenant="default") as store:
        key = store.keys.turns("s")
        with valkey.client() as client:
            entries = client.xrange(key)
            client.delete(key)
            for number, (id_, fields) in enumerate(entries):
                client.xadd(key, {b"t": b"\x01garbage"} if number == place else fields, id=id_)
    async with opened(valkey, made(tmp_path / "new"), {"teller": teller}) as new:
        for question in (BACK, BACK):
            await new.ask(question, session="s", flow="teller", directives=Directives(no_cache=True))
            assert PATH[2] in teller.given[-1]
            assert PATH[place] not in teller.given[-1]


async def test_where_reading_further_back_fails_the_newest_turns_are_not_lost(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teller = Teller()
    async with opened(valkey, tmp_path, {"teller": teller}) as flywheel:
        await walk(flywheel, "s")
    monkeypatch.setattr(recollection, "further_back", lambda *_: ("NO.SUCH.COMMAND", "s"))
    async with opened(valkey, made(tmp_path / "new"), {"teller": teller}) as new:
        answer = await new.ask(BACK, session="s", flow="teller")
        assert answer.outcome is Outcome.BYPASS
        assert teller.given[-1] == [PATH[0], *PATH[5:]]
        assert answer.remembered


async def test_reading_further_back_is_bounded(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        many = [turn(n) for n in range(MOST_TURNS + 40)]
        for start in range(0, len(many), 100):
            await store.link.run(*store.sessions.append_commands(*many[start : start + 100]))
        command = store.sessions.earlier_command("s", behind=5, count=MOST_TURNS, size=MOST_BYTES)
        (reply,) = await store.link.run(command)
        assert [one.id for one, _ in store.sessions.earlier(reply)[0]] == [one.id for one in many[35:-5]]

        large = [turn(n, session="large", answer=os.urandom(20_000).hex()) for n in range(40)]
        for one in large:
            await store.sessions.append(one)
        command = store.sessions.earlier_command("large", behind=2, count=MOST_TURNS, size=MOST_BYTES)
        (reply,) = await store.link.run(command)
        found, _ = store.sessions.earlier(reply)
        assert [one.id for one, _ in found] == [one.id for one in large[38 - len(found) : 38]]
        sizes = sum(size for _, size in found)
        assert MOST_BYTES - 2 * max(size for _, size in found) < sizes <= MOST_BYTES
        (nothing,) = await store.link.run(store.sessions.earlier_command("no", behind=5, count=9, size=9))
        assert store.sessions.earlier(nothing) == ([], 0)

"""A real cluster of six servers: the link's contract, the whole way of a question, and a primary that is killed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import StoreError, StoreMisused, StoreUnavailable
from agentic_flywheel.model import Origin, Outcome
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.breaker import State
from agentic_flywheel.store.cluster import Cluster, slot_of
from agentic_flywheel.store.link import Link, Script
from clusters import ClusterOfSix
from flywheels import Oracle, opened
from servers import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("cluster")]

ECHO = Script("return {KEYS[1], ARGV[1]}")


@pytest.fixture(scope="module")
def six() -> Iterator[ClusterOfSix]:
    cluster = ClusterOfSix()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(six: ClusterOfSix) -> ClusterOfSix:
    """The cluster, whole and empty."""
    six.heal()
    return six


@asynccontextmanager
async def linked(cluster: ClusterOfSix, **settings: Any) -> AsyncIterator[Link]:
    arguments = {"redis_url": cluster.url, "redis.command_timeout_seconds": 10.0, "redis.connect_timeout_seconds": 10.0}
    link = Link(load_settings({**arguments, **settings}, environ={}, directory=Path("/")), (ECHO,))
    try:
        yield link
    finally:
        await link.aclose()


def map_of(link: Link) -> Cluster:
    assert isinstance(link._connections, Cluster)
    return link._connections


async def until(condition: Any, what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, 30)


async def test_replies_of_all_servers_in_the_order_of_the_commands(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        commands = [command for n in range(200) for command in (("SET", f"k{n}", n), ("GET", f"k{n}"))]
        replies = await link.run(*commands)
        assert replies[1::2] == [str(n).encode() for n in range(200)]
        sizes = [member.ask("DBSIZE") for member in cluster.primaries()]
        assert sum(sizes) == 200
        assert min(sizes) > 0


async def test_a_thousand_askers_at_once_all_get_their_own(cluster: ClusterOfSix) -> None:
    async def ask(link: Link, number: int) -> bool:
        keys = [f"{number}:{n}" for n in range(5)]
        await link.run(*(("SET", key, key) for key in keys))
        return await link.run(*(("GET", key) for key in keys)) == [key.encode() for key in keys]

    async with linked(cluster) as link:
        assert all(await asyncio.gather(*(ask(link, number) for number in range(1000))))


async def test_scripts_are_sent_to_each_server_that_does_not_know_them(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        for _ in range(2):
            replies = await link.run(*(ECHO.call((f"{{{n}}}",), n) for n in range(50)), slow=True)
            assert replies == [[f"{{{n}}}".encode(), str(n).encode()] for n in range(50)]
            for member in cluster.primaries():
                member.ask("SCRIPT FLUSH")


async def test_errors_of_single_commands_as_values(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        first, pushed, third = await link.run_each(("SET", "t", "x"), ("LPUSH", "t", "y"), ("GET", "u"))
        assert (first, third) == (b"OK", None)
        assert isinstance(link.error(pushed, "LPUSH"), StoreMisused)
        with pytest.raises(StoreMisused):
            await link.run(("LPUSH", "t", "y"), ("GET", "u"))


async def test_commands_without_a_key_go_with_the_one_before(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        assert await link.run(("PING",)) == [b"PONG"]
        assert b"cluster_enabled:1" in await link.execute("INFO", "cluster")
        written, confirmed = await link.run(("SET", "k", "v"), ("WAIT", 1, 5000), waiting=True)
        assert (written, confirmed) == (b"OK", 1)


async def test_a_map_that_is_out_of_date_is_put_right_on_the_way(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        await link.run(("SET", "a", 1), ("SET", "b", 2), ("SET", "c", 3))
        shared = map_of(link)
        right = list(shared._owners)
        wrong = right[slot_of("a")]
        shared._owners[:] = [wrong] * len(right)
        assert await link.run(("GET", "a"), ("GET", "b"), ("GET", "c")) == [b"1", b"2", b"3"]
        await until(lambda: shared._owners == right, "the whole map to be put right")


async def test_a_slot_that_is_on_its_way_is_asked_for_at_both_ends(cluster: ClusterOfSix) -> None:
    """ASK and TRYAGAIN, as they come while a slot moves."""
    async with linked(cluster) as link:
        await link.run(("SET", "{m}there", 1), ("SET", "{m}here", 2))
        slot = slot_of("{m}")
        source = cluster.primary_of("{m}")
        target = next(member for member in cluster.primaries() if member is not source)
        ids = {member: member.ask("CLUSTER MYID").decode() for member in (source, target)}
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        try:
            source.ask("MIGRATE", "127.0.0.1", target.port, "{m}there", 0, 5000)
            assert await link.run(("GET", "{m}there"), ("GET", "{m}here"), ("GET", "x")) == [b"1", b"2", None]
            waiting = asyncio.create_task(link.run(("UNLINK", "{m}there", "{m}here")))
            await asyncio.sleep(0)
            source.ask("MIGRATE", "127.0.0.1", target.port, "{m}here", 0, 5000)
            assert await waiting == [2]
        finally:
            for member in (target, source, *cluster.primaries()):
                member.ask("CLUSTER SETSLOT", slot, "NODE", ids[target])
            for member in (target, source, *cluster.primaries()):
                member.ask("CLUSTER SETSLOT", slot, "NODE", ids[target])
        assert await link.run(("SET", "{m}there", 3), ("GET", "{m}there")) == [b"OK", b"3"]


async def test_a_connection_of_its_own_reaches_the_server_of_a_key(cluster: ClusterOfSix) -> None:
    async with linked(cluster) as link:
        for key in ("a", "b", "c", "d"):
            wire = await link.dedicated(key=key)
            assert await wire.exchange([("SET", key, "x")]) == [b"OK"]
            wire.close()


async def test_a_server_that_hangs_is_replaced_by_its_replica(cluster: ClusterOfSix) -> None:
    async with linked(cluster, **{"redis.command_timeout_seconds": 0.2}) as link:
        await link.run(("SET", "a", 1), ("WAIT", 1, 5000), waiting=True)
        victim = await asyncio.to_thread(cluster.primary_of, "a")
        victim.pause()
        try:
            refusals = await asyncio.gather(*(link.run(("GET", "a")) for _ in range(50)), return_exceptions=True)
            assert {type(refusal) for refusal in refusals} == {StoreUnavailable}
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert await link.run(("GET", "a")) == [b"1"]
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.01)
            assert map_of(link)._owner(slot_of("a"))[1] != victim.port
        finally:
            victim.resume()


async def test_the_whole_way_of_a_question(cluster: ClusterOfSix, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(cluster.url, tmp_path, {"oracle": oracle}) as flywheel:
        first = await flywheel.ask("How long are answers kept?", session="monday", user="ana")
        assert first.outcome is Outcome.MISS
        assert first.remembered
        again = await flywheel.ask("How long are answers kept?", session="tuesday")
        assert again.outcome is Outcome.HIT
        assert (await flywheel.ask("And on the phone, is it longer?", session="monday", user="ana")).context
        assert [s.id for s in (await flywheel.sessions.list(user="ana")).sessions] == ["monday"]
        await flywheel.cache.clear(flow="oracle", dry_run=False)
        assert (await flywheel.ask("How long are answers kept?", session="tuesday")).outcome is Outcome.MISS
        assert [question.asked for question in await flywheel.popular.list()] == [2]
        assert [step.count for step in await flywheel.popular.next("How long are answers kept?", least_askers=1)] == [1]
        assert (await flywheel.sessions.delete("monday", dry_run=False)).removed["turns"] == 2
        warmed = await flywheel.warming.run(["Which ports does Redis use?"], popular=1, follow_ups=1)
        assert (warmed.stored, warmed.state) == (2, "done")
        assert (await flywheel.warming.show(warmed.job)).stored == 2
        report = await flywheel.usage.report()
        assert (report.total.outcomes["hit"], report.total.outcomes["miss"], report.total.calls) == (1, 3, 5)
        assert sum((await flywheel.usage.series(since="1h", step="5m")).questions) == 4
        assert [(row.questions, row.served) for row in (await flywheel.usage.by("user")).rows] == [(2, 0)]
        assert [question.asked for question in await flywheel.popular.list()] == [1]
        assert (await flywheel.popular.forget("How long are answers kept?", hide=True)).removed == {"counts": 1}
        assert {check.state for check in await flywheel.doctor() if check.name in ("redis", "cluster")} == {"ok"}


async def test_a_primary_killed_under_load_costs_no_answer_and_no_confirmed_turn(
    cluster: ClusterOfSix, tmp_path: Path
) -> None:
    """With WAIT 1 every turn that was confirmed is there after the failover, once, in its order."""
    settings: dict[str, Any] = {
        "redis_command_timeout_seconds": 0.5,
        "redis_wait_replicas": 1,
        "redis_wait_timeout_seconds": 0.5,
    }
    sessions = [f"s{n}" for n in range(12)]
    confirmed: dict[str, list[str]] = {session: [] for session in sessions}
    asked: dict[str, list[str]] = {session: [] for session in sessions}
    oracle, key = Oracle(), "afw:v1:default:session:{s0}"
    async with opened(cluster.url, tmp_path, {"oracle": oracle}, **settings) as flywheel:
        over = asyncio.Event()

        async def talk(session: str) -> None:
            while not over.is_set():
                turn = uuid.uuid4().hex
                asked[session].append(turn)
                answer = await flywheel.ask(f"What is {turn}?", session=session, turn_id=turn)
                assert turn in answer.text
                if answer.remembered and not answer.warnings:
                    confirmed[session].append(turn)

        talking = [asyncio.create_task(talk(session)) for session in sessions]
        await until(lambda: all(len(turns) >= 5 for turns in confirmed.values()), "five turns of each session")
        victim = await asyncio.to_thread(cluster.primary_of, key)
        victim.kill()
        before = {session: len(turns) for session, turns in asked.items()}
        await until(lambda: all(len(asked[s]) >= before[s] + 5 for s in sessions), "questions to be answered meanwhile")
        await until(lambda: cluster.primary_of(key, but=victim), "its replica to take over")
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(cluster.settle)
        since = {session: len(turns) for session, turns in confirmed.items()}
        await until(lambda: all(len(confirmed[s]) >= since[s] + 5 for s in sessions), "turns to be confirmed again")
        over.set()
        await asyncio.gather(*talking)
    async with opened(cluster.url, tmp_path, {"oracle": oracle}) as flywheel:
        for session in sessions:
            kept = [turn.id for turn in await everything_said(flywheel, session)]
            assert len(kept) == len(set(kept))
            assert set(confirmed[session]) <= set(kept)
            assert set(kept) <= set(asked[session])
            assert [turn for turn in kept if turn in confirmed[session]] == confirmed[session]


async def everything_said(flywheel: Flywheel, session: str) -> list[Any]:
    return list((await flywheel.sessions.show(session, limit=None)).turns)


async def test_nothing_that_answers_at_first(tmp_path: Path) -> None:
    settings = {"redis_url": "redis+cluster://127.0.0.1:1,127.0.0.1:2"}
    link = Link(load_settings(settings, environ={}, directory=tmp_path))
    try:
        for _ in range(2):
            with pytest.raises(StoreError):
                await link.run(("PING",))
        assert link.health.state is not State.CLOSED
    finally:
        await link.aclose()


async def test_the_faq_of_a_flow_is_written_in_one_place_and_holds_everywhere(
    cluster: ClusterOfSix, tmp_path: Path
) -> None:
    question = "How do I reset the router password?"
    async with (
        opened(cluster.url, tmp_path, {"oracle": Oracle()}) as curator,
        opened(cluster.url, tmp_path, {"oracle": Oracle()}) as asker,
    ):
        await asker.ask(question)
        draft = await curator.faq.add(question, "Hold the button.", flow="oracle")
        view = await curator.faq.approve(draft.id, owner="ann")
        assert ((await asker.ask(question)).text, view.id) == ("Hold the button.", (await asker.ask(question)).faq)
        await curator.faq.retire(view.id, purge=True, dry_run=False)
        assert (await asker.ask(question)).source is Origin.CACHE
        assert (await curator.faq.list(retired=True)).entries == ()


async def test_what_was_plain_is_sealed_wherever_it_lies(cluster: ClusterOfSix, tmp_path: Path) -> None:
    key = f"k1:{'A' * 43}="
    async with opened(cluster.url, tmp_path, {"oracle": Oracle()}) as plain:
        for number in range(6):
            await plain.ask(f"What is the zyxwort {number}?", session=f"s{number}")
        turn = (await plain.sessions.show("s0")).turns[0]
        await plain.similar.report(turn.id, "outdated", note="zyxwort", session="s0")
        await plain.flush()
    async with opened(cluster.url, tmp_path, {"oracle": Oracle()}, encryption_keys=key) as flywheel:
        rotated = await flywheel.encryption.rotate()
        assert rotated.complete
        assert rotated.sealed >= 18  # turns, titles, answers, counts, the report
        assert (await flywheel.encryption.rotate()).sealed == 0
        for number in range(1, 6):
            assert (await flywheel.ask(f"What is the zyxwort {number}?", session="again")).outcome is not Outcome.BYPASS
        assert [report.note for report in await flywheel.similar.reports()] == ["zyxwort"]
        for number in range(6):
            raw = await flywheel._store.link.execute("XRANGE", flywheel._store.keys.turns(f"s{number}"), "-", "+")
            assert [getattr(entry[1][1], "key_id", "") for entry in raw] == ["k1"]


async def test_privacy_policies_and_retention(cluster: ClusterOfSix, tmp_path: Path) -> None:
    async with opened(cluster.url, tmp_path, {"docs": Oracle()}) as flywheel:
        question = "How is the valve opened on tablets?"
        assert (await flywheel.ask(question, flow="docs", session="s")).remembered
        nothing = PrivacyPolicy(history=False, cache=False)
        change = await flywheel.policies.set(Whose.FLOW, "docs", policy=nothing)
        assert change.removed_answers == 1
        answer = await flywheel.ask(question, flow="docs", session="s")
        assert (answer.reason, answer.remembered) == ("policy", False)
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=1))
        swept = await flywheel.retention.sweep(dry_run=False, now=time.time() + 2 * 86_400)
        assert (swept.removed["turns"], swept.removed["sessions"]) == (1, 1)
        assert (await flywheel.sessions.list()).sessions == ()

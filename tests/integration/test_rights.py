"""Least rights: a user with exactly the documented ones runs the whole product, and it sends every one of them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.engine_index import EngineIndex
from agentic_flywheel.findings import HistoryDoc, HistoryQuery, SessionMark
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.likeness import CutChange, Proposal, Report, ReportKind
from agentic_flywheel.model import Outcome
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store import history_engine
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.node import Node
from agentic_flywheel.store.rights import COMMANDS, MODULES, MORE, access_list
from agentic_flywheel.store.store import Store
from flywheels import Oracle, opened
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.anyio

#: Uses of one server without replicas; the cluster's and the sentinels' are tested where those are.
USES = ("doctor", "near", "rotation")


class Gate(asyncio.Event):
    """A flow that answers when the gate is open."""

    async def answer(self, question: FlowQuestion) -> str:
        await self.wait()
        return "at last"


async def walk(flywheel: Flywheel, other: Flywheel, gate: Gate) -> None:
    """Everything that the product does with Redis."""
    ask = flywheel.ask
    assert (await ask("How long are answers kept?", session="a", user="ana")).outcome is Outcome.MISS
    assert (await ask("How long are answers kept?", session="b")).outcome is Outcome.HIT
    await ask("And how long are they kept in the other case?", session="a", user="ana")
    await ask("How long do sliding answers live?", flow="sliding")
    assert (await ask("How long do sliding answers live?", flow="sliding")).outcome is Outcome.HIT
    await ask("How many calls may there be?", flow="limited")
    # Two processes, one flight: the second one listens to the first.
    joined = [asyncio.create_task(f.ask("Who answers this one?", flow="gated")) for f in (flywheel, other)]
    await asyncio.to_thread(wait_until, lambda: listening(flywheel) or listening(other), "one to listen to the other")
    gate.set()
    await asyncio.gather(*joined)
    await flywheel.flush()
    await flywheel.sessions.list()
    await flywheel.sessions.list(user="ana")
    await flywheel.sessions.show("a")
    await flywheel.sessions.rename("a", "A title")
    await flywheel.sessions.tag("a", add=["tag"])
    await flywheel.sessions.configure("c", {"temperature": 1})
    await flywheel.lifetimes.set("oracle", timedelta(hours=1))
    await flywheel.lifetimes.set("technical", timedelta(hours=1))
    await flywheel.lifetimes.show()
    await flywheel.lifetimes.reset("oracle")
    await flywheel.lifetimes.reset("technical")
    answers, _ = await flywheel.cache.list()
    await flywheel.cache.show(answers[0].key)
    await flywheel.cache.stats()
    await flywheel.usage.report()
    await flywheel.usage.by("user")
    await flywheel.usage.health()
    await flywheel.flows.changes("oracle")
    for target in (
        {"key": answers[0].key},
        {"session": "b"},
        {"user": "ana"},
        {"flow": "oracle"},
        {"everything": True},
    ):
        await flywheel.cache.clear(**target, dry_run=False)
    await flywheel.warming.run(["What is warmed?"], flow="oracle", refresh=True)
    await flywheel.warming.show((await flywheel.warming.recent())[0].job)
    await (await flywheel.warming.resume()).aclose()
    await flywheel._store.flows.note_warmed("oracle", 1)
    assert await flywheel._store.flows.warmed("oracle") == 1
    await flywheel.sessions.delete("a", dry_run=False)
    await flywheel.sessions.sweep(dry_run=False)
    await flywheel.doctor()


async def similar(store: Store) -> None:
    """Everything that similar questions, reports and proposals do with Redis."""
    embedder, partition, key = "e" * 32, "p" * 32, store.keys.entry("team", "oracle", "0" * 32)
    await store.vectors.put(embedder, partition, key, b"\0\x3c" * 4, seconds=10, now=time.time())
    assert len((await store.vectors.news(embedder, partition, ())).items) == 1
    if await store.vectors.has_engine():
        assert len(await store.vectors.nearest(embedder, partition, b"\0\x3c" * 4, dimension=4, count=1)) == 1
    await store.vectors.remove(embedder, partition, [key])
    state = await store.similar.record("oracle", embedder, {"miss:97:right": 1})
    change = CutChange(at=1.0, old=None, new=0.97, why="labels")
    assert await store.similar.set_cut("oracle", embedder, version=state.version, cut=0.97, change=change)
    await store.similar.block("oracle", "pair")
    await store.similar.set_override("oracle", max_error=0.01, profile=None)
    assert (await store.similar.state("oracle", embedder, ["pair"])).blocked == (True,)
    await store.similar.reset("oracle", embedder, change)
    assert len(await store.similar.changes("oracle", embedder)) == 2
    await store.similar.add_report(
        Report(id="r", kind=ReportKind.WRONG, turn_id="t", session_id="s", flow="oracle", question="q")
    )
    assert len(await store.similar.reports(5)) == 1
    proposal = Proposal(id="p", flow="oracle", setting="ttl", now="1 h", proposed="2 h", evidence="", at=1.0)
    assert await store.similar.put_proposal(proposal)
    assert await store.similar.decide_proposal("p", "accepted", by="ana", reason="", at=2.0)
    assert len(await store.similar.proposals()) == 1
    assert await store.sessions.find("no such turn") is None


async def engine(store: Store) -> None:
    """Everything that the query engine's index of history does with Redis."""
    index = EngineIndex(store)
    turn = HistoryDoc(turn_id="t", session_id="s", at=1.0, question="q", answer="", question_words="q")
    await index.clear()
    async with index.writing(patience=0.0) as mine:
        assert mine
        await index.apply([turn], {"s": SessionMark("1-0", 1)})
        await index.keep_places({0: "1-0"})
    assert await index.sessions() == ["s"]
    await index.lacking("e" * 32, count=1)
    await index.retag({"s": ["a"]})
    assert (await index.words(HistoryQuery(terms=("q",)), count=1)).total == 1
    assert (await index.state("e" * 32)).turns == 1
    await index.remove(turns=[("s", "t")], sessions=["s"])
    await index.drop()


async def outage(link: Link) -> None:
    """What is sent to a server that was away, and turns that waited for it."""
    assert isinstance(link._connections, Node)
    await link._connections._probe()


async def rotation(url: str, folder: Path) -> None:
    """Everything that sealing what was plain does with Redis."""
    key = f"k1:{'A' * 43}="
    async with opened(url, folder, {"oracle": Oracle()}, tenant="sealed") as flywheel:
        await flywheel.ask("How long are answers kept?", session="a")
        await flywheel.faq.add("Who asks?", "You do.", flow="oracle")
    async with opened(url, folder, {"oracle": Oracle()}, tenant="sealed", encryption_keys=key) as flywheel:
        assert (await flywheel.encryption.rotate()).complete


def listening(flywheel: Flywheel) -> bool:
    return flywheel._store.leases._listeners > 0


async def walked(server: Server, folder: Path) -> set[str]:
    """Walk as a user with the rights, and give back what was refused."""
    rules = access_list("flywheel", *USES)
    with server.client() as client:
        client.execute_command("ACL SETUSER", *rules, ">secret")
        client.execute_command("ACL LOG", "RESET")
        client.config_resetstat()
    try:
        gate = Gate()
        flows = {
            "oracle": Oracle(),
            "sliding": (Oracle(), {"sliding": True}),
            "limited": (Oracle(), {"max_concurrency": 1, "calls_per_minute": 100}),
            "gated": gate.answer,
        }
        url = f"unix://flywheel:secret@{server.socket}?db=1"
        named = {"session_retention_days": 1, "near.enabled": True}
        async with opened(url, folder, flows, **named) as flywheel, opened(url, folder, flows) as other:
            await walk(flywheel, other, gate)
            await similar(flywheel._store)
            await outage(flywheel._store.link)
        await rotation(url, folder)
    finally:
        with server.client() as client:
            log = client.execute_command("ACL LOG")
            client.execute_command("ACL DELUSER", "flywheel")
    return {str(_of(entry)) for entry in log}


def _of(entry: object) -> str:
    assert isinstance(entry, dict)
    named = entry.get("object", entry.get(b"object"))
    return named.decode() if isinstance(named, bytes) else str(named)


async def test_the_documented_rights_are_enough_and_none_is_too_many(valkey: Server, tmp_path: Path) -> None:
    assert await walked(valkey, tmp_path) == set()
    with valkey.client() as client:
        counted = client.info("commandstats")
    used = {name.removeprefix("cmdstat_") for name, row in counted.items() if row["calls"]}
    needed = {*COMMANDS, *(command for use in USES for command in MORE[use])}
    assert needed - used == set(), "rights that nothing needs"


async def test_the_rights_for_the_query_engine_are_enough_and_none_is_too_many(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_engine, "_COUNTED", 0)  # as where there are many turns
    server = servers.get("stack74")
    with server.client() as client:
        client.execute_command("ACL SETUSER", *access_list("flywheel", "engine"), ">secret")
        client.execute_command("ACL LOG", "RESET")
        client.config_resetstat()
    settings = load_settings({"redis_url": f"unix://flywheel:secret@{server.socket}"}, environ={}, directory=Path("/"))
    store = Store(settings)
    try:
        await similar(store)
        await engine(store)
    finally:
        await store.aclose()
        with server.client() as client:
            log, counted = client.execute_command("ACL LOG"), client.info("commandstats")
            client.execute_command("ACL DELUSER", "flywheel")
    assert log == []
    used = {name.removeprefix("cmdstat_").lower() for name, row in counted.items() if row["calls"]}
    assert set(MODULES["engine"]) - used == set(), "rights that nothing needs"


async def test_without_those_rights_similar_questions_are_found_in_the_process(servers: Servers) -> None:
    server = servers.get("stack74")
    with server.client() as client:
        client.execute_command("ACL SETUSER", *access_list("flywheel"), ">secret")
    settings = load_settings({"redis_url": f"unix://flywheel:secret@{server.socket}"}, environ={}, directory=Path("/"))
    store = Store(settings)
    try:
        assert not await store.vectors.has_engine()
        await similar(store)
    finally:
        await store.aclose()
        with server.client() as client:
            client.execute_command("ACL DELUSER", "flywheel")

"""The query engine's index on a server that has one: what it is chosen for, and what may happen to it there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_history_contract import EMBEDDER, asked, doc, embed, found, named

from agentic_flywheel import Flywheel
from agentic_flywheel.errors import IndexUnusable, StoreError
from agentic_flywheel.findings import HistoryPage
from agentic_flywheel.search.history.engine_docs import token
from agentic_flywheel.store import history_engine, history_lease
from agentic_flywheel.store.breaker import State
from agentic_flywheel.store.query_engine import QueryEngine
from agentic_flywheel.store.rights import access_list
from agentic_flywheel.store.wire import Command, Refusal, Wire
from flywheels import Oracle, opened, until
from histories import Home, Kept, kept
from meanings import Words
from servers import Server, Servers

pytestmark = pytest.mark.anyio

NEVER = "xylophonequartz"
#: Enough words that neighbours of a turn do not count.
LONG = [f"word{number}" for number in range(200)]


@pytest.fixture
def stack(servers: Servers) -> Iterator[Server]:
    server = servers.get("stack74")
    yield server
    assert not server.leaks()


@pytest.fixture
def engine(stack: Server, tmp_path: Path) -> Home:
    return Home(stack, tmp_path, "engine")


@pytest.fixture
async def made(engine: Home) -> AsyncIterator[Kept]:
    async with kept(engine) as made:
        yield made


def auto(home: Home) -> Home:
    return Home(home.server, home.folder, "auto")


# Which index is used


async def test_auto_follows_whoever_has_made_one_on_the_server(engine: Home) -> None:
    async with auto(engine).wheel() as follower:
        answer = await follower.ask(f"redis {NEVER}", flow="docs", session="s")
        assert (await follower.history.search("redis")).index == "local"
        assert (await follower.history.indexes.choice())[1].startswith("nobody has made one")
        assert list((engine.folder / "data").rglob("history.sqlite"))
        async with engine.wheel() as chooser:
            assert (await chooser.history.search("redis")).index == "engine"
        assert not list((engine.folder / "data").rglob("history.sqlite*")), "no copy is left on this machine"
        follower.history.indexes.reconsider()
        page = await follower.history.search("redis")
        assert (page.index, page.found[0].turn_id) == ("engine", answer.turn_id)
        async with engine.wheel() as chooser:
            await chooser.history.drop(dry_run=False)
        page = await follower.history.search("redis")
        assert (page.index, page.found[0].turn_id) == ("local", answer.turn_id)
        assert not engine_keys(engine.server)


async def test_where_there_is_no_engine_auto_is_local_and_engine_says_why(valkey: Server, tmp_path: Path) -> None:
    async with Home(valkey, tmp_path, "auto").wheel() as flywheel:
        assert (await flywheel.history.search("redis")).index == "local"
        assert "this Redis has none" in (await flywheel.history.indexes.choice())[1]
    async with Home(valkey, tmp_path, "engine").wheel() as flywheel:
        with pytest.raises(IndexUnusable, match="this Redis has none") as caught:
            await flywheel.history.search("redis")
        assert "search.index to auto or local" in caught.value.suggestions[0]
        (check,) = [check for check in await flywheel.doctor() if check.name == "history index"]
        assert (check.state, "this Redis has none" in check.message) == ("fail", True)


async def test_databases_but_the_first_have_none(stack: Server, tmp_path: Path) -> None:
    for kind in ("auto", "engine"):
        async with opened(stack.unix_url(1), tmp_path, {"docs": Oracle()}, search_index=kind) as flywheel:
            await flywheel.ask("redis", flow="docs")
            if kind == "auto":
                assert (await flywheel.history.search("redis")).index == "local"
            else:
                with pytest.raises(IndexUnusable, match="only knows database 0"):
                    await flywheel.history.search("redis")


@pytest.mark.parametrize("allowed", [(), ("engine",)])
async def test_a_user_of_redis_needs_the_rights(stack: Server, tmp_path: Path, allowed: tuple[str, ...]) -> None:
    with stack.client() as client:
        client.execute_command("ACL SETUSER", *access_list("flywheel", *allowed), ">secret")
        client.execute_command("ACL LOG", "RESET")
    url = f"unix://flywheel:secret@{stack.socket}"
    try:
        flows = {"docs": Oracle()}
        async with opened(url, tmp_path, flows, search_index="engine", given={"embedder": Words()}) as flywheel:
            await flywheel.ask("redis here", flow="docs", session="s")
            if not allowed:
                with pytest.raises(IndexUnusable, match="may not use it"):
                    await flywheel.history.search("redis")
                return
            assert (await flywheel.history.search("redis")).found
            await flywheel.sessions.tag("s", add=["ops"])
            assert (await flywheel.history.search("redis tag:ops")).found
            await flywheel.history.rebuild()
            await flywheel.history.state()
            await flywheel.history.search("")
            await flywheel.sessions.delete("s", dry_run=False)
            await flywheel.history.drop(dry_run=False)
            with stack.client() as client:
                assert client.execute_command("ACL LOG") == []
    finally:
        with stack.client() as client:
            client.execute_command("ACL DELUSER", "flywheel")


# What is deleted, and a server that is full


async def test_what_is_deleted_leaves_the_index_at_once_whoever_deletes(engine: Home) -> None:
    async with engine.wheel(Words()) as flywheel:
        for number in range(3):
            await flywheel.ask(f"{NEVER} {number}", flow="docs", session="s", turn_id=f"t{number}")
        await flywheel.ask(f"{NEVER} elsewhere", flow="docs", session="t")
        assert (await flywheel.history.search(NEVER)).total == 4
    elsewhere = engine.folder / "elsewhere"
    elsewhere.mkdir()
    async with Home(engine.server, elsewhere, "local").wheel() as other:  # it never looks at that index
        await other.sessions.delete_turn("s", "t1", dry_run=False)
        assert engine.held().count(NEVER.encode()) == 6  # question and answer of each
        await other.sessions.delete("s", dry_run=False)
        assert engine.held().count(NEVER.encode()) == 2
        await other.sessions.delete("t", dry_run=False)
        assert NEVER.encode() not in engine.held()
        assert b"turns:" not in b"".join(engine_keys(engine.server))


async def test_on_a_full_server_sessions_are_deleted_and_what_is_there_is_found(engine: Home) -> None:
    async with engine.wheel() as flywheel:
        await flywheel.ask(f"redis {NEVER}", flow="docs", session="s")
        kept_one = await flywheel.ask("redis stays", flow="docs", session="t")
        assert (await flywheel.history.search("redis")).total == 2
        await flywheel.flush()
        with engine.server.client() as client:
            client.config_set("maxmemory", 1)
        await flywheel.sessions.delete("s", dry_run=False)
        assert NEVER.encode() not in engine.held()
        page = await flywheel.history.search("redis")
        assert {one.turn_id for one in page.found} == {kept_one.turn_id}


# What may happen to an index on a server


async def lost_document(server: Server) -> None:
    with server.client() as client:
        client.delete(next(key for key in engine_keys(server) if b":doc:" in key))


async def lost_index(server: Server) -> None:
    with server.client() as client:
        for name in client.execute_command("FT._LIST"):
            client.execute_command("FT.DROPINDEX", name)


async def lost_state(server: Server) -> None:
    with server.client() as client:
        client.delete(next(key for key in engine_keys(server) if key.endswith(b":state")))


async def lost_all(server: Server) -> None:
    with server.client() as client:
        for key in engine_keys(server):
            client.delete(key)
    await lost_index(server)


async def spoilt_marks(server: Server) -> None:
    with server.client() as client:
        for key in engine_keys(server):
            if b":sessions:" in key:
                for field in client.hkeys(key):
                    client.hset(key, field, b"\xc1nonsense")


async def spoilt_facts(server: Server) -> None:
    with server.client() as client:
        for key in engine_keys(server):
            if b":doc:" in key:
                client.hset(key, "m", b"\xc1nonsense")


async def miscounted(server: Server) -> None:
    with server.client() as client:
        client.hset(next(key for key in engine_keys(server) if key.endswith(b":state")), "docs", 99)


async def whole(flywheel: Flywheel, query: str, **named: Any) -> HistoryPage:
    """A search of an index that has nothing more to say of itself; whoever searches meanwhile is told."""
    page = await flywheel.history.search(query, **named)
    while page.warnings:
        page = await flywheel.history.search(query, **named)
    return page


@pytest.mark.parametrize(
    "happens", [lost_document, lost_index, lost_state, lost_all, spoilt_marks, spoilt_facts, miscounted]
)
async def test_what_was_lost_on_the_server_is_made_good_from_the_sessions(engine: Home, happens: Any) -> None:
    async with engine.wheel(Words()) as flywheel:
        for number in range(4):
            await flywheel.ask(f"redis {number}", flow="docs", session=f"s{number}")
        assert (await flywheel.history.search("redis")).total == 4
        await happens(engine.server)
        await flywheel.ask("redis 4", flow="docs", session="s0")
        page = await flywheel.history.search("redis")
        # An engine that has no time builds for longer than a search waits; it is said, and what is there is shown.
        assert page.total == 5 or any("still building" in warning for warning in page.warnings)
        await flywheel.settled()
        page = await whole(flywheel, "redis", mode="both")
        assert page.total == 5
        state = await flywheel.history.state()
        assert (state.turns, state.vectors, state.warnings) == (5, 5, ())


async def test_documents_that_go_again_and_again_are_said_and_not_made_anew_for_ever(engine: Home) -> None:
    async with engine.wheel() as flywheel:
        for number in range(4):
            await flywheel.ask(f"redis {number}", flow="docs", session=f"s{number}")
        await flywheel.history.search("redis")
        await lost_document(engine.server)
        assert (await flywheel.history.search("redis")).total == 4
        await lost_document(engine.server)
        page = await flywheel.history.search("redis")
        assert page.total == 3
        assert any("missing in the query engine's index" in warning for warning in page.warnings)


async def test_an_index_of_a_newer_release_is_left_alone(engine: Home) -> None:
    async with engine.wheel() as flywheel:
        await flywheel.ask("redis", flow="docs")
        await flywheel.history.search("redis")
        with engine.server.client() as client:
            client.hset(next(key for key in engine_keys(engine.server) if key.endswith(b":state")), "release", 99)
        before = engine.held()
        with pytest.raises(IndexUnusable, match="newer release"):
            await flywheel.history.search("redis")
        assert engine.held() == before


async def test_a_restart_of_a_server_that_keeps_its_data_costs_nothing(servers: Servers, tmp_path: Path) -> None:
    running = servers.get("stack74")
    server = Server("stack74-aof", running._command, running._environ, options=("--appendonly", "yes"))
    server.start()
    try:
        async with Home(server, tmp_path, "engine").wheel(Words()) as flywheel:
            for number in range(30):
                await flywheel.ask(f"redis {number}", flow="docs", session=f"s{number % 5}")
            assert (await flywheel.history.search("redis", limit=50)).total == 30
            await asyncio.to_thread(server.restart)
            # Whatever asked while the server was down has it left alone until a probe is answered.
            link = flywheel._store.link
            await until(lambda: link.health.state is State.CLOSED, "the server to be asked again")
            page = await flywheel.history.search("redis", limit=50)
            assert page.total == 30 or page.warnings
            page = await whole(flywheel, "redis", limit=50)
            assert (page.total, page.mode.value) == (30, "both")
    finally:
        server.close()


async def test_many_vectors_are_found_by_a_graph_which_is_made_while_the_others_serve(
    made: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((200, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    await made.put([doc(n, f"redis w{n}") for n in range(200)])
    number = {id_: int(text.split("w")[1]) for id_, text in await made.index.lacking(EMBEDDER, count=1000)}
    await made.index.add_vectors(EMBEDDER, {id_: vectors[n].astype("<f2").tobytes() for id_, n in number.items()})
    query, asked_for = vectors[7].astype(np.float32), asked("")
    exact = await made.index.meaning(asked_for, query, embedder=EMBEDDER, count=10)
    monkeypatch.setattr(history_engine, "LARGE", 100)
    with made.home.server.client() as client:
        until = time.monotonic() + 60
        while [b":graph:" in name for name in client.execute_command("FT._LIST")] != [True]:
            assert time.monotonic() < until, "no graph took the place of the index before"
            page = await made.index.meaning(asked_for, query, embedder=EMBEDDER, count=10)
            assert len({hit.id for hit in page.hits} & {hit.id for hit in exact.hits}) >= 9
    page = await made.index.meaning(asked_for, query, embedder=EMBEDDER, count=10)
    assert len({hit.id for hit in page.hits} & {hit.id for hit in exact.hits}) >= 9
    await made.index.clear()
    await made.put([doc(1001, "redis")])
    await embed(made.index, {"redis": 0})
    with made.home.server.client() as client:
        (name,) = client.execute_command("FT._LIST")
        assert b":graph:" in name, "what was large will be large"


async def test_common_words_are_bounded_and_the_newest_come_first(made: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_flywheel.search.history.engine_words.RANKED", 12)
    docs = [doc(n, "common words here" if n % 4 else "filler here") for n in range(0, 80, 2)]
    await made.put([*docs, doc(90, "rare thing"), doc(95, "rare common thing")])
    assert await found(made.index, "rare common") == ["t95", "t90"]
    newest = await made.index.words(asked("common"), count=100)
    assert newest.more
    assert set(await named(made.index, newest)) <= {f"t{n}" for n in range(36, 96)}
    assert newest.hits
    whole = await made.index.words(asked("common", session="s"), count=100)
    assert len(whole.hits) == 21


async def test_lists_of_many_turns_are_told_and_not_counted(made: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    await made.put([doc(n, "redis word" if n % 3 else "redis other") for n in range(30)])
    engine = made.store.history_engine
    tokens = [token(word) for word in ("redi", "word", "never", "other")]
    counted = (await engine.look(tokens)).counts
    assert counted == (30, 20, 0, 10)
    monkeypatch.setattr(history_engine, "_COUNTED", 20)
    with made.home.server.client() as client:
        client.config_resetstat()
        assert (await engine.look(tokens)).counts == counted
        assert (await engine.look(tokens[2:3])).counts == (0,)
        assert client.info("commandstats")["cmdstat_FT.PROFILE"]["calls"] == 2
    # What the engine refuses, or says in another form, is counted.
    for reply in (Refusal("NOPERM"), {b"profile": [b"TEXT", b"wredi", 30]}, None):
        monkeypatch.setattr(engine._engine, "sizes", lambda _, reply=reply: QueryEngine.sizes(reply))
        assert (await engine.look(tokens)).counts == counted
    assert len(await found(made.index, "redis word never")) == 30


async def test_a_term_that_a_busy_engine_had_no_time_to_count_is_counted_all_the_same(made: Kept) -> None:
    await made.put([doc(n, "redis" if n % 2 else "other") for n in range(10)])
    engine = made.store.history_engine
    name = (await engine.look()).name
    late = Refusal("Timeout limit was reached")
    assert await engine._count(name, token("redi"), late) == 5
    with pytest.raises(StoreError, match="Syntax"):
        await engine._count(name, token("redi"), Refusal("Syntax error at offset 1"))


@pytest.mark.parametrize(("mode", "waits"), [("words", 5), ("meaning", 6), ("both", 6)])
async def test_a_search_waits_for_redis_a_few_times(
    stack: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, waits: int
) -> None:
    flows, under_way, begun = {"docs": Oracle()}, 0, 0
    exchange = Wire.exchange

    def counted(wire: Wire, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        nonlocal under_way, begun
        begun += under_way == 0
        under_way += 1
        replies = exchange(wire, commands)
        replies.add_done_callback(done)
        return replies

    def done(_: object) -> None:
        nonlocal under_way
        under_way -= 1

    given = {"embedder": Words(), "background": False}
    async with opened(stack.unix_url(), tmp_path, flows, search_index="engine", given=given) as flywheel:
        for start in (0, 1):  # the index is made, then brought up to date
            await flywheel.ask(" ".join(["redis", *LONG[start:]]), flow="docs", session="s")
            await flywheel.history.search("redis", mode=mode)
        monkeypatch.setattr(Wire, "exchange", counted)
        page = await flywheel.history.search("redis", mode=mode)
        assert (len(page.found), page.mode) == (2, mode)
        assert begun <= waits


# Several processes


async def test_a_holder_that_stood_still_may_not_say_that_the_index_is_whole(
    made: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_lease, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(history_lease.HistoryLease, "_prolong", lambda *_: asyncio.sleep(60))
    async with kept(made.home) as apart, made.index.writing(patience=0.0) as mine:
        assert mine
        async with apart.index.writing(patience=20.0) as theirs:
            assert theirs
            with pytest.raises(IndexUnusable, match="taken the index of history over"):
                await made.index.keep_places(dict.fromkeys(range(16), "0-0"))
            await apart.index.keep_places(dict.fromkeys(range(16), "0-1"))
        assert ((await made.index.reach()).places or {})[0] == "0-1"


async def test_a_lease_is_prolonged_while_it_is_held(made: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_lease, "LEASE_SECONDS", 0.3)
    async with (
        kept(made.home) as apart,
        made.index.writing(patience=0.0),
        apart.index.writing(patience=0.8) as theirs,
    ):
        assert not theirs


async def test_documents_of_tenants_never_meet(engine: Home) -> None:
    async with engine.wheel(tenant="one") as one, engine.wheel(tenant="two") as two:
        answer = await one.ask("redis", flow="docs", session="s")
        other = await two.ask("redis", flow="docs", session="s")
        for flywheel, own in ((one, answer), (two, other)):
            page = await flywheel.history.search("redis")
            assert [hit.turn_id for hit in page.found] == [own.turn_id]
        await one.history.drop(dry_run=False)
        assert (await two.history.search("redis")).total == 1


def engine_keys(server: Server) -> list[bytes]:
    with server.client() as client:
        return sorted(client.scan_iter("afw:v1:*:{history}:*", count=1000))

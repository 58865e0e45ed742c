"""What an index of history is, by itself: the local one and the query engine's keep to the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agentic_flywheel import Directives
from agentic_flywheel.findings import HistoryDoc, HistoryQuery, Hits, SessionMark, Sight
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.search.history.query import parse_query
from agentic_flywheel.search.history.words import stems_of
from histories import Home, Kept, home_of, kept
from servers import Servers
from sights import DOCS, SIGHTS, allowed

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("history_contract")]

SIGHT = Sight(open_flows=("f",))
EMBEDDER, OTHER, THIRD = "e" * 32, "0" * 32, "abc1" * 8
AXES = np.eye(8, dtype=np.float32)


def doc(number: int, text: str, answer: str = "", *, session: str = "s", tags: Sequence[str] = ()) -> HistoryDoc:
    return HistoryDoc(
        turn_id=f"t{number}",
        session_id=session,
        at=float(number),
        question=text,
        answer=answer,
        question_words=stems_of(text),
        answer_words=stems_of(answer),
        flow="f",
        place=number,
        tags=tuple(tags),
    )


def asked(text: str, **fields: object) -> HistoryQuery:
    return msgspec.structs.replace(parse_query(text, now=0.0), sight=SIGHT, **fields)  # type: ignore[arg-type]


async def named(index: HistoryIndex, hits: Hits) -> list[str]:
    docs = await index.docs([hit.id for hit in hits.hits])
    return [docs[hit.id].turn_id for hit in hits.hits]


async def found(index: HistoryIndex, text: str, **fields: object) -> list[str]:
    return await named(index, await index.words(asked(text, **fields), count=100))


async def embed(index: HistoryIndex, axes: dict[str, int], embedder: str = EMBEDDER) -> None:
    """Give the turns that lack a vector the one of an axis, by their questions."""
    lacking = await index.lacking(embedder, count=1000)
    await index.add_vectors(embedder, {id_: AXES[axes[text]].astype("<f2").tobytes() for id_, text in lacking})


@pytest.fixture
async def made(home: Home) -> AsyncIterator[Kept]:
    async with kept(home) as made:
        yield made


async def test_what_is_applied_twice_is_there_once(made: Kept) -> None:
    docs = [doc(1, "redis"), doc(2, "redis cluster")]
    for _ in range(2):
        await made.put(docs, {"s": SessionMark("5-0", 2)})
    assert sorted(await found(made.index, "redis")) == ["t1", "t2"]
    assert await made.index.marks(["s", "x"]) == {"s": SessionMark("5-0", 2)}
    assert await made.index.sessions() == ["s"]
    state = await made.index.state("")
    assert (state.turns, state.sessions, state.vectors) == (2, 1, 0)


async def test_a_document_comes_back_as_it_was(made: Kept) -> None:
    text = "Où est l'hôte 记忆? C++ 👍 \x00 'quoted' (is|it) @x:{y}"
    given = msgspec.structs.replace(doc(1, text, "an answer"), user="ann", outcome="miss", stream_id="")
    await made.put([given])
    (hit,) = (await made.index.words(asked("hôte"), count=9)).hits
    read = (await made.index.docs([hit.id]))[hit.id]
    assert read == msgspec.structs.replace(given, question_words="", answer_words="")
    assert (hit.session_id, hit.place, hit.at, hit.flow, hit.user, hit.outcome) == ("s", 1, 1.0, "f", "ann", "miss")
    assert hit.words == len(stems_of(text).split()) + 2


async def test_what_covers_more_of_a_query_is_better_and_answers_count_less(made: Kept) -> None:
    await made.put(
        [
            doc(1, "rotating keys"),
            doc(2, "rotating keys of the gateway"),
            doc(3, "what else is there", "rotating keys of the gateway"),
            doc(4, "a long question about something else altogether, with the gateway at its end"),
        ]
    )
    assert await found(made.index, "rotating keys gateway") == ["t2", "t1", "t3", "t4"]


async def test_phrases_and_exclusions_hold_however_one_looks(made: Kept) -> None:
    texts = ["append only file", "only append", "file of the append", "append only log, no cluster 2026"]
    await made.put([doc(n, text, "only one answer") for n, text in enumerate(texts)])
    await embed(made.index, {text: n for n, text in enumerate(texts)})
    cases = {
        '"append only"': {"t0", "t3"},
        '"append only" -cluster': {"t0"},
        '"append only" -2026': {"t0"},
        'append -"only file"': {"t1", "t2", "t3"},
        '"append answer"': set(),
        '"append only" -file -log': set(),
        '"2026"': {"t3"},
    }
    for text, expected in cases.items():
        query = asked(text)
        assert set(await found(made.index, text)) == expected, text
        near = await made.index.meaning(query, AXES[0], embedder=EMBEDDER, count=9)
        assert set(await named(made.index, near)) == expected, text
    listed = await made.index.listed(asked("-cluster"), offset=0, count=9)
    assert await named(made.index, listed) == ["t2", "t1", "t0"]


async def test_a_phrase_does_not_reach_from_the_question_into_the_answer(made: Kept) -> None:
    await made.put([doc(1, "how is it done with redis", "cluster is off"), doc(2, "a redis cluster")])
    assert await found(made.index, '"redis cluster"') == ["t2"]


async def test_filters_hold_however_one_looks(made: Kept) -> None:
    one = msgspec.structs.replace(doc(10, "redis", tags=["ops", "a,b"]), user="ann", outcome="hit")
    two = msgspec.structs.replace(doc(20, "redis", session="{s} 2|x"), user="2026", outcome="miss", flow="g h")
    await made.put([one, two])
    await embed(made.index, {"redis": 3})
    sight = Sight(open_flows=("f", "g h"))
    cases = [
        ({}, {"t10", "t20"}),
        ({"flow": "g h"}, {"t20"}),
        ({"user": "2026"}, {"t20"}),
        ({"user": "ann"}, {"t10"}),
        ({"session": "{s} 2|x"}, {"t20"}),
        ({"outcome": "hit"}, {"t10"}),
        ({"tag": "a,b"}, {"t10"}),
        ({"tag": "a"}, set()),
        ({"since": 10.0}, {"t10", "t20"}),
        ({"since": 10.5, "until": 20.5}, {"t20"}),
        ({"until": 20.0}, {"t10"}),
        ({"since": 1e12}, set()),
        ({"flow": "f", "user": "2026"}, set()),
        ({"flow": "unknown"}, set()),
    ]
    for fields, expected in cases:
        query = msgspec.structs.replace(asked("redis"), sight=sight, **fields)  # type: ignore[arg-type]
        for hits in (
            await made.index.words(query, count=9),
            await made.index.meaning(query, AXES[3], embedder=EMBEDDER, count=9),
            await made.index.listed(msgspec.structs.replace(query, terms=()), offset=0, count=9),
        ):
            assert set(await named(made.index, hits)) == expected, fields
            assert (hits.total, hits.more) == (len(expected), False), fields


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["local", "engine"])
async def everybodys(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Kept]:
    async with kept(home_of(request.param, servers, Path(tmp_path_factory.mktemp("index")))) as made:
        await made.put(DOCS)
        await embed(made.index, {"redis": 0})
        yield made


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "by the query alone"])
async def test_every_way_of_looking_shows_what_the_rule_allows(
    everybodys: Kept, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`policy.visibility.sees` for every kind of turn, whoever looks; the engine's query does not need the second look
    at what it found."""
    index = everybodys.index
    if not checked:
        monkeypatch.setattr("agentic_flywheel.search.history.engine_query.allowed", lambda *_: True)
    for sight in SIGHTS:
        query = HistoryQuery(text="redis", terms=("redi",), sight=sight)
        for hits in (
            await index.words(query, count=1000),
            await index.meaning(query, AXES[0], embedder=EMBEDDER, count=1000),
            await index.listed(query, offset=0, count=1000),
        ):
            docs = await index.docs([hit.id for hit in hits.hits])
            assert {doc.id for doc in docs.values()} == allowed(sight), sight
            assert hits.total == len(hits.hits), sight


async def test_what_stands_beside_the_best_is_found_where_turns_are_short(home: Home) -> None:
    said = ["Shall we go out", "The cello concert", "Loved every minute", "Anything else", "Lunch on Monday", "Fine"]
    async with home.wheel() as flywheel:
        for number, text in enumerate(said):
            directives = Directives(private=number == 2)
            turn = await flywheel.ask(text, flow="docs", session="s", user="ann", directives=directives)
        await flywheel.ask("Nothing to do with it", flow="shop", session="other", user="ann")

        async def shown(query: str, **named: object) -> list[str]:
            page = await flywheel.history.search(query, mode="words", **named)  # type: ignore[arg-type]
            assert page.total == len(page.found)
            return [one.question for one in page.found]

        assert await shown("cello", session="s", user="ann") == [said[1], said[2], said[0]]
        assert await shown("cello", user="ann") == [said[1], said[0]], "what is private is beside nothing"
        assert await shown("cello outcome:hit", user="ann") == []
        assert await shown("cello flow:docs user:ann", user="ann") == [said[1], said[0]]
        assert await shown('"cello concert"', session="s", user="ann") == [said[1]], "a phrase is held by what is found"
        assert await shown("cello -minute", session="s", user="ann") == [said[1]]
        assert await shown("lunch", session="s", user="ann") == [said[4], said[5], said[3]]
        await flywheel.sessions.delete_turn("s", turn.turn_id, dry_run=False)
        assert await shown("lunch", session="s", user="ann") == [said[4], said[3]]


async def test_the_newest_are_listed_first_from_anywhere(made: Kept) -> None:
    await made.put([doc(n, "redis") for n in (3, 1, 2, 9, 5)])
    query = asked("")
    assert await named(made.index, await made.index.listed(query, offset=0, count=9)) == ["t9", "t5", "t3", "t2", "t1"]
    assert await named(made.index, await made.index.listed(query, offset=3, count=9)) == ["t2", "t1"]
    few = await made.index.listed(query, offset=0, count=2)
    assert await named(made.index, few) == ["t9", "t5"]
    assert few.total >= 2
    assert few.more or few.total == 5


async def test_what_came_in_later_is_left_out_of_a_list_that_has_begun(made: Kept) -> None:
    await made.put([doc(1, "redis"), doc(2, "redis")])
    await embed(made.index, {"redis": 0})
    seen = (await made.index.reach()).sequence
    await made.put([doc(3, "redis"), doc(4, "redis redis redis")])
    await embed(made.index, {"redis": 0, "redis redis redis": 0})
    assert (await made.index.reach()).sequence > seen
    query = asked("redis", seen=seen)
    near = await made.index.meaning(query, AXES[0], embedder=EMBEDDER, count=9)
    for hits in (await made.index.words(query, count=9), near, await made.index.listed(query, offset=0, count=9)):
        assert set(await named(made.index, hits)) == {"t1", "t2"}


async def test_the_nearest_come_first_with_their_cosines(made: Kept) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((120, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    await made.put([doc(n, f"w{n}") for n in range(120)])
    lacking = await made.index.lacking(EMBEDDER, count=1000)
    assert [text for _, text in lacking] == [f"w{n}" for n in range(119, -1, -1)], "the newest first"
    number = {id_: int(text[1:]) for id_, text in lacking}
    await made.index.add_vectors(EMBEDDER, {id_: vectors[n].astype("<f2").tobytes() for id_, n in number.items()})
    assert await made.index.lacking(EMBEDDER, count=10) == []
    for row in range(10):
        query = vectors[row].astype(np.float32)
        cosines = vectors.astype(np.float16).astype(np.float32) @ query
        best = np.argsort(-cosines)[:10]
        hits = (await made.index.meaning(asked(""), query, embedder=EMBEDDER, count=10)).hits
        assert [number[hit.id] for hit in hits] == best.tolist()
        assert [hit.score for hit in hits] == pytest.approx(cosines[best].tolist(), abs=0.002)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_two_embedders_are_kept_and_never_meet(made: Kept) -> None:
    await made.put([doc(1, "one"), doc(2, "two")])
    await embed(made.index, {"one": 0, "two": 1})
    await embed(made.index, {"one": 1, "two": 0}, OTHER)
    query = asked("")

    async def nearest(embedder: str) -> list[str]:
        return await named(made.index, await made.index.meaning(query, AXES[0], embedder=embedder, count=1))

    assert (await nearest(EMBEDDER), await nearest(OTHER)) == (["t1"], ["t2"])
    await made.put([doc(3, "three")])
    assert [text for _, text in await made.index.lacking(EMBEDDER, count=9)] == ["three"]
    assert [text for _, text in await made.index.lacking(OTHER, count=9)] == ["three"]
    state = await made.index.state(EMBEDDER)
    assert (state.turns, state.vectors) == (3, 2)
    await embed(made.index, {"one": 0, "two": 0, "three": 0}, THIRD)
    assert (await made.index.state(EMBEDDER)).vectors == 0, "only two are kept"
    assert (await made.index.state(THIRD)).vectors == 3
    assert len(await made.index.lacking(EMBEDDER, count=9)) == 3


async def test_a_vector_of_a_turn_that_went_meanwhile_is_of_no_use(made: Kept) -> None:
    await made.put([doc(1, "one"), doc(2, "two")])
    lacking = await made.index.lacking(EMBEDDER, count=9)
    await made.index.remove(turns=[("s", "t1")])
    await made.index.add_vectors(EMBEDDER, {id_: AXES[0].astype("<f2").tobytes() for id_, _ in lacking})
    hits = await made.index.meaning(asked(""), AXES[0], embedder=EMBEDDER, count=9)
    assert await named(made.index, hits) == ["t2"]
    assert await made.index.lacking(EMBEDDER, count=9) == []


async def test_what_is_removed_is_forgotten_by_every_process(made: Kept) -> None:
    other = made.another()
    await made.put(
        [doc(1, "a", session="s"), doc(2, "b", session="t"), doc(3, "c", session="t")],
        {"s": SessionMark("1-0", 1), "t": SessionMark("2-0", 2)},
    )
    await embed(made.index, {"a": 0, "b": 0, "c": 0})
    query = asked("")
    assert (await other.meaning(query, AXES[0], embedder=EMBEDDER, count=9)).total == 3
    await made.index.remove(sessions=["s", "unknown"], turns=[("t", "t2"), ("t", "t99"), ("x", "t1")])
    assert await named(other, await other.meaning(query, AXES[0], embedder=EMBEDDER, count=9)) == ["t3"]
    assert await made.index.marks(["s", "t"]) == {"t": SessionMark("2-0", 2)}
    assert await made.index.sessions() == ["t"]
    assert (await other.state(EMBEDDER)).turns == 1
    await made.index.clear()
    assert (await other.meaning(query, AXES[0], embedder=EMBEDDER, count=9)).total == 0
    assert await made.index.sessions() == []
    assert (await other.reach()).places is None


async def test_tags_change_with_their_session(made: Kept) -> None:
    await made.put([doc(1, "redis", tags=["a"]), doc(2, "redis", session="t", tags=["b"])])
    assert await found(made.index, "redis", tag="a") == ["t1"]
    await made.index.retag({"s": ["b", "c"], "unknown": ["a"]})
    assert sorted(await found(made.index, "redis", tag="b")) == ["t1", "t2"]
    assert await found(made.index, "redis", tag="a") == []
    await made.put([doc(3, "redis", tags=["b", "c"])], {"s": SessionMark("3-0", 2)})
    await made.index.retag({"s": []})
    assert await found(made.index, "redis", tag="b") == ["t2"]
    assert await made.index.marks(["s"]) == {"s": SessionMark("3-0", 2)}


async def test_where_to_read_on_is_remembered_and_forgotten_with_the_rest(made: Kept) -> None:
    assert (await made.index.reach()).places is None
    places = {shard: f"{shard}-1" for shard in range(16)}
    await made.index.keep_places(places)
    await made.index.keep_places({3: "9-9"})
    assert (await made.another().reach()).places == {**places, 3: "9-9"}
    await made.index.clear()
    assert (await made.index.reach()).places is None


async def test_what_was_dropped_takes_no_room(made: Kept) -> None:
    await made.put([doc(1, "redis")], {"s": SessionMark("1-0", 1)})
    await embed(made.index, {"redis": 0})
    await made.index.drop()
    if made.home.kind == "engine":
        with made.home.server.client() as client:
            assert list(client.scan_iter("*{history}*", count=1000)) == []
            assert client.execute_command("FT._LIST") == []
    else:
        assert not list((made.home.folder / "index").rglob("history.sqlite*"))


async def test_one_writes_and_the_others_are_told(made: Kept) -> None:
    other = made.another() if made.home.kind == "local" else None
    async with kept(made.home) as apart:
        other = other or apart.index
        async with made.index.writing(patience=0.0) as mine, other.writing(patience=0.0) as theirs:
            assert (mine, theirs) == (True, False)
        async with other.writing(patience=0.0) as theirs:
            assert theirs
        async with made.index.writing(patience=0.0):
            waiting = asyncio.create_task(_entered(other))
        assert await waiting


async def _entered(index: HistoryIndex) -> bool:
    async with index.writing(patience=20.0) as mine:
        return mine


async def test_both_indexes_rank_alike(servers: Servers, tmp_path: Path) -> None:
    rng = random.Random(7)
    vocabulary = [f"{chr(97 + n % 26)}word{n}" for n in range(900)]
    weights = [1 / (n + 30) for n in range(900)]  # where words stand in most turns, the two weigh them otherwise

    def text(length: int) -> str:
        return " ".join(rng.choices(vocabulary, weights, k=length))

    docs = [doc(n, text(rng.randint(2, 12)), text(rng.randint(0, 40)), session=f"s{n % 7}") for n in range(400)]
    queries = [text(rng.randint(2, 6)) for _ in range(40)]
    found: dict[str, list[list[str]]] = {}
    for kind in ("local", "engine"):
        async with kept(home_of(kind, servers, tmp_path)) as made:
            await made.put(docs)
            lists = [(await made.index.words(asked(query), count=400)).hits for query in queries]
            found[kind] = [[f"{hit.session_id} {hit.place}" for hit in hits] for hits in lists]
    for local, engine in zip(found["local"], found["engine"], strict=True):
        assert sorted(local) == sorted(engine)
    agreed = sum(len(set(a[:10]) & set(b[:10])) for a, b in zip(found["local"], found["engine"], strict=True))
    assert agreed > 0.95 * sum(min(10, len(hits)) for hits in found["local"])
    assert sum(a[:1] == b[:1] for a, b in zip(found["local"], found["engine"], strict=True)) >= 37


_WRITER = """
import asyncio, sys
from pathlib import Path
from agentic_flywheel.findings import HistoryDoc, SessionMark
from agentic_flywheel.store import history_lease
history_lease.LEASE_SECONDS = 0.6
sys.path[:0] = sys.argv[3:]
from histories import Home, Kept
from servers import Server
from stores import stored
class At:
    url = sys.argv[1]
async def write():
    async with stored(At()) as store:
        index = Kept(Home(At(), Path(sys.argv[2]), KIND), store).index
        number = 0
        async with index.writing(patience=20.0):
            while True:
                docs = [HistoryDoc(turn_id=f"t{number + n}", session_id="s", at=1.0, question="redis", answer="",
                                   question_words="redi", flow="f", place=number + n) for n in range(50)]
                number += 50
                await index.apply(docs, {"s": SessionMark(str(number), number)})
                print(number, flush=True)
asyncio.run(write())
"""


async def test_whoever_is_killed_while_writing_leaves_a_whole_index(made: Kept, tmp_path: Path) -> None:
    program = _WRITER.replace("KIND", repr(made.home.kind))
    for round_ in range(1, 3):
        writer = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-c", program, made.home.server.url, str(tmp_path), *sys.path],
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        assert writer.stdout is not None
        for _ in range(3 * round_):
            assert await asyncio.to_thread(writer.stdout.readline)
        os.kill(writer.pid, signal.SIGKILL)
        await asyncio.to_thread(writer.communicate)
    async with made.index.writing(patience=20.0) as mine:
        assert mine
    mark = (await made.index.marks(["s"]))["s"]
    state = await made.index.state("")
    assert state.turns >= 300
    assert mark.turns <= state.turns
    assert len((await made.index.words(asked("redis"), count=10_000)).hits) == min(state.turns, 10_000)

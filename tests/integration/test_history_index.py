"""The local index survives what happens to files and processes, and changes its embedder while it is used."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agentic_flywheel.findings import HistoryDoc, HistoryQuery, SessionMark, Sight
from agentic_flywheel.search.history import local_vectors
from agentic_flywheel.search.history.local_index import LocalIndex
from agentic_flywheel.search.history.local_schema import FILE
from agentic_flywheel.search.history.words import stems_of
from flywheels import Oracle, opened
from meanings import Words
from servers import Server

pytestmark = pytest.mark.anyio

SIGHT = Sight(open_flows=("f",))
EMBEDDER = "e" * 32


def doc(number: int, text: str, *, session: str = "s", place: int | None = None) -> HistoryDoc:
    return HistoryDoc(
        turn_id=f"t{number}",
        session_id=session,
        at=float(number),
        question=text,
        answer="",
        question_words=stems_of(text),
        flow="f",
        place=number if place is None else place,
    )


def asked(*terms: str) -> HistoryQuery:
    return HistoryQuery(text=" ".join(terms), terms=terms, sight=SIGHT)


async def found(index: LocalIndex, *terms: str) -> list[str]:
    hits = (await index.words(asked(*terms), count=100)).hits
    docs = await index.docs([hit.id for hit in hits])
    return [docs[hit.id].turn_id for hit in hits]


async def test_what_is_applied_twice_is_there_once(tmp_path: Path) -> None:
    index = LocalIndex(tmp_path)
    docs = [doc(1, "redis"), doc(2, "redis cluster")]
    for _ in range(2):
        await index.apply(docs, {"s": SessionMark("5-0", 2)})
    assert sorted(await found(index, "redi")) == ["t1", "t2"]
    assert await index.marks(["s", "x"]) == {"s": SessionMark("5-0", 2)}
    assert (await index.state("")).turns == 2
    await index.aclose()


async def test_rare_words_choose_and_common_ones_weigh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_flywheel.search.history.local_words.RANKED", 5)
    index = LocalIndex(tmp_path)
    rows = [doc(n, "common words here" if n % 4 else "filler here") for n in range(0, 80, 2)]
    await index.apply([*rows, doc(90, "rare thing"), doc(95, "rare common thing")], {})
    assert await found(index, "rare", "common") == ["t95", "t90"]
    newest = await found(index, "common")
    assert newest
    assert set(newest) <= {f"t{n}" for n in range(50, 96)}
    await index.aclose()


async def test_meaning_is_exact_while_vectors_are_few_and_as_good_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, 64))
    vectors = centres[rng.integers(0, 40, 600)] + 0.4 * rng.standard_normal((600, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = LocalIndex(tmp_path / "exact")
    await index.apply([doc(n, f"w{n}") for n in range(600)], {})
    lacking = await index.lacking(EMBEDDER, count=1000)
    number = {id_: int(text[1:]) for id_, text in lacking}
    await index.add_vectors(EMBEDDER, {id_: vectors[number[id_]].astype("<f2").tobytes() for id_ in number})
    assert await index.lacking(EMBEDDER, count=10) == []
    coarse = LocalIndex(tmp_path / "exact")
    agreed = 0
    for row in range(20):
        query = vectors[row].astype(np.float32)
        monkeypatch.setattr(local_vectors, "EXACT", 20_000)
        exact = await index.meaning(HistoryQuery(sight=SIGHT), query, embedder=EMBEDDER, count=10)
        best = np.argsort(-(vectors.astype(np.float16).astype(np.float32) @ query))[:10]
        assert {number[hit.id] for hit in exact.hits} == set(best.tolist())
        monkeypatch.setattr(local_vectors, "EXACT", 100)
        monkeypatch.setattr(local_vectors, "RESCORED", 60)
        rough = await coarse.meaning(HistoryQuery(sight=SIGHT), query, embedder=EMBEDDER, count=10)
        agreed += len({hit.id for hit in rough.hits} & {hit.id for hit in exact.hits})
    assert agreed > 180
    await index.aclose()
    await coarse.aclose()


async def test_vectors_of_removed_turns_are_forgotten(tmp_path: Path) -> None:
    one, other = LocalIndex(tmp_path), LocalIndex(tmp_path)
    vector = np.eye(8, dtype=np.float32)[0]
    await one.apply([doc(1, "a", session="s"), doc(2, "b", session="t")], {})
    lacking = await one.lacking(EMBEDDER, count=9)
    await one.add_vectors(EMBEDDER, {id_: vector.astype("<f2").tobytes() for id_, _ in lacking})
    query = HistoryQuery(sight=SIGHT)
    assert (await other.meaning(query, vector, embedder=EMBEDDER, count=9)).total == 2
    await one.remove(sessions=["s"])
    assert (await other.meaning(query, vector, embedder=EMBEDDER, count=9)).total == 1
    await one.clear()
    assert (await other.meaning(query, vector, embedder=EMBEDDER, count=9)).total == 0
    await one.aclose()
    await other.aclose()


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but long enough to be one" * 100, None])
async def test_a_damaged_file_is_made_anew_and_said(valkey: Server, tmp_path: Path, damage: bytes | None) -> None:
    async with opened(valkey, tmp_path, {"docs": Oracle()}) as flywheel:
        answer = await flywheel.ask("redis here", flow="docs")
        assert (await flywheel.history.search("redis")).found
    (path,) = (tmp_path / "data" / "index").rglob(FILE)
    if damage is None:  # pages in the middle of a good file
        raw = path.read_bytes()
        path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    else:
        path.write_bytes(damage)
    async with opened(valkey, tmp_path, {"docs": Oracle()}) as flywheel:
        page = await flywheel.history.search("redis")
        assert [hit.turn_id for hit in page.found] == [answer.turn_id]
        assert damage == b"" or any("made anew" in warning for warning in page.warnings)


async def test_only_this_user_may_read_the_index(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"docs": Oracle()}) as flywheel:
        await flywheel.ask("redis here", flow="docs")
        await flywheel.history.search("redis")
        (path,) = (tmp_path / "data" / "index").rglob(FILE)
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0


async def test_another_embedder_makes_vectors_anew_and_words_work_meanwhile(valkey: Server, tmp_path: Path) -> None:
    for name in ("first", "second", "first"):
        async with opened(valkey, tmp_path, {"docs": Oracle()}, given={"embedder": Words(name)}) as flywheel:
            await flywheel.ask(f"redis keys {name}", flow="docs")
            assert (await flywheel.history.search("redis")).found
            await flywheel.settled()
            state = await flywheel.history.state()
            assert state.vectors == state.turns
            assert state.embedder == name


async def test_a_rebuild_tells_how_far_it_is_and_finds_the_same(valkey: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    async with opened(valkey, tmp_path, {"docs": Oracle()}, given={"embedder": Words()}) as flywheel:
        for number in range(30):
            await flywheel.ask(f"redis {number}", flow="docs", session=f"s{number % 7}")
        before = await flywheel.history.search("redis", limit=50)
        state = await flywheel.history.rebuild(lambda *step: steps.append(step))
        after = await flywheel.history.search("redis", limit=50)
        assert {hit.turn_id for hit in before.found} == {hit.turn_id for hit in after.found}
        assert (state.sessions, state.turns, state.vectors) == (7, 30, 30)
        assert ("sessions", 7, 7) in steps
        assert ("vectors", 30, 30) in steps


async def test_one_writes_and_the_others_are_told(tmp_path: Path) -> None:
    one, other = LocalIndex(tmp_path), LocalIndex(tmp_path)
    async with one.writing(patience=0.0) as mine, other.writing(patience=0.0) as theirs:
        assert (mine, theirs) == (True, False)
    async with other.writing(patience=0.0) as theirs:
        assert theirs
    await one.aclose()
    await other.aclose()


_WRITER = """
import asyncio, sys
from pathlib import Path
from agentic_flywheel.findings import HistoryDoc, SessionMark
from agentic_flywheel.search.history.local_index import LocalIndex
async def write():
    index = LocalIndex(Path(sys.argv[1]))
    number = 0
    async with index.writing(patience=5.0):
        while True:
            docs = [HistoryDoc(turn_id=f"t{number + n}", session_id="s", at=1.0, question="redis", answer="",
                               question_words="redi", flow="f", place=number + n) for n in range(50)]
            number += 50
            await index.apply(docs, {"s": SessionMark(str(number), number)})
            print(number, flush=True)
asyncio.run(write())
"""


async def test_whoever_is_killed_while_writing_leaves_a_whole_index(tmp_path: Path) -> None:
    for round_ in range(1, 4):
        writer = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-c", _WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        assert writer.stdout is not None
        for _ in range(3 * round_):
            assert await asyncio.to_thread(writer.stdout.readline)
        os.kill(writer.pid, signal.SIGKILL)
        await asyncio.to_thread(writer.communicate)
    index = LocalIndex(tmp_path)
    async with index.writing(patience=0.0) as mine:
        assert mine
    mark = (await index.marks(["s"]))["s"]
    state = await index.state("")
    assert state.turns >= 450
    assert mark.turns <= state.turns
    assert (await index.words(asked("redi"), count=10_000)).total == min(state.turns, 10_000)
    await index.aclose()

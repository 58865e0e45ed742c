"""The local index survives what happens to files and processes, and changes its embedder while it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentic_flywheel.findings import HistoryDoc, HistoryQuery, Sight
from agentic_flywheel.search.history import local_vectors
from agentic_flywheel.search.history.local_index import LocalIndex
from agentic_flywheel.search.history.local_schema import FILE
from agentic_flywheel.search.history.words import stems_of
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

SIGHT = Sight(open_flows=("f",))
EMBEDDER = "e" * 32


def doc(number: int, text: str, *, session: str = "s", place: int | None = None, flow: str = "f") -> HistoryDoc:
    return HistoryDoc(
        turn_id=f"t{number}",
        session_id=session,
        at=float(number),
        question=text,
        answer="",
        question_words=stems_of(text),
        flow=flow,
        place=number if place is None else place,
    )


def asked(*terms: str) -> HistoryQuery:
    return HistoryQuery(text=" ".join(terms), terms=terms, sight=SIGHT)


async def found(index: LocalIndex, *terms: str) -> list[str]:
    hits = (await index.words(asked(*terms), count=100)).hits
    docs = await index.docs([hit.id for hit in hits])
    return [docs[hit.id].turn_id for hit in hits]


async def test_names_are_those_of_an_index_that_another_process_made_anew(tmp_path: Path) -> None:
    one, other = LocalIndex(tmp_path), LocalIndex(tmp_path)
    await one.apply([doc(1, "redis", session="s", flow="docs"), doc(2, "redis", session="t", flow="shop")], {})
    query = HistoryQuery(terms=("redi",), sight=Sight(open_flows=("docs", "shop")))

    async def named(index: LocalIndex) -> set[tuple[str, str]]:
        return {(hit.session_id, hit.flow) for hit in (await index.words(query, count=9)).hits}

    assert await named(other) == await named(one) == {("s", "docs"), ("t", "shop")}
    await other.clear()
    await other.apply([doc(2, "redis", session="t", flow="shop"), doc(1, "redis", session="s", flow="docs")], {})
    await one.apply([doc(3, "redis", session="u", flow="docs")], {})
    assert await named(one) == await named(other) == {("s", "docs"), ("t", "shop"), ("u", "docs")}
    await one.aclose()
    await other.aclose()


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
        cosines = {hit.id: hit.score for hit in exact.hits}
        assert all(abs(hit.score - cosines.get(hit.id, hit.score)) < 0.003 for hit in rough.hits)
    assert agreed > 180
    # Beyond what is held in bytes, the same vectors are read from the file.
    monkeypatch.setattr(local_vectors, "HELD", 200)
    filed = LocalIndex(tmp_path / "exact")
    read = await filed.meaning(HistoryQuery(sight=SIGHT), query, embedder=EMBEDDER, count=10)
    assert len({hit.id for hit in read.hits} & {hit.id for hit in rough.hits}) >= 9
    assert read.hits[0].score == pytest.approx(exact.hits[0].score, abs=1e-5)
    gone = await index.docs([exact.hits[0].id])
    await index.remove(turns=[("s", gone[exact.hits[0].id].turn_id)])
    for one in (coarse, filed):
        left = await one.meaning(HistoryQuery(sight=SIGHT), query, embedder=EMBEDDER, count=10)
        assert exact.hits[0].id not in {hit.id for hit in left.hits}
        assert len(left.hits) == 10
    await filed.aclose()
    await index.aclose()
    await coarse.aclose()


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

"""The nearest vectors of a set are those that comparing with every one of them gives, whatever was done to the set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from numpy.typing import NDArray

from agentic_flywheel.likeness import Likeness, Neighbour
from agentic_flywheel.search import vectors as module
from agentic_flywheel.search.vectors import Axes, VectorSet

Rows = NDArray[np.float32]


class Plain:
    """The same set as a dict, searched by comparing with everything."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[NDArray[np.float16], float]] = {}

    def nearest(self, query: Rows, *, count: int, floor: float, now: float) -> list[Neighbour]:
        if not self.items:
            return []
        everything = np.stack([vector for vector, _ in self.items.values()]).astype(np.float64)
        near = np.round(np.clip(everything @ query.astype(np.float64), 0.0, 1.0), 6)
        found = [
            Neighbour(key, similarity)
            for (key, (_, expires_at)), similarity in zip(self.items.items(), near.tolist(), strict=True)
            if expires_at > now and similarity >= floor
        ]
        return sorted(found, key=lambda one: (-one.similarity, one.key))[:count]


def unit(rows: Rows) -> Rows:
    lengths: Rows = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-6)).astype(np.float32)


def alike(size: int, dimension: int, seed: int) -> Rows:
    """Unit vectors in clusters, along few directions, some of them equal, as those of questions are."""
    draw = np.random.default_rng(seed)
    scales = (1 / np.sqrt(1 + np.arange(dimension))).astype(np.float32)
    middles = draw.standard_normal((max(1, size // 8), dimension)).astype(np.float32)
    rows = middles[draw.integers(0, len(middles), size)] + 0.4 * draw.standard_normal((size, dimension))
    rows = unit((rows * scales).astype(np.float32))
    rows[size // 2 : size // 2 + size // 16] = rows[: size // 16]
    return rows


def filled(rows: Rows, expires_at: float = 1e9) -> tuple[VectorSet, Plain]:
    plain = Plain()
    for number, row in enumerate(rows.astype(np.float16)):
        plain.items[f"k{number}"] = (row, expires_at)
    vectors = VectorSet(rows.shape[1])
    vectors.extend([Likeness(key, row.astype("<f2").tobytes(), end) for key, (row, end) in plain.items.items()])
    return vectors, plain


def tuned(vectors: VectorSet) -> VectorSet:
    found = vectors.new_axes()
    found.find()
    vectors.adopt(found)
    return vectors


@pytest.fixture(params=[64, 16_384], ids=["small pieces", "one piece"])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", request.param)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("dimension", [3, 64, 100, 384])
@pytest.mark.parametrize("size", [1, 2, 31, 33, 127, 1500])
def test_as_comparing_with_everything(size: int, dimension: int) -> None:
    rows = alike(size, dimension, seed=size + dimension)
    vectors, plain = filled(rows)
    queries = [*rows[:3], *alike(6, dimension, seed=7), -rows[0], np.zeros(dimension, np.float32)]
    for step in range(2):
        for query in queries:
            for count in (3, size + 1):
                for floor in (-0.5, 0.0, 0.5, 0.97, 1.1):
                    how = {"count": count, "floor": floor, "now": 5.0}
                    assert vectors.nearest(query, **how) == plain.nearest(query, **how), (step, count, floor)
        tuned(vectors)


def test_little_is_compared_in_full_once_there_are_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = alike(4000, 384, seed=3)
    vectors, _ = filled(rows)
    compared: list[int] = []
    whole = VectorSet._similarities

    def counted(self: VectorSet, chosen: NDArray[np.intp], query: Rows) -> NDArray[np.float64]:
        compared.append(len(chosen))
        return whole(self, chosen, query)

    monkeypatch.setattr(VectorSet, "_similarities", counted)
    tuned(vectors)
    for query in rows[:20]:
        vectors.nearest(query, count=5, floor=0.9, now=0.0)
    assert sum(compared) < 0.02 * 20 * len(rows)


def test_equal_vectors_are_told_apart_by_their_keys() -> None:
    rows = np.repeat(alike(1, 384, seed=1), 300, axis=0)
    vectors, _ = filled(rows)
    found = tuned(vectors).nearest(rows[0], count=4, floor=0.9, now=0.0)
    assert [one.key for one in found] == ["k0", "k1", "k10", "k100"]
    assert len({one.similarity for one in found}) == 1


def test_what_has_ended_is_never_found_and_dropped_in_time() -> None:
    rows = alike(400, 16, seed=2)
    vectors, plain = filled(rows[:250], expires_at=100.0)
    for number, row in enumerate(rows[250:]):
        vectors.add(f"later{number}", row, expires_at=200.0)
        plain.items[f"later{number}"] = (row.astype(np.float16), 200.0)
    for now in (99.9, 100.0, 100.1, 120.0, 140.0, 160.0):
        how = {"count": 400, "floor": 0.0, "now": now}
        assert vectors.nearest(rows[0], **how) == plain.nearest(rows[0], **how)
    assert len(vectors) == 150
    assert vectors.nearest(rows[0], count=3, floor=0.0, now=200.0) == []


def test_what_is_no_vector_is_left_out_and_counted() -> None:
    vectors = VectorSet(4)
    broken = np.array([np.nan, 0, 0, 0], "<f2").tobytes(), np.array([np.inf, 0, 0, 0], "<f2").tobytes()
    vectors.extend(
        [Likeness(str(number), raw, 10.0) for number, raw in enumerate([b"", b"1234567", b"1" * 9, *broken])]
    )
    vectors.add("good", np.array([1, 0, 0, 0], np.float32), expires_at=10.0)
    assert (len(vectors), vectors.refused) == (1, 5)
    assert tuned(vectors).nearest(np.ones(4, np.float32), count=9, floor=0.0, now=0.0) == [Neighbour("good", 1.0)]


def test_a_key_has_one_vector() -> None:
    one, other = np.eye(4, dtype=np.float32)[:2]
    vectors = VectorSet(4)
    first, second = (Likeness("k", row.astype("<f2").tobytes(), end) for row, end in ((one, 10.0), (other, 20.0)))
    vectors.extend([first, second])
    assert vectors.nearest(other, count=2, floor=0.5, now=15.0) == [Neighbour("k", 1.0)]
    assert vectors.nearest(one, count=2, floor=0.5, now=5.0) == []
    assert (len(vectors), "k" in vectors, "l" in vectors) == (1, True, False)
    assert (vectors.remove("k"), vectors.remove("k"), len(vectors)) == (True, False, 0)


def test_growing_copies_no_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 256)
    rows = alike(2000, 8, seed=5)
    vectors, _ = filled(rows[:1000])
    first = vectors._pieces[0].vectors
    for number, row in enumerate(rows[1000:]):
        vectors.add(f"more{number}", row, expires_at=1e9)
    assert vectors._pieces[0].vectors is first
    assert [len(piece.vectors) for piece in vectors._pieces] == [256] * 8


def test_axes_are_wanted_as_it_grows() -> None:
    rows = alike(600, 100, seed=6)
    vectors = VectorSet(100)
    wanted = []
    for number, row in enumerate(rows):
        vectors.add(str(number), row, expires_at=1e9)
        if vectors.wants_axes:
            wanted.append(len(vectors))
            tuned(vectors)
    assert wanted == [128, 512]


def test_axes_are_orthonormal_even_of_vectors_that_are_all_alike() -> None:
    rows = np.repeat(alike(2, 384, seed=1), 200, axis=0)
    vectors, plain = filled(rows)
    found = vectors.new_axes()
    found.find()
    assert found.axes is not None
    product = found.axes.astype(np.float64) @ found.axes.astype(np.float64).T
    lengths = np.diag(product)
    assert np.allclose(product, np.diag(lengths), atol=1e-6)
    assert np.all(np.isclose(lengths, 1, atol=1e-6) | (lengths == 0))
    vectors.adopt(found)
    how = {"count": 400, "floor": 0.1, "now": 0.0}
    assert vectors.nearest(rows[0], **how) == plain.nearest(rows[0], **how)


GRID = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0])


class Changes(RuleBasedStateMachine):
    """Any order of changes, while axes are being found or not; pieces of 64, so that there are several."""

    @initialize(dimension=st.sampled_from([2, 70]))
    def begin(self, dimension: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "PIECE", 64)
        self.vectors = VectorSet(dimension)
        self.plain = Plain()
        self.finding: Axes | None = None
        self.now = 0.0

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    def row(self, values: list[float]) -> Rows:
        row = np.zeros(self.vectors.dimension, np.float32)
        row[: len(values)] = values
        row[-1] += 0.5
        return unit(row)

    @rule(key=st.integers(0, 40), values=st.lists(GRID, min_size=2, max_size=2), life=st.integers(1, 30))
    def add(self, key: int, values: list[float], life: int) -> None:
        row = self.row(values)
        self.vectors.add(f"k{key}", row, expires_at=self.now + life)
        self.plain.items[f"k{key}"] = (row.astype(np.float16), self.now + life)

    @rule(start=st.integers(0, 300), size=st.integers(1, 150), seed=st.integers(0, 9), life=st.integers(1, 60))
    def add_many(self, start: int, size: int, seed: int, life: int) -> None:
        rows = alike(size, self.vectors.dimension, seed).astype("<f2")
        items = [Likeness(f"k{start + n % 100}", row.tobytes(), self.now + life) for n, row in enumerate(rows)]
        self.vectors.extend(items)
        for item, row in zip(items, rows, strict=True):
            self.plain.items[item.key] = (row, item.expires_at)

    @rule(key=st.integers(0, 300))
    def remove(self, key: int) -> None:
        self.vectors.remove(f"k{key}")
        self.plain.items.pop(f"k{key}", None)

    @rule(many=st.integers(2, 9))
    def remove_many(self, many: int) -> None:
        for key in list(self.plain.items)[::many]:
            assert self.vectors.remove(key) or self.plain.items[key][1] <= self.now
            del self.plain.items[key]

    @rule(seconds=st.sampled_from([1, 5, 20, -10]))
    def time_passes(self, seconds: int) -> None:
        """A clock may go back; what had ended may or may not be known any more then, so it is no longer asked for."""
        self.plain.items = {key: kept for key, kept in self.plain.items.items() if kept[1] > self.now}
        for key in [key for key in self.vectors._rows if key not in self.plain.items]:
            self.vectors.remove(key)
        self.now += seconds

    @precondition(lambda self: self.finding is None)
    @rule()
    def begin_to_find_axes(self) -> None:
        self.finding = self.vectors.new_axes()

    @precondition(lambda self: self.finding is not None)
    @rule(adopted=st.booleans())
    def end_finding_axes(self, adopted: bool) -> None:
        assert self.finding is not None
        if adopted and len(self.vectors):
            self.finding.find()
            self.vectors.adopt(self.finding)
        else:
            self.vectors.abandon()
        self.finding = None

    @rule(
        values=st.lists(GRID, min_size=2, max_size=2),
        count=st.sampled_from([0, 1, 3, 5, 1000]),
        floor=st.sampled_from([0.0, 0.2, 0.6, 0.9, 0.99]),
    )
    def look(self, values: list[float], count: int, floor: float) -> None:
        query = self.row(values)
        how = {"count": count, "floor": floor, "now": self.now}
        assert self.vectors.nearest(query, **how) == self.plain.nearest(query, **how)


Changes.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestChanges = Changes.TestCase


@settings(max_examples=60)
@given(
    rows=st.lists(st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3), min_size=1, max_size=40),
    query=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
    floor=st.floats(0, 1),
    count=st.integers(1, 45),
)
def test_any_numbers(rows: list[list[float]], query: list[float], floor: float, count: int) -> None:
    vectors, plain = filled(np.array(rows, np.float32))
    how = {"count": count, "floor": floor, "now": 0.0}
    asked = np.array(query, np.float32)
    assert vectors.nearest(asked, **how) == plain.nearest(asked, **how)
    assert tuned(vectors).nearest(asked, **how) == plain.nearest(asked, **how)

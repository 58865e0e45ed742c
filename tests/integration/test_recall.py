"""One contract for both recalls, on real servers; two recalls on one server are two processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from agentic_flywheel.errors import StoreError
from agentic_flywheel.likeness import Likeness, Neighbour
from agentic_flywheel.search.protocols import Recall
from agentic_flywheel.search.recall import AutoRecall, EngineRecall, LocalRecall, recall_of
from agentic_flywheel.store.store import Store
from servers import MATRIX, Server, Servers, wait_until
from stores import stored

pytestmark = pytest.mark.anyio

E, OTHER_E = "0123456789abcdef" * 2, "fedcba9876543210" * 2
P, OTHER_P = "0" * 31 + "1", "0" * 31 + "2"
DIMENSION = 24
#: What float16 and a server that computes in it may be off by.
CLOSE = 0.003


def at(similarity: float, *, axis: int = 1) -> NDArray[np.float32]:
    """A unit vector so near to the one that is asked for, which is `at(1.0)`."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[0], vector[axis] = similarity, (1 - similarity**2) ** 0.5
    return vector


class Process:
    """A store and its recall. Nothing is taken for fresh, so that no test has to wait."""

    def __init__(self, store: Store, recall: Recall, embedder: str) -> None:
        self.store = store
        self.recall = recall
        self.embedder = embedder

    def key(self, number: int) -> str:
        return self.store.keys.entry("team", "flow", f"{number:032x}")

    async def put(self, number: int, vector: NDArray[np.float32], partition: str = P, seconds: float = 1000.0) -> str:
        now, key, raw = time.time(), self.key(number), vector.astype("<f2").tobytes()
        await self.store.vectors.put(self.embedder, partition, key, raw, seconds=seconds, now=now)
        self.recall.note(partition, Likeness(key, raw, now + seconds))
        return key

    async def remove(self, key: str, partition: str = P) -> None:
        await self.store.vectors.remove(self.embedder, partition, [key])
        self.recall.drop(partition, key)

    async def near(
        self, vector: NDArray[np.float32], partition: str = P, *, count: int = 5, floor: float = 0.5
    ) -> list[Neighbour]:
        await self.recall.refresh(partition)
        return await self.recall.nearest(partition, vector, count=count, floor=floor, now=time.time())

    async def keys(
        self, vector: NDArray[np.float32], partition: str = P, *, count: int = 5, floor: float = 0.5
    ) -> list[str]:
        return [one.key for one in await self.near(vector, partition, count=count, floor=floor)]


class Place:
    """A server, and a kind of recall that works on it."""

    def __init__(self, kind: str, server: Server) -> None:
        self.kind = kind
        self.server = server

    @asynccontextmanager
    async def process(self, embedder: str = E, tenant: str = "team") -> AsyncIterator[Process]:
        async with stored(self.server, tenant) as store:
            recall: Recall = (
                EngineRecall(store.vectors, embedder, DIMENSION)
                if self.kind == "engine"
                else LocalRecall(store.vectors, embedder, DIMENSION, fresh_seconds=0)
            )
            try:
                yield Process(store, recall, embedder)
            finally:
                await recall.aclose()


@pytest.fixture(params=[*(f"local {name}" for name in MATRIX), "engine stack74"])
def place(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Place]:
    kind, name = request.param.split()
    server = servers.get(name)
    yield Place(kind, server)
    assert not server.leaks()


async def test_a_question_is_found_at_once_by_every_process(place: Place) -> None:
    async with place.process() as one, place.process() as other:
        assert await one.keys(at(1.0)) == await other.keys(at(1.0)) == []
        key = await one.put(1, at(1.0))
        assert await one.keys(at(1.0)) == await other.keys(at(1.0)) == [key]
        second = await other.put(2, at(0.9))
        assert await other.keys(at(1.0)) == await one.keys(at(1.0)) == [key, second]
    async with place.process() as late:
        assert await late.keys(at(1.0)) == [key, second]


async def test_nearest_first_with_their_similarity(place: Place) -> None:
    likely = [0.99, 0.6, 0.97, 0.88, 0.93, 0.7, 0.51]
    async with place.process() as one, place.process() as other:
        by_similarity = {value: await one.put(n, at(value, axis=1 + n)) for n, value in enumerate(likely)}
        wanted = sorted(likely, reverse=True)
        for process in (one, other):
            found = await process.near(at(1.0), count=10)
            assert [neighbour.key for neighbour in found] == [by_similarity[value] for value in wanted]
            assert [neighbour.similarity for neighbour in found] == pytest.approx(wanted, abs=CLOSE)
            assert await process.keys(at(1.0), count=2) == [by_similarity[value] for value in wanted[:2]]
            assert await process.keys(at(1.0), floor=0.9) == [by_similarity[value] for value in (0.99, 0.97, 0.93)]
            assert await process.keys(at(1.0), floor=0.995) == []


async def test_equally_near_by_key(place: Place) -> None:
    async with place.process() as one, place.process() as other:
        keys = sorted([await one.put(n, at(0.9)) for n in (7, 3, 5, 1)])
        assert await one.keys(at(1.0)) == await other.keys(at(1.0)) == keys


async def test_as_many_as_the_best_of_many(place: Place) -> None:
    draw = np.random.default_rng(11)
    rows = draw.standard_normal((400, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    halves = rows.astype(np.float16).astype(np.float32)
    async with place.process() as one, place.process() as other:
        keys = [await one.put(n, row) for n, row in enumerate(rows)]
        for query in rows[:20]:
            near = np.clip(halves @ query, 0, 1)
            for process in (one, other):
                found = await process.near(query, count=3, floor=0.3)
                best = np.sort(near[near >= 0.3 + CLOSE])[::-1][:3]
                assert [neighbour.similarity for neighbour in found][: len(best)] == pytest.approx(best, abs=CLOSE)
                assert all(n.similarity == pytest.approx(near[keys.index(n.key)], abs=CLOSE) for n in found)


async def test_the_latest_vector_of_a_question_counts(place: Place) -> None:
    async with place.process() as one, place.process() as other:
        key = await one.put(1, at(1.0))
        assert await other.keys(at(1.0)) == [key]
        assert await one.put(1, at(0.0)) == key
        for process in (one, other):
            assert await process.keys(at(1.0)) == []
            assert await process.keys(at(0.0)) == [key]


async def test_what_has_ended_is_not_found(place: Place) -> None:
    async with place.process() as one, place.process() as other:
        kept = await one.put(2, at(0.9))
        await one.recall.refresh(P)
        await other.recall.refresh(P)
        key = await one.put(1, at(1.0), seconds=0.15)
        name = one.store.keys.vector(E, P, key)
        with place.server.client() as client:
            wait_until(lambda: not client.exists(name), "the vector to end")
        for process in (one, other):
            assert await process.keys(at(1.0)) == [kept]


async def test_what_was_removed_is_not_found(place: Place) -> None:
    async with place.process() as one, place.process() as late:
        key, kept = await one.put(1, at(1.0)), await one.put(2, at(0.9))
        assert await one.keys(at(1.0)) == [key, kept]
        await one.remove(key)
        assert await one.keys(at(1.0)) == await late.keys(at(1.0)) == [kept]
        one.recall.drop(P, "unknown")
        one.recall.drop(OTHER_P, key)
        assert await one.keys(at(1.0)) == [kept]


async def test_partitions_embedders_and_tenants_never_meet(place: Place) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(place.process())
        other = await stack.enter_async_context(place.process(embedder=OTHER_E))
        stranger = await stack.enter_async_context(place.process(tenant="strangers"))
        key = await one.put(1, at(1.0))
        second = await one.put(1, at(1.0), OTHER_P)
        assert second == key
        third = await one.put(2, at(1.0), OTHER_P)
        fourth, fifth = await other.put(3, at(1.0)), await stranger.put(4, at(1.0))
        assert await one.keys(at(1.0)) == [key]
        assert await one.keys(at(1.0), OTHER_P) == [key, third]
        assert (await other.keys(at(1.0)), await other.keys(at(1.0), OTHER_P)) == ([fourth], [])
        assert (await stranger.keys(at(1.0)), await stranger.keys(at(1.0), OTHER_P)) == ([fifth], [])


async def test_a_store_that_is_gone_says_so(place: Place) -> None:
    async with place.process() as one:
        key = await one.put(1, at(1.0))
        assert await one.keys(at(1.0)) == [key]
        place.server.stop()
        with pytest.raises(StoreError):
            await one.keys(at(1.0))
    place.server.start()


async def test_auto_leaves_large_partitions_to_a_server_that_can(servers: Servers) -> None:
    for name in ("stack74", "valkey9"):
        server = servers.get(name)
        async with stored(server) as store:
            local = LocalRecall(store.vectors, E, DIMENSION, fresh_seconds=0)
            auto = AutoRecall(local, EngineRecall(store.vectors, E, DIMENSION), store.vectors, local_most=5)
            process = Process(store, auto, E)
            keys = [await process.put(n, at(1.0 - n / 100)) for n in range(5)]
            assert await process.keys(at(1.0)) == keys
            assert local.size(P) == 5
            keys.append(await process.put(5, at(0.95, axis=2)))
            assert await process.keys(at(1.0), count=9) == keys
            assert local.size(P) == (0 if name == "stack74" else 6)
            keys.append(await process.put(6, at(0.92, axis=3)))
            assert await process.keys(at(1.0), count=9) == keys
            await process.remove(keys[0])
            assert await process.keys(at(1.0), count=9) == keys[1:]
            await auto.aclose()


class Named:
    """As much of an embedder as a recall looks at."""

    name, fingerprint, dimension, calibration = "none", E, DIMENSION, ""


async def test_the_setting_names_the_recall(valkey: Server) -> None:
    async with stored(valkey) as store:
        for where, kind in (("local", LocalRecall), ("server", EngineRecall), ("auto", AutoRecall)):
            made = recall_of(where, store.vectors, Named(), engine=store.vectors)  # type: ignore[arg-type]
            assert type(made) is kind
        with pytest.raises(StoreError):  # this server has no engine
            await recall_of("server", store.vectors, Named(), engine=store.vectors).nearest(  # type: ignore[arg-type]
                P, at(1.0), count=1, floor=0.0, now=0.0
            )

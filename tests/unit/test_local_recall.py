"""The recall of a process: one reading for many, nothing frozen meanwhile, bounded, usable after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from agentic_flywheel.errors import StoreError, StoreUnavailable
from agentic_flywheel.likeness import Likeness, Neighbour, News
from agentic_flywheel.search.recall import LocalRecall

pytestmark = pytest.mark.anyio

DIMENSION = 16
P = "p"


def vector(seed: int) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


def likeness(key: str, seed: int, expires_at: float = 1e9) -> Likeness:
    return Likeness(key, vector(seed).astype("<f2").tobytes(), expires_at)


class Log:
    """A log in memory. It answers when `open` is set, and fails with `failure`."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Likeness]] = {}
        self.reads: list[tuple[str, str, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.failure: StoreError | None = None

    async def news(self, embedder: str, partition: str, after: Sequence[str]) -> News:
        start = int(after[0]) if after else 0
        self.reads.append((embedder, partition, start))
        self.asked.set()
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        items = self.kept.get(partition, [])
        return News(tuple(items[start:]), (str(len(items)),))

    def put(self, partition: str, *items: Likeness) -> None:
        self.kept.setdefault(partition, []).extend(items)


def recalled(log: Log, *, max_bytes: int = 10**9, fresh_seconds: float = 0.0) -> LocalRecall:
    return LocalRecall(log, "e", DIMENSION, max_bytes=max_bytes, fresh_seconds=fresh_seconds)


async def keys(recall: LocalRecall, seed: int, partition: str = P, floor: float = 0.99) -> list[str]:
    found = await recall.nearest(partition, vector(seed), count=5, floor=floor, now=0.0)
    return [one.key for one in found]


async def test_nothing_is_read_before_it_is_asked_for() -> None:
    log = Log()
    recall = recalled(log)
    recall.note(P, likeness("a", 1))
    recall.drop(P, "a")
    assert (log.reads, recall.size(P)) == ([], 0)
    log.put(P, likeness("a", 1))
    assert await keys(recall, 1) == ["a"]
    assert log.reads == [("e", P, 0)]


async def test_what_was_read_a_moment_ago_is_not_read_again_and_own_questions_are_found_nevertheless() -> None:
    log = Log()
    recall = recalled(log, fresh_seconds=1e6)
    assert await keys(recall, 1) == []
    log.put(P, likeness("theirs", 1))
    recall.note(P, likeness("ours", 2))
    assert await keys(recall, 1) == []
    assert await keys(recall, 2) == ["ours"]
    assert len(log.reads) == 1


async def test_only_news_are_read_and_own_ones_among_them_are_no_second_ones() -> None:
    log = Log()
    recall = recalled(log)
    log.put(P, likeness("a", 1))
    await recall.refresh(P)
    recall.note(P, likeness("b", 2))
    log.put(P, likeness("b", 2))
    assert await keys(recall, 2) == ["b"]
    await recall.refresh(P)
    assert [start for *_, start in log.reads] == [0, 1, 2]
    assert recall.size(P) == 2


async def test_many_wait_for_one_reading_which_outlives_those_who_give_up() -> None:
    log = Log()
    log.open.clear()
    log.put(P, likeness("a", 1))
    recall = recalled(log, fresh_seconds=1e6)
    impatient = asyncio.create_task(recall.refresh(P))
    patient = [asyncio.create_task(keys(recall, 1)) for _ in range(5)]
    await log.asked.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    log.open.set()
    assert await asyncio.gather(*patient) == [["a"]] * 5
    assert len(log.reads) == 1


async def test_a_question_stored_while_its_partition_is_read_is_found() -> None:
    log = Log()
    log.open.clear()
    recall = recalled(log)
    reading = asyncio.create_task(recall.refresh(P))
    await log.asked.wait()
    recall.note(P, likeness("a", 1))
    log.open.set()
    await reading
    assert await keys(recall, 1) == ["a"]


async def test_a_failure_is_said_to_everybody_who_waits_and_leaves_what_is_known() -> None:
    log = Log()
    recall = recalled(log)
    log.put(P, likeness("a", 1))
    assert await keys(recall, 1) == ["a"]
    log.put(P, likeness("b", 2))
    log.failure = StoreUnavailable("gone")
    log.open.clear()
    waiting = [asyncio.create_task(keys(recall, 2)) for _ in range(3)]
    log.open.set()
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [StoreUnavailable] * 3
    assert recall.size(P) == 1
    log.failure = None
    assert await keys(recall, 2) == ["b"]
    assert [start for *_, start in log.reads] == [0, 1, 1]


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys() -> None:
    log = Log()
    log.open.clear()
    recall = recalled(log)
    asker = asyncio.create_task(recall.refresh(P))
    await log.asked.wait()
    asker.cancel()
    await asyncio.gather(asker, return_exceptions=True)
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    log.failure = StoreUnavailable("gone")
    log.open.set()
    for _ in range(5):
        await asyncio.sleep(0)
    log.failure = None
    await recall.refresh(P)
    assert not said


async def test_others_get_their_turn_while_a_large_partition_is_read() -> None:
    log = Log()
    log.put(P, *(likeness(str(n), n % 50) for n in range(5000)))
    recall = recalled(log)
    reading = asyncio.create_task(recall.refresh(P))
    sizes = [0]
    while not reading.done():
        await asyncio.sleep(0)
        sizes.append(recall.size(P))
    assert sizes[-1] == 5000
    assert max(np.diff(sizes)) <= 128


async def test_axes_are_found_beside_and_change_nothing() -> None:
    log = Log()
    log.put(P, *(likeness(str(n), n) for n in range(300)))
    recall = recalled(log, fresh_seconds=1e6)
    before = await recall.nearest(P, vector(7), count=9, floor=0.2, now=0.0)
    known = recall._partitions[P]
    assert known.tuning is not None
    recall.note(P, likeness("new", 301))
    recall.drop(P, before[1].key)
    await recall.settled(P)
    await recall.settled("unknown")
    assert not known.vectors.wants_axes
    after = await recall.nearest(P, vector(7), count=9, floor=0.2, now=0.0)
    assert [one for one in after if one.key != "new"][:7] == [before[0], *before[2:]][:7]
    assert await keys(recall, 301) == ["new"]


async def test_idle_partitions_go_first_when_there_are_too_many() -> None:
    log = Log()
    for name in "abcd":
        log.put(name, *(likeness(f"{name}{n}", n) for n in range(100)))
    recall = recalled(log)
    await recall.refresh("a")
    recall = recalled(log, max_bytes=recall.size_bytes * 3, fresh_seconds=1e6)
    for name in "abcad":
        assert await keys(recall, 3, name) == [f"{name}3"]
    assert [recall.size(name) for name in "abcd"] == [100, 0, 100, 100]
    assert await keys(recall, 3, "b") == ["b3"]
    assert recall.size("c") == 0


async def test_one_that_is_too_large_alone_is_kept_while_it_is_asked_for() -> None:
    log = Log()
    log.put("a", *(likeness(str(n), n) for n in range(100)))
    log.put("b", likeness("b", 1))
    recall = recalled(log, max_bytes=1000, fresh_seconds=1e6)
    assert await keys(recall, 3, "a") == ["3"]
    assert await keys(recall, 4, "a") == ["4"]
    assert len(log.reads) == 1
    assert await keys(recall, 1, "b") == ["b"]
    assert (recall.size("a"), recall.size("b")) == (0, 1)


async def test_vectors_of_another_length_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    log.put(P, Likeness("odd", b"123", 1e9), likeness("a", 1))
    recall = recalled(log)
    found = await recall.nearest(P, vector(1), count=5, floor=0.0, now=0.0)
    assert [one.key for one in found] == ["a"]
    assert isinstance(found[0], Neighbour)
    assert "1 vectors of partition p do not have 16 numbers" in caplog.text


async def test_closing_ends_what_is_going_on() -> None:
    log = Log()
    log.open.clear()
    recall = recalled(log)
    asker = asyncio.create_task(recall.refresh(P))
    await log.asked.wait()
    await recall.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asker
    await recall.aclose()
    assert recall.size(P) == 0

"""Where the nearest stored questions are looked for: in this process, or by the server.

Invariant: what this process stored is findable by its next question, and what another one stored within
`fresh_seconds` and one round trip. A partition holds nothing that was not written into its log, and a store that fails
leaves what was learnt so far. What is found is a hint: whoever serves an answer reads its entry first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from agentic_flywheel.errors import StoreError
from agentic_flywheel.likeness import Likeness, Neighbour
from agentic_flywheel.search.protocols import Embedder, Recall, VectorEngine, VectorLog
from agentic_flywheel.search.vectors import DECIMALS, VectorSet

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Vector

#: The log is read again when it was last read so long ago, in seconds: processes hear of each other well within one.
FRESH_SECONDS = 0.25
#: What all partitions of a process may take, in bytes: some 250,000 vectors of 384 dimensions.
MAX_BYTES = 300_000_000
#: From more vectors than this on a partition is left to the server, where it can: 1.5 ms a look-up here, 0.5 there.
LOCAL_MOST = 100_000
#: Vectors that are taken in one go (1 to 2 ms), before others get their turn.
_SLICE = 128

_log = logging.getLogger(__name__)


class _Partition:
    """What is known of one partition: its vectors, where to read on, and when it was last read (loop time)."""

    __slots__ = ("places", "read_at", "reading", "tuning", "vectors")

    def __init__(self, dimension: int) -> None:
        self.vectors = VectorSet(dimension)
        self.places: tuple[str, ...] = ()
        self.read_at: float | None = None
        self.reading: asyncio.Task[None] | None = None
        self.tuning: asyncio.Task[None] | None = None


class LocalRecall:
    """Partitions at hand, on any Redis: read when first asked for, kept current, those idle longest given up first."""

    def __init__(
        self,
        log: VectorLog,
        embedder: str,
        dimension: int,
        *,
        max_bytes: int = MAX_BYTES,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._log = log
        self._embedder = embedder
        self._dimension = dimension
        self._max_bytes = max_bytes
        self._fresh_seconds = fresh_seconds
        self._partitions: OrderedDict[str, _Partition] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """What all partitions take, about."""
        return sum(known.vectors.size_bytes for known in self._partitions.values())

    def size(self, partition: str) -> int:
        """How many vectors of a partition are at hand."""
        known = self._partitions.get(partition)
        return 0 if known is None else len(known.vectors)

    async def settled(self, partition: str) -> None:
        """Wait until no axes are being found for a partition: from then on it is as fast as it gets."""
        known = self._partitions.get(partition)
        if known is not None and known.tuning is not None:
            await asyncio.shield(known.tuning)

    async def refresh(self, partition: str) -> None:
        """Bring a partition up to date, unless it was a moment ago. Many may wait for one reading, which goes on when
        they give up. Raises `StoreError`."""
        await self._current(partition)

    async def nearest(self, partition: str, vector: Vector, *, count: int, floor: float, now: float) -> list[Neighbour]:
        """At most `count` neighbours that have not ended `now`, at least `floor` near; exact. Raises `StoreError`."""
        known = await self._current(partition)
        return known.vectors.nearest(vector, count=count, floor=floor, now=now)

    def note(self, partition: str, likeness: Likeness) -> None:
        """This process stored a question. A partition that is not at hand is read from the log when it is asked for."""
        known = self._partitions.get(partition)
        if known is not None:
            known.vectors.extend((likeness,))
            self._tune(known)

    def drop(self, partition: str, key: str) -> None:
        """An entry turned out to be gone."""
        known = self._partitions.get(partition)
        if known is not None:
            known.vectors.remove(key)

    def give_up(self, partition: str) -> None:
        """Forget a partition; it is read anew if it is asked for again."""
        self._partitions.pop(partition, None)

    async def aclose(self) -> None:
        """End what is going on. Safe to call twice."""
        tasks = [task for known in self._partitions.values() for task in (known.reading, known.tuning) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._partitions.clear()

    async def _current(self, partition: str) -> _Partition:
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = _Partition(self._dimension)
        self._partitions.move_to_end(partition)
        if known.reading is None:
            now = asyncio.get_running_loop().time()
            if known.read_at is not None and now - known.read_at < self._fresh_seconds:
                return known
            known.reading = asyncio.create_task(self._read(partition, known, now))
            known.reading.add_done_callback(_seen)
        await asyncio.shield(known.reading)
        return known

    async def _read(self, partition: str, known: _Partition, now: float) -> None:
        try:
            news = await self._log.news(self._embedder, partition, known.places)
            refused = known.vectors.refused
            for start in range(0, len(news.items), _SLICE):
                if start:
                    await asyncio.sleep(0)
                known.vectors.extend(news.items[start : start + _SLICE])
            known.places = news.places
            known.read_at = now
            if refused := known.vectors.refused - refused:
                _log.warning("%d vectors of partition %s do not have %d numbers", refused, partition, self._dimension)
            self._tune(known)
            if news.items:
                self._make_room()
        finally:
            known.reading = None

    def _tune(self, known: _Partition) -> None:
        if known.tuning is None and known.vectors.wants_axes:
            known.tuning = asyncio.get_running_loop().create_task(_tuned(known))

    def _make_room(self) -> None:
        """Give up what has been idle longest until the rest fits; never one that is being read."""
        size = self.size_bytes
        for partition, known in list(self._partitions.items()):
            if size <= self._max_bytes:
                return
            if known.reading is None:
                size -= known.vectors.size_bytes
                del self._partitions[partition]


class EngineRecall:
    """Neighbours found by the server's query engine; nothing is kept here."""

    def __init__(self, engine: VectorEngine, embedder: str, dimension: int) -> None:
        self._engine = engine
        self._embedder = embedder
        self._dimension = dimension

    async def refresh(self, partition: str) -> None:
        """Nothing to do: the server knows what it was given."""

    async def nearest(
        self,
        partition: str,
        vector: Vector,
        *,
        count: int,
        floor: float,
        now: float,  # noqa: ARG002 - the server has a clock
    ) -> list[Neighbour]:
        """At most `count` neighbours, at least `floor` near, that have not ended by the server's clock.

        Raises `StoreError`.
        """
        raw = vector.astype("<f2").tobytes()
        found = await self._engine.nearest(self._embedder, partition, raw, dimension=self._dimension, count=count)
        near = [Neighbour(one.key, round(one.similarity, DECIMALS)) for one in found]
        return sorted((one for one in near if one.similarity >= floor), key=lambda one: (-one.similarity, one.key))

    def note(self, partition: str, likeness: Likeness) -> None:
        """Nothing to do."""

    def drop(self, partition: str, key: str) -> None:
        """Nothing to do: a vector ends in Redis when its entry was to end."""

    async def aclose(self) -> None:
        """Nothing to do."""


class AutoRecall:
    """In the process, until a partition has grown so large that the server is better at it, where it is at all."""

    def __init__(
        self, local: LocalRecall, engine: EngineRecall, server: VectorEngine, *, local_most: int = LOCAL_MOST
    ) -> None:
        self._local = local
        self._engine = engine
        self._server = server
        self._local_most = local_most
        self._left: set[str] = set()  # partitions that are left to the server

    async def refresh(self, partition: str) -> None:
        """Bring a partition up to date. Raises `StoreError`."""
        if partition in self._left:
            return
        await self._local.refresh(partition)
        if self._local.size(partition) > self._local_most and await self._server.has_engine():
            self._left.add(partition)
            self._local.give_up(partition)

    async def nearest(self, partition: str, vector: Vector, *, count: int, floor: float, now: float) -> list[Neighbour]:
        """At most `count` neighbours, at least `floor` near. Raises `StoreError`."""
        await self.refresh(partition)
        where: Recall = self._engine if partition in self._left else self._local
        return await where.nearest(partition, vector, count=count, floor=floor, now=now)

    def note(self, partition: str, likeness: Likeness) -> None:
        """This process stored a question: findable from now on."""
        self._local.note(partition, likeness)

    def drop(self, partition: str, key: str) -> None:
        """An entry turned out to be gone."""
        self._local.drop(partition, key)

    async def aclose(self) -> None:
        """End what is going on. Safe to call twice."""
        await self._local.aclose()


def recall_of(where: str, log: VectorLog, embedder: Embedder, *, engine: VectorEngine) -> Recall:
    """The recall that the setting `similar.recall` names: local, server or auto."""
    by_server = EngineRecall(engine, embedder.fingerprint, embedder.dimension)
    if where == "server":
        return by_server
    local = LocalRecall(log, embedder.fingerprint, embedder.dimension)
    return local if where == "local" else AutoRecall(local, by_server, engine)


async def _tuned(known: _Partition) -> None:
    """Find new axes in a thread; the partition is used with the old ones meanwhile."""
    try:
        if not known.vectors.wants_axes:
            return  # it has shrunk meanwhile
        found = known.vectors.new_axes()
        await asyncio.to_thread(found.find)
        known.vectors.adopt(found)
    except BaseException:
        known.vectors.abandon()
        raise
    finally:
        known.tuning = None


def _seen(reading: asyncio.Task[None]) -> None:
    """A reading whose askers have all given up may fail: the next one tries again."""
    if not reading.cancelled() and isinstance(error := reading.exception(), StoreError):
        _log.debug("new vectors could not be read: %s", error)

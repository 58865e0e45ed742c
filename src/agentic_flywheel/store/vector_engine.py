"""Nearest vectors found by the server, where it has a query engine (`FT.*`: Redis Stack, Redis 8).

Invariant: what an index that is still being built would find is never taken for all there is. Nothing here is needed:
a server without the engine, with one that is too old (float16 needs 2.10) or forbids it, or a cluster, whose servers
each know their own part only, is left to the search in the process.

One index per tenant and embedder, which follows the hashes of `store.vectors` by the beginning of their keys. User
text never gets into a query: partitions and vectors are its parameters.
"""

from __future__ import annotations

import asyncio

from agentic_flywheel.errors import StoreError
from agentic_flywheel.likeness import Neighbour
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.query_engine import QueryEngine, Row, is_absent
from agentic_flywheel.store.wire import Refusal

#: How long to wait for an index that is being built, in seconds: half a second in all.
_PAUSES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.2)
_QUERY = "(@p:{$p})=>[KNN $n @v $v AS d]"


class VectorIndexes:
    """The indexes of one tenant's vectors, by embedder."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._engine = QueryEngine(link)
        self._whole: set[str] = set()  # indexes that were seen to be complete

    async def usable(self) -> bool:
        """Whether the engine is there and may be used; asked once. Raises `StoreError` where nobody answers."""
        return await self._engine.usable()

    async def nearest(
        self, embedder: str, partition: str, vector: bytes, *, dimension: int, count: int
    ) -> list[Neighbour]:
        """The `count` nearest vectors of a partition, nearest first. Raises `StoreError`."""
        index = self._keys.vector_prefix(embedder).rstrip(":")
        search: Command = (
            *("FT.SEARCH", index, _QUERY, "PARAMS", 6, "p", partition, "n", count, "v", vector),
            *("SORTBY", "d", "RETURN", 2, "k", "d", "LIMIT", 0, count, "DIALECT", 2),
        )
        for attempt in range(2):
            if index not in self._whole:
                await self._prepare(index, self._keys.vector_prefix(embedder), dimension)
            (reply,) = await self._link.run_each(search)
            if isinstance(reply, Refusal):
                # All indexes went with FLUSHALL, or somebody dropped ours.
                if not attempt and is_absent(reply):
                    self._whole.discard(index)
                    continue
                raise self._engine.error(reply, "FT.SEARCH")
            break
        try:
            found = [_neighbour(row) for row in self._engine.rows(reply).rows]
        except NONSENSE as error:
            raise nonsense(error, "a search of vectors") from error
        return sorted((one for one in found if one is not None), key=lambda one: -one.similarity)

    async def _prepare(self, index: str, prefix: str, dimension: int) -> None:
        """Make the index where it is missing, and wait a little until it is complete."""
        vector = ("v", "VECTOR", "HNSW", 6, "TYPE", "FLOAT16", "DIM", dimension, "DISTANCE_METRIC", "COSINE")
        await self._engine.create(index, prefix, ("p", "TAG", *vector))
        share = 0.0
        for pause in (0.0, *_PAUSES):
            await asyncio.sleep(pause)
            (reply,) = await self._link.run_each(self._engine.info_command(index), slow=True)
            built = self._engine.built(reply)
            if built is not None and not built.building:
                self._whole.add(index)
                return
            share = built.share if built is not None else 0.0
        raise StoreError(
            f"Redis is still building the index of vectors ({share:.0%}); similar questions are not found yet",
            suggestions=("Ask again in a moment: the index is built once.",),
            retry_after_seconds=1.0,
            index=index,
        )


def _neighbour(row: Row) -> Neighbour | None:
    """One row of a result; None where the hash ended between being found and being read."""
    if b"k" not in row.fields:
        return None
    return Neighbour(row.fields[b"k"].decode(), min(1.0, max(0.0, 1.0 - float(row.fields[b"d"]))))

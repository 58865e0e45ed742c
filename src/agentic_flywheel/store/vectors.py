"""Vectors of stored questions: one hash each, and per partition a log from which every process learns of new ones.

Invariant: vectors of two embedders never meet (the embedder's fingerprint stands in every key), nothing is kept longer
than the answer it leads to, and no place in a log hides what came after it: the entry at a place is read again together
with what follows, and where it is gone the log is read from its beginning. That is never too much: a log only loses
entries from its old end, so whoever finds its place gone finds what came after it, or another log.

A vector is a hash `v` (float16, little endian), `k` (the entry's key), `p` (the partition), `x` (its end, epoch
seconds), `c` (xxh3_64 of key and vector) and, once it is known, `a` (the name of its answer). The query engine reads
`v` and `p` (`store.vector_engine`).

A partition has one log, not shards: it is read with every similar question, sixteen reads in one round trip cost as
much as the whole look-up besides, and a stream is read and written at the same price however long it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import xxhash

from agentic_flywheel.errors import StoreError
from agentic_flywheel.likeness import Likeness, Neighbour, News
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.store.vector_engine import VectorIndexes
from agentic_flywheel.store.wire import Refusal

#: Entries of a log that are read in one go: on the way of a question, and as slow work where there are more.
_FEW = 64
_PAGE = 500
#: More vectors than this (some 800 bytes each) are slow work.
_FEW_VECTORS = 32
_FIELDS = ("v", "k", "c", "x")

_log = logging.getLogger(__name__)

# Keeps a vector; it never stands there without its end.
KEEP = Script("""
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'k', ARGV[3], 'c', ARGV[4], 'x', ARGV[5], 'p', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
""")

# Says which answers are the same as this question's; nothing where the vector is gone.
NAME = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'a', ARGV[1]) end
""")

# Tells of a vector. The log lives as long as the longest of those it tells of, and forgets at its old end those that
# are over: up to 16 for each that comes in.
TELL = Script("""
local log, kept, now = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local first, left = nil, redis.call('PTTL', log)
for _, told in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', 17)) do
    first = told[1]
    if (tonumber(told[2][4]) or 0) > now then break end
end
if first then
    redis.call('XADD', log, 'MINID', '=', first, '*', 'k', ARGV[3], 'x', ARGV[4])
else
    redis.call('XADD', log, '*', 'k', ARGV[3], 'x', ARGV[4])
end
if left < kept then redis.call('PEXPIRE', log, kept) end
""")


class VectorStore:
    """The vectors of one tenant. `damaged` counts those that were found to be something else."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._indexes = VectorIndexes(link, keys)
        self.damaged = 0

    def put_commands(
        self, embedder: str, partition: str, key: str, vector: bytes, *, seconds: float, now: float
    ) -> list[Command]:
        """What to send to keep the vector (float16, little endian) of the question whose entry is `key`.

        `seconds` is as long as the entry is kept. `embedder` is the whole fingerprint.
        """
        kept, end = max(1, round(seconds * 1000)), repr(now + seconds)
        log = self._keys.vector_log(embedder, partition)
        document = self._keys.vector(embedder, partition, key)
        return [
            KEEP.call((document,), kept, vector, key, _checksum(key, vector), end, partition),
            TELL.call((log,), kept, repr(now), key, end),
        ]

    async def put(self, embedder: str, partition: str, key: str, vector: bytes, *, seconds: float, now: float) -> None:
        """Keep a vector."""
        await self._link.run(*self.put_commands(embedder, partition, key, vector, seconds=seconds, now=now))

    async def remove(self, embedder: str, partition: str, keys: Sequence[str]) -> int:
        """Remove the vectors of entries; how many there were. Processes that know them find their entries gone."""
        removed = 0
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            commands = [("UNLINK", self._keys.vector(embedder, partition, key)) for key in page]
            removed += sum(await self._link.run(*commands, slow=True))
        return removed

    async def lacking(self, embedder: str, places: Sequence[tuple[str, str]]) -> list[str]:
        """Of entries by (partition, key), the keys of those that have no vector."""
        if not places:
            return []
        commands = [("EXISTS", self._keys.vector(embedder, partition, key)) for partition, key in places]
        replies = await self._link.run(*commands, slow=True)
        return [key for (_, key), there in zip(places, replies, strict=True) if not there]

    async def news(self, embedder: str, partition: str, after: Sequence[str]) -> News:
        """The vectors that came into a partition after `after` (empty: all), oldest first, each once, and where to
        read on. Those that are gone by now or damaged are left out.

        One round trip where there is nothing new. Raises `StoreError`; then nothing was read.
        """
        log, place = self._keys.vector_log(embedder, partition), after[0] if len(after) == 1 else ""
        found: dict[str, Likeness] = {}
        page, slow = _FEW, False
        while True:
            (reply,) = await self._link.run(
                ("XRANGE", log, place.partition(" ")[0] or "-", "+", "COUNT", page + 1), slow=slow
            )
            try:
                told = [_told(entry) for entry in reply]
            except NONSENSE as error:
                raise nonsense(error, "the log of new vectors") from error
            if place:
                if not told or told[0][0] != place:
                    place = ""
                    continue
                del told[0]
            # A key that was told of twice stands where it was told of last.
            latest = list(dict.fromkeys(key for _, key in reversed(told)))[::-1]
            for likeness in await self._read(embedder, partition, latest):
                found.pop(likeness.key, None)
                found[likeness.key] = likeness
            place = told[-1][0] if told else place
            if len(reply) <= page:
                return News(tuple(found.values()), (place,))
            page, slow = _PAGE, True

    def answer_commands(self, embedder: str, partition: str, keys: Sequence[str]) -> list[Command]:
        """What to send to read the name of each entry's answer (None: it is like no other); see `name_answer`."""
        return [("HGET", self._keys.vector(embedder, partition, key), "a") for key in keys]

    async def name_answer(self, embedder: str, partition: str, key: str, name: str) -> None:
        """Say that an entry's answer is one that others have as well: equal names are equal answers."""
        await self._link.run(NAME.call((self._keys.vector(embedder, partition, key),), name))

    async def has_engine(self) -> bool:
        """Whether the server can find vectors itself: its query engine is there, for us, and fits. Asked once."""
        return await self._indexes.usable()

    async def nearest(
        self, embedder: str, partition: str, vector: bytes, *, dimension: int, count: int
    ) -> list[Neighbour]:
        """The `count` nearest stored questions as the query engine finds them (vector: float16), nearest first.

        Raises `StoreError`, also where the index is still being built.
        """
        return await self._indexes.nearest(embedder, partition, vector, dimension=dimension, count=count)

    async def _read(self, embedder: str, partition: str, keys: Sequence[str]) -> list[Likeness]:
        if not keys:
            return []
        commands = [("HMGET", self._keys.vector(embedder, partition, key), *_FIELDS) for key in keys]
        replies = await self._link.run_each(*commands, slow=len(keys) > _FEW_VECTORS)
        read, before = [], self.damaged
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, Refusal) and reply.status_code != "WRONGTYPE":
                raise self._error(reply)
            if isinstance(reply, list) and not any(reply):
                continue  # it is over, was removed or evicted
            try:
                vector, entry, checksum, end = reply
                if entry != key.encode() or checksum != _checksum(key, vector):
                    raise ValueError("it is not what was written")
                read.append(Likeness(key, vector, float(end)))
            except NONSENSE:
                self.damaged += 1
        if self.damaged > before:
            _log.warning("%d vectors of partition %s are damaged and left out", self.damaged - before, partition)
        return read

    def _error(self, refusal: Refusal) -> StoreError:
        error = self._link.error(refusal, "HMGET")
        error.__cause__ = refusal
        return error


def _told(entry: Any) -> tuple[str, str]:
    """The place and the entry's key of one entry of a log. Its id alone would not do: a log that is begun anew in the
    same millisecond gives the same ids again."""
    id_, fields = entry
    named = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    key = named[b"k"].decode()
    return f"{id_.decode()} {named[b'x'].decode()} {key}", key


def _checksum(key: str, vector: bytes) -> bytes:
    return xxhash.xxh3_64_digest(key.encode() + vector)

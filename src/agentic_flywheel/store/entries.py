"""Stored answers: one string with its lifetime per entry, and an index per flow by expiry.

Invariant: an entry is written with its expiry in one command, so no entry without a lifetime can exist. The index
only serves listing, clearing and reclaiming: an entry that is missing from it is still never served wrongly, since
generation and fingerprint are checked on every hit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Entry
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.keys import SHARDS, Keys, shard_of
from agentic_flywheel.store.link import Command, Link, Script

_PAGE = 500

# Removes members of one index shard that expired or belong to an older generation; returns how many had expired, how
# many were older, and the keys of the latter for the caller to unlink (they live in other slots). A key that holds an
# answer of the present generation by now is not among them.
TRIM = Script("""
local index, now, generation, limit = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local expired = redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
local old, cursor = {}, '0'
repeat
    local page = redis.call('ZSCAN', index, cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 1, #page[2], 2 do
        local member = page[2][i]
        local bar = string.find(member, '|', 1, true)
        if tonumber(string.sub(member, 1, bar - 1)) < generation then
            old[#old + 1] = member
            if #old >= limit then cursor = '0' break end
        end
    end
until cursor == '0'
for i = 1, #old, 500 do redis.call('ZREM', index, unpack(old, i, math.min(i + 499, #old))) end
local keys = {}
for _, member in ipairs(old) do
    local key = string.sub(member, string.find(member, '|', 1, true) + 1)
    if not redis.call('ZSCORE', index, ARGV[2] .. '|' .. key) then keys[#keys + 1] = key end
end
return {expired, #old, keys}
""")


# The beginning of a value, with its checksum or its nonce, behind '=' (so that it is not taken for a sealed value);
# '=' alone where there is none, or none of ours.
HEAD = Script("""
local value = redis.pcall('GET', KEYS[1])
return '=' .. (type(value) == 'string' and string.sub(value, 1, 10) or '')
""")

# Removes a value that still begins so; returns how many there were.
DROP = Script("""
local value = redis.pcall('GET', KEYS[1])
if '=' .. (type(value) == 'string' and string.sub(value, 1, 10) or '') ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
""")


class Looked(msgspec.Struct, gc=False, frozen=True):
    """What a key held: an entry with its size, nothing, or something damaged."""

    entry: Entry | None = None
    damaged: bool = False
    size_bytes: int = 0


class EntryStore:
    """The stored answers of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def looked(self, reply: Any) -> Looked:
        """The reply to a GET of an entry's key; a value of another type counts as damaged."""
        if reply is None:
            return Looked()
        if not isinstance(reply, bytes):
            return Looked(damaged=True)
        try:
            return Looked(decode(reply, Entry), size_bytes=len(reply))
        except StoreDamaged:
            return Looked(damaged=True, size_bytes=len(reply))

    def put_commands(self, key: str, entry: Entry, *, stale_seconds: float = 0.0) -> list[Command]:
        """What to send to store an answer under its key, and to list it.

        Redis keeps it `stale_seconds` longer than it is good, to stand in for a flow that fails.
        """
        kept = entry.ttl_seconds + stale_seconds
        index = self._keys.entries(entry.flow, shard_of(key))
        return [
            # Listed first, so that whoever reclaims older answers in between sees that the key is in use again.
            ("ZADD", index, entry.created_at + kept, f"{entry.generation}|{key}"),
            ("SET", key, encode(entry), "PX", max(1, round(kept * 1000))),
        ]

    async def put(self, key: str, entry: Entry) -> None:
        """Store an answer."""
        await self._link.run(*self.put_commands(key, entry))

    def renew_commands(self, key: str, entry: Entry, *, seconds: float, now: float) -> list[Command]:
        """What to send to give a sliding entry its whole lifetime anew."""
        index = self._keys.entries(entry.flow, shard_of(key))
        member = f"{entry.generation}|{key}"
        return [("PEXPIRE", key, round(seconds * 1000)), ("ZADD", index, "XX", now + seconds, member)]

    async def get(self, key: str) -> tuple[Looked, float | None]:
        """One entry, and the seconds that Redis will still keep it (None where there is nothing)."""
        raw, left = await self._link.run_each(("GET", key), ("PTTL", key), slow=True)
        return self.looked(raw), left / 1000 if isinstance(left, int) and left >= 0 else None

    async def get_many(self, keys: Sequence[str]) -> list[Looked]:
        """Entries in the order of their keys."""
        if not keys:
            return []
        return [self.looked(raw) for raw in await self._link.run_each(*(("GET", k) for k in keys), slow=True)]

    async def remove(self, entries: Mapping[str, Entry]) -> int:
        """Remove entries by key, and their places in the index; how many there were."""
        removed, keys = 0, list(entries)
        for start in range(0, len(keys), _PAGE):
            commands: list[Command] = []
            for key in keys[start : start + _PAGE]:
                entry = entries[key]
                index = self._keys.entries(entry.flow, shard_of(key))
                commands += [("UNLINK", key), ("ZREM", index, f"{entry.generation}|{key}")]
            removed += sum((await self._link.run(*commands, slow=True))[::2])
        return removed

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove values that are in no index (any more); how many there were."""
        removed = 0
        for start in range(0, len(keys), _PAGE):
            # One UNLINK per key: on a cluster they live in different slots.
            replies = await self._link.run(*(("UNLINK", key) for key in keys[start : start + _PAGE]), slow=True)
            removed += sum(replies)
        return removed

    async def count(self, flow: str, *, now: float) -> int:
        """How many unexpired answers the index of a flow lists, older generations included until they are swept."""
        counts = await self._link.run(
            *(("ZCOUNT", self._keys.entries(flow, s), f"({now!r}", "+inf") for s in range(SHARDS)), slow=True
        )
        return int(sum(counts))

    async def listed(self, flow: str, *, now: float, offset: int, count: int) -> list[str]:
        """Keys of a flow's unexpired entries, those that live longest first."""
        replies = await self._link.run(
            *(
                (
                    "ZREVRANGEBYSCORE",
                    self._keys.entries(flow, s),
                    "+inf",
                    f"({now!r}",
                    "WITHSCORES",
                    "LIMIT",
                    0,
                    offset + count,
                )
                for s in range(SHARDS)
            ),
            slow=True,
        )
        scored = [(float(score), member) for reply in replies for member, score in _scored(reply)]
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        return [member.split("|", 1)[1] for _, member in scored[offset : offset + count]]

    async def pages(self, flow: str, *, generation: int, count: int) -> AsyncIterator[list[str]]:
        """The keys of a flow's answers of one generation, a page at a time, in no order; one may come up twice."""
        for shard in range(SHARDS):
            cursor: Any = b"0"
            while True:
                scan = ("ZSCAN", self._keys.entries(flow, shard), cursor, "COUNT", count)
                ((cursor, found),) = await self._link.run(scan, slow=True)
                members = (member.decode().split("|", 1) for member in found[::2])
                keys = [key for of, key in members if int(of) == generation]
                if keys:
                    yield keys
                if int(cursor) == 0:
                    break

    async def reclaim(self, flow: str, *, generation: int, now: float) -> tuple[int, int]:
        """Free the memory of answers older than `generation`; how many entries were removed, how many had expired."""
        removed = expired = 0
        for shard in range(SHARDS):
            index = self._keys.entries(flow, shard)
            while True:
                (reply,) = await self._link.run(TRIM.call((index,), repr(now), generation, _PAGE), slow=True)
                expired += reply[0]
                removed += await self._drop(index, generation, [key.decode() for key in reply[2]])
                if reply[1] < _PAGE:
                    break
        return removed, expired

    async def _drop(self, index: str, generation: int, keys: Sequence[str]) -> int:
        """Remove answers whose keys are listed no more, but none that is stored meanwhile: whoever stores one lists it
        first, so what is not listed after its beginning was read is not stored yet, and begins otherwise then."""
        if not keys:
            return 0
        heads = await self._link.run(*(HEAD.call((key,)) for key in keys), slow=True)
        listed = await self._link.run(*(("ZSCORE", index, f"{generation}|{key}") for key in keys), slow=True)
        drops = [DROP.call((key,), head) for key, head, score in zip(keys, heads, listed, strict=True) if score is None]
        return sum(await self._link.run(*drops, slow=True)) if drops else 0


def _scored(reply: Any) -> list[tuple[str, float]]:
    # RESP3 answers pairs, RESP2 a flat list.
    if reply and not isinstance(reply[0], (list, tuple)):
        reply = list(zip(reply[::2], reply[1::2], strict=True))
    return [(member.decode(), float(score)) for member, score in reply]

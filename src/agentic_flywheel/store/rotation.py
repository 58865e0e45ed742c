"""Sealing anew, with the current key, whatever of a tenant is plain or was sealed with another key.

Invariant: a value is only replaced while it still is what was read (each in one script), so nothing that others write
meanwhile is lost, whichever way it falls; what was in their hands comes up in the next pass. Passes follow each other
until one that began at the beginning found nothing to do. The place that was reached is kept in Redis: whoever is
stopped, or killed, is followed by somebody who goes on there. A stream cannot be changed in place: a sealed copy is
made beside it, which takes its place if nothing was taken out of the original meanwhile, with what came in behind.

    afw:v1:T:session:{S}:turns:anew    stream    such a copy, for an hour at most
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from agentic_flywheel.store.codec import place, stored
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.flow_states import FlowStates
from agentic_flywheel.store.keys import SHARDS, Keys
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.store.popularity import KEPT, text_place
from agentic_flywheel.store.privacy import VERSION
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.sealing import Opened, Vault
from agentic_flywheel.store.session_headers import PRIVATE
from agentic_flywheel.store.similar_states import REPLACE

#: Passes after which it is given up: somebody goes on writing with another key.
MOST_PASSES = 6
_TOGETHER = 25
_PAGE = 200
_RECORDS = 500
#: How often the place is kept, in parts of `_TOGETHER`.
_KEEP_EVERY = 20
_COPY_SECONDS = 3600
_TRIES = 5
#: The fields of streams that hold what people wrote: turns, reports, entries of the audit log.
_VALUES = frozenset({b"t", b"r", b"e"})

# Each replaces a value that still is what was read; 1 where it did.
STRING = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""")
ITEM = Script("""
if redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[1])[1] ~= ARGV[2] then return 0 end
redis.call('LSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""")
# The end of a value in a hash, behind ARGV[2] bytes; what stands before it may have changed meanwhile. ARGV[5]: its
# length stands there, as for a count of wordings, whose marks become more.
ENDING = Script("""
local raw = redis.call('HGET', KEYS[1], ARGV[1])
if not raw then return 0 end
local lead = tonumber(ARGV[2])
if ARGV[5] == '1' then
    if #raw < 26 then return 0 end
    lead = 26 + 4 * string.byte(raw, 26)
end
if string.sub(raw, lead + 1) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.sub(raw, 1, lead) .. ARGV[4])
return 1
""")
# Puts the copy in a stream's place. ARGV: the last entry that was copied.
TAKE_OVER = Script("""
local tail = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+')
if redis.call('XLEN', KEYS[1]) - #tail ~= redis.call('XLEN', KEYS[2]) then
    redis.call('DEL', KEYS[2])
    return 0
end
for _, entry in ipairs(tail) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
local left = redis.call('PTTL', KEYS[1])
redis.call('RENAME', KEYS[2], KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) else redis.call('PERSIST', KEYS[1]) end
return 1
""")

SCRIPTS = (STRING, ITEM, ENDING, TAKE_OVER, REPLACE)

#: How far: how much is done of how much, and the number of the pass.
Progress = Callable[[int, int, int], None]
_Place = tuple[int, str, str]
_START: _Place = (0, "", "")


class Kept(msgspec.Struct, frozen=True):
    """How far a rotation has come: to which key, what it did, and where to go on."""

    to: str
    place: _Place = _START
    sealed: int = 0


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation came to: values sealed anew, those that no key here opens (left as they are), passes, whether it
    went on with one that was stopped, and whether nothing was left to do."""

    key: str
    sealed: int = 0
    unreadable: int = 0
    passes: int = 0
    resumed: bool = False
    complete: bool = False
    seconds: float = 0.0


class Rotation:
    """One rotation of a tenant's values."""

    def __init__(self, link: Link, keys: Keys, vault: Vault) -> None:
        link.learn(SCRIPTS)
        self._link = link
        self._keys = keys
        self._vault = vault
        self._to = vault.keyring.current
        self._scan = Scan(link, keys)
        self._flows = FlowStates(link, keys)
        self._sealed = self._found = self._unreadable = 0
        self._done = self._total = self._pass = self._parts = 0
        self._after: _Place = _START
        self._progress: Progress = _silent

    async def run(self, progress: Progress | None = None) -> Rotated:
        """Seal everything anew. Raises `StoreError`; what was done stays done."""
        began = time.monotonic()
        self._progress = progress or _silent
        await self._link.look()
        kept = self._kept()
        if kept is not None:
            self._after, self._sealed = kept.place, kept.sealed
        complete = False
        while not complete and self._pass < MOST_PASSES:
            whole, self._found, self._unreadable = self._after == _START, 0, 0
            self._pass += 1
            self._total, self._done = await self._size(), 0
            await self._once()
            self._after = _START
            complete = whole and not self._found
        if complete:
            await self._end()
        else:
            await self._keep(_START)
        return Rotated(
            key=self._to,
            sealed=self._sealed,
            unreadable=self._unreadable,
            passes=self._pass,
            resumed=kept is not None,
            complete=complete,
            seconds=time.monotonic() - began,
        )

    def _kept(self) -> Kept | None:
        mark = self._link.seals.mark
        if mark is None or not mark.rotation:
            return None
        try:
            kept = msgspec.json.decode(mark.rotation, type=Kept)
        except msgspec.DecodeError:
            return None
        return kept if kept.to == self._to else None

    async def _keep(self, where: _Place) -> None:
        kept = msgspec.json.encode(Kept(self._to, where, self._sealed))
        await self._link.run(("HSET", self._keys.sealing, "rotation", kept), slow=True)

    async def _end(self) -> None:
        """Nothing is sealed with other keys any more, but for what no key here opens, which is told of still."""
        mark = self._link.seals.mark
        known = self._vault.keyring
        others = [f"key:{id_}" for id_ in (mark.keys if mark else ()) if id_ != self._to and id_ in known.keys]
        fields = ("index", self._to, f"key:{self._to}", known.check(self._to))
        await self._link.run(
            ("HSET", self._keys.sealing, *fields), ("HDEL", self._keys.sealing, "rotation", *others), slow=True
        )
        await self._link.look()

    async def _size(self) -> int:
        commands: list[Command] = [("ZCARD", self._keys.sessions(shard)) for shard in range(SHARDS)]
        for flow in await self._flows.known():
            commands += [("ZCARD", self._keys.entries(flow, shard)) for shard in range(SHARDS)]
            commands += [("HLEN", key) for key in self._counts(flow)]
        return int(sum(await self._link.run(*commands, slow=True)))

    async def _once(self) -> None:
        for shard in range(SHARDS):
            async for ids in self._parts_of(0, f"{shard:02}", self._keys.sessions(shard)):
                await self._sessions(ids)
        for flow in await self._flows.known():
            for shard in range(SHARDS):
                async for members in self._parts_of(1, f"{flow} {shard:02}", self._keys.entries(flow, shard)):
                    await self._entries([member.partition("|")[2] for member in members])
        for flow in await self._flows.known():
            for key in self._counts(flow):
                if not self._passed((2, key, "")):
                    await self._records(key)
                    await self._reached((2, key, ""))
            await self._faq(flow)
        for job, items in await self._warm_ups():
            (order,) = await self._link.run(("HGET", job, "order"), slow=True)
            await self._replace(self._replacing(job, {"order": order}))
            await self._items(items)
        for key in (self._keys.proposals, self._keys.erasures, self._keys.privacy, self._keys.retention):
            async for page in self._pages(key):
                page.pop(VERSION, None)  # of the policies; every question reads it, and it says nothing
                await self._replace(self._replacing(key, page))
        for key in (self._keys.reports, self._keys.audit):
            await self._stream(key)

    def _passed(self, where: _Place) -> bool:
        return where <= self._after

    async def _reached(self, where: _Place) -> None:
        self._parts += 1
        if self._parts % _KEEP_EVERY == 0:
            await self._keep(where)
        self._progress(min(self._done, self._total), self._total, self._pass)
        await asyncio.sleep(0)

    async def _parts_of(self, kind: int, unit: str, index: str) -> AsyncIterator[list[str]]:
        """The members of an index, a few at a time, in an order that can be taken up again."""
        if (kind, unit, "\U0010ffff") <= self._after:
            return
        members = sorted(await self._scan.members(index))
        for start in range(0, len(members), _TOGETHER):
            part = members[start : start + _TOGETHER]
            if not self._passed((kind, unit, part[-1])):
                yield part
            self._done += len(part)
            await self._reached((kind, unit, part[-1]))

    async def _sessions(self, ids: Sequence[str]) -> None:
        names = sorted(PRIVATE)
        keys = [self._keys.session(id_) for id_ in ids]
        headers = await self._link.run(*(("HMGET", key, *names) for key in keys), slow=True)
        changes: list[Command] = []
        for key, values in zip(keys, headers, strict=True):
            changes += self._replacing(key, dict(zip(names, values, strict=True)))
        await self._replace(changes)
        for id_ in ids:
            await self._stream(self._keys.turns(id_))
            judged = self._keys.judgements(id_)
            async for page in self._pages(judged):
                await self._replace(self._replacing(judged, page))

    async def _entries(self, keys: Sequence[str]) -> None:
        values = await self._link.run_each(*(("GET", key) for key in keys), slow=True)
        changes: list[Command] = []
        for key, value in zip(keys, values, strict=True):
            if isinstance(value, bytes) and self._old(value):
                changes.append(STRING.call((key,), value, stored(value, key)))
        await self._replace(changes)

    def _replacing(self, key: str, values: dict[str, Any]) -> list[Command]:
        return [
            REPLACE.call((key,), name, value, stored(value, place(key, name)))
            for name, value in values.items()
            if value and self._old(value)
        ]

    async def _records(self, key: str) -> None:
        """Seal the texts in the counts of wordings anew."""
        async for page in self._pages(key):
            changes: list[Command] = []
            for name, raw in page.items():
                start = text_place(raw)
                if start is not None:
                    changes += self._ending(key, name, raw, start, counted=True)
            await self._replace(changes)
            self._done += len(page)

    async def _items(self, key: str) -> None:
        """Seal what came of a warm-up's questions anew."""
        async for page in self._pages(key):
            changes: list[Command] = []
            for name, raw in page.items():
                changes += self._ending(key, name, raw, raw.find(b"|") + 1, counted=False)
            await self._replace(changes)

    def _ending(self, key: str, name: str, raw: bytes, lead: int, *, counted: bool) -> list[Command]:
        value = self._vault.open(raw[lead:], place(key, name))
        if not value or not self._old(value):
            return []
        return [ENDING.call((key,), name, lead, value, stored(value, place(key, name)), int(counted))]

    async def _faq(self, flow: str) -> None:
        ids: list[str] = []
        async for page in self._pages(self._keys.faq(flow)):
            ids += page
            await self._replace(self._replacing(self._keys.faq(flow), page))
        for id_ in ids:
            key = self._keys.faq_changes(flow, id_)
            (items,) = await self._link.run(("LRANGE", key, 0, -1), slow=True)
            changes = [
                ITEM.call((key,), at, value, stored(value, key)) for at, value in enumerate(items) if self._old(value)
            ]
            await self._replace(changes)

    async def _warm_ups(self) -> list[tuple[str, str]]:
        (jobs,) = await self._link.run(("ZREVRANGE", self._keys.warm, 0, -1), slow=True)
        return [self._keys.warm_job(job.decode()) for job in jobs]

    async def _stream(self, key: str) -> None:
        for _ in range(_TRIES):
            if await self._copied(key):
                return

    async def _copied(self, key: str) -> bool:
        """Put a copy that is sealed in the place of a stream that is not; False where something was taken out of it
        meanwhile."""
        changed = 0
        async for page in self._stream_pages(key):
            changed += sum(self._due(words, at) for _, words in page for at in range(1, len(words), 2))
        if not changed:
            return True
        self._found += changed
        copy, last = self._keys.anew(key), ""
        await self._link.run(("DEL", copy), slow=True)
        unreadable = self._unreadable
        async for page in self._stream_pages(key):
            commands: list[Command] = []
            for last, words in page:
                sealed = [stored(word, key) if self._due(words, at) else word for at, word in enumerate(words)]
                commands.append(("XADD", copy, last, *sealed))
            await self._link.run(*commands, ("EXPIRE", copy, _COPY_SECONDS), slow=True)
        self._unreadable = unreadable  # those were counted before
        (done,) = await self._link.run(TAKE_OVER.call((key, copy), last), slow=True)
        self._sealed += changed if done else 0
        return bool(done)

    async def _stream_pages(self, key: str) -> AsyncIterator[list[tuple[str, list[Any]]]]:
        """The entries of a stream: their places, with names and values in turn."""
        edge = "-"
        while edge:
            (page,) = await self._link.run(("XRANGE", key, edge, "+", "COUNT", _PAGE), slow=True)
            if page:
                yield [(id_.decode(), _flat(fields)) for id_, fields in page]
            edge = "(" + page[-1][0].decode() if len(page) == _PAGE else ""

    def _due(self, words: Sequence[bytes], at: int) -> bool:
        """Whether the word at a place of an entry is a value that is to be sealed anew."""
        return at % 2 == 1 and words[at - 1] in _VALUES and self._old(words[at])

    def _old(self, value: bytes) -> bool:
        """Whether a value is to be sealed anew. One that cannot be opened stays what it is."""
        if not isinstance(value, Opened):
            return True
        if not value.key_id:
            self._unreadable += 1
            return False
        return value.key_id != self._to

    async def _replace(self, changes: Sequence[Command]) -> None:
        if changes:
            self._found += len(changes)
            self._sealed += sum(await self._link.run(*changes, slow=True))

    async def _pages(self, key: str) -> AsyncIterator[dict[str, bytes]]:
        cursor: Any = b"0"
        while True:
            ((cursor, flat),) = await self._link.run(("HSCAN", key, cursor, "COUNT", _RECORDS), slow=True)
            yield {name.decode("utf-8", "replace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
            if not int(cursor):
                return

    def _counts(self, flow: str) -> list[str]:
        now = time.time()
        days = [day_of(now - 86400.0 * back) for back in range(KEPT.days + 1)]
        return [key for day in sorted(days) for key in (self._keys.popular(flow, day), self._keys.paths(flow, day))]


def _flat(fields: Any) -> list[Any]:
    # RESP3 answers a map or a flat list, RESP2 a flat list.
    return [word for pair in fields.items() for word in pair] if isinstance(fields, dict) else list(fields)


def _silent(_done: int, _total: int, _pass: int) -> None:
    """Tell nobody."""

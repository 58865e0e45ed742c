"""The FAQ of each flow: its entries, their history, the vectors of their wordings.

Invariant: an entry, its history and the version of the flow's FAQ are written by one script, and only by whoever has
read the version before: of two people who edit at the same time the second is told. The version stands in the flow's
own hash, which every question reads anyway; it is another one after every change, so what is approved holds in every
process with its next question, and what was never there costs nothing. Entries and history do not expire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agentic_flywheel.curated import FaqBook, FaqChange, FaqEntry
from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.store.codec import decode, encode, place
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link, Script

#: Changes of one entry that are kept, the newest.
_CHANGES_KEPT = 1000
#: Entries that are read in one go: some 25 us each.
_AT_ONCE = 100
#: Vectors can be made anew; those that nobody has needed for so long go.
_VECTOR_SECONDS = 90 * 86400

_log = logging.getLogger(__name__)

# KEYS: flow, FAQ, the entry's history. ARGV: version that was read, new version, id, entry ("": remove it with its
# history), how many changes are kept, whether the changes are the whole history, changes with the oldest first. Returns
# whether it was written.
WRITE = Script("""
if (redis.call('HGET', KEYS[1], 'faq') or '') ~= ARGV[1] then return 0 end
if ARGV[4] == '' then
    redis.call('HDEL', KEYS[2], ARGV[3])
    redis.call('DEL', KEYS[3])
else
    redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
    if ARGV[6] == '1' then redis.call('DEL', KEYS[3]) end
    for i = 7, #ARGV do redis.call('LPUSH', KEYS[3], ARGV[i]) end
    redis.call('LTRIM', KEYS[3], 0, ARGV[5] - 1)
end
redis.call('HSET', KEYS[1], 'faq', ARGV[2])
return 1
""")


class FaqStore:
    """The FAQ of one tenant's flows."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def versions(self, flows: Sequence[str]) -> dict[str, str]:
        """The flows that have (had) an FAQ, each with its version."""
        if not flows:
            return {}
        replies = await self._link.run(*(("HGET", self._keys.flow(flow), "faq") for flow in flows), slow=True)
        return {flow: raw.decode() for flow, raw in zip(flows, replies, strict=True) if raw}

    async def book(self, flow: str, before: FaqBook | None = None) -> FaqBook:
        """All entries of a flow; damaged ones are left out and counted. Those that are what they were in `before` are
        taken from there: a large FAQ changes entry by entry."""
        # The version first: what is read after it may be newer than it says, as the next look finds out, never older.
        version, fields = await self._link.run(
            ("HGET", self._keys.flow(flow), "faq"), ("HGETALL", self._keys.faq(flow)), slow=True
        )
        entries: dict[str, FaqEntry] = {}
        raws: dict[str, bytes] = {}
        damaged = 0
        for name, raw in _named(fields).items():
            id_ = name.decode("utf-8", "replace")
            raws[id_] = raw
            if before is not None and before.raw.get(id_) == raw and id_ in before.entries:
                entries[id_] = before.entries[id_]
                continue
            if len(raws) % _AT_ONCE == 0:
                await asyncio.sleep(0)  # so that reading a large book for the first time holds nobody up
            try:
                entries[id_] = decode(raw, FaqEntry)
            except StoreDamaged as error:
                damaged += 1
                _log.warning("an entry of the FAQ of flow %s is left out: %s", flow, error)
        return FaqBook(
            flow=flow, version=version.decode() if version else "", entries=entries, damaged=damaged, raw=raws
        )

    async def write(self, book: FaqBook, entry: FaqEntry, *changes: FaqChange, anew: bool = False) -> bool:
        """Write an entry down with what was done (oldest first; with `anew` that is its whole history); False where
        somebody changed the FAQ since `book`."""
        flow = book.flow
        call = WRITE.call(
            (self._keys.flow(flow), self._keys.faq(flow), self._keys.faq_changes(flow, entry.id)),
            book.version,
            new_id(),
            entry.id,
            encode(entry, place(self._keys.faq(flow), entry.id)),
            _CHANGES_KEPT,
            int(anew),
            *(encode(change, self._keys.faq_changes(flow, entry.id)) for change in changes),
        )
        written, _ = await self._link.run(call, ("SADD", self._keys.flows, flow), slow=True)
        return bool(written)

    async def remove(self, book: FaqBook, entry: str) -> bool:
        """Remove an entry and its history for good; False where somebody changed the FAQ since `book`."""
        flow = book.flow
        own = (self._keys.flow(flow), self._keys.faq(flow), self._keys.faq_changes(flow, entry))
        (removed,) = await self._link.run(
            WRITE.call(own, book.version, new_id(), entry, "", _CHANGES_KEPT, 0), slow=True
        )
        return bool(removed)

    async def changes(self, flow: str, entry: str) -> list[FaqChange]:
        """The changes of an entry, oldest first; damaged ones are left out."""
        (raw,) = await self._link.run(("LRANGE", self._keys.faq_changes(flow, entry), 0, -1), slow=True)
        found = []
        for item in reversed(raw):
            try:
                found.append(decode(item, FaqChange))
            except StoreDamaged as error:
                _log.warning("a change of an entry of the FAQ of flow %s is left out: %s", flow, error)
        return found

    async def vectors(self, flow: str, embedder: str) -> dict[str, bytes]:
        """The vectors of the flow's wordings (float16, little endian), by the wording's name."""
        (fields,) = await self._link.run(("HGETALL", self._keys.faq_vectors(flow, embedder)), slow=True)
        return {name.decode("utf-8", "replace"): raw for name, raw in _named(fields).items()}

    async def put_vectors(
        self, flow: str, embedder: str, vectors: Mapping[str, bytes], *, drop: Sequence[str] = ()
    ) -> None:
        """Keep vectors of wordings, and drop those of wordings that are gone."""
        key = self._keys.faq_vectors(flow, embedder)
        words = [word for name, vector in vectors.items() for word in (name, vector)]
        commands: list[Any] = [("HSET", key, *words)] if words else []
        commands += [("HDEL", key, *drop)] if drop else []
        if commands:
            await self._link.run(*commands, ("EXPIRE", key, _VECTOR_SECONDS), slow=True)


def _named(fields: Any) -> dict[bytes, bytes]:
    # RESP3 answers a map, RESP2 a flat list.
    return fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))

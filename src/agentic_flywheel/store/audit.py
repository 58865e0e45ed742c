"""The audit log: who did what to what, when and why, appended and never changed.

Invariant: entries are only added, one after the other: each has the next number and a digest (SHA-256) of the digest
before, the number and its own words, and is added by one script only where the entry that it follows is still the last.
So an entry that is changed, taken out, put in or moved breaks the chain from there on; whoever notes the last digest
elsewhere sees that the end was cut off, too. Whoever does something that is to be audited appends first and acts then,
so nothing was done that is not written down; an entry may tell of something that then failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from agentic_flywheel.callers import AuditEntry
from agentic_flywheel.errors import StoreDamaged, StoreUnavailable
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link, Script

_PAGE = 500
_ATTEMPTS = 100

# Adds an entry where the last one is still the one that it follows ("" for none); false where it is not.
APPEND = Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if (last and last[1] or '') ~= ARGV[1] then return false end
return redis.call('XADD', KEYS[1], '*', 'e', ARGV[2], 'n', ARGV[3], 'h', ARGV[4])
""")


class Row(msgspec.Struct, frozen=True):
    """One entry as it stands in the log, with what the chain says it must be."""

    id: str
    number: int
    digest: str
    body: bytes

    @property
    def entry(self) -> AuditEntry:
        """The entry. Raises `StoreDamaged`."""
        found = decode(self.body, AuditEntry)
        return msgspec.structs.replace(found, id=self.id, number=self.number, digest=self.digest)

    def follows(self, digest: str) -> bool:
        """Whether its digest is that of an entry after the one with `digest`."""
        return self.digest == _digest(digest, self.number, self.body)


class AuditLog:
    """The log of one tenant: a stream whose ids are the entries' ids."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def append(self, entry: AuditEntry) -> AuditEntry:
        """Add an entry; it again, with its place in the chain."""
        body = encode(entry, self._keys.audit)
        for _ in range(_ATTEMPTS):
            last = await self._rows("XREVRANGE", "+", "-", 1)
            before = last[0] if last else Row("", 0, "", b"")
            number = before.number + 1
            digest = _digest(before.digest, number, body)
            (raw,) = await self._link.run(APPEND.call((self._keys.audit,), before.id, body, number, digest), slow=True)
            if raw is not None:
                return msgspec.structs.replace(entry, id=raw.decode(), number=number, digest=digest)
            # Somebody was faster; or this very entry is there, since the script was sent again after a lost reply.
            for row in await self._rows("XRANGE", f"({before.id}" if before.id else "-", "+", 1):
                if row.digest == digest:
                    return row.entry
        raise StoreUnavailable(f"the audit log was written by others {_ATTEMPTS} times while an entry was to be added")

    async def newest(self, limit: int, *, before: str = "") -> list[AuditEntry]:
        """Up to `limit` entries, newest first; `before` (an id) goes on below that one."""
        rows = await self._rows("XREVRANGE", f"({before}" if before else "+", "-", limit)
        try:
            return [row.entry for row in rows]
        except StoreDamaged as error:
            raise nonsense(error, "an entry of the audit log") from error

    async def rows(self) -> AsyncIterator[Row]:
        """Every entry as it stands there, the oldest first; 500 a round trip."""
        after = "-"
        while page := await self._rows("XRANGE", after, "+", _PAGE):
            for row in page:
                yield row
            after = f"({page[-1].id}"

    async def _rows(self, command: str, first: str, last: str, limit: int) -> list[Row]:
        (found,) = await self._link.run((command, self._keys.audit, first, last, "COUNT", limit), slow=True)
        try:
            return [_row(*row) for row in found]
        except NONSENSE as error:
            raise nonsense(error, "the audit log") from error


def _row(id_: bytes, fields: Sequence[Any]) -> Row:
    said = dict(zip(fields[::2], fields[1::2], strict=True))
    number = said.get(b"n", b"0")
    return Row(id_.decode(), int(number) if number.isdigit() else 0, said.get(b"h", b"").decode(), said.get(b"e", b""))


def _digest(before: str, number: int, body: bytes) -> str:
    return hashlib.sha256(f"{before} {number} ".encode() + body).hexdigest()

"""The audit log: who did what to what, when and why, appended and never changed.

Invariant: entries are only added. Whoever does something that is to be audited appends first and acts then, so nothing
was done that is not written down; an entry may tell of something that then failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agentic_flywheel.callers import AuditEntry
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link


class AuditLog:
    """The log of one tenant: a stream whose ids are the entries' ids."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def append(self, entry: AuditEntry) -> str:
        """Add an entry; its id."""
        (raw,) = await self._link.run(("XADD", self._keys.audit, "*", "e", encode(entry)), slow=True)
        return str(raw.decode())

    async def newest(self, limit: int, *, before: str = "") -> list[AuditEntry]:
        """Up to `limit` entries, newest first; `before` (an id) goes on below that one."""
        top = f"({before}" if before else "+"
        call = ("XREVRANGE", self._keys.audit, top, "-", "COUNT", limit)
        (rows,) = await self._link.run(call, slow=True)
        return [_entry(row) for row in rows]


def _entry(row: Sequence[Any]) -> AuditEntry:
    try:
        id_, (_, raw) = row
        return msgspec.structs.replace(decode(raw, AuditEntry), id=id_.decode())
    except NONSENSE as error:
        raise nonsense(error, "an entry of the audit log") from error

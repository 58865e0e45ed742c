"""Everything that is kept of a tenant, page by page, for whoever writes it down elsewhere.

Invariant: what was acknowledged before a list was asked for is in it, whatever others write meanwhile; what comes or
goes while it is read may be in it or not. Memory holds the ids of one shard and one page of values, however much there
is. Lists are in an order of their own (by shard, then by id), so that reading can be taken up where it was cut off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.likeness import Profile, Report, SimilarMode
from agentic_flywheel.model import LASTING_GENERATION, Session, Turn
from agentic_flywheel.store.codec import decode
from agentic_flywheel.store.entries import EntryStore, Looked
from agentic_flywheel.store.failures import NONSENSE
from agentic_flywheel.store.keys import SHARDS, Keys, shard_of
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.session_headers import header_command, header_of

#: Values in one page.
PAGE = 200
#: Ids in one page of an index.
_IDS = 1000


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What people set for a flow's similar questions; None where they did not."""

    profile: Profile | None = None
    mode: SimilarMode | None = None
    max_error: float | None = None


class Scan:
    """Reads all of one tenant. `damaged` counts, by kind, values that could not be read and were left out."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._entries = EntryStore(link, keys)
        self.damaged: dict[str, int] = {}

    async def session_ids(self, *, user: str = "") -> AsyncIterator[list[str]]:
        """The ids of all sessions (of those that a user has a part in), in pages, by shard and id."""
        if user:
            found = await self.members(self._keys.user_sessions(user))
            shards = [sorted(id_ for id_ in found if shard_of(id_) == shard) for shard in range(SHARDS)]
            for ids in shards:
                yield ids
            return
        for shard in range(SHARDS):
            yield sorted(await self.members(self._keys.sessions(shard)))

    async def headers(self, sessions: Sequence[str]) -> list[Session]:
        """What is known of sessions, in the order given; those that are gone or damaged are left out."""
        found: list[Session] = []
        for start in range(0, len(sessions), PAGE):
            commands = [header_command(self._keys, one) for one in sessions[start : start + PAGE]]
            headers = (self._header(raw) for raw in await self._link.run(*commands, slow=True))
            found += [header for header in headers if header is not None]
        return found

    async def sessions(self, ids: Sequence[str]) -> list[tuple[Session | None, list[Turn], str]]:
        """Sessions with their oldest turns, one round trip; with each, where its turns go on ("" at their end).

        Those that are gone are left out. One whose header cannot be read has None in its place: its turns may be sound.
        """
        commands = [c for one in ids for c in (header_command(self._keys, one), self._turns_command(one, "-"))]
        replies = await self._link.run(*commands, slow=True) if commands else []
        found = []
        for raw, page in zip(replies[::2], replies[1::2], strict=True):
            header = self._header(raw)
            if header is not None or page:
                found.append((header, *self._turns(page)))
        return found

    async def turns(self, session: str, edge: str) -> AsyncIterator[list[Turn]]:
        """The turns of a session from a place on, oldest first."""
        while edge:
            turns, edge = await self.page(session, edge)
            yield turns

    async def page(self, session: str, edge: str) -> tuple[list[Turn], str]:
        """One page of them, and where to read on ("" at their end)."""
        (reply,) = await self._link.run(self._turns_command(session, edge), slow=True)
        return self._turns(reply)

    def _turns_command(self, session: str, edge: str) -> Command:
        return ("XRANGE", self._keys.turns(session), edge, "+", "COUNT", PAGE)

    def _turns(self, page: Any) -> tuple[list[Turn], str]:
        """The turns of a page, and where to read on."""
        turns = []
        for _place, fields in page:
            try:
                turns.append(decode(_only(fields, b"t"), Turn))
            except StoreDamaged:
                self._count("turn")
        return turns, "(" + page[-1][0].decode() if len(page) == PAGE else ""

    def _header(self, raw: Any) -> Session | None:
        try:
            return header_of(raw)
        except StoreDamaged:
            self._count("session")
            return None

    async def entry_keys(self, flow: str, *, generation: int | None) -> AsyncIterator[list[str]]:
        """The keys of a flow's answers of one generation (None: of all that are not reclaimed yet), shard by shard,
        each in order of the keys; the marks of withdrawn ones are among them."""
        kept = {str(generation), str(LASTING_GENERATION)}
        for shard in range(SHARDS):
            members = (one.split("|", 1) for one in await self.members(self._keys.entries(flow, shard)))
            yield sorted(key for of, key in members if generation is None or of in kept)

    async def entries(self, keys: Sequence[str]) -> list[tuple[str, Looked, float]]:
        """Stored answers with the seconds that Redis will still keep them; those that are gone are left out."""
        commands = [command for key in keys for command in (("GET", key), ("PTTL", key))]
        replies = await self._link.run(*commands, slow=True) if commands else []
        found = []
        for key, raw, left in zip(keys, replies[::2], replies[1::2], strict=True):
            looked = self._entries.looked(raw)
            if looked.damaged:
                self._count("entry")
            elif looked.entry is not None and left > 0:
                found.append((key, looked, left / 1000))
        return found

    async def decided(self, flow: str) -> Decided:
        """What people set for a flow's similar questions."""
        command = ("HMGET", self._keys.similar(flow), "profile", "mode", "max_error")
        ((profile, mode, max_error),) = await self._link.run(command, slow=True)
        try:
            return Decided(
                profile=Profile(profile.decode()) if profile else None,
                mode=SimilarMode(mode.decode()) if mode else None,
                max_error=float(max_error) if max_error else None,
            )
        except NONSENSE:
            self._count("similar")
            return Decided()

    async def blocked(self, flow: str) -> list[str]:
        """The pairs of a flow's questions (their digests) that are never taken for each other."""
        (members,) = await self._link.run(("SMEMBERS", self._keys.blocked(flow)), slow=True)
        return sorted(raw.decode() for raw in members)

    async def reports(self) -> AsyncIterator[list[Report]]:
        """What people said of answers, oldest first."""
        edge = "-"
        while True:
            command = ("XRANGE", self._keys.reports, edge, "+", "COUNT", PAGE)
            (reply,) = await self._link.run(command, slow=True)
            page = []
            for _place, fields in reply:
                try:
                    page.append(decode(_only(fields, b"r"), Report))
                except StoreDamaged:
                    self._count("report")
            if page:
                yield page
            if len(reply) < PAGE:
                return
            edge = "(" + reply[-1][0].decode()

    async def members(self, index: str) -> set[str]:
        """All members of a sorted set, in no order."""
        cursor: Any = b"0"
        found: set[str] = set()
        while True:
            ((cursor, flat),) = await self._link.run(("ZSCAN", index, cursor, "COUNT", _IDS), slow=True)
            found.update(raw.decode() for raw in flat[::2])
            if not int(cursor):
                return found

    def _count(self, kind: str) -> None:
        self.damaged[kind] = self.damaged.get(kind, 0) + 1


def _only(fields: Any, name: bytes) -> bytes:
    # RESP3 answers a map, RESP2 a flat list.
    raw = fields.get(name) if isinstance(fields, dict) else fields[1]
    return raw or b""

"""What happened since somebody last looked: the feed that every index of history follows.

    turn T session S [turn ...]      turns were appended; their fields are pairs
    gone S                           a session was deleted
    gone_turn T session S            one turn was
    changed S                        a session's title or tags

Invariant: an event tells where to look, never what is there. Whoever follows reads the session itself from where it got
to, so an event that is read twice, late, or not in the order of another shard does no harm, and one that was lost is
made good by the next event of its session. Streams are capped: a reader whose place was trimmed is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.findings import FeedPage
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.store.codec import decode
from agentic_flywheel.store.keys import SHARDS, Keys
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.session_headers import header_command, header_of

#: Events of one shard in one page, and turns of one session in one page.
PAGE = 500
TAIL = 200
#: Before the first event of a stream.
BEGINNING = "0-0"


class Tail(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a session holds after a place in its stream, oldest first; `session` None: it is gone. `reached` is where to
    read on; damaged turns are passed over and counted."""

    session: Session | None
    turns: tuple[tuple[str, Turn], ...] = ()
    reached: str = ""
    damaged: int = 0
    more: bool = False


class Feed:
    """The events of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def ends(self) -> dict[int, str]:
        """Where the feed ends now, by shard: whoever reads all sessions after this misses nothing."""
        commands = [("XREVRANGE", feed, "+", "-", "COUNT", 1) for feed in self._keys.feeds()]
        replies = await self._link.run(*commands, slow=True)
        return {shard: reply[0][0].decode() if reply else BEGINNING for shard, reply in enumerate(replies)}

    async def news(self, places: Mapping[int, str], *, slow: bool = True) -> FeedPage:
        """What came in after `places` (one for each shard); one round trip. Raises `StoreError`."""
        feeds = self._keys.feeds()
        # The event at one's place is read again: where it is gone, those behind it may be gone as well. From the
        # beginning there is no such event; then a page that is full may be what is left of many more.
        commands = [("XRANGE", feeds[shard], place, "+", "COUNT", PAGE + 1) for shard, place in places.items()]
        replies = await self._link.run(*commands, slow=slow)
        told = _Told()
        for (shard, place), page in zip(places.items(), replies, strict=True):
            first = page[0][0].decode() if page else ""
            lost = len(page) > PAGE if place == BEGINNING else first != place
            if lost:
                told.trimmed.append(shard)
                continue
            events = page if place == BEGINNING else page[1:]
            told.more |= len(page) > PAGE
            for id_, fields in events:
                told.places[shard] = id_.decode()
                told.take(fields)
        return told.page()

    async def tails(self, after: Mapping[str, str], *, count: int = TAIL) -> dict[str, Tail]:
        """What sessions hold after a place in their streams ("": from the beginning), at most `count` turns of each."""
        if not after:
            return {}
        keys = self._keys
        commands = [
            command
            for session, place in after.items()
            for command in (
                header_command(keys, session),
                ("XRANGE", keys.turns(session), f"({place}" if place else "-", "+", "COUNT", count),
            )
        ]
        replies = await self._link.run(*commands, slow=True)
        pairs = zip(after.items(), replies[::2], replies[1::2], strict=True)
        return {session: _tail(header, entries, place, count) for (session, place), header, entries in pairs}

    async def sessions_of(self, shard: int) -> AsyncIterator[list[str]]:
        """The ids of all sessions of one shard, in pages; one that comes or goes meanwhile may be missed or repeated:
        its event tells of it."""
        cursor = b"0"
        while True:
            (reply,) = await self._link.run(
                ("ZSCAN", self._keys.sessions(shard), cursor, "COUNT", PAGE),
                slow=True,
            )
            cursor, flat = reply
            yield [raw.decode() for raw in flat[::2]]
            if not int(cursor):
                return

    async def sessions_count(self) -> int:
        """How many sessions there are."""
        return sum(await self._link.run(*(("ZCARD", self._keys.sessions(s)) for s in range(SHARDS)), slow=True))


class _Told:
    """Events of a page, as they are put together."""

    def __init__(self) -> None:
        self.grown: dict[str, None] = {}
        self.turns: dict[tuple[str, str], None] = {}
        self.gone: dict[str, None] = {}
        self.gone_turns: dict[tuple[str, str], None] = {}
        self.changed: dict[str, None] = {}
        self.places: dict[int, str] = {}
        self.trimmed: list[int] = []
        self.events = 0
        self.more = False

    def take(self, fields: Sequence[bytes]) -> None:
        """One event. What is none of ours is passed over."""
        self.events += 1
        names = [raw.decode("utf-8", "replace") for raw in fields]
        match names:
            case ["turn", *_]:
                self.grown.update(dict.fromkeys(names[3::4]))
                self.turns.update(dict.fromkeys(zip(names[3::4], names[1::4], strict=False)))
            case ["gone", session]:
                self.gone[session] = None
            case ["gone_turn", turn, "session", session]:
                self.gone_turns[session, turn] = None
            case ["changed", session]:
                self.changed[session] = None

    def page(self) -> FeedPage:
        return FeedPage(
            grown=tuple(self.grown),
            turns=tuple(self.turns),
            gone=tuple(self.gone),
            gone_turns=tuple(self.gone_turns),
            changed=tuple(self.changed),
            places=self.places,
            trimmed=tuple(self.trimmed),
            events=self.events,
            more=self.more,
        )


def _tail(header: Sequence[bytes | None], entries: Any, place: str, count: int) -> Tail:
    try:
        session = header_of(header)
    except StoreDamaged:  # its turns may be sound all the same
        session = Session(id="")
    if session is None:
        return Tail(session=None)
    turns: list[tuple[str, Turn]] = []
    damaged = 0
    for id_, fields in entries:
        place = id_.decode()
        try:
            turns.append((place, decode(fields[1], Turn)))
        except StoreDamaged:
            damaged += 1
    return Tail(session=session, turns=tuple(turns), reached=place, damaged=damaged, more=len(entries) == count)

"""Brings an index of history up to date: from the feed of events, or from all sessions where that does not reach.

Invariant: the index is behind nothing that was acknowledged before `catch_up` was called. Events only say where to
look: what is applied is read from the sessions, from where the index got to, so a lost event is made good by the next
one of its session, and whoever is killed in the middle is followed by somebody who does the rest again without harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from agentic_flywheel.errors import IndexUnusable
from agentic_flywheel.findings import ANSWER_CHARACTERS, FeedPage, HistoryDoc, Reach, SessionMark
from agentic_flywheel.flights import Flights
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.policy.visibility import audience_of
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.search.history.words import stems_of
from agentic_flywheel.store.feed import Tail
from agentic_flywheel.store.keys import SHARDS, shard_of
from agentic_flywheel.store.store import Store

#: Told of a rebuild: what is done ("sessions", "vectors"), how much of it, and of how much.
Progress = Callable[[str, int, int], None]

#: How long a search waits for another process that brings the index up to date, in seconds.
PATIENCE = 2.0
#: How long it waits for the last traces of deleted turns to be overwritten; then that goes on behind its back.
_SCRUB_SECONDS = 0.25
#: How long to wait before trying again where a reader stands in the way.
_SCRUB_PAUSES = (0.02, 0.1, 0.3, 0.6, 1.0)
#: Sessions that are read together; of each, `store.feed.TAIL` turns.
_TOGETHER = 25
_BUSY = "Another process is bringing the index of history up to date: the newest turns may be missing for a moment."
_DAMAGED = "{} stored turn(s) are damaged and cannot be found."

_log = logging.getLogger(__name__)


class Freshness(msgspec.Struct, frozen=True, gc=False):
    """What is missing of an index after all: events not taken in, and sentences for people."""

    behind: int = 0
    warnings: tuple[str, ...] = ()


class Indexing:
    """Follows the feed of one tenant for one index."""

    def __init__(self, store: Store, index: HistoryIndex, flights: Flights) -> None:
        self._store = store
        self.index = index
        self._flights = flights
        self._lock = asyncio.Lock()
        self._begun = 0
        self._done = 0
        self._last = Freshness()
        self._places: Mapping[int, str] | None = None
        self._sequence: int | None = None
        self._scrub_due = True  # a process that was killed may have left something
        self.building: float | None = None

    async def catch_up(self) -> Freshness:
        """Take in everything that was acknowledged before this call. Raises `StoreError`, `IndexUnusable`."""
        wanted = self._begun + 1  # one that is under way may have looked too early
        async with self._lock:
            if self._done < wanted:
                self._begun += 1
                number = self._begun
                self._last = await self._catch_up()
                self._done = number
            return self._last

    async def sequence(self) -> int:
        """The number of the newest turn in the index: as the last `catch_up` saw it where that had nothing to do."""
        return self._sequence if self._sequence is not None else (await self.index.reach()).sequence

    async def rebuild(self, progress: Progress | None = None) -> Freshness:
        """Read everything anew. Raises `StoreError`, `IndexUnusable`."""
        async with self._lock, self.index.writing(patience=600.0) as mine:
            if not mine:
                return Freshness(warnings=(_BUSY,))
            self._sequence = None
            damaged = await self._fill(progress)
            return Freshness(warnings=_damage(damaged))

    async def drop(self) -> None:
        """Give the index up. Raises `StoreError`, `IndexUnusable`."""
        async with self._lock, self.index.writing(patience=PATIENCE) as mine:
            if not mine:
                raise IndexUnusable(_BUSY)
            await self.index.drop()

    async def _catch_up(self) -> Freshness:
        self._sequence = None
        (places, sequence), page = await self._news()
        if page is not None and not page.events and not page.trimmed:
            await self._scrub()
            self._sequence = sequence
            return Freshness()
        async with self.index.writing(patience=PATIENCE) as mine:
            if not mine:
                return Freshness(page.events if page is not None else 0, (_BUSY,))
            places, _ = await self.index.reach()
            if places is None:
                damaged = await self._fill(None)
                return Freshness(warnings=_damage(damaged))
            damaged = await self._follow(dict(places))
        await self._scrub()
        return Freshness(warnings=_damage(damaged))

    async def _news(self) -> tuple[Reach, FeedPage | None]:
        """How far the index has come, and what happened since; None where it must be filled first. What it had reached
        when one last looked is mostly what it has reached still, so both are asked for at once."""
        guess, page = self._places, None
        if guess is None:
            reach = await self.index.reach()
        else:
            reach, page = await asyncio.gather(self.index.reach(), self._store.feed.news(guess, slow=False))
        if reach.places is None:
            page = None
        elif reach.places != guess:
            page = await self._store.feed.news(reach.places, slow=False)
        self._places = reach.places
        return reach, page

    async def _follow(self, places: dict[int, str]) -> int:
        damaged = 0
        while True:
            page = await self._store.feed.news(places)
            if page.trimmed:
                damaged += await self._read_shards(page.trimmed)
                places |= (await self.index.reach()).places or {}
            damaged += await self._take(page)
            if page.places:
                await self.index.keep_places(page.places)
                places |= page.places
            if not page.more:
                self._places = places
                return damaged

    async def _take(self, page: FeedPage) -> int:
        if page.gone or page.gone_turns:
            self._scrub_due = True
            await self.index.remove(sessions=page.gone, turns=page.gone_turns)
        return await self._read(dict.fromkeys((*page.grown, *page.gone, *page.changed)))

    async def _fill(self, progress: Progress | None) -> int:
        """Read every session. Whoever is stopped over it leaves an index that has no places: it is filled again."""
        ends = await self._store.feed.ends()
        await self.index.clear()
        total = await self._store.feed.sessions_count()
        done = damaged = 0
        self.building = 0.0
        try:
            for shard in range(SHARDS):
                async for sessions in self._store.feed.sessions_of(shard):
                    for part in _parts(list(dict.fromkeys(sessions)), _TOGETHER):
                        damaged += await self._read(part)
                        done += len(part)
                        self.building = min(1.0, done / max(1, total))
                        if progress is not None:
                            progress("sessions", min(done, total), total)
            await self.index.keep_places(ends)
        finally:
            self.building = None
        return damaged

    async def _read_shards(self, shards: Sequence[int]) -> int:
        """Events of these shards are lost: forget their sessions, and read all of them anew."""
        ends = await self._store.feed.ends()
        lost = [session for session in await self.index.sessions() if shard_of(session) in shards]
        await self.index.remove(sessions=lost)
        self._scrub_due = True
        damaged = 0
        for shard in shards:
            async for sessions in self._store.feed.sessions_of(shard):
                for part in _parts(list(dict.fromkeys(sessions)), _TOGETHER):
                    damaged += await self._read(part)
        await self.index.keep_places({shard: ends[shard] for shard in shards})
        return damaged

    async def _read(self, sessions: Iterable[str]) -> int:
        """Read sessions on from where the index got to, and take them in; how many turns were damaged."""
        damaged = 0
        for part in _parts(list(sessions), _TOGETHER):
            marks = await self.index.marks(part)
            after = {session: marks[session].stream_id if session in marks else "" for session in part}
            while after:
                tails = await self._store.feed.tails(after)
                gone = [session for session, tail in tails.items() if tail.session is None and session in marks]
                if gone:
                    self._scrub_due = True
                    await self.index.remove(sessions=gone)
                docs, marks = _docs_of(tails, marks)
                await self.index.apply(docs, marks)
                await self.index.retag({s: tail.session.tags for s, tail in tails.items() if tail.session is not None})
                damaged += sum(tail.damaged for tail in tails.values())
                after = {session: tail.reached for session, tail in tails.items() if tail.more}
        return damaged

    async def _scrub(self) -> None:
        if self._scrub_due:
            self._scrub_due = False
            await asyncio.wait([self._flights.go_on(self._scrubbed())], timeout=_SCRUB_SECONDS)

    async def _scrubbed(self) -> None:
        """Who stands in the way reads for a moment; what is left even so waits for the next look."""
        for pause in _SCRUB_PAUSES:
            if await self.index.scrub():
                return
            await asyncio.sleep(pause)
        self._scrub_due = True


def _docs_of(
    tails: Mapping[str, Tail], marks: Mapping[str, SessionMark]
) -> tuple[list[HistoryDoc], dict[str, SessionMark]]:
    docs: list[HistoryDoc] = []
    reached: dict[str, SessionMark] = {}
    for name, tail in tails.items():
        if tail.session is None:
            continue
        first = marks[name].turns if name in marks else 0
        turns = enumerate(tail.turns, first)
        docs += [doc_of(turn, tail.session, place=place, stream_id=where) for place, (where, turn) in turns]
        reached[name] = SessionMark(tail.reached, first + len(tail.turns))
    return docs, reached


def doc_of(turn: Turn, session: Session, *, place: int, stream_id: str = "") -> HistoryDoc:
    """What an index is given of a turn."""
    answer = turn.answer[:ANSWER_CHARACTERS]
    return HistoryDoc(
        turn_id=turn.id,
        session_id=turn.session_id,
        at=turn.at,
        question=turn.question,
        answer=answer,
        question_words=stems_of(turn.question),
        answer_words=stems_of(answer),
        flow=turn.flow,
        user=turn.user,
        outcome=turn.outcome.value,
        tags=session.tags,
        audience=audience_of(turn.question, private=turn.private, own=turn.own),
        place=place,
        stream_id=stream_id,
    )


def _damage(count: int) -> tuple[str, ...]:
    return (_DAMAGED.format(count),) if count else ()


def _parts(values: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))

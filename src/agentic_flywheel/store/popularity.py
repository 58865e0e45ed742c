"""How often each question was asked, and what was asked after it: one record per wording (or step) and day.

Invariant: a record is counted up, and what was trimmed for it goes, in one script, so a day never holds more than a
quarter above `MOST` records, however many questions are asked; what is asked often stays, since those asked least and
longest ago go first. Users stand in no record: of each asker there are 32 bits of a digest, and no more than
`MARKS` of them. Everything expires after 90 days.

    afw:v1:T:popular:{F}:<yyyymmdd>   hash   wording -> record
    afw:v1:T:paths:{F}:<yyyymmdd>     hash   what was asked before > wording -> record
    afw:v1:T:popular:{F}:joined       hash   wording -> the one that it is another wording of, and the day it was last
    afw:v1:T:popular:{F}:hidden       set    wordings that are never counted
    afw:v1:T:popular:{F}:delivered    set    turns of an outage that were counted when they were delivered

Wordings are named by the hash that their stored answer's key has. A record is `_HEAD` (version, times asked, times
served from memory, microseconds saved, first and last time, number of marks), the marks in rising order, the text.
"""

from __future__ import annotations

import logging
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Turn
from agentic_flywheel.store.askers import mark_of
from agentic_flywheel.store.codec import Stored, place, stored
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.popularity_scripts import COUNT, JOIN, KEEP, PART, REJOIN, SUBTRACT
from agentic_flywheel.store.seals import Seals

KEPT = timedelta(days=90)
HIDDEN = timedelta(days=365)
#: Records of one flow and day; some 180 bytes each (docs/performance.md).
MOST = 5_000
#: Other wordings of one flow's questions that are remembered.
MOST_JOINED = 10_000
#: Askers are counted exactly up to so many, and estimated beyond (see `insight.askers`).
MARKS = 64
#: Characters that are kept of a question.
LONGEST_TEXT = 400
#: What separates the two wordings in the name of a step.
STEP = ">"

#: Records that one script counts, and that one round trip reads, about.
_BATCH = 100
_PAGE = 5_000
_HEAD = struct.Struct(">BIIQIIB")
_VERSION = 1

_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """Where something is counted: a flow's day (`yyyymmdd`), the wording's or the step's name."""

    flow: str
    day: str
    name: str

    @property
    def is_step(self) -> bool:
        """Whether this is a step from one question to the next."""
        return STEP in self.name


class Count:
    """What is to be added to one record."""

    __slots__ = ("asked", "first", "last", "marks", "saved_us", "served", "taken_for", "text")

    def __init__(self, text: str, at: float) -> None:
        self.asked = 0
        self.served = 0
        self.saved_us = 0
        self.first = self.last = int(at)
        self.text = text
        self.taken_for = ""
        self.marks: set[int] = set()


class Record(NamedTuple):
    """One wording or step on one day; times are epoch seconds, `marks` those of its askers, the smallest ones."""

    asked: int
    served: int
    saved_us: int
    first: int
    last: int
    marks: tuple[int, ...]
    text: str


class Popularity:
    """The records of one tenant. `damaged` counts those that were found to be something else."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self.damaged = 0

    def commands(self, counts: Mapping[Told, Count]) -> list[Command]:
        """What to send to add up; at most 100 records with each script, so that none holds up the server."""
        rows: defaultdict[tuple[str, str, bool], list[str | bytes]] = defaultdict(list)
        for told, count in counts.items():
            rows[told.flow, told.day, told.is_step] += (told.name, self._written(told, count), count.taken_for)
        commands = []
        kept = int(KEPT.total_seconds())
        for (flow, day, is_step), found in rows.items():
            records = self._key_of(flow, day, is_step=is_step)
            keys = (records, self._keys.joined(flow), self._keys.hidden(flow), self._keys.delivered(flow))
            for start in range(0, len(found), 3 * _BATCH):
                words = found[start : start + 3 * _BATCH]
                commands.append(COUNT.call(keys, MOST, MARKS, MOST_JOINED, kept, day, *words))
        return commands

    def delivered_commands(self, turns: Iterable[Turn]) -> list[Command]:
        """What to send to count turns that were kept while Redis was away; doing it again changes nothing."""
        commands: list[Command] = []
        for turn in turns:
            count = Count(turn.question, turn.at)
            count.asked, count.taken_for = 1, f"!{turn.id}"
            count.marks.add(mark_of(turn.user or turn.session_id, self._keys.root))
            commands += self.commands({Told(turn.flow, day_of(turn.at), turn.counts_as): count})
        return commands

    def _written(self, told: Told, count: Count | Record) -> Stored:
        marks = sorted(count.marks)[:MARKS]
        figures = (count.asked, count.served, count.saved_us, count.first, count.last, len(marks))
        head = struct.pack(f">BIIQIIB{len(marks)}I", _VERSION, *figures, *marks)
        at = place(self._key_of(told.flow, told.day, is_step=told.is_step), told.name)
        return stored(head + count.text[:LONGEST_TEXT].encode(), at, lead=len(head))

    async def restore(
        self, flow: str, day: str, records: Mapping[str, Record], *, is_step: bool, now: float
    ) -> list[int]:
        """Put records of a day back: for each 1 where that was done, 0 where as much was counted here already, -1
        where it is never counted."""
        left = (datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1) + KEPT).timestamp() - now
        keys, done = (self._key_of(flow, day, is_step=is_step), self._keys.hidden(flow)), list[int]()
        named = list(records.items())
        for start in range(0, len(named), _BATCH):
            words: list[str | bytes] = []
            for name, record in named[start : start + _BATCH]:
                words += (name, self._written(Told(flow, day, name), record))
            (reply,) = await self._link.run(KEEP.call(keys, max(1, int(left)), *words), slow=True)
            done += map(int, reply)
        return done

    async def rejoin(self, flow: str, joined: Mapping[str, tuple[str, str]]) -> int:
        """Put back which wordings are one question, as `joined_on` gave it; how many were not known here."""
        words = [word for name, (head, day) in joined.items() for word in (name, head + day)]
        kept = int(KEPT.total_seconds())
        (reply,) = await self._link.run(REJOIN.call((self._keys.joined(flow),), kept, *words), slow=True)
        return sum(map(int, reply))

    async def joined_on(self, flow: str) -> dict[str, tuple[str, str]]:
        """What `joined` says, each with the day on which that was last seen."""
        (reply,) = await self._link.run(("HGETALL", self._keys.joined(flow)), slow=True)
        return {name.decode(): (raw[:32].decode(), raw[32:].decode()) for name, raw in _pairs(reply)}

    async def joined(self, flow: str) -> dict[str, str]:
        """Which of a flow's wordings are other wordings of which; those that stand for all lead to themselves."""
        return {name: head for name, (head, _) in (await self.joined_on(flow)).items()}

    async def days(
        self, flows: Sequence[str], days: Sequence[str], *, steps: bool = False, after: Iterable[str] | None = None
    ) -> AsyncIterator[tuple[str, dict[str, Record]]]:
        """Every flow's records day by day, empty days left out. Of steps, only those `after` these wordings.

        Several small days are read together, a large one alone: nobody waits long behind one of them.
        """
        places = [(flow, self._key_of(flow, day, is_step=steps)) for flow in flows for day in days]
        wanted = None if after is None else set(after)
        sizes = await self._link.run(*(("HLEN", key) for _, key in places), slow=True) if places else []
        groups: list[list[tuple[str, str]]] = []
        room = 0
        for each, size in zip(places, sizes, strict=True):
            if size > room:
                groups.append([])
                room = _PAGE
            if size:
                groups[-1].append(each)
                room -= size
        for group in groups:
            replies = await self._link.run(*(("HGETALL", key) for _, key in group), slow=True)
            for (flow, key), reply in zip(group, replies, strict=True):
                yield flow, self._records(key, reply, wanted)

    async def subtract(self, counts: Mapping[Told, Sequence[tuple[bool, int]]]) -> int:
        """Take back turns that were counted: for each whether it was served from memory, and its asker's mark. How
        many records are gone with that."""
        rows: defaultdict[str, list[Any]] = defaultdict(list)
        for told, turns in counts.items():
            key = self._key_of(told.flow, told.day, is_step=told.is_step)
            for served, mark in turns:
                rows[key] += [told.name, 1, int(served), mark.to_bytes(4, "big")]
        calls = [
            SUBTRACT.call((key,), *words[start : start + 4 * _BATCH])
            for key, words in rows.items()
            for start in range(0, len(words), 4 * _BATCH)
        ]
        return sum(await self._link.run(*calls, slow=True)) if calls else 0

    async def part(self, flow: str, name: str, other: str) -> bool:
        """Two wordings are different questions; whether they were one."""
        (done,) = await self._link.run(PART.call((self._keys.joined(flow),), name, other), slow=True)
        return bool(done)

    async def join(self, flow: str, name: str, other: str) -> bool:
        """Two wordings are one question; whether that is new."""
        words = (name, other, day_of(time.time()), int(KEPT.total_seconds()))
        (done,) = await self._link.run(JOIN.call((self._keys.joined(flow),), *words), slow=True)
        return bool(done)

    async def hide(self, flow: str, names: Sequence[str]) -> None:
        """Count wordings no more, for a year."""
        key = self._keys.hidden(flow)
        await self._link.run(("SADD", key, *names), ("EXPIRE", key, int(HIDDEN.total_seconds())), slow=True)

    async def steps(self, flow: str, days: Sequence[str]) -> AsyncIterator[tuple[str, list[str]]]:
        """The names of every step of a flow, day by day."""
        for day in days:
            (reply,) = await self._link.run(("HGETALL", self._keys.paths(flow, day)), slow=True)
            if reply:
                yield day, [name.decode("ascii", "replace") for name, _ in _pairs(reply)]

    async def remove(self, flow: str, names: Sequence[str], days: Sequence[str]) -> int:
        """Remove wordings from days, and what they were joined with; how many records are gone."""
        gone = [("HDEL", self._keys.popular(flow, day), *names) for day in days]
        _, *replies = await self._link.run(("HDEL", self._keys.joined(flow), *names), *gone, slow=True)
        return int(sum(replies))

    async def remove_steps(self, flow: str, days: Mapping[str, Sequence[str]]) -> int:
        """Remove steps from days; how many records are gone."""
        gone = [("HDEL", self._keys.paths(flow, day), *found) for day, found in days.items() if found]
        return int(sum(await self._link.run(*gone, slow=True))) if gone else 0

    def _key_of(self, flow: str, day: str, *, is_step: bool) -> str:
        return self._keys.paths(flow, day) if is_step else self._keys.popular(flow, day)

    def _records(self, key: str, reply: Any, wanted: set[str] | None) -> dict[str, Record]:
        found = {}
        for raw_name, raw in _pairs(reply):
            name = raw_name.decode("ascii", "replace")
            if wanted is None or name.partition(STEP)[0] in wanted:
                record = _record_of(raw, self._link.seals, place(key, name))
                if record is not None:
                    found[name] = record
                else:
                    self.damaged += 1
                    _log.warning("a count of questions is left out: it is not what was written")
        return found


def text_place(raw: bytes) -> int | None:
    """Where the text of a record begins; None where it is none."""
    if len(raw) < _HEAD.size or raw[0] != _VERSION:
        return None
    return _HEAD.size + 4 * raw[_HEAD.size - 1]


def _record_of(raw: bytes, seals: Seals, at: str) -> Record | None:
    try:
        version, asked, served, saved_us, first, last, count = _HEAD.unpack_from(raw)
        marks = struct.unpack_from(f">{count}I", raw, _HEAD.size)
        text = seals.open(raw[_HEAD.size + 4 * count :], at).decode()
    except (struct.error, UnicodeDecodeError, StoreDamaged):
        return None
    return Record(asked, served, saved_us, first, last, marks, text) if version == _VERSION else None


def _pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    # RESP3 answers a map, RESP2 a flat list.
    return list(reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True))

"""How often each question was asked, and what was asked after it: one record per wording (or step) and day.

Invariant: a record is counted up, and what was trimmed for it goes, in one script, so a day never holds more than a
quarter above `MOST` records, however many questions are asked; what is asked often stays, since those asked least and
longest ago go first. Users stand in no record: of each asker there are 32 bits of a digest, and no more than
`MARKS` of them. Everything expires after 90 days.

    afw:v1:T:popular:{F}:<yyyymmdd>   hash   wording -> record
    afw:v1:T:paths:{F}:<yyyymmdd>     hash   what was asked before > wording -> record
    afw:v1:T:popular:{F}:joined       hash   wording -> the one that it is another wording of, and the day it was last
    afw:v1:T:popular:{F}:hidden       set    wordings that are never counted

Wordings are named by the hash that their stored answer's key has. A record is `_HEAD` (version, times asked, times
served from memory, microseconds saved, first and last time, number of marks), the marks in rising order, the text.
"""

from __future__ import annotations

import logging
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.store.codec import place, stored
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script
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

# KEYS: the day's records, what was joined, what is hidden. ARGV: how many records, marks and joins are kept; how long,
# in seconds; the day's number; then for each record its name, what is to be added to it (in the form of a record), and
# the wording that it was taken for ("" for none).
COUNT = Script("""
local records, joined, hidden = KEYS[1], KEYS[2], KEYS[3]
local most, most_marks, most_joined = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept, today = ARGV[4], tonumber(ARGV[5])
local HEAD = '>BI4I4I8I4I4B'

local function head_of(name)  -- the wording that stands for all, and whether anything is known of this one
    for hop = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up then return name, hop > 0 end
        up = string.sub(up, 1, 32)
        if up == name then return name, true end
        name = up
    end
    return name, true
end

local function note(name, head)
    local known = redis.call('HGET', joined, name)
    local text = head .. today
    if known ~= text then redis.call('HSET', joined, name, text) end
end

local function join(name, other)
    local mine, known = head_of(name)
    local theirs, others_known = head_of(other)
    if mine == theirs then
        if mine ~= name then note(name, mine) end
        if theirs ~= other then note(other, theirs) end
        note(mine, mine)
    elseif known and not others_known then  -- what is new comes to what is known, so that its name stays
        note(other, mine)
        note(mine, mine)
    elseif mine == name then
        note(name, theirs)
        note(theirs, theirs)
    end  -- else both belong somewhere already: one more likeness does not make two large questions one
end

local function marks_with(old, new)
    if old == '' then return new end
    local full = #old >= most_marks * 4
    if full and struct.unpack('>I4', new) >= struct.unpack('>I4', old, #old - 3) then return old end
    local merged, i, j = {}, 1, 1
    local a, b = struct.unpack('>I4', old), struct.unpack('>I4', new)
    while #merged < most_marks and (a or b) do
        if a and (not b or a <= b) then
            merged[#merged + 1] = string.sub(old, i, i + 3)
            if a == b then
                j = j + 4
                b = j <= #new and struct.unpack('>I4', new, j) or nil
            end
            i = i + 4
            a = i <= #old and struct.unpack('>I4', old, i) or nil
        else
            merged[#merged + 1] = string.sub(new, j, j + 3)
            j = j + 4
            b = j <= #new and struct.unpack('>I4', new, j) or nil
        end
    end
    return table.concat(merged)
end

local function readable(raw) return #raw >= 26 and string.byte(raw) == 1 end

local some_hidden = redis.call('EXISTS', hidden) == 1
local fresh, joins = 0, 0
for i = 6, #ARGV, 3 do
    local name, added, taken_for = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local never = false
    if some_hidden then
        for _, part in ipairs(redis.call('SMISMEMBER', hidden, string.sub(name, 1, 32), string.sub(name, -32))) do
            never = never or part == 1
        end
    end
    if not never then
        local raw = redis.call('HGET', records, name)
        if raw and readable(raw) then
            local _, asked, served, saved, first, last, count = struct.unpack(HEAD, raw)
            local _, a, s, us, from, to, more = struct.unpack(HEAD, added)
            local marks = marks_with(string.sub(raw, 27, 26 + 4 * count), string.sub(added, 27, 26 + 4 * more))
            local head = struct.pack(HEAD, 1, asked + a, served + s, saved + us, math.min(first, from),
                math.max(last, to), #marks / 4)
            redis.call('HSET', records, name, head .. marks .. string.sub(raw, 27 + 4 * count))
        else
            redis.call('HSET', records, name, added)
            fresh = fresh + 1
        end
        if taken_for ~= '' then
            join(name, taken_for)
            joins = joins + 1
        end
    end
end
redis.call('EXPIRE', records, kept)
if fresh > 0 and redis.call('HLEN', records) > most * 1.25 then
    -- Times asked and the last time as one number, so that they are sorted without a call for each comparison.
    local all, worth = redis.call('HGETALL', records), {}
    for i = 2, #all, 2 do
        local value = 0
        if readable(all[i]) then
            local _, a, _, _, _, to = struct.unpack(HEAD, all[i])
            value = math.min(a, 1048575) * 4294967296 + to
        end
        worth[i / 2] = value
    end
    local sorted = {}
    for i, value in ipairs(worth) do sorted[i] = value end
    table.sort(sorted)
    local spare, gone = #sorted - most, {}
    local edge = sorted[spare]
    for i, value in ipairs(worth) do
        if value <= edge and #gone < spare then gone[#gone + 1] = all[2 * i - 1] end
    end
    for i = 1, #gone, 500 do redis.call('HDEL', records, unpack(gone, i, math.min(i + 499, #gone))) end
end
if joins > 0 then
    redis.call('EXPIRE', joined, kept)
    if redis.call('HLEN', joined) > most_joined * 1.25 then
        local all, days = redis.call('HGETALL', joined), {}
        for i = 2, #all, 2 do days[i / 2] = tonumber(string.sub(all[i], 33)) or 0 end
        local sorted = {}
        for i, day in ipairs(days) do sorted[i] = day end
        table.sort(sorted)
        local spare, gone = #sorted - most_joined, {}
        local edge = sorted[spare]
        for i, day in ipairs(days) do
            if day <= edge and #gone < spare then gone[#gone + 1] = all[2 * i - 1] end
        end
        for i = 1, #gone, 500 do redis.call('HDEL', joined, unpack(gone, i, math.min(i + 499, #gone))) end
    end
end
""")

# Takes back what turns were counted for. ARGV: for each record its name, times asked, times served, the asker's mark.
SUBTRACT = Script("""
local HEAD, records, gone = '>BI4I4I8I4I4B', KEYS[1], 0
for i = 1, #ARGV, 4 do
    local raw = redis.call('HGET', records, ARGV[i])
    if raw and #raw >= 26 and string.byte(raw) == 1 then
        local _, asked, served, saved, from, to, count = struct.unpack(HEAD, raw)
        local left = asked - tonumber(ARGV[i + 1])
        if left <= 0 then
            redis.call('HDEL', records, ARGV[i])
            gone = gone + 1
        else
            local still = math.min(left, math.max(0, served - tonumber(ARGV[i + 2])))
            if served > 0 then saved = math.floor(saved * still / served) end
            local marks = {}
            for at = 27, 26 + 4 * count, 4 do
                local mark = string.sub(raw, at, at + 3)
                if mark ~= ARGV[i + 3] then marks[#marks + 1] = mark end
            end
            local head = struct.pack(HEAD, 1, left, still, saved, from, to, #marks)
            redis.call('HSET', records, ARGV[i], head .. table.concat(marks) .. string.sub(raw, 27 + 4 * count))
        end
    end
end
return gone
""")

# Two wordings are not the same question after all. ARGV: both. The first one leaves, or where it stands for all, the
# other one. 1 where they were one question.
PART = Script("""
local joined = KEYS[1]
local function head_of(name)
    for _ = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up or string.sub(up, 1, 32) == name then return name end
        name = string.sub(up, 1, 32)
    end
    return name
end
local mine, theirs = head_of(ARGV[1]), head_of(ARGV[2])
if mine ~= theirs then return 0 end
redis.call('HDEL', joined, mine == ARGV[1] and ARGV[2] or ARGV[1])
return 1
""")

# Two wordings are one question, whatever was known of them. ARGV: the one whose question it is, the other one, the
# day's number, how long that is kept.
JOIN = Script("""
local joined = KEYS[1]
local function head_of(name)
    for _ = 0, 15 do
        local up = redis.call('HGET', joined, name)
        if not up or string.sub(up, 1, 32) == name then return name end
        name = string.sub(up, 1, 32)
    end
    return name
end
local mine, theirs = head_of(ARGV[1]), head_of(ARGV[2])
if mine == theirs then return 0 end
redis.call('HSET', joined, theirs, mine .. ARGV[3], mine, mine .. ARGV[3])
redis.call('EXPIRE', joined, ARGV[4])
return 1
""")

SCRIPTS = (COUNT, SUBTRACT, PART, JOIN)


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
            marks = sorted(count.marks)[:MARKS]
            figures = (count.asked, count.served, count.saved_us, count.first, count.last, len(marks))
            head = struct.pack(f">BIIQIIB{len(marks)}I", _VERSION, *figures, *marks)
            at = place(self._key_of(told.flow, told.day, is_step=told.is_step), told.name)
            record = stored(head + count.text[:LONGEST_TEXT].encode(), at, lead=len(head))
            rows[told.flow, told.day, told.is_step] += (told.name, record, count.taken_for)
        commands = []
        kept = int(KEPT.total_seconds())
        for (flow, day, is_step), found in rows.items():
            records = self._key_of(flow, day, is_step=is_step)
            keys = (records, self._keys.joined(flow), self._keys.hidden(flow))
            for start in range(0, len(found), 3 * _BATCH):
                words = found[start : start + 3 * _BATCH]
                commands.append(COUNT.call(keys, MOST, MARKS, MOST_JOINED, kept, day, *words))
        return commands

    async def joined(self, flow: str) -> dict[str, str]:
        """Which of a flow's wordings are other wordings of which; those that stand for all lead to themselves."""
        (reply,) = await self._link.run(("HGETALL", self._keys.joined(flow)), slow=True)
        return {name.decode(): raw[:32].decode() for name, raw in _pairs(reply)}

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

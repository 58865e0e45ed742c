"""Puts back what was written down of a tenant: beside what is there, never over something newer.

Invariant: everything may be done again, by several processes at once and in any part, and comes to the same: a turn is
there by its id (one that was deleted here stays deleted), a session keeps what people made of it here, an answer gives
way only to a newer one, and an answer that was withdrawn here stays withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentic_flywheel.model import Entry, FlowChange, Session, Turn
from agentic_flywheel.store.codec import encode
from agentic_flywheel.store.entries import EntryStore
from agentic_flywheel.store.keys import Keys, shard_of
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.store.session_headers import header_command, header_of, private_word
from agentic_flywheel.store.sessions import FEED_LENGTH
from agentic_flywheel.titles import title_of, titled

_CHANGES_KEPT = 100

# ARGV: owner, last activity, flow of the newest turn, how many names and values follow, those, then turn ids and turns.
# Returns whether the session was there and how many turns were appended; -1 for the latter where it is somebody else's.
RESTORE = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local owner, at, flow, words = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = redis.call('EXISTS', session)
local holder = redis.call('HGET', session, 'owner') or ''
if owner ~= '' and holder ~= '' and owner ~= holder then return {known, -1} end
local named = false
for i = 5, 4 + words, 2 do
    local field, value = ARGV[i], ARGV[i + 1]
    if field == 'title' then named = redis.call('HSETNX', session, field, value) == 1
    elseif field ~= 'title_from' and field ~= 'title_weak' then redis.call('HSETNX', session, field, value)
    elseif named then redis.call('HSET', session, field, value) end
end
if owner ~= '' then redis.call('HSETNX', session, 'owner', owner) end
local appended = 0
for i = 5 + words, #ARGV, 2 do
    if redis.call('HEXISTS', ids, ARGV[i]) == 0 then
        redis.call('HSET', ids, ARGV[i], redis.call('XADD', turns, '*', 't', ARGV[i + 1]))
        redis.call('HINCRBY', session, 'turns', 1)
        appended = appended + 1
    end
end
if (tonumber(redis.call('HGET', session, 'last_active_at')) or -1) < tonumber(at) then
    redis.call('HSET', session, 'last_active_at', at, 'flow', flow)
end
return {known, appended}
""")

# Stores a value where the key still holds what was read ("" for nothing). ARGV: that, the value, its milliseconds.
PUT_BACK = Script("""
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

# Takes over what is known of a flow that nobody has asked here. It counts as never checked: the next question looks.
ADOPT = Script("""
local state, changes = KEYS[1], KEYS[2]
if (redis.call('HGET', state, 'fingerprint') or '') ~= '' then return 0 end
redis.call('HINCRBY', state, 'generation', 1)
redis.call('HSET', state, 'fingerprint', ARGV[1], 'changed_at', ARGV[2], 'revision', ARGV[3], 'etag', ARGV[4],
    'checked_at', '0')
if redis.call('EXISTS', changes) == 0 then
    for i = 5, #ARGV do redis.call('LPUSH', changes, ARGV[i]) end
end
return 1
""")

SCRIPTS = (RESTORE, PUT_BACK, ADOPT)


class SessionPart(msgspec.Struct, frozen=True):
    """Turns of one session in their order; `header` where it comes along."""

    id: str
    header: Session | None
    turns: tuple[Turn, ...]


class Restored(msgspec.Struct, frozen=True):
    """What became of a part: whether its session was there, how many turns came in; `refused`: somebody else has it."""

    known: bool
    appended: int
    refused: bool = False


class Restoring:
    """Puts things back into one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._entries = EntryStore(link, keys)

    async def sessions(self, parts: Sequence[SessionPart], *, dry_run: bool) -> list[Restored]:
        """Begin sessions, or go on with those that are there; one answer for each part."""
        if dry_run:
            return await self._would_restore(parts)
        keys = self._keys
        restored = []
        replies = await self._link.run(*(self._restore_command(part) for part in parts), slow=True)
        told: list[Command] = []
        for part, (known, appended) in zip(parts, replies, strict=True):
            restored.append(Restored(bool(known), max(0, appended), refused=appended < 0))
            if appended < 0:
                continue
            at = _last_active(part)
            told.append(("ZADD", keys.sessions(shard_of(part.id)), "GT", at, part.id))
            if owner := _owner(part):
                told.append(("ZADD", keys.user_sessions(owner), "GT", at, part.id))
            if appended:
                event = [word for turn in part.turns for word in ("turn", turn.id, "session", part.id)]
                told.append(("XADD", keys.feed(part.id), "MAXLEN", "~", FEED_LENGTH, "*", *event))
        if told:
            await self._link.run(*told, slow=True)
        return restored

    async def entries(
        self, answers: Mapping[str, tuple[Entry, float]], *, now: float, dry_run: bool
    ) -> dict[str, bool]:
        """Store answers by key, each with the moment that it ends; whether each was, or something better was there.

        They must be of the generation that is in force.
        """
        keys = list(answers)
        raws = await self._link.run(*(("GET", key) for key in keys), slow=True) if keys else []
        put: list[str] = []
        commands: list[Command] = []
        for key, raw in zip(keys, raws, strict=True):
            entry, ends_at = answers[key]
            there = self._entries.looked(raw).entry
            if there is not None and (there.withdrawn or not _gives_way(there, entry)):
                continue
            put.append(key)
            # Listed first, as in `EntryStore.put_commands`.
            index = self._keys.entries(entry.flow, shard_of(key))
            milliseconds = max(1, round((ends_at - now) * 1000))
            commands.append(("ZADD", index, ends_at, f"{entry.generation}|{key}"))
            commands.append(PUT_BACK.call((key,), raw or b"", encode(entry, key), milliseconds))
        if dry_run or not commands:
            return {key: key in set(put) for key in keys}
        done = dict(zip(put, (await self._link.run(*commands, slow=True))[1::2], strict=True))
        return {key: bool(done.get(key)) for key in keys}

    async def adopt(
        self, flow: str, *, fingerprint: str, changed_at: float, revision: str, etag: str, changes: Sequence[FlowChange]
    ) -> bool:
        """Take over what is known of a flow; False where it is known here. `changes` are newest first."""
        told = [msgspec.json.encode(change) for change in reversed(changes[:_CHANGES_KEPT])]
        own = (self._keys.flow(flow), self._keys.changes(flow))
        adopted, _ = await self._link.run(
            ADOPT.call(own, fingerprint, repr(changed_at), revision, etag, *told),
            ("SADD", self._keys.flows, flow),
            slow=True,
        )
        return bool(adopted)

    def _restore_command(self, part: SessionPart) -> Command:
        keys, header = self._keys, part.header
        first = part.turns[0] if part.turns else None
        created = header.created_at if header else (first.at if first else 0.0)
        words: list[str | bytes] = ["id", part.id, "created_at", repr(created)]
        if header is not None:
            words += _title_words(header.title, header.title_from)
            words += ["tags", msgspec.json.encode(header.tags)] if header.tags else []
            words += ["config", msgspec.json.encode(header.config)] if header.config else []
            words += ["links", msgspec.json.encode(header.links)] if header.links else []
        elif part.turns:
            title = titled(part.turns)
            words += _title_words(title.text, title.turn)
        flow = header.flow if header else (part.turns[-1].flow if part.turns else "")
        own = (keys.session(part.id), keys.turns(part.id), keys.turn_ids(part.id))
        words[1::2] = [
            private_word(own[0], str(name), word) for name, word in zip(words[::2], words[1::2], strict=True)
        ]
        turns = [word for turn in part.turns for word in (turn.id, encode(turn, own[1]))]
        return RESTORE.call(own, _owner(part), repr(_last_active(part)), flow, len(words), *words, *turns)

    async def _would_restore(self, parts: Sequence[SessionPart]) -> list[Restored]:
        """What `sessions` would say. Of a turn that comes up twice, both are counted."""
        keys = self._keys
        commands: list[Command] = []
        for part in parts:
            ids = [turn.id for turn in part.turns] or ["-"]  # a list without names is refused
            commands += [header_command(keys, part.id), ("HMGET", keys.turn_ids(part.id), *ids)]
        replies = await self._link.run(*commands, slow=True)
        found = []
        for part, raw, places in zip(parts, replies[::2], replies[1::2], strict=True):
            header = header_of(raw)
            owner = _owner(part)
            if header is not None and header.owner and owner and header.owner != owner:
                found.append(Restored(known=True, appended=0, refused=True))
                continue
            absent = sum(place is None for _, place in zip(part.turns, places, strict=False))
            found.append(Restored(header is not None, absent))
        return found


def _title_words(title: str, turn: str) -> list[str | bytes]:
    """A title and the turn that it comes from; whether it is weak follows from it."""
    if not title or not turn:
        return ["title", title] if title else []
    return ["title", title, "title_from", turn, "title_weak", "1" if title_of(title).weak else ""]


def _owner(part: SessionPart) -> str:
    if part.header is not None and part.header.owner:
        return part.header.owner
    return next((turn.user for turn in part.turns if turn.user), "")


def _last_active(part: SessionPart) -> float:
    return part.header.last_active_at if part.header else max((turn.at for turn in part.turns), default=0.0)


def _gives_way(there: Entry, entry: Entry) -> bool:
    """Whether an answer may take the place of another: a newer or withdrawn one, or where that one is of no use."""
    usable = there.fingerprint == entry.fingerprint and there.generation == entry.generation
    return not usable or bool(entry.withdrawn) or there.created_at < entry.created_at

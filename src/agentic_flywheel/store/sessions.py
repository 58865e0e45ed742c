"""Sessions: a hash of what is known, a stream of turns, and the index by activity.

Invariant: a turn is in its session exactly once, in the order in which appends were acknowledged; its id decides,
so an append may be repeated. Reading the last N turns costs O(N) however long the session is. Nothing here expires by
itself: retention is a sweep, so that eviction (`volatile-lru`) can never take a conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.keys import SHARDS, Keys, shard_of
from agentic_flywheel.store.link import Command, Link, Script

_FIELDS = ("id", "owner", "title", "tags", "flow", "turns", "created_at", "last_active_at", "config")
_TITLE_CHARACTERS = 80
_FEED_LENGTH = 10_000

_log = logging.getLogger(__name__)

# One slot: session, turns, ids. Returns 1 for an append, 0 where the turn was there already.
APPEND = Script("""
local session, turns, ids = KEYS[1], KEYS[2], KEYS[3]
local turn, payload, at, flow, id, owner, title =
    ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
if redis.call('HEXISTS', ids, turn) == 1 then return 0 end
local place = redis.call('XADD', turns, '*', 't', payload)
redis.call('HSET', ids, turn, place)
if redis.call('HSETNX', session, 'created_at', at) == 1 then redis.call('HSET', session, 'id', id) end
redis.call('HSETNX', session, 'title', title)
if owner ~= '' then redis.call('HSETNX', session, 'owner', owner) end
redis.call('HSET', session, 'last_active_at', at, 'flow', flow)
redis.call('HINCRBY', session, 'turns', 1)
return 1
""")

# Changes fields of a session that exists; 0 where it does not.
AMEND = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
""")


class Recalled(msgspec.Struct, frozen=True):
    """A session's header (None: no such session), its newest turns oldest first, its very first turn, and how many
    stored turns were damaged and left out."""

    session: Session | None = None
    turns: tuple[Turn, ...] = ()
    first: Turn | None = None
    damaged: int = 0


class SessionStore:
    """The sessions of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def recall_commands(self, session: str, count: int) -> list[Command]:
        """What to send to read a session's header, newest `count` turns and first turn; see `recalled`."""
        turns = self._keys.turns(session)
        return [
            ("HMGET", self._keys.session(session), *_FIELDS),
            ("XREVRANGE", turns, "+", "-", "COUNT", max(1, count)),
            ("XRANGE", turns, "-", "+", "COUNT", 1),
        ]

    def recalled(self, replies: Sequence[Any]) -> Recalled:
        """The replies to `recall_commands`."""
        header, newest, oldest = replies
        session = _session_of(header)
        if session is None:
            return Recalled()
        turns, damaged = _turns_of(reversed(newest))
        if not damaged and oldest[:1] == newest[-1:]:  # a short session: its first turn is among the newest
            first = turns[:1]
        else:
            first, _ = _turns_of(oldest)
        return Recalled(session, turns, first[0] if first else None, damaged)

    async def recall(self, session: str, count: int) -> Recalled:
        """Header, newest turns and first turn in one round trip."""
        return self.recalled(await self._link.run(*self.recall_commands(session, count)))

    def append_commands(self, turn: Turn) -> list[Command]:
        """What to send to append a turn; the first reply is 1 for an append and 0 for a repetition."""
        keys, session = self._keys, turn.session_id
        title = " ".join(turn.question.split())
        if len(title) > _TITLE_CHARACTERS:
            title = title[: _TITLE_CHARACTERS - 1].rstrip() + "…"
        slot = (keys.session(session), keys.turns(session), keys.turn_ids(session))
        commands = [
            APPEND.call(slot, turn.id, encode(turn), repr(turn.at), turn.flow, session, turn.user, title),
            ("ZADD", keys.sessions(shard_of(session)), "GT", turn.at, session),
            ("XADD", keys.feed(session), "MAXLEN", "~", _FEED_LENGTH, "*", "turn", turn.id, "session", session),
        ]
        if turn.user:
            commands.append(("ZADD", keys.user_sessions(turn.user), "GT", turn.at, session))
        return commands

    async def append(self, turn: Turn) -> bool:
        """Append a turn; False where it was there already. Acknowledged by Redis when this returns."""
        return bool((await self._link.run(*self.append_commands(turn)))[0])

    async def turns(self, session: str, *, limit: int | None = None) -> tuple[tuple[Turn, ...], int]:
        """The newest `limit` turns (all for None), oldest first, and how many were damaged."""
        key, edge = self._keys.turns(session), "+"
        found: list[Any] = []
        while limit is None or len(found) < limit:
            page = 500 if limit is None else min(500, limit - len(found))
            (reply,) = await self._link.run(("XREVRANGE", key, edge, "-", "COUNT", page), slow=True)
            found += reply
            if len(reply) < page:
                break
            edge = "(" + reply[-1][0].decode()
        return _turns_of(reversed(found))

    async def header(self, session: str) -> Session | None:
        """What is known of a session, None where there is no such session."""
        (reply,) = await self._link.run(("HMGET", self._keys.session(session), *_FIELDS))
        return _session_of(reply)

    async def headers(self, sessions: Sequence[str]) -> list[Session]:
        """The headers of those sessions that exist, in the order given; damaged ones are left out and logged."""
        if not sessions:
            return []
        replies = await self._link.run(*(("HMGET", self._keys.session(s), *_FIELDS) for s in sessions), slow=True)
        found = []
        for reply in replies:
            try:
                session = _session_of(reply)
            except StoreDamaged as error:
                _log.warning("a session is left out: %s", error)
                continue
            if session is not None:
                found.append(session)
        return found

    async def amend(self, session: str, **fields: Any) -> bool:
        """Change title, tags or config of a session; False where there is none."""
        flat: list[str | bytes] = []
        for name, value in fields.items():
            flat += [name, value if isinstance(value, str) else msgspec.json.encode(value)]
        (done,) = await self._link.run(AMEND.call((self._keys.session(session),), *flat))
        return bool(done)

    async def begin(self, session: str, *, at: float) -> None:
        """Create a session without turns; without effect where there is one."""
        key = self._keys.session(session)
        await self._link.run(
            ("HSETNX", key, "created_at", repr(at)),
            ("HSETNX", key, "last_active_at", repr(at)),
            ("HSET", key, "id", session),
            ("ZADD", self._keys.sessions(shard_of(session)), "GT", at, session),
        )

    async def recent(self, *, user: str, offset: int, count: int) -> list[str]:
        """Session ids by last activity, newest first, from `offset` on. O(shards x (offset + count))."""
        end = offset + count - 1
        if user:
            (ids,) = await self._link.run(("ZREVRANGE", self._keys.user_sessions(user), offset, end), slow=True)
            return [raw.decode() for raw in ids]
        replies = await self._link.run(
            *(("ZREVRANGE", self._keys.sessions(s), 0, end, "WITHSCORES") for s in range(SHARDS)), slow=True
        )
        scored = [(float(score), raw.decode()) for reply in replies for raw, score in _pairs(reply)]
        scored.sort(reverse=True)
        return [session for _, session in scored[offset : offset + count]]

    async def inactive_since(self, moment: float) -> list[str]:
        """Ids of all sessions whose last activity lies before `moment` (epoch seconds)."""
        replies = await self._link.run(
            *(("ZRANGEBYSCORE", self._keys.sessions(s), "-inf", f"({moment!r}") for s in range(SHARDS)), slow=True
        )
        return [raw.decode() for reply in replies for raw in reply]

    async def delete(self, session: Session) -> None:
        """Remove a session with all its turns. Its answers are separate entries and stay."""
        keys, id_ = self._keys, session.id
        commands: list[Command] = [
            ("UNLINK", keys.session(id_), keys.turns(id_), keys.turn_ids(id_)),
            ("ZREM", keys.sessions(shard_of(id_)), id_),
        ]
        if session.owner:
            commands.append(("ZREM", keys.user_sessions(session.owner), id_))
        await self._link.run(*commands, slow=True)


def _session_of(reply: Sequence[bytes | None]) -> Session | None:
    raw: Mapping[str, bytes] = {name: value for name, value in zip(_FIELDS, reply, strict=True) if value is not None}
    if "created_at" not in raw:
        return None
    try:
        return Session(
            id=raw.get("id", b"").decode(),
            owner=raw.get("owner", b"").decode(),
            title=raw.get("title", b"").decode(),
            tags=tuple(msgspec.json.decode(raw["tags"], type=list[str])) if "tags" in raw else (),
            flow=raw.get("flow", b"").decode(),
            turns=int(raw.get("turns", b"0")),
            created_at=float(raw["created_at"]),
            last_active_at=float(raw.get("last_active_at", raw["created_at"])),
            config=msgspec.json.decode(raw["config"], type=dict[str, Any]) if "config" in raw else {},
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreDamaged(f"what is known of a session is not what was written: {error}") from error


def _turns_of(entries: Any) -> tuple[tuple[Turn, ...], int]:
    turns: list[Turn] = []
    damaged = 0
    for _place, fields in entries:
        raw = fields.get(b"t") if isinstance(fields, dict) else fields[1]
        try:
            turns.append(decode(raw or b"", Turn))
        except StoreDamaged:
            damaged += 1
    return tuple(turns), damaged


def _pairs(reply: Any) -> list[tuple[bytes, float]]:
    # RESP3 answers pairs, RESP2 a flat list.
    if reply and not isinstance(reply[0], (list, tuple)):
        return list(zip(reply[::2], reply[1::2], strict=True))
    return [tuple(pair) for pair in reply]

"""Sessions: a hash of what is known, a stream of turns, and the index by activity.

Invariant: a turn is in its session exactly once, in the order in which appends were acknowledged; its id decides,
so an append may be repeated. Reading the last N turns costs O(N) however long the session is. Nothing here expires by
itself: retention is a sweep, so that eviction (`volatile-lru`) can never take a conversation.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged, StoreFull
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.store.judgements import unjudge_command
from agentic_flywheel.store.keys import SHARDS, Keys, shard_of
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.recalled import Recalled, earlier_of, recalled_of, turns_of
from agentic_flywheel.store.session_headers import header_command, header_of, private_word, title_word
from agentic_flywheel.store.session_scripts import AMEND, APPEND, BEGIN, CLOSE, EARLIER, LINK, REMOVE
from agentic_flywheel.store.turn_codec import encode_turn
from agentic_flywheel.titles import Titled, titled

#: Events that each stream of the feed keeps, about.
FEED_LENGTH = 10_000
_PAGE = 200

_log = logging.getLogger(__name__)


class SessionStore:
    """The sessions of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def recall_commands(self, session: str, count: int) -> list[Command]:
        """What to send to read a session's newest `count` turns, first turn and header; see `recalled`.

        The header comes last: where turns come in meanwhile, it counts more than were read, and never fewer.
        """
        turns = self._keys.turns(session)
        return [
            ("XREVRANGE", turns, "+", "-", "COUNT", max(1, count)),
            ("XRANGE", turns, "-", "+", "COUNT", 1),
            header_command(self._keys, session),
        ]

    def recalled(self, replies: Sequence[Any]) -> Recalled:
        """The replies to `recall_commands`."""
        return recalled_of(replies)

    def earlier_command(self, session: str, *, behind: int, count: int, size: int) -> Command:
        """What to send to read the turns before the newest `behind`: the newest `count` of those, and no more than
        `size` bytes; see `earlier`."""
        return EARLIER.call((self._keys.turns(session),), behind, count, size)

    def earlier(self, reply: Any) -> tuple[list[tuple[Turn, int]], int]:
        """The reply to `earlier_command`: turns, oldest first, each with its size in bytes; and how many were damaged
        and left out."""
        return earlier_of(reply)

    async def recall(self, session: str, count: int) -> Recalled:
        """Newest turns, first turn and header in one round trip."""
        return self.recalled(await self._link.run(*self.recall_commands(session, count)))

    def append_commands(self, *turns: Turn) -> list[Command]:
        """What to send to append turns; first one script for each session, in the order in which they come up, whose
        reply says how many were not there already."""
        keys = self._keys
        by_session: dict[str, tuple[tuple[str, str, str], list[str | bytes]]] = {}
        indexes: defaultdict[str, dict[str, float]] = defaultdict(dict)
        feeds: defaultdict[str, list[str]] = defaultdict(list)
        for turn in turns:
            session = turn.session_id
            own = by_session.get(session)
            if own is None:
                own = by_session[session] = (keys.session_keys(session), [])
            (header, stream, _), appended = own
            title = title_word(titled((turn,)), header)
            appended += (turn.id, encode_turn(turn, stream), repr(turn.at), turn.flow, session, turn.user, title)
            indexes[keys.sessions(shard_of(session))][session] = turn.at
            if turn.user:
                indexes[keys.user_sessions(turn.user)][session] = turn.at
            feeds[keys.feed(session)] += ("turn", turn.id, "session", session)
        commands = [APPEND.call(three, *appended) for three, appended in by_session.values()]
        commands += [
            ("ZADD", index, "GT", *(part for session, at in active.items() for part in (at, session)))
            for index, active in indexes.items()
        ]
        # One event tells of all turns that came together: its fields are pairs of a turn and its session.
        commands += [("XADD", feed, "MAXLEN", "~", FEED_LENGTH, "*", *told) for feed, told in feeds.items()]
        return commands

    def present_command(self, session: str, turns: Sequence[str]) -> Command:
        """What to send to learn which turns are in the session: a place in the stream for each, or None."""
        return ("HMGET", self._keys.turn_ids(session), *turns)

    async def absent(self, waiting: Mapping[str, Sequence[Turn]]) -> dict[str, tuple[Turn, ...]]:
        """Of turns by session, those that are not in their session yet."""
        if not waiting:
            return {}
        commands = [self.present_command(session, [turn.id for turn in turns]) for session, turns in waiting.items()]
        replies = await self._link.run(*commands, slow=True)
        return {
            session: tuple(turn for turn, place in zip(turns, places, strict=True) if place is None)
            for (session, turns), places in zip(waiting.items(), replies, strict=True)
        }

    async def append(self, turn: Turn) -> bool:
        """Append a turn; False where it was there already. Acknowledged by Redis when this returns."""
        return bool((await self._link.run(*self.append_commands(turn)))[0])

    async def append_confirmed(self, turn: Turn, *more: Command) -> str:
        """Append a turn, and send more in the same round trip; what to warn of if too few replicas confirmed it.

        Without `redis.wait_replicas` none is asked. A turn that is not confirmed is written all the same.
        """
        settings = self._link.settings
        wanted = int(settings.number("redis.wait_replicas"))
        append, *others = self.append_commands(turn)
        if not wanted:
            await self._link.run(append, *others, *more)
            return ""
        patience_ms = max(1, round(settings.number("redis.wait_timeout_seconds") * 1000))
        # WAIT holds up whatever follows on its connection, so such turns have a connection of their own.
        _, confirmed, *_ = await self._link.run(append, ("WAIT", wanted, patience_ms), *others, *more, waiting=True)
        return "" if confirmed >= wanted else f"{confirmed} of {wanted} replicas confirmed this turn in time."

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
        return turns_of(reversed(found))

    async def newest(self, sessions: Sequence[str], *, count: int) -> list[tuple[Turn, ...]]:
        """The newest `count` turns of each session, oldest first; one round trip."""
        commands = [("XREVRANGE", self._keys.turns(session), "+", "-", "COUNT", count) for session in sessions]
        replies = await self._link.run(*commands, slow=True) if commands else []
        return [turns_of(reversed(reply))[0] for reply in replies]

    async def header(self, session: str) -> Session | None:
        """What is known of a session, None where there is no such session."""
        (reply,) = await self._link.run(header_command(self._keys, session), slow=True)
        return header_of(reply)

    async def headers(self, sessions: Sequence[str]) -> list[Session]:
        """The headers of those sessions that exist, in the order given; damaged ones are left out and logged."""
        if not sessions:
            return []
        replies = await self._link.run(*(header_command(self._keys, s) for s in sessions), slow=True)
        found = []
        for reply in replies:
            try:
                session = header_of(reply)
            except StoreDamaged as error:
                _log.warning("a session is left out: %s", error)
                continue
            if session is not None:
                found.append(session)
        return found

    async def amend(self, session: str, **fields: Any) -> bool:
        """Change title, tags or config of a session; False where there is none."""
        key = self._keys.session(session)
        flat: list[str | bytes] = []
        for name, value in fields.items():
            word = value if isinstance(value, str) else msgspec.json.encode(value)
            flat += [name, private_word(key, name, word)]
        (done,) = await self._link.run(AMEND.call((key,), *flat), slow=True)
        if done and fields.keys() & {"title", "tags"}:
            await self._link.run(self._told(session, "changed", session), slow=True)
        return bool(done)

    async def entitle(self, session: str, title: Titled) -> bool:
        """Have a session called by what was asked in it; False where there is no such session."""
        weak = "1" if title.weak and title.text else ""
        return await self.amend(session, title=title.text, title_from=title.turn, title_weak=weak)

    async def link(self, session: str, other: str, *, tied: bool, most: int) -> int:
        """Tie a session to another one, or untie it: 1 where it was tied before, 0 where not, -1 where there is no such
        session, -2 where it is tied to `most` others. Of the two sides this is one."""
        command = LINK.call((self._keys.session(session),), "1" if tied else "", other, most)
        (there,) = await self._link.run(command, slow=True)
        return int(there)

    async def begin(self, session: str, *, at: float) -> None:
        """Create a session without turns; without effect where there is one."""
        await self._link.run(
            BEGIN.call(self._keys.session_keys(session), repr(at), session),
            ("ZADD", self._keys.sessions(shard_of(session)), "GT", at, session),
            slow=True,
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

    async def find(self, turn: str) -> str | None:
        """The session that holds a turn. Turns of late are found by their events; for any other one, all sessions are
        gone through (one look-up each)."""
        if found := await self._holder(turn, await self._told_of(turn)):
            return found
        cursors = dict.fromkeys((self._keys.sessions(shard) for shard in range(SHARDS)), b"0")
        while cursors:
            scans = [("ZSCAN", index, cursor, "COUNT", _PAGE) for index, cursor in cursors.items()]
            replies = dict(zip(list(cursors), await self._link.run(*scans, slow=True), strict=True))
            members = [raw.decode() for _, flat in replies.values() for raw in flat[::2]]
            if found := await self._holder(turn, members):
                return found
            cursors = {index: cursor for index, (cursor, _) in replies.items() if int(cursor)}
        return None

    async def _told_of(self, turn: str) -> list[str]:
        """The sessions of which the newest event about a turn says that they got it."""
        edges = dict.fromkeys(self._keys.feeds(), "+")
        while edges:
            pages = [("XREVRANGE", feed, edge, "-", "COUNT", _PAGE) for feed, edge in edges.items()]
            replies = dict(zip(list(edges), await self._link.run(*pages, slow=True), strict=True))
            events = [event for page in replies.values() for _, fields in page for event in _events(fields)]
            if told := [session for id_, session in events if id_ == turn]:
                return told
            edges = {feed: "(" + page[-1][0].decode() for feed, page in replies.items() if len(page) == _PAGE}
        return []

    async def _holder(self, turn: str, sessions: Sequence[str]) -> str | None:
        """The first of these sessions that has the turn."""
        if not sessions:
            return None
        commands = [("HGET", self._keys.turn_ids(session), turn) for session in sessions]  # "": it was deleted
        replies = await self._link.run(*commands, slow=True)
        return next((session for session, there in zip(sessions, replies, strict=True) if there), None)

    async def delete(self, session: Session) -> bool:
        """Remove a session with all its turns. Its answers are separate entries and stay.

        False where a full server let it be removed, but not told of: indexes of history still have its words.
        """
        keys, id_ = self._keys, session.id
        commands: list[Command] = [
            ("UNLINK", keys.session(id_), keys.turns(id_), keys.turn_ids(id_), keys.judgements(id_)),
            ("ZREM", keys.sessions(shard_of(id_)), id_),
        ]
        if session.owner:
            commands.append(("ZREM", keys.user_sessions(session.owner), id_))
        await self._link.run(*commands, slow=True)
        try:
            await self._link.run(self._told(id_, "gone", id_), slow=True)
        except StoreFull as error:
            _log.warning("session %s is deleted, and indexes of history do not know: %s", id_, error)
            return False
        return True

    async def forget_user(self, user: str) -> None:
        """Remove the list of a user's sessions, once none of them is left that is theirs."""
        await self._link.run(("UNLINK", self._keys.user_sessions(user)), slow=True)

    async def delete_turn(self, turn: Turn, *, title: Titled) -> bool:
        """Remove one turn of a session; False where it is gone already. `title` is what the session would be called
        without it, where nobody gave it a title."""
        return bool(await self.delete_turns(turn.session_id, [turn.id], title=title))

    async def delete_turns(self, session: str, turns: Sequence[str], *, title: Titled) -> int:
        """Remove turns of a session by their ids, as `delete_turn` does; how many there were."""
        keys, removed = self._keys, 0
        own = (keys.session(session), keys.turns(session), keys.turn_ids(session))
        for start in range(0, len(turns), _PAGE):
            page = turns[start : start + _PAGE]
            gone, *_ = await self._link.run(
                REMOVE.call(own, title_word(title, own[0]), title.turn, *page),
                *(self._told(session, "gone_turn", turn, "session", session) for turn in page),
                *(unjudge_command(keys, session, turn) for turn in page),
                slow=True,
            )
            removed += gone
        return removed

    async def close(self, session: Session) -> bool:
        """Remove a session none of whose turns is left; False where one came in meanwhile."""
        keys, id_ = self._keys, session.id
        own = (keys.session(id_), keys.turns(id_), keys.turn_ids(id_), keys.judgements(id_))
        indexes = [keys.sessions(shard_of(id_))] + ([keys.user_sessions(session.owner)] if session.owner else [])
        if not (await self._link.run(CLOSE.call(own), slow=True))[0]:
            return False
        commands = [*(("ZREM", index, id_) for index in indexes), self._told(id_, "gone", id_)]
        *_, there = await self._link.run(*commands, header_command(keys, id_), slow=True)
        if (begun := header_of(there)) is not None:  # begun anew since: its turn was listed before, and is no more
            again = [("ZADD", index, "GT", begun.last_active_at, id_) for index in indexes]
            await self._link.run(*again, slow=True)
        return True

    async def read_turns(
        self, named: Sequence[tuple[str, str]], *, places: Sequence[str] | None = None
    ) -> list[Turn | None]:
        """Turns by (session, turn), in the order given; None for one that is gone or damaged. Two round trips, and one
        where all still stand in their streams where `places` says ("": not known)."""
        found = await self._turns_at(
            [(s, place) for (s, _), place in zip(named, places or [""] * len(named), strict=True)]
        )
        lost = [number for number, (_, id_) in enumerate(named) if (turn := found[number]) is None or turn.id != id_]
        if lost:
            replies = await self._link.run(
                *(self.present_command(s, (t,)) for s, t in map(named.__getitem__, lost)), slow=True
            )
            there = [(named[number][0], place) for number, (place,) in zip(lost, replies, strict=True)]
            for number, turn in zip(lost, await self._turns_at(there), strict=True):
                found[number] = turn
        return found

    async def _turns_at(self, places: Sequence[tuple[str, str]]) -> list[Turn | None]:
        """What stands at places (session, where in its stream), None where that is nothing, or "". One round trip."""
        commands = [("XRANGE", self._keys.turns(session), place, place) for session, place in places if place]
        replies = iter(await self._link.run(*commands, slow=True) if commands else [])
        return [next(iter(turns_of(next(replies))[0]), None) if place else None for _, place in places]

    async def beside(self, places: Sequence[tuple[str, str]]) -> list[Turn]:
        """The turns right before and after places (session, where in its stream); one round trip."""
        commands: list[Command] = []
        for session, place in places:
            key = self._keys.turns(session)
            commands += [
                ("XREVRANGE", key, f"({place}", "-", "COUNT", 1),
                ("XRANGE", key, f"({place}", "+", "COUNT", 1),
            ]
        replies = await self._link.run(*commands, slow=True) if commands else []
        return [turn for entries in replies for turn in turns_of(entries)[0]]

    def _told(self, session: str, *event: str) -> Command:
        """What to send to tell those who follow the feed of an event."""
        return ("XADD", self._keys.feed(session), "MAXLEN", "~", FEED_LENGTH, "*", *event)


def _events(fields: Any) -> Iterator[tuple[str, str]]:
    """Turns and their sessions in one event, whose fields are `turn`, `session`, and so on in turn."""
    values = [raw.decode("utf-8", "replace") for raw in fields[1::2]]
    return zip(values[::2], values[1::2], strict=False)


def _pairs(reply: Any) -> list[tuple[bytes, float]]:
    # RESP3 answers pairs, RESP2 a flat list.
    if reply and not isinstance(reply[0], (list, tuple)):
        return list(zip(reply[::2], reply[1::2], strict=True))
    return [tuple(pair) for pair in reply]

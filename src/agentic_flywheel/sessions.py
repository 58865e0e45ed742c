"""Sessions as people use them: list, show as a thread, resume, rename, tag, configure, delete, sweep."""

from __future__ import annotations

import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError, StoreError, UnknownSession, UnknownTurn
from agentic_flywheel.insight.tally import counted_for
from agentic_flywheel.model import Entry, Receipt, Session, SessionPage, Thread, Turn
from agentic_flywheel.policy.admission import admit_config, admit_id, admit_text
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.popularity import KEPT
from agentic_flywheel.store.session_headers import session_with, title_of
from agentic_flywheel.store.store import Store

_PAGE = 100
_ALONE = "Only what waits in the local outbox is shown: {}."
_WAITING = "{} turn(s) of this session wait in the local outbox until Redis is back."
_WAITING_SESSIONS = "{} session(s) have turns that wait in the local outbox until Redis is back."


class Sessions:
    """The conversations of one tenant."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        behind: WriteBehind,
        forget_drafts: Callable[[str, str, bool], Awaitable[int]],
    ) -> None:
        self._retention_days = settings.number("session.retention_days")
        self._store = store
        self._behind = behind
        self._forget_drafts = forget_drafts  # of the FAQ, made of a session or (named) one turn of it; how many

    async def list(
        self, *, user: str | None = None, tag: str | None = None, limit: int = 20, cursor: str = ""
    ) -> SessionPage:
        """Sessions by last activity, newest first. `cursor` is the one of the page before."""
        if limit < 1:
            raise InputError(f"a page holds at least 1 session, not {limit}")
        start = _Cursor.read(cursor)
        waiting = await self._waiting()
        try:
            return await self._page(start, waiting, user=user, tag=tag, limit=limit)
        except StoreError as error:
            alone = _newest_first(session_with(None, turns) for turns in waiting.values() if _asked(turns, user))
            if not alone or tag is not None:
                raise
            return SessionPage(sessions=tuple(alone[:limit]), warnings=(_ALONE.format(error.message),))

    async def show(self, session: str, *, limit: int | None = None) -> Thread:
        """A session with its newest `limit` turns (all for None), oldest first. Raises `UnknownSession`."""
        if limit is not None and limit < 1:
            raise InputError(f"at least 1 turn can be shown, not {limit}")
        admit_id(session, "session")
        waiting = (await self._waiting()).get(session, ())
        try:
            header = await self._store.sessions.header(session)
            turns, _ = await self._store.sessions.turns(session, limit=limit)
            waiting = (await self._absent({session: waiting})).get(session, ())
            warnings = (_WAITING.format(len(waiting)),) if waiting else ()
        except StoreError as error:
            if not waiting:
                raise
            header, turns, warnings = None, (), (_ALONE.format(error.message),)
        if waiting:
            header, turns = session_with(header, waiting), (*turns, *waiting)[-(limit or 0) :]
        if header is None:
            raise _unknown(session)
        return Thread(session=header, turns=turns, warnings=warnings)

    async def resume(self, session: str | None = None, *, user: str | None = None) -> Session:
        """The session to go on with: the one named, else the newest (of this user). Raises `UnknownSession`."""
        if session is not None:
            return (await self.show(session, limit=1)).session
        page = await self.list(user=user, limit=1)
        if not page.sessions:
            raise UnknownSession("there is no session yet" + (f" of user {user!r}" if user else ""), user=user)
        return page.sessions[0]

    async def rename(self, session: str, title: str) -> Session:
        """Give a session a title (1 to 200 characters)."""
        title = " ".join(admit_text(title, "title").split())
        if not 1 <= len(title) <= 200:
            raise InputError(f"a title has 1 to 200 characters, not {len(title)}")
        return await self._amend(session, title=title)

    async def tag(self, session: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Session:
        """Add and remove tags. Tags are ids: 1 to 256 visible characters."""
        if isinstance(add, str) or isinstance(remove, str):
            raise InputError("tags are given as a list, also where there is only one")
        header = await self._header(session)
        added = [admit_id(tag.strip(), "tag") for tag in add]
        tags = [tag for tag in dict.fromkeys([*header.tags, *added]) if tag not in set(remove)]
        return await self._amend(session, tags=tags)

    async def configure(self, session: str, config: Mapping[str, Any]) -> Session:
        """Set what is laid over the flow's configuration for every later question of this session; {} takes it back.

        A session that does not exist yet is begun.
        """
        admit_id(session, "session")
        config = admit_config(config)
        if await self._store.sessions.header(session) is None:
            await self._store.sessions.begin(session, at=time.time())
        return await self._amend(session, config=config)

    async def delete(self, session: str, *, dry_run: bool) -> Receipt:
        """Remove a session, its turns, and the answers kept for it alone. Raises `UnknownSession`."""
        header = await self._header(session)
        turns, damaged = await self._store.sessions.turns(session)
        own = sorted(
            {turn.entry_key for turn in turns if self._store.keys.is_entry_of_session(turn.entry_key, session)}
        )
        looked = dict(zip(own, await self._store.entries.get_many(own), strict=True))
        entries = {key: value.entry for key, value in looked.items() if value.entry is not None}
        spoilt = [key for key, value in looked.items() if value.damaged]
        removed = {"sessions": 1, "turns": len(turns) + damaged, "entries": len(entries) + len(spoilt)}
        notes = ["Answers that it shared with others stay; `cache clear --session` removes them."]
        if drafts := await self._forget_drafts(session, "", dry_run):
            removed["FAQ drafts"] = drafts
        if not dry_run:
            await self._store.outbox.forget(session)
            await self._uncount(turns, turns)
            removed["entries"] = await self._store.entries.remove(entries) + await self._store.entries.delete(spoilt)
            if not await self._store.sessions.delete(header):
                notes.append("Redis is full, so indexes of history have its words still: run `afw index rebuild`.")
            await self._store.history.remove(sessions=[session])  # at once, whether or not anybody searches
        return Receipt(
            action="delete session",
            target=session,
            dry_run=dry_run,
            removed=removed,
            notes=tuple(notes),
            at=time.time(),
        )

    async def delete_turn(self, session: str, turn: str, *, dry_run: bool) -> Receipt:
        """Remove one turn of a session, and the answer kept for it alone, for good: it is not taken in again.

        A title that the turn gave its session goes with it. Raises `UnknownSession`, `UnknownTurn`.
        """
        await self._header(session)
        turns, _ = await self._store.sessions.turns(session)
        chosen = next((known for known in turns if known.id == admit_id(turn, "turn")), None)
        if chosen is None:
            raise UnknownTurn(f"no turn {turn!r} in session {session!r}", turn_id=turn, session_id=session)
        others = [known for known in turns if known is not chosen]
        key = chosen.entry_key
        kept: dict[str, Entry] = {}
        if self._store.keys.is_entry_of_session(key, session) and all(other.entry_key != key for other in others):
            (looked,) = await self._store.entries.get_many([key])
            kept = {key: looked.entry} if looked.entry is not None else {}
        removed = {"turns": 1, "entries": len(kept)}
        if drafts := await self._forget_drafts(session, turn, dry_run):
            removed["FAQ drafts"] = drafts
        if not dry_run:
            await self._uncount(turns, [chosen])
            removed["entries"] = await self._store.entries.remove(kept)
            title = title_of(others[0]) if others else ""
            removed["turns"] = int(await self._store.sessions.delete_turn(chosen, title=title))
            await self._store.history.remove(turns=[(session, chosen.id)])
        return Receipt(
            action="delete turn",
            target=f"{session} {turn}",
            dry_run=dry_run,
            removed=removed,
            notes=("An answer that it shared with others stays; `cache clear` removes it.",),
            at=time.time(),
        )

    async def sweep(self, *, dry_run: bool) -> Receipt:
        """Remove sessions without activity for longer than `session.retention_days` (0: none ever)."""
        now = time.time()
        removed = {"sessions": 0, "turns": 0, "entries": 0}
        if self._retention_days:
            since = now - self._retention_days * 86400
            for session in await self._store.sessions.inactive_since(since):
                try:
                    if (await self._header(session)).last_active_at >= since:  # resumed since it was listed
                        continue
                    receipt = await self.delete(session, dry_run=dry_run)
                except UnknownSession:  # gone since it was listed
                    continue
                removed = {what: count + receipt.removed[what] for what, count in removed.items()}
        target = f"inactive for {self._retention_days:g} days" if self._retention_days else "nothing (retention is off)"
        return Receipt(action="sweep sessions", target=target, dry_run=dry_run, removed=removed, at=now)

    async def _uncount(self, turns: Sequence[Turn], gone: Sequence[Turn]) -> None:
        """Take turns that go out of the counts of what is asked often; `turns` are all of their session."""
        since = time.time() - KEPT.total_seconds()
        if any(turn.at >= since for turn in gone):
            await self._behind.flush()
            ids = {turn.id for turn in gone}
            counted = counted_for(turns, ids, tenant=self._store.keys.root, since=since)
            await self._store.popularity.subtract(counted)

    async def _amend(self, session: str, **fields: Any) -> Session:
        if not await self._store.sessions.amend(session, **fields):
            raise _unknown(session)
        return await self._header(session)

    async def _page(
        self, start: _Cursor, waiting: Mapping[str, tuple[Turn, ...]], *, user: str | None, tag: str | None, limit: int
    ) -> SessionPage:
        """A page of two lists, both newest first: sessions with turns in the outbox, and all others in Redis."""
        ahead = await self._ahead(waiting, user=user, tag=tag)
        warnings = (_WAITING_SESSIONS.format(len(ahead)),) if ahead else ()
        local_ids = {session.id for session in ahead}
        found: list[Session] = []
        offset, local = start.offset, start.local

        def take_ahead(until: float) -> None:
            nonlocal local
            while len(found) < limit and local < len(ahead) and ahead[local].last_active_at >= until:
                found.append(ahead[local])
                local += 1

        async for after, session in self._in_redis(offset, user=user, tag=tag):
            if session.id not in local_ids:
                take_ahead(session.last_active_at)
                if len(found) < limit:
                    found.append(session)
                    offset = after
                if len(found) == limit:
                    return SessionPage(sessions=tuple(found), cursor=str(_Cursor(offset, local)), warnings=warnings)
        take_ahead(-math.inf)
        cursor = str(_Cursor(offset, local)) if local < len(ahead) else ""
        return SessionPage(sessions=tuple(found), cursor=cursor, warnings=warnings)

    async def _in_redis(self, offset: int, *, user: str | None, tag: str | None) -> AsyncIterator[tuple[int, Session]]:
        """Sessions by last activity, newest first, each with the offset behind it."""
        while True:
            ids = await self._store.sessions.recent(user=user or "", offset=offset, count=_PAGE)
            headers = {session.id: session for session in await self._store.sessions.headers(ids)}
            for session_id in ids:
                offset += 1
                session = headers.get(session_id)
                if session is None or (user and session.owner != user):
                    continue  # gone, or begun by two users at once and the other one's
                if tag is None or tag in session.tags:
                    yield offset, session
            if len(ids) < _PAGE:
                return

    async def _ahead(
        self, waiting: Mapping[str, tuple[Turn, ...]], *, user: str | None, tag: str | None
    ) -> Sequence[Session]:
        """The sessions with turns that Redis does not have yet, as they will be once it has them."""
        absent = {session: turns for session, turns in (await self._absent(waiting)).items() if _asked(turns, user)}
        headers = {session.id: session for session in await self._store.sessions.headers(list(absent))}
        merged = (session_with(headers.get(session), turns) for session, turns in absent.items())
        return _newest_first(session for session in merged if tag is None or tag in session.tags)

    async def _absent(self, waiting: Mapping[str, tuple[Turn, ...]]) -> dict[str, tuple[Turn, ...]]:
        some = {session: turns for session, turns in waiting.items() if turns}
        return {session: turns for session, turns in (await self._store.sessions.absent(some)).items() if turns}

    async def _waiting(self) -> dict[str, tuple[Turn, ...]]:
        """Turns by session that are in the outbox still, after everything that can be delivered was."""
        await self._behind.flush_turns()
        await self._store.outbox.settle()
        return await self._store.outbox.sessions()

    async def _header(self, session: str) -> Session:
        admit_id(session, "session")
        if self._behind.holds(session):
            await self._behind.flush_turns()
        await self._store.outbox.settle()
        header = await self._store.sessions.header(session)
        if header is None:
            raise _unknown(session)
        return header


class _Cursor(NamedTuple):
    """Where a list of sessions goes on: in Redis, and among those that wait in the outbox."""

    offset: int = 0
    local: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor as `str` wrote it. Raises `InputError`."""
        found = re.fullmatch(r"(\d+)(?:\+(\d+))?", text or "0")
        if found is None:
            raise InputError(f"{text!r} is not a cursor of this list; start again without one")
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"{self.offset}+{self.local}" if self.local else str(self.offset)


def _asked(turns: Sequence[Turn], user: str | None) -> bool:
    """Whether the user asked one of them; None: anybody."""
    return user is None or any(turn.user == user for turn in turns)


def _newest_first(sessions: Iterable[Session]) -> Sequence[Session]:
    return sorted(sessions, key=lambda session: session.last_active_at, reverse=True)


def _unknown(session: str) -> UnknownSession:
    return UnknownSession(f"no session {session!r}", session_id=session)

"""Sessions as people use them: list, show as a thread, resume, rename, tag, configure, delete, sweep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError, UnknownSession
from agentic_flywheel.model import Receipt, Session, SessionPage, Thread
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.store import Store

_PAGE = 100


class Sessions:
    """The conversations of one tenant."""

    def __init__(self, settings: Settings, store: Store, behind: WriteBehind) -> None:
        self._retention_days = settings.number("session.retention_days")
        self._store = store
        self._behind = behind

    async def list(
        self, *, user: str | None = None, tag: str | None = None, limit: int = 20, cursor: str = ""
    ) -> SessionPage:
        """Sessions by last activity, newest first. `cursor` is the one of the page before."""
        if limit < 1:
            raise InputError(f"a page holds at least 1 session, not {limit}")
        try:
            offset = int(cursor or 0)
        except ValueError as error:
            raise InputError(f"{cursor!r} is not a cursor of this list; start again without one") from error
        await self._behind.flush()
        found: list[Session] = []
        while len(found) < limit:
            ids = await self._store.sessions.recent(user=user or "", offset=offset, count=_PAGE)
            headers = {session.id: session for session in await self._store.sessions.headers(ids)}
            for session_id in ids:
                offset += 1
                session = headers.get(session_id)
                if session is not None and (tag is None or tag in session.tags):
                    found.append(session)
                    if len(found) == limit:
                        break
            else:
                if len(ids) < _PAGE:
                    return SessionPage(sessions=tuple(found))
        return SessionPage(sessions=tuple(found), cursor=str(offset))

    async def show(self, session: str, *, limit: int | None = None) -> Thread:
        """A session with its newest `limit` turns (all for None), oldest first. Raises `UnknownSession`."""
        if limit is not None and limit < 1:
            raise InputError(f"at least 1 turn can be shown, not {limit}")
        header = await self._header(session)
        turns, _ = await self._store.sessions.turns(session, limit=limit)
        return Thread(session=header, turns=turns)

    async def resume(self, session: str | None = None, *, user: str | None = None) -> Session:
        """The session to go on with: the one named, else the newest (of this user). Raises `UnknownSession`."""
        if session is not None:
            return await self._header(session)
        page = await self.list(user=user, limit=1)
        if not page.sessions:
            raise UnknownSession("there is no session yet" + (f" of user {user!r}" if user else ""), user=user)
        return page.sessions[0]

    async def rename(self, session: str, title: str) -> Session:
        """Give a session a title (1 to 200 characters)."""
        title = " ".join(title.split())
        if not 1 <= len(title) <= 200:
            raise InputError(f"a title has 1 to 200 characters, not {len(title)}")
        return await self._amend(session, title=title)

    async def tag(self, session: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Session:
        """Add and remove tags. Tags are ids: 1 to 256 visible characters."""
        header = await self._header(session)
        added = [admit_id(tag.strip(), "tag") for tag in add]
        tags = [tag for tag in dict.fromkeys([*header.tags, *added]) if tag not in set(remove)]
        return await self._amend(session, tags=tags)

    async def configure(self, session: str, config: Mapping[str, Any]) -> Session:
        """Set what is laid over the flow's configuration for every later question of this session; {} takes it back.

        A session that does not exist yet is begun.
        """
        admit_id(session, "session")
        if await self._store.sessions.header(session) is None:
            await self._store.sessions.begin(session, at=time.time())
        return await self._amend(session, config=dict(config))

    async def delete(self, session: str, *, dry_run: bool) -> Receipt:
        """Remove a session, its turns, and the answers kept for it alone. Raises `UnknownSession`."""
        header = await self._header(session)
        turns, damaged = await self._store.sessions.turns(session)
        own = sorted(
            {turn.entry_key for turn in turns if self._store.keys.is_entry_of_session(turn.entry_key, session)}
        )
        removed = {"sessions": 1, "turns": len(turns) + damaged, "entries": len(own)}
        if not dry_run:
            removed["entries"] = await self._store.entries.delete(own)
            await self._store.sessions.delete(header)
        return Receipt(
            action="delete session",
            target=session,
            dry_run=dry_run,
            removed=removed,
            notes=("Answers that it shared with others stay; `cache clear --session` removes them.",),
            at=time.time(),
        )

    async def sweep(self, *, dry_run: bool) -> Receipt:
        """Remove sessions without activity for longer than `session.retention_days` (0: none ever)."""
        now = time.time()
        removed = {"sessions": 0, "turns": 0, "entries": 0}
        if self._retention_days:
            for session in await self._store.sessions.inactive_since(now - self._retention_days * 86400):
                try:
                    receipt = await self.delete(session, dry_run=dry_run)
                except UnknownSession:  # gone since it was listed
                    continue
                removed = {what: count + receipt.removed[what] for what, count in removed.items()}
        target = f"inactive for {self._retention_days:g} days" if self._retention_days else "nothing (retention is off)"
        return Receipt(action="sweep sessions", target=target, dry_run=dry_run, removed=removed, at=now)

    async def _amend(self, session: str, **fields: Any) -> Session:
        if not await self._store.sessions.amend(session, **fields):
            raise _unknown(session)
        return await self._header(session)

    async def _header(self, session: str) -> Session:
        admit_id(session, "session")
        if self._behind.holds(session):
            await self._behind.flush()
        header = await self._store.sessions.header(session)
        if header is None:
            raise _unknown(session)
        return header


def _unknown(session: str) -> UnknownSession:
    return UnknownSession(f"no session {session!r}", session_id=session)

"""The list of sessions by last activity, page by page: those in Redis, and those that only wait in the outbox yet.

Invariant: a session comes up once, however it is paged; with turns in the outbox it comes up as it will be once Redis
has them.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Session, SessionPage, Turn
from agentic_flywheel.store.session_headers import of_one_owner, session_with
from agentic_flywheel.store.store import Store

_PAGE = 100
_WAITING = "{} session(s) have turns that wait in the local outbox until Redis is back."


class SessionList:
    """Lists the sessions of one tenant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(
        self, start: Cursor, waiting: Mapping[str, tuple[Turn, ...]], *, user: str | None, tag: str | None, limit: int
    ) -> SessionPage:
        """A page of two lists, both newest first: sessions with turns in the outbox, and all others in Redis."""
        ahead = await self._ahead(waiting, user=user, tag=tag)
        warnings = (_WAITING.format(len(ahead)),) if ahead else ()
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
                    return SessionPage(sessions=tuple(found), cursor=str(Cursor(offset, local)), warnings=warnings)
        take_ahead(-math.inf)
        cursor = str(Cursor(offset, local)) if local < len(ahead) else ""
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
        absent = await self.absent(waiting)
        headers = {session.id: session for session in await self._store.sessions.headers(list(absent))}
        return [session for session in ahead_of(headers, absent, user=user) if tag is None or tag in session.tags]

    async def absent(self, waiting: Mapping[str, tuple[Turn, ...]]) -> dict[str, tuple[Turn, ...]]:
        """Of turns by session, those that Redis does not have."""
        some = {session: turns for session, turns in waiting.items() if turns}
        return {session: turns for session, turns in (await self._store.sessions.absent(some)).items() if turns}


class Cursor(NamedTuple):
    """Where a list of sessions goes on: in Redis, and among those that wait in the outbox."""

    offset: int = 0
    local: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor as `str` wrote it. Raises `InputError`."""
        found = re.fullmatch(r"([0-9]{1,12})(?:\+([0-9]{1,12}))?", text or "0")
        if found is None:
            raise InputError(f"{text!r} is not a cursor of this list; start again without one")
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        return f"{self.offset}+{self.local}" if self.local else str(self.offset)


def ahead_of(
    headers: Mapping[str, Session], waiting: Mapping[str, Sequence[Turn]], *, user: str | None
) -> Sequence[Session]:
    """Sessions (of a user; None: of all) as they will be with the turns that wait, newest first; `headers` are those
    that Redis has."""
    merged = []
    for session, turns in waiting.items():
        header = headers.get(session)
        if own := of_one_owner(header.owner if header else "", turns):
            merged.append(session_with(header, own))
    return newest_first(session for session in merged if not user or session.owner == user)


def newest_first(sessions: Iterable[Session]) -> Sequence[Session]:
    """Sessions by last activity, the last one first."""
    return sorted(sessions, key=lambda session: session.last_active_at, reverse=True)

"""Sessions as people use them: list, show as a thread, export, resume, rename, tag, link, configure, delete, sweep."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Any

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError, StoreError, StoreFull, UnknownSession, UnknownTurn
from agentic_flywheel.insight.tally import counted_for
from agentic_flywheel.model import Entry, Receipt, Session, SessionPage, Thread, Turn
from agentic_flywheel.personal_data import spoken
from agentic_flywheel.policy.admission import admit_config, admit_id, admit_text
from agentic_flywheel.policy.changes import changes_of
from agentic_flywheel.redacting import Redacting, texts_of
from agentic_flywheel.session_list import Cursor, SessionList, ahead_of, newest_first
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.popularity import KEPT
from agentic_flywheel.store.session_headers import of_one_owner, session_with
from agentic_flywheel.store.store import Store
from agentic_flywheel.threads import LinkHow, SessionLink
from agentic_flywheel.titles import titled

_DAMAGED = "{} turn(s) of this session are damaged and left out."
_COUNTED = "Redis is full, so counts of what is asked often have its words until they end (90 days)."
_ALONE = "Only what waits in the local outbox is shown: {}."
_log = logging.getLogger(__name__)

#: Sessions that one session may be tied to.
MOST_LINKS = 50
_WAITING = "{} turn(s) of this session wait in the local outbox until Redis is back."


class Sessions:
    """The conversations of one tenant."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        behind: WriteBehind,
        forget_drafts: Callable[[str, str, bool], Awaitable[int]],
        redacting: Redacting,
    ) -> None:
        self._redacting = redacting
        self._retention_days = settings.number("session.retention_days")
        self._store = store
        self._list = SessionList(store)
        self._behind = behind
        self._forget_drafts = forget_drafts  # of the FAQ, made of a session or (named) one turn of it; how many

    async def list(
        self, *, user: str | None = None, tag: str | None = None, limit: int = 20, cursor: str = ""
    ) -> SessionPage:
        """Sessions by last activity, newest first. `cursor` is the one of the page before."""
        if limit < 1:
            raise InputError(f"a page holds at least 1 session, not {limit}")
        start = Cursor.read(cursor)
        waiting = await self._waiting()
        try:
            return await self._list.page(start, waiting, user=user, tag=tag, limit=limit)
        except StoreError as error:
            alone = ahead_of({}, waiting, user=user)
            if not alone or tag is not None:
                raise
            return SessionPage(sessions=tuple(alone[:limit]), warnings=(_ALONE.format(error.outline),))

    async def show(self, session: str, *, limit: int | None = None) -> Thread:
        """A session with its newest `limit` turns (all for None), oldest first, what changed between them, and the
        sessions that people tied to it. Raises `UnknownSession`."""
        if limit is not None and limit < 1:
            raise InputError(f"at least 1 turn can be shown, not {limit}")
        admit_id(session, "session")
        waiting = (await self._waiting()).get(session, ())
        try:
            # What waits is looked for first and the header read last: turns may be delivered meanwhile.
            absent = (await self._list.absent({session: waiting})).get(session, ())
            # One more is read: it tells whether the first one shown came with a change.
            turns, damaged = await self._store.sessions.turns(session, limit=None if limit is None else limit + 1)
            header = await self._store.sessions.header(session)
            there = {turn.id for turn in turns}
            absent = tuple(turn for turn in absent if turn.id not in there)
            waiting = of_one_owner(header.owner if header else "", absent)
            notes = [(len(waiting), _WAITING), (damaged, _DAMAGED)]
            warnings = tuple(text.format(count) for count, text in notes if count)
            links = await self._links_of(header) if header else ()
        except StoreError as error:
            if not (waiting := of_one_owner("", waiting)):
                raise
            header, turns, links, warnings = None, (), (), (_ALONE.format(error.outline),)
        if waiting:
            header, turns = session_with(header, waiting), (*turns, *waiting)
        if header is None:
            raise _unknown(session)
        shown = turns[-(limit or 0) :]
        ids = {turn.id for turn in shown}
        changes = tuple(change for change in changes_of(turns) if change.turn_id in ids)
        return Thread(session=header, turns=shown, changes=changes, links=links, warnings=warnings)

    async def export(
        self, session: str, *, form: str = "markdown", limit: int | None = None, private: bool = True
    ) -> str:
        """A session as a document: `markdown` for people, `json` for programs; sources and where each answer came from
        included. Without `private`, private turns are left out. Raises `UnknownSession`."""
        from agentic_flywheel.transcripts import transcript_of

        return transcript_of(await self.show(session, limit=limit), form, private=private, now=time.time())

    async def resume(self, session: str | None = None, *, user: str | None = None) -> Session:
        """The session to go on with: the one named, else the newest (of this user). Raises `UnknownSession`."""
        if session is not None:
            return (await self.show(session, limit=1)).session
        page = await self.list(user=user, limit=1)
        if not page.sessions:
            raise UnknownSession("there is no session yet" + (f" of user {user!r}" if user else ""), user=user)
        return page.sessions[0]

    async def rename(self, session: str, title: str | None) -> Session:
        """Give a session a title (1 to 200 characters); with None it is called by what was asked in it again."""
        if title is None:
            await self._header(session)
            turns, _ = await self._store.sessions.turns(session)
            if not await self._store.sessions.entitle(session, titled(turns)):
                raise _unknown(session)
            return await self._header(session)
        title = self._redacting.text(" ".join(admit_text(title, "title").split()))
        if not 1 <= len(title) <= 200:
            raise InputError(f"a title has 1 to 200 characters, not {len(title)}")
        return await self._amend(session, title=title, title_from="", title_weak="")

    async def tag(self, session: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Session:
        """Add and remove tags. Tags are ids: 1 to 256 visible characters."""
        if isinstance(add, str) or isinstance(remove, str):
            raise InputError("tags are given as a list, also where there is only one")
        header = await self._header(session)
        added = [admit_id(tag.strip(), "tag") for tag in add]
        tags = [tag for tag in dict.fromkeys([*header.tags, *added]) if tag not in set(remove)]
        return await self._amend(session, tags=tags)

    async def link(self, session: str, other: str) -> Thread:
        """Tie two sessions of one user to each other; both show it. Raises `UnknownSession`."""
        one, two = await self._header(session), await self._header(other)
        if session == other:
            raise InputError(f"session {session!r} cannot be linked to itself")
        if one.owner != two.owner:
            raise InputError(
                f"sessions {session!r} and {other!r} are of different users; only those of one user can be linked",
                suggestions=(
                    "Link sessions that one user began: `afw session list --user ID` lists them.",
                    "Give both a tag instead: `afw session tag`.",
                    "Look both up with `afw search`.",
                ),
            )
        for here, there in ((session, other), (other, session)):
            if await self._store.sessions.link(here, there, tied=True, most=MOST_LINKS) == -2:
                raise InputError(f"session {here!r} has {MOST_LINKS} links, and no more are kept")
        return await self.show(session, limit=1)

    async def unlink(self, session: str, other: str) -> Thread:
        """Untie two sessions; also one that is gone. Raises `UnknownSession`; `InputError` where they were not tied."""
        await self._header(session)
        admit_id(other, "session")
        sides = [
            await self._store.sessions.link(here, there, tied=False, most=MOST_LINKS)
            for here, there in ((session, other), (other, session))
        ]
        if 1 not in sides:
            raise InputError(f"sessions {session!r} and {other!r} are not linked")
        return await self.show(session, limit=1)

    async def configure(self, session: str, config: Mapping[str, Any]) -> Session:
        """Set what is laid over the flow's configuration for every later question of this session; {} takes it back.

        A session that does not exist yet is begun.
        """
        admit_id(session, "session")
        config = admit_config(config)
        if (redactor := self._redacting.redactor(self._redacting.kinds_for(None))) is not None:
            for text in texts_of(config):
                if found := redactor.find(text):
                    raise InputError(
                        f"there is {spoken(one.kind for one in found)} in it, which may not be kept here",
                        suggestions=("Give it with each question instead.",),
                    )
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
            if not await self._uncount(turns, turns):
                notes.append(_COUNTED)
            removed["entries"] = await self._store.entries.remove(entries) + await self._store.entries.delete(spoilt)
            if not await self._store.sessions.delete(header):
                notes.append("Redis is full, so indexes of history have its words still: run `afw index rebuild`.")
            await self._store.history.remove(sessions=[session])  # at once, whether or not anybody searches
            await self._forget_links(header)
        return Receipt(
            action="delete session",
            target=session,
            dry_run=dry_run,
            removed=removed,
            notes=tuple(notes),
            at=time.time(),
        )

    async def delete_turn(self, session: str, turn: str, *, dry_run: bool) -> Receipt:
        """Remove one turn of a session, what was reported of it, and the answer kept for it alone, for good: it is not
        taken in again.

        A title that the turn gave its session goes with it. Raises `UnknownSession`, `UnknownTurn`.
        """
        await self._header(session)
        turns, _ = await self._store.sessions.turns(session)
        if not any(known.id == admit_id(turn, "turn") for known in turns):
            raise UnknownTurn(f"no turn {turn!r} in session {session!r}", turn_id=turn, session_id=session)
        notes = ["An answer that it shared with others stays; `cache clear` removes it."]
        removed, counted = await self.remove_turns(session, turns, {turn}, dry_run=dry_run)
        if not counted:
            notes.append(_COUNTED)
        if reports := await self._store.similar.forget_reports_of({session: {turn}}, dry_run=dry_run):
            removed["reports"] = reports
        return Receipt(
            action="delete turn",
            target=f"{session} {turn}",
            dry_run=dry_run,
            removed=removed,
            notes=tuple(notes),
            at=time.time(),
        )

    async def remove_turns(
        self, session: str, turns: Sequence[Turn], gone: Set[str], *, dry_run: bool
    ) -> tuple[dict[str, int], bool]:
        """Remove turns of a session by their ids, with what was made of them: counts, drafts, documents of the index,
        answers that were kept for the session alone. `turns` are all of the session. How much of each, and whether
        counts could be changed."""
        chosen = [known for known in turns if known.id in gone]
        others = [known for known in turns if known.id not in gone]
        used = {other.entry_key for other in others}
        own = sorted(
            {
                turn.entry_key
                for turn in chosen
                if self._store.keys.is_entry_of_session(turn.entry_key, session) and turn.entry_key not in used
            }
        )
        looked = zip(own, await self._store.entries.get_many(own), strict=True)
        kept: dict[str, Entry] = {key: one.entry for key, one in looked if one.entry is not None}
        removed = {"turns": len(chosen), "entries": len(kept)}
        drafts = sum([await self._forget_drafts(session, turn.id, dry_run) for turn in chosen])
        if drafts:
            removed["FAQ drafts"] = drafts
        counted = True
        if not dry_run:
            counted = await self._uncount(turns, chosen)
            removed["entries"] = await self._store.entries.remove(kept)
            ids = [turn.id for turn in chosen]
            removed["turns"] = await self._store.sessions.delete_turns(session, ids, title=titled(others))
            await self._store.history.remove(turns=[(session, id_) for id_ in ids])
        return removed, counted

    async def sweep(self, *, dry_run: bool, now: float | None = None) -> Receipt:
        """Remove sessions without activity for longer than `session.retention_days` (0: none ever); `now` is the time
        that counts (epoch seconds)."""
        now = time.time() if now is None else now
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

    async def _uncount(self, turns: Sequence[Turn], gone: Sequence[Turn]) -> bool:
        """Take turns that go out of the counts of what is asked often; `turns` are all of their session.

        False where a full server does not let counts be changed: the turns can be removed all the same.
        """
        since = time.time() - KEPT.total_seconds()
        if not any(turn.at >= since for turn in gone):
            return True
        try:
            await self._behind.flush()
            ids = {turn.id for turn in gone}
            counted = counted_for(turns, ids, tenant=self._store.keys.root, since=since)
            await self._store.popularity.subtract(counted)
        except StoreFull as error:
            _log.warning("turns are deleted, and still counted: %s", error)
            return False
        return True

    async def _forget_links(self, gone: Session) -> None:
        """Untie a session that is gone; a link that stays behind leads nowhere, and is shown nowhere."""
        try:
            for other in gone.links:
                await self._store.sessions.link(other, gone.id, tied=False, most=MOST_LINKS)
        except StoreError as error:
            _log.warning("links to session %s stay: %s", gone.id, error)

    async def _links_of(self, header: Session) -> tuple[SessionLink, ...]:
        """The sessions that people tied to one, the last active first; those that are gone are left out."""
        found = await self._store.sessions.headers(header.links)
        return tuple(link_to(one, LinkHow.SET) for one in newest_first(found) if one.owner == header.owner)

    async def _amend(self, session: str, **fields: Any) -> Session:
        if not await self._store.sessions.amend(session, **fields):
            raise _unknown(session)
        return await self._header(session)

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


def link_to(session: Session, how: LinkHow) -> SessionLink:
    """A link that leads to a session."""
    return SessionLink(
        session_id=session.id,
        how=how,
        title=session.title,
        flow=session.flow,
        turns=session.turns,
        last_active_at=session.last_active_at,
    )


def _unknown(session: str) -> UnknownSession:
    return UnknownSession(f"no session {session!r}", session_id=session)

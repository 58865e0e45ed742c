"""Removes what came of a conversation, of a person or of certain words, wherever it is kept.

Invariant: what is named is gone from every process as soon as this returns: the turns, the answers that were computed
for them (those that others share included), their vectors, counts, wordings, drafts and reports; indexes of history on
other machines lose it with their next search. Somebody else's turns and answers are not touched, and what a person
approved for the FAQ stays, as the team's own words. Run again after it was cut off, it does the rest.
"""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError, UnknownSession
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Entry, Receipt, Turn
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.sessions import Sessions
from agentic_flywheel.store.gone import records
from agentic_flywheel.store.keys import flight_name, scope_of_key
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.erasing import Erasing, Pending

_PAGE = 200
#: Fewer characters would match what nobody meant.
_FEWEST = 4
_SHARED = "Answers that others asked for as well, in their own sessions, stay in those."
_TITLES = "Titles and tags that a person wrote stay: `afw session rename` and `afw session tag` change them."
_APPROVED = "What was approved for the FAQ stays: `afw faq retire` takes it out."


class Forgetting:
    """Forgets for one tenant; `uncount` removes what was counted of a user, `at_hand` what this process has at hand."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        behind: WriteBehind,
        matching: Matching,
        uncount: Callable[..., Awaitable[Receipt]],
        at_hand: Callable[[], None],
        erasing: Erasing,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._behind = behind
        self._matching = matching
        self._uncount = uncount
        self._at_hand = at_hand
        self._erasing = erasing
        self._scan = Scan(store.link, store.keys)

    async def session(self, session: str, *, dry_run: bool) -> Receipt:
        """Forget a conversation. Raises `UnknownSession`."""
        admit_id(session, "session")
        await self._behind.flush()
        pending = self._erasing.begin(dry_run=dry_run)
        await self._note(pending, [session])
        removed = await self._forget(session, dry_run=dry_run)
        return (await pending.done()).on(_receipt("forget session", session, removed, dry_run=dry_run))

    async def user(self, user: str, *, dry_run: bool) -> Receipt:
        """Forget everything of a person: their conversations, the answers that were computed for them, and what was
        counted of them.

        A session that somebody else owns stays, with the turns that this person asked in it. Reads all stored answers:
        of some no conversation tells (any more).
        """
        admit_id(user, "user")
        await self._behind.flush()
        removed: Counter[str] = Counter()
        pending = self._erasing.begin(dry_run=dry_run)
        await pending.add(users=[user])
        await self._note(pending, owned := await self._owned(user))
        told: set[str] = set()
        for session in owned:
            removed.update(await self._forget(session, dry_run=dry_run, told=told))
        here = set(owned)

        def left(key: str, entry: Entry) -> bool:
            counted = key in told or (scope_of_key(key) == Scope.SESSION and entry.session_id in here)
            return entry.user == user and not (dry_run and counted)

        removed["shared answers"] += await self._unstore(left, pending, dry_run=dry_run)
        aside = await self._store.outbox.forget_turns(
            lambda turn: turn.user == user and not (dry_run and turn.session_id in here), dry_run=dry_run
        )
        if aside:
            removed["turns set aside"] = aside
        removed["counted days"] = (await self._uncount(user, dry_run=dry_run)).removed["days"]
        if not dry_run:
            await self._store.sessions.forget_user(user)
        return (await pending.done()).on(_receipt("forget user", user, removed, dry_run=dry_run))

    async def matching(self, words: str, *, user: str = "", dry_run: bool) -> Receipt:
        """Forget every turn and every stored answer that holds these words, next to each other, in any case and
        spacing; of one user's alone where `user` is named. Raises `InputError`.

        Reads all that is kept, not an index, so nothing is missed that the index would cut or leave out. The words
        themselves stand in no receipt and in no log. What a flow said to those who wait goes within 18 s by itself.
        """
        needle = _folded(words)
        if len(needle) < _FEWEST:
            raise InputError(
                f"{len(needle)} characters match too much", suggestions=(f"Name at least {_FEWEST} of them.",)
            )
        if user:
            admit_id(user, "user")
        await self._behind.flush()
        await self._store.outbox.settle()
        removed: Counter[str] = Counter({"turns": 0, "entries": 0})
        pending = self._erasing.begin(dry_run=dry_run)
        async for sessions in self._scan.session_ids(user=user):
            for session in sessions:
                turns, _ = await self._store.sessions.turns(session)
                found = [turn for turn in turns if user in ("", turn.user) and _said_in(turn, needle)]
                await pending.add(traces=[turn.trace_id for turn in found])
                for turn in found:
                    receipt = await self._sessions.delete_turn(session, turn.id, dry_run=dry_run)
                    removed.update(receipt.removed)
        aside = await self._store.outbox.forget_turns(
            lambda turn: user in ("", turn.user) and _said_in(turn, needle), dry_run=dry_run
        )
        if aside:
            removed["turns set aside"] = aside
        removed["entries"] += await self._unstore(
            lambda _key, entry: user in ("", entry.user) and _holds(needle, entry.question, entry.asked, entry.answer),
            pending,
            dry_run=dry_run,
        )
        target = f"what holds certain words ({len(needle)} characters)" + (f" of {user}" if user else "")
        receipt = _receipt("forget", target, removed, dry_run=dry_run, notes=(_TITLES, _APPROVED))
        return (await pending.done()).on(receipt)

    async def _unstore(self, meant: Callable[[str, Entry], bool], pending: Pending, *, dry_run: bool) -> int:
        """Remove the answers, among all that are stored, that are meant; how many they were."""
        count = 0
        for flow in await self._store.flows.known():
            async for keys in self._scan.entry_keys(flow, generation=None):
                for start in range(0, len(keys), _PAGE):
                    looked = await self._scan.entries(keys[start : start + _PAGE])
                    found = {
                        key: one.entry for key, one, _ in looked if one.entry is not None and meant(key, one.entry)
                    }
                    count += len(found)
                    await pending.add(traces=[entry.trace_id for entry in found.values()])
                    if not dry_run:
                        await self._remember(found.values())
                        await self._remove(found)
        if not dry_run:
            self._at_hand()
        return count

    async def _remove(self, found: Mapping[str, Entry]) -> int:
        """Remove answers by key, with their vectors and what their flows said to those who waited."""
        for key, entry in found.items():
            await self._matching.forget(key, entry)
            await self._store.leases.forget(flight_name(key, f"{entry.fingerprint} {entry.generation}"))
        return await self._store.entries.remove(found)

    async def _note(self, pending: Pending, sessions: Sequence[str]) -> None:
        """Say which traces tell of these sessions."""
        if not pending.wanted:
            return
        from agentic_flywheel.observe.spans import score_id

        waiting = await self._store.outbox.sessions()
        for session in sessions:
            turns, _ = await self._store.sessions.turns(session)
            said = (await self._store.judgements.of([session]))[session]
            await pending.add(
                traces=[turn.trace_id for turn in (*turns, *waiting.get(session, ()))],
                sessions=[session],
                scores=[score_id("", session, one.name, one.by) for one in said if not one.turn_id],
            )

    async def _remember(self, entries: Iterable[Entry], *, session: str = "") -> None:
        """Remember what goes, so that an answer that is put back is not served: all of a session's, else one by one."""
        turns: dict[str, set[str]] = {}
        for entry in entries:
            turns.setdefault(entry.flow, set()).add(entry.turn_id)
        now = time.time()
        for flow, ids in turns.items():
            told = records(sessions=[session], at=now) if session else records(turns=sorted(ids), at=now)
            await self._store.flows.remember_gone(flow, told, now=now)

    async def _owned(self, user: str) -> list[str]:
        found: list[str] = []
        offset = 0
        while page := await self._store.sessions.recent(user=user, offset=offset, count=_PAGE):
            offset += len(page)
            found += [header.id for header in await self._store.sessions.headers(page) if header.owner == user]
        waiting = await self._store.outbox.sessions()
        ahead = {id_ for id_, turns in waiting.items() if turns and turns[0].user == user}
        return list(dict.fromkeys([*found, *sorted(ahead)]))

    async def _forget(self, session: str, *, dry_run: bool, told: set[str] | None = None) -> Counter[str]:
        """Forget one conversation; the keys of the shared answers that were computed for it are added to `told`."""
        removed: Counter[str] = Counter()
        shared = await contributed(self._store, [session])
        if told is not None:
            told.update(shared)
        removed["shared answers"] = len(shared)
        removed["reports"] = await self._store.similar.forget_reports(session, dry_run=dry_run)
        if not dry_run:
            await self._remember(shared.values(), session=session)
            removed["shared answers"] = await self._remove(shared)
            self._at_hand()
        # The session goes last: cut off before, it says what is left to forget.
        receipt = await self._sessions.delete(session, dry_run=dry_run)
        removed.update(receipt.removed)
        return removed


async def contributed(store: Store, sessions: Sequence[str]) -> dict[str, Entry]:
    """The stored answers that were computed for these sessions, by key. Raises `UnknownSession`.

    A key may hold somebody else's newer answer by now: that one is not theirs.
    """
    keys: set[str] = set()
    for session in sessions:
        turns, _ = await store.sessions.turns(session)
        if not turns and await store.sessions.header(session) is None:
            raise UnknownSession(f"no session {session!r}", session_id=session)
        # Of hits too: an answer near its end that they were given was asked for anew in their name.
        keys |= {turn.entry_key for turn in turns if turn.entry_key}
    looked = dict(zip(sorted(keys), await store.entries.get_many(sorted(keys)), strict=True))
    named = set(sessions)
    return {k: v.entry for k, v in looked.items() if v.entry is not None and v.entry.session_id in named}


def _folded(text: str) -> str:
    """A text as it is compared: neither case, nor spacing, nor the form of letters counts."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _said_in(turn: Turn, needle: str) -> bool:
    return _holds(needle, turn.question, turn.answer, turn.matched_question)


def _holds(needle: str, *texts: str) -> bool:
    return any(needle in _folded(text) for text in texts if text)


def _receipt(
    action: str,
    target: str,
    removed: Counter[str],
    *,
    dry_run: bool,
    notes: tuple[str, ...] = (_SHARED, _APPROVED),
) -> Receipt:
    return Receipt(
        action=action,
        target=target,
        dry_run=dry_run,
        removed=dict(removed),
        unreachable=removed["shared answers"] + removed["entries"],
        notes=notes,
        at=time.time(),
    )

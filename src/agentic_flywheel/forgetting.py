"""Removes what came of a conversation, or of a person, wherever it is kept.

Invariant: what is named is gone from every process as soon as this returns: the turns, the answers that were computed
for them (those that others share included), their vectors, counts, wordings, drafts and reports; indexes of history on
other machines lose it with their next search. Somebody else's turns and answers are not touched, and what a person
approved for the FAQ stays, as the team's own words. Run again after it was cut off, it does the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import UnknownSession
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Entry, Outcome, Receipt
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.sessions import Sessions
from agentic_flywheel.store.keys import flight_name
from agentic_flywheel.store.store import Store

_PAGE = 500
_SHARED = "Answers that others asked for as well, in their own sessions, stay in those."
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
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._behind = behind
        self._matching = matching
        self._uncount = uncount
        self._at_hand = at_hand

    async def session(self, session: str, *, dry_run: bool) -> Receipt:
        """Forget a conversation. Raises `UnknownSession`."""
        admit_id(session, "session")
        await self._behind.flush()
        removed = await self._forget(session, dry_run=dry_run)
        return _receipt("forget session", session, removed, dry_run=dry_run)

    async def user(self, user: str, *, dry_run: bool) -> Receipt:
        """Forget everything of a person: their conversations, and what was counted of them.

        A session that somebody else owns stays, with the turns that this person asked in it.
        """
        admit_id(user, "user")
        await self._behind.flush()
        removed: Counter[str] = Counter()
        for session in await self._owned(user):
            removed.update(await self._forget(session, dry_run=dry_run))
        removed["counted days"] = (await self._uncount(user, dry_run=dry_run)).removed["days"]
        if not dry_run:
            await self._store.sessions.forget_user(user)
        return _receipt("forget user", user, removed, dry_run=dry_run)

    async def _owned(self, user: str) -> list[str]:
        found: list[str] = []
        offset = 0
        while page := await self._store.sessions.recent(user=user, offset=offset, count=_PAGE):
            offset += len(page)
            found += [header.id for header in await self._store.sessions.headers(page) if header.owner == user]
        waiting = await self._store.outbox.sessions()
        ahead = {id_ for id_, turns in waiting.items() if turns and turns[0].user == user}
        return list(dict.fromkeys([*found, *sorted(ahead)]))

    async def _forget(self, session: str, *, dry_run: bool) -> Counter[str]:
        removed: Counter[str] = Counter()
        shared = await contributed(self._store, [session])
        removed["shared answers"] = len(shared)
        removed["reports"] = await self._store.similar.forget_reports(session, dry_run=dry_run)
        if not dry_run:
            for key, entry in shared.items():
                await self._matching.forget(key, entry)
                await self._store.leases.forget(flight_name(key, f"{entry.fingerprint} {entry.generation}"))
            removed["shared answers"] = await self._store.entries.remove(shared)
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
        keys |= {t.entry_key for t in turns if t.entry_key and t.outcome in {Outcome.MISS, Outcome.JOINED}}
    looked = dict(zip(sorted(keys), await store.entries.get_many(sorted(keys)), strict=True))
    named = set(sessions)
    return {k: v.entry for k, v in looked.items() if v.entry is not None and v.entry.session_id in named}


def _receipt(action: str, target: str, removed: Counter[str], *, dry_run: bool) -> Receipt:
    return Receipt(
        action=action,
        target=target,
        dry_run=dry_run,
        removed=dict(removed),
        unreachable=removed["shared answers"] + removed["entries"],
        notes=(_SHARED, _APPROVED),
        at=time.time(),
    )

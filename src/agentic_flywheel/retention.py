"""Turns go when they are older than the strictest policy that concerns them lets them be, also in sessions that go on.

Invariant: what goes is what policy has given up: each turn is judged by itself, by its flow and its user, when it is
removed. A sweep goes through the sessions in a fixed order, a bounded round at a time, and notes where it is: whoever
is killed over it is followed by somebody else, at that place; two at a time remove each turn once. Of a session, turns
that come in meanwhile stay: it is closed only where none is left. What a round removes stands in the audit log before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from agentic_flywheel.callers import AuditEntry
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.snapshot import RegistrySnapshot
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.model import Receipt, Turn
from agentic_flywheel.policy.privacy import resolve
from agentic_flywheel.privacy import Rule, SweepNote, Whose
from agentic_flywheel.sessions import Sessions
from agentic_flywheel.store.keys import SHARDS
from agentic_flywheel.store.retention import SweepNotes
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

#: Sessions that one round looks at, and that are read together.
ROUND = 500
_TOGETHER = 20
#: Rounds that housekeeping has done at a time.
_ROUNDS = 200
_DAY = 86_400.0
#: Who is named in the audit log where no person had it done.
BY = "housekeeping"
_NOTE = "Answers that were shared stay until their lifetime ends; `afw cache clear` removes them."


class _Terms:
    """How many days turns may be kept, by whose they are; `least` is the shortest of all, None where there is none."""

    def __init__(self, policies: KnownPolicies, registry: RegistrySnapshot) -> None:
        self._policies = policies
        self._flows = registry.flows
        rules = [*policies.rules.values()]
        rules += [Rule(Whose.FLOW, key, s.privacy) for key, s in registry.flows.items() if s.privacy is not None]
        days = [rule.policy.retention_days for rule in rules if rule.policy.retention_days is not None]
        self.least = min(days, default=None)
        self.users = frozenset(rule.name for rule in rules if rule.whose is Whose.USER)
        self._known: dict[tuple[str, str], float | None] = {}

    def days(self, turn: Turn) -> float | None:
        """What holds for a turn."""
        name = (turn.flow, turn.user if turn.user in self.users else "")
        if name not in self._known:
            rules = self._policies.rules_for(turn.flow, self._flows.get(turn.flow), name[1])
            self._known[name] = resolve(rules).retention_days
        return self._known[name]

    def over(self, turn: Turn, now: float) -> bool:
        """Whether a turn is past its retention."""
        days = self.days(turn)
        return days is not None and turn.at < now - days * _DAY


class _Found(msgspec.Struct):
    """What one round saw: by session, the ids of turns that are to go; how much it looked at; and its place."""

    due: dict[str, set[str]]
    oldest: dict[str, float]
    sessions: int = 0
    turns: int = 0
    shard: int = 0
    after: str = ""
    done: bool = False


class Retention:
    """Enforces the retention of one tenant's turns."""

    def __init__(self, registry: Registry, store: Store, sessions: Sessions, policies: KnownPolicies) -> None:
        self._registry = registry
        self._store = store
        self._sessions = sessions
        self._policies = policies

    async def notes(self) -> SweepNotes:
        """The sweep under way and the last whole one. Raises `StoreError`."""
        return await self._store.sweeps.read()

    async def sweep(self, *, dry_run: bool, now: float | None = None) -> Receipt:
        """Remove all turns past their retention, and sessions without activity for `session.retention_days`; from the
        beginning to the end. `now` is the time that counts (epoch seconds)."""
        receipt = await self._sessions.sweep(dry_run=dry_run, now=now)
        at = time.time() if now is None else now
        removed = dict(receipt.removed)
        if dry_run:
            terms, found = await self._terms(), _Found({}, {})
            while not found.done:
                found = await self._look(terms, found, now=at, most=ROUND)
                for session, ids in found.due.items():
                    await self._remove(session, ids, removed, dry_run=True)
                await self._unreport(found, removed, dry_run=True)
                found.due.clear()
        else:
            await self._store.sweeps.write(SweepNotes(last=(await self.notes()).last))
            while not await self.round(now=at, removed=removed, audited=True):
                pass
        return msgspec.structs.replace(
            receipt,
            action="sweep",
            target=f"turns past their retention; sessions: {receipt.target}",
            removed=removed,
            notes=(_NOTE,),
        )

    async def round(
        self,
        *,
        now: float | None = None,
        most: int = ROUND,
        removed: dict[str, int] | None = None,
        audited: bool = False,
    ) -> bool:
        """Go on with the sweep that is under way, or begin one, for the next `most` sessions; whether it has come to
        its end. `removed` is added to; `audited` says that the audit log knows already. Raises `StoreError`."""
        at = time.time() if now is None else now
        terms, notes = await self._terms(), await self.notes()
        note = notes.running or SweepNote(began_at=at)
        begun = _Found({}, dict(note.oldest), shard=note.shard, after=note.after)
        found = await self._look(terms, begun, now=at, most=most)
        going = sum(map(len, found.due.values()))
        if going and not audited:
            facts = {"turns": str(going), "sessions": str(len(found.due))}
            why = "older than policy lets them be"
            entry = AuditEntry(action="retention.sweep", target=f"{going} turns", by=BY, at=at, why=why, facts=facts)
            await self._store.audit.append(entry)
        counts: dict[str, int] = {} if removed is None else removed
        before = counts.get("turns", 0), counts.get("sessions", 0)
        await self._unreport(found, counts, dry_run=False)  # first: who is cut off behind it finds the turns again
        for session, ids in found.due.items():
            await self._remove(session, ids, counts, dry_run=False)
        note = msgspec.structs.replace(
            note,
            sessions=note.sessions + found.sessions,
            turns=note.turns + found.turns,
            removed=note.removed + counts.get("turns", 0) - before[0],
            ended=note.ended + counts.get("sessions", 0) - before[1],
            oldest=found.oldest,
            shard=found.shard,
            after=found.after,
            done_at=at if found.done else None,
        )
        written = SweepNotes(last=note) if found.done else SweepNotes(running=note, last=notes.last)
        await self._store.sweeps.write(written)
        return found.done

    async def go_on(self, *, now: float | None = None) -> bool:
        """A part of the day's sweep, as housekeeping has it done; whether it has come to its end."""
        for _ in range(_ROUNDS):
            if await self.round(now=now):
                return True
        return False

    async def _terms(self) -> _Terms:
        await self._policies.load(slow=True)
        return _Terms(self._policies, self._registry.current())

    async def _look(self, terms: _Terms, found: _Found, *, now: float, most: int) -> _Found:
        """See which turns are due among the sessions behind the place in `found`."""
        scan = Scan(self._store.link, self._store.keys)
        found = _Found(found.due, found.oldest, found.sessions, found.turns, found.shard, found.after)
        left = most
        while found.shard < SHARDS and left > 0:
            ids = sorted(await scan.members(self._store.keys.sessions(found.shard)))
            behind = [id_ for id_ in ids if id_ > found.after][:left]
            for start in range(0, len(behind), _TOGETHER):
                await self._judge(scan, terms, behind[start : start + _TOGETHER], found, now)
            left -= len(behind)
            found.sessions += len(behind)
            if not behind or left > 0:
                found.shard, found.after = found.shard + 1, ""
            else:
                found.after = behind[-1]
        found.done = found.shard >= SHARDS
        return found

    async def _judge(self, scan: Scan, terms: _Terms, ids: Sequence[str], found: _Found, now: float) -> None:
        """Note what is due in these sessions. A session is read until a page holds nothing that could be."""
        earliest = None if terms.least is None else now - terms.least * _DAY
        for header, turns, behind in await scan.sessions(ids):
            session = header.id if header is not None else turns[0].session_id if turns else ""
            page, edge = turns, behind
            while True:
                for turn in page:
                    found.turns += 1
                    if terms.over(turn, now):
                        found.due.setdefault(session, set()).add(turn.id)
                    else:
                        _note_age(found.oldest, turn, terms.users)
                if not edge or earliest is None or all(turn.at >= earliest for turn in page):
                    break
                page, edge = await scan.page(session, edge)

    async def _remove(self, session: str, ids: set[str], removed: dict[str, int], *, dry_run: bool) -> None:
        """Remove these turns of a session, and the session where none is left."""
        turns, damaged = await self._store.sessions.turns(session)
        gone, _ = await self._sessions.remove_turns(session, turns, ids, dry_run=dry_run)
        empty = not damaged and all(turn.id in ids for turn in turns)
        if empty:
            gone["sessions"] = int(dry_run or await self._close(session))
        for what, count in gone.items():
            removed[what] = removed.get(what, 0) + count

    async def _unreport(self, found: _Found, removed: dict[str, int], *, dry_run: bool) -> None:
        """Remove what people said of the answers that go."""
        if found.due and (reports := await self._store.similar.forget_reports_of(found.due, dry_run=dry_run)):
            removed["reports"] = removed.get("reports", 0) + reports

    async def _close(self, session: str) -> bool:
        header = await self._store.sessions.header(session)
        if header is None or not await self._store.sessions.close(header):
            return False
        await self._store.history.remove(sessions=[session])
        return True


def _note_age(oldest: dict[str, float], turn: Turn, users: frozenset[str]) -> None:
    names = [str(Whose.TENANT), f"{Whose.FLOW} {turn.flow}"]
    if turn.user in users:
        names.append(f"{Whose.USER} {turn.user}")
    for name in names:
        oldest[name] = min(turn.at, oldest.get(name, turn.at))

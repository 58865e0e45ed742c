"""What becomes of the records of a backup: they are put back into a tenant, beside what is there.

Invariant: everything is counted, as added, as there already, or as skipped with the reason; nothing is counted twice.
What is here and newer, or was decided by people here, stays. An answer is only put back under the very configuration of
its flow that gave it; a flow that nobody has asked here is taken over as it was, and the next question looks whether
that still holds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from agentic_flywheel.backup_records import (
    AskedOn,
    BlockedPair,
    JoinedWording,
    KnownFlow,
    Record,
    SetLifetime,
    SetSimilar,
    StoredEntry,
)
from agentic_flywheel.curated import FaqRecord
from agentic_flywheel.likeness import Proposal, Report
from agentic_flywheel.model import LASTING_GENERATION, Entry, FlowState, Session, Turn
from agentic_flywheel.policy.faq import taken_by
from agentic_flywheel.privacy import Rule
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.keys import Keys, safe
from agentic_flywheel.store.popularity import KEPT, STEP
from agentic_flywheel.store.popularity import Record as Counts
from agentic_flywheel.store.privacy import field_of, keeps_answers, keeps_turns
from agentic_flywheel.store.restoring import Restored, Restoring, SessionPart
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

DECIDED_HERE = "decided otherwise here"
EXPIRED = "expired since"
FLOW_CHANGED = "another configuration of the flow"
FLOW_UNKNOWN = "nothing is known of the flow"
PRIVATE = "called private here"
POLICY = "a privacy policy here keeps none"
NO_KEY = "not under the key of an answer"
SOMEBODY_ELSES = "the session is another user's here"


class BackupTarget:
    """Puts records back into one tenant; `tenant` is the one that they come from.

    `added` and `there` count by kind, `skipped` by kind and reason ("entry: expired since").
    """

    def __init__(self, store: Store, *, tenant: str, dry_run: bool) -> None:
        self._store = store
        self.dry_run = dry_run
        self._from_root = Keys(tenant).root + ":"
        self._scan = Scan(store.link, store.keys)
        self._restoring = Restoring(store.link, store.keys)
        self.added: Counter[str] = Counter()
        self.there: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._adopted: dict[str, str] = {}  # what a dry run would have taken over
        self._reports: set[str] | None = None
        self._proposals: set[str] | None = None
        self._rules: Mapping[str, Rule] | None = None
        one_by_one: Mapping[str, Callable[[Any], Coroutine[Any, Any, bool | str]]] = {
            "flow": self._flow,
            "lifetime": self._lifetime,
            "privacy": self._privacy,
            "similar": self._similar,
            "blocked": self._blocked,
            "report": self._report,
            "proposal": self._proposal,
            "faq": self._faq,
        }
        self._one_by_one = one_by_one

    async def put(self, records: Sequence[Record]) -> None:
        """Put records back; acknowledged by Redis when this returns. Raises `StoreError`; all may be sent again."""
        await self._look()
        for group, run in groupby(records, lambda one: "turn" if one.kind == "session" else one.kind):
            some = list(run)
            if group == "turn":
                await self._sessions(some)
            elif group == "asked":
                await self._asked([one.value for one in some])
            elif group == "joined":
                await self._joined([one.value for one in some])
            elif group == "entry":
                await self._entries([one.value for one in some])
            else:
                for one in some:
                    self._count(one.kind, await self._one_by_one[group](one.value))

    async def _look(self) -> None:
        """Learn which policies hold here before anything is put back: those that come with it are about what comes
        later."""
        if self._rules is None:
            self._rules = (await self._store.policies.table(slow=True)).rules

    def _count(self, kind: str, result: bool | str, times: int = 1) -> None:
        """Count what was added (True), what was there (False), or why it was skipped."""
        if not times:
            return
        if isinstance(result, str):
            self.skipped[f"{kind}: {result}"] += times
        else:
            (self.added if result else self.there)[kind] += times

    async def _sessions(self, records: Sequence[Record]) -> None:
        headers: dict[str, Session] = {}
        turns: dict[str, list[Turn]] = {}
        rules = self._rules or {}
        for record in records:
            if rules and not _kept(rules, record.value):
                self._count(record.kind, POLICY)
            elif isinstance(record.value, Session):
                headers[record.value.id] = record.value
                turns.setdefault(record.value.id, [])
            else:
                turns.setdefault(record.value.session_id, []).append(self._own(record.value))
        if not turns:
            return
        parts = [SessionPart(id_, headers.get(id_), tuple(some)) for id_, some in turns.items()]
        for part, result in zip(parts, await self._restoring.sessions(parts, dry_run=self.dry_run), strict=True):
            self._count_session(part, result)

    def _count_session(self, part: SessionPart, result: Restored) -> None:
        if part.header is not None:
            self._count("session", SOMEBODY_ELSES if result.refused else not result.known)
        if result.refused and part.turns:
            self._count("turn", SOMEBODY_ELSES, len(part.turns))
        elif not result.refused:
            self._count("turn", True, result.appended)
            self._count("turn", False, len(part.turns) - result.appended)

    def _own(self, turn: Turn) -> Turn:
        """A turn as this tenant keeps it: the answer that it names is this tenant's."""
        root = self._store.keys.root + ":"
        if root == self._from_root or not turn.entry_key.startswith(self._from_root):
            return turn
        return msgspec.structs.replace(turn, entry_key=root + turn.entry_key.removeprefix(self._from_root))

    async def _asked(self, counted: Sequence[AskedOn]) -> None:
        """Counts of questions and steps: of two for one day, that which counts more stays."""
        popularity, now = self._store.popularity, time.time()
        oldest, rules = day_of(now - KEPT.total_seconds()), self._rules or {}
        withheld = {flow for flow in {one.flow for one in counted} if not keeps_answers(rules, flow, "")}
        withheld |= {flow for flow in {one.flow for one in counted} if not keeps_turns(rules, flow, "")}
        self._count("asked", POLICY, sum(one.flow in withheld for one in counted))
        counted = [one for one in counted if one.flow not in withheld]
        days: dict[tuple[str, str, bool], dict[str, Counts]] = {}
        for one in counted:
            record = Counts(one.asked, one.served, one.saved_us, one.first, one.last, one.marks, one.text)
            days.setdefault((one.flow, one.day, STEP in one.name), {})[one.name] = record
        for (flow, day, is_step), records in days.items():
            if day < oldest:
                self._count("asked", EXPIRED, len(records))
            elif self.dry_run:
                here = {
                    name: record
                    async for _, some in popularity.days([flow], [day], steps=is_step)
                    for name, record in some.items()
                }
                more = sum(name not in here or here[name].asked < one.asked for name, one in records.items())
                self._count("asked", True, more)
                self._count("asked", False, len(records) - more)
            else:
                done = await popularity.restore(flow, day, records, is_step=is_step, now=now)
                self._count("asked", True, done.count(1))
                self._count("asked", False, done.count(0))
                if hidden := done.count(-1):
                    self._count("asked", PRIVATE, hidden)

    async def _joined(self, joined: Sequence[JoinedWording]) -> None:
        by_flow: dict[str, dict[str, tuple[str, str]]] = {}
        for one in joined:
            by_flow.setdefault(one.flow, {})[one.name] = (one.leads_to, one.day)
        for flow, some in by_flow.items():
            known = await self._store.popularity.joined(flow)
            new = {name: said for name, said in some.items() if name not in known}
            if new and not self.dry_run:
                await self._store.popularity.rejoin(flow, new)
            self._count("joined", True, len(new))
            self._count("joined", False, len(some) - len(new))

    async def _entries(self, stored: Sequence[StoredEntry]) -> None:
        now = time.time()
        states = {flow: await self._store.flows.state(flow) for flow in {one.entry.flow for one in stored}}
        wanted: dict[str, tuple[Entry, float]] = {}
        for one in stored:
            key = f"{self._store.keys.root}:{one.key}"
            state = states[one.entry.flow]
            if why := self._refusal(key, one, state, now):
                self._count("entry", why)
                continue
            generation = LASTING_GENERATION if one.entry.withdrawn else state.generation
            wanted[key] = (msgspec.structs.replace(one.entry, generation=generation), one.ends_at)
        done = await self._restoring.entries(wanted, now=now, dry_run=self.dry_run)
        for put in done.values():
            self._count("entry", put)

    def _refusal(self, key: str, stored: StoredEntry, state: FlowState, now: float) -> str:
        """Why an answer is not put back; "" where it is."""
        entry = stored.entry
        if self._rules and not keeps_answers(self._rules, entry.flow, entry.user):
            return POLICY
        if not self._store.keys.is_entry(key) or f":flow:{safe(entry.flow)}:q:" not in key:
            return NO_KEY
        if stored.ends_at <= now:
            return EXPIRED
        fingerprint = state.fingerprint or self._adopted.get(entry.flow, "")
        if not fingerprint:
            return FLOW_UNKNOWN
        return "" if entry.fingerprint == fingerprint else FLOW_CHANGED

    async def _flow(self, known: KnownFlow) -> bool | str:
        if self.dry_run:
            unknown = not (await self._store.flows.state(known.flow)).fingerprint
            if unknown:
                self._adopted[known.flow] = known.fingerprint
            return unknown
        return await self._restoring.adopt(
            known.flow,
            fingerprint=known.fingerprint,
            changed_at=known.changed_at,
            revision=known.revision,
            etag=known.etag,
            changes=known.changes,
        )

    async def _lifetime(self, said: SetLifetime) -> bool | str:
        flows = self._store.flows
        if said.of == "type":
            here = (await flows.type_ttls()).get(said.name)
        else:
            here = (await flows.state(said.name)).ttl_seconds
        if here is not None:
            return False if here == said.ttl_seconds else DECIDED_HERE
        if not self.dry_run:
            await (flows.set_type_ttl if said.of == "type" else flows.set_ttl)(said.name, said.ttl_seconds)
        return True

    async def _privacy(self, rule: Rule) -> bool | str:
        here = (await self._store.policies.table(slow=True)).rules.get(field_of(rule.whose, rule.name))
        if here is not None:
            return False if here == rule else DECIDED_HERE
        if not self.dry_run:
            await self._store.policies.change(rule.whose, rule.name, rule.policy)
        return True

    async def _similar(self, said: SetSimilar) -> bool | str:
        here = msgspec.structs.asdict(await self._scan.decided(said.flow))
        file = {name: value for name in here if (value := getattr(said, name)) is not None}
        lacking = {name: value for name, value in file.items() if here[name] is None}
        if lacking and not self.dry_run:
            await self._store.similar.set_override(said.flow, **lacking)
        if lacking:
            return True
        return False if all(here[name] == value for name, value in file.items()) else DECIDED_HERE

    async def _blocked(self, said: BlockedPair) -> bool | str:
        if self.dry_run:
            return said.pair not in await self._scan.blocked(said.flow)
        return await self._store.similar.block(said.flow, said.pair)

    async def _report(self, report: Report) -> bool | str:
        if self._reports is None:
            self._reports = {one.id async for page in self._scan.reports() for one in page}
        if report.id in self._reports:
            return False
        self._reports.add(report.id)
        if not self.dry_run:
            await self._store.similar.add_report(report)
        return True

    async def _faq(self, record: FaqRecord) -> bool | str:
        """An entry of the FAQ: the newer of two stays. What was approved elsewhere is served only where the flow has
        the configuration that it was approved under."""
        entry = record.entry
        while True:
            book = await self._store.faq.book(entry.flow)
            here = book.entries.get(entry.id)
            if here is not None and here.changed_at >= entry.changed_at:
                return False if here == entry else DECIDED_HERE
            if entry.published is not None and taken_by(entry, book.entries.values()) is not None:
                return DECIDED_HERE
            if self.dry_run or await self._store.faq.write(book, entry, *record.changes, anew=True):
                return True

    async def _proposal(self, proposal: Proposal) -> bool | str:
        if not self.dry_run:
            return await self._store.similar.put_proposal(proposal)
        if self._proposals is None:
            self._proposals = {one.id for one in await self._store.similar.proposals()}
        return proposal.id not in self._proposals


def _kept(rules: Mapping[str, Rule], value: Session | Turn) -> bool:
    """Whether policies let a turn, or a session (which has words of its newest flow's turns in its title), be kept."""
    return keeps_turns(rules, value.flow, value.owner if isinstance(value, Session) else value.user)

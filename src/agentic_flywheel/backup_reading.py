"""What goes into a backup: the records of a tenant in their order, page by page.

Invariant: flows, policies, the FAQ and counts come first, then sessions (each with its turns behind it), then answers;
sessions and answers are in the order of `store.scan`, so that an export that was cut off goes on behind its last
record. What is limited to a user never holds another user's words.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from agentic_flywheel.backup_records import (
    AskedOn,
    BlockedPair,
    Header,
    JoinedWording,
    KnownFlow,
    Record,
    SetLifetime,
    SetSimilar,
    StoredEntry,
)
from agentic_flywheel.curated import FaqRecord
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.popular import days_of
from agentic_flywheel.model import Entry, Session, Turn
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.keys import shard_of
from agentic_flywheel.store.popularity import KEPT
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

#: Sessions that are read in one round trip, each with its first page of turns; answers in one.
_SESSIONS = 20
_ENTRIES = 100

Page = list[Record]


class BackupSource:
    """Reads the records of one tenant, as far as `header` asks for them."""

    def __init__(self, store: Store, registry: Registry, header: Header) -> None:
        self._store = store
        self._registry = registry
        self._header = header
        self._scan = Scan(store.link, store.keys)

    @property
    def damaged(self) -> dict[str, int]:
        """How many values of each kind could not be read, and are not in the backup."""
        return self._scan.damaged

    async def pages(self, after: Record | None) -> AsyncIterator[Page]:
        """All records, in pages that are never large; `after` is where an earlier export was cut off: a session, which
        comes again, or the last answer."""
        sections = self._header.sections
        flows = await self._flows()
        if after is None:
            async for page in self._of_the_team(flows):
                yield page
        if "sessions" in sections and (after is None or isinstance(after.value, Session)):
            async for page in self._sessions(after.value if after else None):
                yield page
        if "entries" in sections:
            done = after.value if after and isinstance(after.value, StoredEntry) else None
            for flow in flows:
                if done is None or flow >= done.entry.flow:
                    async for page in self._entries(flow, done if done and flow == done.entry.flow else None):
                        yield page

    async def _of_the_team(self, flows: Sequence[str]) -> AsyncIterator[Page]:
        sections = self._header.sections
        if "entries" in sections:
            yield await self._known_flows(flows)
        if "policies" in sections:
            async for page in self._policies(flows):
                yield page
        if "faq" in sections:
            for flow in await self._store.faq.versions(flows):
                yield await self._faq(flow)
        for flow in flows if "counts" in sections else ():
            async for page in self._counts(flow):
                yield page

    async def _flows(self) -> Sequence[str]:
        return sorted({*await self._store.flows.known(), *self._registry.current().flows})

    async def _known_flows(self, flows: Sequence[str]) -> Page:
        page = []
        for flow in flows:
            state = await self._store.flows.state(flow)
            if state.fingerprint:
                known = KnownFlow(
                    flow=flow,
                    fingerprint=state.fingerprint,
                    changed_at=state.changed_at,
                    revision=state.revision,
                    etag=state.etag,
                    changes=tuple(await self._store.flows.changes(flow)),
                )
                page.append(Record("flow", known))
        return page

    async def _policies(self, flows: Sequence[str]) -> AsyncIterator[Page]:
        ttls = await self._store.flows.type_ttls()
        yield [Record("lifetime", SetLifetime(name=n, of="type", ttl_seconds=ttl)) for n, ttl in sorted(ttls.items())]
        rules = (await self._store.policies.table(slow=True)).rules
        yield [Record("privacy", rule) for _, rule in sorted(rules.items())]
        for flow in flows:
            page: Page = []
            state = await self._store.flows.state(flow)
            if state.ttl_seconds is not None:
                page.append(Record("lifetime", SetLifetime(name=flow, of="flow", ttl_seconds=state.ttl_seconds)))
            said = msgspec.structs.asdict(await self._scan.decided(flow))
            if any(value is not None for value in said.values()):
                page.append(Record("similar", SetSimilar(flow=flow, **said)))
            page += [Record("blocked", BlockedPair(flow=flow, pair=pair)) for pair in await self._scan.blocked(flow)]
            yield page
        async for reports in self._scan.reports():
            yield [Record("report", report) for report in reports]
        proposals = sorted(await self._store.similar.proposals(), key=lambda one: (one.at, one.id))
        yield [Record("proposal", proposal) for proposal in proposals]

    async def _faq(self, flow: str) -> Page:
        book = await self._store.faq.book(flow)
        if book.damaged:
            self.damaged["faq"] = self.damaged.get("faq", 0) + book.damaged
        entries = sorted(book.entries.values(), key=lambda entry: (entry.created_at, entry.id))
        return [
            Record("faq", FaqRecord(entry=entry, changes=tuple(await self._store.faq.changes(flow, entry.id))))
            for entry in entries
        ]

    async def _counts(self, flow: str) -> AsyncIterator[Page]:
        popularity, since = self._store.popularity, day_of(self._header.since or 0.0)
        joined = await popularity.joined_on(flow)
        yield [
            Record("joined", JoinedWording(flow=flow, name=name, leads_to=head, day=day))
            for name, (head, day) in sorted(joined.items())
        ]
        for day in (day for day in days_of(KEPT.days) if day >= since):
            for steps in (False, True):
                async for _, records in popularity.days([flow], [day], steps=steps):
                    yield [
                        Record("asked", AskedOn(flow=flow, day=day, name=name, **record._asdict()))
                        for name, record in sorted(records.items())
                    ]

    async def _sessions(self, first: Session | None) -> AsyncIterator[Page]:
        begin = (shard_of(first.id), first.id) if first else (0, "")
        async for ids in self._scan.session_ids(user=self._header.user):
            due = [id_ for id_ in ids if (shard_of(id_), id_) >= begin]
            for start in range(0, len(due), _SESSIONS):
                wanted = await self._recent(due[start : start + _SESSIONS])
                for session, turns, edge in await self._scan.sessions(wanted):
                    if self._header.user and (session is None or session.owner != self._header.user):
                        continue
                    head = [Record("session", session)] if session else []
                    yield [*head, *self._turns(turns)]
                    if turns and edge:
                        async for page in self._scan.turns(turns[0].session_id, edge):
                            yield self._turns(page)

    async def _recent(self, ids: Sequence[str]) -> Sequence[str]:
        since = self._header.since
        if since is None:
            return ids
        return [session.id for session in await self._scan.headers(ids) if session.last_active_at >= since]

    def _turns(self, turns: Sequence[Turn]) -> Page:
        user = self._header.user
        return [Record("turn", turn) for turn in turns if not user or turn.user in ("", user)]

    async def _entries(self, flow: str, done: StoredEntry | None) -> AsyncIterator[Page]:
        root = self._store.keys.root + ":"
        after = (shard_of(root + done.key), root + done.key) if done else (-1, "")
        generation = (await self._store.flows.state(flow)).generation
        async for keys in self._scan.entry_keys(flow, generation=generation):
            due = [key for key in keys if (shard_of(key), key) > after]
            for start in range(0, len(due), _ENTRIES):
                found = await self._scan.entries(due[start : start + _ENTRIES])
                now = time.time()
                yield [
                    Record("entry", StoredEntry(key=key.removeprefix(root), ends_at=now + left, entry=looked.entry))
                    for key, looked, left in found
                    if looked.entry is not None and self._wants(looked.entry)
                ]

    def _wants(self, entry: Entry) -> bool:
        header = self._header
        if header.user and entry.user != header.user:
            return False
        return header.since is None or entry.created_at >= header.since

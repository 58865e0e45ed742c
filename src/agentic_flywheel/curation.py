"""The stored answers and the flows as people look after them: figures, lists, one answer, clearing, checking."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentic_flywheel.asking import Asking
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.cache_figures import CacheFigures, FlowFigures
from agentic_flywheel.errors import FlowError, InputError, StoreError, UnknownKey
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import FlowHealth, FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.forgetting import contributed
from agentic_flywheel.insight.figures import Figures
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.model import (
    Answer,
    Directives,
    Entry,
    FlowChange,
    FlowState,
    Reason,
    Receipt,
    StoredAnswer,
)
from agentic_flywheel.policy.decision import Facts, Found, Wanted, verdict
from agentic_flywheel.questions import Planner
from agentic_flywheel.remembered import UNKNOWN, known_of
from agentic_flywheel.store.entries import Looked
from agentic_flywheel.store.keys import scope_of_key
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import FlowWatch, Standing

if TYPE_CHECKING:
    from agentic_flywheel.flows.flowise import Restrictions
    from agentic_flywheel.insight.usage import Usage


class Cache:
    """The stored answers of one tenant."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        planner: Planner,
        lifetimes: Lifetimes,
        behind: WriteBehind,
        usage: Callable[[], Usage],
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._usage = usage
        self._registry = registry
        self._forget = forget  # what this process has at hand is not told of here in time
        self._store = store
        self._planner = planner
        self._lifetimes = lifetimes
        self._behind = behind

    async def stats(
        self,
        *,
        flow: str | None = None,
        days: int = 7,
        since: str | float | None = None,
        until: str | float | None = None,
    ) -> CacheFigures:
        """Figures of every flow (or one) over the last `days` days of UTC, today included (1 to 90); or from `since` on
        and up to `until`, as `Usage.report` takes them, which has more to tell."""
        if not 1 <= days <= 90:
            raise InputError(f"figures are kept for 90 days; ask for 1 to 90, not {days}")
        now = time.time()
        if since is None and until is None:
            since = (now // 86400 - days + 1) * 86400
        report = await self._usage().report(since=since, until=until, flow=flow)
        known = {figures.name: figures for figures in report.flows}
        names = list(known) if flow else sorted({*known, *await self._store.flows.known()})
        rows = []
        for name in names:
            figures = known.get(name) or Figures(name=name, outcomes=dict.fromkeys(report.total.outcomes, 0))
            rows.append(_figures(figures, await self._store.entries.count(name, now=now)))
        return CacheFigures(
            days=max(1, min(90, math.ceil((now - report.since) / 86400))),
            since=report.since,
            until=report.until,
            total=_figures(report.total, sum(row.entries for row in rows)),
            flows=tuple(rows),
            damaged_values=report.total.damaged,
            used_memory_bytes=await self._used_memory(),
        )

    async def list(
        self, *, flow: str | None = None, limit: int = 50, cursor: str = ""
    ) -> tuple[list[StoredAnswer], str]:
        """Stored answers, flow by flow, longest-lived first; the cursor continues the list, "" at its end."""
        if limit < 1:
            raise InputError(f"a page holds at least 1 answer, not {limit}")
        if not re.fullmatch(r"[0-9]{0,12}", cursor):
            raise InputError(f"{cursor!r} is not a cursor of this list; start again without one")
        offset = int(cursor or 0)
        now, keys = time.time(), []
        names = [self._registry.current().get(flow, inactive=True).key] if flow else await self._store.flows.known()
        for name in names:
            keys += await self._store.entries.listed(name, now=now, offset=0, count=offset + limit + 1)
        page = keys[offset : offset + limit]
        looked = await self._store.entries.get_many(page)
        answers = [
            await self._stored(key, value.entry, value, now)
            for key, value in zip(page, looked, strict=True)
            if value.entry is not None
        ]
        return answers, str(offset + limit) if len(keys) > offset + limit else ""

    async def show(self, key: str) -> StoredAnswer:
        """One stored answer by its key. Raises `UnknownKey`; `StoreDamaged` counts as unknown and says so."""
        if not self._store.keys.is_entry(key):
            raise UnknownKey(f"{key!r} is not the key of a stored answer of this tenant", key=key)
        looked, left = await self._store.entries.get(key)
        if looked.damaged:
            raise UnknownKey(f"the value under {key!r} is damaged; it is never served and will be replaced", key=key)
        if looked.entry is None:
            raise UnknownKey(f"nothing is stored under {key!r} (any more)", key=key)
        return await self._stored(key, looked.entry, looked, time.time(), left)

    async def key(
        self,
        question: str,
        *,
        flow: str | None = None,
        user: str | None = None,
        session: str | None = None,
        standalone: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """The key under which the answer to a question is kept; with a session, as its next question.

        Raises `InputError` where the flow keeps nothing.
        """
        directives = Directives(standalone=standalone)
        asked = self._planner.admit(
            question, session=session, flow=flow, user=user, directives=directives, config=config
        )
        if self._behind.holds(asked.session):
            await self._behind.flush()
        known = UNKNOWN
        if session is not None:
            known = await known_of(self._store, session, window=self._planner.window(self._registry.current()))
        plan = self._planner.plan(asked, known)
        if plan.kept.unkeyed:
            raise InputError("there is something in the question that may not be kept, so no answer to it is stored")
        if not plan.wanted:
            raise InputError(f"the flow {plan.spec.key!r} shares its answers with nobody, so none is stored")
        return plan.wanted[0].key

    async def clear(
        self,
        *,
        flow: str | None = None,
        session: str | None = None,
        user: str | None = None,
        key: str | None = None,
        everything: bool = False,
        dry_run: bool,
    ) -> Receipt:
        """Make answers unreachable: of a flow, those that a session or a user contributed, one, or all.

        Exactly one must be named. Sessions and their turns stay. A flow is cleared by one write; its memory is then
        reclaimed.
        """
        if sum((flow is not None, session is not None, user is not None, key is not None, everything)) != 1:
            raise InputError("name exactly one of: a flow, a session, a user, a key, or everything")
        await self._behind.flush()
        try:
            return await self._clear(flow, session, user, key, dry_run=dry_run)
        finally:
            self._forget()

    async def _clear(
        self, flow: str | None, session: str | None, user: str | None, key: str | None, *, dry_run: bool
    ) -> Receipt:
        if key is not None:
            return await self._clear_key(key, dry_run=dry_run)
        if session is not None:
            return await self._clear_sessions([session], f"session {session}", dry_run=dry_run)
        if user is not None:
            sessions, offset = [], 0
            while page := await self._store.sessions.recent(user=user, offset=offset, count=500):
                sessions += page
                offset += len(page)
            sessions = [s.id for s in await self._store.sessions.headers(sessions) if s.owner == user]
            return await self._clear_sessions(sessions, f"user {user}", dry_run=dry_run)
        if flow is not None:
            names = [flow if flow in await self._store.flows.known() else self._registry.current().get(flow).key]
        else:
            names = await self._store.flows.known()
        return await self._clear_flows(names, f"flow {names[0]}" if flow else "everything", dry_run=dry_run)

    async def _clear_key(self, key: str, *, dry_run: bool) -> Receipt:
        entry = (await self.show(key)).entry
        removed = 1 if dry_run else await self._store.entries.remove({key: entry})
        return _receipt("clear answers", f"key {key}", {"entries": removed}, removed, dry_run=dry_run)

    async def _clear_sessions(self, sessions: Sequence[str], target: str, *, dry_run: bool) -> Receipt:
        own = await contributed(self._store, sessions)
        removed = len(own) if dry_run else await self._store.entries.remove(own)
        return _receipt("clear answers", target, {"entries": removed}, removed, dry_run=dry_run)

    async def _clear_flows(self, names: Sequence[str], target: str, *, dry_run: bool) -> Receipt:
        now = time.time()
        unreachable = sum([await self._store.entries.count(name, now=now) for name in names])
        removed = unreachable
        if not dry_run:
            removed = 0
            for name in names:
                generation = await self._store.flows.clear(name)
                entries, _ = await self._store.entries.reclaim(name, generation=generation, now=now)
                removed += entries
        return _receipt("clear answers", target, {"entries": removed}, unreachable, dry_run=dry_run)

    async def reclaim(self) -> int:
        """Free the memory of answers that can no longer be served; how many entries were removed."""
        removed, now = 0, time.time()
        for name in await self._store.flows.known():
            state = await self._store.flows.state(name)
            entries, _ = await self._store.entries.reclaim(name, generation=state.generation, now=now)
            removed += entries
        return removed

    async def _stored(
        self, key: str, entry: Entry, looked: Looked, now: float, left: float | None = None
    ) -> StoredAnswer:
        spec = self._registry.current().flows.get(entry.flow)
        if left is None:
            left = entry.created_at + entry.ttl_seconds - now
        if spec is None:
            judged = Reason.FLOW_CHANGED
        else:
            state = await self._store.flows.state(entry.flow)
            overrides = await self._store.flows.type_ttls()
            facts = Facts(
                directives=Directives(),
                found=(),
                fingerprint=state.fingerprint,
                generation=state.generation,
                lifetime=self._lifetimes.of(spec, state, overrides.get(spec.type)),
                now=now,
                jitter=self._lifetimes.jitter,
            )
            wanted = Wanted(key=key, scope=scope_of_key(key), question=entry.question, identity=entry.identity)
            judged = verdict(Found(wanted, entry), facts)
        return StoredAnswer(
            key=key,
            scope=scope_of_key(key),
            entry=entry,
            age_seconds=max(0.0, now - entry.created_at),
            ttl_seconds=max(0.0, left),
            servable=judged is Reason.EXACT,
            verdict=judged,
            size_bytes=looked.size_bytes,
        )

    async def _used_memory(self) -> int | None:
        try:
            text = (await self._store.link.execute("INFO", "memory")).decode()
        except StoreError:  # INFO may be forbidden on a managed server; the figure is then left out
            return None
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(fields["used_memory"]) if "used_memory" in fields else None


class Flows:
    """The flows of the registry, and what is known of them."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        watch: FlowWatch,
        clients: ClientPool,
        planner: Planner,
        asking: Asking,
    ) -> None:
        self._registry = registry
        self._store = store
        self._watch = watch
        self._clients = clients
        self._planner = planner
        self._asking = asking

    def list(self, *, inactive: bool = False) -> list[FlowSpec]:
        """The active flows, or all of them."""
        snapshot = self._registry.current()
        return list(snapshot.flows.values()) if inactive else snapshot.active()

    def show(self, key: str) -> FlowSpec:
        """One flow, inactive ones included. Raises `UnknownFlow`."""
        return self._registry.current().get(key, inactive=True)

    async def state(self, key: str) -> FlowState:
        """What all processes know of a flow."""
        return await self._store.flows.state(self.show(key).key)

    async def changes(self, key: str) -> Sequence[FlowChange]:
        """The flow's recorded changes, newest first."""
        return await self._store.flows.changes(self.show(key).key)

    async def restrictions(self, spec: FlowSpec) -> Restrictions:
        """Whom a Flowise flow's own settings let ask it, whether or not the registry has it. Raises `FlowError`."""
        from agentic_flywheel.flows.flowise import FlowiseClient, Restrictions

        if (known := self.known_restrictions(spec)) is not None:
            return known
        try:
            async with self._clients.use(spec) as client:
                return await client.restrictions() if isinstance(client, FlowiseClient) else Restrictions()
        except FlowError:
            if spec.key not in self._registry.current().flows:  # whoever tries ids leaves nothing open
                await self._clients.forget(spec)
            raise

    def known_restrictions(self, spec: FlowSpec) -> Restrictions | None:
        """Those restrictions where they are known already, and not too old."""
        from agentic_flywheel.flows.flowise import FlowiseClient

        client = self._clients.at_hand(spec)
        return client.known_restrictions() if isinstance(client, FlowiseClient) else None

    async def check(self, key: str) -> FlowHealth:
        """Look whether a flow could be asked, without asking it."""
        async with self._clients.use(self.show(key)) as client:
            return await client.check()

    async def refresh(self, key: str) -> Standing:
        """Ask a flow for its configuration now. Raises `FlowError`."""
        return await self._watch.refresh(self.show(key), now=time.time())

    async def test(self, key: str, question: str) -> Answer:
        """Ask one flow a question and keep nothing of it."""
        asked = self._planner.admit(question, flow=self.show(key).key, directives=Directives(no_store=True))
        return await self._asking.answer(asked)

    def address(self, key: str) -> str:
        """Where a person looks at a flow; "" where there is no such place."""
        return self._clients.address(self.show(key))


def _receipt(action: str, target: str, removed: dict[str, int], unreachable: int, *, dry_run: bool) -> Receipt:
    return Receipt(
        action=action, target=target, dry_run=dry_run, removed=removed, unreachable=unreachable, at=time.time()
    )


def _figures(figures: Figures, entries: int) -> FlowFigures:
    return FlowFigures(
        flow=figures.name,
        questions=figures.questions,
        outcomes=figures.outcomes,
        reasons=figures.reasons,
        hit_rate=figures.hit_rate or 0.0,
        miss_rate=figures.miss_rate or 0.0,
        hit_ms=figures.hits.mean_ms,
        hit_p50_ms=figures.hits.p50_ms,
        hit_p95_ms=figures.hits.p95_ms,
        hit_p99_ms=figures.hits.p99_ms,
        flow_ms=figures.flow.mean_ms,
        failed=figures.failed,
        saved_seconds=figures.saved_seconds,
        entries=entries,
    )

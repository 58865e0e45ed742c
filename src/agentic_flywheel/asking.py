"""The way of a question: route, recall, identify, look up, decide, answer, remember.

Invariant: what is served, asked and stored follows from `policy` alone; this module only carries facts to it and its
verdict out. Nothing is remembered on the error path. A store that fails never costs the answer: the flow is asked and
the answer says so.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.calling import Calling
from agentic_flywheel.counting import Counted, IntentLabels, answered, failed, hit_time
from agentic_flywheel.curated import Approved
from agentic_flywheel.errors import FlowError, FlywheelError, NotCached, SessionTaken, StoreError
from agentic_flywheel.familiar import Familiar
from agentic_flywheel.flights import RESTARTED, Flight, Flights, Landed
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import FlowClient, SourcesFound, StreamEvent, TextPart
from agentic_flywheel.learning import Learning
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Answer, Decided, Entry, Origin, Outcome, Reason, Source, Turn
from agentic_flywheel.near import NearCache
from agentic_flywheel.observe.names import Span
from agentic_flywheel.pinned import Pinned
from agentic_flywheel.policy.decision import Ask, Facts, Found, Refuse, Serve, ServeStale, decide, stand_in
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.recollection import Read, Recollection
from agentic_flywheel.remembered import UNKNOWN, Conversation
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step, answer_of, flight_of, turn_of, warnings_of
from agentic_flywheel.store.leases import REFRESH_PAUSE_SECONDS
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.outbox import WAITS
from agentic_flywheel.store.store import Store
from agentic_flywheel.unkept import Unkept
from agentic_flywheel.watching import FlowWatch, Standing

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Tracing

_log = logging.getLogger(__name__)
#: A stored answer is replayed as a stream word by word, white space kept.
_PIECES = re.compile(r"\s*\S+\s*|\s+")


class Asking:
    """Answers questions for one tenant; owned by `Flywheel`. `refreshes` allows calls that no asker waits for."""

    def __init__(
        self,
        settings: Settings,
        recollection: Recollection,
        clients: ClientPool,
        store: Store,
        watch: FlowWatch,
        behind: WriteBehind,
        lifetimes: Lifetimes,
        calling: Calling,
        flights: Flights,
        *,
        familiar: Familiar,
        pinned: Pinned,
        matching: Matching,
        learning: Learning,
        near: NearCache | None = None,
        tracing: Tracing | None = None,
        refreshes: bool = True,
    ) -> None:
        self._recollection = recollection
        self._clients = clients
        self._store = store
        self._watch = watch
        self._behind = behind
        self._lifetimes = lifetimes
        self._calling = calling
        self._familiar = familiar
        self._pinned = pinned
        self._matching = matching
        self._learning = learning
        self._near = near
        self._tracing = tracing
        self._flights = flights
        self._jitter = settings.number("ttl.jitter")
        self._refresh_after = settings.number("ttl.refresh_after") if refreshes else 1.0
        self._stale_seconds = settings.number("ttl.stale_seconds")
        self._join_seconds = settings.number("flow.join_seconds")
        self._refresh_again_at: dict[str, float] = {}
        self._labels = IntentLabels()
        self._unkept = Unkept()

    async def answer(self, asked: Asked) -> Answer:
        """The whole way. Raises `NotFound` and `FlowError`; store failures become warnings.

        An asker who leaves does not end a call that is under way: its answer is stored and its turn remembered.
        """
        since = None if self._near is None else self._near.now()
        step = await self._decide(asked)
        if isinstance(step.decision, Serve | ServeStale):
            answer = await self._serve(step, step.decision)
            self._familiar.keep(step, answer)
            if self._near is not None and since is not None:
                self._near.keep(step, answer, since=since)
            return answer
        flight, joined = self._board(step)
        return await asyncio.shield(self._flights.go_on(self._settle(step, flight, joined=joined)))

    async def stream(self, asked: Asked) -> AsyncGenerator[StreamEvent, None]:
        """As `answer`, with the text as it comes; first what was decided, the answer itself last."""
        told: list[str] = []
        sources: tuple[Source, ...] = ()
        step = await self._decide(asked)
        if isinstance(step.decision, Serve | ServeStale):
            answer = await self._serve(step, step.decision)
            yield Decided(answer)
        else:
            flight, joined = self._board(step)
            # Before anything is yielded: who stops listening, even at once, is answered and remembered all the same.
            settled = self._flights.go_on(self._settle(step, flight, joined=joined))
            outcome = Outcome.JOINED if joined else Outcome.MISS if step.keeps else Outcome.BYPASS
            yield Decided(answer_of(step, outcome=outcome, reason=Reason.IN_FLIGHT if joined else step.reason, text=""))
            async for event in flight.events(until=settled):
                if isinstance(event, TextPart):
                    told.append(event.text)
                elif isinstance(event, SourcesFound):
                    sources = event.sources
                elif event is RESTARTED:
                    told.clear()
                yield event
            answer = await asyncio.shield(settled)
        said = "".join(told)
        if not answer.text.startswith(said):
            yield RESTARTED
            said = ""
        for piece in _PIECES.findall(answer.text[len(said) :]):
            yield TextPart(piece)
        if answer.sources != sources:
            yield SourcesFound(answer.sources)
        yield answer

    async def look(self, asked: Asked, *, after: Conversation = UNKNOWN) -> Step:
        """A question planned, looked up and decided as by exact words alone; nothing is asked or written.

        `after` takes the place of the session's earlier turns.
        """
        if asked.resumed and self._behind.holds(asked.session):
            await self._flush_first()
        patience = self._store.link.patience()
        with patience:
            plan, read = await self._recollection.look(asked, after=after)
        curated: Found | None = None
        if not plan.privacy.history:
            asked = msgspec.structs.replace(asked, unkept=True)
        if read.state.faq and not plan.forbidden:
            try:
                curated = await self._pinned.look(plan, read.state, patience)
            except StoreError as error:
                read = read.without_store(error)
            asked.mark(Span.LOOK_UP)
        if plan.kept.redactor is not None:
            read = read.without_withheld(plan)
        async with self._clients.use(plan.spec) as client:
            with patience:
                standing, read = await self._standing(plan, read, client, asked)
        asked.mark(Span.VERIFY)
        facts = Facts(
            directives=asked.directives,
            found=read.found,
            fingerprint=standing.fingerprint,
            generation=standing.generation,
            lifetime=self._lifetimes.of(plan.spec, read.state, read.type_ttl),
            now=asked.at,
            jitter=self._jitter,
            verified=standing.verified,
            shareable=plan.scope is not None,
            forbidden=plan.forbidden,
            unkeyed=plan.kept.unkeyed,
            refresh_after=self._refresh_after,
            stale_seconds=self._stale_seconds,
            curated=curated if read.error is None else None,
        )
        decision, considered = decide(facts)
        asked.mark(Span.DECIDE)
        return Step(
            asked=asked,
            plan=plan,
            read=read,
            facts=facts,
            decision=decision,
            considered=considered,
            patience=patience,
        )

    async def _decide(self, asked: Asked) -> Step:
        try:
            step = await self.look(asked)
        except FlywheelError as error:
            flow = error.details.get("flow")
            if isinstance(error, FlowError) and flow:  # what the flow answers with could not be told
                self._behind.count(str(flow), asked.at, failed=1, **{f"failed:{error.code}": 1})
            self._trace_failure(asked, error)
            raise
        if self._matching.concerns(asked, step.plan, step.facts, step.decision):
            match = await self._matching.look(asked, step.plan, step.facts)
            serve = match.choice.serve
            if serve is None or isinstance(serve.entry, Approved) or not step.plan.kept.holds_back_entry(serve.entry):
                step = step.with_match(match)
            asked.mark(Span.COMPARE)
        if isinstance(step.decision, Refuse):
            self._behind.count(step.plan.spec.key, asked.at, refused=1)
            refused = NotCached(
                f"no stored answer may be served: {step.reason}",
                reason=step.reason,
                flow=step.plan.spec.key,
                session_id=asked.session if asked.resumed else None,
            )
            self._trace_failure(asked, refused, step)
            raise refused
        return step

    async def _standing(self, plan: Plan, read: Read, client: FlowClient, asked: Asked) -> tuple[Standing, Read]:
        if read.error is None:
            try:
                return await self._watch.standing(plan.spec, client, read.state, now=asked.at), read
            except StoreError as error:
                read = read.without_store(error)
        return self._watch.alone(plan.spec), read

    def _board(self, step: Step) -> tuple[Flight, bool]:
        """The flight that will answer the question, and whether it was under way already."""
        if not isinstance(step.decision, Ask) or step.asked.directives.no_cache:
            return self._flights.launch(None, lambda flight: self._calling.fly(step, flight, shared=None)), False
        name = flight_of(step)
        if (under_way := self._flights.under_way(name)) is not None:
            under_way.joined = True
            return under_way, True
        shared = name if step.read.error is None else None
        return self._flights.launch(name, lambda flight: self._calling.fly(step, flight, shared=shared)), False

    async def _settle(self, step: Step, flight: Flight, *, joined: bool) -> Answer:
        """Wait for the flight, and make its end this asker's answer."""
        try:
            landed, joined = await self._landed(step, flight, joined=joined)
        except FlowError as error:
            instead = stand_in(step.facts)
            if instead is not None:
                return await self._serve(step, instead, warning=f"The flow did not answer: {error.outline}.")
            self._count(step, failed(step, error))
            step.asked.mark(Span.ANSWER)
            self._trace_failure(step.asked, error, step)
            asked = step.asked
            raise error.again(flow=step.plan.spec.key, session_id=asked.session, trace_id=asked.trace) from error
        entry, mine = landed.entry, landed.own and not joined
        facts: dict[str, Any] = {}
        if landed.stored and step.keeps:
            wanted = step.plan.wanted[0]
            if self._near is not None:
                self._near.forget(wanted.key)
            facts = {"key": wanted.key, "scope": wanted.scope, "ttl_seconds": entry.ttl_seconds}
        if mine:
            refused = (
                step.keeps and landed.complete and not (landed.stored or landed.withheld)
            )  # Redis read, but would not write
            outcome = Outcome.MISS if step.keeps and not refused else Outcome.BYPASS
            reason = Reason.STORE_UNAVAILABLE if refused else step.reason
            if landed.withheld and step.keeps:
                outcome, reason = Outcome.BYPASS, landed.withheld
            facts |= {"reason": reason, "flow_ms": entry.flow_ms}
        else:
            outcome = Outcome.HIT if landed.found and not joined else Outcome.JOINED
            facts |= {"reason": Reason.EXACT if outcome is Outcome.HIT else Reason.IN_FLIGHT}
            facts |= {"source": Origin.CACHE if outcome is Outcome.HIT else Origin.FLOW}
            facts |= {"age_seconds": max(0.0, time.time() - entry.created_at)}
        answer = answer_of(
            step,
            outcome=outcome,
            text=entry.answer,
            wire=entry.wire,
            sources=entry.sources,
            fingerprint=entry.fingerprint,
            origin_trace_id=entry.trace_id,
            warnings=warnings_of(step, landed),
            **facts,
        )
        if mine and landed.stored:
            self._learning.after_call(step, entry)
        return await self._remember(step, answer, call=None if mine else entry)

    async def _landed(self, step: Step, flight: Flight, *, joined: bool) -> tuple[Landed, bool]:
        """How the flight landed, or another one where this took too long; and whether it is somebody else's."""
        if not joined:
            return await flight.landed(), False
        clock = asyncio.get_running_loop().time
        began = clock()
        # A flight that listens to another process minds the bound itself, and then asks the flow.
        while (left := max(began, flight.asked_at or clock()) + self._join_seconds - clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    return await flight.landed(), True
        _log.warning("flow %s: waited long enough for another asker's call", step.plan.spec.key)
        again = f"{flight_of(step)} again"  # those who lose patience together make one more call together
        if (other := self._flights.under_way(again)) is not None:
            return await other.landed(), True
        own = self._flights.launch(again, lambda flight: self._calling.fly(step, flight, shared=None))
        return await own.landed(), False

    async def _serve(self, step: Step, decision: Serve | ServeStale, *, warning: str = "") -> Answer:
        asked, entry, key = step.asked, decision.entry, decision.wanted.key
        fresh = isinstance(decision, Serve)
        renewal: list[Command] = []
        approved = isinstance(entry, Approved)
        if step.facts.lifetime.sliding and fresh and not approved:
            seconds = step.facts.lifetime.ttl.total_seconds()
            renewal = self._store.entries.renew_commands(key, entry, seconds=seconds, now=asked.at)
        served = step.match.choice.served if decision.reason is Reason.SIMILAR and step.match else None
        answer = answer_of(
            step,
            outcome=Outcome.SIMILAR if served else Outcome.HIT if fresh else Outcome.STALE,
            reason=decision.reason,
            text=entry.answer,
            wire=entry.wire,
            sources=entry.sources,
            key=key,
            scope=decision.wanted.scope,
            age_seconds=max(0.0, asked.at - entry.created_at),
            ttl_seconds=None if approved else max(0.0, decision.ttl_seconds),
            source=Origin.FAQ if approved else Origin.CACHE,
            faq=entry.faq if isinstance(entry, Approved) else "",
            fingerprint=entry.fingerprint,
            origin_trace_id=entry.trace_id,
            similarity=served.similarity if served else None,
            matched_question=entry.asked or entry.question if served else "",
            warnings=(*warnings_of(step), warning) if warning else warnings_of(step),
        )
        if served:
            self._learning.after_similar(step)
        if decision.wanted.first_only:  # found by its words alone: no earlier turn had a part in what is served
            answer = msgspec.structs.replace(answer, context=(), enrichment=())
        if isinstance(decision, Serve) and decision.refresh and decision.wanted is step.plan.wanted[0]:
            self._refresh(step)
        return await self._remember(step, answer, renewal, call=entry)

    def _refresh(self, step: Step) -> None:
        """Ask the flow for a new answer that nobody waits for; one call over all processes."""
        name = flight_of(step)
        now = time.monotonic()
        if self._flights.under_way(name) is not None or self._refresh_again_at.get(name, 0.0) > now:
            return
        self._refresh_again_at = {n: at for n, at in self._refresh_again_at.items() if at > now}
        # If it fails, the next hits leave the flow alone for a while; if not, the entry is fresh anyway.
        self._refresh_again_at[name] = now + REFRESH_PAUSE_SECONDS
        self._flights.go_on(self._renew(step, name))

    async def _renew(self, step: Step, name: str) -> None:
        try:
            if not await self._store.leases.may_refresh(name):
                return
        except StoreError as error:
            _log.warning("an answer near its end was not refreshed: %s", error)
            return
        if self._flights.under_way(name) is None:
            kept = msgspec.structs.replace(step, decision=Ask(Reason.EXPIRED))
            flight = self._flights.launch(
                name, lambda flight: self._calling.fly(kept, flight, shared=name, refresh=True)
            )
            with suppress(FlowError):  # counted and logged where it happened
                self._learning.after_refresh(step, await flight.landed())

    async def _remember(
        self, step: Step, answer: Answer, commands: list[Command] | None = None, *, call: Entry | None
    ) -> Answer:
        """Write what is to be kept, count, and give the answer its last facts. `call` is what it was computed as,
        where it is served again."""
        asked, more = step.asked, dict[str, Any]()
        asked.mark(Span.ANSWER)
        kept: Turn | None = None
        if unkept := self._unkept.warning(step):
            more["warnings"] = (*answer.warnings, unkept)
        elif not asked.directives.no_store:
            turn = turn_of(step, answer)
            try:
                with step.patience:
                    warning = await self._keep(step, turn, commands or [])
                kept, more["remembered"] = turn, True
                if warning:
                    more["warnings"] = (*answer.warnings, warning)
            except StoreError as error:
                more["warnings"] = (*answer.warnings, f"This turn was not kept: {error.outline}.")
        asked.mark(Span.REMEMBER)
        elapsed = (time.perf_counter() - asked.started) * 1000
        answer = msgspec.structs.replace(answer, elapsed_ms=elapsed, **more)
        counted = answered(step, answer, call, self._labels)
        self._count(step, counted, **hit_time(answer.outcome, elapsed))
        if kept is not None:
            self._behind.count_asked(kept, step.read.recalled.turns, counted.fields.get("saved_us", 0))
        if self._tracing is not None:
            self._tracing.answered(step, answer, call)
        return answer

    async def _keep(self, step: Step, turn: Turn, commands: list[Command]) -> str:
        """Write a turn where it lasts; what the asker should know of that. Raises `StoreError` where it is nowhere."""
        error, waits, short = step.read.error, step.read.error is not None, ""
        try:
            if error is None and not step.asked.resumed:
                if commands:
                    await self._store.link.run(*commands)
                self._behind.add_turn(turn)
                if self._behind.crowded:
                    await self._behind.flush_turns()
                return ""
            if error is None and not (waits := not await self._store.outbox.in_order(turn.session_id)):
                short = await self._store.sessions.append_confirmed(turn, *commands)
        except SessionTaken:
            raise  # nothing of it may wait where its owner's turns would
        except StoreError as failure:
            error, waits = failure, True
        if waits:
            await self._store.outbox.keep(turn, error)
        self._recollection.remember(step.plan, step.read.known, turn)
        return WAITS if waits else short

    def _trace_failure(self, asked: Asked, error: FlywheelError, step: Step | None = None) -> None:
        if self._tracing is not None:
            if step is None and self._recollection.policies.withholds_some:  # whose policy holds could not be told
                asked = msgspec.structs.replace(asked, unkept=True)
            self._tracing.failed(asked if step is None else step.asked, error, step)

    def _count(self, step: Step, counted: Counted, **more: int) -> None:
        self._behind.count(step.plan.spec.key, step.asked.at, **counted.fields, **more)
        if counted.asker:
            self._behind.count_asker(counted.asker, step.asked.at, counted.asked)

    async def _flush_first(self) -> None:
        try:
            await self._behind.flush()
        except StoreError as error:
            _log.warning("an earlier turn is not written yet: %s", error)

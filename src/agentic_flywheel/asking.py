"""The way of a question: route, recall, identify, look up, decide, answer, remember.

Invariant: what is served, asked and stored follows from `policy` alone; this module only carries facts to it and its
verdict out. Nothing is remembered on the error path. A store that fails never costs the answer: the flow is asked and
the answer says so.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import FlowError, FlowGarbled, NotCached, StoreError
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import AnswerDone, FlowClient, FlowQuestion, answer_of
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.model import Answer, Candidate, Entry, Lifetime, Outcome, Reason, Sharing, Turn
from agentic_flywheel.policy.context import compose
from agentic_flywheel.policy.decision import Ask, Facts, Refuse, Serve, ServeStale, decide
from agentic_flywheel.policy.lifetime import stored_seconds
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.recollection import Read, Recollection
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import FlowWatch, Standing

_log = logging.getLogger(__name__)


class Asking:
    """Answers questions for one tenant; owned by `Flywheel`."""

    def __init__(
        self,
        settings: Settings,
        recollection: Recollection,
        clients: ClientPool,
        store: Store,
        watch: FlowWatch,
        behind: WriteBehind,
        lifetimes: Lifetimes,
    ) -> None:
        self._recollection = recollection
        self._clients = clients
        self._store = store
        self._watch = watch
        self._behind = behind
        self._lifetimes = lifetimes
        self._jitter = settings.number("ttl.jitter")

    async def answer(self, asked: Asked) -> Answer:
        """The whole way. Raises `NotFound` and `FlowError`; store failures become warnings."""
        if asked.resumed and self._behind.holds(asked.session):
            await self._flush_first()
        plan, read = await self._recollection.look(asked)
        async with self._clients.use(plan.spec) as client:
            standing, read = await self._standing(plan, read, client, asked)
            lifetime = self._lifetimes.of(plan.spec, read.state, read.type_ttl)
            decision, considered = decide(
                Facts(
                    directives=asked.directives,
                    found=read.found,
                    fingerprint=standing.fingerprint,
                    generation=standing.generation,
                    lifetime=lifetime,
                    now=asked.at,
                    jitter=self._jitter,
                    verified=standing.verified,
                    shareable=plan.scope is not None,
                )
            )
            if isinstance(decision, Serve | ServeStale):
                return await self._serve(asked, plan, read, decision, considered, lifetime)
            reason = Reason.STORE_UNAVAILABLE if read.error else decision.reason
            if isinstance(decision, Refuse):
                raise NotCached(
                    f"no stored answer may be served: {reason}",
                    reason=reason,
                    flow=plan.spec.key,
                    session_id=asked.session if asked.resumed else None,
                )
            done, flow_ms = await self._ask_flow(asked, plan, client)
        keep = isinstance(decision, Ask) and read.error is None
        answer = _answer(
            asked,
            plan,
            considered,
            outcome=Outcome.MISS if keep else Outcome.BYPASS,
            reason=reason,
            text=done.text,
            sources=done.sources,
            fingerprint=standing.fingerprint,
            origin_trace_id=asked.trace,
            flow_ms=flow_ms,
            warnings=_warnings(read, done),
        )
        if not (keep and done.complete):
            return await self._remember(asked, plan, read, answer)
        entry = self._entry(asked, plan, read, standing, lifetime, done, flow_ms)
        wanted = plan.wanted[0]
        answer = msgspec.structs.replace(answer, key=wanted.key, scope=wanted.scope, ttl_seconds=entry.ttl_seconds)
        return await self._remember(asked, plan, read, answer, self._store.entries.put_commands(wanted.key, entry))

    async def _standing(self, plan: Plan, read: Read, client: FlowClient, asked: Asked) -> tuple[Standing, Read]:
        if read.error is None:
            try:
                return await self._watch.standing(plan.spec, client, read.state, now=asked.at), read
            except StoreError as error:
                read = read.without_store(error)
        return self._watch.alone(plan.spec), read

    async def _serve(
        self,
        asked: Asked,
        plan: Plan,
        read: Read,
        decision: Serve | ServeStale,
        considered: tuple[Candidate, ...],
        lifetime: Lifetime,
    ) -> Answer:
        entry, key = decision.entry, decision.wanted.key
        outcome = Outcome.HIT if isinstance(decision, Serve) else Outcome.STALE
        renewal: list[Command] = []
        if lifetime.sliding and outcome is Outcome.HIT:
            seconds = lifetime.ttl.total_seconds()
            renewal = self._store.entries.renew_commands(key, entry, seconds=seconds, now=asked.at)
        answer = _answer(
            asked,
            plan,
            considered,
            outcome=outcome,
            reason=decision.reason,
            text=entry.answer,
            sources=entry.sources,
            key=key,
            scope=decision.wanted.scope,
            age_seconds=max(0.0, asked.at - entry.created_at),
            ttl_seconds=max(0.0, decision.ttl_seconds),
            fingerprint=entry.fingerprint,
            origin_trace_id=entry.trace_id,
            warnings=_warnings(read),
        )
        return await self._remember(asked, plan, read, answer, renewal, saved_ms=entry.flow_ms or 0.0)

    async def _ask_flow(self, asked: Asked, plan: Plan, client: FlowClient) -> tuple[AnswerDone, float]:
        history = plan.enrichment.exchanges
        question = FlowQuestion(
            text=compose(asked.text, () if client.accepts_history else history, asked.domain),
            history=history if client.accepts_history else (),
            config=plan.config,
            conversation=f"afw-{asked.turn}",
            # A flow whose answers the team shares is not told who asks, so they cannot depend on it.
            user="" if plan.spec.sharing is Sharing.TEAM else asked.user,
            trace_id=asked.trace,
        )
        began = time.perf_counter()
        try:
            done = await answer_of(client.stream(question))
            if not done.text.strip():
                raise FlowGarbled(f"the flow {plan.spec.key!r} answered nothing", flow=plan.spec.key)
        except FlowError as error:
            self._behind.count(plan.spec.key, asked.at, errors=1, **{f"error:{error.code}": 1})
            error.details |= {"flow": plan.spec.key, "session_id": asked.session, "trace_id": asked.trace}
            raise
        return done, (time.perf_counter() - began) * 1000

    def _entry(
        self,
        asked: Asked,
        plan: Plan,
        read: Read,
        standing: Standing,
        lifetime: Lifetime,
        done: AnswerDone,
        flow_ms: float,
    ) -> Entry:
        return Entry(
            question=plan.normal,
            identity=plan.identity,
            answer=done.text,
            flow=plan.spec.key,
            flow_id=plan.spec.id,
            flow_name=plan.spec.name,
            fingerprint=standing.fingerprint,
            generation=standing.generation,
            created_at=asked.at,
            ttl_seconds=stored_seconds(lifetime, jitter=self._jitter, draw=random.uniform(-1, 1)),
            trace_id=asked.trace,
            turn_id=asked.turn,
            session_id=asked.session,
            user=asked.user,
            asked=asked.text,
            first=read.recalled.session is None,
            flow_ms=flow_ms,
            sources=done.sources,
            config=plan.config,
        )

    async def _remember(
        self,
        asked: Asked,
        plan: Plan,
        read: Read,
        answer: Answer,
        commands: list[Command] | None = None,
        *,
        saved_ms: float = 0.0,
    ) -> Answer:
        """Write what is to be kept, count, and give the answer its last facts."""
        more: dict[str, Any] = {}
        if not asked.directives.no_store:
            try:
                await self._keep(asked, read, _turn_of(asked, plan, read, answer), commands or [])
                more["remembered"] = True
            except StoreError as error:
                more["warnings"] = (*answer.warnings, f"This turn was not kept: {error.message}.")
                if answer.outcome is Outcome.MISS:
                    more |= {"key": None, "scope": "", "ttl_seconds": None}
        elapsed = (time.perf_counter() - asked.started) * 1000
        self._count(plan.spec.key, asked.at, answer, elapsed_ms=elapsed, saved_ms=saved_ms)
        return msgspec.structs.replace(answer, elapsed_ms=elapsed, **more)

    async def _keep(self, asked: Asked, read: Read, turn: Turn, commands: list[Command]) -> None:
        if read.error is not None:
            raise read.error
        if asked.resumed:
            await self._store.link.run(*self._store.sessions.append_commands(turn), *commands)
            self._recollection.remember(read.recalled, turn)
            return
        if commands:
            await self._store.link.run(*commands)
        self._behind.add_turn(turn)

    def _count(self, flow: str, at: float, answer: Answer, *, elapsed_ms: float, saved_ms: float) -> None:
        fields = {
            f"outcome:{answer.outcome.value}": 1,
            f"reason:{answer.reason.value}": 1,
            f"{answer.outcome.value}_us": int(elapsed_ms * 1000),
        }
        if answer.flow_ms is not None:
            fields["flow_us"] = int(answer.flow_ms * 1000)
        elif saved_ms:
            fields["saved_us"] = int(saved_ms * 1000)
        self._behind.count(flow, at, **fields)

    async def _flush_first(self) -> None:
        try:
            await self._behind.flush()
        except StoreError as error:
            _log.warning("an earlier turn is not written yet: %s", error)


def _answer(asked: Asked, plan: Plan, considered: tuple[Candidate, ...], **facts: Any) -> Answer:
    """An answer with what follows from the question and its plan."""
    return Answer(
        flow=plan.spec.key,
        flow_id=plan.spec.id,
        flow_name=plan.spec.name or plan.spec.key,
        session_id=asked.session,
        turn_id=asked.turn,
        trace_id=asked.trace,
        question=asked.text,
        context=plan.enrichment.turn_ids,
        route=plan.route,
        config=plan.config,
        considered=considered,
        **facts,
    )


def _turn_of(asked: Asked, plan: Plan, read: Read, answer: Answer) -> Turn:
    return Turn(
        id=asked.turn,
        session_id=asked.session,
        at=asked.at,
        question=asked.text,
        answer=answer.text,
        flow=plan.spec.key,
        fingerprint=answer.fingerprint,
        outcome=answer.outcome,
        reason=answer.reason,
        trace_id=asked.trace,
        origin_trace_id=answer.origin_trace_id,
        entry_key=answer.key or "",
        elapsed_ms=(time.perf_counter() - asked.started) * 1000,
        flow_ms=answer.flow_ms,
        parent=read.recalled.turns[-1].id if read.recalled.turns else "",
        context=plan.enrichment.turn_ids,
        user=asked.user,
        private=asked.directives.private or plan.enrichment.private,
        sources=answer.sources,
        intent=asked.intent or "",
    )


def _warnings(read: Read, done: AnswerDone | None = None) -> tuple[str, ...]:
    if read.error is None and not read.recalled.damaged and (done is None or done.complete):
        return ()
    warnings = []
    if read.error is not None:
        warnings.append(f"Answered without memory: {read.error.message}.")
    if read.recalled.damaged:
        warnings.append(f"{read.recalled.damaged} earlier turn(s) of this session could not be read.")
    if done is not None and not done.complete:
        warnings.append("The flow's answer is not complete, so it was not stored for others.")
    return tuple(warnings)

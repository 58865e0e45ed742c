"""The way of a question: route, recall, identify, look up, decide, answer, remember.

Invariant: what is served, asked and stored follows from `policy` alone; this module only carries facts to it and its
verdict out. Nothing is remembered on the error path. A store that fails never costs the answer: the flow is asked and
the answer says so.

Round trips: one to read (session, flow, candidates), one to write. The keys of the candidates depend on the session's
turns, so they are predicted from what this process saw of the session last; a wrong prediction costs one more read.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import FlowError, FlowGarbled, NotCached, StoreError, UnknownSession
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import AnswerDone, FlowClient, FlowQuestion, FlowSpec, answer_of
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.routing import route
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.model import (
    Answer,
    Candidate,
    Directives,
    Entry,
    FlowState,
    Lifetime,
    Outcome,
    Reason,
    Route,
    Session,
    Sharing,
    Turn,
)
from agentic_flywheel.policy.admission import admit_id, admit_question
from agentic_flywheel.policy.context import Domain, Enrichment, compose, enrich
from agentic_flywheel.policy.decision import Ask, Facts, Found, Refuse, Serve, ServeStale, Wanted, decide
from agentic_flywheel.policy.identity import context_digest, identity_of, normalise, question_hash
from agentic_flywheel.policy.lifetime import stored_seconds
from agentic_flywheel.policy.sharing import Scope, may_stand_alone, scope_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.sessions import Recalled
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import FlowWatch, Standing

#: Sessions whose last turns this process remembers, to predict where their next question is looked up.
SESSIONS_REMEMBERED = 512

_log = logging.getLogger(__name__)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question as it was given, checked."""

    text: str
    session: str
    resumed: bool  # the session was named by the asker, so it may have turns
    turn: str
    trace: str
    user: str
    flow: str | None
    intent: str | None
    directives: Directives
    config: Mapping[str, Any]
    domain: Domain | None
    at: float
    started: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a question goes and what it is, given what is known of its session."""

    route: Route
    spec: FlowSpec
    enrichment: Enrichment
    config: dict[str, Any]
    identity: str
    normal: str
    scope: Scope | None
    wanted: tuple[Wanted, ...]


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What the store said: the session, the flow, the candidates. `error` is set where it could not be asked."""

    recalled: Recalled
    state: FlowState
    type_ttl: float | None
    found: tuple[Found, ...]
    error: StoreError | None = None


class Asking:
    """Answers questions for one tenant; owned by `Flywheel`."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        clients: ClientPool,
        store: Store,
        watch: FlowWatch,
        behind: WriteBehind,
        lifetimes: Lifetimes,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clients = clients
        self._store = store
        self._watch = watch
        self._behind = behind
        self._lifetimes = lifetimes
        self._remembered: OrderedDict[str, Recalled] = OrderedDict()
        self._jitter = settings.number("ttl.jitter")

    def admit(
        self,
        question: str,
        *,
        session: str | None = None,
        flow: str | None = None,
        user: str | None = None,
        intent: str | None = None,
        directives: Directives | None = None,
        config: Mapping[str, Any] | None = None,
        domain: Domain | None = None,
        turn_id: str | None = None,
    ) -> Asked:
        """Check everything that was given, before anything is touched. Raises `InputError`."""
        started = time.perf_counter()
        user = self._settings.text("user") if user is None else user
        return Asked(
            text=admit_question(question, longest=int(self._settings["question.max_characters"])),
            session=new_session_id() if session is None else admit_id(session, "session"),
            resumed=session is not None,
            turn=secrets.token_hex(16) if turn_id is None else admit_id(turn_id, "turn"),
            trace=secrets.token_hex(16),
            user=admit_id(user, "user") if user else "",
            flow=flow,
            intent=intent,
            directives=directives or Directives(),
            config=config or {},
            domain=domain,
            at=time.time(),
            started=started,
        )

    async def answer(self, asked: Asked) -> Answer:
        """The whole way. Raises `NotFound` and `FlowError`; store failures become warnings."""
        if self._behind.holds(asked.session):
            await self._flush_first()
        plan, read = await self._look(asked)
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
            if isinstance(decision, Refuse):
                reason = Reason.STORE_UNAVAILABLE if read.error else decision.reason
                raise NotCached(
                    f"no stored answer may be served: {reason}",
                    reason=reason,
                    flow=plan.spec.key,
                    session=asked.session if asked.resumed else None,
                )
            if isinstance(decision, Serve | ServeStale):
                return await self._serve(asked, plan, read, decision, considered, lifetime)
            done, flow_ms = await self._ask_flow(asked, plan, client)
        keep = isinstance(decision, Ask) and read.error is None and done.complete
        reason = Reason.STORE_UNAVAILABLE if read.error else decision.reason
        outcome = Outcome.MISS if isinstance(decision, Ask) and read.error is None else Outcome.BYPASS
        entry = self._entry(asked, plan, read, standing, lifetime, done, flow_ms) if keep else None
        warnings = _warnings(read, done)
        return await self._finish(
            asked, plan, read, considered, entry, done, outcome, reason, standing.fingerprint, flow_ms, warnings
        )

    def plan(self, asked: Asked, recalled: Recalled) -> Plan:
        """Flow, identity and candidate keys of a question, given what is known of its session."""
        snapshot = self._registry.current()
        session = recalled.session or Session(id=asked.session)
        chosen = route(
            asked.text,
            snapshot,
            flow=asked.flow,
            intent=asked.intent,
            session_flow=session.flow or None,
            context=[turn.question for turn in recalled.turns],
        )
        spec = snapshot.get(chosen.flow)
        enrichment = Enrichment()
        if not asked.directives.standalone:
            limit = spec.context_turns if spec.context_turns is not None else int(self._settings["session.turns"])
            tokens = (
                spec.context_tokens if spec.context_tokens is not None else self._settings["session.context_tokens"]
            )
            enrichment = enrich(recalled.turns, recalled.first, limit=limit, tokens=int(tokens))
        config = {**session.config, **asked.config}
        domain = asked.domain.digest() if asked.domain else ""
        alone = identity_of(config=config, domain=domain)
        context = context_digest(enrichment.exchanges)
        identity = identity_of(context=context, config=config, domain=domain) if context else alone
        normal = normalise(asked.text)
        scope = scope_of(spec.sharing, asked.directives, question=asked.text, user=asked.user)
        if scope is not None and enrichment.private:
            scope = Scope.SESSION
        wanted: list[Wanted] = []
        if scope is not None and not asked.directives.no_store:
            wanted.append(self._wanted(asked, spec, scope, normal, identity))
            allowed = self._settings["session.verbatim"] if spec.verbatim is None else spec.verbatim
            if context and may_stand_alone(asked.text, allowed=bool(allowed)):
                wanted.append(self._wanted(asked, spec, scope, normal, alone, first_only=True))
        return Plan(
            route=chosen,
            spec=spec,
            enrichment=enrichment,
            config=config,
            identity=identity,
            normal=normal,
            scope=scope,
            wanted=tuple(wanted),
        )

    def _wanted(
        self, asked: Asked, spec: FlowSpec, scope: Scope, normal: str, identity: str, *, first_only: bool = False
    ) -> Wanted:
        name = question_hash(normal, identity)
        key = self._store.keys.entry(scope, spec.key, name, user=asked.user, session=asked.session)
        return Wanted(key=key, scope=scope, question=normal, identity=identity, first_only=first_only)

    async def _look(self, asked: Asked) -> tuple[Plan, Read]:
        known = self._remembered.get(asked.session, Recalled()) if asked.resumed else Recalled()
        plan = self.plan(asked, known)
        try:
            read = await self._read(asked, plan, recall=asked.resumed)
            owner = read.recalled.session.owner if read.recalled.session else ""
            if owner and asked.user and owner != asked.user:
                raise UnknownSession(
                    f"user {asked.user!r} has no session {asked.session!r}", session_id=asked.session, user=asked.user
                )
            if asked.resumed and not _alike(read.recalled, known):
                actual = self.plan(asked, read.recalled)
                if actual.wanted != plan.wanted or actual.spec is not plan.spec:
                    again = await self._read(asked, actual, recall=False)
                    read = msgspec.structs.replace(again, recalled=read.recalled)
                plan = actual
        except StoreError as error:
            _log.warning("asked without the store: %s", error)
            nothing = tuple(Found(wanted) for wanted in plan.wanted)
            return plan, Read(recalled=known, state=FlowState(), type_ttl=None, found=nothing, error=error)
        return plan, read

    async def _read(self, asked: Asked, plan: Plan, *, recall: bool) -> Read:
        store = self._store
        turns = max(int(self._settings["session.turns"]), plan.spec.context_turns or 0)
        commands = store.sessions.recall_commands(asked.session, turns) if recall else []
        session_replies = len(commands)
        commands.append(store.flows.read_command(plan.spec.key))
        commands.append(store.flows.type_ttl_command(plan.spec.type))
        commands += [("GET", wanted.key) for wanted in plan.wanted]
        replies = await store.link.run_each(*commands)
        needed, values = replies[: session_replies + 2], replies[session_replies + 2 :]
        for reply in needed:
            if isinstance(reply, Exception):
                raise store.link.error(reply, "reading a session and its flow")
        found = []
        for wanted, value in zip(plan.wanted, values, strict=True):
            looked = store.entries.looked(value)
            if looked.damaged:
                self._behind.count(plan.spec.key, asked.at, damaged=1)
            found.append(Found(wanted, looked.entry, looked.damaged))
        return Read(
            recalled=store.sessions.recalled(needed[:3]) if recall else Recalled(),
            state=store.flows.state_of(needed[session_replies]),
            type_ttl=float(needed[session_replies + 1]) if needed[session_replies + 1] else None,
            found=tuple(found),
        )

    async def _standing(self, plan: Plan, read: Read, client: FlowClient, asked: Asked) -> tuple[Standing, Read]:
        if read.error is None:
            try:
                return await self._watch.standing(plan.spec, client, read.state, now=asked.at), read
            except StoreError as error:
                read = msgspec.structs.replace(read, error=error, found=tuple(Found(f.wanted) for f in read.found))
        return self._watch.alone(plan.spec), read

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
        renewal: list[Any] = []
        if lifetime.sliding and outcome is Outcome.HIT:
            seconds = lifetime.ttl.total_seconds()
            renewal = self._store.entries.renew_commands(key, entry, seconds=seconds, now=asked.at)
        answer = self._answer(
            asked, plan, outcome, decision.reason, considered, text=entry.answer, sources=entry.sources
        )
        answer = msgspec.structs.replace(
            answer,
            key=key,
            scope=decision.wanted.scope,
            age_seconds=max(0.0, asked.at - entry.created_at),
            ttl_seconds=max(0.0, decision.ttl_seconds),
            fingerprint=entry.fingerprint,
            origin_trace_id=entry.trace_id,
            warnings=_warnings(read),
        )
        return await self._remember(asked, plan, read, answer, renewal, saved_ms=entry.flow_ms or 0.0)

    async def _finish(
        self,
        asked: Asked,
        plan: Plan,
        read: Read,
        considered: tuple[Candidate, ...],
        entry: Entry | None,
        done: AnswerDone,
        outcome: Outcome,
        reason: Reason,
        fingerprint: str,
        flow_ms: float,
        warnings: tuple[str, ...],
    ) -> Answer:
        answer = self._answer(asked, plan, outcome, reason, considered, text=done.text, sources=done.sources)
        commands: list[Any] = []
        if entry is not None and plan.wanted:
            wanted = plan.wanted[0]
            commands = self._store.entries.put_commands(wanted.key, entry)
            answer = msgspec.structs.replace(answer, key=wanted.key, scope=wanted.scope, ttl_seconds=entry.ttl_seconds)
        answer = msgspec.structs.replace(
            answer, fingerprint=fingerprint, flow_ms=flow_ms, origin_trace_id=asked.trace, warnings=warnings
        )
        return await self._remember(asked, plan, read, answer, commands)

    def _answer(
        self,
        asked: Asked,
        plan: Plan,
        outcome: Outcome,
        reason: Reason,
        considered: tuple[Candidate, ...],
        **more: Any,
    ) -> Answer:
        return Answer(
            flow=plan.spec.key,
            flow_id=plan.spec.id,
            flow_name=plan.spec.name or plan.spec.key,
            session_id=asked.session,
            turn_id=asked.turn,
            trace_id=asked.trace,
            outcome=outcome,
            reason=reason,
            question=asked.text,
            context=plan.enrichment.turn_ids,
            route=plan.route,
            config=plan.config,
            considered=considered,
            **more,
        )

    async def _remember(
        self, asked: Asked, plan: Plan, read: Read, answer: Answer, commands: list[Any], *, saved_ms: float = 0.0
    ) -> Answer:
        """Write what is to be kept, count, and give the answer its last facts."""
        warnings, remembered = answer.warnings, False
        if not asked.directives.no_store:
            turn = _turn_of(asked, plan, read.recalled, answer)
            try:
                if read.error is not None:
                    raise read.error
                if asked.resumed:
                    await self._store.link.run(*self._store.sessions.append_commands(turn), *commands)
                    self._remember_turn(read.recalled, turn)
                else:
                    if commands:
                        await self._store.link.run(*commands)
                    self._behind.add_turn(turn)
                remembered = True
            except StoreError as error:
                key = None if answer.outcome is Outcome.MISS else answer.key
                answer = msgspec.structs.replace(answer, key=key, ttl_seconds=answer.ttl_seconds if key else None)
                warnings = (*warnings, f"This turn was not kept: {error.message}.")
        elapsed = (time.perf_counter() - asked.started) * 1000
        micros = {f"{answer.outcome}_us": int(elapsed * 1000)}
        if answer.flow_ms is not None:
            micros["flow_us"] = int(answer.flow_ms * 1000)
        elif saved_ms:
            micros["saved_us"] = int(saved_ms * 1000)
        labels = {f"outcome:{answer.outcome}": 1, f"reason:{answer.reason}": 1}
        self._behind.count(plan.spec.key, asked.at, **labels, **micros)
        return msgspec.structs.replace(answer, elapsed_ms=elapsed, remembered=remembered, warnings=warnings)

    def _remember_turn(self, recalled: Recalled, turn: Turn) -> None:
        session = recalled.session or Session(id=turn.session_id, owner=turn.user, created_at=turn.at)
        count = int(self._settings["session.turns"])
        self._remembered[turn.session_id] = Recalled(
            msgspec.structs.replace(session, flow=turn.flow, turns=session.turns + 1, last_active_at=turn.at),
            (*recalled.turns, turn)[-max(1, count, len(recalled.turns)) :],
            recalled.first or turn,
        )
        self._remembered.move_to_end(turn.session_id)
        while len(self._remembered) > SESSIONS_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _flush_first(self) -> None:
        try:
            await self._behind.flush()
        except StoreError as error:
            _log.warning("an earlier turn is not written yet: %s", error)


def new_session_id() -> str:
    """A new session's id."""
    return f"s-{secrets.token_hex(8)}"


def _alike(one: Recalled, other: Recalled) -> bool:
    """Whether two readings of a session lead to the same plan."""
    return (
        [turn.id for turn in one.turns] == [turn.id for turn in other.turns]
        and (one.session is None) == (other.session is None)
        and (one.session is None or other.session is None or one.session.flow == other.session.flow)
        and (one.session.config if one.session else {}) == (other.session.config if other.session else {})
    )


def _turn_of(asked: Asked, plan: Plan, recalled: Recalled, answer: Answer) -> Turn:
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
        parent=recalled.turns[-1].id if recalled.turns else "",
        context=plan.enrichment.turn_ids,
        user=asked.user,
        private=asked.directives.private or plan.enrichment.private,
        sources=answer.sources,
        intent=asked.intent or "",
    )


def _warnings(read: Read, done: AnswerDone | None = None) -> tuple[str, ...]:
    warnings = []
    if read.error is not None:
        warnings.append(f"Answered without memory: {read.error.message}.")
    if read.recalled.damaged:
        warnings.append(f"{read.recalled.damaged} earlier turn(s) of this session could not be read.")
    if done is not None and not done.complete:
        warnings.append("The flow's answer is not complete, so it was not stored for others.")
    return tuple(warnings)

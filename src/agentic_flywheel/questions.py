"""What was asked, checked; and where it goes, given what is known of its session.

Invariant: planning is deterministic in what it is given: the same question, session and registry lead to the same
flow, context, identity and keys, in every process.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec, Verbatim
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.routing import route
from agentic_flywheel.flows.snapshot import RegistrySnapshot
from agentic_flywheel.identifiers import new_id, new_session_id
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.model import Directives, Exchange, Route, Sharing
from agentic_flywheel.observe.names import Span
from agentic_flywheel.policy.admission import admit_config, admit_id, admit_question, admit_text
from agentic_flywheel.policy.context import Domain, Enrichment, carried, enrich
from agentic_flywheel.policy.decision import Wanted
from agentic_flywheel.policy.identity import context_digest, digest, identity_of, normalise, question_hash
from agentic_flywheel.policy.sharing import Scope, may_stand_alone, scope_of
from agentic_flywheel.privacy import EVERYTHING, Privacy
from agentic_flywheel.redacting import Kept, Redacting, texts_of
from agentic_flywheel.remembered import Conversation
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.recalled import Recalled

if TYPE_CHECKING:
    from agentic_flywheel.observe.marks import Marks
    from agentic_flywheel.tracing import Tracing

_Kind = TypeVar("_Kind")
_NO_DIRECTIVES = Directives()
_NARROWEST = frozenset({Sharing.SESSION, Sharing.NONE})
_NOTHING: Mapping[str, Any] = {}


class Asked(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One question as it was given, checked. `resumed` says that the asker named the session, so it may have turns;
    `at` is wall-clock time, `started` the performance counter's."""

    text: str
    session: str
    resumed: bool
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
    history: tuple[Exchange, ...] = ()
    instructions: str = ""
    verbatim: Verbatim | None = None
    unkept: bool = False  # a privacy policy lets no turn be kept of it
    marks: Marks | None = None  # when its steps were; None where no traces are made
    among: Collection[str] | None = None  # the only flows that there are for the asker; None: all

    def mark(self, *steps: str) -> None:
        """These steps (`observe.names.Span`), begun after the last ones, are done."""
        if self.marks is not None:
            self.marks.end(*steps)

    @property
    def plain(self) -> bool:
        """Whether nothing but the question, its flow and its user bears on the answer."""
        return not (
            self.resumed
            or self.config
            or self.domain
            or self.history
            or self.instructions
            or self.among is not None
            or (self.verbatim and self.verbatim.credential)
            or self.directives != _NO_DIRECTIVES
        )


class Plan(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Where a question goes and what it is. `wanted` lists where a stored answer is looked for; what the flow says is
    stored under the first of them. `scope` is None where the flow's policy keeps nothing. `privacy` is what may be kept
    of the question at all, `forbidden` whether it lets no answer be stored or served; `kept` is what may be kept of its
    words."""

    route: Route
    spec: FlowSpec
    enrichment: Enrichment
    config: dict[str, Any]
    identity: str
    normal: str
    scope: Scope | None
    wanted: tuple[Wanted, ...]
    registry: RegistrySnapshot
    kept: Kept
    privacy: Privacy = EVERYTHING
    forbidden: bool = False

    def private(self, directives: Directives) -> bool:
        """Whether the turn is its asker's alone: as asked, as it follows one, or since personal data is in it."""
        return directives.private or self.enrichment.private or self.kept.private


class Planner:
    """Checks and plans the questions of one tenant."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        keys: Keys,
        policies: KnownPolicies,
        redacting: Redacting,
        tracing: Tracing | None = None,
    ) -> None:
        self._registry = registry
        self._policies = policies
        self._redacting = redacting
        self._tracing = tracing
        self._keys = keys
        self.user = settings.text("user")
        self._longest = int(settings["question.max_characters"])
        self._tokens = int(settings["session.context_tokens"])
        self._verbatim = bool(settings["session.verbatim"])
        self._turns = int(settings["session.turns"])
        self._further = int(settings["session.relevant_turns"])
        self._widest: tuple[RegistrySnapshot | None, int] = (None, 1)

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
        history: Sequence[Exchange] = (),
        instructions: str = "",
        verbatim: Verbatim | None = None,
        turn_id: str | None = None,
        among: Collection[str] | None = None,
    ) -> Asked:
        """Check everything that was given, before anything is touched. Raises `InputError`."""
        started = time.perf_counter()
        turn = new_id() if turn_id is None else admit_id(turn_id, "turn")
        trace = turn if turn_id is None else new_id()
        marks = None if self._tracing is None else self._tracing.begin(trace)
        user = self.user if user is None else user
        return Asked(
            text=admit_question(question, longest=self._longest),
            session=new_session_id() if session is None else admit_id(session, "session"),
            resumed=session is not None,
            turn=turn,
            trace=trace if marks is None else marks.trace,
            user="" if user == "" else admit_id(user, "user"),
            flow=None if flow is None else admit_text(flow, "flow"),
            intent=None if intent is None else admit_text(intent, "intent"),
            directives=_NO_DIRECTIVES if directives is None else _of_kind(directives, Directives),
            config=_NOTHING if config is None else admit_config(config),
            domain=None if domain is None else _admit_domain(domain),
            history=_admit_history(history) if history else (),
            instructions=admit_text(instructions, "instructions") if instructions else "",
            verbatim=verbatim,
            at=time.time(),
            started=started,
            marks=marks,
            among=among,
        )

    def named(self, flow: str, among: Collection[str]) -> str:
        """The key of a flow that is named, where there are only those `among` for the asker. Raises `UnknownFlow`."""
        return self._registry.current().only(among).get(admit_text(flow, "flow")).key

    def plan(self, asked: Asked, known: Conversation) -> Plan:
        """Flow, context, identity and candidate keys of a question. Raises `UnknownFlow` and `RegistryError`."""
        snapshot = self._registry.current()
        known = before(known, asked.turn)
        recalled = known.recalled
        session, directives = recalled.session, asked.directives
        chosen = route(
            asked.text,
            snapshot if asked.among is None else snapshot.only(asked.among),
            flow=asked.flow,
            intent=asked.intent,
            session_flow=session.flow or None if session else None,
            context=[earlier.question for earlier in asked.history or recalled.turns],
        )
        spec = snapshot.get(chosen.flow)
        asked.mark(Span.ROUTE)
        privacy = self._policies.of(spec, asked.user)
        # What was said is not kept, so no conversation goes on: turns from before would be all that it has.
        enrichment = narrowed(self._enrichment(asked, spec, known), spec, snapshot) if privacy.history else Enrichment()
        config = {**(session.config if session else _NOTHING), **asked.config}
        domain = asked.domain.digest() if asked.domain else ""
        if asked.instructions:
            domain = digest("instructions", asked.instructions, domain)
        if asked.verbatim is not None and asked.verbatim.credential:
            domain = digest("credential", asked.verbatim.credential, domain)
        normal = normalise(asked.text)
        kept = self._kept(asked, spec, config)
        by_itself = scope_of(spec.sharing, directives, question=asked.text, user=asked.user, sensitive=kept.private)
        scope = by_itself
        if scope is not None and enrichment.private:
            scope = by_itself = Scope.SESSION
        elif scope is Scope.TEAM and enrichment.own:
            scope = Scope.USER if asked.user else Scope.SESSION
        if scope is Scope.SESSION and asked.user:
            # The key names the session alone, and two users may begin one of the same id at the same moment.
            domain = digest("user", asked.user, domain)
        alone = identity_of(config=config, domain=domain)
        context = context_digest(enrichment.exchanges)
        identity = identity_of(context=context, config=config, domain=domain) if context else alone
        # What belongs to one user or session alone is a record of them.
        forbidden = not privacy.cache or (not privacy.history and scope in {Scope.USER, Scope.SESSION})
        if forbidden:
            scope = None
        wanted: tuple[Wanted, ...] = ()
        if scope is not None and by_itself is not None and not (directives.no_store or kept.unkeyed):
            wanted = (self._wanted(asked, spec, scope, normal, identity),)
            if context and may_stand_alone(
                asked.text, allowed=self._verbatim if spec.verbatim is None else spec.verbatim
            ):
                wanted = (*wanted, self._wanted(asked, spec, by_itself, normal, alone, first_only=True))
        asked.mark(Span.IDENTIFY)
        return Plan(
            route=chosen,
            spec=spec,
            enrichment=enrichment,
            config=config,
            identity=identity,
            normal=normal,
            scope=scope,
            wanted=wanted,
            registry=snapshot,
            kept=kept,
            privacy=privacy,
            forbidden=forbidden,
        )

    def _kept(self, asked: Asked, spec: FlowSpec, config: Mapping[str, Any]) -> Kept:
        """What may be kept of a question's words; all that its key is made of counts."""
        more: list[str] = []
        if asked.history or asked.instructions or asked.domain or config:
            more += [side for one in asked.history for side in (one.question, one.answer)]
            more += [asked.instructions, *texts_of(config)]
            if asked.domain:
                more += texts_of(msgspec.structs.asdict(asked.domain))
        veto = not (asked.directives.private or asked.directives.no_store)
        return self._redacting.of(spec, asked.text, user=asked.user, more=more, veto=veto)

    def window(self, registry: RegistrySnapshot) -> int:
        """How many of a session's last turns are recalled: enough for whichever flow its next question goes to."""
        known, widest = self._widest
        if known is not registry:
            widest = max(1, self._turns, *(spec.context_turns or 0 for spec in registry.flows.values()))
            self._widest = (registry, widest)
        return widest

    def looks_back(self, asked: Asked, spec: FlowSpec) -> bool:
        """Whether turns before the newest may enrich this question, asked of this flow."""
        leans = not (asked.directives.standalone or asked.history)
        leans = leans and self._policies.of(spec, asked.user).history
        return leans and self._further_of(spec) > 0 and self._turns_of(spec) > 0

    def _turns_of(self, spec: FlowSpec) -> int:
        return self._turns if spec.context_turns is None else spec.context_turns

    def _further_of(self, spec: FlowSpec) -> int:
        return self._further if spec.context_relevant is None else spec.context_relevant

    def _enrichment(self, asked: Asked, spec: FlowSpec, known: Conversation) -> Enrichment:
        if asked.directives.standalone:
            return Enrichment()
        if asked.history:
            return carried(asked.history)
        if not known.recalled.turns:
            return Enrichment()
        limit, further = self._turns_of(spec), self._further_of(spec)
        return enrich(
            asked.text,
            known.recalled.turns,
            known.recalled.first,
            known.before(limit) if further else (),
            limit=limit,
            tokens=self._tokens if spec.context_tokens is None else spec.context_tokens,
            further=further,
        )

    def _wanted(
        self, asked: Asked, spec: FlowSpec, scope: Scope, normal: str, identity: str, *, first_only: bool = False
    ) -> Wanted:
        name = question_hash(normal, identity)
        key = self._keys.entry(scope.value, spec.key, name, user=asked.user, session=asked.session)
        return Wanted(key=key, scope=scope.value, question=normal, identity=identity, first_only=first_only)


def _of_kind(value: _Kind, kind: type[_Kind]) -> _Kind:
    if not isinstance(value, kind):
        raise InputError(f"expected {kind.__name__}(...), got {type(value).__name__}")
    return value


def _admit_domain(domain: Domain) -> Domain:
    for field in _of_kind(domain, Domain).__struct_fields__:
        admit_text(getattr(domain, field), f"domain's {field}")
    return domain


def _admit_history(history: Sequence[Exchange]) -> tuple[Exchange, ...]:
    for exchange in history:
        admit_text(_of_kind(exchange, Exchange).question, "question of an earlier exchange")
        admit_text(exchange.answer, "answer of an earlier exchange")
    return tuple(history)


def narrowed(enrichment: Enrichment, spec: FlowSpec, registry: RegistrySnapshot) -> Enrichment:
    """What enriches a question to a flow, no wider than the flows that answered the earlier turns share their answers.

    A flow that is gone from the registry shares with nobody but who asked.
    """
    others = enrichment.flows - {spec.key}
    if not others or spec.sharing in _NARROWEST:
        return enrichment  # it goes no further than the flow's own answers
    private, own = enrichment.private, enrichment.own
    for flow in others:
        known = registry.flows.get(flow)
        sharing = Sharing.USER if known is None else known.sharing
        private |= sharing in _NARROWEST
        own |= sharing is Sharing.USER
    return msgspec.structs.replace(enrichment, private=private, own=own)


def before(known: Conversation, turn: str) -> Conversation:
    """A session as it was before one of its turns: a question that is asked again under the same turn id is the same
    question, not a follow-up of itself."""
    recalled = known.recalled
    place = next((index for index, one in enumerate(recalled.turns) if one.id == turn), None)
    if place is None:
        return known
    first = recalled.first if recalled.first is not None and recalled.first.id != turn else None
    session = recalled.session if place or first else None
    earlier = Recalled(session, recalled.turns[:place], first, recalled.damaged, recalled.sizes)
    return Conversation(earlier, known.earlier)

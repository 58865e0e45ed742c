"""The facade: open it, ask it, look after it. Every interface goes through here."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentic_flywheel.admission import Admission
from agentic_flywheel.asking import Asking
from agentic_flywheel.at_hand import AtHand
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.calling import Calling
from agentic_flywheel.comparing import Comparer, as_comparer, comparer_of
from agentic_flywheel.curation import Cache, Flows
from agentic_flywheel.errors import FlywheelError, InputError
from agentic_flywheel.explaining import Explaining
from agentic_flywheel.familiar import Familiar
from agentic_flywheel.flights import Flights
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import StreamEvent, Verbatim
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.history import History
from agentic_flywheel.housekeeping import Housekeeping
from agentic_flywheel.known_policies import known_policies
from agentic_flywheel.late import LateParts
from agentic_flywheel.learning import Learning
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.listening import Listener, Listening
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Answer, Check, Directives, Exchange
from agentic_flywheel.near import NearCache
from agentic_flywheel.pinned import Pinned
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.context import Domain
from agentic_flywheel.proposing import Proposing
from agentic_flywheel.questions import Planner
from agentic_flywheel.recollection import Recollection
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.reembedding import Reembedding
from agentic_flywheel.reporting import Reporting
from agentic_flywheel.search.embedding import embedder_of
from agentic_flywheel.search.protocols import Embedder, Recall
from agentic_flywheel.search.recall import recall_of
from agentic_flywheel.sessions import Sessions
from agentic_flywheel.settings import Settings, load_settings
from agentic_flywheel.settings_table import SETTINGS
from agentic_flywheel.similar import Similar
from agentic_flywheel.store.embedded import EmbeddedServer
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import FlowWatch

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Tracing

#: What calls that nobody waits for any more may still take when the flywheel is closed.
CLOSE_SECONDS = 1.0
_NO_DIRECTIVES = Directives()
#: Settings as keyword arguments: `session.turns` is `session_turns`.
_ARGUMENTS = {setting.name.replace(".", "_"): setting.name for setting in SETTINGS}


class Flywheel(LateParts):
    """Asks flows and remembers: one tenant's conversations and answers on one Redis.

    Open it once per program and close it at the end; it is safe to use from many tasks of one event loop. Nothing is
    connected before the first question.

        async with Flywheel.open(tenant="docs-team") as flywheel:
            answer = await flywheel.ask("How long are answers kept?", session="monday")
            print(answer.text, answer.outcome, answer.age_seconds)
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry | None = None,
        *,
        background: bool = True,
        embedder: Embedder | Callable[..., Any] | None = None,
        comparer: Comparer | None = None,
        draw: Callable[[], float] = random.random,
        listener: Listener | None = None,
    ) -> None:
        admit_id(settings.text("tenant"), "tenant")
        self.settings = settings
        self._listening = None if listener is None else Listening(listener)
        self.registry = registry or Registry(settings)
        self._tracing: Tracing | None = None
        self._no_traces: FlywheelError | None = None
        if settings["trace.exporter"] != "off":
            from agentic_flywheel import __version__
            from agentic_flywheel.tracing import tracing_of

            self._tracing, self._no_traces = tracing_of(settings, __version__, getattr(listener, "traced", None))
        tracing = self._tracing
        self._clients = ClientPool(settings)
        self._store = Store(settings)
        self._behind, self._flights = WriteBehind(self._store), Flights()
        self.outbox = self._store.outbox
        self._known_policies = policies = known_policies(settings, self._store)
        self._redacting = redacting = Redacting(settings, policies)
        self.sessions = Sessions(settings, self._store, self._behind, self._forget_drafts, redacting)
        erase = self._erase if tracing else None
        house = Housekeeping(self._store, self.sessions, self._flights, self._retain, erase)
        self._housekeeping = house if background else None
        self._schedule = None
        # On a cluster one channel tells of one server's changes alone, so nothing can be kept at hand there.
        near = settings["near.enabled"] and self._store.link.address.kind != "cluster"
        self._watch = FlowWatch(settings, self._clients, self._store.flows, self._flow_changed)
        self._near = NearCache(settings, self.registry, self._store, self._watch, self._behind) if near else None
        self._forget = forget = self._near.forget if self._near else _nothing_at_hand
        self.lifetimes = Lifetimes(settings, self.registry, self._store.flows, forget)
        self._planner = Planner(settings, self.registry, self._store.keys, policies, redacting, tracing)
        recollection = Recollection(self._planner, self._store, self._behind, policies)
        self._admission = admission = Admission(settings, self._store.limits)
        self._familiar = Familiar(settings, self.registry, self._store, self._clients, self._watch, self._behind)
        #: Answers that need not go the whole way; `ask` looks here first.
        self.at_hand = AtHand(
            self._near, self._familiar, user=self._planner.user, tracing=tracing, listening=self._listening
        )
        self._embedding = embedder_of(settings, embedder)
        self._pinned = Pinned(self._store, self._embedding, self._flights)
        self._matching = matching = Matching(
            settings, self._store, self._embedding, self._recall, self._pinned, waits_for_model=not background
        )
        if background:
            matching.catch_up = Reembedding(self._store, matching, self._flights).look
        self._calling = calling = Calling(
            settings, self._clients, self._store, self._behind, admission, matching, tracing
        )
        self._learning = learning = Learning(
            self._store,
            matching,
            as_comparer(comparer) if comparer else comparer_of(settings, self._embedding, self.registry, self._clients),
            calling,
            self._flights,
            self._behind,
            audits=background,
            draw=draw,
            tracing=tracing,
        )
        self._asking = Asking(
            settings,
            recollection,
            self._clients,
            self._store,
            self._watch,
            self._behind,
            self.lifetimes,
            calling,
            self._flights,
            familiar=self._familiar,
            pinned=self._pinned,
            matching=matching,
            learning=learning,
            near=self._near,
            tracing=tracing,
            refreshes=background,
        )
        self.cache = Cache(
            self.registry, self._store, self._planner, self.lifetimes, self._behind, lambda: self.usage, forget
        )
        self.flows = Flows(self.registry, self._store, self._watch, self._clients, self._planner, self._asking)
        self.history = History(
            settings, self.registry, self._store, self._behind, self._embedding, self._flights, background=background
        )
        self.similar = Similar(
            self.registry,
            self._store,
            self._planner,
            self._behind,
            self._embedding,
            matching,
            learning,
            Explaining(self._asking, matching, self._embedding),
            Reporting(
                self.registry,
                self._store,
                self._planner,
                self._asking,
                matching,
                learning,
                self._behind,
                forget,
                lambda: self.faq,
                redacting,
                tracing,
            ),
            Proposing(self.registry, self._store, matching, self.lifetimes),
        )

    @classmethod
    def open(
        cls,
        *,
        settings: Settings | None = None,
        registry: Registry | None = None,
        background: bool = True,
        embedder: Embedder | Callable[..., Any] | None = None,
        comparer: Comparer | None = None,
        draw: Callable[[], float] = random.random,
        listener: Listener | None = None,
        **arguments: Any,
    ) -> Self:
        """Make a flywheel; use it as `async with`. Without `background`, a hit near its end refreshes nothing: for
        programs that end after one question.

        `embedder` (an `Embedder`, or a function from texts to rows of numbers) and `comparer` take the place of what
        the settings `embedder.model` and `similar.comparer` name; `draw` gives the random numbers from 0 to 1 that pick
        similar hits to audit. `listener` is told of every answer.

        `arguments` are settings by name with `_` for the dot (`redis_url=...`, `tenant=...`, `session_turns=...`);
        they win over environment and files. Raises `SettingsError`.
        """
        if settings is None:
            named = {_ARGUMENTS.get(name, name): value for name, value in arguments.items()}
            settings = load_settings(named)
        return cls(
            settings,
            registry,
            background=background,
            embedder=embedder,
            comparer=comparer,
            draw=draw,
            listener=listener,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def ask(
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
    ) -> Answer:
        """Answer a question, from memory where that is right, else by the flow; remember the turn.

        With `session`, earlier turns of that session enrich the question, and the turn is acknowledged by Redis
        before this returns. Without one a session is begun, its id is in the answer, and the turn is written within
        50 ms. `config` is laid over the flow's configuration and is part of what the answer is stored under, as is
        `domain`. `history` are earlier exchanges that the asker brings along, oldest first: they take the place of the
        session's turns. `instructions` (a system prompt) go to the flow with the question. Both are part of what the
        answer is stored under. `verbatim` is for interfaces that speak a service's own protocol. The same `turn_id` in
        the same session is remembered once. With `among`, these flows are the only ones that there are for the asker:
        another one is unknown, and so is a session in which another one answered.

        Raises `InputError` (nothing was done), `UnknownFlow`, `UnknownSession` (another user's), `NotCached`
        (`only_if_cached`), and `FlowError` where the flow does not answer. Trouble with Redis raises nothing: the
        answer says so in `outcome`, `reason` and `warnings`.
        """
        if among is not None and flow is not None:
            flow = self._planner.named(flow, among)
            among = None if session is None else among  # who names no session needs it for nothing else
        plain = not (config or domain or history or instructions or turn_id or (verbatim and verbatim.credential))
        plain = plain and among is None
        if session is None and plain and directives in (None, _NO_DIRECTIVES):
            at_hand = await self.at_hand.answer(question, flow, user, intent)
            if at_hand is not None:
                return at_hand
        if self._housekeeping is not None:
            self._housekeeping.look()
            if self._schedule is None:
                self.keep_house()
        try:
            asked = self._planner.admit(
                question,
                session=session,
                flow=flow,
                user=user,
                intent=intent,
                directives=directives,
                config=config,
                domain=domain,
                history=history,
                instructions=instructions,
                verbatim=verbatim,
                turn_id=turn_id,
                among=among,
            )
            answer = await self._asking.answer(asked)
        except FlywheelError as error:
            if self._listening is not None:
                self._listening.failed(error)
            raise
        return answer if self._listening is None else self._listening.answered(answer)

    def stream(
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
    ) -> AsyncGenerator[StreamEvent, None]:
        """As `ask`, with the text as it comes: `Decided`, then `TextPart`s to append, at last the whole `Answer`.

        A stored answer is replayed word by word. A question that is being answered already is joined where it stands:
        what was said so far comes first. `Progress("restarted")` says that the text so far is void, since another
        answer takes its place. Who stops listening does not end the call: its answer is stored and the turn kept.
        """
        try:
            asked = self._planner.admit(
                question,
                session=session,
                flow=flow,
                user=user,
                intent=intent,
                directives=directives,
                config=config,
                domain=domain,
                history=history,
                instructions=instructions,
                verbatim=verbatim,
                turn_id=turn_id,
                among=among,
            )
        except FlywheelError as error:
            if self._listening is not None:
                self._listening.failed(error)
            raise
        events = self._asking.stream(asked)
        return events if self._listening is None else self._listening.stream(events)

    @property
    def embedded(self) -> EmbeddedServer | None:
        """The embedded server in use, None where a Redis is configured."""
        return self._store.link.embedded

    @property
    def redis_round_trips(self) -> int:
        """How often Redis has been spoken to so far."""
        return self._store.link.round_trips

    @property
    def redis_address(self) -> str:
        """The Redis in use, password hidden, and where its address came from."""
        return self._store.link.address.shown

    async def settled(self) -> None:
        """Wait until nothing that answers gave rise to is under way: refreshes, labels, audits, vectors."""
        await self._flights.settled()

    async def flush(self) -> None:
        """Send everything that is written behind. Raises `StoreError`."""
        await self._behind.flush()

    async def ping(self) -> None:
        """Have Redis say that it is there. Raises `StoreError`."""
        await self._store.link.run(("PING",))

    async def doctor(self) -> list[Check]:
        """Look at registry, Redis and flows; what is fine, what is not, what to do."""
        from agentic_flywheel.examination import examine

        return await examine(
            self.registry,
            self._store,
            self.flows,
            self._near,
            self._embedding,
            self.faq,
            self.history.indexes,
            self._no_traces or self._tracing,
        )

    def _recall(self, embedder: Embedder) -> Recall:
        where = self.settings.text("similar.recall")
        return recall_of(where, self._store.vectors, embedder, engine=self._store.vectors)

    async def plain_get(self, key: str) -> bytes | None:
        """A value outside of our own keys, as `coaia fetch` reads it. Raises `StoreError`."""
        value: bytes | None = await self._store.link.execute("GET", _plain(key))
        return value

    async def plain_set(self, key: str, value: bytes, ttl: timedelta | None) -> None:
        """Store a value outside of our own keys, as `coaia tash` does. Raises `StoreError`."""
        expiry = ("PX", round(ttl.total_seconds() * 1000)) if ttl is not None else ()
        await self._store.link.execute("SET", _plain(key), value, *expiry)

    async def _forget_drafts(self, session: str, turn: str, dry_run: bool) -> int:
        return await self.faq.forget(session, turn, dry_run=dry_run)

    def _flow_changed(self, flow: str, generation: int) -> None:
        if self._near is not None:
            self._near.forget()
        if self._housekeeping is not None:  # programs that end after one question leave old answers to others
            self._housekeeping.flow_changed(flow, generation)
        if self._schedule is not None:
            self._schedule.wake()

    async def aclose(self) -> None:
        """Let calls under way end within a second, send what is written behind, release everything.

        Safe to call twice.
        """
        if self._tracing is not None:
            self._tracing.hurry()
        if self._schedule is not None:
            await self._schedule.aclose()
        await self._flights.aclose(patience=CLOSE_SECONDS)
        if self._near is not None:
            await self._near.aclose()
        await self._matching.aclose()
        await self.history.aclose()
        await self._embedding.aclose()
        await self._watch.aclose()
        await self._behind.aclose()
        await self._clients.aclose()
        if self._tracing is not None:
            await self._tracing.aclose()
        await self._store.aclose()


def _nothing_at_hand() -> None:
    """Without a near cache there is nothing to forget."""


def _plain(key: str) -> str:
    if not key or key.startswith("afw:"):
        raise InputError(f"{key!r} cannot be a key here: it must not be empty, and 'afw:' is the flywheel's own")
    return key

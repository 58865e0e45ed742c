"""The parts of a flywheel that few programs need: each is made, and what it needs imported, when it is first used.

Invariant: an answer from memory, and the start of a program, load none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_flywheel.access import ApiKeys
    from agentic_flywheel.admission import Admission
    from agentic_flywheel.asking import Asking
    from agentic_flywheel.auditing import Audit
    from agentic_flywheel.backup import Backup
    from agentic_flywheel.behind import WriteBehind
    from agentic_flywheel.calling import Calling
    from agentic_flywheel.curation import Cache, Flows
    from agentic_flywheel.encryption import Encryption
    from agentic_flywheel.erasing import Erasing
    from agentic_flywheel.flights import Flights
    from agentic_flywheel.flows.clients import ClientPool
    from agentic_flywheel.flows.registry import Registry
    from agentic_flywheel.following import Following
    from agentic_flywheel.forgetting import Forgetting
    from agentic_flywheel.happenings import Happenings
    from agentic_flywheel.history import History
    from agentic_flywheel.housekeeping import Housekeeping
    from agentic_flywheel.insight.faq import Faq
    from agentic_flywheel.insight.links import Links
    from agentic_flywheel.insight.popular import Popular
    from agentic_flywheel.insight.usage import Usage
    from agentic_flywheel.insight.warm_schedule import WarmSchedule
    from agentic_flywheel.insight.warming import Warming
    from agentic_flywheel.known_policies import KnownPolicies
    from agentic_flywheel.learning import Learning
    from agentic_flywheel.lifetimes import Lifetimes
    from agentic_flywheel.matching import Matching
    from agentic_flywheel.near import NearCache
    from agentic_flywheel.own_data import OwnDataReader
    from agentic_flywheel.pinned import Pinned
    from agentic_flywheel.policies import Policies
    from agentic_flywheel.privacy_tests import PrivacyTests
    from agentic_flywheel.questions import Planner
    from agentic_flywheel.redacting import Redacting
    from agentic_flywheel.repeats import Repeats
    from agentic_flywheel.retention import Retention
    from agentic_flywheel.search.embedding import Embedding
    from agentic_flywheel.sessions import Sessions
    from agentic_flywheel.settings import Settings
    from agentic_flywheel.store.store import Store
    from agentic_flywheel.traces import Traces
    from agentic_flywheel.tracing import Tracing
    from agentic_flywheel.watching import FlowWatch


class LateParts:
    """What `Flywheel` is besides asking; it has the attributes named here."""

    settings: Settings
    registry: Registry
    cache: Cache
    flows: Flows
    lifetimes: Lifetimes
    sessions: Sessions
    history: History
    _store: Store
    _embedding: Embedding
    _behind: WriteBehind
    _clients: ClientPool
    _watch: FlowWatch
    _planner: Planner
    _known_policies: KnownPolicies
    _redacting: Redacting
    _asking: Asking
    _calling: Calling
    _flights: Flights
    _admission: Admission
    _learning: Learning
    _matching: Matching
    _near: NearCache | None
    _pinned: Pinned
    _housekeeping: Housekeeping | None
    _schedule: WarmSchedule | None
    _tracing: Tracing | None
    _forget: Callable[[], None]

    @cached_property
    def usage(self) -> Usage:
        """Figures of use; read when somebody looks, so loaded then."""
        from agentic_flywheel.insight.usage import Usage

        return Usage(self.settings, self.registry, self._store, self._behind, self.flows.check)

    @cached_property
    def following(self) -> Following:
        """Tells of what happens, to whoever shows it; loaded when somebody does."""
        from agentic_flywheel.following import Following

        return Following(self._store.feed)

    @cached_property
    def happenings(self) -> Happenings:
        """What happens, one thing after the other; loaded when somebody follows."""
        from agentic_flywheel.happenings import Happenings

        return Happenings(self._store, self.registry, self.following)

    @cached_property
    def forgetting(self) -> Forgetting:
        """Forgets a conversation or a person."""
        from agentic_flywheel.forgetting import Forgetting

        return Forgetting(
            self._store,
            self.sessions,
            self._behind,
            self._matching,
            self.usage.forget,
            self._forget,
            self.erasing,
        )

    @cached_property
    def own_data(self) -> OwnDataReader:
        """Everything that is kept about one person."""
        from agentic_flywheel.own_data import OwnDataReader

        tenant, exporter = self.settings.text("tenant"), self.settings.text("trace.exporter")
        return OwnDataReader(tenant, self._store, self._behind, self.audit, self.erasing, self.policies, exporter)

    @cached_property
    def erasing(self) -> Erasing:
        """Deletes traces of what was forgotten."""
        from agentic_flywheel.erasing import Erasing

        return Erasing(self.settings, self._store, lambda: self.audit, self._hand_over_traces)

    async def _retain(self) -> bool:
        return await self.retention.go_on()

    async def _erase(self) -> None:
        await self.erasing.keep_at_it()

    async def _hand_over_traces(self) -> None:
        if self._tracing is not None:
            await self._tracing.handed_over()

    @cached_property
    def policies(self) -> Policies:
        """What may be kept of a flow, a user or the tenant; what holds for a question is looked up without this."""
        from agentic_flywheel.policies import Policies

        return Policies(
            self.settings,
            self.registry,
            self._store,
            self._known_policies,
            self.cache,
            self._matching,
            self._forget,
        )

    @cached_property
    def retention(self) -> Retention:
        """Removes turns past their retention."""
        from agentic_flywheel.retention import Retention

        return Retention(self.registry, self._store, self.sessions, self._known_policies)

    @cached_property
    def links(self) -> Links:
        """Which sessions belong together."""
        from agentic_flywheel.insight.links import Links

        return Links(self.settings, self.registry, self._store, self.sessions, self.history)

    @cached_property
    def backup(self) -> Backup:
        """Exports and imports; few programs need them, so they are loaded when they are used."""
        from agentic_flywheel.backup import Backup

        return Backup(self.settings, self.registry, self._store, self._behind, self._forget)

    @cached_property
    def faq(self) -> Faq:
        """The FAQ as people look after it; what it serves is looked up with every question, without this."""
        from agentic_flywheel.insight.faq import faq_of

        return faq_of(
            self.settings,
            self.registry,
            self._store,
            self._watch,
            flush=self._behind.flush,
            popular=self.popular,
            embedding=self._embedding,
            changed=self._pinned.embed,
            forget=self._forget,
        )

    @cached_property
    def audit(self) -> Audit:
        """Who did what, when and why."""
        from agentic_flywheel.auditing import Audit
        from agentic_flywheel.signing import Signer

        return Audit(self._store, Signer(self.settings), self._redacting)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Who may call the service over HTTP."""
        from agentic_flywheel.access import ApiKeys

        return ApiKeys(self._store, self.audit, self.settings.text("tenant"))

    @cached_property
    def encryption(self) -> Encryption:
        """The keys that values are sealed with: which there are, and sealing everything with the current one."""
        from agentic_flywheel.encryption import Encryption

        return Encryption(self._store)

    @cached_property
    def repeats(self) -> Repeats:
        """Requests that may be sent again and are done once; for interfaces over HTTP."""
        from agentic_flywheel.repeats import Repeats

        return Repeats(self._store)

    @cached_property
    def privacy(self) -> PrivacyTests:
        """What would be kept of a text, and why."""
        from agentic_flywheel.privacy_tests import PrivacyTests

        return PrivacyTests(self.registry, self._redacting, self._known_policies, self._planner.user)

    @cached_property
    def traces(self) -> Traces:
        """Answered questions, one by one, and what people think of them."""
        from agentic_flywheel.traces import Traces

        return Traces(self.registry, self._store, self._behind, self.history, self._redacting, self._tracing)

    @cached_property
    def popular(self) -> Popular:
        """What is asked often, and what is asked next; loaded when it is looked at."""
        from agentic_flywheel.insight.popular import Popular

        return Popular(self.settings, self.registry, self._store, self.lifetimes.of, self._behind.flush)

    @cached_property
    def warming(self) -> Warming:
        """Questions that are asked before anybody asks them; loaded when it is used."""
        from agentic_flywheel.insight.warming import warming_of
        from agentic_flywheel.warmer import Warmer

        calls = (self._asking, self._calling, self._flights, self._admission, self._learning, self._near)
        warmer = Warmer(self.settings, self._planner, *calls)
        return warming_of(
            self.settings,
            self._redacting,
            self.registry,
            self._store,
            warmer,
            popular=lambda: self.popular,
            faq=lambda: self.faq,
        )

    def keep_house(self) -> None:
        """Begin what a program that runs on does by itself, on a schedule: warm-ups (settings `warm.*`).

        Servers call it when they start; else it begins with a question. Without effect where `background` is False, or
        the second time.
        """
        if self._housekeeping is None or self._schedule is not None:
            return
        from agentic_flywheel.insight.warm_schedule import WarmSchedule

        self._schedule = WarmSchedule(
            self.settings, self.registry, self._store, self._clients, self._watch, lambda: self.warming
        )
        self._schedule.begin()

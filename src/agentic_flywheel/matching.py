"""Looks for a stored question that a new one may be taken for: vector, neighbours, guards, cut.

Invariant: an asker never waits for this longer than `similar.patience_seconds` and never hears of its failures: what
cannot be found out in time is asked of the flow. A question that is answered exactly never comes here. What may be
served is decided by `policy.similarity` alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from agentic_flywheel.errors import EmbedderError, StoreError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.likeness import Considered, Cut, Likeness, SimilarMode, SimilarPolicy, SimilarState, Terms
from agentic_flywheel.model import Candidate, Entry, Reason
from agentic_flywheel.pinned import Pinned
from agentic_flywheel.policy.decision import Ask, Decision, Facts, Refuse
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.policy.similarity.budget import WINDOW, Evidence, Standing, cuts_of
from agentic_flywheel.policy.similarity.choice import Choice, Prospect, choose, pair_of, partition_of
from agentic_flywheel.policy.similarity.guards import weigh
from agentic_flywheel.policy.similarity.language import language_of
from agentic_flywheel.policy.similarity.probes import error_of, judged
from agentic_flywheel.policy.similarity.profiles import floors_of, terms_of
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.search.protocols import Embedder, Recall
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.gone import is_gone
from agentic_flywheel.store.keys import scope_of_key
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.store import Store

#: How many neighbours are weighed.
NEIGHBOURS = 5
#: Programs that end after one question have nobody to load the model for later.
_LOAD_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What was found among similar questions. `why` says why nothing was looked for, "" where something was."""

    why: str = ""
    vector: Any = None
    partition: str = ""
    embedder: str = ""
    state: SimilarState | None = None
    terms: Terms | None = None
    cuts: Mapping[Standing, Cut] = {}
    choice: Choice = Choice()

    def candidates(self, scope: str) -> tuple[Candidate, ...]:
        """What was weighed, as answers show it."""
        return tuple(_candidate(considered, scope) for considered in self.choice.considered)


class Matching:
    """The similar questions of one tenant. Owns neither the embedding nor the store."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        embedding: Embedding,
        recall: Callable[[Embedder], Recall],
        pinned: Pinned,
        *,
        waits_for_model: bool,
    ) -> None:
        self._settings = settings
        self._store = store
        self._embedding = embedding
        self._make_recall = recall
        self._pinned = pinned
        self._recall: Recall | None = None
        self._patience = settings.number("similar.patience_seconds")
        self._load_seconds = _LOAD_SECONDS if waits_for_model else 0.0
        self._off = settings.text("similar.mode") == SimilarMode.OFF
        #: Told which flow's similar questions are looked for, and its generation; set where vectors are caught up with.
        self.catch_up: Callable[[str, int], None] | None = None
        self._cuts: dict[str, tuple[int, Terms, Mapping[Standing, Cut]]] = {}

    def unfit(self, plan: Plan) -> str:
        """Why a question is not compared with similar ones, "" if it is."""
        spec = plan.spec
        if spec.similar.mode is SimilarMode.OFF or (spec.similar.mode is None and self._off):
            return "similar questions share no answers here (similar.mode is off)"
        if self._embedding.state == "off":
            return self._embedding.why
        if spec.acts:
            return f"the flow {spec.key!r} acts on the world"
        if plan.enrichment.exchanges:
            return "earlier turns are part of this question"
        if not plan.wanted or plan.scope is Scope.SESSION:
            return "its answer is kept for nobody else"
        return ""

    def concerns(self, asked: Asked, plan: Plan, facts: Facts, decision: Decision) -> bool:
        """Whether a question that was not answered exactly is to be compared with similar ones."""
        return (
            isinstance(decision, Ask | Refuse)
            and not (asked.directives.no_cache or asked.directives.no_store)
            and facts.verified
            and not self.unfit(plan)
        )

    async def look(self, asked: Asked, plan: Plan, facts: Facts) -> Match:
        """Compare a question with the stored ones; never raises, never takes long."""
        if not await self._embedding.ready(self._load_seconds):
            return Match(why=self._embedding.why)
        try:
            async with asyncio.timeout(self._patience):
                return await self.weigh(asked, plan, facts)
        except TimeoutError:
            return Match(why=f"similar questions were not found within {self._patience * 1000:.0f} ms")
        except (StoreError, EmbedderError) as error:
            _log.warning("not compared with similar questions: %s", error)
            return Match(why=f"not compared with similar questions: {error.outline}")

    async def weigh(
        self, asked: Asked, plan: Plan, facts: Facts, *, count: int = NEIGHBOURS, floor: float | None = None
    ) -> Match:
        """As `look`, taking the time that it takes; `floor` is the least similarity that is looked at (None: a little
        below what could be served). Raises `StoreError` and `EmbedderError`."""
        embedder = self._embedding.embedder
        recall = self._recall_of(embedder)
        partition = partition_of(
            scope=plan.wanted[0].scope,
            owner=asked.user if plan.scope is Scope.USER else "",
            flow=plan.spec.key,
            fingerprint=facts.fingerprint,
            generation=facts.generation,
            identity=plan.identity,
            language=language_of(asked.text),
        )
        refreshing = asyncio.ensure_future(recall.refresh(partition))
        try:
            vector = await self._embedding.embed(asked.text)
            await refreshing
        finally:
            await _ended(refreshing)
        if floor is None:  # what is so near that it says something of the farthest that could be served
            floor = min(floors_of(self.terms_of(plan.spec, None), self.calibration).values()) - WINDOW
        floor = max(0.0, floor)
        approved = await self._pinned.nearest(plan, facts, asked.text, vector, count=count, floor=floor)
        taken = {near.key for near in approved}  # what a person approved comes before what was stored
        neighbours = [
            near
            for near in await recall.nearest(partition, vector, count=count, floor=floor, now=facts.now)
            if near.key not in taken
        ]
        found = [near.key for near in neighbours] + [near.key for near in approved]
        pairs = [pair_of(plan.normal, key) for key in found]
        read = self._store.similar.read_commands(plan.spec.key, embedder.fingerprint, pairs)
        gets: list[Command] = [("GET", neighbour.key) for neighbour in neighbours]
        named = self._store.vectors.answer_commands(
            embedder.fingerprint, partition, [neighbour.key for neighbour in neighbours]
        )
        forgotten = self._store.flows.gone_command(plan.spec.key)
        *replies, gone = await self._store.link.run(*read, *gets, *named, forgotten)
        state = self._store.similar.state_of(replies[: len(read)])
        terms = self.terms_of(plan.spec, state)
        cuts = self.cuts(plan.spec.key, state, terms)
        prospects = []
        values, answers = replies[len(read) : len(read) + len(gets)], replies[len(read) + len(gets) :]
        if self.catch_up is not None:
            self.catch_up(plan.spec.key, facts.generation)
        known = state.blocked[: len(neighbours)]
        for neighbour, raw, answer, blocked in zip(neighbours, values, answers, known, strict=True):
            entry = self._store.entries.looked(raw).entry
            if entry is not None and gone and is_gone(entry, gone):
                entry = None  # it was put back
            if entry is None:
                recall.drop(partition, neighbour.key)
            guards = weigh(asked.text, entry.asked or entry.question, terms.profile) if entry else ()
            prospects.append(
                Prospect(
                    key=neighbour.key,
                    similarity=neighbour.similarity,
                    entry=entry,
                    answer=answer.decode("utf-8", "replace") if answer else "",
                    guards=guards,
                    blocked=blocked,
                )
            )
        for near, blocked in zip(approved, state.blocked[len(neighbours) :], strict=True):
            guards = weigh(asked.text, near.entry.asked, terms.profile)
            prospects.append(
                Prospect(
                    key=near.key,
                    similarity=near.similarity,
                    entry=near.entry,
                    answer=near.answer,
                    guards=guards,
                    blocked=blocked,
                )
            )
        prospects.sort(key=lambda prospect: (-prospect.similarity, prospect.key))
        return Match(
            vector=vector,
            partition=partition,
            embedder=embedder.fingerprint,
            state=state,
            terms=terms,
            cuts=cuts,
            choice=choose(prospects, facts=facts, wanted=plan.wanted[0], terms=terms, cuts=cuts),
        )

    @property
    def fingerprint(self) -> str:
        """The embedder in use; "" where there is none (yet)."""
        return self._embedding.embedder.fingerprint if self._embedding.state == "ready" else ""

    @property
    def calibration(self) -> str:
        """The floors that were measured for the embedder in use; "" where there are none."""
        return self._embedding.embedder.calibration if self._embedding.state == "ready" else ""

    def terms_of(self, spec: FlowSpec, state: SimilarState | None) -> Terms:
        """What holds for a flow now, people's decisions included."""
        decided = None
        if state is not None:
            decided = SimilarPolicy(mode=state.mode, profile=state.profile, max_error=state.max_error)
        return terms_of(self._settings.values, registry=spec.similar, overrides=decided, calibration=self.calibration)

    def cuts(self, flow: str, state: SimilarState, terms: Terms) -> Mapping[Standing, Cut]:
        """The cuts that follow from all evidence, by standing; thought through once for each version of it."""
        kept = self._cuts.get(flow)
        if kept is None or kept[:2] != (state.version, terms):
            floors = floors_of(terms, self.calibration)
            comparer = error_of(state.evidence) if judged(state.evidence) else None
            kept = (state.version, terms, cuts_of(Evidence.read(state.evidence), terms, floors, comparer))
            self._cuts[flow] = kept
        return kept[2]

    def keep_commands(self, match: Match, key: str, entry: Entry) -> list[Command]:
        """What to send to keep a question's vector as long as its answer; nothing where it has none."""
        if match.vector is None:
            return []
        likeness = _likeness(match, key, entry)
        return self._store.vectors.put_commands(
            match.embedder, match.partition, key, likeness.vector, seconds=entry.ttl_seconds, now=entry.created_at
        )

    def kept(self, match: Match, key: str, entry: Entry) -> None:
        """A question was stored with its vector: this process finds it from now on."""
        if match.vector is not None:
            self._recall_of(self._embedding.embedder).note(match.partition, _likeness(match, key, entry))

    async def aclose(self) -> None:
        """End what is going on. Safe to call twice."""
        if self._recall is not None:
            await self._recall.aclose()

    async def place(self, key: str, entry: Entry) -> Match:
        """A stored question's vector and partition, made anew. Raises `EmbedderError`."""
        vector = await self._embedding.embed(entry.asked or entry.question)
        return Match(
            vector=vector, partition=partition_of_entry(key, entry), embedder=self._embedding.embedder.fingerprint
        )

    async def forget(self, key: str, entry: Entry) -> int:
        """Remove the vector of a stored question; how many there were. Raises `StoreError`."""
        if self._embedding.state != "ready":
            return 0  # whoever finds it sees that its answer is gone
        embedder, partition = self._embedding.embedder, partition_of_entry(key, entry)
        self._recall_of(embedder).drop(partition, key)
        return await self._store.vectors.remove(embedder.fingerprint, partition, [key])

    def _recall_of(self, embedder: Embedder) -> Recall:
        if self._recall is None:
            self._recall = self._make_recall(embedder)
        return self._recall


def partition_of_entry(key: str, entry: Entry) -> str:
    """Where the neighbours of a stored question are."""
    scope = scope_of_key(key)
    return partition_of(
        scope=scope,
        owner=entry.user if scope == Scope.USER else "",
        flow=entry.flow,
        fingerprint=entry.fingerprint,
        generation=entry.generation,
        identity=entry.identity,
        language=language_of(entry.asked or entry.question),
    )


def _likeness(match: Match, key: str, entry: Entry) -> Likeness:
    return Likeness(key, match.vector.astype("<f2").tobytes(), entry.created_at + entry.ttl_seconds)


def _candidate(considered: Considered, scope: str) -> Candidate:
    return Candidate(
        key=considered.key,
        scope=scope,
        verdict=Reason.SIMILAR if considered.served else Reason.NOT_ALIKE,
        age_seconds=considered.age_seconds,
        question=considered.question,
        similarity=considered.similarity,
        refusals=() if considered.served else considered.refusals or (considered.why,),
    )


async def _ended(task: asyncio.Future[None]) -> None:
    """See a task to its end, whatever it was, so that none is left behind."""
    task.cancel()
    with suppress(asyncio.CancelledError, StoreError):
        await task

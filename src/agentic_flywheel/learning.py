"""What answers teach about similar questions: labels from misses, audits of hits, and the cut that follows.

Invariant: nothing here is on an asker's way: it happens after the answer, and its failures cost a label at most. A
wrong hit that was found out tightens the cut in the same step in which it is recorded, for every process, and its two
questions are never taken for each other again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.calling import Calling
from agentic_flywheel.comparing import Comparer, Said, Verdict
from agentic_flywheel.errors import EmbedderError, FlowError, StoreError
from agentic_flywheel.flights import Flights, Landed
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.likeness import Cut, CutChange, SimilarState
from agentic_flywheel.matching import Match, Matching
from agentic_flywheel.model import Entry, Reason
from agentic_flywheel.policy.decision import Ask
from agentic_flywheel.policy.similarity.budget import WINDOW, Label, LabelSource, increments, loosest
from agentic_flywheel.policy.similarity.choice import Prospect, name_in, pair_of, same_answer
from agentic_flywheel.policy.similarity.probes import Probe, label_increments, probe_increments, probe_of
from agentic_flywheel.steps import Step
from agentic_flywheel.store.store import Store

#: Who loses a race for the cut looks again, so often at most; the winner's cut rests on nearly the same evidence.
_ATTEMPTS = 5

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Tracing

_log = logging.getLogger(__name__)


class Learning:
    """Gathers the evidence of one tenant. `draw` gives numbers from 0 to 1 that decide what is audited."""

    def __init__(
        self,
        store: Store,
        matching: Matching,
        comparer: Comparer,
        calling: Calling,
        flights: Flights,
        behind: WriteBehind,
        *,
        audits: bool,
        draw: Callable[[], float] = random.random,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._store = store
        self._matching = matching
        self._comparer = comparer
        self._calling = calling
        self._flights = flights
        self._behind = behind
        self._audits = audits
        self._draw = draw
        #: The last answer of each flow that had no neighbour, with its question's vector.
        self._others: dict[str, tuple[Any, Said]] = {}

    def after_call(self, step: Step, entry: Entry) -> None:
        """The flow answered, and its answer was stored: keep its vector, and label its nearest neighbour."""
        match = step.match
        if match is None or match.vector is None:
            if not self._matching.unfit(step.plan):
                self._flights.go_on(self._keep(step.plan.wanted[0].key, entry))
        elif match.choice.nearest is not None:
            self._flights.go_on(self._label(step, match, match.choice.nearest, entry, LabelSource.MISS))
        else:
            self._far_apart(step, match, entry)

    async def after_warming(self, step: Step, entry: Entry) -> None:
        """An answer is stored that nobody asked for: make it findable by its meaning. No label comes of it, since
        labels are to be drawn from what people ask."""
        if not self._matching.unfit(step.plan):
            await self._keep(step.plan.wanted[0].key, entry)

    def after_similar(self, step: Step) -> None:
        """A similar question's answer was served: now and then, ask the flow as well."""
        match = step.match
        if match is None or match.choice.served is None or not match.choice.served.comparable:
            return
        if self._audits and match.terms is not None and self._draw() < match.terms.audit_share:
            self._flights.go_on(self._audit(step, match))

    def after_refresh(self, step: Step, landed: Landed) -> None:
        """A stored answer was asked for anew: what its flow says now tells how well answers can be compared."""
        before = next((found.entry for found in step.read.found if found.wanted is step.plan.wanted[0]), None)
        if landed.own and landed.stored and before is not None and not self._matching.unfit(step.plan):
            self._flights.go_on(self._refreshed(step, before, landed.entry))

    def _far_apart(self, step: Step, match: Match, entry: Entry) -> None:
        """Now and then, try the comparer on two answers that should differ: their questions are far apart."""
        spec, said = step.plan.spec, _said(entry)
        before = self._others.get(spec.key)
        self._others[spec.key] = (match.vector, said)
        if before is None or match.terms is None or self._draw() >= match.terms.audit_share:
            return
        if len(before[0]) == len(match.vector) and probe_of(float(before[0] @ match.vector)) is Probe.FAR:
            self._flights.go_on(self.probe(spec, Probe.FAR, before[1], said))

    async def _keep(self, key: str, entry: Entry) -> None:
        """Make an entry findable by its meaning after all."""
        try:
            match = await self._matching.place(key, entry)
            await self._store.link.run(*self._matching.keep_commands(match, key, entry), slow=True)
        except (StoreError, EmbedderError) as error:
            _log.info("an answer is found by its exact words alone: %s", error)
        else:
            self._matching.kept(match, key, entry)

    async def _audit(self, step: Step, match: Match) -> None:
        served = match.choice.served
        if served is None:
            return
        # The flow's own answer is stored under the question's own words: the next asker of these words gets it.
        kept = msgspec.structs.replace(step, decision=Ask(Reason.NOT_STORED))
        flight = self._flights.launch(None, lambda flight: self._calling.fly(kept, flight, shared=None, audit=True))
        try:
            landed = await flight.landed()
        except FlowError as error:
            _log.info("a similar hit could not be checked: %s", error)
            return
        if landed.complete:
            await self._label(step, match, served, landed.entry, LabelSource.AUDIT)

    async def _label(self, step: Step, match: Match, other: Prospect, entry: Entry, source: LabelSource) -> None:
        """Compare the flow's answer with the neighbours', and record what that shows of the one in question."""
        spec, at = step.plan.spec, step.asked.at
        verdicts = await self._verdicts(match, other, entry)
        verdict = verdicts[other.key]
        try:
            await self._name(match, step.plan.wanted[0].key, verdicts)
            told = {True: "right", False: "wrong", None: "unjudged"}[verdict.same]
            self._behind.count(spec.key, at, **{f"similar_{source.value}_{told}": 1})
            # Where the words themselves say so, no comparer can have erred.
            certain = verdict.similarity == 1.0 or (other.entry is not None and other.entry.answer == entry.answer)
            fields = increments(Label(other.similarity, verdict.same, source, match.choice.standing, certain))
            if verdict.same is not False and not certain:
                fields |= label_increments(self._comparer.fingerprint)
            if source is LabelSource.AUDIT and self._tracing is not None and verdict.same is not None:
                self._tracing.audited(step, right=verdict.same)
            if source is LabelSource.AUDIT and verdict.same is False:
                for pair in pairs_of(step.plan.normal, step.plan.wanted[0].key, other):
                    await self._store.similar.block(spec.key, pair)
            await self.record(spec, match.embedder, fields)
        except StoreError as error:
            _log.warning("a label of flow %s was not recorded: %s", spec.key, error)

    async def _verdicts(self, match: Match, other: Prospect, entry: Entry) -> dict[str, Verdict]:
        """What the comparer says of the new answer and those of the neighbours, by their entries' keys. Of neighbours
        that have one answer, one is compared; those far away are left alone."""
        verdicts: dict[str, Verdict] = {}
        near = [
            one
            for one in match.choice.fit
            if one is not other and one.comparable and abs(one.similarity - other.similarity) < WINDOW
        ]
        judged: list[Prospect] = []
        for one in (other, *near):
            alike = next((known for known in judged if same_answer(known, one)), None)
            if alike is not None:
                verdicts[one.key] = verdicts[alike.key]
            elif one.entry is not None:
                verdicts[one.key] = await self._comparer.compare(_said(entry), _said(one.entry))
                judged.append(one)
        return verdicts

    async def _name(self, match: Match, key: str, verdicts: Mapping[str, Verdict]) -> None:
        """Note which neighbour's answer the new one is the same as: the next question knows by it how they stand."""
        for one in match.choice.fit:
            if (known := verdicts.get(one.key)) is not None and known.same:
                name = one.answer or name_in(one.key)
                await self._store.vectors.name_answer(match.embedder, match.partition, key, name)
                return

    async def _refreshed(self, step: Step, before: Entry, after: Entry) -> None:
        """Two answers of one flow to the same words should say the same: where they do not, the comparer errs or the
        knowledge moved on."""
        spec = step.plan.spec
        verdict = await self.probe(spec, Probe.REFRESH, _said(before), _said(after))
        if verdict.same is not None:
            told = "same" if verdict.same else "different"
            self._behind.count(spec.key, step.asked.at, **{f"refresh_{told}": 1})

    async def probe(self, spec: FlowSpec, probe: Probe, one: Said, other: Said) -> Verdict:
        """Compare two answers of which it is known whether they say the same, and record how the comparer did."""
        verdict = await self._comparer.compare(one, other)
        if embedder := self._matching.fingerprint:
            try:
                fields = probe_increments(self._comparer.fingerprint, probe, verdict.same)
                await self._store.similar.record(spec.key, embedder, fields)
            except StoreError as error:
                _log.warning("a check of the comparer was not recorded: %s", error)
        return verdict

    async def record(self, spec: FlowSpec, embedder: str, fields: dict[str, int]) -> Cut:
        """Add to a flow's evidence, and let the cut follow; the cut in force afterwards. Raises `StoreError`."""
        return await self._follow(spec, embedder, await self._store.similar.record(spec.key, embedder, fields))

    async def follow(self, spec: FlowSpec, embedder: str) -> Cut:
        """Let the cut follow from what is known and decided now. Raises `StoreError`."""
        return await self._follow(spec, embedder, await self._store.similar.state(spec.key, embedder))

    async def _follow(self, spec: FlowSpec, embedder: str, state: SimilarState) -> Cut:
        similar = self._store.similar
        for _ in range(_ATTEMPTS):
            cuts = self._matching.cuts(spec.key, state, self._matching.terms_of(spec, state))
            for standing, cut in cuts.items():
                before = state.cuts.get(standing.value)
                if cut.value == before:
                    continue
                change = CutChange(
                    at=time.time(),
                    old=before,
                    new=cut.value,
                    why=cut.why,
                    right=cut.right,
                    wrong=cut.wrong,
                    bound=cut.bound,
                    embedder=embedder,
                    standing=standing.value,
                )
                if not await similar.set_cut(spec.key, embedder, version=state.version, cut=cut.value, change=change):
                    break
                _log.info("flow %s: a cut of similar questions is %s now: %s", spec.key, cut.value, cut.why)
            else:
                return loosest(cuts)
            state = await similar.state(spec.key, embedder)
        return loosest(cuts)


def _said(entry: Entry) -> Said:
    return Said(entry.asked or entry.question, entry.answer)


def pairs_of(normal: str, key: str, other: Prospect) -> tuple[str, ...]:
    """The names under which a question, kept under `key`, and a stored one are never merged again, either way."""
    back = () if other.entry is None else (pair_of(other.entry.question, key),)
    return (pair_of(normal, other.key), *back)

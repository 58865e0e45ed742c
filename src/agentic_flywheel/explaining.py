"""The whole decision of a question that is not asked: where it would go, what is stored, what stands in the way.

Invariant: nothing is asked of a flow, served or written; what is shown is what `Asking` would see at this moment.
"""

from __future__ import annotations

from agentic_flywheel.asking import Asking
from agentic_flywheel.curated import Approved
from agentic_flywheel.errors import EmbedderError, StoreError
from agentic_flywheel.likeness import Cut, Explanation
from agentic_flywheel.matching import Match, Matching
from agentic_flywheel.model import Candidate, Origin, Outcome, Reason
from agentic_flywheel.policy.decision import Ask, Bypass, Decision, Refuse, Serve, ServeStale
from agentic_flywheel.policy.privacy import no_cache, no_history
from agentic_flywheel.policy.similarity.budget import loosest
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.steps import Step

_WAIT_SECONDS = 30.0


class Explaining:
    """Explains the decisions of one tenant."""

    def __init__(self, asking: Asking, matching: Matching, embedding: Embedding) -> None:
        self._asking = asking
        self._matching = matching
        self._embedding = embedding

    async def explain(self, asked: Asked, *, count: int) -> Explanation:
        """What would come of a question. Raises `UnknownFlow` and `UnknownSession`."""
        step = await self._asking.look(asked)
        match, note = await self._match(step, count)
        plan = step.plan
        would = step
        if self._matching.concerns(asked, plan, step.facts, step.decision) and match.choice.serve is not None:
            would = step.with_match(match)
        outcome, told = _told(would.decision, step)
        notes = [note or match.why, *policy_notes(plan), *plan.kept.warnings]
        if step.read.error is not None:
            notes.append(f"Redis could not be asked: {step.read.error.outline}")
        return Explanation(
            question=asked.text,
            flow=plan.spec.key,
            route=plan.route.how,
            scope=plan.scope.value if plan.scope else "",
            key=plan.wanted[0].key if plan.wanted else "",
            fingerprint=step.facts.fingerprint,
            decision=told,
            outcome=outcome,
            reason=would.reason.value,
            context=plan.enrichment.turns,
            exact=tuple(_exact(candidate) for candidate in step.considered),
            similar=match.choice.considered,
            terms=match.terms,
            cut=_cut(match),
            partition=match.partition,
            embedder=self._embedding.embedder.name if self._embedding.state == "ready" else "",
            notes=tuple(note for note in notes if note),
            source=_source(would.decision),
            faq=_faq(would.decision),
        )

    async def _match(self, step: Step, count: int) -> tuple[Match, str]:
        """The nearest stored questions, however far, and why there are none."""
        if unfit := self._matching.unfit(step.plan):
            return Match(why=unfit), ""
        if step.read.error is not None:
            return Match(), ""
        if not await self._embedding.ready(_WAIT_SECONDS):
            return Match(why=self._embedding.why), ""
        try:
            return await self._matching.weigh(step.asked, step.plan, step.facts, count=count, floor=0.0), ""
        except (StoreError, EmbedderError) as error:
            return Match(), f"similar questions could not be looked for: {error.outline}"


def policy_notes(plan: Plan) -> list[str]:
    """What privacy policies forbid for a question, and whose they are."""
    found = [note for note in (no_history(plan.privacy), no_cache(plan.privacy)) if note]
    if plan.forbidden and plan.privacy.cache:
        found.append("only answers of the whole team are stored where no history is kept")
    return found


def _cut(match: Match) -> Cut | None:
    """The cut that held for what is served, or for the nearest; without any, the loosest."""
    if not match.cuts:
        return None
    return match.cuts[match.choice.standing] if match.choice.standing else loosest(match.cuts)


def _faq(decision: Decision) -> str:
    """The entry of the FAQ that would answer, "" where none would."""
    if isinstance(decision, Serve | ServeStale) and isinstance(decision.entry, Approved):
        return decision.entry.faq
    return ""


def _source(decision: Decision) -> str:
    """Whose words would be given, "" where none would."""
    if isinstance(decision, Serve | ServeStale):
        return (Origin.FAQ if isinstance(decision.entry, Approved) else Origin.CACHE).value
    return "" if isinstance(decision, Refuse) else Origin.FLOW.value


def _told(decision: Decision, step: Step) -> tuple[str, str]:
    """The outcome that a decision leads to, and what it means, as a sentence."""
    if isinstance(decision, Serve):
        if decision.reason is Reason.SIMILAR:
            asked = decision.entry.asked or decision.entry.question
            whose = "approved answer of the FAQ" if isinstance(decision.entry, Approved) else "answer"
            return Outcome.SIMILAR.value, f"serve the {whose} to {asked!r}"
        if decision.reason is Reason.CURATED:
            return Outcome.HIT.value, "serve the approved answer of the FAQ to this very question"
        return Outcome.HIT.value, "serve the stored answer to this very question"
    if isinstance(decision, ServeStale):
        return Outcome.STALE.value, "serve the stored answer although it may be out of date"
    if isinstance(decision, Refuse):
        return "refused", "refuse: a stored answer was wanted, and none may be served"
    if isinstance(decision, Bypass) or not step.keeps:
        return Outcome.BYPASS.value, "ask the flow, and keep no answer for others"
    assert isinstance(decision, Ask)
    return Outcome.MISS.value, "ask the flow, and keep its answer"


def _exact(candidate: Candidate) -> str:
    age = "" if candidate.age_seconds is None else f", {candidate.age_seconds:.0f} s old"
    return f"{candidate.scope}: {candidate.verdict.value.replace('_', ' ')}{age} ({candidate.key})"

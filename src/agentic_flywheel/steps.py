"""One question between the decision and the answer: everything that is known of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from agentic_flywheel.flights import Landed
from agentic_flywheel.matching import Match
from agentic_flywheel.model import Answer, Candidate, Reason, Turn, VerbatimAnswer
from agentic_flywheel.policy.decision import Ask, Decision, Facts, Serve, ServeStale
from agentic_flywheel.policy.identity import question_hash
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.recollection import Read
from agentic_flywheel.store.keys import flight_name, team_question
from agentic_flywheel.store.link import Patience


class Step(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A question that has been planned, looked up and decided."""

    asked: Asked
    plan: Plan
    read: Read
    facts: Facts
    decision: Decision
    considered: tuple[Candidate, ...]
    patience: Patience
    match: Match | None = None  # what was found among similar questions; None where nothing was looked for

    def with_match(self, match: Match) -> Step:
        """The same question compared with similar ones; one of them may answer it."""
        candidates = match.candidates(self.plan.wanted[0].scope)
        return msgspec.structs.replace(
            self,
            match=match,
            decision=match.choice.serve or self.decision,
            considered=(*self.considered, *candidates),
        )

    @property
    def keeps(self) -> bool:
        """Whether the flow's answer is to be stored."""
        return isinstance(self.decision, Ask) and self.read.error is None

    @property
    def reason(self) -> Reason:
        """Why the question is not answered from the store, or is."""
        return Reason.STORE_UNAVAILABLE if self.read.error else self.decision.reason


def flight_of(step: Step) -> str:
    """The name of the call that would answer the question for everybody who asks the same."""
    facts = step.facts
    return flight_name(step.plan.wanted[0].key, f"{facts.fingerprint} {facts.generation}")


def turn_of(step: Step, answer: Answer) -> Turn:
    """The turn that is to be remembered of a question and its answer, without what may not be kept."""
    asked, plan, turns = step.asked, step.plan, step.read.recalled.turns
    turn = Turn(
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
        parent=turns[-1].id if turns else "",
        context=answer.context,
        user=asked.user,
        private=plan.private(asked.directives),
        sources=answer.sources,
        intent=asked.intent or "",
        similarity=answer.similarity,
        matched_question=answer.matched_question,
        faq=answer.faq,
        counts_as=_counts_as(step, answer),
        own=plan.enrichment.own and not _by_itself(step),
    )
    return plan.kept.turn(turn)


def _by_itself(step: Step) -> bool:
    """Whether the question is answered by its words alone, though earlier turns went before it."""
    return isinstance(step.decision, Serve | ServeStale) and step.decision.wanted.first_only


def _counts_as(step: Step, answer: Answer) -> str:
    """The question that a turn counts for which was answered while Redis was away; "" where it counts for none, or its
    key says so.

    As for other turns, the answer would have been kept for the whole team under its words alone. And no session was
    named, or none of its turns was to count: what could not be read of one may have been private.
    """
    asked, plan = step.asked, step.plan
    alone = not asked.resumed or asked.directives.standalone
    if step.read.error is None or answer.key or not alone or plan.scope is not Scope.TEAM:
        return ""
    name = team_question(plan.wanted[0].key) if plan.wanted and isinstance(step.decision, Ask) else ""
    return name if name == question_hash(plan.normal) else ""


def answer_of(step: Step, **facts: Any) -> Answer:
    """An answer with what follows from the question and its plan."""
    asked, plan = step.asked, step.plan
    kind = VerbatimAnswer if facts.get("wire") else Answer
    if kind is Answer:
        facts.pop("wire", None)
    return kind(
        flow=plan.spec.key,
        flow_id=plan.spec.id,
        flow_name=plan.spec.name or plan.spec.key,
        session_id=asked.session,
        turn_id=asked.turn,
        trace_id=asked.trace,
        question=asked.text,
        context=plan.enrichment.turn_ids,
        enrichment=plan.enrichment.turns,
        route=plan.route,
        config=plan.config,
        considered=step.considered,
        **facts,
    )


def warnings_of(step: Step, landed: Landed | None = None) -> tuple[str, ...]:
    error, damaged = step.read.error, step.read.recalled.damaged
    told = step.plan.kept.warnings
    if error is None and not damaged and landed is None and not told:
        return ()
    warnings = list(told)
    if error is not None:
        warnings.append(f"Answered without memory: {error.outline}.")
    if damaged:
        warnings.append(f"{damaged} earlier turn(s) of this session could not be read.")
    if landed is not None and landed.withheld is Reason.REDACTED and not step.plan.kept.unkeyed:
        warnings.append("The answer holds personal data: it is kept without, and for nobody else.")
    elif landed is not None and not landed.complete:
        warnings.append("Not stored for others: the flow gave no full answer.")
    elif landed is not None and step.keeps and not (landed.stored or landed.withheld):
        warnings.append("The answer could not be stored for others.")
    return tuple(warnings)

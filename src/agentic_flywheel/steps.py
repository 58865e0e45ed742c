"""One question between the decision and the answer: everything that is known of it."""

from __future__ import annotations

import msgspec

from agentic_flywheel.model import Candidate, Reason
from agentic_flywheel.policy.decision import Ask, Decision, Facts
from agentic_flywheel.questions import Asked, Plan
from agentic_flywheel.recollection import Read


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A question that has been planned, looked up and decided."""

    asked: Asked
    plan: Plan
    read: Read
    facts: Facts
    decision: Decision
    considered: tuple[Candidate, ...]

    @property
    def keeps(self) -> bool:
        """Whether the flow's answer is to be stored."""
        return isinstance(self.decision, Ask) and self.read.error is None

    @property
    def reason(self) -> Reason:
        """Why the question is not answered from the store, or is."""
        return Reason.STORE_UNAVAILABLE if self.read.error else self.decision.reason

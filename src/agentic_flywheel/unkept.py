"""What is told of a conversation that a privacy policy lets nobody keep.

Invariant: every answer that leaves no turn for that reason says so; that its conversation does not go on is said once
in each session, as far as this process knows.
"""

from __future__ import annotations

from collections import OrderedDict

from agentic_flywheel.policy.privacy import no_history
from agentic_flywheel.steps import Step

#: Sessions that are remembered to have been told, by id.
_MOST = 4096
_BY_ITSELF = "each question here is asked by itself, without the ones before it"


class Unkept:
    """Tells of what is not kept; one for each process."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, None] = OrderedDict()

    def warning(self, step: Step) -> str:
        """The sentence for the answer to a question of which no turn is kept by policy; "" where one is."""
        asked, privacy = step.asked, step.plan.privacy
        why = no_history(privacy)
        if not why or asked.directives.no_store:
            return ""
        why = why[0].upper() + why[1:]
        if not asked.resumed or asked.session in self._told:
            return f"{why}."
        self._told[asked.session] = None
        if len(self._told) > _MOST:
            self._told.popitem(last=False)
        return f"{why}; {_BY_ITSELF}."

"""What may be asked before anybody asks it.

Invariant: a question is warmed only if its answer would be stored for the whole team, by the same rules as a person's.
What leans on earlier turns, or on who asks, would be an answer to another question.
"""

from __future__ import annotations

from agentic_flywheel.model import Sharing
from agentic_flywheel.policy.sharing import leaning, personal
from agentic_flywheel.warmups import NotWarmed


def refusal(
    question: str,
    *,
    sharing: Sharing,
    acts: bool = False,
    calls_per_minute: int | None = None,
    follow_up: bool = False,
    standalone: bool = False,
    kept: bool = True,
    withdrawn: bool = False,
    holds: str = "",
) -> tuple[NotWarmed, str] | None:
    """Why a question is not warmed, as a word and as a sentence; None where it may be.

    `follow_up` says that it is asked with its earlier turns, `standalone` that somebody vouches it needs none;
    `kept` is False where a privacy policy lets no answer be stored. `holds` names the personal data that was found in
    it.

    >>> refusal("What about mobile?", sharing=Sharing.TEAM)[0].value
    'follow_up'
    >>> refusal("What about mobile?", sharing=Sharing.TEAM, follow_up=True) is None
    True
    """
    if acts:
        return NotWarmed.ACTS, "the flow acts on the world"
    if sharing is not Sharing.TEAM:
        return NotWarmed.NOT_SHARED, f"the flow shares its answers with {_WITH[sharing]}"
    if not kept:
        return NotWarmed.POLICY, "a privacy policy lets none of its answers be stored"
    if calls_per_minute == 1:
        return NotWarmed.NO_ROOM, "the flow takes one call a minute, and people may need it"
    if holds:
        return NotWarmed.PERSONAL, f"there is {holds} in it"
    if personal(question):
        return NotWarmed.PERSONAL, "it speaks of the asker's own things"
    if not (follow_up or standalone) and (tie := leaning(question)):
        return NotWarmed.FOLLOW_UP, f"it may lean on an earlier question ({tie}); give its path, or say standalone"
    if withdrawn:
        return NotWarmed.WITHDRAWN, "its answer was called private"
    return None


_WITH = {Sharing.USER: "one user", Sharing.SESSION: "one session", Sharing.NONE: "nobody", Sharing.TEAM: "the team"}

"""One turn of every kind, and everybody who may look for it: what each may see."""

from __future__ import annotations

import itertools

from agentic_flywheel.findings import Audience, HistoryDoc, Sight
from agentic_flywheel.model import Sharing
from agentic_flywheel.policy.visibility import sees, sight_of

FLOWS = {"open": Sharing.TEAM, "own": Sharing.USER, "closed": Sharing.SESSION, "none": Sharing.NONE}
USERS, SESSIONS = ("", "ann", "bob"), ("s1", "s2")
#: One turn of every kind; `gone` is a flow that is not in the registry any more.
DOCS = [
    HistoryDoc(
        turn_id=f"{flow}-{user}-{audience}",
        session_id=session,
        at=float(number),
        question="redis",
        answer="",
        question_words="redi",
        flow=flow,
        user=user,
        outcome="miss",
        audience=audience,
        place=number,
    )
    for number, (flow, user, audience, session) in enumerate(
        itertools.product([*FLOWS, "gone"], USERS, Audience, SESSIONS)
    )
]
SIGHTS = [sight_of(c, session=s, sharing=FLOWS) for c in (*USERS, "eve") for s in ("", *SESSIONS, "s3")]


def allowed(sight: Sight) -> set[str]:
    """The ids of the turns that may be shown."""
    return {
        doc.id
        for doc in DOCS
        if sees(sight, audience=doc.audience, flow=doc.flow, user=doc.user, session=doc.session_id)
    }

"""What changed between the turns of a session: another flow, or the same one with another configuration.

Invariant: a pure function of the turns. A stale answer says nothing of its flow's configuration now, so it marks no
change.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from agentic_flywheel.model import Outcome, Turn
from agentic_flywheel.threads import ChangeKind, ThreadChange


def changes_of(turns: Sequence[Turn]) -> tuple[ThreadChange, ...]:
    """The changes between turns, which are given oldest first."""
    found: list[ThreadChange] = []
    known: dict[str, str] = {}  # the last fingerprint of each flow
    if turns:
        _note(turns[0], known)
    for before, turn in pairwise(turns):
        if turn.flow != before.flow:
            found.append(
                ThreadChange(turn_id=turn.id, kind=ChangeKind.FLOW, flow=turn.flow, old=before.flow, new=turn.flow)
            )
        old = known.get(turn.flow, "")
        if _note(turn, known) and old and old != turn.fingerprint:
            found.append(
                ThreadChange(
                    turn_id=turn.id, kind=ChangeKind.CONFIGURATION, flow=turn.flow, old=old, new=turn.fingerprint
                )
            )
    return tuple(found)


def _note(turn: Turn, known: dict[str, str]) -> bool:
    """Remember what configuration a flow answered with, where the turn tells."""
    if not turn.fingerprint or turn.outcome is Outcome.STALE:
        return False
    known[turn.flow] = turn.fingerprint
    return True

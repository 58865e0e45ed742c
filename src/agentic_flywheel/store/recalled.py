"""What is read of a session when a question is asked in it: its newest turns, its first one, and those further back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.store.codec import decode
from agentic_flywheel.store.session_headers import header_of, session_with


class Recalled(msgspec.Struct, gc=False, frozen=True):
    """A session's header (None: no such session), its newest turns oldest first, its very first turn, and how many
    stored turns were damaged and left out. `sizes` are the bytes in Redis of those turns that were read from there."""

    session: Session | None = None
    turns: tuple[Turn, ...] = ()
    first: Turn | None = None
    damaged: int = 0
    sizes: Mapping[str, int] = {}


def recalled_with(recalled: Recalled, turns: Sequence[Turn]) -> Recalled:
    """What would be recalled once these turns, which wait in this order, are appended.

    What was recalled and does not wait comes before all that waits, since nothing overtakes a turn that waits. So one
    that is older than the newest turns, which were recalled, does not pass for the newest.
    """
    known, waiting = {turn.id for turn in recalled.turns}, {turn.id for turn in turns}
    if waiting <= known:
        return recalled
    last = max((place for place, turn in enumerate(turns) if turn.id in known), default=-1)
    newer = turns[last + 1 :]
    return Recalled(
        session_with(recalled.session, newer) if newer else recalled.session,
        (*(turn for turn in recalled.turns if turn.id not in waiting), *turns),
        recalled.first or turns[0],
        recalled.damaged,
        recalled.sizes,
    )


def recalled_of(replies: Sequence[Any]) -> Recalled:
    """The replies to a session's newest turns, newest first, its first one and its header."""
    newest, oldest, header = replies
    session = header_of(header)
    if session is None:
        return Recalled()
    turns, damaged = turns_of(reversed(newest))
    sizes = {} if damaged else {turn.id: len(entry[1][1]) for turn, entry in zip(turns, reversed(newest), strict=True)}
    if not damaged and oldest[:1] == newest[-1:]:  # a short session: its first turn is among the newest
        first = turns[:1]
    else:
        first, lost = turns_of(oldest)
        damaged += lost
    return Recalled(session, turns, first[0] if first else None, damaged, sizes)


def turns_of(entries: Any) -> tuple[tuple[Turn, ...], int]:
    """The turns in entries of a stream, and how many were damaged; one that comes up again was copied by somebody."""
    turns: dict[str, Turn] = {}
    damaged = 0
    for _place, fields in entries:
        raw = fields.get(b"t") if isinstance(fields, dict) else fields[1]
        try:
            turn = decode(raw or b"", Turn)
        except StoreDamaged:
            damaged += 1
        else:
            damaged += turn.id in turns
            turns.setdefault(turn.id, turn)
    return tuple(turns.values()), damaged


def earlier_of(values: Sequence[bytes]) -> tuple[list[tuple[Turn, int]], int]:
    """The turns in the reply to the script `EARLIER`, oldest first, each with its bytes in Redis; and how many were
    damaged and left out."""
    found: list[tuple[Turn, int]] = []
    damaged = 0
    for raw in reversed(values):
        try:
            found.append((decode(raw, Turn), len(raw)))
        except StoreDamaged:
            damaged += 1
    return found, damaged

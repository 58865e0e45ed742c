"""The vocabulary of threads: what holds the turns of a conversation together, and conversations with each other.

Invariant: immutable values without I/O, as in `model`, which builds on them.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Carried(StrEnum):
    """Why an earlier turn went with a question."""

    NEWEST = "newest"  # one of the last turns before it
    FIRST = "first"  # it began the session
    RELEVANT = "relevant"  # it lies further back and shares words with the question


class ContextTurn(msgspec.Struct, gc=False, frozen=True):
    """An earlier turn that went with a question, and why; `words` are those of the question that a relevant one has."""

    turn_id: str
    why: Carried
    words: tuple[str, ...] = ()

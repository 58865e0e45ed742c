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


class ChangeKind(StrEnum):
    """What is another one than in the turn before."""

    FLOW = "flow"  # another flow answers
    CONFIGURATION = "configuration"  # the same flow, with another configuration than when it answered last


class ThreadChange(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A change between two turns of a session: before `turn_id` came `old`, from it on `new`.

    For a flow these are keys, for a configuration fingerprints of `flow`.
    """

    turn_id: str
    kind: ChangeKind
    flow: str
    old: str
    new: str


class LinkHow(StrEnum):
    """How two sessions came to be linked."""

    SET = "set"  # somebody tied them
    FOUND = "found"  # they are about the same


class SessionLink(msgspec.Struct, frozen=True, kw_only=True):
    """A session that belongs to another one. Of one that was found, `words` are what both are about, and `likeness` how
    much of it they share, from 0 to 1."""

    session_id: str
    how: LinkHow
    title: str = ""
    flow: str = ""
    turns: int = 0
    last_active_at: float = 0.0
    words: tuple[str, ...] = ()
    likeness: float | None = None


class LinkedSessions(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that belong to one; `warnings` are sentences for people."""

    session_id: str
    links: tuple[SessionLink, ...] = ()
    warnings: tuple[str, ...] = ()

"""One span as we write it, and the ids by which spans find each other.

Invariant: a span's id follows from its question's turn and its step. So a stored answer's own call can be linked to by
who serves it years later, and what is learnt after an answer joins that answer's trace, without an id being kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

#: Langfuse takes ids of sessions and users that are ASCII and have at most so many characters.
LONGEST_ID = 200

_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")


class Link(NamedTuple):
    """Another span that this one has to do with."""

    trace: str
    span: str
    attributes: Mapping[str, Any]


class SpanRecord(NamedTuple):
    """One span. Ids are hexadecimal, `parent` "" for none, times epoch seconds; `error` is "" where it went well.

    Values of attributes are text, truth, whole or real numbers, or tuples of text.
    """

    trace: str
    span: str
    parent: str
    name: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    links: tuple[Link, ...] = ()
    error: str = ""


class ScoreRecord(NamedTuple):
    """What was said of an answer, or (where `trace` is "") of its session. `id` makes it one score however often it is
    sent."""

    id: str
    trace: str
    span: str
    session: str
    name: str
    value: float
    why: str
    at: float
    truth: bool = True  # 1 or 0, rather than a number on a scale


def span_id(turn: str, step: str) -> str:
    """The id of a step's span: 64 bits, never zero.

    >>> span_id("4f6a", "afw.ask") == span_id("4f6a", "afw.ask") != span_id("4f6a", "afw.call")
    True
    """
    digest = blake2b(f"{step} {turn}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return digest if int(digest, 16) else "1".zfill(16)


def score_id(turn: str, session: str, name: str, by: str) -> str:
    """The id of what `by` said of a turn, or ("" as the turn) of its session; the same however often it is said."""
    return outward_id(f"{turn or outward_id(session)}-{name}" + (f"-{by}" if by else ""))


def is_trace_id(text: str) -> bool:
    """Whether this can be a trace's id: 32 hexadecimal digits that are not all zero."""
    return _TRACE.fullmatch(text) is not None


def outward_id(raw: str) -> str:
    """A session's or a user's id as traces carry it: itself, or `~` and 128 bits of BLAKE2b where Langfuse would not
    take it.

    >>> outward_id("alice@example.org"), outward_id("Zoë")[:3]
    ('alice@example.org', '~0e')
    """
    if raw.isascii() and raw.isprintable() and len(raw) <= LONGEST_ID:
        return raw
    return "~" + blake2b(raw.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

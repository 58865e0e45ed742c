"""What is known of a question after it was answered, as people and tools look at it: steps, origin, judgements."""

from __future__ import annotations

from typing import Any

import msgspec

from agentic_flywheel.model import Turn

#: What a judgement of a person is called; the others are those of reports.
QUALITY = "quality"


class Judgement(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """What somebody said of an answer: `value` from 1 to 10 for `quality`, 1 for what a report says.

    `turn_id` is "" where it is said of the whole session; `why` are their own words.
    """

    name: str
    turn_id: str
    value: float
    why: str
    by: str
    at: float


class TraceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step that was taken, under the name that its span has; `ms` is None where only its trace tells."""

    name: str
    facts: dict[str, Any] = {}
    ms: float | None = None


class TraceView(msgspec.Struct, frozen=True, kw_only=True):
    """One answered question, as its session has kept it.

    `name` is what its trace is called, `link` where people look at it ("" where nobody said, or none is made),
    `origin_link` the same for the trace that computed an answer from memory, `exported` where traces go ("" for
    nowhere). `config` and tokens are those of the call, as far as its answer is still stored. `notes` are sentences for
    people.
    """

    trace_id: str
    name: str
    turn: Turn
    flow_id: str
    flow_name: str
    cache_hit: bool
    response_length: int
    steps: tuple[TraceStep, ...]
    judgements: tuple[Judgement, ...] = ()
    link: str = ""
    origin_link: str = ""
    previous_trace_id: str = ""
    exported: str = ""
    config: dict[str, Any] = {}
    tokens_in: int = 0
    tokens_out: int = 0
    notes: tuple[str, ...] = ()


class TraceFound(msgspec.Struct, frozen=True, kw_only=True):
    """One question that was found among the traces; `quality` is the mean of what people gave, None for nothing."""

    trace_id: str
    turn: Turn
    judgements: tuple[Judgement, ...] = ()
    quality: float | None = None
    link: str = ""


class TracePage(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and how many were looked at for it; `cursor` continues, "" at the end."""

    found: tuple[TraceFound, ...]
    looked_at: int
    cursor: str = ""
    exported: str = ""
    warnings: tuple[str, ...] = ()


class JudgementReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement that was kept with its session, and whether it goes along to where traces go ("" for nowhere)."""

    judgement: Judgement
    session_id: str
    trace_id: str = ""
    link: str = ""
    exported: str = ""


def reported_as(kind: str) -> str:
    """What a report is called among judgements: `reported_wrong` and so on."""
    return f"reported_{kind}"


def quality_of(judgements: tuple[Judgement, ...]) -> float | None:
    """The mean of what people gave; None where nobody gave anything.

    >>> quality_of((Judgement("quality", "t", 8, "", "ann", 0), Judgement("quality", "t", 5, "", "bob", 0)))
    6.5
    """
    given = [judgement.value for judgement in judgements if judgement.name == QUALITY]
    return sum(given) / len(given) if given else None

"""The vocabulary of the FAQ: what people edit, what they approve, what asks for a place in it.

Invariant: immutable values without I/O, as in `model`. The words that are served are those of a `Publication`: what was
approved, by whom, when, and under which configuration of the flow. What is edited afterwards changes nothing that is
served until it is approved. Stored as arrays, so fields may only be appended, with a default.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.model import Entry, Source

if TYPE_CHECKING:
    from collections.abc import Sequence


class FaqState(StrEnum):
    """How an entry stands now; the first three are served nothing of, `published` and `due` are served."""

    DRAFT = "draft"  # nobody has approved it yet
    REPORTED = "reported"  # somebody reported its answer; it waits for a person
    RETIRED = "retired"  # a person took it out
    STALE = "stale"  # its flow has changed since it was approved; it waits for a person
    UNSHARED = "unshared"  # its flow shares no answers with the team (any more), or is not in the registry
    DUE = "due"  # served; the day on which somebody wanted to look at it again has come
    PUBLISHED = "published"  # served

    @property
    def served(self) -> bool:
        """Whether askers are given its answer."""
        return self in {FaqState.PUBLISHED, FaqState.DUE}


class Publication(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """What a person approved. `fingerprint` is the flow's configuration at that moment, `review_at` when somebody is to
    look at it again (epoch seconds, 0: never). `trace_id` is the run of the flow whose answer this is word for word,
    "" where a person wrote it; `flow_ms` is what that run took."""

    question: str
    wordings: tuple[str, ...]
    answer: str
    fingerprint: str
    at: float
    by: str
    owner: str
    review_at: float = 0.0
    sources: tuple[Source, ...] = ()
    trace_id: str = ""
    flow_ms: float | None = None

    @property
    def asked_as(self) -> tuple[str, ...]:
        """Every wording that it answers, the question itself first."""
        return (self.question, *self.wordings)


class FaqEntry(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """One question with its answer, as it is being worked on; `published` is what is served of it, None: nothing.

    `revision` counts the changes, from 1. `cluster` is the popular question that it was made of, `turn_id`,
    `session_id`, `trace_id` and `flow_ms` the turn whose answer was picked ("" where a person wrote it). `reported` is
    what it was taken out of service for, `owner` whoever answers for it, also while it is not served.
    """

    id: str
    flow: str
    question: str
    wordings: tuple[str, ...]
    answer: str
    created_at: float
    changed_at: float
    changed_by: str
    revision: int = 1
    published: Publication | None = None
    retired: bool = False
    reported: str = ""
    sources: tuple[Source, ...] = ()
    cluster: str = ""
    turn_id: str = ""
    session_id: str = ""
    trace_id: str = ""
    flow_ms: float | None = None
    owner: str = ""

    @property
    def asked_as(self) -> tuple[str, ...]:
        """Every wording that it is to answer, the question itself first."""
        return (self.question, *self.wordings)

    @property
    def pending(self) -> bool:
        """Whether it was edited since it was approved: these changes are not served yet."""
        said = self.published
        return said is not None and (said.question, said.wordings, said.answer) != (
            self.question,
            self.wordings,
            self.answer,
        )


class FaqChange(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """One change of an entry: who did what, when; `said` has the new value of every field that changed, as text."""

    at: float
    by: str
    what: str
    revision: int
    said: dict[str, str] = {}


class FaqBook(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of one flow, by id, and the version that they are of ("" where there never was one).

    `damaged` counts those that could not be read. `raw` is what each was read from, so that whoever reads the book
    again only looks at what has changed.
    """

    flow: str
    version: str = ""
    entries: dict[str, FaqEntry] = {}
    damaged: int = 0
    raw: dict[str, bytes] = {}


class FaqView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as people look at it: how it stands, and why, in a sentence ("" where there is nothing to say)."""

    state: FaqState
    entry: FaqEntry
    why: str = ""

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.entry.id


class FaqCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A question that asks for a place in the FAQ, since many ask it. `id` is that of the popular question.

    `answer` is the one that is stored for it now, "" where there is none that may be offered: then a person has to
    write it. `wordings` are other ways in which it was asked, the commonest first. `alike` are questions that seem to
    ask the same and are counted here as well, `covers` the ids of those that were popular by themselves: that is for a
    person to judge, and none of them becomes a wording by itself. `near` is the candidate (or the entry) before it that
    it may well belong to.
    """

    id: str
    flow: str
    question: str
    wordings: tuple[str, ...]
    asked: int
    askers: int
    answer: str = ""
    answered_at: float = 0.0
    last_at: float = 0.0
    sources: tuple[Source, ...] = ()
    turn_id: str = ""
    session_id: str = ""
    trace_id: str = ""
    flow_ms: float | None = None
    alike: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    near: str = ""
    entry_key: str = ""


class FaqList(msgspec.Struct, frozen=True, kw_only=True):
    """The FAQ at a glance: what waits for a person first. `warnings` are sentences for people."""

    entries: tuple[FaqView, ...] = ()
    candidates: tuple[FaqCandidate, ...] = ()
    warnings: tuple[str, ...] = ()


class FaqRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with its history, oldest change first, as a backup holds it."""

    entry: FaqEntry
    changes: tuple[FaqChange, ...] = ()


class Approved(Entry, gc=False, frozen=True, array_like=True):
    """An approved answer in the form in which stored answers are decided upon; never stored as such.

    It has no lifetime and no generation: neither time nor clearing the cache takes it, only a person or a change of its
    flow. `faq` is the id of its entry; `asked` the wording that was found.
    """

    faq: str = ""


def approved_entry(entry: FaqEntry, said: Publication, wording: str, normal: str) -> Approved:
    """What is decided upon where a question has one of the wordings (`normal` is its normal form)."""
    return Approved(
        question=normal,
        identity="",
        answer=said.answer,
        flow=entry.flow,
        flow_id="",
        flow_name="",
        fingerprint=said.fingerprint,
        generation=0,
        created_at=said.at,
        ttl_seconds=0.0,
        trace_id=said.trace_id,
        turn_id=entry.turn_id,
        asked=wording,
        first=True,  # a person has looked at it as a question that stands alone
        flow_ms=said.flow_ms,
        sources=said.sources,
        alone=True,
        faq=entry.id,
    )


def wordings_of(question: str, others: Sequence[str]) -> tuple[str, ...]:
    """The other wordings, each once, without the question itself and without what is empty."""
    return tuple(dict.fromkeys(text for one in others if (text := one.strip()) and text != question))

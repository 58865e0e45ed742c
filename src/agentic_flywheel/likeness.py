"""The vocabulary of similar questions: how alike, how sure, what a flow allows, what people reported.

Invariant: immutable values without I/O, as in `model`. One scale everywhere: similarity is the cosine of two unit
vectors, cut to 0 to 1, higher is closer. Rates of error are shares of *similar hits* that were wrong (not of requests).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agentic_flywheel.threads import ContextTurn


class SimilarMode(StrEnum):
    """Whether similar questions share answers."""

    LEARN = "learn"  # nothing is served until evidence allows it, and then down to a cut that evidence moves
    FIXED = "fixed"  # served at the profile's floor from the start; evidence can only tighten it
    SHADOW = "shadow"  # nothing is served; what would be is noted and labelled
    OFF = "off"  # not even looked for


class Profile(StrEnum):
    """How alike questions must be, and which guards stand before them (docs/similar-questions.md)."""

    STRICT = "strict"
    BALANCED = "balanced"
    FAQ = "faq"


class SimilarPolicy(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What one flow says of similar questions; None leaves it to the settings `similar.*`."""

    mode: SimilarMode | None = None
    profile: Profile | None = None
    max_error: float | None = None
    floor: float | None = None
    audit_share: float | None = None


class Terms(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What holds for one flow now: settings, registry and decisions of people put together.

    `floor` is the least similarity ever served, on the scale of the embedder in use; `origin` says for people where
    mode, profile and floor came from.
    """

    mode: SimilarMode
    profile: Profile
    floor: float
    max_error: float
    audit_share: float
    origin: str = ""


class GuardVerdict(msgspec.Struct, gc=False, frozen=True):
    """What one guard says of two questions; `evidence` names it ("asked: 2023, stored: 2024"), "" if it passed."""

    guard: str
    passed: bool
    evidence: str = ""


class Neighbour(msgspec.Struct, gc=False, frozen=True):
    """A stored question near another: the Redis key of its entry, and how near."""

    key: str
    similarity: float


class Likeness(msgspec.Struct, gc=False, frozen=True):
    """A stored question's vector as it is kept: the key of its entry, float16 little-endian, and its end (epoch s)."""

    key: str
    vector: bytes
    expires_at: float


class News(msgspec.Struct, gc=False, frozen=True):
    """What came into a partition, oldest first, and where to read on (opaque, for the next call)."""

    items: tuple[Likeness, ...]
    places: tuple[str, ...]


class Cut(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """From which similarity on answers are shared, and why. `value` is None where nothing is served.

    `right` and `wrong` are the labels at or above the cut that it rests on; `bound` is the upper confidence bound of
    the share of wrong ones (None without labels).
    """

    value: float | None
    why: str
    right: int = 0
    wrong: int = 0
    bound: float | None = None


class CutChange(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One change of a flow's cut, as it is recorded: both values (None: closed), and the evidence at that moment."""

    at: float
    old: float | None
    new: float | None
    why: str
    right: int = 0
    wrong: int = 0
    bound: float | None = None
    embedder: str = ""
    standing: str = ""


class SimilarState(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What all processes share about similar questions of one flow.

    `version` rises with every label and every decision of people. `cuts` are those in force, by standing; one that is
    not there is closed. `evidence` counts labels by field (`policy.similarity.budget`). What people set stands in
    `profile`, `mode` and `max_error`, None where they did not. `blocked` says of each pair that was asked about
    whether it must never be merged.
    """

    version: int = 0
    cuts: dict[str, float] = {}
    evidence: dict[str, int] = {}
    profile: Profile | None = None
    mode: SimilarMode | None = None
    max_error: float | None = None
    blocked: tuple[bool, ...] = ()

    @property
    def cut(self) -> float | None:
        """The cut that is kept without a standing, None where it is closed."""
        return self.cuts.get("")


class Considered(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A stored question that was weighed: how near, what every guard says, and what came of it in one sentence."""

    key: str
    question: str
    similarity: float
    guards: tuple[GuardVerdict, ...]
    served: bool
    why: str
    age_seconds: float | None = None
    blocked: bool = False
    standing: str = ""  # what the other neighbours say of it: agreed, alone, contested
    faq: str = ""  # the entry of the FAQ that it is a wording of

    @property
    def refusals(self) -> tuple[str, ...]:
        """The evidence of the guards that refused."""
        return tuple(f"{verdict.guard}: {verdict.evidence}" for verdict in self.guards if not verdict.passed)


class ReportKind(StrEnum):
    """What is the matter with an answer."""

    WRONG = "wrong"  # it does not answer this question
    OUTDATED = "outdated"  # it was right once
    PRIVATE = "private"  # it should not have been kept for others


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said of an answer, as it is kept."""

    id: str
    kind: ReportKind
    turn_id: str
    session_id: str
    flow: str
    question: str
    matched_question: str = ""
    similarity: float | None = None
    note: str = ""
    by: str = ""
    at: float = 0.0


class ReportReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a report did. `removed` counts by what it is ("entries", "vectors"); `blocked` is the pair of questions that
    will never be taken for each other again; `done` are sentences for people."""

    report: Report
    removed: dict[str, int] = {}
    blocked: tuple[str, str] | None = None
    cut: Cut | None = None
    done: tuple[str, ...] = ()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change that evidence suggests, and a person decides. `setting` is `profile` or `ttl`; `state` is open, accepted
    or rejected."""

    id: str
    flow: str
    setting: str
    now: str
    proposed: str
    evidence: str
    at: float
    state: str = "open"
    decided_at: float | None = None
    decided_by: str = ""
    reason: str = ""


class Band(msgspec.Struct, gc=False, frozen=True):
    """The labels between two similarities: how many pairs had the same answer, how many had another."""

    low: float
    high: float
    right: int
    wrong: int


class SimilarStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one flow stands: what holds, what is known, since when. `measured_error` is the share of wrong answers among
    similar hits that were checked, with its interval (lower, upper) at 95 %; None without any."""

    flow: str
    terms: Terms
    embedder: str
    cut: Cut
    cuts: dict[str, Cut] = {}  # by standing; `cut` is the loosest of them
    bands: tuple[Band, ...] = ()
    labels: int = 0
    audits: int = 0
    audits_wrong: int = 0
    reports: dict[str, int] = {}
    measured_error: tuple[float, float, float] | None = None
    vectors: int | None = None
    changes: tuple[CutChange, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole decision of a question that is not asked: where it goes, what is stored, what would come of it.

    `exact` lists the places that hold or could hold this very question (sentences); `similar` the nearest stored
    questions, nearest first, those included that are too far away; `context` the earlier turns that would go with it.
    """

    question: str
    flow: str
    route: str
    scope: str
    key: str
    fingerprint: str
    decision: str
    outcome: str
    reason: str
    context: tuple[ContextTurn, ...] = ()
    exact: tuple[str, ...] = ()
    similar: tuple[Considered, ...] = ()
    terms: Terms | None = None
    cut: Cut | None = None
    partition: str = ""
    embedder: str = ""
    notes: tuple[str, ...] = ()
    source: str = ""  # whose words would be served: cache, faq or flow; "" where none would
    faq: str = ""  # the entry of the FAQ that would answer

"""The vocabulary: what is asked, answered, remembered and stored.

Invariant: everything here is an immutable value without behaviour that needs I/O, a clock or a random source,
so every other room may import it and none can be surprised by it. Times are UTC seconds since the epoch
(`float`, wall clock); durations are `timedelta`, or carry their unit in the name where they go on the wire.

The structs that are stored in Redis (`Turn`, `Entry`) are encoded as arrays: fields may only be *appended*,
with a default, and never reordered; anything else needs a new version byte in `store.codec`.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec

from agentic_flywheel.threads import ContextTurn, SessionLink, ThreadChange


class FlowType(StrEnum):
    """What kind of knowledge a flow gives; it decides how long an answer stays good."""

    TECHNICAL = "technical"
    CREATIVE = "creative"
    DOCUMENT = "document"


class Sharing(StrEnum):
    """Who may be served an answer that was computed without earlier turns."""

    TEAM = "team"
    USER = "user"
    SESSION = "session"
    NONE = "none"


class Outcome(StrEnum):
    """How an answer came to be."""

    HIT = "hit"
    SIMILAR = "similar"
    MISS = "miss"
    STALE = "stale"
    JOINED = "joined"
    BYPASS = "bypass"


class Origin(StrEnum):
    """Whose words an answer has."""

    FLOW = "flow"  # the flow's, said for this question (or for another asker of it at the same moment)
    CACHE = "cache"  # the flow's, said before and stored
    FAQ = "faq"  # those that a person approved


class Reason(StrEnum):
    """Why the outcome is what it is; one word that interfaces show and metrics count."""

    EXACT = "exact"  # the same question, the same scope, the same flow configuration
    CURATED = "curated"  # one of the wordings of an approved FAQ entry, of the same flow configuration
    NOT_STORED = "not_stored"  # nobody who may share it has asked this yet
    EXPIRED = "expired"  # older than the lifetime that holds now
    FLOW_CHANGED = "flow_changed"  # answered by another configuration of the flow
    CLEARED = "cleared"  # somebody cleared the flow's answers after it was stored
    TOO_OLD = "too_old"  # older than the asker's max-age
    COLLISION = "collision"  # same key, other question: a hash alone never decides
    NOT_FIRST = "not_first"  # word for word the same, but only ever asked inside a conversation
    DAMAGED = "damaged"  # the stored value failed its checksum or has an unknown version
    NO_CACHE = "no_cache"  # the asker wanted it afresh
    NO_STORE = "no_store"  # the asker wanted nothing kept
    NOT_SHARED = "not_shared"  # the flow's policy shares its answers with nobody
    STORE_UNAVAILABLE = "store_unavailable"  # Redis could not be asked
    FLOW_UNVERIFIED = "flow_unverified"  # the flow's configuration could not be confirmed just now
    IN_FLIGHT = "in_flight"  # the same question was being answered; its answer is shared
    FLOW_FAILED = "flow_failed"  # the flow did not answer; an answer past its lifetime stands in
    MAX_STALE = "max_stale"  # the asker accepts answers past their lifetime
    SIMILAR = "similar"  # another wording of a question whose answer is stored; every guard passed, the cut reached
    NOT_ALIKE = "not_alike"  # a stored question is near, but a guard, a report or the cut stands between
    POLICY = "policy"  # a privacy policy of the flow, the user or the tenant lets no answer be kept or served
    REDACTED = "redacted"  # there is something in question or answer that may not be kept: no answer with holes is
    WITHDRAWN = "withdrawn"  # somebody reported the answer as private: it is kept for nobody


class Directives(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What the asker wants of the cache for one question; the words are those of HTTP's `Cache-Control` (RFC 9111).

    `no_store` keeps nothing: no entry, no turn. `private` keeps the turn and the answer for this session alone.
    `standalone` says that the question needs no earlier turn, so that a shared answer may serve it.

    >>> Directives(no_cache=True).words()
    ['no-cache']
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    private: bool = False
    standalone: bool = False
    max_age: timedelta | None = None
    max_stale: timedelta | None = None

    def words(self) -> list[str]:
        """The directives in force, as they are written on the wire; durations in whole seconds."""
        names = ("no_store", "no_cache", "only_if_cached", "private", "standalone")
        words = [name.replace("_", "-") for name in names if getattr(self, name)]
        if self.max_age is not None:
            words.append(f"max-age={int(self.max_age.total_seconds())}")
        if self.max_stale is not None:
            words.append(f"max-stale={int(self.max_stale.total_seconds())}")
        return words


class Source(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A place that an answer rests on. `score` is a similarity from 0 to 1, or None where the flow gives none."""

    title: str
    uri: str = ""
    excerpt: str = ""
    score: float | None = None


class Exchange(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """One question with its answer, as context for a later question."""

    question: str
    answer: str


class Turn(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """One question and its answer in a session, as it is kept for ever (until retention or deletion).

    `flow_ms` is what the flow itself took, None where it was not called; `parent` is the turn before it in the
    session; `context` lists the turns that enriched the question; `entry_key` is the stored answer that it was
    served from or stored as, "" where there is none.
    """

    id: str
    session_id: str
    at: float
    question: str
    answer: str
    flow: str
    fingerprint: str
    outcome: Outcome
    reason: Reason
    trace_id: str
    origin_trace_id: str = ""
    entry_key: str = ""
    elapsed_ms: float = 0.0
    flow_ms: float | None = None
    parent: str = ""
    context: tuple[str, ...] = ()
    user: str = ""
    private: bool = False
    sources: tuple[Source, ...] = ()
    intent: str = ""
    similarity: float | None = None  # of the stored question that this one was taken for; None where none was
    matched_question: str = ""
    faq: str = ""  # the FAQ entry whose approved answer this is; "" where it is none
    counts_as: str = ""  # answered while Redis was away: the question, by its name, that it counts for when it is there
    own: bool = False  # its user's alone, since a turn that went along with the question is

    def exchange(self) -> Exchange:
        """The two sides of the turn, as context for a later question."""
        return Exchange(self.question, self.answer)


class Entry(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A stored answer with all that is needed to decide whether it may be served, and to say where it came from.

    `question` is the normalised question and `identity` the digest of everything else that it was asked with
    (context, overrides): a hit compares both, the key alone never decides. `first` says that the question was
    the first of its session, so it has been shown to stand alone. `ttl_seconds` is the lifetime, jitter included,
    that held when it was stored. `alone` says that no earlier turn had a part in the answer, so that a similar question
    may be given it. `withdrawn` is why nobody is given it any more ("private"), "" for an answer in use.
    """

    question: str
    identity: str
    answer: str
    flow: str
    flow_id: str
    flow_name: str
    fingerprint: str
    generation: int
    created_at: float
    ttl_seconds: float
    trace_id: str
    turn_id: str
    session_id: str = ""
    user: str = ""
    asked: str = ""  # the question in the asker's own words
    first: bool = False
    flow_ms: float | None = None
    sources: tuple[Source, ...] = ()
    config: dict[str, Any] = {}
    alone: bool = False
    withdrawn: str = ""
    wire: bytes = b""  # what the service itself said, for interfaces that speak its protocol; the flow's kind reads it
    tokens_in: int = 0  # of the call that computed it; 0 where the flow does not tell
    tokens_out: int = 0


#: The generation of a withdrawn answer's mark: no clearing and no change of the flow is later, so none reclaims it. The
#: largest whole number that a script in Redis holds exactly.
LASTING_GENERATION = 2**53 - 1


class Session(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What is known of a conversation without reading its turns. Times are epoch seconds.

    `title_from` is the turn whose question gave the title, "" where a person gave it. `links` are the sessions that
    people tied to this one.
    """

    id: str
    owner: str = ""
    title: str = ""
    tags: tuple[str, ...] = ()
    flow: str = ""  # the flow of the newest turn: a follow-up stays with it
    turns: int = 0
    created_at: float = 0.0
    last_active_at: float = 0.0
    config: dict[str, Any] = {}  # laid over the flow's configuration for every question of the session
    title_from: str = ""
    links: tuple[str, ...] = ()


class Lifetime(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """How long a flow's answers stay good, and which rule said so (`flow`, `type`, `registry` or `default`)."""

    ttl: timedelta
    sliding: bool = False
    origin: str = "default"


class FlowChange(msgspec.Struct, frozen=True, array_like=True):
    """A change of what a flow answers with, as recorded when it was noticed. `old` is "" at first sight."""

    old: str
    new: str
    at: float
    generation: int


class FlowState(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What all processes know of a flow's configuration, as shared through Redis.

    `revision` is what the flow's own service last said of itself ("" where the kind has none or it was never
    asked), `checked_at` when that was; `fingerprint` covers the revision and the registry's configuration.
    `ttl_seconds` is the override set at run time, None where there is none; `faq` the version of the flow's FAQ, which
    is another one after each change, and "" where it never had one. `gone` says whose answers were forgotten.
    """

    fingerprint: str = ""
    generation: int = 0
    changed_at: float = 0.0
    revision: str = ""
    etag: str = ""
    checked_at: float = 0.0
    ttl_seconds: float | None = None
    faq: str = ""
    gone: bytes = b""

    @property
    def lasting(self) -> FlowState:
        """All of it that a decision can rest on: not when it was last checked, nor what the next check has to say."""
        return msgspec.structs.replace(self, checked_at=0.0, etag="")


class RouteScore(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """How well one flow fits a question: weighted keyword score, and the words that matched."""

    flow: str
    score: float
    matched: tuple[str, ...] = ()


class Route(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Which flow was picked and why: `how` is explicit, intent, session, keywords, fallback or only."""

    flow: str
    how: str
    confidence: float = 1.0
    intent: str = ""
    scores: tuple[RouteScore, ...] = ()


class Candidate(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One stored answer that was looked for: where, and why it was served or not (`--explain`).

    A similar question's answer carries `similarity` (0 to 1), the stored `question` and, for each guard that refused
    it, a sentence of evidence.
    """

    key: str
    scope: str
    verdict: Reason
    age_seconds: float | None = None
    question: str = ""
    similarity: float | None = None
    refusals: tuple[str, ...] = ()


class Answer(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """An answer with its whole provenance; every interface shows this and nothing else.

    `age_seconds` is 0 for an answer computed now; `ttl_seconds` is what is left of the entry's lifetime, None
    where nothing is stored; `key` is the Redis key of the entry, None where there is none. Of an answer from the FAQ
    (`source`, and `faq` has the id) `age_seconds` counts from its approval, `key` is where the answer to the question
    (or to `matched_question`) would be stored, and there is no lifetime. `remembered` says that
    the turn is acknowledged by Redis (or queued to be, where it is written behind), or safe in the local outbox until
    Redis is back; a warning says so. `warnings` are sentences for
    people: degraded operation, what was not kept and why.
    """

    text: str
    flow: str
    flow_id: str
    flow_name: str
    session_id: str
    turn_id: str
    trace_id: str
    outcome: Outcome
    reason: Reason
    question: str
    key: str | None = None
    scope: str = ""
    age_seconds: float = 0.0
    ttl_seconds: float | None = None
    fingerprint: str = ""
    origin_trace_id: str = ""
    elapsed_ms: float = 0.0
    flow_ms: float | None = None
    sources: tuple[Source, ...] = ()
    context: tuple[str, ...] = ()  # ids of the earlier turns that went with the question, oldest first
    enrichment: tuple[ContextTurn, ...] = ()  # the same turns, each with why it was chosen
    route: Route | None = None
    config: dict[str, Any] = {}
    remembered: bool = False
    near: bool = False  # served by this process without asking Redis
    source: Origin = Origin.FLOW
    faq: str = ""
    similarity: float | None = None  # of `matched_question` to the question, where the outcome is similar
    matched_question: str = ""
    considered: tuple[Candidate, ...] = ()
    warnings: tuple[str, ...] = ()


class VerbatimAnswer(Answer, gc=False, frozen=True, kw_only=True):
    """An answer together with what the service itself said (`Entry.wire`), for interfaces that speak its protocol."""

    wire: bytes = b""


class Decided(msgspec.Struct, gc=False, frozen=True):
    """The first event of a stream: what was decided before any text came.

    `answer` is the whole answer where it comes from memory; else its text is "" still, and its outcome is what will
    come of the call if nothing fails on the way.
    """

    answer: Answer


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a destructive action removed, or would remove (`dry_run`): counts by what it is ("entries", "turns").

    `unreachable` counts answers that can no longer be served from this moment on, whether or not their memory has
    been reclaimed yet. `audit` is the entry of the audit log (NUMBER:DIGEST) that `by` had it done under, `signature`
    (Ed25519, base64) that of the installation whose public key is `signer`, over all other fields. `waiting` counts
    what could not be deleted yet where traces went; `erasure` is what a later receipt of that is found by.
    """

    action: str
    target: str
    dry_run: bool
    removed: dict[str, int] = {}
    unreachable: int = 0
    waiting: int = 0
    erasure: str = ""
    notes: tuple[str, ...] = ()
    at: float = 0.0
    by: str = ""
    why: str = ""
    audit: str = ""
    signer: str = ""
    signature: str = ""


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as people look at it; `servable` says whether it would be served now, `verdict` why (not)."""

    key: str
    scope: str
    entry: Entry
    age_seconds: float
    ttl_seconds: float
    servable: bool
    verdict: Reason
    size_bytes: int


class LifetimeRow(msgspec.Struct, frozen=True, kw_only=True):
    """The lifetime in force for a flow type or a flow, and which rule set it."""

    name: str
    kind: str  # "type" or "flow"
    ttl_seconds: float
    origin: str
    sliding: bool = False


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions by last activity, newest first; `cursor` continues the list, "" at its end. `warnings` are sentences
    for people: what is missing, or not in Redis yet."""

    sessions: tuple[Session, ...]
    cursor: str = ""
    warnings: tuple[str, ...] = ()


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """A session with its turns, oldest first, what changed between them, and the sessions that people tied to it;
    `warnings` as for `SessionPage`."""

    session: Session
    turns: tuple[Turn, ...]
    changes: tuple[ThreadChange, ...] = ()
    links: tuple[SessionLink, ...] = ()
    warnings: tuple[str, ...] = ()


class Check(msgspec.Struct, frozen=True):
    """One finding of `afw doctor`: `state` is ok, warn or fail; `advice` says what to do where it is not ok."""

    name: str
    state: str
    message: str
    advice: str = ""

"""The vocabulary of history: what is looked for, what an index holds of a turn, what was found.

Invariant: immutable values without I/O, as in `model`. Every index (the local one, the query engine's) is given the
same `HistoryDoc`s and answers the same `HistoryQuery` with `Hit`s, so nothing above can tell which one it was. Times
are epoch seconds; scores are from 0 up, higher is better, and only compare within one search.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

#: How much of an answer an index holds and searches, in characters, and what a word there counts beside one in the
#: question: more, or more weight, floods the questions (BEAM, exchanges: R@5 52.7 against 38.9 with whole answers).
ANSWER_CHARACTERS = 600
ANSWER_WEIGHT = 0.3
#: By how many times its score a turn is raised that covers all of what is looked for, each word by its rarity; what
#: covers a share of it, by that share. R@5 of words alone, in one conversation of LoCoMo and in all: 56.5 and 51.4 at
#: 0, 58.7 and 54.3 at 1, 59.9 and 55.6 at 4, where BEAM begins to lose.
COVERAGE = 3.0


class SearchMode(StrEnum):
    """How a search compares."""

    WORDS = "words"
    MEANING = "meaning"
    BOTH = "both"


class SearchSort(StrEnum):
    """What comes first."""

    RELEVANCE = "relevance"
    TIME = "time"  # the newest


class Audience(StrEnum):
    """Whom a turn may be shown to by a search: everybody of the tenant, its own user, or who names its session."""

    TEAM = "team"
    USER = "user"
    SESSION = "session"


class HistoryDoc(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What an index holds of one turn.

    `answer` is its first `ANSWER_CHARACTERS`; `question_words` and `answer_words` are the stems of either, joined by
    single spaces (`search.history.words`), made by the client for every index alike. `audience` is what the turn itself
    demands; what its flow demands is asked anew with every search (`Sight`). `place` is the turn's number in its
    session, from 0, so that neighbours are known; `stream_id` is where it stands in the session's stream.
    """

    turn_id: str
    session_id: str
    at: float
    question: str
    answer: str
    question_words: str = ""
    answer_words: str = ""
    flow: str = ""
    user: str = ""
    outcome: str = ""
    tags: tuple[str, ...] = ()
    audience: Audience = Audience.TEAM
    place: int = 0
    stream_id: str = ""

    @property
    def id(self) -> str:
        """The turn's name in every index: turn ids are only unique within a session."""
        return f"{self.session_id}\n{self.turn_id}"


class Sight(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a caller may see (`policy.visibility`); every index applies it while it looks, never afterwards.

    `caller` "" is the machine's own operator, `session` the one that the search names ("" for none). A turn's audience
    is the narrower of its own and its flow's: `team` for `open_flows`, `session` for `closed_flows`, else `user`.
    """

    caller: str = ""
    session: str = ""
    open_flows: tuple[str, ...] = ()
    closed_flows: tuple[str, ...] = ()


class HistoryQuery(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A search, understood. `terms`, `phrases` and `excluded` are stems; a turn must hold every phrase (its words side
    by side) and nothing excluded, and is better the more of the terms it holds. "" and None: no such filter.
    A phrase is given with its variants, of which a turn must hold one. `since` is the first moment, `until` the first
    one after. `text` is what is left to be embedded. `seen` is the index's `sequence` when the first page was made:
    what came in later is left out, so that pages do not shift. `notes` are sentences for people: what was not
    understood.
    """

    text: str = ""
    terms: tuple[str, ...] = ()
    phrases: tuple[tuple[tuple[str, ...], ...], ...] = ()
    excluded: tuple[tuple[str, ...], ...] = ()
    flow: str = ""
    user: str = ""
    session: str = ""
    outcome: str = ""
    tag: str = ""
    since: float | None = None
    until: float | None = None
    mode: SearchMode = SearchMode.BOTH
    sort: SearchSort = SearchSort.RELEVANCE
    limit: int = 10
    cursor: str = ""
    sight: Sight = Sight()
    seen: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def worded(self) -> bool:
        """Whether it asks for words at all, not only for what filters leave."""
        return bool(self.terms or self.phrases)


class Hit(msgspec.Struct, gc=False, frozen=True):
    """A turn that an index found, without its texts: enough to rank it, to count it and to know its neighbours.

    `words` says how many words the index holds of it, 0 where it does not say; `holds` which of the terms looked for:
    bit n is that of `Hits.weights[n]`.
    """

    id: str
    score: float
    session_id: str
    place: int
    at: float
    flow: str
    user: str
    outcome: str
    words: int = 0
    holds: int = 0


class Hits(msgspec.Struct, gc=False, frozen=True):
    """The best that one way of looking found, best first; `total` are all that match, at least so many if `more`.

    `warnings` are sentences for people: what could not be looked at. `weights` are what the terms weigh that hits may
    hold, by their rarity; none where it is not known which hold which.
    """

    hits: tuple[Hit, ...] = ()
    total: int = 0
    more: bool = False
    warnings: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


class Reach(NamedTuple):
    """How far an index has come: where to read the feed on, by shard (None: it must be filled from all sessions first),
    and a number that grows with every turn that comes in (`HistoryQuery.seen`)."""

    places: Mapping[int, str] | None
    sequence: int


class Found(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One turn as people see it: its facts, the question, an `excerpt` of the answer around what was found.

    `question_marks` and `excerpt_marks` are offsets (start, end) of the words looked for, into exactly these texts.
    """

    turn_id: str
    session_id: str
    at: float
    question: str
    excerpt: str
    score: float
    question_marks: tuple[tuple[int, int], ...] = ()
    excerpt_marks: tuple[tuple[int, int], ...] = ()
    flow: str = ""
    user: str = ""
    outcome: str = ""
    tags: tuple[str, ...] = ()
    place: int = 0


class HistoryPage(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a search found; `cursor` continues it, "" at its end. `total` is exact unless `more_than_total`.

    `facets` counts what was found by `flow`, `user`, `outcome` and `day` (UTC, `yyyy-mm-dd`), most first. `mode` is how
    it compared in fact (words alone where there is no embedder). `behind` events were not in the index yet.
    """

    found: tuple[Found, ...] = ()
    total: int = 0
    more_than_total: bool = False
    facets: Mapping[str, Mapping[str, int]] = {}
    cursor: str = ""
    mode: SearchMode = SearchMode.WORDS
    index: str = "local"
    behind: int = 0
    elapsed_ms: float = 0.0
    warnings: tuple[str, ...] = ()


class IndexState(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What an index holds. `building` is the share done of a rebuild under way (None: none); `embedder` names whose
    vectors are counted, "" without one. `where` is a path or a server's address."""

    kind: str
    where: str = ""
    sessions: int = 0
    turns: int = 0
    vectors: int = 0
    size_bytes: int = 0
    behind: int = 0
    built_at: float = 0.0
    building: float | None = None
    embedder: str = ""
    warnings: tuple[str, ...] = ()


class SessionMark(msgspec.Struct, gc=False, frozen=True):
    """How far an index has come with one session: where in its stream, and how many turns it has numbered."""

    stream_id: str = ""
    turns: int = 0


class EngineDoc(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A turn as the store keeps it for the query engine: its name, what is counted of it, and the hash's fields."""

    session_id: str
    turn_id: str
    flow: str
    words: int
    fields: Mapping[str, str | bytes | float]


class EngineState(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What is known of a tenant's documents for the query engine.

    `release` is the layout that they were written in (0: there are none), `docs` and `words` are how many there are,
    `sequence` the number of the newest, `places` where the feed was read to, by shard. `embedders` are those whose
    vectors are kept, by fingerprint, with their dimensions (0 until the first vector), the newest first; `flows` all
    flows that were ever among the documents. `large`: so many vectors that they are found by a graph. `veil` names what
    their words are hidden with, "" where they are not.
    """

    release: int = 0
    docs: int = 0
    words: int = 0
    sequence: int = 0
    places: Mapping[int, str] = {}
    embedders: Mapping[str, int] = {}
    flows: frozenset[str] = frozenset()
    large: bool = False
    veil: str = ""


class EngineFound(msgspec.Struct, gc=False, frozen=True):
    """A document that the query engine found: its name, its score (or distance), and the fields asked for."""

    name: str
    score: float
    fields: Mapping[bytes, bytes]


class EnginePage(msgspec.Struct, gc=False, frozen=True):
    """What the query engine found, and how many match in all."""

    found: tuple[EngineFound, ...] = ()
    total: int = 0


class FeedPage(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Events that came in since an index last looked, put together by session; nothing is said twice.

    `places` is where to read on, by shard; `trimmed` are the shards of which events are lost, so that their sessions
    must be read anew. `more`: the page was full, there may be further events.
    """

    grown: tuple[str, ...] = ()  # sessions that got turns
    turns: tuple[tuple[str, str], ...] = ()  # (session, turn) that they got
    gone: tuple[str, ...] = ()  # sessions that were deleted, before or after they grew
    gone_turns: tuple[tuple[str, str], ...] = ()  # (session, turn)
    changed: tuple[str, ...] = ()  # sessions with other tags or another title
    places: Mapping[int, str] = {}
    trimmed: tuple[int, ...] = ()
    events: int = 0
    more: bool = False

"""Searching what was asked and answered: the way of a search, from what was typed to a page.

Invariant: a search sees every turn that was acknowledged before it began, and nothing that its caller may not see; what
it could not see (turns in the outbox, an index that another process holds, turns without a vector) it says. The record
is in Redis: an index that is damaged, or of another embedder, is made anew from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import EmbedderError, IndexUnusable, InputError, StoreError
from agentic_flywheel.findings import (
    Found,
    HistoryDoc,
    HistoryPage,
    HistoryQuery,
    Hit,
    Hits,
    IndexState,
    SearchMode,
    SearchSort,
)
from agentic_flywheel.flights import Flights
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.indexing import Freshness, Indexing, Progress
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.visibility import sight_of
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.search.history.fusion import fused
from agentic_flywheel.search.history.highlights import excerpt_of, marks_of
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.search.history.query import filter_value, parse_query
from agentic_flywheel.search.history.spoken import vector_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.folders import data_folder
from agentic_flywheel.store.keys import safe
from agentic_flywheel.store.store import Store

#: Most turns on one page, and how many of the best of each way of looking are put together, counted and paged through.
LONGEST_PAGE = 100
POOL = 400
LISTED = 2000
#: A turn is not near by meaning below this cosine, unless it is found by its words as well: questions that have nothing
#: to do with each other lie about 0 with MiniLM, distantly related ones about .2.
FLOOR = 0.12
#: Sorted by time, only turns at least this near to the best one are shown.
_GOOD = 0.4
#: What a search may spend on vectors that turns lack still, in seconds, and what it waits for an embedder to load.
_EMBED_SECONDS = 0.5
_LOAD_SECONDS = 5.0
_TOGETHER = 16
_KEPT = 64

_OLD = "Redis does not answer: what is found is what this machine's index held before ({})."
_WAITING = "{} turn(s) wait in the local outbox until Redis is back; they cannot be found yet."
_NO_VECTORS = "Some turns have no vectors yet: they are found by their words alone."
_WORDS_ONLY = "Only words were compared: {}."
_MADE_ANEW = "The index was damaged and has been made anew from Redis."

_T = TypeVar("_T")


class History:
    """What one tenant asked and was answered, searchable."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        behind: WriteBehind,
        embedding: Embedding,
        flights: Flights,
        *,
        background: bool,
    ) -> None:
        self._user = settings.text("user")
        self._registry = registry
        self._store = store
        self._behind = behind
        self._embedding = embedding
        self._flights = flights
        self._settings = settings
        self._background = background
        self._embedding_all: asyncio.Task[int] | None = None
        self._lists: OrderedDict[str, _Ranked] = OrderedDict()

    @cached_property
    def _index(self) -> HistoryIndex:
        from agentic_flywheel.search.history.local_index import LocalIndex

        return LocalIndex(index_folder(self._settings, self._store))

    @cached_property
    def _indexing(self) -> Indexing:
        return Indexing(self._store, self._index, self._flights)

    async def search(
        self,
        query: str,
        *,
        mode: SearchMode | str = SearchMode.BOTH,
        flow: str | None = None,
        user: str | None = None,
        session: str | None = None,
        outcome: str | None = None,
        tag: str | None = None,
        since: str | float | None = None,
        until: str | float | None = None,
        limit: int = 10,
        cursor: str = "",
        sort: SearchSort | str = SearchSort.RELEVANCE,
    ) -> HistoryPage:
        """The turns that fit a query best: words, "phrases", -not, and filters as in the text (`flow:docs since:2d`).

        `user` is who searches ("" for nobody in particular: the operator, who sees all but what sessions keep for
        themselves); to find one person's turns, write `user:ann`. `since` and `until` are dates, durations ("2 days")
        or epoch seconds. `cursor` is the one of the page before. Without any word, what the filters leave is listed,
        newest first. Raises `InputError`, `IndexUnusable`; trouble with Redis or the embedder is said in `warnings`.
        """
        started = time.perf_counter()
        filters = {
            "flow": flow, "session": session, "outcome": outcome, "tag": tag, "since": since, "until": until,
        }  # fmt: skip
        asked = self._understood(query, filters, mode=mode, sort=sort, limit=limit, caller=user)
        place = _Place.read(cursor, asked)
        fresh, warnings = await self._freshened()
        asked, ranked = await self._safely(lambda: self._ranked(asked, place), warnings)
        page = ranked.hits[place.offset : place.offset + limit]
        docs = await self._safely(lambda: self._index.docs([hit.id for hit in page]), warnings)
        after = place.offset + len(page)
        return HistoryPage(
            found=tuple(_found(docs[hit.id], hit.score, asked) for hit in page if hit.id in docs),
            total=ranked.total,
            more_than_total=ranked.more,
            facets=ranked.facets,
            cursor=str(place.after(asked, after)) if after < len(ranked.hits) else "",
            mode=ranked.mode,
            index=self._index.kind,
            behind=fresh.behind,
            elapsed_ms=(time.perf_counter() - started) * 1000,
            warnings=(*asked.notes, *warnings, *ranked.warnings),
        )

    async def state(self) -> IndexState:
        """What the index holds, after catching up."""
        fresh, warnings = await self._freshened()
        name, fingerprint = "", ""
        if await self._embedding.ready(0.0):
            name, fingerprint = self._embedding.embedder.name, self._embedding.embedder.fingerprint
        held = await self._safely(lambda: self._index.state(fingerprint), warnings)
        return msgspec.structs.replace(
            held, behind=fresh.behind, building=self._indexing.building, embedder=name, warnings=tuple(warnings)
        )

    async def rebuild(self, progress: Progress | None = None) -> IndexState:
        """Make the index anew from Redis, vectors included; `progress` is told of every step. Raises `StoreError`."""
        await self._behind.flush_turns()
        await self._safely(lambda: self._indexing.rebuild(progress), [])
        if await self._embedding.ready(_LOAD_SECONDS):
            held = await self._index.state(self._embedding.embedder.fingerprint)
            await self._embed(None, lambda made: progress and progress("vectors", held.vectors + made, held.turns))
        return await self.state()

    async def aclose(self) -> None:
        """Release the index. Safe to call twice."""
        if "_index" in self.__dict__:
            await self._index.aclose()

    def _understood(
        self,
        text: object,
        filters: Mapping[str, str | float | None],
        *,
        mode: SearchMode | str,
        sort: SearchSort | str,
        limit: int,
        caller: str | None,
    ) -> HistoryQuery:
        if not isinstance(text, str):
            raise InputError(f"a query is text, not {type(text).__name__}")
        if not 1 <= limit <= LONGEST_PAGE:
            raise InputError(f"a page holds 1 to {LONGEST_PAGE} turns, not {limit}")
        now = time.time()
        given: dict[str, Any] = {
            name: value if isinstance(value, int | float) else filter_value(name, value, now=now)
            for name, value in filters.items()
            if value is not None and value != ""
        }
        caller = self._user if caller is None else caller
        if caller:
            admit_id(caller, "user")
        query = parse_query(text, now=now)
        query = msgspec.structs.replace(
            query, **given, mode=_one_of(SearchMode, mode), sort=_one_of(SearchSort, sort), limit=limit
        )
        sharing = {key: spec.sharing for key, spec in self._registry.current().flows.items()}
        return msgspec.structs.replace(query, sight=sight_of(caller, session=query.session, sharing=sharing))

    async def _freshened(self) -> tuple[Freshness, list[str]]:
        """Bring the index up to date; how far that went, and what people should know."""
        warnings: list[str] = []
        fresh = Freshness()
        try:
            await self._behind.flush_turns()
            await self._store.outbox.settle()
            fresh = await self._safely(self._indexing.catch_up, warnings)
            warnings += fresh.warnings
        except StoreError as error:
            warnings.append(_OLD.format(error.message))
        if waiting := sum(map(len, (await self._store.outbox.sessions()).values())):
            warnings.append(_WAITING.format(waiting))
        return fresh, warnings

    async def _safely(self, work: Callable[[], Awaitable[_T]], warnings: list[str]) -> _T:
        """Work on the index; where it is damaged, make it anew and try once more."""
        try:
            return await work()
        except IndexUnusable as error:
            if not error.damaged:
                raise
        await self._index.discard()
        await self._indexing.catch_up()
        warnings.append(_MADE_ANEW)
        return await work()

    async def _ranked(self, query: HistoryQuery, place: _Place) -> tuple[HistoryQuery, _Ranked]:
        """Everything that fits, best first; kept for the pages that follow."""
        seen = await self._index.sequence() if place.seen is None else place.seen
        query = msgspec.structs.replace(query, seen=seen)
        name = f"{seen}-{_digest(query)}"
        kept = self._lists.pop(name, None) if place.offset else None
        ranked = kept or await self._looked(query)
        self._lists[name] = ranked
        if len(self._lists) > _KEPT:
            self._lists.popitem(last=False)
        return query, ranked

    async def _looked(self, query: HistoryQuery) -> _Ranked:
        if not query.worded and not query.text:
            listed = await self._index.listed(query, offset=0, count=LISTED)
            return _Ranked.of(listed.hits, listed.total, len(listed.hits) < listed.total, query.mode)
        vector, embedder = None, ""
        warnings: list[str] = []
        if query.mode is not SearchMode.WORDS:
            vector, embedder, warnings = await self._vector(query)
        words = meaning = Hits()
        if query.mode is not SearchMode.MEANING or vector is None:
            words = await self._index.words(query, count=POOL)
        if vector is not None:
            near = await self._index.meaning(query, vector, embedder=embedder, count=POOL)
            known = {hit.id for hit in words.hits}
            kept = tuple(hit for hit in near.hits if hit.score >= FLOOR or hit.id in known)
            meaning = Hits(kept, len(kept), near.more and len(kept) == len(near.hits))
        mode = SearchMode.WORDS if vector is None else query.mode
        hits = fused(words.hits, meaning.hits)
        if query.sort is SearchSort.TIME and hits:
            good = [hit for hit in hits if hit.score >= _GOOD * hits[0].score]
            hits = sorted(good, key=lambda hit: (-hit.at, -hit.score, hit.id))
        return _Ranked.of(hits, len(hits), words.more or meaning.more, mode, warnings)

    async def _vector(self, query: HistoryQuery) -> tuple[Any, str, list[str]]:
        """The query's vector and its embedder, or None and why; turns that lack vectors are given some first."""
        if not await self._embedding.ready(_LOAD_SECONDS):
            return None, "", [_WORDS_ONLY.format(self._embedding.why)]
        fingerprint = self._embedding.embedder.fingerprint
        warnings: list[str] = []
        try:
            made_all = await self._embed(_EMBED_SECONDS)
            vector = await vector_of(query.text, self._embedding)
        except EmbedderError as error:
            return None, "", [_WORDS_ONLY.format(error.message)]
        if not made_all:
            warnings.append(_NO_VECTORS)
            if self._background and (self._embedding_all is None or self._embedding_all.done()):
                self._embedding_all = self._flights.go_on(self._embed_quietly())
        return vector, fingerprint, warnings

    async def _embed(self, seconds: float | None, told: Callable[[int], object] = lambda _: None) -> bool:
        """Give turns the vectors that they lack, newest first, for so long (None: all); whether all have one."""
        fingerprint = self._embedding.embedder.fingerprint
        until = time.monotonic() + (seconds or 0.0)
        made = 0
        while lacking := await self._index.lacking(fingerprint, count=_TOGETHER):
            if seconds is not None and time.monotonic() >= until:
                return False
            vectors = await self._embedding.embed_many([question for _, question in lacking])
            raw = {id_: vector.astype("<f2").tobytes() for (id_, _), vector in zip(lacking, vectors, strict=True)}
            await self._index.add_vectors(fingerprint, raw)
            made += len(raw)
            told(made)
        return True

    async def _embed_quietly(self) -> int:
        """As `_embed`, in the background; what goes wrong is said to whoever searches next."""
        try:
            return int(await self._embed(None))
        except (EmbedderError, IndexUnusable):
            return 0


def index_folder(settings: Settings, store: Store) -> Path:
    """Where the local index of a tenant on a Redis lies."""
    return data_folder(settings) / "index" / store.outbox.path.name / safe(settings.text("tenant"))


class _Ranked(NamedTuple):
    """A search's whole list."""

    hits: Sequence[Hit]
    total: int
    more: bool
    facets: Mapping[str, Mapping[str, int]]
    mode: SearchMode
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, hits: Sequence[Hit], total: int, more: bool, mode: SearchMode, warnings: Sequence[str] = ()) -> _Ranked:
        days = Counter(datetime.fromtimestamp(hit.at, UTC).strftime("%Y-%m-%d") for hit in hits)
        facets = {
            "flow": Counter(hit.flow for hit in hits if hit.flow),
            "user": Counter(hit.user for hit in hits if hit.user),
            "outcome": Counter(hit.outcome for hit in hits if hit.outcome),
            "day": days,
        }
        counted = {name: dict(counts.most_common()) for name, counts in facets.items()}
        return cls(hits, total, more, counted, mode, tuple(warnings))


class _Place(NamedTuple):
    """Where a list goes on: what the index held when it began, and how much of it was shown."""

    seen: int | None
    offset: int
    digest: str

    @classmethod
    def read(cls, cursor: str, query: HistoryQuery) -> _Place:
        """The cursor as `str` wrote it, for this very search. Raises `InputError`."""
        if not cursor:
            return cls(None, 0, "")
        seen, _, rest = cursor.partition("-")
        offset, _, digest = rest.partition("-")
        if not (seen.isdecimal() and offset.isdecimal() and len(cursor) < 60) or digest != _digest(query):
            raise InputError(f"{cursor[:60]!r} is not a cursor of this search; start again without one")
        return cls(int(seen), int(offset), digest)

    def after(self, query: HistoryQuery, offset: int) -> _Place:
        return _Place(query.seen, offset, _digest(query))

    def __str__(self) -> str:
        return f"{self.seen}-{self.offset}-{self.digest}"


def _digest(query: HistoryQuery) -> str:
    """What tells one search from another, whatever page of it. "2 days" ago is another moment a second later, so times
    are left out."""
    plain = msgspec.structs.replace(query, cursor="", limit=1, seen=None, notes=(), since=None, until=None)
    return blake2b(msgspec.msgpack.encode(plain), digest_size=6).hexdigest()


_E = TypeVar("_E", bound=StrEnum)


def _one_of(kind: type[_E], value: str) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        choices = ", ".join(kind)
        raise InputError(f"{value!r} is none of {choices}", suggestions=(f"Choose one of {choices}.",)) from error


def _found(doc: HistoryDoc, score: float, query: HistoryQuery) -> Found:
    excerpt, excerpt_marks = excerpt_of(doc.answer, query)
    return Found(
        turn_id=doc.turn_id,
        session_id=doc.session_id,
        at=doc.at,
        question=doc.question,
        excerpt=excerpt,
        score=score,
        question_marks=marks_of(doc.question, query),
        excerpt_marks=excerpt_marks,
        flow=doc.flow,
        user=doc.user,
        outcome=doc.outcome,
        tags=doc.tags,
        place=doc.place,
    )

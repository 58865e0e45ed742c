"""Searching what was asked and answered: the way of a search, from what was typed to a page.

Invariant: a search sees every turn that was acknowledged before it began, and nothing that its caller may not see; what
it could not see (turns in the outbox, an index that another process holds, turns without a vector) it says. The record
is in Redis: an index that is damaged, or of another embedder, is made anew from it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import EmbedderError, IndexUnusable, InputError, StoreError, StoreUnavailable, UnknownFlow
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
from agentic_flywheel.history_indexes import HistoryIndexes
from agentic_flywheel.history_pages import Place, Ranked, digest_of
from agentic_flywheel.indexing import Freshness, Indexing, Progress
from agentic_flywheel.model import Receipt
from agentic_flywheel.policy.admission import admit_id, admit_text
from agentic_flywheel.policy.visibility import sight_of
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.search.history.fusion import bonus_of, fused
from agentic_flywheel.search.history.highlights import excerpt_of, marks_of
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.search.history.query import filter_value, parse_query
from agentic_flywheel.search.history.spoken import vector_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.store import Store

#: Most turns on one page, and how many of the best of each way of looking are put together, counted and paged through.
LONGEST_PAGE = 100
POOL = 400
LISTED = 2000
#: In a history of more turns than this, fewer are put together where no session is named: neighbours of good turns
#: hardly come up among so many, and what is read of every candidate makes up half of a search.
LARGE = 20_000
POOL_OF_MANY = 200
#: Where turns are so short that a neighbour counts at least so much (`fusion.bonus_of`), those beside so many of the
#: best are candidates as well, whatever words they hold. Words in one conversation of LoCoMo without names: R@5 and
#: R@10 59.3 and 64.5 -> 61.1 and 68.9. Where turns are paragraphs (BEAM: .09) nothing is gained by it.
_BESIDE = 10
_TELLING = 0.2
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
_BEHIND = "The index could not be brought up to date, the newest turns may be missing ({})."
_WAITING = "{} turn(s) wait in the local outbox until Redis is back; they cannot be found yet."
_NO_VECTORS = "Some turns have no vectors yet: they are found by their words alone."
_WORDS_ONLY = "Only words were compared: {}."
_MADE_ANEW = "The index was damaged and has been made anew from Redis."
_NO_FLOW = "The registry has no flow {}."
_ANOTHER_FLOW = "The registry has no flow {}; did you mean {}?"
_NO_TIME = "What is asked for ends before it begins: since is later than until."
_KEPT_TURNS = "The turns themselves stay: the index is made anew from them when it is next needed."

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
        self._background = background
        self._embedding_all: asyncio.Task[int] | None = None
        self._lists: OrderedDict[str, Ranked] = OrderedDict()
        self.indexes = HistoryIndexes(settings, store, flights)

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
        place = Place.read(cursor, asked)
        indexing = await self.indexes.used()
        index = indexing.index
        fresh, warnings = await self._freshened(indexing)
        asked, ranked = await self._safely(lambda: self._ranked(indexing, asked, place), indexing, warnings)
        page = ranked.hits[place.offset : place.offset + limit]
        docs = await self._safely(lambda: index.docs([hit.id for hit in page]), indexing, warnings)
        why = () if ranked.total else self._why_nothing(asked)
        after = place.offset + len(page)
        return HistoryPage(
            found=tuple(_found(docs[hit.id], hit.score, asked) for hit in page if hit.id in docs),
            total=ranked.total,
            more_than_total=ranked.more,
            facets=ranked.facets,
            cursor=str(place.after(asked, after)) if after < len(ranked.hits) else "",
            mode=ranked.mode,
            index=index.kind,
            behind=fresh.behind,
            elapsed_ms=(time.perf_counter() - started) * 1000,
            warnings=tuple(dict.fromkeys((*asked.notes, *warnings, *ranked.warnings, *why))),
        )

    def _why_nothing(self, query: HistoryQuery) -> tuple[str, ...]:
        """What in the filters of a search that found nothing cannot be meant."""
        why = []
        if query.flow:
            try:
                self._registry.current().get(query.flow, inactive=True)
            except UnknownFlow as error:
                nearest = error.details.get("nearest")
                said = _ANOTHER_FLOW if nearest else _NO_FLOW
                why.append(said.format(repr(query.flow), repr(nearest[0]) if nearest else ""))
        if query.since is not None and query.until is not None and query.since >= query.until:
            why.append(_NO_TIME)
        return tuple(why)

    async def state(self) -> IndexState:
        """What the index holds, after catching up."""
        indexing = await self.indexes.used()
        fresh, warnings = await self._freshened(indexing)
        name, fingerprint = "", ""
        if await self._embedding.ready(_LOAD_SECONDS):
            name, fingerprint = self._embedding.embedder.name, self._embedding.embedder.fingerprint
        held = await self._safely(lambda: indexing.index.state(fingerprint), indexing, warnings)
        return msgspec.structs.replace(
            held,
            behind=fresh.behind,
            building=indexing.building,
            embedder=name,
            warnings=tuple(dict.fromkeys((*warnings, *held.warnings))),
        )

    async def rebuild(self, progress: Progress | None = None) -> IndexState:
        """Make the index anew from Redis, vectors included; `progress` is told of every step. Raises `StoreError`."""
        indexing = await self.indexes.used()
        await self._behind.flush_turns()
        await self._safely(lambda: indexing.rebuild(progress), indexing, [])
        if await self._embedding.ready(_LOAD_SECONDS):
            held = await indexing.index.state(self._embedding.embedder.fingerprint)
            told = partial(_tell, progress, held.vectors, held.turns)
            await self._embed(indexing.index, None, told)
        return await self.state()

    async def drop(self, *, dry_run: bool) -> Receipt:
        """Give the index up that is in use; where it was the server's, `auto` uses the local one from then on."""
        indexing = await self.indexes.used()
        held = await self._safely(lambda: indexing.index.state(""), indexing, [])
        if not dry_run:
            await indexing.drop()
            self.indexes.reconsider()
        return Receipt(
            action="drop index",
            target=f"{held.kind} {held.where}",
            dry_run=dry_run,
            removed={"indexed turns": held.turns},
            notes=(_KEPT_TURNS,),
            at=time.time(),
        )

    async def aclose(self) -> None:
        """Release the index. Safe to call twice."""
        await self.indexes.aclose()

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
            name: value if isinstance(value, int | float) else filter_value(name, admit_text(value, name), now=now)
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
        if query.flow:
            query = msgspec.structs.replace(query, flow=self._key_of(query.flow))
        sharing = {key: spec.sharing for key, spec in self._registry.current().flows.items()}
        return msgspec.structs.replace(query, sight=sight_of(caller, session=query.session, sharing=sharing))

    def _key_of(self, flow: str) -> str:
        """The key of a flow that is named as it may be anywhere; what the registry does not know stays as it is."""
        try:
            return self._registry.current().get(flow, inactive=True).key
        except UnknownFlow:
            return flow

    async def _freshened(self, indexing: Indexing) -> tuple[Freshness, list[str]]:
        """Bring the index up to date; how far that went, and what people should know."""
        warnings: list[str] = []
        fresh = Freshness()
        try:
            await self._behind.flush_turns()
            await self._store.outbox.settle()
            fresh = await self._safely(indexing.catch_up, indexing, warnings)
            warnings += fresh.warnings
        except StoreError as error:
            if isinstance(error, StoreUnavailable) and indexing.index.kind != "local":
                raise
            old = _OLD if indexing.index.kind == "local" else _BEHIND
            warnings.append(old.format(error.outline))
        if waiting := sum(map(len, (await self._store.outbox.sessions()).values())):
            warnings.append(_WAITING.format(waiting))
        return fresh, warnings

    async def _safely(self, work: Callable[[], Awaitable[_T]], indexing: Indexing, warnings: list[str]) -> _T:
        """Work on the index; where it is damaged, make it anew and try once more."""
        try:
            return await work()
        except IndexUnusable as error:
            if not error.damaged:
                raise
        await indexing.index.discard()
        await indexing.catch_up()
        warnings.append(_MADE_ANEW)
        return await work()

    async def _ranked(self, indexing: Indexing, query: HistoryQuery, place: Place) -> tuple[HistoryQuery, Ranked]:
        """Everything that fits, best first; kept for the pages that follow."""
        index = indexing.index
        seen = await indexing.sequence() if place.seen is None else place.seen
        query = msgspec.structs.replace(query, seen=seen)
        name = f"{index.kind}-{seen}-{digest_of(query)}"
        kept = self._lists.pop(name, None) if place.offset else None
        ranked = kept or await self._looked(index, query)
        self._lists[name] = ranked
        if len(self._lists) > _KEPT:
            self._lists.popitem(last=False)
        return query, ranked

    async def _looked(self, index: HistoryIndex, query: HistoryQuery) -> Ranked:
        if not query.worded and not query.text:
            listed = await index.listed(query, offset=0, count=LISTED)
            more = listed.more or len(listed.hits) < listed.total
            return Ranked.of(listed.hits, listed.total, more, query.mode, listed.warnings)
        pool = POOL if query.session or (query.seen or 0) <= LARGE else POOL_OF_MANY
        vector, embedder = None, ""
        warnings: list[str] = []
        if query.mode is not SearchMode.WORDS:
            vector, embedder, warnings = await self._vector(index, query)
        by_words = query.mode is not SearchMode.MEANING or vector is None
        words, near = await asyncio.gather(
            index.words(query, count=pool) if by_words else _nothing(),
            _nothing() if vector is None else index.meaning(query, vector, embedder=embedder, count=pool),
        )
        known = {hit.id for hit in words.hits}
        kept = tuple(hit for hit in near.hits if hit.score >= FLOOR or hit.id in known)
        meaning = Hits(kept, len(kept), near.more and len(kept) == len(near.hits), near.warnings)
        mode = SearchMode.WORDS if vector is None else query.mode
        best = (words.hits or meaning.hits)[:_BESIDE]
        beside: tuple[Hit, ...] = ()
        if best and not query.phrases and not query.excluded and bonus_of((*words.hits, *meaning.hits)) >= _TELLING:
            beside = await index.beside(query, best)
        hits = fused(words.hits, meaning.hits, beside, weights=words.weights)
        if query.sort is SearchSort.TIME and hits:
            good = [hit for hit in hits if hit.score >= _GOOD * hits[0].score]
            hits = sorted(good, key=lambda hit: (-hit.at, -hit.score, hit.id))
        said = (*warnings, *words.warnings, *meaning.warnings)
        return Ranked.of(hits, len(hits), words.more or meaning.more, mode, said)

    async def _vector(self, index: HistoryIndex, query: HistoryQuery) -> tuple[Any, str, list[str]]:
        """The query's vector and its embedder, or None and why; turns that lack vectors are given some first."""
        if not await self._embedding.ready(_LOAD_SECONDS):
            return None, "", [_WORDS_ONLY.format(self._embedding.why)]
        fingerprint = self._embedding.embedder.fingerprint
        warnings: list[str] = []
        try:
            made_all = await self._embed(index, _EMBED_SECONDS)
            vector = await vector_of(query.text, self._embedding)
        except EmbedderError as error:
            return None, "", [_WORDS_ONLY.format(error.outline)]
        if not made_all:
            warnings.append(_NO_VECTORS)
            if self._background and (self._embedding_all is None or self._embedding_all.done()):
                self._embedding_all = self._flights.go_on(self._embed_quietly(index))
        return vector, fingerprint, warnings

    async def _embed(
        self, index: HistoryIndex, seconds: float | None, told: Callable[[int], object] = lambda _: None
    ) -> bool:
        """Give turns the vectors that they lack, newest first, for so long (None: all); whether all have one."""
        fingerprint = self._embedding.embedder.fingerprint
        until = time.monotonic() + (seconds or 0.0)
        made = 0
        while lacking := await index.lacking(fingerprint, count=_TOGETHER):
            if seconds is not None and time.monotonic() >= until:
                return False
            vectors = await self._embedding.embed_many([question for _, question in lacking])
            raw = {id_: vector.astype("<f2").tobytes() for (id_, _), vector in zip(lacking, vectors, strict=True)}
            await index.add_vectors(fingerprint, raw)
            made += len(raw)
            told(made)
        return True

    async def _embed_quietly(self, index: HistoryIndex) -> int:
        """As `_embed`, in the background; what goes wrong is said to whoever searches next."""
        try:
            return int(await self._embed(index, None))
        except (EmbedderError, IndexUnusable, StoreError):
            return 0


async def _nothing() -> Hits:
    return Hits()


def _tell(progress: Progress | None, before: int, total: int, made: int) -> None:
    if progress is not None:
        progress("vectors", before + made, total)


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

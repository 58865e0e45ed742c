"""The query engine's index of history: a `HistoryIndex` on the server, shared by all machines; none has a copy.

Invariant: it holds what the local index would hold and ranks it by the same rule, so nothing above can tell which one
it was, but for two things: it is gone while Redis is away (`StoreUnavailable`), and what is deleted leaves it at once
(`HistoryDocs.remove`), whether or not anybody searches. Texts are read from the sessions themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import IndexUnusable
from agentic_flywheel.findings import (
    ANSWER_CHARACTERS,
    Audience,
    EngineFound,
    EngineState,
    HistoryDoc,
    HistoryQuery,
    Hit,
    Hits,
    IndexState,
    Reach,
    SessionMark,
)
from agentic_flywheel.search.history import engine_query, engine_words
from agentic_flywheel.search.history.engine_docs import Facts, digests, engine_doc, facts_of, hit_of, token
from agentic_flywheel.store.history_engine import RELEASE, has_vectors
from agentic_flywheel.store.keys import SHARDS
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Vector

#: What a list of the newest looks through, in days before its end, until it has found enough: one look at everything
#: holds the server up for 40 ms with 100,000 turns.
_SPANS = (1.0, 14.0, 180.0)
_NEWER = "the index of history in Redis was written by a newer release (layout {}, this one writes {})"
_REMEMBERED = 10_000


class EngineIndex:
    """A `HistoryIndex` on the server of a store."""

    kind = "engine"

    def __init__(self, store: Store, *, veil: str = "") -> None:
        """`veil` names what words are hidden with (`veiled_index`); documents of another one are made anew."""
        self._veil = veil
        self._sessions = store.sessions
        self._docs = store.history
        self._engine = store.history_engine
        self._lease = store.history_lease
        self._where = store.link.address.shown
        self._vocabulary = _Vocabulary()

    @asynccontextmanager
    async def writing(self, *, patience: float) -> AsyncIterator[bool]:
        """Be the one that brings the index up to date; False where another still is after `patience` seconds."""
        async with self._lease.held(patience=patience) as mine:
            yield mine

    async def reach(self) -> Reach:
        """How far it has come."""
        state = await self._docs.state()
        _check(state, self._veil)
        return Reach(state.places if len(state.places) == SHARDS else None, state.sequence)

    async def discard(self) -> None:
        """Throw away what is damaged, with documents that nothing knows of but the engine."""
        await self._engine.drop(orphans=True)
        await self._anew()

    async def clear(self) -> None:
        """Forget everything."""
        await self._engine.drop(orphans=False)
        await self._anew()

    async def _anew(self) -> None:
        await self._docs.clear(keep=True)
        await self._docs.begin(RELEASE, veil=self._veil)
        await self._engine.make(await self._docs.state())
        self._vocabulary = _Vocabulary()

    async def drop(self) -> None:
        """Give it up: nothing of it is left in Redis."""
        await self._engine.drop(orphans=True)
        await self._docs.clear(keep=False)

    async def keep_places(self, places: Mapping[int, str]) -> None:
        """Remember where to read on."""
        await self._docs.keep_places(places, token=self._lease.token)

    async def marks(self, sessions: Sequence[str]) -> dict[str, SessionMark]:
        """How far it has come with these sessions."""
        return await self._docs.marks(sessions)

    async def sessions(self) -> list[str]:
        """All sessions that it knows."""
        return await self._docs.sessions()

    async def apply(self, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark]) -> None:
        """Take turns in, then note how far it has come."""
        await self._docs.take([engine_doc(doc) for doc in docs], marks)

    async def remove(self, *, sessions: Sequence[str] = (), turns: Sequence[tuple[str, str]] = ()) -> None:
        """Forget sessions and turns."""
        await self._docs.remove(sessions=sessions, turns=turns)

    async def scrub(self) -> bool:
        """Nothing of a removed document is left in Redis; its words stay in the engine's memory until that is tidied by
        the engine itself, and never reach a disk."""
        return True

    async def retag(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Give sessions other tags."""
        await self._docs.retag({session: digests(own) for session, own in tags.items()})

    async def words(self, query: HistoryQuery, *, count: int) -> Hits:
        """The best turns by words."""
        unknown = self._vocabulary.unknown(query.terms)
        looked = await self._engine.look([token(term) for term in unknown])
        counts = self._vocabulary.learn(looked.state, dict(zip(unknown, looked.counts, strict=True)), query.terms)
        scope = engine_query.scope_of(query, looked.state)
        plan = engine_words.plan(query, counts, looked.state, scope)
        if not plan.expression:
            return Hits(warnings=looked.warnings)
        page = await self._engine.find(looked.name, plan.expression, fields=("m", "q", "a"), count=count)
        rows, weights = engine_words.ranked(page.found, query, counts, looked.state)
        hits = tuple(hit_of(one.name, score, facts, holds) for one, score, facts, holds in rows)
        found = _hits(hits, page.total, count, partial=plan.partial, warnings=looked.warnings)
        return msgspec.structs.replace(found, weights=weights)

    async def meaning(self, query: HistoryQuery, vector: Vector, *, embedder: str, count: int) -> Hits:
        """The nearest turns by their questions' vectors."""
        import numpy as np

        looked = await self._engine.look()
        if not has_vectors(looked.name, embedder):
            return Hits(warnings=looked.warnings)
        scope = engine_query.scope_of(query, looked.state)
        page = await self._engine.nearest(
            looked.name,
            engine_query.all_of(scope, engine_query.phrases_of(query)),
            np.asarray(vector).astype("<f2").tobytes(),
            embedder=embedder,
            fields=("m",),
            count=count,
            broad=not engine_query.narrow(query),
        )
        hits = _seen(query, page.found)
        return Hits(hits, len(hits), len(hits) == count, looked.warnings)

    async def beside(self, query: HistoryQuery, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The turns right before and after these in their sessions; tags are those of the sessions."""
        found = [facts_of(raw) for raw in (await self._docs.read([hit.id for hit in hits], "m")).values()]
        wanted = {(one.session, one.place + step) for one in found for step in (-1, 1)}
        turns = await self._sessions.beside([(one.session, one.stream) for one in found if one.stream])
        docs = await self._docs.facts(dict.fromkeys((turn.session_id, turn.id) for turn in turns))
        read = [(name, facts_of(raw), number) for name, raw, number in docs]
        return tuple(
            hit_of(name, 0.0, one)
            for name, one, number in read
            if (one.session, one.place) in wanted and engine_query.within(query, one, number)
        )

    async def listed(self, query: HistoryQuery, *, offset: int, count: int) -> Hits:
        """What the filters leave, newest first."""
        looked = await self._engine.look()
        scope = engine_query.scope_of(query, looked.state)
        end = time.time() if query.until is None else query.until
        spans = () if engine_query.narrow(query) else _SPANS
        wanted = offset + count
        for since in (*(end - 86400.0 * days for days in spans), None):
            must = "" if since is None else engine_query.between(since, query.until)
            expression = engine_query.all_of(scope, must)
            page = await self._engine.newest(looked.name, expression, fields=("m",), count=wanted)
            if page.total >= wanted:
                break
        hits = sorted(_seen(query, page.found), key=lambda hit: (-hit.at, hit.id))[offset:]
        total = page.total - (len(page.found) - len(hits) - offset)
        return Hits(tuple(hits), max(total, len(hits)), since is not None, looked.warnings)

    async def docs(self, ids: Sequence[str]) -> dict[str, HistoryDoc]:
        """The turns that hits name; those that are gone from their sessions by now are left out."""
        raw = await self._docs.read(ids, "m")
        facts = {name: facts_of(value) for name, value in raw.items()}
        named = [(one.session, one.turn) for one in facts.values()]
        holders = list(dict.fromkeys(session for session, _ in named))
        turns, headers = await asyncio.gather(
            self._sessions.read_turns(named, places=[one.stream for one in facts.values()]),
            self._sessions.headers(holders),
        )
        tags = {header.id: header.tags for header in headers}
        return {
            name: HistoryDoc(
                turn_id=one.turn,
                session_id=one.session,
                at=one.at,
                question=turn.question,
                answer=turn.answer[:ANSWER_CHARACTERS],
                flow=one.flow,
                user=one.user,
                outcome=one.outcome,
                tags=tags.get(one.session, ()),
                audience=_AUDIENCES.get(one.audience, Audience.SESSION),
                place=one.place,
                stream_id=one.stream,
            )
            for (name, one), turn in zip(facts.items(), turns, strict=True)
            if turn is not None
        }

    async def lacking(self, embedder: str, *, count: int) -> list[tuple[str, str]]:
        """Turns without a vector of this embedder, newest first."""
        while names := await self._docs.lacking(embedder, count=count):
            docs = await self.docs(names)
            gone = [name for name in names if name not in docs]
            if gone:  # from their sessions, of which nobody has told the index yet; or damaged
                await self._docs.excuse(embedder, gone)
            if docs:
                return [(name, docs[name].question) for name in names if name in docs]
        return []

    async def add_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors."""
        if not vectors:
            return
        if await self._docs.enlist(embedder, dimension=max(map(len, vectors.values())) // 2):
            await self._engine.look()  # the index that takes them is made before they come, not over all of them
        await self._docs.add_vectors(embedder, vectors)

    async def state(self, embedder: str) -> IndexState:
        """What it holds."""
        looked = await self._engine.look()
        lacking = await self._docs.lacking_count(embedder) if embedder else None
        return IndexState(
            kind=self.kind,
            where=self._where,
            sessions=await self._docs.sessions_count(),
            turns=looked.state.docs,
            vectors=looked.state.docs - lacking if lacking is not None else 0,
            size_bytes=await self._engine.size(),
            warnings=looked.warnings,
        )

    async def aclose(self) -> None:
        """Nothing is held here."""


_AUDIENCES = {"u": Audience.USER, "t": Audience.TEAM}


class _Vocabulary:
    """In how many turns terms stand; remembered until the index has grown by a tenth."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._size = 0

    def unknown(self, terms: Sequence[str]) -> list[str]:
        """Those to be counted: what is in none may be by now."""
        return [term for term in terms if not self._counts.get(term)]

    def learn(self, state: EngineState, counted: Mapping[str, int], terms: Sequence[str]) -> dict[str, int]:
        """Take counts in; those of `terms`."""
        found = {term: counted.get(term) or self._counts.get(term, 0) for term in terms}
        if not self._size <= state.docs <= self._size * 1.1 + 100 or len(self._counts) > _REMEMBERED:
            self._counts, self._size = {}, state.docs
        self._counts.update(found)
        return found


def _check(state: EngineState, veil: str) -> None:
    if state.release > RELEASE:
        raise IndexUnusable(
            _NEWER.format(state.release, RELEASE),
            suggestions=("Update this installation, or set search.index to local.",),
        )
    if 0 < state.release < RELEASE:
        raise IndexUnusable("the index of history in Redis is of an older release", damaged=True)
    if state.release and state.veil != veil:
        raise IndexUnusable("the index of history in Redis was made with another key, or with none", damaged=True)


def _seen(query: HistoryQuery, found: Sequence[EngineFound]) -> tuple[Hit, ...]:
    read: list[tuple[EngineFound, Facts]] = [(one, facts_of(one.fields[b"m"])) for one in found if b"m" in one.fields]
    return tuple(hit_of(one.name, one.score, f) for one, f in read if engine_query.allowed(query.sight, f))


def _hits(hits: tuple[Hit, ...], total: int, count: int, *, partial: bool, warnings: tuple[str, ...]) -> Hits:
    more = total > count
    return Hits(hits, total if more else len(hits), more or partial, warnings)

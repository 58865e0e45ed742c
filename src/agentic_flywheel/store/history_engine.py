"""The query engine's index over the documents of history: which one there should be, whether it is whole, searching it.

Invariant: what an index holds is compared with what there is (`EngineState.docs`) before each search, so one that is
still being built, that was lost, or from which documents were evicted, is never taken for all there is. An index has
the form that its documents need (embedders, sizes) in its name; where another form is needed, the old one goes on being
searched until the new one is whole. Expressions are made by `search.history.engine_query`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentic_flywheel.errors import IndexUnusable, StoreError
from agentic_flywheel.findings import EngineFound, EnginePage, EngineState
from agentic_flywheel.store.history_docs import HistoryDocs, vector_field
from agentic_flywheel.store.keys import Keys, short
from agentic_flywheel.store.link import Command, Link
from agentic_flywheel.store.query_engine import SEARCH_MILLISECONDS, Built, QueryEngine, Rows, is_absent
from agentic_flywheel.store.wire import Refusal

#: Raised whenever documents, or how they are indexed, change: documents of an older release are made anew.
RELEASE = 1
#: Vectors that are all compared; beyond, a graph (HNSW) finds the nearest. At 50,000 both take the server some 4 ms.
LARGE = 50_000
#: How many of the graph's vectors a search looks at, at least. Of 100,000 made-up ones it finds .95 of the exact top 10
#: and .93 of the top 100 (400: .96 of both, for a quarter more of the server's time).
_EF = 300
#: A term that is looked up for longer than this, in ms, is common: it is counted no further.
_COUNT_MILLISECONDS = 5
#: With more documents than this, the engine is asked how long its lists are: to count five words of 100,000 turns takes
#: it 3.5 ms, this .1. What was indexed anew stands in them twice until the engine tidies up.
_COUNTED = 20_000
_TOO_LATE = "timeout limit"
#: How long to wait for an index that is being built, in seconds: half a second in all.
_PAUSES = (0.005, 0.02, 0.05, 0.1, 0.15, 0.2)
#: An index lacks documents if it says so so often in a row: some may be on their way.
_SURE = 4
#: How long an index with a graph that was found whole is taken for it, in seconds for each of its documents: to say
#: how it is takes the engine 15 to 65 ms with 100,000 vectors in a graph, in which the server does nothing else, so
#: that is less than a thousandth of its time. Without a graph it takes .1 ms.
_TRUSTED_SECONDS = 0.001
#: Once an index was found to lack documents and made anew, it is not for so long, in seconds.
_ANEW_SECONDS = 600.0

_SCHEMA = (
    *("q", "TEXT", "NOSTEM", "WEIGHT", 3, "a", "TEXT", "NOSTEM"),
    *("s", "TAG", "f", "TAG", "u", "TAG", "o", "TAG", "t", "TAG", "z", "TAG"),
    *("n", "NUMERIC", "x", "NUMERIC", "SORTABLE"),
)
_BUILDING = "Redis is still building the index of history ({:.0%}): not everything is found yet."
_LOST = (
    "{} turn(s) are missing in the query engine's index: is Redis short of memory, or does it evict what it should not?"
)


class Looked(NamedTuple):
    """What a search needs to know first: what there is, which index to ask, how many documents hold each token."""

    state: EngineState
    name: str
    counts: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


class HistoryEngine:
    """The engine's index of one tenant."""

    def __init__(self, link: Link, keys: Keys, docs: HistoryDocs) -> None:
        self._link = link
        self._keys = keys
        self._docs = docs
        self._engine = QueryEngine(link)
        self._index = self._waited_for = ""
        self._anew_at = float("-inf")
        self._trusted_until = float("-inf")
        self._known = EngineState()  # as it was seen last

    async def usable(self) -> str:
        """ "" where the engine can be used, else why not. Raises `StoreError` where nobody answers."""
        return "" if await self._engine.usable() else self._engine.why_not

    async def kept(self) -> bool:
        """Whether this tenant has an index here, or had begun one."""
        return await self._docs.begun()

    async def make(self, state: EngineState) -> None:
        """Make the index over no documents; those that come are indexed as they come."""
        for name in await self._own():
            await self._engine.drop(name)
        await self._engine.create(self._name(state), self._keys.history_prefix(), _schema(state), *_OPTIONS, _EMPTY)

    async def drop(self, *, orphans: bool) -> None:
        """Remove the indexes; with `orphans`, first every document that one of them knows."""
        for name in await self._own():
            if orphans:
                while found := (await self._search(name, "*", "NOCONTENT", "LIMIT", 0, 500)).rows:
                    await self._docs.unlink([row.key for row in found])
            await self._engine.drop(name)
        self._index = self._waited_for = ""
        self._trusted_until = float("-inf")

    async def look(self, tokens: Sequence[str] = ()) -> Looked:
        """Look at what there is, and count these tokens. Raises `IndexUnusable`, `damaged` where documents are lost."""
        state, built, counts = await self._glance(tokens)
        if not state.release:
            raise IndexUnusable("there is no index of history in Redis", damaged=True)
        if state.docs > LARGE and state.embedders and not state.large:
            await self._docs.grow()
            state = await self._docs.state()
        warnings: tuple[str, ...] = ()
        if self._fits(state, built) and state.large and time.monotonic() >= self._trusted_until:
            self._trust(state)
        if not self._fits(state, built):
            before = self._index
            warnings = await self._settle(state)
            if tokens and self._index != before:
                state, built, counts = await self._glance(tokens)
        return Looked(state, self._index, counts, warnings)

    async def _glance(self, tokens: Sequence[str]) -> tuple[EngineState, Built | None, tuple[int, ...]]:
        index = self._index or self._name(EngineState())
        sized = len(tokens) > 0 and self._known.docs > _COUNTED
        counting: list[Command] = [] if sized else [_count_command(index, token) for token in tokens]
        if sized:
            counting.append(self._engine.sizes_command(index, tokens, f"(@n:[{self._known.sequence} +inf])"))
        trusted = time.monotonic() < self._trusted_until
        asked: Command = ("PING",) if trusted else self._engine.info_command(index)
        raw, flows, info, *counts = await self._link.run_each(*self._docs.state_commands(), asked, *counting, slow=True)
        if sized and (sizes := self._engine.sizes(counts[0])):
            counts = [{b"total_results": sizes.get(token, 0)} for token in tokens]
        elif sized:
            counts = await self._link.run_each(*(_count_command(index, token) for token in tokens), slow=True)
        for reply in (raw, flows):
            if isinstance(reply, Refusal):
                raise self._engine.error(reply, "HGETALL")
        state = self._known = self._docs.state_of((raw, flows))
        if trusted and any(isinstance(reply, Refusal) and is_absent(reply) for reply in counts):
            self._trusted_until = float("-inf")
            return state, None, (0,) * len(counts)
        built = Built(state.docs, False, 1.0, 0) if trusted else self._engine.built(info)
        if built is None:
            return state, None, (0,) * len(counts)
        return state, built, tuple([await self._count(index, *one) for one in zip(tokens, counts, strict=True)])

    async def _count(self, index: str, token: str, reply: Any) -> int:
        """How many documents hold a token, by the reply to what counts them. On a busy machine the time may be up
        before the engine has begun, which it refuses: then it is given all it needs."""
        if not isinstance(reply, Refusal):
            return int(reply[b"total_results"])
        if _TOO_LATE not in str(reply).lower():
            raise self._engine.error(reply, "FT.SEARCH")
        return (await self._search(index, token, "VERBATIM", "LIMIT", 0, 0)).total

    def _fits(self, state: EngineState, built: Built | None) -> bool:
        return built is not None and built.docs == state.docs and self._index == self._name(state)

    async def _settle(self, state: EngineState) -> tuple[str, ...]:
        """Find the index to ask: the one that there should be, which is made where it is missing, else an older one."""
        wanted = self._name(state)
        built = await self._built(wanted)
        if built is None:
            await self._engine.create(wanted, self._keys.history_prefix(), _schema(state), *_OPTIONS)
            self._waited_for = ""
        # Whoever sees it being built for the first time waits a little; after that, what is there is searched at once.
        patient, self._waited_for = self._waited_for != wanted, wanted
        differences: list[int] = []
        for pause in (0.0, *_PAUSES):
            await asyncio.sleep(pause)
            built, state = await self._built(wanted), await self._docs.state()
            if built is not None and built.docs == state.docs:
                self._index = wanted
                if state.large:
                    self._trust(state)
                for name in await self._own():
                    if name != wanted:
                        await self._engine.drop(name)
                return ()
            if built is not None and not built.building:
                differences.append(state.docs - built.docs)
                if differences[-_SURE:] == [differences[-1]] * _SURE:
                    self._index = wanted
                    return self._lost(differences[-1])
            elif not patient:
                break
        self._index = wanted
        for name in await self._own():
            other = await self._built(name)
            if other is not None and other.docs == state.docs:
                self._index = name
        return (_BUILDING.format(built.share if built is not None else 0.0),)

    def _trust(self, state: EngineState) -> None:
        self._trusted_until = time.monotonic() + _TRUSTED_SECONDS * state.docs

    def _lost(self, missing: int) -> tuple[str, ...]:
        now = time.monotonic()
        if now - self._anew_at < _ANEW_SECONDS:
            return (_LOST.format(missing),)
        self._anew_at = now
        raise IndexUnusable(_LOST.format(missing), damaged=True)

    async def _built(self, index: str) -> Built | None:
        (reply,) = await self._link.run_each(self._engine.info_command(index), slow=True)
        return self._engine.built(reply)

    async def size(self) -> int:
        """What the engine's index takes, in bytes, without the documents."""
        built = await self._built(self._index) if self._index else None
        return built.size_bytes if built is not None else 0

    async def find(self, index: str, expression: str, *, fields: Sequence[str], count: int) -> EnginePage:
        """The best by words (BM25)."""
        how = ("VERBATIM", "WITHSCORES", "SCORER", "BM25STD", "RETURN", len(fields), *fields, "LIMIT", 0, count)
        return self._page(await self._search(index, expression, *how))

    async def newest(self, index: str, expression: str, *, fields: Sequence[str], count: int) -> EnginePage:
        """The newest."""
        how = ("VERBATIM", "SORTBY", "x", "DESC", "RETURN", len(fields), *fields, "LIMIT", 0, count)
        return self._page(await self._search(index, expression, *how))

    async def nearest(
        self,
        index: str,
        expression: str,
        vector: bytes,
        *,
        embedder: str,
        fields: Sequence[str],
        count: int,
        broad: bool,
    ) -> EnginePage:
        """The nearest by their vectors (float16); scores are cosines. `broad`: the expression leaves most of them."""
        how = f"KNN {count} @{vector_field(embedder)} $v"
        if f":{_GRAPH}:" in index:  # an older one may still be searched while the graph is made
            how += f" EF_RUNTIME {max(_EF, count)}"
        if broad and expression != "*":
            how += " HYBRID_POLICY BATCHES"
        rows = await self._search(
            index,
            f"({expression})=>[{how} AS d]",
            *("PARAMS", 2, "v", vector, "SORTBY", "d", "RETURN", len(fields) + 1, "d", *fields, "LIMIT", 0, count),
        )
        prefix = len(self._keys.history_prefix())
        found = [
            EngineFound(row.key[prefix:], round(1.0 - float(row.fields[b"d"]), 5), row.fields)
            for row in rows.rows
            if b"d" in row.fields
        ]
        return EnginePage(tuple(found), rows.total)

    async def _search(self, index: str, expression: str, *how: Any) -> Rows:
        search: Command = ("FT.SEARCH", index, expression, *how, "TIMEOUT", SEARCH_MILLISECONDS, "DIALECT", 2)
        rows, _ = await self._engine.search(search)
        if rows is None:
            self._trusted_until = float("-inf")
            raise StoreError("the query engine's index of history went away", retry_after_seconds=1.0, index=index)
        return rows

    def _page(self, rows: Rows) -> EnginePage:
        prefix = len(self._keys.history_prefix())
        found = [EngineFound(key[prefix:], score, fields) for key, score, fields in rows.rows]
        return EnginePage(tuple(found), rows.total)

    async def _own(self) -> list[str]:
        prefix = self._keys.history("index:")
        return [name for name in await self._engine.names() if name.startswith(prefix)]

    def _name(self, state: EngineState) -> str:
        vectors = [f"{name}-{size}" for name, size in sorted(state.embedders.items()) if size]
        kind = [_GRAPH if state.large else "flat"] if vectors else []
        return self._keys.history(":".join(("index", str(RELEASE), *kind, *vectors)))


def _count_command(index: str, token: str) -> Command:
    """What to send to count a token's documents."""
    return ("FT.SEARCH", index, token, "VERBATIM", "LIMIT", 0, 0, "TIMEOUT", _COUNT_MILLISECONDS, "DIALECT", 2)


_OPTIONS = ("STOPWORDS", 0)
_GRAPH = "graph"
_EMPTY = "SKIPINITIALSCAN"


def _schema(state: EngineState) -> tuple[Any, ...]:
    schema: tuple[Any, ...] = _SCHEMA
    for name, size in sorted(state.embedders.items()):
        if size:
            kind = ("HNSW", 6) if state.large else ("FLAT", 6)
            form = ("TYPE", "FLOAT16", "DIM", size, "DISTANCE_METRIC", "COSINE")
            schema = (*schema, vector_field(name), "VECTOR", *kind, *form)
    return schema


def has_vectors(index: str, embedder: str) -> bool:
    """Whether the index of this name finds vectors of an embedder (its whole fingerprint)."""
    return f":{short(embedder)}-" in index

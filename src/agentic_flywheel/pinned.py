"""The approved answers at hand in one process: of each flow those that its FAQ serves, as of the version in Redis.

Invariant: what is looked up here is of the version that the same question read from Redis, or newer; so what a person
approves, edits or takes out holds in every process with its next question. A flow without an FAQ costs nothing. What
cannot be read within a question's patience is said to be unread, never assumed to be absent; the reading goes on and
serves the next question.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.curated import Approved, FaqBook, approved_entry
from agentic_flywheel.errors import EmbedderError, StoreDamaged, StoreError, StoreUnavailable
from agentic_flywheel.flights import Flights
from agentic_flywheel.likeness import Likeness
from agentic_flywheel.model import FlowState
from agentic_flywheel.policy.decision import Facts, Found
from agentic_flywheel.policy.faq import place_of
from agentic_flywheel.policy.identity import normalise, question_hash
from agentic_flywheel.policy.similarity.language import language_of
from agentic_flywheel.questions import Plan
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.search.protocols import Embedder
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.link import Patience
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Vector
    from agentic_flywheel.search.vectors import VectorSet

_log = logging.getLogger(__name__)


class PinnedNeighbour(msgspec.Struct, frozen=True):
    """An approved wording near a question: under which key its answer would be stored, how near, the answer itself, and
    the name that all wordings of one entry share."""

    key: str
    similarity: float
    entry: Approved
    answer: str


class _Shelf:
    """What one flow's FAQ serves: approved answers by the normal form of the question. What is as it was on the shelf
    `before` is taken over."""

    __slots__ = ("answers", "book", "names", "version", "wordings")

    def __init__(self, book: FaqBook, before: _Shelf | None = None) -> None:
        self.book = book
        self.version = book.version
        self.wordings: dict[str, list[Approved]] = {}  # by the entry's id
        for id_, entry in book.entries.items():
            if entry.published is None or entry.retired:
                continue
            if before is not None and before.book.entries.get(id_) is entry:
                self.wordings[id_] = before.wordings[id_]
                continue
            said = entry.published
            self.wordings[id_] = [approved_entry(entry, said, text, normalise(text)) for text in said.asked_as]
        self.answers: dict[str, Approved] = {}
        self.names: dict[str, str] = {}  # entry id -> its question, after which its answer is named among similar ones
        for id_, wordings in self.wordings.items():
            for answer in wordings:
                self.answers.setdefault(answer.question, answer)
            self.names[id_] = wordings[0].question


class _Nearby:
    """The vectors of one shelf's wordings, by language: a similar question is only matched within its own."""

    __slots__ = ("filling", "sets", "shelf")

    def __init__(self, shelf: _Shelf) -> None:
        self.shelf = shelf
        self.sets: dict[str, VectorSet] = {}
        self.filling: asyncio.Task[None] | None = None


class Pinned:
    """The approved answers of one tenant. Owns neither the embedding nor the store."""

    def __init__(self, store: Store, embedding: Embedding, flights: Flights) -> None:
        self._store = store
        self._embedding = embedding
        self._flights = flights
        self._shelves: dict[str, _Shelf] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._nearby: dict[str, _Nearby] = {}
        self._finding: dict[str, asyncio.Task[None]] = {}

    async def look(self, plan: Plan, state: FlowState, patience: Patience) -> Found | None:
        """The approved answer to this very question; None where there is none, or none for this asker.

        Raises `StoreError` where the flow's FAQ could not be read in time.
        """
        wanted = place_of(plan.wanted)
        if wanted is None or not state.faq:
            return None
        shelf = self._shelves.get(plan.spec.key)
        if shelf is None or shelf.version != state.faq:
            shelf = await self._current(plan.spec.key, state.faq, patience)
        entry = shelf.answers.get(wanted.question)
        return Found(wanted, entry) if entry is not None else None

    async def nearest(
        self, plan: Plan, facts: Facts, text: str, vector: Vector, *, count: int, floor: float
    ) -> list[PinnedNeighbour]:
        """The approved wordings nearest to a question, nearest first, of the FAQ that `look` has seen last; none that
        the flow has changed under since. Raises `StoreError` where their vectors cannot be read."""
        flow = plan.spec.key
        shelf = self._shelves.get(flow)
        if shelf is None or not shelf.answers or place_of(plan.wanted[:1]) is None:
            return []
        nearby = await self._vectors(flow, shelf)
        found = nearby.sets.get(language_of(text))
        if found is None:
            return []
        neighbours = []
        for near in found.nearest(vector, count=count, floor=floor, now=0.0):
            entry = nearby.shelf.answers[near.key]
            if entry.fingerprint != facts.fingerprint:
                continue
            key = self._store.keys.entry("team", flow, question_hash(near.key))
            neighbours.append(
                PinnedNeighbour(key, near.similarity, entry, question_hash(nearby.shelf.names[entry.faq]))
            )
        return neighbours

    async def embed(self, book: FaqBook) -> None:
        """Make the wordings of a flow's FAQ findable by their meaning, if there is an embedder at work; so that
        whoever asks need not. Raises `StoreError`."""
        if self._embedding.state == "ready":
            shelf = self._shelves[book.flow] = _Shelf(book, self._shelves.get(book.flow))
            nearby = await self._vectors(book.flow, shelf)
            if nearby.filling is not None:
                await nearby.filling

    async def _current(self, flow: str, version: str, patience: Patience) -> _Shelf:
        """The flow's shelf, of this version or a newer one."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(patience.left):
                await asyncio.shield(self._read(flow))
                if self._shelves[flow].version != version:  # that reading began before this version was written
                    await asyncio.shield(self._read(flow))
        except TimeoutError:
            raise StoreUnavailable(f"the FAQ of the flow {flow!r} could not be read in time") from None
        finally:
            patience.left -= clock() - began
        return self._shelves[flow]

    def _read(self, flow: str) -> asyncio.Task[None]:
        """The reading of a flow's FAQ that is under way, or a new one."""
        reading = self._reading.get(flow)
        if reading is None or reading.done():

            async def read() -> None:
                before = self._shelves.get(flow)
                book = await self._store.faq.book(flow, before.book if before else None)
                self._shelves[flow] = _Shelf(book, before)

            reading = self._reading[flow] = self._flights.go_on(read())
        return reading

    async def _vectors(self, flow: str, shelf: _Shelf) -> _Nearby:
        """The vectors of exactly this shelf. Whoever gives up does not end the reading for others."""
        while (nearby := self._nearby.get(flow)) is None or nearby.shelf is not shelf:
            finding = self._finding.get(flow)
            if finding is None or finding.done():
                finding = self._finding[flow] = self._flights.go_on(self._find(flow, shelf))
            await asyncio.shield(finding)
        return nearby

    async def _find(self, flow: str, shelf: _Shelf) -> None:
        """Read the vectors of a shelf; those that are lacking are made behind the asker's back."""
        embedder = self._embedding.embedder
        wanted = {question_hash(normal): normal for normal in shelf.answers}
        known = await self._store.faq.vectors(flow, embedder.fingerprint)
        nearby, lacking = _Nearby(shelf), []
        for name, normal in wanted.items():
            vector = _whole(known.get(name), embedder)
            if vector is None:
                lacking.append(normal)
            else:
                _put(nearby, normal, vector, embedder)
        gone = [name for name in known if name not in wanted]
        if lacking or gone:
            nearby.filling = self._flights.go_on(self._fill(flow, nearby, lacking, gone, embedder))
        self._nearby[flow] = nearby

    async def _fill(self, flow: str, nearby: _Nearby, lacking: list[str], gone: list[str], embedder: Embedder) -> None:
        try:
            texts = [nearby.shelf.answers[normal].asked for normal in lacking]
            made: Mapping[str, Any] = dict(zip(lacking, await self._embedding.embed_many(texts), strict=True))
            raw = {normal: vector.astype("<f2").tobytes() for normal, vector in made.items()}
            for normal, vector in raw.items():
                _put(nearby, normal, vector, embedder)
            named = {question_hash(normal): encode(vector) for normal, vector in raw.items()}
            await self._store.faq.put_vectors(flow, embedder.fingerprint, named, drop=gone)
        except (EmbedderError, StoreError) as error:
            _log.info("some wordings of the FAQ of flow %s are found by their exact words alone: %s", flow, error)


def _whole(raw: bytes | None, embedder: Embedder) -> bytes | None:
    """A vector as it was kept, None where it is absent or something else."""
    try:
        vector = decode(raw, bytes) if raw else b""
    except StoreDamaged:
        return None
    return vector if len(vector) == 2 * embedder.dimension else None


def _put(nearby: _Nearby, normal: str, vector: bytes, embedder: Embedder) -> None:
    from agentic_flywheel.search.vectors import VectorSet

    language = language_of(nearby.shelf.answers[normal].asked)
    if language not in nearby.sets:
        nearby.sets[language] = VectorSet(embedder.dimension)
    nearby.sets[language].extend((Likeness(normal, vector, math.inf),))

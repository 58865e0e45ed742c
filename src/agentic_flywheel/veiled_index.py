"""An index of history that learns no word: each is a keyed digest, each text is sealed.

Invariant: what people wrote reaches the index below only as digests (HMAC-SHA256 under a key of the tenant, so equal
stems stay equal and can be counted and ranked) and as sealed texts; so whoever reads its file, or the documents in
Redis, learns how often some unknown word stands where, and nothing else of it. Vectors, times, ids and names of flows
and users remain. What cannot be opened any more damages the index: it is made anew from the sessions.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import IndexUnusable, StoreDamaged
from agentic_flywheel.findings import HistoryDoc, HistoryQuery, Hit, Hits, IndexState, Reach, SessionMark
from agentic_flywheel.search.history.words import stems_of

if TYPE_CHECKING:
    from agentic_flywheel.search.history.protocols import HistoryIndex
    from agentic_flywheel.search.protocols import Vector
    from agentic_flywheel.store.sealing import Vault

_STEMS = 65_536


class Veil:
    """Makes words unreadable and texts sealed, for one tenant (`root` begins its keys) and one key."""

    def __init__(self, vault: Vault, root: str, key: str) -> None:
        self._vault = vault
        self._at = f"{root}:index"
        self._key = key
        self.stem = lru_cache(_STEMS)(self._stem)
        #: Tells apart the indexes of different keys, and nothing of the key.
        self.name = vault.digest("veil", self._at, key).hex()

    def _stem(self, stem: str) -> str:
        return "x" + self._vault.digest(f"stem {stem}", self._at, self._key)[:10].hex()

    def stems(self, stems: str) -> str:
        """A text of stems as one of digests."""
        return " ".join(map(self.stem, stems.split(" "))) if stems else ""

    def phrase(self, phrase: Sequence[str]) -> tuple[str, ...]:
        """A phrase of stems as one of digests."""
        return tuple(map(self.stem, phrase))

    def tag(self, tag: str) -> str:
        """A tag, sealed so that it can be filtered by."""
        return self._vault.same(tag, f"{self._at} tag", self._key) if tag else ""

    def text(self, text: str, session: str, turn: str) -> str:
        """A text of a turn, sealed."""
        raw = text.encode("utf-8", "surrogatepass")
        return b64encode(self._vault.seal(raw, f"{self._at} {session} {turn}")).decode()

    def wording(self, sealed: str, session: str, turn: str) -> str:
        """The digests of a text that was sealed. Raises `IndexUnusable`."""
        return self.stems(stems_of(self._opened(sealed, f"{self._at} {session} {turn}")))

    def doc(self, doc: HistoryDoc) -> HistoryDoc:
        """A turn as the index is given it."""
        return msgspec.structs.replace(
            doc,
            question=self.text(doc.question, doc.session_id, doc.turn_id),
            answer=self.text(doc.answer, doc.session_id, doc.turn_id),
            question_words=self.stems(doc.question_words),
            answer_words=self.stems(doc.answer_words),
            tags=tuple(map(self.tag, doc.tags)),
        )

    def read(self, doc: HistoryDoc) -> HistoryDoc:
        """A turn as it was given. Raises `IndexUnusable`."""
        at = f"{self._at} {doc.session_id} {doc.turn_id}"
        return msgspec.structs.replace(
            doc,
            question=self._opened(doc.question, at),
            answer=self._opened(doc.answer, at),
            tags=tuple(sorted(self._opened(tag, f"{self._at} tag") for tag in doc.tags)),
        )

    def query(self, query: HistoryQuery) -> HistoryQuery:
        """What is looked for."""
        return msgspec.structs.replace(
            query,
            terms=self.phrase(query.terms),
            phrases=tuple(tuple(map(self.phrase, variants)) for variants in query.phrases),
            excluded=tuple(map(self.phrase, query.excluded)),
            tag=self.tag(query.tag),
        )

    def _opened(self, sealed: str, at: str) -> str:
        try:
            return self._vault.opened_text(sealed, at)
        except StoreDamaged as error:
            raise IndexUnusable(f"the index of history is damaged: {error}", damaged=True) from error


class VeiledIndex:
    """A `HistoryIndex` behind a veil. `texts`: the index below keeps texts itself, which are sealed there."""

    def __init__(self, index: HistoryIndex, veil: Veil, *, texts: bool) -> None:
        self._index = index
        self._veil = veil
        self._texts = texts
        self.kind = index.kind

    def writing(self, *, patience: float) -> AbstractAsyncContextManager[bool]:
        """As the index below."""
        return self._index.writing(patience=patience)

    async def reach(self) -> Reach:
        """As the index below."""
        return await self._index.reach()

    async def discard(self) -> None:
        """As the index below."""
        await self._index.discard()

    async def clear(self) -> None:
        """As the index below."""
        await self._index.clear()

    async def drop(self) -> None:
        """As the index below."""
        await self._index.drop()

    async def keep_places(self, places: Mapping[int, str]) -> None:
        """As the index below."""
        await self._index.keep_places(places)

    async def marks(self, sessions: Sequence[str]) -> dict[str, SessionMark]:
        """As the index below."""
        return await self._index.marks(sessions)

    async def sessions(self) -> list[str]:
        """As the index below."""
        return await self._index.sessions()

    async def apply(self, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark]) -> None:
        """Take turns in, veiled."""
        await self._index.apply([self._veil.doc(doc) for doc in docs], marks)

    async def remove(self, *, sessions: Sequence[str] = (), turns: Sequence[tuple[str, str]] = ()) -> None:
        """As the index below."""
        await self._index.remove(sessions=sessions, turns=turns)

    async def retag(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Give sessions other tags, veiled."""
        await self._index.retag({session: tuple(map(self._veil.tag, own)) for session, own in tags.items()})

    async def words(self, query: HistoryQuery, *, count: int) -> Hits:
        """The best turns by words."""
        return await self._index.words(self._veil.query(query), count=count)

    async def meaning(self, query: HistoryQuery, vector: Vector, *, embedder: str, count: int) -> Hits:
        """The nearest turns by their questions' vectors."""
        return await self._index.meaning(self._veil.query(query), vector, embedder=embedder, count=count)

    async def beside(self, query: HistoryQuery, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """As the index below."""
        return await self._index.beside(self._veil.query(query), hits)

    async def listed(self, query: HistoryQuery, *, offset: int, count: int) -> Hits:
        """What the filters leave, newest first."""
        return await self._index.listed(self._veil.query(query), offset=offset, count=count)

    async def scrub(self) -> bool:
        """As the index below."""
        return await self._index.scrub()

    async def docs(self, ids: Sequence[str]) -> dict[str, HistoryDoc]:
        """The turns that hits name, as they were given."""
        found = await self._index.docs(ids)
        return {id_: self._veil.read(doc) for id_, doc in found.items()} if self._texts else found

    async def lacking(self, embedder: str, *, count: int) -> list[tuple[str, str]]:
        """Turns without a vector of this embedder."""
        found = await self._index.lacking(embedder, count=count)
        if not self._texts or not found:
            return found
        docs = await self.docs([id_ for id_, _ in found])
        return [(id_, docs[id_].question) for id_, _ in found if id_ in docs]

    async def add_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """As the index below."""
        await self._index.add_vectors(embedder, vectors)

    async def state(self, embedder: str) -> IndexState:
        """As the index below."""
        return await self._index.state(embedder)

    async def aclose(self) -> None:
        """As the index below."""
        await self._index.aclose()

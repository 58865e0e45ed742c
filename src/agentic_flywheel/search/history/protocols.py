"""What an index of history is to the rest of the system: the local one and the query engine's alike.

Invariant: an index is a view. It holds nothing that could not be read again from the sessions, applies what it is
given as often as it is given it without harm, and shows a caller nothing that the query's `sight` forbids: it filters
while it looks, so a page is as long and a count as true as if what is hidden did not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from agentic_flywheel.findings import HistoryDoc, HistoryQuery, Hit, Hits, IndexState, Reach, SessionMark
from agentic_flywheel.search.protocols import Vector


class HistoryIndex(Protocol):
    """One tenant's turns, findable. Whatever is wrong with an index itself raises `IndexUnusable`."""

    kind: str

    def writing(self, *, patience: float) -> AbstractAsyncContextManager[bool]:
        """Be the one that brings the index up to date; False where another still is after `patience` seconds."""
        ...

    async def reach(self) -> Reach:
        """How far it has come."""
        ...

    async def discard(self) -> None:
        """Throw away what is damaged; it is empty then, as after `clear`."""
        ...

    async def clear(self) -> None:
        """Forget everything: `Reach.places` is None until `keep_places`."""
        ...

    async def drop(self) -> None:
        """Give it up, with all that it takes."""
        ...

    async def keep_places(self, places: Mapping[int, str]) -> None:
        """Remember where to read on; shards that are not named stay where they are."""
        ...

    async def marks(self, sessions: Sequence[str]) -> dict[str, SessionMark]:
        """How far it has come with these sessions; those that it does not know are left out."""
        ...

    async def sessions(self) -> list[str]:
        """All sessions that it knows."""
        ...

    async def apply(self, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark]) -> None:
        """Take turns in, then note how far it has come with their sessions: a mark never runs ahead of its turns."""
        ...

    async def remove(self, *, sessions: Sequence[str] = (), turns: Sequence[tuple[str, str]] = ()) -> None:
        """Forget sessions and single turns (session, turn), without a trace of their texts."""
        ...

    async def retag(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Give sessions other tags."""
        ...

    async def words(self, query: HistoryQuery, *, count: int) -> Hits:
        """The best turns by words: any of the terms, all of the phrases, nothing excluded."""
        ...

    async def meaning(self, query: HistoryQuery, vector: Vector, *, embedder: str, count: int) -> Hits:
        """The nearest turns by their questions' vectors; scores are cosines. Phrases and exclusions hold as well."""
        ...

    async def beside(self, query: HistoryQuery, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The turns right before and after these in their sessions, as far as filters and sight leave them, without a
        score; whatever words they hold."""
        ...

    async def listed(self, query: HistoryQuery, *, offset: int, count: int) -> Hits:
        """What the filters leave, newest first."""
        ...

    async def scrub(self) -> bool:
        """See to it that nothing is left of what was removed; False where that must be tried again later."""
        ...

    async def docs(self, ids: Sequence[str]) -> dict[str, HistoryDoc]:
        """The turns that hits name, by their ids; those that are gone by now are left out."""
        ...

    async def lacking(self, embedder: str, *, count: int) -> list[tuple[str, str]]:
        """Turns without a vector of this embedder: id and question, newest first."""
        ...

    async def add_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors (float16, little endian) by the ids that `lacking` gave."""
        ...

    async def state(self, embedder: str) -> IndexState:
        """What it holds."""
        ...

    async def aclose(self) -> None:
        """Release what it holds. Safe to call twice."""
        ...

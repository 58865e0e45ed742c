"""Gives stored questions the vectors that they lack: after the first embedder came, or another one.

Invariant: askers come first: one question is embedded at a time, and only while none of theirs waits. One process does
it for all (whoever takes the flow's mark), and whoever is stopped over it is followed by another, who skips what has a
vector already. Vectors of two embedders never meet: each is kept under its embedder's name.
"""

from __future__ import annotations

import logging
import time

from agentic_flywheel.errors import EmbedderError, StoreError
from agentic_flywheel.flights import Flights
from agentic_flywheel.matching import Matching, partition_of_entry
from agentic_flywheel.model import Entry
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.store.keys import safe, scope_of_key
from agentic_flywheel.store.store import Store

#: The mark holds so long without a word from its owner, and so long once all is done.
_MARK_SECONDS = 120
_DONE_SECONDS = 86_400
_PAGE = 100

_log = logging.getLogger(__name__)


class Reembedding:
    """Catches up with the stored questions of one tenant, flow by flow."""

    def __init__(self, store: Store, matching: Matching, flights: Flights) -> None:
        self._store = store
        self._matching = matching
        self._flights = flights
        self._seen: set[tuple[str, int]] = set()

    def look(self, flow: str, generation: int) -> None:
        """A flow's similar questions are looked for: see once whether all have vectors; cheap, and nobody waits."""
        if (flow, generation) not in self._seen:
            self._seen.add((flow, generation))
            self._flights.go_on(self._catch_up(flow, generation))

    async def _catch_up(self, flow: str, generation: int) -> None:
        embedder = self._matching.fingerprint
        mark = f"embedded:{safe(flow)}:{embedder[:16]}"
        try:
            if not await self._store.take_mark(mark, seconds=_MARK_SECONDS):
                return
            made = 0
            async for page in self._store.entries.pages(flow, generation=generation, count=_PAGE):
                made += await self._embed(embedder, page)
                await self._store.prolong_mark(mark, seconds=_MARK_SECONDS)
            await self._store.prolong_mark(mark, seconds=_DONE_SECONDS)
        except (StoreError, EmbedderError) as error:
            _log.info("stored questions of flow %s wait for their vectors: %s", flow, error)
        else:
            if made:
                _log.info("flow %s: %d stored questions were given vectors", flow, made)

    async def _embed(self, embedder: str, keys: list[str]) -> int:
        looked = zip(keys, await self._store.entries.get_many(keys), strict=True)
        entries = {key: value.entry for key, value in looked if value.entry is not None and _shared(key, value.entry)}
        places = [(partition_of_entry(key, entry), key) for key, entry in entries.items()]
        lacking = await self._store.vectors.lacking(embedder, places)
        for key in lacking:
            entry = entries[key]
            if entry.created_at + entry.ttl_seconds <= time.time():
                continue
            match = await self._matching.place(key, entry)
            await self._store.link.run(*self._matching.keep_commands(match, key, entry), slow=True)
            self._matching.kept(match, key, entry)
        return len(lacking)


def _shared(key: str, entry: Entry) -> bool:
    """Whether similar questions may find an entry at all."""
    return entry.alone and not entry.withdrawn and scope_of_key(key) in {Scope.TEAM, Scope.USER}

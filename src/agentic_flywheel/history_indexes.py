"""Which index a search uses: this machine's own, or the query engine's on the server.

Invariant: `auto` never makes an index on the server by itself, since that costs memory that others need: it uses the
one that somebody has made there (`search.index: engine`), and the local one until then. Where the server's is used, no
copy is left on this machine: a file that nobody brings up to date would keep what was deleted.
"""

from __future__ import annotations

import time
from pathlib import Path

from agentic_flywheel.errors import IndexUnusable, StoreError
from agentic_flywheel.flights import Flights
from agentic_flywheel.indexing import Indexing
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.folders import data_folder
from agentic_flywheel.store.keys import safe
from agentic_flywheel.store.store import Store

#: How long `auto` holds by the local index, in seconds.
HELD_SECONDS = 10.0

_UNUSABLE = "search.index is engine, and the query engine cannot be used: {}"
_LOCALLY = "Set search.index to auto or local: history is then searched by an index on this machine."


class HistoryIndexes:
    """The indexes of one tenant as one process uses them."""

    def __init__(self, settings: Settings, store: Store, flights: Flights) -> None:
        self._settings = settings
        self._store = store
        self._flights = flights
        self._wanted = settings.text("search.index")
        self._used: Indexing | None = None
        self._until = float("-inf")

    async def used(self) -> Indexing:
        """The index to use now. Raises `IndexUnusable` where it must be the engine's and cannot, `StoreError`."""
        if self._used is None or (self._wanted == "auto" and time.monotonic() >= self._until):
            kind = await self._kind()
            if self._used is None or self._used.index.kind != kind:
                before, self._used = self._used, Indexing(self._store, self._made(kind), self._flights)
                if before is not None:
                    await before.index.aclose()
        return self._used

    async def choice(self) -> tuple[str, str]:
        """What would be used, and why, as a sentence. Raises as `used` does."""
        kind = await self._kind()
        if self._wanted != "auto":
            return kind, f"search.index is {self._wanted}"
        if kind == "engine":
            return kind, "the tenant has an index on the server"
        why = await self._store.history_engine.usable()
        return kind, why or "nobody has made one on the server (search.index engine makes it)"

    async def _kind(self) -> str:
        if self._wanted == "local":
            return "local"
        engine = self._store.history_engine
        if self._wanted == "engine":
            if why := await engine.usable():
                raise IndexUnusable(_UNUSABLE.format(why), suggestions=(_LOCALLY,))
            return "engine"
        try:
            kind = "engine" if not await engine.usable() and await engine.kept() else "local"
        except StoreError:  # asked again with the next search; meanwhile what was used, which says what is wrong
            return self._used.index.kind if self._used is not None else "local"
        # The server's may be given up at any moment, and must not be begun anew by those who only follow.
        self._until = time.monotonic() + HELD_SECONDS if kind == "local" else float("-inf")
        return kind

    def reconsider(self) -> None:
        """Look anew with the next search."""
        self._until = float("-inf")

    def _made(self, kind: str) -> HistoryIndex:
        folder = index_folder(self._settings, self._store)
        if kind == "engine":
            from agentic_flywheel.engine_index import EngineIndex
            from agentic_flywheel.search.history.local_schema import remove_files

            remove_files(folder)
            return EngineIndex(self._store)
        from agentic_flywheel.search.history.local_index import LocalIndex

        return LocalIndex(folder)

    async def aclose(self) -> None:
        """Release what is used. Safe to call twice."""
        if self._used is not None:
            await self._used.index.aclose()


def index_folder(settings: Settings, store: Store) -> Path:
    """Where the local index of a tenant on a Redis lies."""
    return data_folder(settings) / "index" / store.outbox.path.name / safe(settings.text("tenant"))

"""Which index a search uses: this machine's own, or the query engine's on the server.

Invariant: `auto` never makes an index on the server by itself, since that costs memory that others need: it uses the
one that somebody has made there (`search.index: engine`), and the local one until then. Where the server's is used, no
copy is left on this machine: a file that nobody brings up to date would keep what was deleted.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agentic_flywheel.errors import IndexUnusable, StoreError, StoreUnavailable
from agentic_flywheel.flights import Flights
from agentic_flywheel.indexing import Indexing
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.folders import data_folder
from agentic_flywheel.store.keys import safe
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.veiled_index import Veil

#: How long `auto` holds by the local index, in seconds.
HELD_SECONDS = 10.0

#: What the folder of an index that is sealed begins with.
_SEALED = "sealed-"
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
        self._made_with = ""

    async def used(self) -> Indexing:
        """The index to use now. Raises `IndexUnusable` where it must be the engine's and cannot, `StoreError`."""
        key = await self._key()
        if self._used is None or key != self._made_with or self._due():
            kind = await self._kind()
            if self._used is None or key != self._made_with or self._used.index.kind != kind:
                self._made_with = key
                before, self._used = self._used, Indexing(self._store, self._made(kind), self._flights)
                if before is not None:
                    await before.index.aclose()
        return self._used

    def _due(self) -> bool:
        return self._wanted == "auto" and time.monotonic() >= self._until

    async def _key(self) -> str:
        """The key that the index is made with; "" where nothing is sealed. Raises `KeyMissing`."""
        with suppress(StoreUnavailable):  # the local index goes on without Redis
            await self._store.link.meet()
        return self._store.link.seals.index_key

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
        folder, veil = index_folder(self._settings, self._store), self._veil()
        if kind == "engine":
            from agentic_flywheel.engine_index import EngineIndex

            _remove_others(folder, None)
            index = EngineIndex(self._store, veil="" if veil is None else veil.name)
            if veil is None:
                return index
            from agentic_flywheel.veiled_index import VeiledIndex

            return VeiledIndex(index, veil, texts=False)
        from agentic_flywheel.search.history.local_index import LocalIndex

        if veil is None:
            return LocalIndex(folder)
        # A folder for each key: what was made with another one, or plain, is not read on.
        from agentic_flywheel.veiled_index import VeiledIndex

        own = folder / f"{_SEALED}{veil.name}"
        _remove_others(folder, own)
        return VeiledIndex(LocalIndex(own, veil.wording), veil, texts=True)

    def _veil(self) -> Veil | None:
        vault = self._store.link.seals.vault
        if vault is None:
            return None
        from agentic_flywheel.veiled_index import Veil

        return Veil(vault, self._store.keys.root, self._made_with)

    async def aclose(self) -> None:
        """Release what is used. Safe to call twice."""
        if self._used is not None:
            await self._used.index.aclose()


def _remove_others(folder: Path, own: Path | None) -> None:
    """Remove what indexes of this tenant there are on this machine, but for one."""
    from agentic_flywheel.search.history.local_schema import remove_files

    remove_files(folder)
    for other in folder.glob(f"{_SEALED}*"):
        if other != own:
            remove_files(other)


def index_folder(settings: Settings, store: Store) -> Path:
    """Where the local index of a tenant on a Redis lies."""
    return data_folder(settings) / "index" / store.outbox.path.name / safe(settings.text("tenant"))

"""Histories to search: every index on a server that has what it needs, and turns that stand in Redis as they should."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agentic_flywheel import Flywheel
from agentic_flywheel.engine_index import EngineIndex
from agentic_flywheel.findings import HistoryDoc, SessionMark
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.search.history.local_index import LocalIndex
from agentic_flywheel.search.history.protocols import HistoryIndex
from agentic_flywheel.store.store import Store
from flywheels import Oracle, opened
from servers import Server, Servers
from stores import stored

#: Each index, and a server for it.
INDEXES = {"local": "valkey9", "engine": "stack74"}


class Home:
    """A server, a folder for what lies on this machine, and the kind of index that searches use there."""

    def __init__(self, server: Server, folder: Path, kind: str) -> None:
        self.server = server
        self.folder = folder
        self.kind = kind

    @asynccontextmanager
    async def wheel(self, embedder: Any = None, *, tenant: str = "team", **flows: Any) -> AsyncIterator[Flywheel]:
        """A flywheel here: as a process of its own."""
        given = {"embedder": embedder} if embedder else None
        known = {"docs": Oracle("docs"), "shop": Oracle("shop"), **flows}
        named = {"search_index": self.kind, "tenant": tenant}
        async with opened(self.server, self.folder, known, given=given, **named) as flywheel:
            yield flywheel

    def held(self) -> bytes:
        """All bytes that the index keeps, wherever it keeps them."""
        if self.kind == "local":
            paths = (self.folder / "data" / "index").rglob("*")
            return b"".join(path.read_bytes() for path in paths if path.is_file())
        assert not list((self.folder / "data").rglob("history.sqlite*")), "a copy on this machine"
        with self.server.client() as client:
            keys = sorted(client.scan_iter("afw:v1:*:{history}:*", count=1000))
            return b"".join(key + _content(client, key) for key in keys)


def _content(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"hash":
            return b"".join(name + value for name, value in client.hgetall(key).items())
        case b"set":
            return b"".join(client.smembers(key))
        case b"zset":
            return b"".join(client.zrange(key, 0, -1))
        case _:
            return bytes(client.get(key) or b"")


def home_of(kind: str, servers: Servers, folder: Path) -> Home:
    return Home(servers.get(INDEXES[kind]), folder, kind)


class Kept:
    """An index by itself, over a store in which the turns of its documents stand."""

    def __init__(self, home: Home, store: Store) -> None:
        self.home = home
        self.store = store
        self._made: list[HistoryIndex] = []
        self.index = self.another()

    def another(self) -> HistoryIndex:
        """The same index as another process has it."""
        made = LocalIndex(self.home.folder / "index") if self.home.kind == "local" else EngineIndex(self.store)
        self._made.append(made)
        return made

    async def put(self, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark] | None = None) -> None:
        """Append the turns of documents, and take these in."""
        turns = [
            Turn(
                id=doc.turn_id,
                session_id=doc.session_id,
                at=doc.at,
                question=doc.question,
                answer=doc.answer,
                flow=doc.flow,
                fingerprint="",
                outcome=Outcome.MISS,
                reason=Reason.NOT_STORED,
                trace_id="0" * 32,
            )
            for doc in docs
        ]
        for start in range(0, len(turns), 100):
            await self.store.link.run(*self.store.sessions.append_commands(*turns[start : start + 100]), slow=True)
        await self.index.apply(docs, marks or {})

    async def aclose(self) -> None:
        for index in self._made:
            await index.aclose()


@asynccontextmanager
async def kept(home: Home) -> AsyncIterator[Kept]:
    async with stored(home.server) as store:
        made = Kept(home, store)
        try:
            await made.index.clear()
            yield made
        finally:
            await made.aclose()

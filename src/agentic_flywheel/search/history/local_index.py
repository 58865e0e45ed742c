"""The local index: one SQLite file for a machine and tenant, shared by its processes.

Invariant: SQLite never runs on the event loop: one thread reads, one writes, each with its own connection. A process
that is killed leaves a whole transaction or none of it; who finds the file damaged, or replaced, starts on a new one.
Whoever brings it up to date holds a lock of the operating system, which ends with its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agentic_flywheel.findings import Audience, HistoryDoc, HistoryQuery, Hit, Hits, IndexState, Reach, SessionMark
from agentic_flywheel.search.history import local_words, local_writing
from agentic_flywheel.search.history.local_schema import FILE, connect, make_anew, remove_files, size_of, unusable
from agentic_flywheel.search.history.local_scope import AUDIENCES, scope_of

if TYPE_CHECKING:
    from agentic_flywheel.search.history.local_vectors import VectorRows
    from agentic_flywheel.search.protocols import Vector

_LOCK = "writing.lock"
_LOOK_SECONDS = 0.02
_AUDIENCES = {number: audience for audience, number in AUDIENCES.items()}
_T = TypeVar("_T")


class _Lane:
    """A thread with a connection of its own; the connection is opened again where the file was replaced."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, f"history-{name}")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self.names = local_writing.Names()

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Work of one snapshot. Raises `IndexUnusable`."""
        return await self._run(work, "BEGIN")

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Work of one transaction, undone where it fails. Raises `IndexUnusable`."""
        return await self._run(work, "BEGIN IMMEDIATE")

    async def bare(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Work that sees to its transactions itself."""
        return await self._run(work, "")

    async def _run(self, work: Callable[[sqlite3.Connection], _T], begin: str) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work, begin)

    def _work(self, work: Callable[[sqlite3.Connection], _T], begin: str) -> _T:
        connection = self._open()
        try:
            if not begin:
                return work(connection)
            connection.execute(begin)
            self.names.check(connection)
            try:
                done = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                self.names.forget()
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise unusable(error, self._folder) from error
        return done

    def _open(self) -> sqlite3.Connection:
        try:
            inode = (self._folder / FILE).stat().st_ino
        except OSError:
            inode = 0
        if self._connection is None or inode != self._inode:
            self._close()
            self._connection = connect(self._folder)
            self._inode = (self._folder / FILE).stat().st_ino
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self.names.forget()
            connection.close()

    async def aclose(self) -> None:
        """Close the connection in its thread, and end the thread."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)


class LocalIndex:
    """A `HistoryIndex` in a folder; nothing is opened before it is first used."""

    kind = "local"

    def __init__(self, folder: Path, wording: local_writing.Wording = local_writing.plain_wording) -> None:
        """`wording` says which words of a text the index holds."""
        self.folder = folder
        self._wording = wording
        self._reader = _Lane(folder, "reader")
        self._writer = _Lane(folder, "writer")
        self._vocabulary = local_words.Vocabulary()
        self._vectors: VectorRows | None = None

    @asynccontextmanager
    async def writing(self, *, patience: float) -> AsyncIterator[bool]:
        """Be the one that brings the index up to date; False where another still is after `patience` seconds."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise unusable(error, self.folder) from error
        try:
            yield await _locked(lock, patience)
        finally:
            os.close(lock)  # the lock goes with it

    async def reach(self) -> Reach:
        """How far it has come."""

        def look(connection: sqlite3.Connection) -> Reach:
            places = dict(connection.execute("SELECT shard, place FROM places").fetchall())
            return Reach(places or None, local_words.last_id(connection))

        return await self._reader.read(look)

    async def discard(self) -> None:
        """Throw the file away."""
        await asyncio.to_thread(remove_files, self.folder)

    async def drop(self) -> None:
        """Throw the file away."""
        await self.discard()

    async def clear(self) -> None:
        """Forget everything."""
        await self._writer.write(make_anew)

    async def keep_places(self, places: Mapping[int, str]) -> None:
        """Remember where to read the feed on."""
        rows = list(places.items())
        await self._writer.write(lambda c: c.executemany("INSERT OR REPLACE INTO places VALUES (?, ?)", rows))

    async def marks(self, sessions: Sequence[str]) -> dict[str, SessionMark]:
        """How far it has come with these sessions."""

        def look(connection: sqlite3.Connection) -> dict[str, SessionMark]:
            found = {}
            for part in _parts(sessions):
                sql = f"SELECT name, reached, turns FROM sessions WHERE name IN ({local_words.placeholders(part)})"
                found.update({row[0]: SessionMark(row[1], row[2]) for row in connection.execute(sql, part)})
            return found

        return await self._writer.read(look)

    async def sessions(self) -> list[str]:
        """All sessions that it knows."""
        return await self._reader.read(lambda c: [row[0] for row in c.execute("SELECT name FROM sessions")])

    async def apply(self, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark]) -> None:
        """Take turns in; all or nothing."""
        await self._writer.write(lambda c: local_writing.apply(c, docs, marks, self._writer.names))

    async def remove(self, *, sessions: Sequence[str] = (), turns: Sequence[tuple[str, str]] = ()) -> None:
        """Forget sessions and turns at once; `scrub` sees to the last traces."""
        await self._writer.write(lambda c: local_writing.remove(c, sessions, turns, self._wording))

    async def scrub(self) -> bool:
        """Overwrite what is left of removed turns in the file; False where a reader stood in the way."""
        return await self._writer.bare(local_writing.scrub)

    async def retag(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Give sessions other tags."""
        await self._writer.write(lambda c: local_writing.retag(c, tags))

    async def words(self, query: HistoryQuery, *, count: int) -> Hits:
        """The best turns by words."""

        def look(connection: sqlite3.Connection) -> Hits:
            scope = scope_of(connection, query)
            found = local_words.ranked(connection, self._vocabulary, query, scope, count)
            hits = self._hits(connection, found.rows)
            return Hits(hits, len(hits), found.more, weights=found.weights)

        return await self._reader.read(look)

    async def meaning(self, query: HistoryQuery, vector: Vector, *, embedder: str, count: int) -> Hits:
        """The nearest turns by their questions' vectors."""
        from agentic_flywheel.search.history.local_vectors import VectorRows

        def look(connection: sqlite3.Connection) -> Hits:
            if self._vectors is None or self._vectors.embedder != embedder:
                self._vectors = VectorRows(embedder, len(vector))
            vectors = self._vectors
            vectors.catch_up(connection)
            scope = scope_of(connection, query)
            wanted, unwanted = local_words.holding(connection, query)
            rows = vectors.nearest(connection, vector, scope, count=count, wanted=wanted, unwanted=unwanted)
            return Hits(self._hits(connection, rows), len(rows), len(rows) == count)

        return await self._reader.read(look)

    async def beside(self, query: HistoryQuery, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The turns right before and after these in their sessions."""
        places = dict.fromkeys((hit.session_id, hit.place + step) for hit in hits for step in (-1, 1))

        def look(connection: sqlite3.Connection) -> tuple[Hit, ...]:
            condition, bound = scope_of(connection, query).conditions()
            sql = (
                f"SELECT d.id, 0.0, {local_words.FACTS} FROM docs d"
                f" WHERE d.session = (SELECT id FROM sessions WHERE name = ?) AND d.place = ? AND {condition}"
            )
            rows = [row for place in places for row in connection.execute(sql, (*place, *bound))]
            return self._hits(connection, rows)

        return await self._reader.read(look)

    async def listed(self, query: HistoryQuery, *, offset: int, count: int) -> Hits:
        """What the filters leave, newest first."""

        def look(connection: sqlite3.Connection) -> Hits:
            condition, bound = scope_of(connection, query).conditions()
            _, unwanted = local_words.holding(connection, query)
            if unwanted:
                condition += f" AND d.id NOT IN ({','.join(map(str, unwanted))})"
            total = connection.execute(f"SELECT count(*) FROM docs d WHERE {condition}", bound).fetchone()[0]
            rows = connection.execute(
                f"SELECT d.id, 0.0, {local_words.FACTS} FROM docs d WHERE {condition}"
                " ORDER BY d.at DESC, d.id DESC LIMIT ? OFFSET ?",
                (*bound, count, offset),
            ).fetchall()
            return Hits(self._hits(connection, rows), total)

        return await self._reader.read(look)

    async def docs(self, ids: Sequence[str]) -> dict[str, HistoryDoc]:
        """The turns that hits name, by their ids."""

        numbers = [int(id_) for id_ in ids]

        def look(connection: sqlite3.Connection) -> dict[str, HistoryDoc]:
            return {id_: doc for part in _parts(numbers) for id_, doc in self._docs(connection, part)}

        return await self._reader.read(look)

    async def lacking(self, embedder: str, *, count: int) -> list[tuple[str, str]]:
        """Turns without a vector of this embedder, newest first."""

        def look(connection: sqlite3.Connection) -> list[tuple[str, str]] | None:
            known = connection.execute("SELECT id FROM embedders WHERE fingerprint = ?", (embedder,)).fetchone()
            if known is None:
                return None
            rows = connection.execute(
                "SELECT t.id, t.question FROM lacking l JOIN texts t ON t.id = l.doc WHERE l.embedder = ?"
                " ORDER BY l.doc DESC LIMIT ?",
                (known[0], count),
            )
            return [(str(row[0]), row[1]) for row in rows]

        if (found := await self._reader.read(look)) is None:
            await self._writer.write(lambda c: local_writing.embedder_number(c, embedder))
            found = await self._reader.read(look)
        return found or []

    async def add_vectors(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Keep vectors."""
        await self._writer.write(lambda c: local_writing.add_vectors(c, embedder, vectors))

    async def state(self, embedder: str) -> IndexState:
        """What it holds."""

        def look(connection: sqlite3.Connection) -> IndexState:
            def count(sql: str, *bound: str) -> int:
                return int(connection.execute(sql, bound).fetchone()[0])

            return IndexState(
                kind=self.kind,
                where=str(self.folder),
                sessions=count("SELECT count(*) FROM sessions"),
                turns=count("SELECT count(*) FROM docs"),
                vectors=count(
                    "SELECT count(*) FROM vectors v JOIN embedders e ON e.id = v.embedder WHERE e.fingerprint = ?",
                    embedder,
                ),
                size_bytes=size_of(self.folder),
            )

        return await self._reader.read(look)

    async def aclose(self) -> None:
        """Release the file."""
        await self._reader.aclose()
        await self._writer.aclose()

    def _hits(self, connection: sqlite3.Connection, rows: Sequence[local_words.Row]) -> tuple[Hit, ...]:
        sessions = self._reader.names.sessions(connection, {row[2] for row in rows})
        names = self._reader.names.names(connection, {row[5:8] for row in rows})
        hits = [
            Hit(str(id_), score, sessions[session], place, at, names[flow], names[user], names[outcome], words, holds)
            for id_, score, session, place, at, flow, user, outcome, words, holds in rows
        ]
        return tuple(hits)

    def _docs(self, connection: sqlite3.Connection, numbers: Sequence[int]) -> Iterator[tuple[str, HistoryDoc]]:
        rows = connection.execute(
            f"SELECT t.id, t.turn, s.name, t.question, t.answer, t.stream, d.audience, {local_words.FACTS} FROM docs d"
            " JOIN texts t ON t.id = d.id JOIN sessions s ON s.id = d.session"
            f" WHERE d.id IN ({local_words.placeholders(numbers)})",
            numbers,
        ).fetchall()
        names = self._reader.names.names(connection, {row[10:13] for row in rows})
        sessions = list({row[7] for row in rows})
        tags: dict[int, list[str]] = {}
        held = f"SELECT session, tag FROM tags WHERE session IN ({local_words.placeholders(sessions)}) ORDER BY tag"
        for session, tag in connection.execute(held, sessions):
            tags.setdefault(session, []).append(tag)
        for number, turn, name, question, answer, stream, audience, session, place, at, flow, user, outcome, *_ in rows:
            yield (
                str(number),
                HistoryDoc(
                    turn_id=turn,
                    session_id=name,
                    at=at,
                    question=question,
                    answer=answer,
                    flow=names[flow],
                    user=names[user],
                    outcome=names[outcome],
                    tags=tuple(tags.get(session, ())),
                    audience=_AUDIENCES.get(audience, Audience.SESSION),
                    place=place,
                    stream_id=stream,
                ),
            )


async def _locked(lock: int, patience: float) -> bool:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return True


def _parts(values: Sequence[_T], size: int = 500) -> Iterable[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))

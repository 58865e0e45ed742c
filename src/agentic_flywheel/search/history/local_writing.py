"""What changes the local index: turns in, turns out, tags, vectors. Each function is one transaction's work.

Invariant: everything may be repeated. A turn that is there already is left alone; what is removed leaves no byte of its
text behind once `scrub` has run: FTS5 keeps the words of removed rows in its old segments until they are merged, pages
that were filled anew keep bytes between their cells (`secure_delete` does not see them), and the write-ahead log keeps
old pages until it is cut off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence

from agentic_flywheel.findings import HistoryDoc, SessionMark
from agentic_flywheel.search.history.local_scope import AUDIENCES
from agentic_flywheel.search.history.words import stems_of

#: Embedders whose vectors are kept: the one in use and the one before, for who goes back.
_EMBEDDERS = 2
#: The words that the index holds of a text of a turn, by the text as it is kept, session and turn.
Wording = Callable[[str, str, str], str]
#: Names of sessions that are remembered.
_SESSIONS = 100_000


def apply(
    connection: sqlite3.Connection, docs: Sequence[HistoryDoc], marks: Mapping[str, SessionMark], names: Names
) -> None:
    """Take turns in, and note how far their sessions were read."""
    sessions: dict[str, int] = {}
    for name in dict.fromkeys([*(doc.session_id for doc in docs), *marks]):
        connection.execute("INSERT OR IGNORE INTO sessions (name, reached, turns) VALUES (?, '', 0)", (name,))
        sessions[name] = connection.execute("SELECT id FROM sessions WHERE name = ?", (name,)).fetchone()[0]
    for doc in docs:
        session = sessions[doc.session_id]
        known = "SELECT 1 FROM texts WHERE session = ? AND turn = ?"
        if connection.execute(known, (session, doc.turn_id)).fetchone():
            continue
        flow, user, outcome = (
            names.number(connection, kind, value)
            for kind, value in (("flow", doc.flow), ("user", doc.user), ("outcome", doc.outcome))
        )
        number = connection.execute(
            "INSERT INTO docs (session, place, at, flow, user, outcome, audience, size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (session, doc.place, doc.at, flow, user, outcome, AUDIENCES[doc.audience], _length(doc)),
        ).lastrowid
        connection.execute(
            "INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?)",
            (number, session, doc.turn_id, doc.stream_id, doc.question, doc.answer),
        )
        connection.execute(
            "INSERT INTO words (rowid, question, answer) VALUES (?, ?, ?)",
            (number, doc.question_words, doc.answer_words),
        )
        connection.execute("INSERT INTO lacking SELECT id, ? FROM embedders", (number,))
    _tag(connection, {sessions[doc.session_id]: doc.tags for doc in docs})
    connection.executemany(
        "UPDATE sessions SET reached = ?, turns = ? WHERE id = ?",
        [(mark.stream_id, mark.turns, sessions[name]) for name, mark in marks.items()],
    )


def _length(doc: HistoryDoc) -> int:
    """How many words the index holds of a turn."""
    return len(doc.question_words.split()) + len(doc.answer_words.split())


class Names:
    """Numbers for the names of flows, users and outcomes; remembered, since there are few. So are those of sessions
    that were found lately."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}
        self._sessions: dict[int, str] = {}
        self._schema = 0

    def check(self, connection: sqlite3.Connection) -> None:
        """Forget everything where the tables were made anew, by whomever: numbers mean something else then."""
        schema = connection.execute("PRAGMA schema_version").fetchone()[0]
        if schema != self._schema:
            self.forget()
            self._schema = schema

    def number(self, connection: sqlite3.Connection, kind: str, name: str) -> int:
        """The number of a name, given one if it has none."""
        known = self._numbers.get((kind, name))
        if known is None:
            connection.execute("INSERT OR IGNORE INTO names (kind, name) VALUES (?, ?)", (kind, name))
            row = connection.execute("SELECT id FROM names WHERE kind = ? AND name = ?", (kind, name)).fetchone()
            known = self._numbers[kind, name] = row[0]
        return known

    def names(self, connection: sqlite3.Connection, numbers: Iterable[tuple[int, ...]]) -> Mapping[int, str]:
        """The names of these numbers, and of others; "" where there is none."""
        wanted = {number for some in numbers for number in some}
        if not wanted <= self._names.keys():
            self._names = dict(connection.execute("SELECT id, name FROM names"))
            self._names |= dict.fromkeys(wanted - self._names.keys(), "")
        return self._names

    def sessions(self, connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, str]:
        """The names of sessions."""
        if len(self._sessions) > _SESSIONS:
            self._sessions = {}
        unknown = [number for number in numbers if number not in self._sessions]
        for start in range(0, len(unknown), 500):
            part = ",".join(map(str, unknown[start : start + 500]))
            self._sessions.update(connection.execute(f"SELECT id, name FROM sessions WHERE id IN ({part})").fetchall())
        return self._sessions

    def forget(self) -> None:
        """A transaction was undone, or the index is another one: numbers may mean something else."""
        self._numbers, self._names, self._sessions = {}, {}, {}


def plain_wording(text: str, _session: str, _turn: str) -> str:
    """The words of a text that is kept as it is."""
    return stems_of(text)


def remove(
    connection: sqlite3.Connection, sessions: Sequence[str], turns: Sequence[tuple[str, str]], wording: Wording
) -> int:
    """Take sessions and turns out; how many turns went."""
    gone: list[tuple[int, str, str, str, str]] = []
    held = (
        "SELECT t.id, t.question, t.answer, s.name, t.turn FROM texts t JOIN sessions s ON s.id = t.session"
        " WHERE s.name = ?"
    )
    for name in sessions:
        gone += connection.execute(held, (name,)).fetchall()
    for name, turn in turns:
        gone += connection.execute(f"{held} AND t.turn = ?", (name, turn)).fetchall()
    for number, question, answer, *where in dict.fromkeys(gone):
        connection.execute(
            "INSERT INTO words (words, rowid, question, answer) VALUES ('delete', ?, ?, ?)",
            (number, wording(question, *where), wording(answer, *where)),
        )
        for table, column in (("docs", "id"), ("texts", "id"), ("vectors", "doc"), ("lacking", "doc")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
    for name in sessions:
        connection.execute("DELETE FROM tags WHERE session IN (SELECT id FROM sessions WHERE name = ?)", (name,))
        connection.execute("DELETE FROM sessions WHERE name = ?", (name,))
    if gone:
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'removals'")
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'scrub'")
    return len(gone)


def scrub(connection: sqlite3.Connection) -> bool:
    """See to it that nothing is left of what was removed; False where a reader stands in the way for now."""
    if not connection.execute("SELECT value FROM meta WHERE name = 'scrub'").fetchone()[0]:
        return True
    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
    try:
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
        return False
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if not busy:
        connection.execute("UPDATE meta SET value = 0 WHERE name = 'scrub'")
    return not busy


def retag(connection: sqlite3.Connection, tags: Mapping[str, Iterable[str]]) -> None:
    """Give sessions other tags."""
    known = {}
    for name, own in tags.items():
        row = connection.execute("SELECT id FROM sessions WHERE name = ?", (name,)).fetchone()
        if row:
            known[row[0]] = own
    _tag(connection, known)


def _tag(connection: sqlite3.Connection, tags: Mapping[int, Iterable[str]]) -> None:
    for session, own in tags.items():
        connection.execute("DELETE FROM tags WHERE session = ?", (session,))
        connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(tag, session) for tag in own])


def embedder_number(connection: sqlite3.Connection, fingerprint: str) -> int:
    """The number of an embedder; every turn lacks a vector of a new one, and those of long ago are given up."""
    row = connection.execute("SELECT id FROM embedders WHERE fingerprint = ?", (fingerprint,)).fetchone()
    if row:
        return int(row[0])
    number = connection.execute("INSERT INTO embedders (fingerprint) VALUES (?)", (fingerprint,)).lastrowid
    assert number is not None
    for old in connection.execute(
        "SELECT id FROM embedders ORDER BY id DESC LIMIT -1 OFFSET ?", (_EMBEDDERS,)
    ).fetchall():
        connection.execute("DELETE FROM embedders WHERE id = ?", old)
        connection.execute("DELETE FROM vectors WHERE embedder = ?", old)
        connection.execute("DELETE FROM lacking WHERE embedder = ?", old)
    connection.execute("INSERT INTO lacking SELECT ?, id FROM docs", (number,))
    return number


def add_vectors(connection: sqlite3.Connection, fingerprint: str, vectors: Mapping[str, bytes]) -> None:
    """Keep vectors; of turns that are gone by now, none."""
    number = embedder_number(connection, fingerprint)
    for id_, vector in vectors.items():
        connection.execute(
            "INSERT OR IGNORE INTO vectors (embedder, doc, vector) SELECT ?, id, ? FROM docs WHERE id = ?",
            (number, vector, int(id_)),
        )
        connection.execute("DELETE FROM lacking WHERE embedder = ? AND doc = ?", (number, int(id_)))

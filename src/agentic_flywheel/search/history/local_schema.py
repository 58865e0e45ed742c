"""The file of the local index: its tables, how it is opened, and what an error of SQLite means.

Invariant: a file of another schema, a damaged one, or one that was replaced under our feet is never read on: it is made
anew. What is deleted is overwritten (`secure_delete`). Only this user may read it: it holds what people asked.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from secrets import token_hex

from agentic_flywheel.errors import IndexUnusable

#: Raised whenever tables, stems or what is indexed of a turn change: an index of another number is made anew.
SCHEMA = 2
FILE = "history.sqlite"
#: How long one waits for another process's transaction, in seconds; writers hold it for some milliseconds.
BUSY_SECONDS = 5.0

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE places (shard INTEGER PRIMARY KEY, place TEXT NOT NULL);
CREATE TABLE names (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name));
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, reached TEXT NOT NULL,
    turns INTEGER NOT NULL);
CREATE TABLE tags (tag TEXT, session INTEGER, PRIMARY KEY (tag, session)) WITHOUT ROWID;
CREATE INDEX tags_of ON tags (session);
CREATE TABLE docs (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, place INTEGER NOT NULL,
    at REAL NOT NULL, flow INTEGER NOT NULL, user INTEGER NOT NULL, outcome INTEGER NOT NULL,
    audience INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE INDEX docs_of ON docs (session, place);
CREATE INDEX docs_at ON docs (at);
CREATE TABLE texts (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, turn TEXT NOT NULL, stream TEXT NOT NULL,
    question TEXT NOT NULL, answer TEXT NOT NULL, UNIQUE (session, turn));
CREATE TABLE embedders (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
CREATE TABLE vectors (seq INTEGER PRIMARY KEY AUTOINCREMENT, embedder INTEGER NOT NULL, doc INTEGER NOT NULL,
    vector BLOB NOT NULL, UNIQUE (embedder, doc));
CREATE TABLE lacking (embedder INTEGER, doc INTEGER, PRIMARY KEY (embedder, doc)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (question, answer, content='', tokenize='ascii');
"""
_NAMES = ("meta", "places", "names", "sessions", "tags", "docs", "texts", "embedders", "vectors", "lacking", "words")
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


def connect(folder: Path) -> sqlite3.Connection:
    """A connection to the index in a folder; it is made where there is none. For one thread.

    Raises `IndexUnusable`, `damaged` where what is there is no index of ours.
    """
    path = folder / FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise unusable(error, folder) from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last turns: read anew
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA mmap_size = 268435456")
        _prepare(connection, folder)
        connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, words, row)")
    except sqlite3.Error as error:
        connection.close()
        raise unusable(error, folder) from error
    except IndexUnusable:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, folder: Path) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        make(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")
    if version not in {0, SCHEMA}:
        raise IndexUnusable(f"the index in {folder} is of another release (schema {version})", damaged=True)


def make(connection: sqlite3.Connection) -> None:
    """All tables, empty; inside a transaction."""
    for statement in _TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('generation', ?), ('removals', 0), ('scrub', 0)", (token_hex(8),))


def make_anew(connection: sqlite3.Connection) -> None:
    """Forget everything, whatever others read meanwhile; inside a transaction."""
    for name in _NAMES:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    make(connection)


def remove_files(folder: Path) -> None:
    """Throw the index away, however damaged; whoever has it open notices by its inode."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / (FILE + suffix)).unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """What the index takes on disk, in bytes."""
    paths = (folder / (FILE + suffix) for suffix in ("", "-wal"))
    return sum(path.stat().st_size for path in paths if path.exists())


def unusable(error: Exception, folder: Path) -> IndexUnusable:
    """An error of SQLite or of the file system, said for people."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damaged = code in _DAMAGED or "no such table" in str(error) or "no such column" in str(error)
    return IndexUnusable(
        f"the index of history in {folder} cannot be used: {error}", damaged=damaged, folder=str(folder)
    )

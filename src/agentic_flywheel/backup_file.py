"""The file of a backup: written beside its place and renamed at the end, read line by line.

Invariant: a file that stands under its own name is whole; one that was cut off is called `NAME.part`, and what is sound
of it can be gone on with. Nobody but its owner may read it (mode 0600). Memory holds one page of lines. Everything here
waits for the disk: callers run it in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import zstandard

from agentic_flywheel.backup_records import (
    FORMAT,
    KINDS,
    LONGEST_LINE,
    VERSION,
    Header,
    LineDamaged,
    Record,
    Trailer,
    UnknownKind,
    line_of,
    read_line,
)
from agentic_flywheel.errors import InputError

#: The name that stands for standard input or output.
STANDARD = "-"
#: A page of a file ends after so many lines, or so many bytes.
PAGE_LINES = 200
PAGE_BYTES = 1_000_000

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Line(msgspec.Struct, frozen=True):
    """One line that was read: its number (from 1), and its record, or what is the matter with it."""

    number: int
    record: Record | None
    damage: str = ""
    unknown: bool = False  # sound, but of a kind that this release does not know


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a file that was written comes to."""

    records: dict[str, int]
    size_bytes: int
    sha256: str


class BackupReader:
    """Reads a backup, compressed or not (the file itself says so), from a path or `-`. Close it.

    `header` is what the first line says; making one raises `InputError` where that is none of ours.
    """

    def __init__(self, source: Path | str) -> None:
        self.name = "standard input" if source == STANDARD else str(source)
        try:
            raw = sys.stdin.fileno() if source == STANDARD else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            self._raw = io.BufferedReader(io.FileIO(raw, "rb", closefd=source != STANDARD))
            magic = self._raw.peek(4)[:4]
        except OSError as error:
            raise InputError(
                f"the backup {self.name} cannot be read: {error.strerror or error}", file=self.name
            ) from error
        self._lines: io.BufferedReader[Any] = self._raw
        if magic == _ZSTD_MAGIC:
            plain = zstandard.ZstdDecompressor().stream_reader(self._raw, read_across_frames=True, closefd=False)
            self._lines = io.BufferedReader(plain)
        self._number = 0
        self._digest = hashlib.sha256()
        self._read: Counter[str] = Counter()
        self.trailer: Trailer | None = None
        try:
            self.header, self.header_line = self._first()
        except InputError:
            self.close()
            raise

    def page(self) -> list[Line]:
        """The next lines, trailer and header left out; empty at the end of the file.

        What `trailer` is then was there, and `faults` has what is wrong with the whole.
        """
        found: list[Line] = []
        size = 0
        while len(found) < PAGE_LINES and size < PAGE_BYTES:
            raw = self._next()
            if not raw:
                break
            size += len(raw)
            line = self._line(raw)
            if line is not None:
                found.append(line)
        return found

    def raw_lines(self) -> Iterator[tuple[Record, bytes]]:
        """The records after the header with their lines, as far as the file is sound: what may be gone on with."""
        while True:
            try:
                raw = self._next()
            except InputError:  # a compressed file may end in the middle of a block
                return
            line = self._line(raw) if raw else None
            if line is None or line.record is None:
                return
            yield line.record, raw

    def faults(self) -> str:
        """After the last page: why this is not the file that was written, in one sentence; "" where it is."""
        if self.trailer is None:
            return f"it ends after line {self._number} without its last line: it was cut off"
        if self.trailer.records != dict(self._read) or self.trailer.sha256 != self._whole:
            return "lines are missing, doubled or changed since it was written"
        return ""

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _first(self) -> tuple[Header, bytes]:
        raw = self._next()
        try:
            record = read_line(raw)
        except LineDamaged as error:
            told = f": {error}" if raw.startswith(b'{"kind":"header"') else ""
            raise self._refused(f"{self.name} is not a backup of this program (line 1{told})") from error
        header = record.value
        if not isinstance(header, Header) or header.format != FORMAT:
            raise self._refused(f"{self.name} is not a backup of this program (line 1 is no header)")
        if header.version != VERSION:
            raise self._refused(
                f"{self.name} has version {header.version} of the format; this release reads version {VERSION}",
                "Update Agentic Flywheel: the file was written by another release.",
            )
        if strange := [kind for kind in header.kinds if kind not in KINDS]:
            raise self._refused(
                f"{self.name} may hold {', '.join(strange)}, which this release does not know; nothing was read",
                f"Update Agentic Flywheel: the file was written by release {header.release}.",
            )
        self._digest.update(raw)
        return header, raw

    def _line(self, raw: bytes) -> Line | None:
        """What a line holds; None for the trailer."""
        if self.trailer is not None:
            return Line(self._number, None, "it stands behind the last line")
        whole = self._digest.copy()
        self._digest.update(raw)
        try:
            record = read_line(raw)
        except UnknownKind as error:
            return Line(self._number, None, str(error), unknown=True)
        except LineDamaged as error:
            return Line(self._number, None, str(error))
        if isinstance(record.value, Trailer):
            self.trailer, self._whole = record.value, whole.hexdigest()
            return None
        if isinstance(record.value, Header):
            return Line(self._number, None, "it is a second header")
        self._read[record.kind] += 1
        return Line(self._number, record)

    def _next(self) -> bytes:
        self._number += 1
        try:
            raw = self._lines.readline(LONGEST_LINE)
        except (OSError, zstandard.ZstdError) as error:
            raise self._refused(f"{self.name} cannot be read on after line {self._number - 1}: {error}") from error
        if not raw:
            self._number -= 1
        return raw

    def _refused(self, message: str, *suggestions: str) -> InputError:
        usual = (
            "Take another copy of the file.",
            "Make a backup with `afw export FILE`.",
            "docs/backup.md tells what a backup looks like.",
        )
        return InputError(message, suggestions=(*suggestions, *usual), file=self.name, line=self._number or None)


class BackupWriter:
    """Writes a backup to a path (compressed where it ends in `.zst`) or to `-`; end it with `finish` or `leave`.

    With `kept`, the first lines are taken over from what was cut off (see `cut_off`). Raises `InputError` where another
    export is writing there, or nothing can be written.
    """

    def __init__(self, target: Path | str, header: bytes, *, kept: int | None = None) -> None:
        self._path = None if target == STANDARD else Path(target)
        self._part = part_of(self._path) if self._path else None
        self._digest = hashlib.sha256()
        self.records: Counter[str] = Counter()
        self._lines = 0
        self._file: BinaryIO
        try:
            self._open(kept, header)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}", file=str(target)) from error

    def write(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Append lines, each with its kind."""
        for kind, line in lines:
            self.records[kind] += 1
            self._put(line)
        self._out.flush()

    def finish(self) -> Summary:
        """Write the last line and give the file its name; what it comes to."""
        sha256 = self._digest.hexdigest()
        trailer = Trailer(records=dict(self.records), lines=self._lines, sha256=sha256, at=time.time())
        self._out.write(line_of("trailer", trailer))
        if isinstance(self._out, zstandard.ZstdCompressionWriter):
            self._out.flush(zstandard.FLUSH_FRAME)
        self._file.flush()
        size = 0
        if self._path is not None and self._part is not None:
            os.fsync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            self._part.replace(self._path)
            self._file.close()
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return Summary(records=dict(self.records), size_bytes=size, sha256=sha256)

    def leave(self) -> None:
        """Stop before the end: what was written stays as `NAME.part`. Without effect after `finish`."""
        if self._path is not None and not self._file.closed:
            self._file.close()

    def _open(self, kept: int | None, header: bytes) -> None:
        if self._part is None or self._path is None:
            self._file = self._out = sys.stdout.buffer
            self._put(header)
            return
        self._file = before = _locked(self._part, empty=kept is None)
        fresh = self._part
        if kept is not None:
            fresh = self._part.with_name(self._part.name + ".new")
            self._file = _locked(fresh, empty=True)
        compressed = self._path.suffix == ".zst"
        self._out = _compressed(self._file) if compressed else self._file
        self._put(header)
        if kept is not None:
            with before, BackupReader(self._part) as sound:
                for _, (record, line) in zip(range(kept), sound.raw_lines(), strict=False):
                    self.records[record.kind] += 1
                    self._put(line)
                fresh.replace(self._part)

    def _put(self, line: bytes) -> None:
        self._digest.update(line)
        self._lines += 1
        self._out.write(line)


class CutOff(msgspec.Struct, frozen=True):
    """What is left of an export that was cut off: its header, how many lines after it are gone on with, and the last
    record among them that says where (None: from the beginning)."""

    header: Header
    header_line: bytes
    kept: int
    last: Record | None


def cut_off(target: Path | str) -> CutOff | None:
    """Look at what an earlier export to the same place left; None where there is nothing.

    A session that was being written may lack turns, so the last one is written anew.
    """
    try:
        before = BackupReader(part_of(Path(target)))
    except InputError:  # there is none, or it did not come as far as its header
        return None
    with before:
        session, place, kept, last = 0, Record("", None), 0, None
        for number, (record, _) in enumerate(before.raw_lines()):
            if record.kind == "session":
                session, place = number, record
            match KINDS[record.kind].section, record.kind:
                case "sessions", _:
                    kept, last = session, place if place.kind else None
                case _, "entry":
                    kept, last = number + 1, record
                case _:  # what comes first is little, and is written anew
                    kept, last = 0, None
        return CutOff(before.header, before.header_line, kept, last)


def part_of(path: Path) -> Path:
    """Where a backup is written before it is whole."""
    return path.with_name(path.name + ".part")


def _locked(path: Path, *, empty: bool) -> BinaryIO:
    """A file of our own that nobody else writes to meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "r+b")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"another export is writing to {path}", file=str(path)) from None
    os.fchmod(descriptor, 0o600)
    if empty:
        file.truncate(0)
    return file


def _compressed(file: BinaryIO) -> zstandard.ZstdCompressionWriter:
    return zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False)

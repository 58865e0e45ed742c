"""An append-only file of records on local disk that several processes share.

    header      8 bytes "AFWLOG1\\n", 8 random bytes: the file's seed
    record      4 bytes mark, u32 length, u64 xxh3 of length and payload under the seed, payload (little endian)

Invariant: a record whose `append` returned is on disk, whole, after every record that was there before it, until
somebody drops it. Whoever writes holds the lock; what a writer left that was killed in the middle of a record (a torn
tail) is cut off by the next one. Records are only dropped by putting a new file, with a new seed, in the old one's
place, so a reader needs no lock: it sees the one or the other, and never a record that was not written. The seed also
keeps the words of a record from ever being taken for a record. tests/unit/test_journal.py cuts a file at every byte
and kills writers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import xxhash

from agentic_flywheel.errors import StoreError, StoreFull

FORMAT = b"AFWLOG1\n"
HEADER_BYTES = 16
_MARK = b"\xa5AFR"
_HEAD = struct.Struct("<4sIQ")
#: Longest wait for another process's write, in seconds: beyond it, that process hangs.
LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.001
_ATTEMPTS = 3


class Position(NamedTuple):
    """How far a file was read; good for the file with this seed alone."""

    seed: bytes = b""
    end: int = 0


START = Position()


class Record(NamedTuple):
    """A record and where it begins."""

    offset: int
    payload: bytes


class Contents(NamedTuple):
    """What a file holds from a position on. `anew` says that it is another file than the one that was read before, so
    everything in it is here. `damaged` are stretches between good records that are none themselves."""

    position: Position = START
    records: tuple[Record, ...] = ()
    damaged: tuple[bytes, ...] = ()
    anew: bool = True


class Journal:
    """One such file. Every method blocks, and may be called from any thread.

    `cap_bytes` bounds its size. `cut` counts the torn tails that were cut off here. A file that is none of this
    format is set aside, as `unreadable-*` beside it, and never removed.
    """

    def __init__(self, path: Path, *, cap_bytes: int) -> None:
        self.path = path
        self.cap_bytes = cap_bytes
        self.cut = 0
        self._lock_path = path.with_suffix(".lock")
        self._known = START

    def stamp(self) -> tuple[int, int, int] | None:
        """What changes whenever the file does; None where there is none. One system call."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - on the way of every question
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write records in this order. Raises `StoreFull` at the cap and `OSError`; then none of them was written."""
        for _ in range(_ATTEMPTS):  # the directory may be deleted beneath us
            prepare_directory(self.path.parent)
            try:
                with locked(self._lock_path):
                    if self._append(payloads):
                        return
            except FileNotFoundError:
                continue
        raise FileNotFoundError(f"{self.path.parent} disappears while it is written to")

    def read(self, after: Position = START) -> Contents:
        """What stands in the file behind `after`; a record that is just being written is left out."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return Contents(anew=after != START)
        try:
            return _contents(descriptor, after) or Contents(anew=after != START)
        finally:
            os.close(descriptor)

    def drop(self, seed: bytes, offsets: Container[int]) -> None:
        """Remove the records at `offsets` from the file with this seed; without effect if it is another by now."""
        try:
            with locked(self._lock_path):
                descriptor = os.open(self.path, os.O_RDONLY)
                try:
                    contents, size = _contents(descriptor, START), os.fstat(descriptor).st_size
                finally:
                    os.close(descriptor)
                if contents is None:
                    self._set_aside()
                elif contents.position.seed == seed:
                    self.cut += size > contents.position.end
                    self._replace([record.payload for record in contents.records if record.offset not in offsets])
        except FileNotFoundError:
            return  # nothing there, nothing to remove

    def _append(self, payloads: Sequence[bytes]) -> bool:
        """Write with the lock held; False where the file is not in its place any more."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            self._bound(HEADER_BYTES + sum(_HEAD.size + len(payload) for payload in payloads))
            self._create(payloads)
            return True
        try:
            contents = _contents(descriptor, self._known)
            if contents is None:
                self._set_aside()
                return self._append(payloads)
            seed, end = contents.position
            frames = _frames(payloads, seed)
            self._bound(end + len(frames))
            if os.fstat(descriptor).st_size > end:
                os.ftruncate(descriptor, end)
                self.cut += 1
            try:
                _write(descriptor, frames, end)
                _sync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # else the next writer cuts it off
                    os.ftruncate(descriptor, end)
                raise
            self._known = Position(seed, end + len(frames))
            return is_file_at(descriptor, self.path)
        finally:
            os.close(descriptor)

    def _bound(self, size: int) -> None:
        if size > self.cap_bytes:
            raise StoreFull(f"{self.path} would exceed its limit of {self.cap_bytes} bytes", path=str(self.path))

    def _replace(self, payloads: Sequence[bytes]) -> None:
        if payloads:
            self._create(payloads)
        else:
            self.path.unlink()
            _sync_directory(self.path.parent)

    def _create(self, payloads: Sequence[bytes]) -> None:
        """Put a file with these records in the place of the old one, at once and for good."""
        seed = secrets.token_bytes(8)
        content = FORMAT + seed + _frames(payloads, seed)
        new = self.path.with_suffix(".new")
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write(descriptor, content, 0)
                _sync(descriptor)
            finally:
                os.close(descriptor)
            new.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):  # what is left of it is overwritten by the next attempt
                new.unlink()
            raise
        _sync_directory(self.path.parent)
        self._known = Position(seed, len(content))

    def _set_aside(self) -> None:
        if self.path.stat().st_size == 0:
            self.path.unlink()
        else:
            self.path.replace(self.path.with_name(f"unreadable-{secrets.token_hex(6)}{self.path.suffix}"))


@contextlib.contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of this name; the kernel releases it with its holder. Raises `StoreError` after `seconds`."""
    descriptor = take_lock(path, seconds)
    if descriptor is None:
        raise StoreError(
            f"another process keeps {path} locked",
            suggestions=("Try again.", "Look for a process that hangs: `fuser -v` names who has the file open."),
            path=str(path),
        )
    try:
        yield
    finally:
        os.close(descriptor)


def take_lock(path: Path, seconds: float) -> int | None:
    """The descriptor that holds the lock until it is closed; None if others held it for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        taken = False
        try:
            while not (taken := _try_lock(descriptor)) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            if not taken:
                return None
            # A lock whose file was deleted binds nobody who comes later.
            taken = is_file_at(descriptor, path)
            if taken:
                return descriptor
        finally:
            if not taken:
                os.close(descriptor)


def is_file_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that others find at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def prepare_directory(path: Path) -> None:
    """Make a private directory, lasting like what will be written into it. Raises `OSError` if it is not ours alone."""
    if not path.parent.is_dir():
        prepare_parents(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{path} must be a directory that belongs to you alone (mode 0700)") from None
        return
    _sync_directory(path.parent)


def prepare_parents(path: Path) -> None:
    """Make a directory and those above it."""
    if not path.is_dir():
        prepare_parents(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(path.parent)


def _contents(descriptor: int, after: Position) -> Contents | None:
    """The open file from `after` on, or from its beginning if it is another; None if it is no file of this format."""
    header = os.pread(descriptor, HEADER_BYTES, 0)
    if len(header) < HEADER_BYTES or not header.startswith(FORMAT):
        return None
    seed = header[len(FORMAT) :]
    size = os.fstat(descriptor).st_size
    anew = seed != after.seed or size < after.end
    start = HEADER_BYTES if anew else after.end
    blob = _read(descriptor, start, size - start)
    records, damaged, good = _scan(blob, seed)
    placed = tuple(Record(start + offset, payload) for offset, payload in records)
    return Contents(Position(seed, start + good), placed, tuple(damaged), anew)


def _scan(blob: bytes, seed: bytes) -> tuple[list[Record], list[bytes], int]:
    """The records in `blob`, the stretches between them that are none, and where the last record ends."""
    records: list[Record] = []
    damaged: list[bytes] = []
    offset = good = 0
    while (offset := blob.find(_MARK, offset)) >= 0:
        payload = _record_at(blob, offset, seed)
        if payload is None:
            offset += 1
            continue
        if offset > good:
            damaged.append(blob[good:offset])
        records.append(Record(offset, payload))
        offset = good = offset + _HEAD.size + len(payload)
    return records, damaged, good


def _record_at(blob: bytes, offset: int, seed: bytes) -> bytes | None:
    if offset + _HEAD.size > len(blob):
        return None
    _, length, checksum = _HEAD.unpack_from(blob, offset)
    begin = offset + _HEAD.size
    payload = blob[begin : begin + length]
    return payload if len(payload) == length and _checksum(payload, seed) == checksum else None


def _frames(payloads: Sequence[bytes], seed: bytes) -> bytes:
    return b"".join(
        part for payload in payloads for part in (_HEAD.pack(_MARK, len(payload), _checksum(payload, seed)), payload)
    )


def _checksum(payload: bytes, seed: bytes) -> int:
    length = len(payload).to_bytes(4, "little")
    return xxhash.xxh3_64_intdigest(length + payload, int.from_bytes(seed, "little"))


def _read(descriptor: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:  # a disk that fills up takes a part first
        written = os.pwrite(descriptor, left, offset)
        offset += written
        left = left[written:]


def _sync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone does not reach the disk
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

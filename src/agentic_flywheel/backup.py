"""Backups: all that a tenant knows in one file, and back (docs/backup.md).

Invariant: what was acknowledged before an export began is in the file, and a file under its own name is whole. An
import may be done again, cut off and gone on with, and comes to the same; every line that is read is either put back,
there already, skipped with a reason, or named as damaged. Memory holds one page, whatever the file's size.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agentic_flywheel import __version__
from agentic_flywheel.backup_file import BackupReader, BackupWriter, CutOff, Line, Summary, cut_off
from agentic_flywheel.backup_reading import BackupSource
from agentic_flywheel.backup_records import FORMAT, KINDS, SECTIONS, VERSION, Header, Record, line_of
from agentic_flywheel.backup_writing import BackupTarget
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.folders import data_folder
from agentic_flywheel.store.store import Store

#: Damaged lines that a receipt names; it counts all.
_NAMED = 20

#: What is nobody's own.
_OF_THE_TEAM = ("policies", "faq", "counts")

#: Told how many records are done so far.
Progress = Callable[[int], None]


class BackupReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote or an import put back, or would (`dry_run`).

    `records` counts by kind what was written or put back; `there` what the target had already; `skipped` counts by kind
    and reason. `damaged_lines` names the first of the lines that were passed over, `damaged` counts them. `resumed` is
    the line that the work was gone on behind, 0 where it began anew. Times are epoch seconds.
    """

    action: str
    file: str
    tenant: str
    dry_run: bool = False
    records: dict[str, int] = {}
    there: dict[str, int] = {}
    skipped: dict[str, int] = {}
    damaged: int = 0
    damaged_lines: tuple[int, ...] = ()
    resumed: int = 0
    size_bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    at: float = 0.0
    warnings: tuple[str, ...] = ()


class _Journal(msgspec.Struct, kw_only=True):
    """How far an import came: the last line that is done, and what became of all up to it."""

    line: int = 1
    added: dict[str, int] = {}
    there: dict[str, int] = {}
    skipped: dict[str, int] = {}
    damaged: int = 0
    damaged_lines: list[int] = []


class Backup:
    """Writes a tenant's memory to a file, and puts a file back.

    await flywheel.backup.export("monday.jsonl.zst")
    await flywheel.backup.restore("monday.jsonl.zst", dry_run=True)
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        behind: WriteBehind,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._behind = behind
        self._forget = forget  # what this process has at hand

    async def export(
        self,
        target: Path | str,
        *,
        sections: Sequence[str] = (),
        user: str = "",
        since: float | None = None,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> BackupReceipt:
        """Write sessions, policies, the FAQ and answers to a file (compressed if it ends in `.zst`), or to `-`.

        `sections` are some of "sessions", "policies", "faq", "counts", "entries" (all without any named). With `user`,
        only that user's sessions and answers; `since` (epoch seconds) leaves out sessions, counts and answers that are
        older. The file is called `NAME.part` until it is whole, and `resume` goes on with one that was cut off.

        Raises `InputError` and `StoreError`.
        """
        began = time.time()
        header = self._header(sections, user, since, began)
        left = await asyncio.to_thread(cut_off, target) if resume else None
        if left is not None:
            header = _same(left.header, header, since)
        waiting = await self._settle()
        source = BackupSource(self._store, self._registry, header)
        first = left.header_line if left else line_of("header", header)
        writer = await asyncio.to_thread(BackupWriter, target, first, kept=left.kept if left else None)
        try:
            async for page in source.pages(left.last if left else None):
                await asyncio.to_thread(_write, writer, page)
                if progress is not None:
                    progress(writer.records.total())
            summary = await asyncio.to_thread(writer.finish)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise InputError(f"{target} cannot be written: {error.strerror or error}", file=str(target)) from error
        finally:
            writer.leave()
        return self._exported(target, header, summary, left, began, [*waiting, *_left_out(source.damaged)])

    async def restore(
        self,
        source: Path | str,
        *,
        dry_run: bool = False,
        resume: bool = False,
        skip_damaged: bool = False,
        progress: Progress | None = None,
    ) -> BackupReceipt:
        """Put back what a file (or `-`) holds, beside what is there; `dry_run` only says what would be.

        `resume` goes on where an import of the same file to the same place was cut off. A damaged line ends the import
        (what stands before it is put back), unless `skip_damaged` passes over it and counts it.

        Raises `InputError` and `StoreError`; what was put back until then stays, and may be put back again.
        """
        began = time.time()
        await self._behind.flush()
        reader = await asyncio.to_thread(BackupReader, source)
        try:
            place = self._place(reader)
            journal = _read(place) if resume and not dry_run else _Journal()
            resumed = journal.line if journal.line > 1 else 0
            target = BackupTarget(self._store, tenant=reader.header.tenant, dry_run=dry_run)
            for counts, known in _counters(target, journal):
                counts.update(known)
            while page := await asyncio.to_thread(reader.page):
                due = [line for line in page if line.number > journal.line]
                await self._put(reader, target, journal, due, skip_damaged=skip_damaged)
                if due and not dry_run:
                    await asyncio.to_thread(_save, place, target, journal)
                if progress is not None:
                    progress(page[-1].number)
            faults = reader.faults()
        finally:
            self._forget()
            reader.close()
        receipt = self._restored(reader, target, journal, resumed, began, dry_run=dry_run)
        if faults and not skip_damaged:
            would = "would be" if dry_run else "are"
            raise InputError(
                f"{reader.name} is not whole: {faults}; all sound lines in it {would} put back",
                suggestions=(
                    "Take another copy of the file and import that: what is there already stays as it is.",
                    "Export again, or go on with an export that was cut off: `afw export FILE --resume`.",
                    "To be content with this file, import it with --skip-damaged.",
                ),
                file=reader.name,
                receipt=msgspec.to_builtins(receipt),
            )
        if not dry_run:
            place.unlink(missing_ok=True)
        if faults:
            receipt = msgspec.structs.replace(
                receipt, warnings=(*receipt.warnings, f"The file is not whole: {faults}.")
            )
        return receipt

    async def _put(
        self,
        reader: BackupReader,
        target: BackupTarget,
        journal: _Journal,
        lines: Sequence[Line],
        *,
        skip_damaged: bool,
    ) -> None:
        """Put the lines of a page back; `journal` says afterwards how far that came."""
        records: list[Record] = []
        bad: Line | None = None
        for line in lines:
            if line.record is not None:
                records.append(line.record)
            elif skip_damaged and not line.unknown:
                journal.damaged += 1
                if len(journal.damaged_lines) < _NAMED:
                    journal.damaged_lines.append(line.number)
            else:
                bad = line
                break
        await target.put(records)
        if bad is None:
            journal.line = lines[-1].number if lines else journal.line
            return
        would = "would be" if target.dry_run else "are"
        before = f"The {bad.number - 1} lines before it {would} put back" if bad.number > 2 else "Nothing is put back"
        what = "cannot be understood" if bad.unknown else "is damaged"
        raise InputError(
            f"line {bad.number} of {reader.name} {what}: {bad.damage}. {before}, none behind it",
            suggestions=(
                "Update Agentic Flywheel: another release wrote this line."
                if bad.unknown
                else "Pass over damaged lines and have them counted: --skip-damaged.",
                "Take another copy of the file and import that: what is there already stays as it is.",
                "See what the rest of the file holds with --dry-run.",
            ),
            file=reader.name,
            line=bad.number,
        )

    def _header(self, sections: Sequence[str], user: str, since: float | None, at: float) -> Header:
        if isinstance(sections, str) or (strange := [name for name in sections if name not in SECTIONS]):
            raise InputError(
                f"a backup holds {', '.join(SECTIONS)}, not {sections if isinstance(sections, str) else strange[0]!r}"
            )
        if user:
            admit_id(user, "user")
            if team := [name for name in sections if name in _OF_THE_TEAM]:
                raise InputError(f"{team[0]}: that is the team's; a backup of one user has sessions and entries only")
        if since is not None and not math.isfinite(since):
            raise InputError(f"since is a moment in epoch seconds, not {since}")
        chosen = tuple(
            name for name in SECTIONS if name in (sections or SECTIONS) and not (user and name in _OF_THE_TEAM)
        )
        return Header(
            format=FORMAT,
            version=VERSION,
            tenant=self._settings.text("tenant"),
            at=at,
            release=__version__,
            sections=chosen,
            kinds=tuple(name for name, kind in KINDS.items() if kind.section in chosen),
            user=user,
            since=since,
        )

    async def _settle(self) -> list[str]:
        """Have Redis hold all that can be; what to warn of where it cannot."""
        await self._behind.flush()
        await self._store.outbox.settle()
        waiting = await self._store.outbox.sessions()
        absent = await self._store.sessions.absent(waiting)
        count = sum(map(len, absent.values()))
        return [f"{count} turn(s) wait in the local outbox and are not in the file."] if count else []

    def _exported(
        self,
        target: Path | str,
        header: Header,
        summary: Summary,
        left: CutOff | None,
        began: float,
        warnings: list[str],
    ) -> BackupReceipt:
        return BackupReceipt(
            action="export",
            file=str(target),
            tenant=header.tenant,
            records=summary.records,
            resumed=left.kept + 1 if left else 0,
            size_bytes=summary.size_bytes,
            sha256=summary.sha256,
            seconds=time.time() - began,
            at=header.at,
            warnings=tuple(warnings),
        )

    def _restored(
        self,
        reader: BackupReader,
        target: BackupTarget,
        journal: _Journal,
        resumed: int,
        began: float,
        *,
        dry_run: bool,
    ) -> BackupReceipt:
        here = self._settings.text("tenant")
        other = reader.header.tenant != here
        said = f"The file is of the tenant {reader.header.tenant!r}, what it is put into is {here!r}."
        return BackupReceipt(
            action="import",
            file=reader.name,
            tenant=here,
            dry_run=dry_run,
            records=dict(target.added),
            there=dict(target.there),
            skipped=dict(target.skipped),
            damaged=journal.damaged,
            damaged_lines=tuple(journal.damaged_lines),
            resumed=resumed,
            seconds=time.time() - began,
            at=began,
            warnings=(said,) if other else (),
        )

    def _place(self, reader: BackupReader) -> Path:
        """Where it stands how far this file was put into this place: its first line tells it from any other."""
        address = self._store.link.address.shown
        told = f"{address} {self._settings.text('tenant')} ".encode() + reader.header_line
        name = hashlib.blake2b(told, digest_size=16).hexdigest()
        return data_folder(self._settings) / "imports" / f"{name}.json"


def _write(writer: BackupWriter, page: Sequence[Record]) -> None:
    writer.write((record.kind, line_of(record.kind, record.value)) for record in page)


def _same(left: Header, wanted: Header, since: float | None) -> Header:
    """The header of the export that is gone on with. Raises `InputError` where that was another one."""
    names = ["tenant", "sections", "user"] + (["since"] if since is not None else [])
    other = [name for name in names if getattr(left, name) != getattr(wanted, name)]
    if other:
        raise InputError(
            f"what was cut off is another export: its {other[0]} is {getattr(left, other[0])!r}",
            suggestions=(
                "Go on with the options that it was begun with; leave out --since, the file knows it.",
                "Begin anew: leave out --resume.",
            ),
        )
    return left


def _left_out(damaged: dict[str, int]) -> list[str]:
    return [f"{count} stored {kind} value(s) are damaged and not in the file." for kind, count in damaged.items()]


def _counters(target: BackupTarget, journal: _Journal) -> list[tuple[Counter[str], dict[str, int]]]:
    return [(target.added, journal.added), (target.there, journal.there), (target.skipped, journal.skipped)]


def _read(place: Path) -> _Journal:
    try:
        return msgspec.json.decode(place.read_bytes(), type=_Journal)
    except (FileNotFoundError, msgspec.DecodeError):  # without it the import begins anew, and comes to the same
        return _Journal()


def _save(place: Path, target: BackupTarget, journal: _Journal) -> None:
    """Write down how far it came; whoever is killed meanwhile leaves the journal of before."""
    journal.added, journal.there, journal.skipped = dict(target.added), dict(target.there), dict(target.skipped)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(journal))
    fresh.replace(place)

"""The file of a backup: whole under its own name, else refused with the line and the reason."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import msgspec
import pytest
import zstandard

from agentic_flywheel.backup_file import BackupReader, BackupWriter, Line, cut_off, part_of
from agentic_flywheel.backup_records import (
    FORMAT,
    KINDS,
    SECTIONS,
    VERSION,
    BlockedPair,
    Header,
    Record,
    StoredEntry,
    Trailer,
    line_of,
    read_line,
)
from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Entry, Outcome, Reason, Session, Turn

HEADER = Header(
    format=FORMAT, version=VERSION, tenant="team", at=1.0, release="9", sections=SECTIONS, kinds=tuple(KINDS)
)
PAIRS = [("blocked", BlockedPair(flow="docs", pair=f"{number:04x}")) for number in range(450)]
ENTRY = Entry("q", "", "a", "docs", "docs", "Docs", "fp", 1, 1.0, 9.0, "trace", "turn")


def turn(number: int, session: str) -> tuple[str, Turn]:
    return "turn", Turn(
        f"t{number}", session, 1.0, "Why?", "So. " * 50, "docs", "fp", Outcome.MISS, Reason.NOT_STORED, "x"
    )


def written(path: Path, records: list[tuple[str, msgspec.Struct]], *, finish: bool = True) -> Path:
    writer = BackupWriter(path, line_of("header", HEADER))
    for record in records:
        writer.write([(record[0], line_of(*record))])
    if finish:
        writer.finish()
    writer.leave()
    return path


def read(path: Path) -> tuple[list[Line], str]:
    with BackupReader(path) as reader:
        lines: list[Line] = []
        while page := reader.page():
            assert len(page) <= 200
            lines += page
        return lines, reader.faults()


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.zst"])
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, PAIRS)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines, faults = read(path)
    assert [(line.record.kind, line.record.value) for line in lines if line.record] == PAIRS
    assert [line.number for line in lines] == list(range(2, 452))
    assert faults == ""


def test_the_last_line_counts_and_digests_all_before_it(tmp_path: Path) -> None:
    *lines, last = written(tmp_path / "backup", PAIRS[:3]).read_bytes().splitlines(keepends=True)
    trailer = read_line(last).value
    assert isinstance(trailer, Trailer)
    assert trailer.records == {"blocked": 3}
    assert trailer.lines == 4
    assert trailer.sha256 == hashlib.sha256(b"".join(lines)).hexdigest()


def test_compressed_or_not_is_what_the_file_says(tmp_path: Path) -> None:
    plain = written(tmp_path / "backup.jsonl", PAIRS)
    renamed = tmp_path / "renamed"
    renamed.write_bytes(
        zstandard.compress(plain.read_bytes()[:10_000]) + zstandard.compress(plain.read_bytes()[10_000:])
    )
    assert read(renamed) == read(plain)


def test_nothing_stands_under_the_name_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("the one before")
    writer = BackupWriter(path, line_of("header", HEADER))
    assert path.read_text() == "the one before"
    with pytest.raises(InputError, match="another export is writing"):
        BackupWriter(path, line_of("header", HEADER))
    writer.finish()
    assert read(path) == ([], "")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere/backup cannot be written: No such file"):
        BackupWriter(tmp_path / "nowhere" / "backup", line_of("header", HEADER))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is not a backup"),
        (b"{}\n", "is not a backup"),
        (b"\x28\xb5\x2f\xfdnonsense", "cannot be read|is not a backup"),
        (line_of(*PAIRS[0]), "is not a backup .*line 1 is no header"),
        (line_of("header", msgspec.structs.replace(HEADER, format="another")), "is not a backup"),
        (line_of("header", msgspec.structs.replace(HEADER, version=2)), "has version 2 .* reads version 1"),
        (
            line_of("header", msgspec.structs.replace(HEADER, kinds=("turn", "wisdom"))),
            "may hold wisdom, .* nothing was read",
        ),
        (line_of("header", HEADER).replace(b"team", b"tram"), "line 1: it fails its checksum"),
    ],
)
def test_what_is_no_backup_is_refused_at_once(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "backup"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=said) as refused:
        BackupReader(path)
    assert refused.value.details["file"] == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        BackupReader(tmp_path / "backup")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        BackupReader(tmp_path)


def test_damaged_lines_are_told_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "backup", PAIRS[:5])
    path.write_bytes(path.read_bytes().replace(b'"pair":"0002"', b'"pair":"0009"'))
    lines, faults = read(path)
    assert [(line.number, line.damage) for line in lines if line.record is None] == [(4, "it fails its checksum")]
    assert len(lines) == 5
    assert "missing, doubled or changed" in faults


@pytest.mark.parametrize("change", ["missing", "doubled", "swapped"])
def test_sound_lines_that_were_not_written_so_are_noticed(tmp_path: Path, change: str) -> None:
    path = written(tmp_path / "backup", PAIRS[:5])
    lines = path.read_bytes().splitlines(keepends=True)
    match change:
        case "missing":
            del lines[2]
        case "doubled":
            lines.insert(2, lines[2])
        case _:
            lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))
    found, faults = read(path)
    assert all(line.record for line in found)
    assert "missing, doubled or changed" in faults


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.zst"])
def test_a_file_that_was_cut_off_says_so(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, PAIRS)
    raw = path.read_bytes()
    for size in range(len(raw) - 1, len(raw) // 2, -len(raw) // 9):
        path.write_bytes(raw[:size])
        _, faults = read(path)
        assert "it was cut off" in faults, size


def test_what_stands_behind_the_last_line_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "backup", PAIRS[:2])
    path.write_bytes(path.read_bytes() + line_of(*PAIRS[2]))
    lines, _ = read(path)
    assert lines[-1].damage == "it stands behind the last line"


RECORDS = [
    PAIRS[0],
    ("session", Session(id="one", created_at=1.0)),
    turn(1, "one"),
    ("session", Session(id="two", created_at=1.0)),
    turn(2, "two"),
    turn(3, "two"),
    ("entry", StoredEntry(key="team:flow:docs:q:{1}", ends_at=2.0, entry=ENTRY)),
    ("entry", StoredEntry(key="team:flow:docs:q:{2}", ends_at=2.0, entry=ENTRY)),
]


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.zst"])
@pytest.mark.parametrize(
    ("count", "kept", "last"),
    [
        (1, 0, None),  # flows and policies are written anew
        (2, 1, RECORDS[1]),  # the session that was being written comes again
        (3, 1, RECORDS[1]),
        (6, 3, RECORDS[3]),
        (7, 7, RECORDS[6]),
        (8, 8, RECORDS[7]),
    ],
)
def test_an_export_that_was_cut_off_is_gone_on_with(
    tmp_path: Path, name: str, count: int, kept: int, last: tuple[str, msgspec.Struct] | None
) -> None:
    path = written(tmp_path / name, RECORDS[:count], finish=False)
    part = part_of(path)
    if not name.endswith("zst"):
        part.write_bytes(part.read_bytes() + b'{"kind":"turn","val')
    left = cut_off(path)
    assert left is not None
    assert left.header == HEADER
    assert (left.kept, left.last) == (kept, Record(*last) if last else None)
    writer = BackupWriter(path, left.header_line, kept=left.kept)
    writer.write((kind, line_of(kind, value)) for kind, value in RECORDS[left.kept :])
    writer.finish()
    lines, faults = read(path)
    assert [(line.record.kind, line.record.value) for line in lines if line.record] == RECORDS
    assert faults == ""
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_without_anything_sound_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    assert cut_off(path) is None
    part_of(path).write_bytes(line_of("header", HEADER)[:50])
    assert cut_off(path) is None


def test_what_is_damaged_in_a_cut_off_export_ends_what_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "backup", RECORDS, finish=False)
    part = part_of(path)
    part.write_bytes(part.read_bytes().replace(b'"id":"two"', b'"id":"too"'))
    left = cut_off(path)
    assert left is not None
    assert (left.kept, left.last) == (1, Record(*RECORDS[1]))


def test_nobody_goes_on_with_what_another_export_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    writer = BackupWriter(path, line_of("header", HEADER))
    with pytest.raises(InputError, match="another export is writing"):
        BackupWriter(path, line_of("header", HEADER), kept=0)
    writer.write((kind, line_of(kind, value)) for kind, value in RECORDS)
    writer.finish()
    assert len(read(path)[0]) == len(RECORDS)


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.zst"])
def test_no_other_byte_anywhere_goes_unnoticed(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, RECORDS)
    raw, sound = path.read_bytes(), read(path)
    unnoticed = 0
    for place in range(0, len(raw), 3):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x21]) + raw[place + 1 :])
        try:
            lines, faults = read(path)
        except InputError:
            continue
        if not faults and all(line.record for line in lines):
            assert (lines, faults) == sound  # what the compression did not need
            unnoticed += 1
    assert unnoticed <= 3

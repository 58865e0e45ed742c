"""The log of the outbox: whole records or none, in order, whatever is cut, killed, full or deleted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentic_flywheel.errors import StoreError, StoreFull
from agentic_flywheel.store import journal as journals
from agentic_flywheel.store.journal import HEADER_BYTES, START, Journal, locked
from agentic_flywheel.store.tally import Tally

PAYLOADS = [b"one", b"", b"three" * 100, journals._MARK + b"looks like a record", bytes(range(256))]

WRITER = """
import sys
from pathlib import Path
from agentic_flywheel.store.journal import Journal
journal = Journal(Path(sys.argv[1]), cap_bytes=10**9)
name, count = sys.argv[2], int(sys.argv[3])
for number in range(count):
    journal.append([f"{name} {number} {'x' * (number % 50)}".encode()])
    print(number, flush=True)
"""

LIMITED = """
import resource, sys
from pathlib import Path
from agentic_flywheel.store.journal import Journal
journal = Journal(Path(sys.argv[1]), cap_bytes=10**9)
journal.append([b"before"])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    journal.append([b"y" * 8192])
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append([b"after"])
"""


def _journal(folder: Path, cap_bytes: int = 10**9) -> Journal:
    return Journal(folder / "box" / "turns.log", cap_bytes=cap_bytes)


def _payloads(journal: Journal) -> list[bytes]:
    return [record.payload for record in journal.read().records]


def test_records_come_back_whole_and_in_order(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    for payload in PAYLOADS:
        journal.append([payload])
    journal.append(PAYLOADS)
    assert _payloads(journal) == PAYLOADS * 2
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in journal.path.parent.iterdir()} == {0o600}


def test_a_file_cut_at_any_byte_keeps_what_stands_before_and_takes_more(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    ends = []
    for payload in PAYLOADS:
        journal.append([payload])
        ends.append(journal.path.stat().st_size)
    whole = journal.path.read_bytes()
    for size in range(HEADER_BYTES, len(whole)):
        journal.path.write_bytes(whole[:size])
        fresh = Journal(journal.path, cap_bytes=10**9)
        kept = sum(end <= size for end in ends)
        assert _payloads(fresh) == PAYLOADS[:kept]
        fresh.append([b"next"])
        assert _payloads(fresh) == [*PAYLOADS[:kept], b"next"]
        assert fresh.cut == (size not in (HEADER_BYTES, *ends))


def test_a_writer_that_knows_the_file_cuts_a_torn_tail_too(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"one"])
    with journal.path.open("ab") as file:
        file.write(journals._frames([b"torn"], b"\0" * 8)[:-1])
    journal.append([b"two"])
    assert (_payloads(journal), journal.cut) == ([b"one", b"two"], 1)


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_a_file_without_a_whole_header_is_set_aside_not_removed(tmp_path: Path, size: int) -> None:
    journal = _journal(tmp_path)
    journal.append([b"lost"])
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:size])
    assert _payloads(journal) == []
    Journal(journal.path, cap_bytes=10**9).append([b"next"])
    assert _payloads(journal) == [b"next"]
    aside = list(journal.path.parent.glob("unreadable-*"))
    assert [file.read_bytes() for file in aside] == ([whole[:size]] if size else [])


def test_dropping_sets_a_file_of_another_format_aside_too(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"x"])
    journal.path.write_bytes(b"AFWLOG2\n" + b"a later release's")
    journal.drop(START.seed, set())
    assert not journal.path.exists()
    assert len(list(journal.path.parent.glob("unreadable-*"))) == 1


def test_damage_at_any_byte_costs_the_record_that_holds_it_and_no_other(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    starts = []
    for payload in PAYLOADS:
        starts.append(journal.path.stat().st_size if journal.path.exists() else HEADER_BYTES)
        journal.append([payload])
    whole = journal.path.read_bytes()
    for place in range(HEADER_BYTES, len(whole)):
        journal.path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        hit = sum(start <= place for start in starts) - 1
        contents = journal.read()
        assert [record.payload for record in contents.records] == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
        assert len(contents.damaged) == (hit < len(PAYLOADS) - 1)  # the last one is a torn tail


def test_words_of_a_record_are_never_taken_for_a_record(tmp_path: Path) -> None:
    forger = Journal(tmp_path / "own" / "turns.log", cap_bytes=10**9)
    forger.append([b"forged"])
    forged = forger.path.read_bytes()[HEADER_BYTES:]
    journal = _journal(tmp_path)
    journal.append([b"a question with " + forged + b" in it"])
    journal.path.write_bytes(journal.path.read_bytes()[:-1])
    assert _payloads(journal) == []


def test_beyond_the_cap_nothing_is_written(tmp_path: Path) -> None:
    journal = _journal(tmp_path, cap_bytes=1000)
    with pytest.raises(StoreFull):
        journal.append([b"x" * 1000])
    assert not journal.path.exists()
    while journal.path.exists() is False or journal.path.stat().st_size < 900:
        journal.append([b"x" * 80])
    before = journal.path.read_bytes()
    with pytest.raises(StoreFull):
        journal.append([b"x" * 80, b"x"])
    assert journal.path.read_bytes() == before


def test_reading_goes_on_where_it_stopped_and_notices_another_file(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"one"])
    first = journal.read()
    assert (first.anew, [r.payload for r in first.records]) == (True, [b"one"])
    journal.append([b"two"])
    second = journal.read(first.position)
    assert (second.anew, [r.payload for r in second.records]) == (False, [b"two"])
    journal.drop(second.position.seed, {first.records[0].offset})
    third = journal.read(second.position)
    assert (third.anew, [r.payload for r in third.records]) == (True, [b"two"])
    journal.drop(third.position.seed, {third.records[0].offset})
    assert journal.stamp() is None
    assert journal.read(third.position).anew


def test_dropping_keeps_what_was_appended_meanwhile_and_does_nothing_to_another_file(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"one", b"two"])
    seen = journal.read()
    offsets = {record.offset for record in seen.records}
    journal.append([b"three"])
    journal.drop(seen.position.seed, offsets)
    assert _payloads(journal) == [b"three"]
    journal.drop(seen.position.seed, offsets)
    assert _payloads(journal) == [b"three"]


def test_processes_share_the_file(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, journal.path, name, "60"], stdout=subprocess.DEVNULL, env=os.environ.copy()
        )
        for name in "abcd"
    ]
    taken: list[bytes] = []
    ended = threading.Event()

    def take() -> None:  # as a delivery does, while they write
        while not ended.is_set() or journal.stamp() is not None:
            seen = journal.read()
            journal.drop(seen.position.seed, {record.offset for record in seen.records})
            taken.extend(record.payload for record in seen.records)

    taker = threading.Thread(target=take)
    taker.start()
    try:
        assert [writer.wait(60) for writer in writers] == [0] * 4
    finally:
        ended.set()
        taker.join(60)
    for name in "abcd":
        own = [payload for payload in taken if payload.startswith(name.encode())]
        assert own == [f"{name} {n} {'x' * (n % 50)}".encode() for n in range(60)]
    assert len(taken) == 240


def test_a_killed_writer_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    acknowledged = 0
    for round_ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, journal.path, f"w{round_}", "100000"], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(5 + 7 * round_)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait(20)
        writer.stdout.close()
        told = [int(line) for line in lines if line.endswith(b"\n")]
        own = [payload for payload in _payloads(journal) if payload.startswith(b"w%d " % round_)]
        assert len(own) in (len(told), len(told) + 1)  # the last one may be on disk and not told
        assert own == [f"w{round_} {n} {'x' * (n % 50)}".encode() for n in range(len(own))]
        acknowledged += len(told)
    journal.append([b"end"])
    assert len(_payloads(journal)) > acknowledged


def test_a_disk_that_fills_up_in_the_middle_of_a_record_costs_that_record_alone(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, journal.path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "27"  # EFBIG, as a full disk: a part was written first
    assert _payloads(journal) == [b"before", b"after"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "afw", small], check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        journal = Journal(small / "box" / "turns.log", cap_bytes=10**9)
        kept: list[bytes] = []

        def fill() -> None:
            while True:
                payload = b"%d" % len(kept) + b"x" * 3000
                journal.append([payload])
                kept.append(payload)

        with pytest.raises(OSError, match="No space left"):
            fill()
        assert kept
        assert _payloads(journal) == kept
        Tally(small / "box" / "tally.json").add(lost=1)  # may fail, and must not raise
        journal.drop(journal.read().position.seed, {record.offset for record in journal.read().records})
        journal.append([b"room again"])
        assert _payloads(journal) == [b"room again"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_deleted_directory_is_made_again(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"gone"])
    shutil.rmtree(journal.path.parent)
    assert journal.stamp() is None
    journal.append([b"here"])
    assert _payloads(journal) == [b"here"]


def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.path.parent.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="0700"):
        journal.append([b"x"])


def test_a_writer_that_hangs_does_not_hang_the_others(tmp_path: Path) -> None:
    journal = _journal(tmp_path)
    journal.append([b"x"])
    lock = journal.path.with_suffix(".lock")
    with locked(lock), pytest.raises(StoreError, match="locked"), locked(lock, 0.01):
        pytest.fail("two hold one lock")


def test_a_lock_whose_file_was_deleted_binds_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with locked(lock):
        lock.unlink()
        with locked(lock, 0.01):
            assert lock.exists()


def test_counts_add_up_across_threads_and_survive_garbage(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally.json")
    threads = [threading.Thread(target=lambda: [tally.add(kept=1, lost=2) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.read().kept, tally.read().lost) == (80, 160)
    tally.path.write_bytes(b"{")
    tally.add(kept=1)
    assert tally.read().kept == 1

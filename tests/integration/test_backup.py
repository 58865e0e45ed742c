"""Backups between real servers: whole, repeatable, cut off and gone on with, and never over something newer."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afw_command import Afw, assert_error
from agentic_flywheel import Flywheel, FlywheelSync
from agentic_flywheel.backup_file import BackupReader, part_of
from agentic_flywheel.backup_records import Record, line_of, read_line
from agentic_flywheel.errors import InputError
from agentic_flywheel.likeness import Profile, Proposal, Report, ReportKind
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from agentic_flywheel.store.rights import access_list
from agentic_flywheel.titles import Titled
from clusters import ClusterOfSix
from flywheels import Oracle, everything, opened, settings_for, text_anywhere
from servers import Server, Servers

pytestmark = [pytest.mark.anyio]


@pytest.fixture
def here(servers: Servers) -> Server:
    return servers.get("valkey9")


@pytest.fixture
def there(servers: Servers) -> Server:
    return servers.get("redis62")


@asynccontextmanager
async def both(
    here: Server, there: Server, folder: Path, sealed: bool = False, **arguments: Any
) -> AsyncIterator[tuple[Flywheel, Flywheel]]:
    """A flywheel on each server, with the same flow."""
    for name in ("here", "there"):
        (folder / name).mkdir(exist_ok=True)
    keys = {"encryption_keys": f"k1:{'A' * 43}="} if sealed else {}
    async with (
        opened(here, folder / "here", {"oracle": Oracle()}, **keys) as source,
        opened(there, folder / "there", {"oracle": Oracle()}, **keys, **arguments) as target,
    ):
        yield source, target


def turn(number: int, session: str, *, user: str = "", text: str = "So.", private: bool = False) -> Turn:
    return Turn(
        f"{session}-{number}",
        session,
        1000.0 + number,
        f"Why {number}?",
        text,
        "oracle",
        "fp",
        Outcome.MISS,
        Reason.NOT_STORED,
        "trace",
        user=user,
        private=private,
    )


async def converse(flywheel: Flywheel) -> None:
    """Two users, a few sessions, answers, and what people decided."""
    for number in range(3):
        await flywheel.ask(f"How does part {number} of it work?", session="talk", user="ann")
    await flywheel.ask("What does the other one cost?", session="été {x}", user="bob")
    await flywheel.ask("Is a single question kept as well?")
    await flywheel.sessions.tag("talk", add=["ops", "ünïcode"])
    await flywheel.sessions.rename("talk", "A good title")
    await flywheel.sessions.configure("talk", {"temperature": 0.0, "deep": {"n": [1, 1.0, None]}})
    store = flywheel._store
    await store.flows.set_type_ttl("creative", 77.0)
    await store.flows.set_ttl("oracle", 86_400.0)
    await store.similar.set_override("oracle", profile=Profile.FAQ, max_error=0.02)
    await store.similar.block("oracle", "ab" * 16)
    await store.policies.change(Whose.FLOW, "oracle", PrivacyPolicy(retention_days=90, redact=frozenset({"email"})))
    await store.policies.change(Whose.USER, "eve@example.com", PrivacyPolicy(history=False, cache=False))
    for number in range(2):
        await store.similar.add_report(
            Report(id=f"r{number}", kind=ReportKind.WRONG, turn_id="t", session_id="talk", flow="oracle", question="q")
        )
    await store.similar.put_proposal(
        Proposal(id="p1", flow="oracle", setting="ttl", now="1d", proposed="2d", evidence="seen", at=1.0)
    )
    approved = await flywheel.faq.add("How does the whole of it work?", "Well.", flow="oracle", wordings=["Work it?"])
    await flywheel.faq.approve(approved.id, owner="ann", by="ann")
    await flywheel.faq.add("How does a draft work?", "Not yet.", flow="oracle", by="bob")
    await flywheel.flush()


def raw_turns(server: Server, tenant: str = "default") -> dict[str, list[bytes]]:
    """The bytes of all turns, by the key of their stream, in their order."""
    with server.client() as client:
        keys = client.scan_iter(match=f"afw:v1:{tenant}:session:*:turns", count=1000)
        return {key.decode(): [fields[b"t"] for _, fields in client.xrange(key)] for key in keys}


def records(path: Path) -> list[Record]:
    with BackupReader(path) as reader:
        found: list[Record] = []
        while page := reader.page():
            found += [line.record for line in page if line.record]
        assert reader.faults() == ""
        return found


@pytest.mark.parametrize("name", ["backup.jsonl", "backup.jsonl.zst"])
async def test_all_of_a_tenant_comes_back_on_another_family_of_servers(
    here: Server, there: Server, tmp_path: Path, name: str
) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await converse(source)
        exported = await source.backup.export(tmp_path / name)
        assert exported.records == {
            "flow": 1, "lifetime": 2, "privacy": 2, "similar": 1, "blocked": 1, "report": 2, "proposal": 1,
            "session": 3, "turn": 5, "entry": 5, "faq": 2, "asked": 5,
        }  # fmt: skip
        put = await target.backup.restore(tmp_path / name)
        assert put.records == exported.records
        assert (put.there, put.skipped, put.warnings) == ({}, {}, ())
        assert raw_turns(there) == raw_turns(here)
        assert len(raw_turns(here)) == 3
        assert (await target.sessions.list()).sessions == (await source.sessions.list()).sessions
        assert await target.sessions.show("talk") == await source.sessions.show("talk")
        assert await target.faq.entries() == await source.faq.entries()
        approved = next(view.id for view in await target.faq.entries() if view.state.served)
        assert await target.faq.history(approved) == await source.faq.history(approved)
        assert await target.lifetimes.show() == await source.lifetimes.show()
        assert (await target.policies.show()).policies == (await source.policies.show()).policies
        assert await target.flows.changes("oracle") == await source.flows.changes("oracle")
        for read in ("reports", "proposals"):
            arguments = (10,) if read == "reports" else ()
            found = [await getattr(one._store.similar, read)(*arguments) for one in (source, target)]
            assert found[0] == found[1] != []
        await target.backup.export(tmp_path / "again.jsonl")
        assert comparable(records(tmp_path / "again.jsonl")) == comparable(records(tmp_path / name))
        assert (await target.ask("work it", flow="oracle")).faq == approved
        answer = await target.ask("Is a single question kept as well?")
        assert (answer.outcome, answer.reason) == (Outcome.HIT, Reason.EXACT)
        assert 86_400 * 0.9 < (answer.ttl_seconds or 0) < 86_400 * 1.1
    assert not there.leaks()


def comparable(found: list[Record]) -> list[Record]:
    """Records without the moments that a server keeps to the millisecond."""
    replace = msgspec.structs.replace
    return [replace(one, value=replace(one.value, ends_at=0.0)) if one.kind == "entry" else one for one in found]


@pytest.mark.parametrize("sealed", [False, True])
async def test_importing_twice_changes_nothing(here: Server, there: Server, tmp_path: Path, sealed: bool) -> None:
    async with both(here, there, tmp_path, sealed=sealed) as (source, target):
        await converse(source)
        await source.backup.export(tmp_path / "backup")
        would = await target.backup.restore(tmp_path / "backup", dry_run=True)
        assert everything(there) == {}
        first = await target.backup.restore(tmp_path / "backup")
        assert (would.records, would.skipped) == (first.records, {})
        before = everything(there)
        for dry_run in (True, False):
            again = await target.backup.restore(tmp_path / "backup", dry_run=dry_run)
            assert (again.records, again.there) == ({}, first.records)
            assert everything(there) == before


async def test_what_is_here_and_newer_stays(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await converse(source)
        await target.ask("What is new on the other side of it?", session="talk", user="ann")
        await target.sessions.rename("talk", "The title here")
        await target.ask("Is a single question kept as well?")
        await target._store.flows.set_type_ttl("creative", 99.0)
        await target._store.similar.set_override("oracle", profile=Profile.STRICT)
        await target.flush()
        await source.backup.export(tmp_path / "backup")
        put = await target.backup.restore(tmp_path / "backup")
        assert put.skipped == {"lifetime: decided otherwise here": 1}
        assert put.there["flow"] == put.there["session"] == put.there["entry"] == 1
        thread = await target.sessions.show("talk")
        assert thread.session.title == "The title here"
        assert thread.session.tags == ("ops", "ünïcode")
        assert thread.session.turns == len(thread.turns) == 4
        assert thread.session.last_active_at == thread.turns[0].at
        assert (await target._store.flows.type_ttls())["creative"] == 99.0
        state = await target._store.similar.state("oracle", "e" * 32)
        assert (state.profile, state.max_error) == (Profile.STRICT, 0.02)
        entry = (await target.cache.show(await target.cache.key("Is a single question kept as well?"))).entry
        assert entry.answer.startswith("oracle 2:")


async def test_an_answer_comes_back_only_under_its_own_configuration(
    here: Server, there: Server, tmp_path: Path
) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await source.ask("Which configuration gave this answer?")
        await source.flush()
        await source.backup.export(tmp_path / "backup")
        changed = {"fingerprint": "f" * 32, "revision": "", "etag": "", "checked_at": time.time(), "now": time.time()}
        await target._store.flows.observe("oracle", **changed)
        put = await target.backup.restore(tmp_path / "backup")
        assert put.skipped == {"entry: another configuration of the flow": 1}
        await target.ask("Which configuration gave this answer?")  # the flow is what it was in the file
        await target.cache.clear(everything=True, dry_run=False)
        put = await target.backup.restore(tmp_path / "backup")
        assert put.records["entry"] == 1
        answer = await target.ask("Which configuration gave this answer?")
        assert (answer.outcome, answer.text[:9]) == (Outcome.HIT, "oracle 1:")


async def test_a_flow_that_changed_since_serves_nothing_of_the_file(
    here: Server, there: Server, tmp_path: Path
) -> None:
    """Promise 3 holds for what was taken over, too."""
    async with both(here, there, tmp_path) as (source, target):
        await source.ask("Which configuration gave this answer?")
        await source.flush()
        await source.backup.export(tmp_path / "backup")
        await target.backup.restore(tmp_path / "backup")
    (tmp_path / "there").joinpath("flows.yaml").write_text("flows: {}\n")
    async with opened(there, tmp_path / "there", {"oracle": (Oracle("new"), {"config": {"model": "other"}})}) as target:
        answer = await target.ask("Which configuration gave this answer?")
        assert (answer.outcome, answer.reason) == (Outcome.MISS, Reason.FLOW_CHANGED)


async def test_expired_and_withdrawn_answers_do_not_come_back(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await source.ask("Which answer has ended meanwhile?")
        private = await source.ask("Which answer was called private later?")
        await source.flush()
        path = tmp_path / "backup"
        await source.backup.export(path)
        await target.backup.restore(path)
        await target.similar.report(private.turn_id, ReportKind.PRIVATE, session=private.session_id)
        await target.backup.restore(path)
        assert (await target.ask("Which answer was called private later?")).reason is Reason.WITHDRAWN
        ended = tmp_path / "ended"
        rewritten(
            path, ended, lambda kind, value: msgspec.structs.replace(value, ends_at=1.0) if kind == "entry" else value
        )
        put = await target.backup.restore(ended)
        assert put.skipped == {"entry: expired since": 2, "asked: called private here": 1}


async def test_what_was_called_private_there_is_private_here(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        private = await source.ask("Which answer was called private later?")
        await source.flush()
        await source.similar.report(private.turn_id, ReportKind.PRIVATE, session=private.session_id)
        await source.backup.export(tmp_path / "backup", sections=["entries"])
        await target.ask("Which answer was called private later?")
        await target.flush()
        put = await target.backup.restore(tmp_path / "backup")
        assert put.records == {"entry": 1}
        assert (await target.ask("Which answer was called private later?")).reason is Reason.WITHDRAWN


def rewritten(path: Path, target: Path, change: Any) -> None:
    """The same backup with other values, whole again."""
    from agentic_flywheel.backup_file import BackupWriter

    with BackupReader(path) as reader:
        writer = BackupWriter(target, reader.header_line)
        while page := reader.page():
            for line in page:
                assert line.record is not None
                writer.write(
                    [(line.record.kind, line_of(line.record.kind, change(line.record.kind, line.record.value)))]
                )
    writer.finish()


async def test_an_answer_is_put_under_keys_of_answers_alone(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await source.ask("Which key would this be put under?")
        await source.flush()
        await source.backup.export(tmp_path / "backup")
        for number, key in enumerate(("flow:{oracle}", "team:flow:another:q:{" + "0" * 32 + "}")):
            bent = tmp_path / f"bent-{number}"
            rewritten(
                tmp_path / "backup",
                bent,
                lambda kind, value, key=key: msgspec.structs.replace(value, key=key) if kind == "entry" else value,
            )
            put = await target.backup.restore(bent)
            assert put.skipped == {"entry: not under the key of an answer": 1}


async def test_deleted_turns_and_other_peoples_sessions_stay_as_they_are(
    here: Server, there: Server, tmp_path: Path
) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await source._store.sessions.append(turn(1, "mine", user="ann"))
        await source._store.sessions.append(turn(2, "mine", user="ann"))
        await source._store.sessions.append(turn(1, "taken", user="ann"))
        await source.backup.export(tmp_path / "backup")
        await target._store.sessions.append(turn(9, "taken", user="bob"))
        would = await target.backup.restore(tmp_path / "backup", dry_run=True)
        put = await target.backup.restore(tmp_path / "backup")
        reason = "the session is another user's here"
        assert put.skipped == would.skipped == {f"session: {reason}": 1, f"turn: {reason}": 1}
        assert [one.id for one in (await target.sessions.show("taken")).turns] == ["taken-9"]
        await target._store.sessions.delete_turn(turn(1, "mine", user="ann"), title=Titled("", "", True))
        put = await target.backup.restore(tmp_path / "backup")
        assert "turn" not in put.records
        assert [one.id for one in (await target.sessions.show("mine")).turns] == ["mine-2"]


async def test_another_tenant_gets_keys_of_its_own(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path, tenant="other") as (source, target):
        await converse(source)
        await source.backup.export(tmp_path / "backup")
        put = await target.backup.restore(tmp_path / "backup")
        assert "'default'" in put.warnings[0]
        assert "'other'" in put.warnings[0]
        with there.client() as client:
            assert {key.split(b":")[2] for key in client.scan_iter(match="afw:*")} == {b"other"}
        for one in (await target.sessions.show("talk")).turns:
            assert (await target.cache.show(one.entry_key)).entry.turn_id == one.id


async def test_one_users_backup_has_no_word_of_anybody_else(here: Server, tmp_path: Path) -> None:
    async with opened(here, tmp_path, {"oracle": Oracle()}) as flywheel:
        await converse(flywheel)
        await flywheel.ask("What is only for the eyes of bob?", user="bob", session="his")
        path = tmp_path / "ann"
        got = await flywheel.backup.export(path, user="ann")
        assert got.records == {"flow": 1, "session": 1, "turn": 3, "entry": 3}
        assert {one.value.user for one in records(path) if one.kind == "turn"} == {"ann"}
        assert "bob" not in path.read_text()
        with pytest.raises(InputError, match="policies: that is the team's"):
            await flywheel.backup.export(path, user="ann", sections=["policies"])
        with pytest.raises(InputError, match="faq: that is the team's"):
            await flywheel.backup.export(path, user="ann", sections=["faq"])
        with pytest.raises(InputError, match="not 'wisdom'"):
            await flywheel.backup.export(path, sections=["wisdom"])


async def test_what_is_chosen_is_in_the_file_and_no_more(here: Server, tmp_path: Path) -> None:
    async with opened(here, tmp_path, {"oracle": Oracle()}) as flywheel:
        await converse(flywheel)
        await flywheel._store.sessions.append(turn(1, "old"))
        kinds = {}
        for section in ("sessions", "policies", "faq", "entries"):
            kinds[section] = set((await flywheel.backup.export(tmp_path / "b", sections=[section])).records)
        assert kinds == {
            "sessions": {"session", "turn"},
            "policies": {"lifetime", "privacy", "similar", "blocked", "report", "proposal"},
            "faq": {"faq"},
            "entries": {"flow", "entry"},
        }
        recent = await flywheel.backup.export(tmp_path / "b", sections=["sessions"], since=2000.0)
        assert recent.records == {"session": 3, "turn": 5}
        none = await flywheel.backup.export(tmp_path / "b", sections=["entries"], since=time.time() + 60)
        assert none.records == {"flow": 1}


async def test_a_huge_session_keeps_its_order(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        turns = [turn(number, "huge", text="x" * 20_000 if number % 100 == 7 else "So.") for number in range(1234)]
        for start in range(0, len(turns), 300):
            await source._store.link.run(
                *source._store.sessions.append_commands(*turns[start : start + 300]), slow=True
            )
        await source._store.sessions.append(turn(0, "small", private=True))
        assert (await source.backup.export(tmp_path / "b.zst")).records == {"session": 2, "turn": 1235}
        assert (await target.backup.restore(tmp_path / "b.zst")).records == {"session": 2, "turn": 1235}
        assert raw_turns(there) == raw_turns(here)
        thread = await target.sessions.show("huge")
        assert [one.id for one in thread.turns] == [one.id for one in turns]
        assert thread.session.turns == 1234


async def test_what_was_acknowledged_before_is_in_it_while_others_write(here: Server, tmp_path: Path) -> None:
    async with opened(here, tmp_path, {"oracle": Oracle()}) as flywheel:
        before = [turn(number, f"s{number % 40}") for number in range(400)]
        for one in before:
            await flywheel._store.sessions.append(one)
        writing, number = True, 1000

        async def write() -> None:
            nonlocal number
            while writing:
                await flywheel._store.sessions.append(turn(number, f"s{number % 60}"))
                number += 1

        writer = asyncio.create_task(write())
        await flywheel.backup.export(tmp_path / "backup")
        writing = False
        await writer
        found = [one.value for one in records(tmp_path / "backup") if one.kind == "turn"]
        assert {one.id for one in before} <= {one.id for one in found}
        assert len({one.id for one in found}) == len(found)
        assert number > 1000


async def test_an_export_that_was_cut_off_goes_on_to_the_same_file(here: Server, tmp_path: Path) -> None:
    async with opened(here, tmp_path, {"oracle": Oracle()}) as flywheel:
        await converse(flywheel)
        for number in range(300):
            await flywheel._store.sessions.append(turn(number, f"s{number % 50}"))
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        await flywheel.backup.export(whole)
        lines = whole.read_bytes().splitlines(keepends=True)[:-1]
        expected = comparable(records(whole))
        resumed = set()
        for count in range(0, len(lines) + 1, 17):
            part_of(cut).write_bytes(b"".join(lines[:count]) + b'{"kind":"tu')
            receipt = await flywheel.backup.export(cut, resume=True)
            resumed.add(receipt.resumed)
            assert comparable(records(cut)) == expected, count
        assert len(resumed) > 10
        part_of(cut).write_bytes(b"".join(lines))
        with pytest.raises(InputError, match="what was cut off is another export: its sections"):
            await flywheel.backup.export(cut, resume=True, sections=["sessions"])


async def test_a_damaged_line_ends_the_import_and_is_named(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        for number in range(10):
            await source._store.sessions.append(turn(number, "talk"))
        path = tmp_path / "backup"
        await source.backup.export(path, sections=["sessions"])
        path.write_bytes(path.read_bytes().replace(b"Why 6?", b"Who 6?"))
        with pytest.raises(InputError, match=r"line 9 of .* is damaged: it fails its checksum. The 8 lines") as refused:
            await target.backup.restore(path)
        assert refused.value.details["line"] == 9
        assert len((await target.sessions.show("talk")).turns) == 6
        receipt = await target.backup.restore(path, skip_damaged=True)
        assert (receipt.damaged, receipt.damaged_lines) == (1, (9,))
        assert (receipt.records, receipt.there) == ({"turn": 3}, {"session": 1, "turn": 6})
        assert "not whole" in receipt.warnings[0]
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
        with pytest.raises(
            InputError,
            match=r"is not whole: it ends after line 5 .* it was cut off; all sound lines in it are put back",
        ):
            await target.backup.restore(path)


async def test_turns_without_their_session_begin_it(here: Server, there: Server, tmp_path: Path) -> None:
    async with both(here, there, tmp_path) as (source, target):
        await source._store.sessions.append(turn(1, "talk", user="ann"))
        path = tmp_path / "backup"
        await source.backup.export(path, sections=["sessions"])
        path.write_bytes(path.read_bytes().replace(b'"owner":"ann"', b'"owner":"eve"'))
        await target.backup.restore(path, skip_damaged=True)
        found = (await target.sessions.list(user="ann")).sessions
        assert [(one.id, one.owner, one.title, one.turns, one.created_at) for one in found] == [
            ("talk", "ann", "Why 1?", 1, 1001.0)
        ]


async def test_damaged_values_are_left_out_and_told(here: Server, tmp_path: Path) -> None:
    async with opened(here, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel._store.sessions.append(turn(1, "talk"))
        with here.client() as client:
            client.xadd("afw:v1:default:session:{talk}:turns", {"t": b"nonsense"})
        receipt = await flywheel.backup.export(tmp_path / "backup")
        assert receipt.records["turn"] == 1
        assert receipt.warnings == ("1 stored turn value(s) are damaged and not in the file.",)


IMPORTER = """
import asyncio, sys
from agentic_flywheel import Directives, Flywheel, FlywheelSync

def told(lines):
    print(lines, flush=True)

async def main():
    async with Flywheel.open(background=False) as flywheel:
        await flywheel.backup.restore(sys.argv[1], progress=told)

asyncio.run(main())
"""


def killed_in_the_middle(afw: Afw, path: Path) -> None:
    """An import that is killed once it has said five times how far it is."""
    command = [sys.executable, "-c", IMPORTER, str(path)]
    with subprocess.Popen(command, env=afw.environ, stdout=subprocess.PIPE, cwd=afw.work) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)


async def test_an_import_that_was_killed_goes_on_where_it_was(here: Server, there: Server, tmp_path: Path) -> None:
    path = tmp_path / "backup"
    async with opened(here, tmp_path, {"oracle": Oracle()}) as source:
        for start in range(0, 12_000, 500):
            turns = [turn(number, f"s{number // 60}") for number in range(start, start + 500)]
            await source._store.link.run(*source._store.sessions.append_commands(*turns), slow=True)
        await source.backup.export(path)
    afw = Afw(tmp_path / "home", there.url)
    for _ in range(3):
        killed_in_the_middle(afw, path)
    assert 0 < len(raw_turns(there)) < 200
    receipt = afw.json("import", str(path), "--resume")
    assert receipt["resumed"] >= 900
    assert {kind: receipt["records"].get(kind, 0) + receipt["there"].get(kind, 0) for kind in ("session", "turn")} == {
        "session": 200,
        "turn": 12_000,
    }
    assert raw_turns(there) == raw_turns(here)
    assert list((afw.data / "imports").iterdir()) == []


async def test_the_command_line_tells_what_it_did(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "echo one", "--flow", "echo", "--session", "talk", "--user", "ann")
    done = afw.ok("export", "x.jsonl")
    assert "wrote 1 flow, 1 counted question, 1 session, 1 turn, 1 entry" in done.out
    assert "Vectors are not in it" in done.out
    assert (afw.work / "x.jsonl").stat().st_mode & 0o777 == 0o600
    receipt = afw.json("export", "--since", "2020-01-01", "--user", "ann")
    assert receipt["file"].startswith("afw-default-")
    assert receipt["file"].endswith(".jsonl.zst")
    assert receipt["records"] == {"flow": 1, "session": 1, "turn": 1, "entry": 1}
    assert "1 turn" in afw.ok("export", "y.jsonl", "--sessions", "--since", "yesterday").out
    assert "lies ahead" in afw.run("export", "y.jsonl", "--since", "2100-01-01").err
    assert "is no moment: write 2026-11-01" in afw.run("export", "y.jsonl", "--since", "soon").err
    piped = afw.ok("export", "-", "--sessions")
    assert [read_line(line).kind for line in piped.out.encode().splitlines(keepends=True)] == [
        "header", "session", "turn", "trailer",
    ]  # fmt: skip
    assert "wrote 1 session, 1 turn" in piped.err
    would = afw.ok("import", "x.jsonl", "--tenant", "other", "--dry-run")
    assert "would put back 1 flow, 1 counted question, 1 session, 1 turn, 1 entry" in would.out
    assert "Nothing has been put back" in would.err
    assert "the tenant 'default'" in would.err
    put = afw.ok("import", "-", "--tenant", "other", stdin=piped.out)
    assert "put back 1 session, 1 turn" in put.out
    assert "there already: 1 session, 1 turn" in afw.ok("import", "x.jsonl", "--tenant", "other").out
    cut = "".join((afw.work / "x.jsonl").read_text().splitlines(keepends=True)[:-1])
    (afw.work / "cut.jsonl").write_text(cut)
    told = afw.run("import", "cut.jsonl", "--tenant", "third").err
    assert "all sound lines in it are put back" in told
    assert "Go on:" not in told, "there is nothing to go on with"
    damaged = (afw.work / "x.jsonl").read_text().replace("You said", "You sang", 1)
    (afw.work / "x.jsonl").write_text(damaged)
    assert "are done. Go on:" not in afw.run("import", "x.jsonl").err
    error = afw.json("import", "x.jsonl", code=2)
    assert_error(error, "invalid_input")
    assert error["details"]["line"] == 5
    passed = afw.run("import", "x.jsonl", "--skip-damaged")
    assert passed.code == 1
    assert "1 damaged line(s) passed over: 5" in passed.err
    assert_error(afw.json("import", "nowhere", code=2), "invalid_input")
    assert afw.run("export", "--resume").code == 2
    assert afw.run("export", "-", "--json").code == 2


@pytest.fixture(scope="module")
def six() -> Iterator[ClusterOfSix]:
    cluster = ClusterOfSix()
    yield cluster
    cluster.close()


@pytest.mark.xdist_group("cluster")
async def test_a_cluster_is_backed_up_and_put_back(six: ClusterOfSix, there: Server, tmp_path: Path) -> None:
    six.heal()
    async with opened(six.url, tmp_path, {"oracle": Oracle()}) as cluster:
        await converse(cluster)
        for number in range(300):
            await cluster._store.sessions.append(turn(number, f"s{number % 50}"))
        exported = await cluster.backup.export(tmp_path / "backup")
        assert (exported.records["turn"], exported.records["entry"]) == (305, 5)
    six.heal()
    async with opened(six.url, tmp_path, {"oracle": Oracle()}) as cluster:
        put = await cluster.backup.restore(tmp_path / "backup")
        assert put.records == exported.records
        await cluster.backup.export(tmp_path / "again")
        assert comparable(records(tmp_path / "again")) == comparable(records(tmp_path / "backup"))


async def test_the_least_rights_are_enough(here: Server, tmp_path: Path) -> None:
    with here.client() as client:
        client.execute_command("ACL", "SETUSER", *access_list("flywheel"), ">secret")
    try:
        url = here.url.replace("unix://", "unix://flywheel:secret@")
        async with opened(url, tmp_path, {"oracle": Oracle()}, tenant="source") as source:
            await converse(source)
            await source.backup.export(tmp_path / "all")
            await source.backup.export(tmp_path / "recent", user="ann", since=1.0)
        async with opened(url, tmp_path, {"oracle": Oracle()}, tenant="target") as target:
            await target.backup.restore(tmp_path / "all", dry_run=True)
            assert (await target.backup.restore(tmp_path / "all")).skipped == {}
    finally:
        with here.client() as client:
            client.execute_command("ACL", "DELUSER", "flywheel")


def test_programs_without_an_event_loop_have_backups_too(here: Server, tmp_path: Path) -> None:
    settings = settings_for(here, tmp_path)
    with FlywheelSync.open(settings=settings) as flywheel:
        assert flywheel.backup.export(tmp_path / "backup").records == {}
        assert flywheel.backup.restore(tmp_path / "backup").records == {}


async def test_what_a_policy_here_forbids_is_not_put_back(here: Server, there: Server, tmp_path: Path) -> None:
    """But what a policy forbids that comes with the backup itself was kept before it, and comes back."""
    async with both(here, there, tmp_path) as (source, target):
        await converse(source)
        await source.policies.set(Whose.USER, "bob", policy=PrivacyPolicy(history=False))
        await source.backup.export(tmp_path / "b.jsonl")
        await target.policies.set(Whose.USER, "ann", policy=PrivacyPolicy(history=False, cache=False))
        put = await target.backup.restore(tmp_path / "b.jsonl")
        kept = "a privacy policy here keeps none"
        assert {what: count for what, count in put.skipped.items() if kept in what} == {
            f"session: {kept}": 1,
            f"turn: {kept}": 3,
            f"entry: {kept}": 3,
        }
        assert {one.owner for one in (await target.sessions.list()).sessions} == {"bob", ""}
        assert not [key for key in text_anywhere(there, "does part") if b"popular" not in key and b"paths" not in key]
        await target.policies.set(Whose.TENANT, policy=PrivacyPolicy(history=False))
        again = await target.backup.restore(tmp_path / "b.jsonl", dry_run=True)
        assert again.skipped[f"asked: {kept}"] == 5

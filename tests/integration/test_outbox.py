"""Turns that Redis does not take wait on disk, are seen by follow-ups, and are delivered once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from afw_command import Afw
from agentic_flywheel import Directives, Flywheel, Outcome, Turn
from agentic_flywheel.errors import StoreError, StoreFull, StoreUnavailable, UnknownSession
from agentic_flywheel.model import Reason
from agentic_flywheel.session_list import Cursor
from agentic_flywheel.store.breaker import State
from agentic_flywheel.store.codec import decode
from agentic_flywheel.store.outbox import WAITS
from flywheels import Oracle, opened, settings_for
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.anyio

DELIVERER = """
import asyncio, os, sys
from pathlib import Path
from agentic_flywheel import Flywheel
from agentic_flywheel.settings import load_settings

async def main():
    settings = load_settings(
        {"redis_url": sys.argv[1], "data_dir": sys.argv[2], "registry": sys.argv[3],
         "redis.connect_timeout_seconds": 20.0, "redis.command_timeout_seconds": 20.0},
        environ={"AFW_CONFIG_DIR": sys.argv[2]}, directory=Path(sys.argv[2]),
    )
    async with Flywheel.open(settings=settings) as flywheel:
        print("ready", flush=True)
        sys.stdin.readline()
        while flywheel.outbox.waits():
            await flywheel.outbox.deliver()

asyncio.run(main())
"""


async def eventually(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.005)


async def delivered(flywheel: Flywheel) -> None:
    await eventually(lambda: not flywheel.outbox.waits(), "the outbox to be delivered")


def stored_turns(server: Server, session: str) -> list[str]:
    """The ids of the session's turns as Redis has them, in order."""
    with server.client() as client:
        return [
            decode(fields[b"t"], Turn).id for _, fields in client.xrange(f"afw:v1:default:session:{{{session}}}:turns")
        ]


def turn(number: int, session: str = "s", user: str = "") -> Turn:
    return Turn(
        id=f"t{number}",
        session_id=session,
        at=1_700_000_000.0 + number,
        question=f"question {number} of {session}",
        answer=f"answer {number}" * 30,
        flow="oracle",
        fingerprint="f",
        outcome=Outcome.MISS,
        reason=Reason.NOT_STORED,
        trace_id="0" * 32,
        user=user,
    )


@pytest.fixture
def server(servers: Servers) -> Iterator[Server]:
    """A server that tests may break; it runs again, empty, for the next one."""
    server = servers.get("valkey9")
    yield server
    if server.running:
        with contextlib.suppress(ProcessLookupError):
            server.resume()
    server.start()
    with server.client() as client:
        client.replicaof("NO", "ONE")
        client.execute_command("ACL", "SETUSER", "default", "+@all")
        client.config_set("maxmemory", 0)
    server.flush()


Break = Callable[[Server], Callable[[], None]]


def killed(server: Server) -> Callable[[], None]:
    server.kill()
    return server.start


def hanging(server: Server) -> Callable[[], None]:
    server.pause()
    return server.resume


def full(server: Server) -> Callable[[], None]:
    def mend() -> None:
        with server.client() as client:
            client.config_set("maxmemory", 0)

    with server.client() as client:
        client.config_set("maxmemory", 1)
    return mend


def read_only(server: Server) -> Callable[[], None]:
    def mend() -> None:
        with server.client() as client:
            client.replicaof("NO", "ONE")

    with server.client() as client:
        client.replicaof("127.0.0.1", "1")
    return mend


def unauthorised(server: Server) -> Callable[[], None]:
    def mend() -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "+@write", "+@scripting")

    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-@write", "-@scripting", "+flushall")
    return mend


def unauthorised_in_scripts(server: Server) -> Callable[[], None]:
    def mend() -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "+xadd")

    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-xadd")
    return mend


@pytest.mark.parametrize(
    "damage", [killed, hanging, full, read_only, unauthorised, unauthorised_in_scripts], ids=lambda f: f.__name__
)
async def test_turns_of_an_outage_are_kept_seen_and_delivered_in_order(
    server: Server, tmp_path: Path, damage: Break
) -> None:
    patience = {"redis_command_timeout_seconds": 0.25} if damage is hanging else {}
    async with opened(server, tmp_path, {"oracle": Oracle()}, **patience) as flywheel:
        before = await flywheel.ask("What is a lease?", session="s")
        assert (before.remembered, before.warnings) == (True, ())
        mend = damage(server)
        during = []
        for question in ("Who renews it?", "How often is that?", "What if nobody does?"):
            answer = await flywheel.ask(question, session="s")
            assert answer.remembered
            assert WAITS in answer.warnings
            during.append(answer)
        assert during[-1].context == (before.turn_id, during[0].turn_id, during[1].turn_id)
        status = await flywheel.outbox.status()
        assert (status.waiting, status.sessions, status.kept, status.lost) == (3, 1, 3, 0)
        mend()
        await delivered(flywheel)
        await eventually(lambda: flywheel._store.link.health.state is State.CLOSED, "Redis to be asked again")
        after = await flywheel.ask("And at last?", session="s")
        assert (after.remembered, after.warnings) == (True, ())
        ids = [answer.turn_id for answer in (before, *during, after)]
        assert stored_turns(server, "s") == (ids[1:] if damage is killed else ids)
        thread = await flywheel.sessions.show("s")
        assert ([t.id for t in thread.turns], thread.warnings) == (stored_turns(server, "s"), ())
        await eventually(lambda: flywheel.outbox._tally.read().delivered == 3, "the delivery to be counted")


async def test_another_process_sees_the_turns_that_wait(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        first = await flywheel.ask("What is a lease?", session="s")
        server.kill()
        second = await flywheel.ask("Who renews it?", session="s")
    async with opened(server, tmp_path, {"oracle": Oracle()}) as other:
        third = await other.ask("How often?", session="s")
        assert third.context == (second.turn_id,)  # the first is in Redis, which this process never reached
        assert third.remembered
        thread = await other.sessions.show("s")
        assert [t.id for t in thread.turns] == [second.turn_id, third.turn_id]
        assert "outbox" in thread.warnings[0]
        page = await other.sessions.list()
        assert [(s.id, s.turns, s.title) for s in page.sessions] == [("s", 2, "Who renews it?")]
        assert "outbox" in page.warnings[0]
        assert (await other.sessions.resume()).id == "s"
        with pytest.raises(StoreUnavailable):
            await other.sessions.show("never begun")
    assert first.turn_id not in third.context


async def test_a_session_in_the_outbox_stays_its_owners(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        await flywheel.ask("What do I earn?", session="s", user="alice")
    async with opened(server, tmp_path, {"oracle": Oracle()}) as other:
        with pytest.raises(UnknownSession):
            await other.ask("And what does she earn?", session="s", user="bob")
        assert (await other.sessions.list(user="alice")).sessions[0].id == "s"
        with pytest.raises(StoreUnavailable):
            await other.sessions.list(user="bob")
    async with opened(server, tmp_path, {"oracle": Oracle()}, tenant="other") as stranger:
        assert await stranger.outbox.sessions() == {}
        assert await stranger.outbox.turns("s") == ()


async def test_turns_of_two_users_in_one_session_are_not_mixed(server: Server, tmp_path: Path) -> None:
    """Two processes, or two machines, can begin a session of one id while Redis is away."""
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        mend = killed(server)
        for number, user in enumerate(("ana", "ben", "", "ana")):
            await flywheel.outbox.keep(turn(number, user=user), None)
        thread = await flywheel.sessions.show("s")
        assert ([t.id for t in thread.turns], thread.session.owner) == (["t0", "t2", "t3"], "ana")
        assert [s.id for s in (await flywheel.sessions.list(user="ana")).sessions] == ["s"]
        with pytest.raises(StoreUnavailable):  # he has none that waits
            await flywheel.sessions.list(user="ben")
        follow_up = await flywheel.ask("And how?", session="s", user="ana")
        assert follow_up.context == ("t0", "t2", "t3")
        mend()
        await delivered(flywheel)
        # What Redis refuses of the one is not refused of the other, and comes in its order.
        assert stored_turns(server, "s") == ["t0", "t2", "t3", follow_up.turn_id]
        assert [one.kept.turn for one in await flywheel.outbox.rejected()] == ["t1"]


async def test_questions_without_a_session_are_kept_too(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        queued = await flywheel.ask("Written behind?")
        server.kill()
        told = await flywheel.ask("Asked while Redis is away?")
        assert WAITS in told.warnings
        follow_up = await flywheel.ask("And then?", session=told.session_id)
        assert follow_up.context == (told.turn_id,)
        with pytest.raises(StoreError):  # the counters
            await flywheel.flush()
        waiting = await flywheel.outbox.sessions()
        assert {s: [t.id for t in turns] for s, turns in waiting.items()} == {
            queued.session_id: [queued.turn_id],
            told.session_id: [told.turn_id, follow_up.turn_id],
        }
        assert flywheel._behind.lost == 0
        server.start()
        await delivered(flywheel)
        assert stored_turns(server, told.session_id) == [told.turn_id, follow_up.turn_id]
        assert stored_turns(server, queued.session_id) == [queued.turn_id]


async def test_questions_of_an_outage_are_counted_when_they_are_delivered(server: Server, tmp_path: Path) -> None:
    ask = "How do I rotate the signing keys?"
    flows = {"oracle": Oracle(), "mine": (Oracle(), {"sharing": "user"})}
    async with opened(server, tmp_path, flows) as flywheel:
        server.kill()
        alone = [await flywheel.ask(ask, flow="oracle", user=user) for user in ("ann", "bob")]
        await flywheel.ask(ask, flow="oracle", user="bob", session="s", directives=Directives(standalone=True))
        # Nobody knows what came before these in their session, or they are not for all.
        await flywheel.ask(ask, flow="oracle", user="bob", session="t")
        await flywheel.ask("Where is the secret door?", flow="oracle", directives=Directives(private=True))
        await flywheel.ask("Where is my secret door?", flow="oracle", user="cy")
        await flywheel.ask("Which secret door is it?", flow="oracle", config={"temperature": 1})
        await flywheel.ask("Where is a secret door?", flow="mine", user="cy")
        log = flywheel.outbox.path / "turns.log"
        kept = await asyncio.to_thread(log.read_bytes)
        server.start()

        async def counted() -> list[tuple[str, int, int]]:
            return [(one.question, one.asked, one.askers) for one in await flywheel.popular.list()]

        await delivered(flywheel)
        await eventually(lambda: flywheel._store.link.health.state is State.CLOSED, "Redis to be asked again")
        assert await counted() == [(ask, 3, 2)]
        # A deliverer that dies before it takes the turns out of the log sends them again.
        await asyncio.to_thread(log.write_bytes, kept)
        await flywheel.outbox.deliver()
        assert await counted() == [(ask, 3, 2)]
        # What was counted for a turn is taken back with it, and does not come again.
        await flywheel.sessions.delete_turn(alone[1].session_id, alone[1].turn_id, dry_run=False)
        assert (await counted())[0][1] == 2
        with server.client() as client:  # as if it had died before it counted
            client.delete(*client.scan_iter("*:popular:*"))
        await asyncio.to_thread(log.write_bytes, kept)
        await flywheel.outbox.deliver()
        assert await counted() == [(ask, 2, 2)]
        await flywheel.sessions.delete("s", dry_run=False)
        assert await counted() == [(ask, 1, 1)]


async def test_no_store_leaves_nothing_on_disk(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        await flywheel.ask("A secret?", session="s", directives=Directives(no_store=True))
        assert not flywheel.outbox.path.exists()


async def test_the_outbox_can_be_switched_off(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}, outbox_enabled=False) as flywheel:
        server.kill()
        answer = await flywheel.ask("Kept?", session="s")
        assert not answer.remembered
        assert any("not kept" in warning for warning in answer.warnings)
        assert not flywheel.outbox.path.exists()


async def test_beyond_its_cap_the_outbox_says_so_and_keeps_what_it_has(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}, outbox_max_megabytes=1) as flywheel:
        server.kill()
        assert (await flywheel.ask("Short?", session="s")).remembered
        noise = os.urandom(1_100_000).hex()  # compresses to half
        with pytest.raises(StoreFull, match="limit"):
            await flywheel.outbox.keep(msgspec.structs.replace(turn(1), answer=noise), None)
        status = await flywheel.outbox.status()
        assert (status.waiting, status.lost) == (1, 1)
        server.start()
        await delivered(flywheel)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The data directory as a file system of 64 KB."""
    folder = tmp_path / "data"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "afw", folder], check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_is_said_and_counted(server: Server, tmp_path: Path, small_disk: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        first = await flywheel.ask("Short?", session="s")
        assert first.remembered
        filler = small_disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(b"x" * 100_000)
        second = await flywheel.ask("Long? " + os.urandom(6000).hex(), session="s")
        assert not second.remembered
        assert any("No space left" in warning for warning in second.warnings)
        filler.unlink()
        assert (await flywheel.outbox.status()).lost == 1
        third = await flywheel.ask("Room again?", session="s")
        assert third.remembered
        server.start()
        await delivered(flywheel)
        assert stored_turns(server, "s") == [first.turn_id, third.turn_id]


def delete(folder: Path) -> None:
    """Remove a folder in which a delivery in the background may just make a file."""
    for _ in range(1000):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    pytest.fail(f"{folder} cannot be removed")


async def test_a_data_directory_that_is_deleted_is_made_again(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        assert (await flywheel.ask("One?", session="s")).remembered
        delete(tmp_path / "data")
        second = await flywheel.ask("Two?", session="s")
        assert second.remembered
        server.start()
        await delivered(flywheel)
        assert stored_turns(server, "s") == [second.turn_id]


async def test_a_data_directory_that_cannot_be_used_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        assert (await flywheel.ask("Before?", session="s")).remembered
        server.kill()
        answer = await flywheel.ask("After?", session="s")
        assert not answer.remembered
        assert answer.text


async def test_no_turn_of_this_machine_overtakes_one_that_waits(server: Server, tmp_path: Path) -> None:
    async with (
        opened(server, tmp_path, {"oracle": Oracle()}) as flywheel,
        opened(server, tmp_path, {"oracle": Oracle()}) as other,
    ):
        async with flywheel.outbox._delivery.claim(0) as claimed:
            assert claimed
            await other.outbox.keep(turn(1), None)
            second = await other.ask("And then?", session="s")
            assert second.context == ("t1",)
            assert WAITS in second.warnings
            elsewhere = await other.ask("Something else?", session="another")
            assert elsewhere.warnings == ()
            assert stored_turns(server, "s") == []
        await delivered(other)
        assert stored_turns(server, "s") == ["t1", second.turn_id]


async def test_what_redis_refuses_for_good_is_set_aside_and_blocks_nobody(server: Server, tmp_path: Path) -> None:
    taken = "afw:v1:default:session:{bad}:turns"
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        with server.client() as client:
            client.set(taken, "somebody else's")
        await flywheel.outbox.keep(turn(1, "bad"), None)
        await flywheel.outbox.keep(turn(2, "good"), None)
        await flywheel.outbox.keep(turn(3, "bad"), None)
        await delivered(flywheel)
        assert stored_turns(server, "good") == ["t2"]
        refused = await flywheel.outbox.rejected()
        assert [one.kept.turn for one in refused] == ["t1", "t3"]
        assert "WRONGTYPE" in refused[0].reason
        checks = {(check.name, check.state) for check in await flywheel.doctor()}
        assert ("outbox", "fail") in checks
        with server.client() as client:
            client.delete(taken)
        assert await flywheel.outbox.deliver_rejected() == 2
        await flywheel.outbox.settle()
        await delivered(flywheel)
        assert stored_turns(server, "bad") == ["t1", "t3"]
        assert await flywheel.outbox.rejected() == []


async def test_a_turn_damaged_on_disk_is_set_aside_and_the_others_arrive(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        async with flywheel.outbox._delivery.claim(0):
            for number in range(3):
                await flywheel.outbox.keep(turn(number), None)
            log = flywheel.outbox.path / "turns.log"
            content = bytearray(log.read_bytes())
            content[len(content) // 2] ^= 1
            log.write_bytes(content)
        await delivered(flywheel)
        assert stored_turns(server, "s") == ["t0", "t2"]
        assert [one.reason for one in await flywheel.outbox.rejected()] == ["damaged on disk"]


async def test_deleting_a_session_deletes_what_waits(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("One?", session="s")
        with server.client() as client:
            client.config_set("maxmemory", 1)
        await flywheel.ask("Two?", session="s")
        await flywheel.ask("Three?", session="kept")
        receipt = await flywheel.sessions.delete("s", dry_run=False)
        assert "afw index rebuild" in receipt.notes[-1], "nobody could be told of it"
        assert list(await flywheel.outbox.sessions()) == ["kept"]
        with server.client() as client:
            client.config_set("maxmemory", 0)
        await delivered(flywheel)
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show("s")
        assert len((await flywheel.sessions.show("kept")).turns) == 1


async def test_pages_of_sessions_hold_each_session_once(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for number in range(7):
            await flywheel._store.sessions.append(turn(number, f"s{number}"))
        async with flywheel.outbox._delivery.claim(0), opened(server, tmp_path, {"oracle": Oracle()}) as other:
            await other.outbox.keep(turn(25, "s1"), None)  # an older session goes on
            await other.outbox.keep(turn(4, "new"), None)
            waiting = await other.outbox.sessions()
            pages, cursor = [], "0"
            while cursor:
                page = await other.sessions._list.page(Cursor.read(cursor), waiting, user=None, tag=None, limit=2)
                pages.append([session.id for session in page.sessions])
                cursor = page.cursor
        found = [session for page in pages for session in page]
        assert found == ["s1", "s6", "s5", "new", "s4", "s3", "s2", "s0"]


@contextlib.asynccontextmanager
async def deliverers(server: Server, folder: Path, count: int) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
    """Processes that deliver as soon as they are told to."""
    command = [sys.executable, "-c", DELIVERER, server.url, str(folder / "data"), str(folder / "flows.yaml")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [await asyncio.to_thread(subprocess.Popen, command, **pipes) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


async def fill(server: Server, folder: Path, turns: int) -> dict[str, list[str]]:
    """Put turns of several sessions into the outbox; their ids by session."""
    kept: dict[str, list[str]] = {}
    async with opened(server, folder, {"oracle": Oracle()}) as flywheel:
        async with flywheel.outbox._delivery.claim(0):
            ends = []
            for number in range(turns):
                one = turn(number, f"s{number % 7}")
                kept.setdefault(one.session_id, []).append(one.id)
                ends.append(flywheel.outbox.keep(one, None))
            await asyncio.gather(*ends)
            await flywheel._store.outbox._delivery.aclose(0)
        flywheel.outbox._delivery._task = None
    return kept


async def test_processes_that_deliver_at_the_same_time_deliver_once(server: Server, tmp_path: Path) -> None:
    kept = await fill(server, tmp_path, 2000)
    async with deliverers(server, tmp_path, 3) as processes:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        assert [await asyncio.to_thread(process.wait, 60) for process in processes] == [0] * 3
    assert {session: stored_turns(server, session) for session in kept} == kept


async def test_a_deliverer_that_is_killed_loses_and_doubles_nothing(server: Server, tmp_path: Path) -> None:
    kept = await fill(server, tmp_path, 3000)
    for round_ in range(5):
        async with deliverers(server, tmp_path, 1) as (process,):
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
            floor = 500 * round_
            await asyncio.to_thread(
                wait_until,
                lambda process=process, floor=floor: (
                    process.poll() is not None or sum(len(stored_turns(server, session)) for session in kept) > floor
                ),
                "a delivery to be under way",
            )
            process.send_signal(signal.SIGKILL)
            process.wait()
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.outbox.deliver()
        assert not flywheel.outbox.waits()
    assert {session: stored_turns(server, session) for session in kept} == kept


async def test_many_askers_share_the_wait_for_the_disk(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        answers = await asyncio.gather(*(flywheel.ask(f"Question {n}?", session=f"s{n}") for n in range(50)))
        assert all(answer.remembered for answer in answers)
        assert (await flywheel.outbox.status()).waiting == 50
        server.start()
        await delivered(flywheel)
        assert [len(stored_turns(server, f"s{n}")) for n in range(50)] == [1] * 50


async def test_cancelled_askers_leave_the_outbox_whole(server: Server, tmp_path: Path) -> None:
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        server.kill()
        keeping = [asyncio.create_task(flywheel.outbox.keep(turn(n), None)) for n in range(20)]
        await asyncio.sleep(0)
        for task in keeping[::2]:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        found = [t.id for t in await flywheel.outbox.turns("s")]
        assert {f"t{n}" for n in range(1, 20, 2)} <= set(found)
        assert found == sorted(found, key=lambda name: int(name[1:]))


async def test_turns_for_another_redis_are_told(server: Server, tmp_path: Path) -> None:
    async with opened("redis://:secret@127.0.0.1:1/0", tmp_path, {"oracle": Oracle()}) as flywheel:
        assert (await flywheel.ask("Kept?", session="s")).remembered
        folder = flywheel.outbox.path
    assert "secret" not in "".join(path.read_text("latin-1") for path in folder.iterdir())
    async with opened(server, tmp_path, {"oracle": Oracle()}) as flywheel:
        status = await flywheel.outbox.status()
        assert list(status.elsewhere) == ["redis://:***@127.0.0.1:1/0"]
        assert any("another Redis" in check.message for check in await flywheel.doctor())
    same = settings_for("redis://:changed@127.0.0.1:1/0?socket_timeout=3", tmp_path)
    async with Flywheel.open(settings=same) as flywheel:
        assert flywheel.outbox.path == folder


def test_the_command(server: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path, server.url)
    assert afw.json("outbox", "status")["waiting"] == 0
    folder = Path(afw.json("outbox", "path")["path"])
    assert not folder.exists()
    server.kill()
    answer = afw.json("ask", "Is it kept?", "--flow", "echo", "--session", "s")
    assert answer["remembered"]
    assert WAITS in answer["warnings"]
    status = afw.json("outbox", "status")
    assert (status["waiting"], status["sessions"], status["path"]) == (1, 1, str(folder))
    assert "1 turn of 1 session" in afw.ok("outbox", "status").out
    assert [t["question"] for t in afw.json("outbox", "list")["waiting"]] == ["Is it kept?"]
    assert "Is it kept?" in afw.ok("outbox", "list").out
    assert afw.run("outbox", "deliver").code == 2
    assert "outbox" in afw.ok("session", "show", "s").err
    checks = {check["name"]: check for check in afw.json("doctor", code=1)["checks"]}
    assert checks["outbox"]["state"] == "warn"
    server.start()
    assert afw.json("outbox", "deliver") == {"delivered": 1, "waiting": 0, "rejected": 0}
    assert stored_turns(server, "s") == [answer["turn_id"]]
    assert afw.ok("outbox", "deliver").out == "0 turns delivered\n"
    assert {check["name"]: check["state"] for check in afw.json("doctor")["checks"]}["outbox"] == "ok"

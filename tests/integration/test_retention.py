"""Turns past their retention go, everywhere and nothing else: by given clocks, on real servers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Flywheel, Outcome, Turn
from agentic_flywheel.errors import UnknownSession
from agentic_flywheel.model import Reason
from agentic_flywheel.privacy import PrivacyPolicy, Whose
from flywheels import Oracle, opened, text_anywhere
from servers import Server, wait_until

pytestmark = pytest.mark.anyio

DAY = 86_400.0
NOW = 1_800_000_000.0
FLOWS: dict[str, Any] = {"docs": (Oracle("docs"), {"id": "docs"}), "code": (Oracle("code"), {"id": "code"})}


def turn(session: str, days: float, *, flow: str = "docs", user: str = "ann", word: str = "plain") -> Turn:
    """A turn that was asked so many days before `NOW`."""
    id_ = f"{session}-{days:g}-{flow}-{user or 'nobody'}"
    return Turn(
        id=id_,
        session_id=session,
        at=NOW - days * DAY,
        question=f"What is {word} {id_}?",
        answer=f"{word} is {id_}.",
        flow=flow,
        fingerprint="f",
        outcome=Outcome.MISS,
        reason=Reason.NOT_STORED,
        trace_id="0" * 32,
        user=user,
    )


async def keep(flywheel: Flywheel, *turns: Turn) -> None:
    for one in turns:
        await flywheel._store.sessions.append(one)


def files_with(text: str, folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def begun(server: Server, folder: Path) -> subprocess.Popen[str]:
    """A process that sweeps in small rounds, and tells of each."""
    command = [sys.executable, "-c", SWEEPER, server.url, str(folder / "data"), str(folder / "flows.yaml"), repr(NOW)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def left(flywheel: Flywheel, *sessions: str) -> list[str]:
    found = []
    for session in sessions:
        try:
            found += [one.id for one in (await flywheel.sessions.show(session)).turns]
        except UnknownSession:
            continue
    return found


async def test_each_turn_goes_by_its_own_flow_user_and_tenant_also_in_sessions_that_go_on(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, FLOWS) as flywheel:
        turns = [
            turn("mixed", days, flow=flow) for days in (100, 40, 20, 5, 1) for flow in ("docs", "code")
        ]  # of one session that goes on
        await keep(flywheel, *turns, turn("b", 8, user="ben"), turn("b", 6, user="ben"))
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=90))
        await flywheel.policies.set(Whose.FLOW, "docs", policy=PrivacyPolicy(retention_days=30))
        await flywheel.policies.set(Whose.USER, "ben", policy=PrivacyPolicy(retention_days=7))

        preview = await flywheel.retention.sweep(dry_run=True, now=NOW)
        assert (preview.removed["turns"], preview.removed["sessions"]) == (4, 0)
        assert len(await left(flywheel, "mixed", "b")) == 12

        receipt = await flywheel.retention.sweep(dry_run=False, now=NOW)
        assert receipt.removed == preview.removed
        assert await left(flywheel, "mixed", "b") == [
            "mixed-40-code-ann",
            *(f"mixed-{days}-{flow}-ann" for days in (20, 5, 1) for flow in ("docs", "code")),
            "b-6-docs-ben",
        ]
        header = (await flywheel.sessions.show("mixed")).session
        assert header.turns == 7
        assert (await flywheel.retention.sweep(dry_run=False, now=NOW)).removed["turns"] == 0

        shown = await flywheel.policies.show()
        assert shown.last_sweep is not None
        assert (shown.last_sweep.done_at, shown.running_sweep) == (NOW, None)
        oldest = {(one.flow, one.user): one.oldest_at for one in shown.in_force}
        assert oldest["", ""] == NOW - 40 * DAY
        assert oldest["docs", ""] == NOW - 20 * DAY
        assert oldest["", "ben"] == NOW - 6 * DAY


async def test_nothing_of_what_went_is_left_in_any_key_file_count_or_index(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, FLOWS) as flywheel:
        now = time.time()
        word = "zyxwort"
        for session, user in (("s", "ann"), ("t", "ben")):
            await flywheel.ask(f"How is the {word} {session} opened?", flow="docs", session=session, user=user)
            await flywheel.ask(f"Where is my {word} {session}?", flow="docs", session=session, user=user)
        await flywheel.ask("How is the other thing opened?", flow="docs", session="s", user="ann")
        await flywheel.similar.report(
            (await flywheel.sessions.show("s")).turns[0].id, "outdated", note="no word of it", session="s", user="ann"
        )
        assert len((await flywheel.history.search(word, user="ann")).found) >= 1
        await flywheel.flush()
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=1, cache=False))
        await flywheel.retention.sweep(dry_run=False, now=now + 2 * DAY)
        holding = [key for key in text_anywhere(redis_server, word) if not key.endswith(b":parts")]
        assert holding == []  # (what a call says to those who wait goes within 18 s by itself)
        assert (await flywheel.history.search(word, user="ann")).found == ()
        assert await left(flywheel, "s", "t") == []
    assert files_with(word, tmp_path) == []


async def test_a_round_is_bounded_and_the_next_process_goes_on_where_the_last_one_was(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, FLOWS) as one, opened(redis_server, tmp_path, FLOWS) as other:
        sessions = [f"s{n}" for n in range(50)]
        await keep(one, *(turn(session, days) for session in sessions for days in (40, 1)))
        await one.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=30))
        assert not await one.retention.round(now=NOW, most=20)
        running = (await one.retention.notes()).running
        assert running is not None
        assert (running.sessions, running.removed, running.done_at) == (20, 20, None)
        assert not await other.retention.round(now=NOW, most=20)
        assert await one.retention.round(now=NOW, most=20)
        last = (await one.retention.notes()).last
        assert last is not None
        assert (last.sessions, last.removed) == (50, 50)
        assert await left(one, *sessions) == [f"{session}-1-docs-ann" for session in sessions]
        entries, _ = await one.audit.list()
        assert sum(int(entry.facts["turns"]) for entry in entries if entry.action == "retention.sweep") == 50
        assert (await one.audit.verify()).intact


async def test_two_processes_at_a_time_remove_each_turn_once(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, FLOWS) as one, opened(redis_server, tmp_path, FLOWS) as other:
        await keep(one, *(turn(f"s{n}", days) for n in range(40) for days in (50, 40, 1)))
        await one.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=30))
        counts: list[dict[str, int]] = [{}, {}]

        async def sweep(flywheel: Flywheel, removed: dict[str, int]) -> None:
            while not await flywheel.retention.round(now=NOW, most=7, removed=removed):
                pass

        await asyncio.gather(sweep(one, counts[0]), sweep(other, counts[1]))
        assert counts[0].get("turns", 0) + counts[1].get("turns", 0) == 80
        assert len(await left(one, *(f"s{n}" for n in range(40)))) == 40


async def test_a_turn_that_comes_in_while_its_session_is_swept_stays(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, FLOWS) as flywheel:
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=30))
        await keep(flywheel, turn("s", 40))
        header = await flywheel._store.sessions.header("s")
        assert header is not None
        append = flywheel._store.sessions.append
        removing = flywheel.sessions.remove_turns

        async def meanwhile(*arguments: Any, **named: Any) -> Any:
            done = await removing(*arguments, **named)
            await append(turn("s", 0))
            return done

        flywheel.sessions.remove_turns = meanwhile  # type: ignore[method-assign]
        receipt = await flywheel.retention.sweep(dry_run=False, now=NOW)
        assert (receipt.removed["turns"], receipt.removed["sessions"]) == (1, 0)
        assert await left(flywheel, "s") == ["s-0-docs-ann"]
        assert [one.id for one in (await flywheel.sessions.list()).sessions] == ["s"]


SWEEPER = """
import asyncio, sys
from pathlib import Path
from agentic_flywheel import Flywheel
from agentic_flywheel.settings import load_settings

async def main():
    settings = load_settings(
        {"redis_url": sys.argv[1], "data_dir": sys.argv[2], "registry": sys.argv[3], "embedder.model": "off"},
        environ={"AFW_CONFIG_DIR": sys.argv[2]}, directory=Path(sys.argv[2]),
    )
    async with Flywheel.open(settings=settings) as flywheel:
        print("ready", flush=True)
        done = False
        while not done:
            done = await flywheel.retention.round(now=float(sys.argv[4]), most=5)
            print("round", flush=True)
        print("done", flush=True)

asyncio.run(main())
"""


async def test_a_sweep_that_is_killed_in_the_middle_is_gone_on_with_and_harms_nothing(
    valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, FLOWS) as flywheel:
        sessions = [f"s{n}" for n in range(200)]
        await keep(flywheel, *(turn(session, days) for session in sessions for days in (40, 1)))
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=30))
        process = begun(valkey, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            assert process.stdout.readline() == "round\n"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
        running = (await flywheel.retention.notes()).running
        assert running is not None
        assert 15 <= running.sessions < 200
        before = running.sessions
        assert await flywheel.retention.go_on(now=NOW)
        last = (await flywheel.retention.notes()).last
        assert last is not None
        assert last.sessions == 200 > before
        assert await left(flywheel, *sessions) == [f"{session}-1-docs-ann" for session in sessions]
        assert (await flywheel.audit.verify()).intact


async def test_housekeeping_goes_on_with_the_sweep(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, FLOWS) as flywheel:
        await keep(flywheel, turn("s", 40))
        await flywheel.policies.set(Whose.TENANT, policy=PrivacyPolicy(retention_days=0.5))
        assert flywheel._housekeeping is not None
        flywheel._housekeeping._next_look = 0.0
        flywheel._housekeeping.look()
        await flywheel.settled()
        notes = await flywheel.retention.notes()
        assert notes.last is not None
        assert notes.last.done_at is not None
        with valkey.client() as client:
            wait_until(lambda: client.ttl("afw:v1:default:mark:swept") > 3600, "the day's mark")

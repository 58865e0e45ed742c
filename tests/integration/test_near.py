"""The near cache on real servers: what is served without asking Redis, and that nothing is for longer than said.

Where the channel must not matter, `STEADY` makes its proofs last: then only what the server says can end a hit. Where
it must be lost, the clock of `near` and `tracking` is moved, so that no test waits for one to run out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

import agentic_flywheel.near
import agentic_flywheel.store.tracking
from agentic_flywheel import Answer, Directives, Flywheel, Outcome, Reason
from agentic_flywheel.near import LONGEST_SECONDS, NearCache
from flywheels import Oracle, opened, settings_for, until
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How is append-only persistence switched on?"
#: No proof runs out while a test runs: what ends a hit is what the server says.
STEADY: dict[str, Any] = {"near_enabled": True, "near_max_staleness_seconds": 600.0, "flow_check_every_seconds": 600.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the near cache and its channel judge."""
    moved = Clock()
    seen = SimpleNamespace(monotonic=moved.monotonic, time=moved.time, perf_counter=time.perf_counter)
    monkeypatch.setattr(agentic_flywheel.near, "time", seen)
    monkeypatch.setattr(agentic_flywheel.store.tracking, "time", seen)
    return moved


class Clock:
    """The real time, and what was added to it."""

    def __init__(self) -> None:
        self.added = 0.0
        self.wall = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.added

    def time(self) -> float:
        return time.time() + self.added + self.wall


def near_of(flywheel: Flywheel) -> NearCache:
    assert flywheel._near is not None
    return flywheel._near


def kept_by(flywheel: Flywheel) -> set[Any]:
    """The names of the answers that are at hand, and whose flow is not in doubt."""
    return {name for name, kept in near_of(flywheel)._kept.items() if kept.flow.looked_at > 0}


async def trusted(flywheel: Flywheel) -> None:
    """Wait until the channel of a flywheel is proven."""
    channel = near_of(flywheel).channel
    assert await channel.proven(20), channel.problem


async def warmed(flywheel: Flywheel, question: str = QUESTION, **how: Any) -> Answer:
    """Ask until the answer comes from memory of this process."""
    await trusted(flywheel)
    deadline = time.monotonic() + 20
    while not (answer := await flywheel.ask(question, **how)).near:
        assert time.monotonic() < deadline, f"waited 20 s for the answer to be at hand, not {answer}"
    return answer


async def never_near(flywheel: Flywheel, question: str = QUESTION, **how: Any) -> None:
    """Ask often enough that it would be near if it were kept at all."""
    for _ in range(4):
        assert not (await flywheel.ask(question, **how)).near


async def test_it_is_off_where_nobody_asked_for_it(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await never_near(flywheel, flow="oracle")
        with valkey.client() as client:
            assert not client.execute_command("CLIENT", "LIST").count(b"flags=t")


async def test_a_hit_from_memory_is_a_hit_and_leaves_its_turn(redis_server: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(redis_server, tmp_path, {"oracle": oracle}, **STEADY) as flywheel:
        before = await warmed(flywheel, flow="oracle", user="ann")
        trips = flywheel.redis_round_trips
        answer = await flywheel.ask(QUESTION, flow="oracle", user="ann")
        assert flywheel.redis_round_trips == trips
        assert (answer.outcome, answer.reason, answer.near) == (Outcome.HIT, Reason.EXACT, True)
        assert (answer.text, answer.key, answer.origin_trace_id) == (before.text, before.key, before.origin_trace_id)
        assert answer.remembered
        assert answer.age_seconds >= before.age_seconds > 0
        assert answer.ttl_seconds is not None
        assert before.ttl_seconds is not None
        assert answer.ttl_seconds <= before.ttl_seconds
        ids = [(a.turn_id, a.trace_id, a.session_id) for a in (before, answer)]
        assert not set(ids[0]) & set(ids[1])
        thread = await flywheel.sessions.show(answer.session_id)
        (turn,) = thread.turns
        assert (turn.id, turn.trace_id, turn.answer, turn.user) == (answer.turn_id, answer.trace_id, answer.text, "ann")
        assert turn.outcome is Outcome.HIT
        assert (await flywheel.sessions.resume(user="ann")).id == answer.session_id
        figures = await flywheel.cache.stats(flow="oracle")
        assert figures.total.outcomes["hit"] == figures.total.questions - 1
        with redis_server.client() as client:
            (counted,) = [client.hget(key, "near") for key in client.scan_iter("afw:v1:*:count:{oracle}:????????")]
        assert counted is not None
        assert int(counted) >= 2
        # A follow-up in the session that it began knows of it, written or not.
        again = await flywheel.ask("And how is it switched off?", session=answer.session_id)
        assert again.context == (answer.turn_id,)
    assert oracle.calls == 2


async def test_what_an_asker_does_with_an_answer_changes_no_other(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
        answer = await warmed(flywheel, flow="oracle")
        answer.config["temperature"] = 2
        assert (await flywheel.ask(QUESTION, flow="oracle")).config == {}


Change = Callable[[Flywheel, Server, Answer], Awaitable[object]]


async def _replaced(other: Flywheel, server: Server, answer: Answer) -> None:
    await other.ask(QUESTION, flow="oracle", directives=Directives(no_cache=True))


async def _cleared(other: Flywheel, server: Server, answer: Answer) -> None:
    await other.cache.clear(flow="oracle", dry_run=False)


async def _key_cleared(other: Flywheel, server: Server, answer: Answer) -> None:
    await other.cache.clear(key=answer.key, dry_run=False)


async def _flow_ttl(other: Flywheel, server: Server, answer: Answer) -> None:
    await other.lifetimes.set("oracle", timedelta(seconds=1))


async def _type_ttl(other: Flywheel, server: Server, answer: Answer) -> None:
    await other.lifetimes.set("technical", timedelta(seconds=1))


async def _flushed(other: Flywheel, server: Server, answer: Answer) -> None:
    with server.client() as client:
        client.flushall()


async def _flushed_database(other: Flywheel, server: Server, answer: Answer) -> None:
    with server.client() as client:
        client.flushdb()


async def _expired(other: Flywheel, server: Server, answer: Answer) -> None:
    with server.client() as client:
        client.pexpire(str(answer.key), 20)


async def _evicted(other: Flywheel, server: Server, answer: Answer) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-lru")
        client.config_set("maxmemory", 1)
        client.get("anything")
        # Eviction precedes a command that wants memory; refused in the end, since not all of it is volatile.
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("wanted", "x")
        client.config_set("maxmemory", 0)
        assert not client.exists(str(answer.key))


CHANGES: list[Change] = [
    _replaced,
    _cleared,
    _key_cleared,
    _flow_ttl,
    _type_ttl,
    _flushed,
    _flushed_database,
    _expired,
    _evicted,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
async def test_what_another_process_changed_is_not_served_any_more(
    redis_server: Server, tmp_path: Path, change: Change
) -> None:
    async with (
        opened(redis_server, tmp_path, {"oracle": (Oracle("one"), {"ttl": None})}, **STEADY) as one,
        opened(redis_server, tmp_path, {"oracle": Oracle("one")}) as other,
    ):
        before = await warmed(one, flow="oracle")
        await change(other, redis_server, before)
        # Not asked, since asking would read Redis and so hide what the channel does.
        await until(lambda: not kept_by(one), "the server's word of the change")
        assert not (await one.ask(QUESTION, flow="oracle")).near


async def test_who_changes_something_sees_it_at_once(valkey: Server, tmp_path: Path) -> None:
    oracle = Oracle()
    async with opened(valkey, tmp_path, {"oracle": oracle}, **STEADY) as flywheel:
        for change in (_replaced, _cleared, _key_cleared, _flow_ttl, _type_ttl):
            before = await warmed(flywheel, flow="oracle")
            await change(flywheel, valkey, before)
            after = await flywheel.ask(QUESTION, flow="oracle")
            assert not after.near, change
            if change not in (_flow_ttl, _type_ttl):
                assert after.text != before.text, change


async def test_a_flow_that_changed_is_not_served_from_memory(valkey: Server, tmp_path: Path) -> None:
    version = {"version": "1"}

    def says(question: str) -> str:
        return f"version {version['version']}: {question}"

    async with (
        opened(valkey, tmp_path, {"says": (says, {"options": version})}, **STEADY) as one,
        opened(valkey, tmp_path, {"says": (says, {"options": {"version": "2"}})}) as other,
    ):
        await warmed(one, flow="says")
        version["version"] = "2"
        assert (await other.ask(QUESTION, flow="says")).reason is Reason.FLOW_CHANGED
        await until(lambda: not kept_by(one), "word of the other process's flow")


WORKER = """
import asyncio, json, sys
from pathlib import Path
from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.settings import load_settings

async def main():
    folder = Path(sys.argv[2])
    settings = load_settings(
        {"redis_url": sys.argv[1], "registry": str(folder / "flows.yaml"), "data_dir": str(folder / "data"),
         "near.enabled": True, "near.max_staleness_seconds": 600.0, "flow.check_every_seconds": 600.0,
         "redis.command_timeout_seconds": 20.0, "redis.connect_timeout_seconds": 20.0},
        environ={"AFW_CONFIG_DIR": str(folder)}, directory=folder)
    registry, count = Registry(settings), iter(range(1000))
    registry.register("oracle", lambda question: f"{sys.argv[3]} {next(count)}", options={"version": "1"})
    async with Flywheel.open(settings=settings, registry=registry) as flywheel:
        assert await flywheel._near.channel.proven(20)
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            answer = await flywheel.ask(
                "What does it say?", flow="oracle", directives=Directives(no_cache=True) if b"new" in line else None)
            print(json.dumps([answer.near, answer.text]), flush=True)

asyncio.run(main())
"""


class Worker:
    """A process with a near cache of its own, asked over its standard input."""

    def __init__(self, server: Server, folder: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, server.url, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *, new: bool = False) -> tuple[bool, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("new\n" if new else "ask\n")
        self._process.stdin.flush()
        near, text = json.loads(self._process.stdout.readline())
        return near, text

    def warmed(self) -> str:
        deadline = time.monotonic() + 20
        while True:
            near, text = self.ask()
            if near:
                return text
            assert time.monotonic() < deadline, "waited 20 s for an answer at hand"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        self._process.stdout.close()


@pytest.fixture
def workers(redis_server: Server, tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    settings_for(redis_server, tmp_path)  # writes the registry
    both = Worker(redis_server, tmp_path, "one"), Worker(redis_server, tmp_path, "two")
    yield both
    for worker in both:
        worker.close()


def test_processes_hear_of_each_others_changes(workers: tuple[Worker, Worker]) -> None:
    one, two = workers
    for round_ in range(5):
        asker, changer = (one, two) if round_ % 2 else (two, one)
        old = asker.warmed()
        _, new = changer.ask(new=True)
        assert new != old
        deadline = time.monotonic() + 20
        while asker.ask()[1] != new:
            assert time.monotonic() < deadline, "waited 20 s for another process's new answer"
        assert asker.warmed() == new


@asynccontextmanager
async def at_hand(server: Server, folder: Path, **settings: Any) -> AsyncIterator[tuple[Flywheel, Oracle]]:
    """A flywheel with the bound of its near cache at 0.25 s and an answer at hand."""
    oracle = Oracle()
    settings = {"near_enabled": True, "flow_check_every_seconds": 600.0} | settings
    async with opened(server, folder, {"oracle": oracle}, **settings) as flywheel:
        await warmed(flywheel, flow="oracle")
        yield flywheel, oracle


@contextmanager
def paused(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def peek(flywheel: Flywheel) -> Answer | None:
    return near_of(flywheel).answer(QUESTION, "oracle", None, None)


async def test_a_server_that_hangs_is_believed_for_the_bound_and_no_longer(
    valkey: Server, tmp_path: Path, clock: Clock
) -> None:
    async with at_hand(valkey, tmp_path, near_max_staleness_seconds=8.0) as (flywheel, _):
        with paused(valkey):
            assert peek(flywheel) is not None
            clock.added += 4
            assert peek(flywheel) is not None
            clock.added += 4
            assert peek(flywheel) is None
        await warmed(flywheel, flow="oracle")


@pytest.mark.parametrize("how", ["all", "tracking"])
async def test_a_channel_that_is_killed_is_opened_anew_and_old_answers_are_forgotten(
    redis_server: Server, tmp_path: Path, how: str
) -> None:
    async with at_hand(redis_server, tmp_path) as (flywheel, _):
        heard = near_of(flywheel)._heard
        with redis_server.client() as client:
            clients = [c for c in client.client_list() if "t" in c["flags"] or how == "all"]
            own = client.client_id()
            killed = [client.client_kill_filter(_id=c["id"]) for c in clients if int(c["id"]) != own]
        assert sum(killed)
        await until(lambda: near_of(flywheel)._heard > heard, "a new channel")
        assert (await warmed(flywheel, flow="oracle")).near


async def test_nothing_is_served_from_memory_once_redis_is_gone(valkey: Server, tmp_path: Path) -> None:
    async with at_hand(valkey, tmp_path) as (flywheel, oracle):
        valkey.kill()
        await until(lambda: peek(flywheel) is None, "the last proof to run out")
        answer = await flywheel.ask(QUESTION, flow="oracle")
        assert (answer.outcome, answer.near) == (Outcome.BYPASS, False)
        valkey.start()
        calls = oracle.calls
        # Nothing that was known before the restart is believed: Redis came back empty.
        deadline = time.monotonic() + 20
        while (answer := await flywheel.ask(QUESTION, flow="oracle")).outcome is Outcome.BYPASS:
            assert time.monotonic() < deadline, "waited 20 s for Redis to be asked again"
        assert not answer.near
        assert oracle.calls > calls
        await warmed(flywheel, flow="oracle")


class Swallower:
    """A TCP proxy that passes everything on but, once told to, what a server says unasked."""

    def __init__(self, port: int) -> None:
        self.swallows = False
        self.swallowed = 0
        self._target = port
        self._talks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        finally:
            server.close()
            for talk in list(self._talks):
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thither = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, thither))
                both.create_task(self._carry(there, writer, back=True))
        finally:
            for end in (thither, writer):
                end.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool = False) -> None:
        while chunk := await source.read(1 << 16):
            if back and self.swallows:
                chunk = self._without_pushes(chunk)
            sink.write(chunk)
        sink.close()

    def _without_pushes(self, chunk: bytes) -> bytes:
        """Invalidations are whole within a chunk, since they are short and nothing longer stands before them."""
        while (at := chunk.find(b">2\r\n$10\r\ninvalidate\r\n")) >= 0:
            lines = chunk[at:].split(b"\r\n")
            end = 4 if lines[3] in (b"_", b"*-1") else 4 + 2 * int(lines[3][1:])
            chunk = chunk[:at] + b"\r\n".join(lines[end:])
            self.swallowed += 1
        return chunk


async def test_a_channel_that_tells_nothing_is_never_trusted(valkey: Server, tmp_path: Path) -> None:
    proxy = Swallower(valkey.port)
    proxy.swallows = True
    async with (
        proxy.listening() as url,
        opened(url, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel,
    ):
        channel = near_of(flywheel).channel
        assert not await channel.proven(20)
        assert "does not say what changes" in channel.problem
        await never_near(flywheel, flow="oracle")
        assert proxy.swallowed
        (check,) = [check for check in await flywheel.doctor() if check.name == "near cache"]
        assert (check.state, "does not say" in check.message) == ("warn", True)


async def test_pushes_that_vanish_later_on_cost_truth_for_ten_seconds_at_most(
    valkey: Server, tmp_path: Path, clock: Clock
) -> None:
    proxy, oracle = Swallower(valkey.port), Oracle()
    async with (
        proxy.listening() as url,
        opened(url, tmp_path, {"oracle": oracle}, **STEADY) as one,
        opened(valkey, tmp_path, {"oracle": oracle}) as other,
    ):
        before = await warmed(one, flow="oracle")
        proxy.swallows = True
        await _replaced(other, valkey, before)
        await until(lambda: proxy.swallowed, "the change to be swallowed")
        assert (await one.ask(QUESTION, flow="oracle")).text == before.text
        clock.added += LONGEST_SECONDS
        after = await one.ask(QUESTION, flow="oracle")
        assert not after.near
        assert after.text != before.text


async def test_a_server_that_no_longer_tracks_is_found_out(redis_server: Server, tmp_path: Path) -> None:
    async with at_hand(redis_server, tmp_path) as (flywheel, _):
        channel = near_of(flywheel).channel
        # As a proxy does that goes on with another server behind the same connection: what this one says is true of
        # a connection without tracking.
        original = channel._ask

        async def ask(wire: Any) -> None:
            if not channel.problem:
                await wire.exchange([("CLIENT", "TRACKING", "OFF")])
            await original(wire)

        channel._ask = ask  # type: ignore[method-assign]
        await until(lambda: channel.problem, "the channel to notice")
        assert "no longer" in channel.problem
        channel._ask = original  # type: ignore[method-assign]
        await warmed(flywheel, flow="oracle")


async def test_no_directive_session_override_or_domain_is_answered_from_memory(valkey: Server, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"session": "s-1"},
        {"config": {"temperature": 0.1}},
        {"turn_id": "t-1"},
        *(
            {"directives": directives}
            for directives in (
                Directives(no_store=True),
                Directives(no_cache=True),
                Directives(only_if_cached=True),
                Directives(private=True),
                Directives(standalone=True),
                Directives(max_age=timedelta(days=1)),
                Directives(max_stale=timedelta(days=1)),
            )
        ),
    ]
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
        for how in ways:
            await warmed(flywheel, flow="oracle")
            await never_near(flywheel, flow="oracle", **how)
        # Directives that ask for nothing, as the MCP tools give them, are none.
        assert (await warmed(flywheel, flow="oracle", directives=Directives())).near


async def test_only_answers_for_all_are_kept_and_none_that_hits_renew_or_checks_guard(
    valkey: Server, tmp_path: Path
) -> None:
    flows = {
        "users": (Oracle(), {"sharing": "user"}),
        "sessions": (Oracle(), {"sharing": "session"}),
        "nobodys": (Oracle(), {"sharing": "none"}),
        "sliding": (Oracle(), {"sliding": True}),
        "checked": (Oracle(), {"check_every": timedelta(0)}),
        "team": Oracle(),
    }
    async with opened(valkey, tmp_path, flows, **STEADY) as flywheel:
        await warmed(flywheel, flow="team")
        for flow in ("users", "sessions", "nobodys", "sliding", "checked"):
            await never_near(flywheel, flow=flow, user="ann")
        # Words about oneself narrow the scope, whatever the flow's is.
        await never_near(flywheel, "What is my own budget?", flow="team", user="ann")
        assert {name[1] for name in kept_by(flywheel)} == {"team"}


async def test_stale_answers_and_those_past_their_refresh_point_go_the_whole_way(
    valkey: Server, tmp_path: Path, clock: Clock
) -> None:
    lasting = {"ttl_technical_seconds": 100, "ttl_jitter": 0.0, "ttl_refresh_after": 0.08, **STEADY}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **lasting) as flywheel:
        await warmed(flywheel, flow="oracle")
        clock.wall += 7.0
        assert peek(flywheel) is not None
        clock.wall += 1.5
        assert peek(flywheel) is None
        clock.wall = -3600.0  # a clock that was put back: an answer from the future is none
        assert peek(flywheel) is None


async def test_a_changed_registry_is_noticed_at_once(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
        await warmed(flywheel, flow="oracle")
        (tmp_path / "flows.yaml").write_text("# another reading\nflows: {}\n", "utf-8")
        assert peek(flywheel) is None


async def test_a_changed_document_is_noticed_within_the_bound(valkey: Server, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "page.md"
    page.write_text("# Persistence\n\nAppend-only persistence is switched on with appendonly yes.\n", "utf-8")
    registry = tmp_path / "flows.yaml"
    registry.write_text(f"flows:\n  pages:\n    kind: documents\n    folder: {tmp_path / 'pages'}\n", "utf-8")
    bound = {**STEADY, "near_max_staleness_seconds": 5.0}
    async with opened(valkey, tmp_path, {}, **bound) as flywheel:
        await until(lambda: time.time() - registry.stat().st_mtime > 3, "the registry to settle")
        before = await warmed(flywheel, flow="pages")
        page.write_text("# Persistence\n\nAppend-only persistence is switched on with a lever.\n", "utf-8")
        clock.added += 6
        after = await flywheel.ask(QUESTION, flow="pages")
        assert not after.near
        assert after.text != before.text


async def test_a_flow_is_looked_at_before_anybody_has_to_wait_for_it(
    valkey: Server, tmp_path: Path, clock: Clock
) -> None:
    bound = {**STEADY, "near_max_staleness_seconds": 6.0}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **bound) as flywheel:
        await warmed(flywheel, flow="oracle")
        near = near_of(flywheel)
        looked = near._flows["oracle"]
        for _ in range(2):  # together longer than a look may be old
            before = looked.looked_at
            near.channel.trusted_until = float("inf")
            clock.added += 3.5
            assert (await flywheel.ask(QUESTION, flow="oracle")).near
            await until(lambda before=before: looked.looked_at > before, "the flow to be looked at")
            assert looked.looking is None
        await flywheel.flush()
        async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as other:
            await other.cache.clear(flow="oracle", dry_run=False)
        near.channel.trusted_until = float("inf")
        looked.looked_at -= 3.5
        await until(lambda: not near._kept, "the clearing to be heard")
        assert not (await flywheel.ask(QUESTION, flow="oracle")).near


async def test_the_memory_it_takes_is_bounded_and_the_least_used_goes_first(valkey: Server, tmp_path: Path) -> None:
    def long(question: str) -> str:
        return f"{question} " + "word " * 10_000

    async with opened(valkey, tmp_path, {"long": long}, near_max_megabytes=1, **STEADY) as flywheel:
        near = near_of(flywheel)
        await warmed(flywheel, "Question 0", flow="long")
        for number in range(1, 40):
            await warmed(flywheel, f"Question {number}", flow="long")
            assert near.answer("Question 0", "long", None, None) is not None  # used again and again
            assert near.size_bytes <= 1_000_000
            assert near.size_bytes == sum(kept.size for kept in near._kept.values())
        assert 5 < len(near._kept) < 40
        assert near.answer("Question 1", "long", None, None) is None
        near.forget()
        assert (near.size_bytes, near._kept, near._by_key) == (0, {}, {})


async def test_one_answer_that_is_too_large_leaves_the_others_in_place(valkey: Server, tmp_path: Path) -> None:
    def says(question: str) -> str:
        return question * (50_000 if "giant" in question else 1)

    async with opened(valkey, tmp_path, {"says": says}, near_max_megabytes=1, **STEADY) as flywheel:
        await warmed(flywheel, flow="says")
        await never_near(flywheel, "A giant question indeed", flow="says")
        assert (await flywheel.ask(QUESTION, flow="says")).near


async def test_when_too_much_waits_to_be_written_askers_wait_and_no_turn_is_lost(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentic_flywheel.behind.MOST_TURNS", 40)
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
        await warmed(flywheel, flow="oracle")
        answers = [await flywheel.ask(QUESTION, flow="oracle") for _ in range(300)]
        assert {True, False} == {answer.near for answer in answers}
        assert all(answer.outcome is Outcome.HIT for answer in answers)
        await flywheel.flush()
        for answer in answers:
            (turn,) = (await flywheel.sessions.show(answer.session_id)).turns
            assert turn.id == answer.turn_id
        assert flywheel._behind.lost == 0


async def test_closing_leaves_no_task_and_no_connection(valkey: Server, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
        await warmed(flywheel, flow="oracle")
        near = near_of(flywheel)
    assert asyncio.all_tasks() == before
    assert not near._kept
    near.channel.start()  # a question that ends after the end opens nothing
    assert asyncio.all_tasks() == before
    with valkey.client() as client:
        await until(lambda: len(client.client_list()) == 1, "the server to see everyone go")


async def test_the_doctor_says_that_it_works(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}, near_enabled=True) as flywheel:
        (check,) = [check for check in await flywheel.doctor() if check.name == "near cache"]
        assert check.state == "ok"


async def test_it_is_off_on_a_cluster_and_the_doctor_says_why(tmp_path: Path) -> None:
    settings = settings_for(
        "redis+cluster://127.0.0.1:1/0", tmp_path, near_enabled=True, redis_connect_timeout_seconds=0.05
    )
    async with Flywheel.open(settings=settings) as flywheel:
        assert flywheel._near is None
        (check,) = [check for check in await flywheel.doctor() if check.name == "near cache"]
        assert (check.state, "cluster" in check.message) == ("warn", True)


async def test_a_user_without_the_right_to_track_is_served_from_redis(valkey: Server, tmp_path: Path) -> None:
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    try:
        url = f"redis://limited:secret@127.0.0.1:{valkey.port}/0"
        async with opened(url, tmp_path, {"oracle": Oracle()}, **STEADY) as flywheel:
            await never_near(flywheel, flow="oracle")
            assert (await flywheel.ask(QUESTION, flow="oracle")).outcome is Outcome.HIT
            (check,) = [check for check in await flywheel.doctor() if check.name == "near cache"]
            assert check.state == "warn"
    finally:
        with valkey.client() as client:
            client.execute_command("ACL", "DELUSER", "limited")


async def test_a_server_that_has_no_place_for_the_channel_still_answers_questions(
    valkey: Server, tmp_path: Path
) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, near_enabled=True) as flywheel:
        await flywheel.ask(QUESTION, flow="oracle")
        with valkey.client() as client:
            usual = client.config_get("maxclients")["maxclients"]
            client.config_set("maxclients", len(client.client_list()))
            try:
                channel = near_of(flywheel).channel
                assert not await channel.proven(20)
                for _ in range(20):
                    assert (await flywheel.ask(QUESTION, flow="oracle")).outcome is Outcome.HIT
                assert channel.problem
            finally:
                client.config_set("maxclients", usual)
        await warmed(flywheel, flow="oracle")

"""How often Redis is spoken to for one question: as the flywheel counts it, and as a proxy before the server sees it.

A round trip is sending something and waiting for the reply. The proxy counts how often the direction turns: bytes
from the client after bytes from the server (or at the beginning) begin a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentic_flywheel import Answer, Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.settings import Settings, load_settings
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I enable append-only persistence in Redis?"
FOLLOW_UP = "And what does that cost?"
#: Variables that a test sets for all flywheels.
ENVIRON: dict[str, str] = {}


class CountingProxy:
    """A unix socket in front of a server that counts round trips over all its connections."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.round_trips = 0
        self._server = server
        self._conversations: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._conversations.append(asyncio.create_task(self._carry_both(reader, writer)))

    async def ended(self) -> None:
        """Wait until every client has gone."""
        async with asyncio.timeout(20):
            await asyncio.gather(*self._conversations)

    async def _carry_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self._server)
        answered = True

        async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, asks: bool) -> None:
            nonlocal answered
            while chunk := await source.read(1 << 16):
                if asks and answered:
                    self.round_trips += 1
                answered = not asks
                sink.write(chunk)
                await sink.drain()
            sink.close()

        await asyncio.gather(carry(reader, there_writer, asks=True), carry(there_reader, writer, asks=False))
        await there_writer.wait_closed()
        await writer.wait_closed()


@asynccontextmanager
async def proxy_before(server: Server, directory: Path) -> AsyncIterator[CountingProxy]:
    proxy = CountingProxy(directory / "proxy.sock", server.socket)
    listening = await asyncio.start_unix_server(proxy.accept, proxy.path)
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.ended()
        await listening.wait_closed()


async def echo(question: str, history: list[object]) -> str:
    return f"{len(history)} turns before {question}"


def flywheel_at(url: str, directory: Path) -> Flywheel:
    settings: Settings = load_settings(
        {"redis_url": url, "redis.command_timeout_seconds": 10.0},
        environ={"AFW_CONFIG_DIR": str(directory)} | ENVIRON,
        directory=directory,
    )
    registry = Registry(settings)
    registry.register("echo", echo)
    return Flywheel.open(settings=settings, registry=registry)


class Watched:
    """A flywheel behind a proxy: asks, and says what it cost by both counts."""

    def __init__(self, flywheel: Flywheel, proxy: CountingProxy) -> None:
        self.flywheel = flywheel
        self._proxy = proxy

    async def ask(self, question: str, session: str | None = None) -> tuple[Outcome, int]:
        answer, spent = await self.spent(lambda: self.flywheel.ask(question, session=session, flow="echo"))
        return answer.outcome, spent

    async def spent(self, action: Callable[[], Awaitable[Answer]]) -> tuple[Answer, int]:
        # What is still to be written behind would be counted as part of the question.
        await self.flywheel.flush()
        counted, seen = self.flywheel.redis_round_trips, self._proxy.round_trips
        answer = await action()
        spent = self.flywheel.redis_round_trips - counted
        assert self._proxy.round_trips - seen == spent, "the flywheel's own count and the wire's differ"
        return answer, spent


@pytest.fixture
async def watched(valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """A flywheel whose connection stands and whose flow and scripts are known to the server.

    What it writes behind goes when it is flushed, not in the middle of a question that takes long on a busy machine.
    """
    monkeypatch.setattr("agentic_flywheel.behind.DELAY_SECONDS", 3600)
    async with proxy_before(valkey, tmp_path) as proxy, flywheel_at(f"unix://{proxy.path}", tmp_path) as flywheel:
        await flywheel.ask("What is the first question of all?", session="warm up", flow="echo")
        yield Watched(flywheel, proxy)


async def test_hit_in_a_fresh_session_takes_two(watched: Watched) -> None:
    assert await watched.ask(QUESTION, "one") == (Outcome.MISS, 4)
    assert await watched.ask(QUESTION, "two") == (Outcome.HIT, 2)


async def test_hit_of_a_follow_up_takes_two(watched: Watched) -> None:
    for session in ("one", "two"):
        await watched.ask(QUESTION, session)
    assert await watched.ask(FOLLOW_UP, "one") == (Outcome.MISS, 4)
    assert await watched.ask(FOLLOW_UP, "two") == (Outcome.HIT, 2)


async def test_hit_far_into_a_session_takes_two(watched: Watched) -> None:
    path = [f"What does chapter {number} of the manual say?" for number in range(8)]
    for question in path:
        await watched.ask(question, "one")
    costs = [await watched.ask(question, "two") for question in path]
    assert costs == [(Outcome.HIT, 2)] * len(path)


async def test_one_off_hit_takes_one_before_its_turn_is_written(watched: Watched) -> None:
    await watched.ask(QUESTION, "one")
    assert await watched.ask(QUESTION) == (Outcome.HIT, 1)


async def test_first_question_after_resuming_elsewhere_takes_three(
    watched: Watched, valkey: Server, tmp_path: Path
) -> None:
    """Another process does not know the session's turns, so it looks in the wrong place first; once."""
    path = [QUESTION, FOLLOW_UP, "How large does the file grow?"]
    for question in path:
        await watched.ask(question, "stored by")
    await watched.ask(path[0], "resumed")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with proxy_before(valkey, elsewhere) as proxy, flywheel_at(f"unix://{proxy.path}", elsewhere) as flywheel:
        await flywheel.ask("What is the first question of all?", session="warm up", flow="echo")
        other = Watched(flywheel, proxy)
        assert await other.ask(path[1], "resumed") == (Outcome.HIT, 3)
        assert await other.ask(path[2], "resumed") == (Outcome.HIT, 2)


async def test_a_session_that_went_on_elsewhere_costs_one_more(
    watched: Watched, valkey: Server, tmp_path: Path
) -> None:
    """What this process remembers of a session is a guess: it is checked, and never trusted."""
    path = [QUESTION, FOLLOW_UP, "How large does the file grow?"]
    for question in path:
        await watched.ask(question, "stored by")
    await watched.ask(path[0], "shared")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with flywheel_at(valkey.url, elsewhere) as flywheel:
        await flywheel.ask(path[1], session="shared", flow="echo")
    assert await watched.ask(path[2], "shared") == (Outcome.HIT, 3)


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_process_s_first_question_takes_what_every_later_one_takes(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """Whether the tenant is encrypted is looked at with what the question reads anyway."""
    monkeypatch.setattr("agentic_flywheel.behind.DELAY_SECONDS", 3600)
    if sealed:
        monkeypatch.setitem(ENVIRON, "AFW_ENCRYPTION_KEYS", f"k1:{'A' * 43}=")
    async with proxy_before(valkey, tmp_path) as proxy, flywheel_at(f"unix://{proxy.path}", tmp_path) as flywheel:
        await flywheel.ask(QUESTION, session="warm up", flow="echo")
    async with proxy_before(valkey, tmp_path) as proxy, flywheel_at(f"unix://{proxy.path}", tmp_path) as flywheel:
        await flywheel.ping()  # connections stand; nothing of the tenant was touched
        first = Watched(flywheel, proxy)
        assert await first.ask(QUESTION, "one") == (Outcome.HIT, 2)
        assert await first.ask(QUESTION, "two") == (Outcome.HIT, 2)

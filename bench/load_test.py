"""Ten minutes of a team's traffic on the service while its Redis is killed and restarted: nothing wrong, nothing lost.

    python bench/load_test.py [--seconds N] [--rate N] [--workers N] [--connections N] [--every N] [--json] [--check]

`afw serve` answers over a Redis with an append-only file (`appendfsync always`, so that what Redis acknowledged
outlives it) and a stand-in Flowise whose every answer follows from its question. Most requests are Flowise clients'
one-off questions that come again and again; others are new, or belong to conversations (Flowise, OpenAI), or come
through REST and MCP. The rate is half of what the same mix came to in a first minute, or what --rate says. Every
`--every` seconds Redis is taken away, in turn by SIGKILL and by SIGTERM, for a second.

Checked are all answers, as they come; and at the end every turn that a response named (`X-AFW-Turn`, `X-AFW-Session`):
it must be in its session once, and those of a conversation in the order in which they were acknowledged. Printed is the
resident memory of the workers, with its slope by least squares over the time after the first third. A worker keeps
conversations at hand up to a bound (`remembered.MOST_BYTES_IN_ALL`): so many are held first that the bound is reached.

`--check` exits with 1 where an answer was wrong, a request failed, a turn is lost, doubled or out of order, or where
memory grew by more than 5 % in the last two thirds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop
from redis import Redis

from agentic_flywheel.model import Turn
from agentic_flywheel.remembered import MOST_BYTES_IN_ALL
from agentic_flywheel.store.binaries import find_servers
from agentic_flywheel.store.codec import decode
from http_load import post
from private_server import free_port
from service_processes import Running, service, stand_in
from stand_in import FLOW_ID, answer_of

POPULAR = 200
#: Of a thousand requests, how many of which kind.
MIX = {"popular": 780, "new": 20, "flowise session": 80, "openai session": 60, "openai": 40, "rest": 10, "mcp": 10}
DOWN_SECONDS = 1.0
MOST_GROWTH = 0.05
_TURNS_IN_SESSION = 20
#: Conversations that fill what workers keep of them: their turns, and bytes of a question.
_TURNS_TO_FILL = 5
_BYTES_TO_FILL = 8000


class Outcome(msgspec.Struct):
    """What came of it all."""

    seconds: float = 0.0
    rate: float = 0.0
    answered: int = 0
    by_outcome: Counter[str] = msgspec.field(default_factory=Counter)
    wrong: list[str] = msgspec.field(default_factory=list)
    failed: list[str] = msgspec.field(default_factory=list)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    restarts: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    rss_mb: list[tuple[float, float]] = msgspec.field(default_factory=list)
    slope_mb_per_minute: float = 0.0
    growth: float = 0.0

    @property
    def met(self) -> bool:
        found = (self.wrong, self.failed, self.lost, self.doubled, self.out_of_order)
        return self.answered > 0 and not any(found) and self.growth <= MOST_GROWTH


class Restarting:
    """A Redis that keeps what it acknowledged, and is taken away now and then."""

    def __init__(self, folder: Path) -> None:
        binary = next(iter(find_servers(os.environ)))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "volatile-lru"]
        self._command = [str(binary.path), *options, *durable, "--loglevel", "warning"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def ready(self) -> bool:
        """Whether it has its data and answers."""
        with suppress(Exception), Redis.from_url(self.url, socket_timeout=1) as client:
            return bool(client.ping())
        return False

    def end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()

    async def come_and_go(self, every: float, outcome: Outcome) -> None:
        """Go away and come back, for ever."""
        while True:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.end, (signal.SIGKILL, signal.SIGTERM)[outcome.restarts % 2])
            await asyncio.sleep(DOWN_SECONDS)
            self.start()
            outcome.restarts += 1


class Asker:
    """One client on a kept connection, and its conversations."""

    def __init__(self, number: int, running: Running, outcome: Outcome, acknowledged: dict[str, list[str]]) -> None:
        self._number = number
        self._running = running
        self._outcome = outcome
        self._acknowledged = acknowledged
        self._draw = random.Random(number)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._asked = 0
        self._kinds = [kind for kind, share in MIX.items() for _ in range(share)]
        self.took_ms: list[float] = []

    async def run(self, until: float, interval: float) -> None:
        """Ask every `interval` seconds, or at once where that is over already."""
        clock = asyncio.get_running_loop().time
        due = clock() + self._draw.random() * interval
        while (now := clock()) < until:
            if due > now:
                await asyncio.sleep(due - now)
            due = max(due + interval, now)
            await self.once()
        self.end()

    def end(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()

    async def converse(self, turns: int) -> None:
        """Hold conversations with long questions, which fill what a worker keeps of them."""
        for number in range(turns):
            session = f"filling-{self._number}-{number // _TURNS_TO_FILL}"
            question = f"What is said in part {self._number}-{number}? " + "and then " * (_BYTES_TO_FILL // 9)
            body = {"question": question, "overrideConfig": {"sessionId": session}}
            url = f"{self._running.url}/api/v1/prediction/{FLOW_ID}"
            status, _, reply = await self._exchange(post(url, msgspec.json.encode(body)))
            if status != 200:
                raise SystemExit(f"a conversation ended with {status}: {reply[:300]!r}")

    async def once(self) -> None:
        """One question of one kind."""
        kind = self._draw.choice(self._kinds)
        self._asked += 1
        question = f"How does part {self._draw.randrange(POPULAR)} of the system work?"
        if kind != "popular" and "session" not in kind:
            question = f"What is number {self._number}-{self._asked} about?" if kind == "new" else question
        if "session" in kind:
            question = f"And what about step {self._number}-{self._asked} of it?"
        began = time.perf_counter()
        try:
            status, headers, body = await self._exchange(self._request(kind, question))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._streams = None
            self._outcome.failed.append(f"{kind}: {type(error).__name__}: {error}")
            return
        self.took_ms.append((time.perf_counter() - began) * 1000)
        if status != 200:
            self._outcome.failed.append(f"{kind}: {status} {body[:300]!r}")
            return
        self._outcome.answered += 1
        if answer_of(question).encode() not in body:
            self._outcome.wrong.append(f"{kind}: {question!r} got {body[:300]!r}")
        if kind == "mcp":
            said = json.loads(body[body.index(b"{") :].partition(b"\r\n")[0])["result"]["structuredContent"]
            headers = {"x-afw-session": said["session_id"], "x-afw-turn": said["turn_id"]}
            headers["x-afw-outcome"] = said["outcome"]
        self._outcome.by_outcome[headers["x-afw-outcome"]] += 1
        self._acknowledged[headers["x-afw-session"]].append(headers["x-afw-turn"])

    def _request(self, kind: str, question: str) -> bytes:
        url = self._running.url
        session = f"{kind.partition(' ')[0]}-{self._number}-{self._asked // (_TURNS_IN_SESSION * 10)}"
        match kind:
            case "popular" | "new" | "flowise session":
                more = {"overrideConfig": {"sessionId": session}} if "session" in kind else {}
                return post(f"{url}/api/v1/prediction/{FLOW_ID}", msgspec.json.encode({"question": question, **more}))
            case "openai" | "openai session":
                body = {"model": "bench", "messages": [{"role": "user", "content": question}]}
                named = {"X-AFW-Session": session} if "session" in kind else {}
                return post(f"{url}/v1/chat/completions", msgspec.json.encode(body), named)
            case "rest":
                return post(f"{url}/api/v2/ask", msgspec.json.encode({"question": question, "flow": "bench"}))
            case _:
                call = {"name": "flowise_query", "arguments": {"question": question, "flow_override": "bench"}}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
                headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
                return post(f"{url}/mcp", msgspec.json.encode(body), headers)

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            parts = urlsplit(self._running.url)
            self._streams = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        reader, writer = self._streams
        writer.write(request)
        async with asyncio.timeout(60):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if "content-length" in headers:
                body = await reader.readexactly(int(headers["content-length"]))
            else:
                body = await reader.readuntil(b"0\r\n\r\n")
                while not body.endswith(b"\r\n0\r\n\r\n"):
                    body += await reader.readuntil(b"0\r\n\r\n")
        return int(first.split(" ")[1]), headers, body


async def traffic(
    running: Running,
    outcome: Outcome,
    acknowledged: dict[str, list[str]],
    *,
    connections: int,
    seconds: float,
    rate: float,
) -> list[float]:
    """Ask for so long, `rate` a second (0: as fast as it goes) over all connections; what each took, in ms."""
    askers = [Asker(number, running, outcome, acknowledged) for number in range(connections)]
    until = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(asker.run(until, connections / rate if rate else 0.0) for asker in askers))
    return [one for asker in askers for one in asker.took_ms]


async def fill(running: Running, connections: int) -> None:
    """Have each worker keep as many conversations as it may, and half as many again, since askers are not spread
    evenly over workers."""
    turns = MOST_BYTES_IN_ALL * len(running.workers) * 3 // 2 // _BYTES_TO_FILL // connections + 1
    askers = [Asker(number, running, Outcome(), defaultdict(list)) for number in range(connections)]
    await asyncio.gather(*(asker.converse(turns) for asker in askers))
    for asker in askers:
        asker.end()


async def watch_memory(running: Running, outcome: Outcome, every: float) -> None:
    """The resident memory of all workers, again and again."""
    began = time.monotonic()
    while True:
        outcome.rss_mb.append((time.monotonic() - began, sum(map(resident_mb, running.workers))))
        await asyncio.sleep(every)


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def delivered(running: Running) -> None:
    """Wait until no turn waits on disk any more."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with suppress(OSError):
            page = (await asyncio.to_thread(_fetch, f"{running.url}/metrics")).decode()
            if "afw_redis_up 1" in page and 'afw_outbox_turns{state="waiting"} 0' in page:
                return
        await asyncio.sleep(0.5)
    raise SystemExit("turns still wait in the outbox after 300 s")


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:
        return bytes(response.read())


def compare(url: str, acknowledged: dict[str, list[str]], outcome: Outcome) -> None:
    """Look every acknowledged turn up in its session."""
    sessions = list(acknowledged)
    with Redis.from_url(url, socket_timeout=60) as client:
        for start in range(0, len(sessions), 500):
            some = sessions[start : start + 500]
            pipe = client.pipeline(transaction=False)
            for session in some:
                pipe.xrange(f"afw:v1:default:session:{{{session}}}:turns")
            for session, entries in zip(some, pipe.execute(), strict=True):
                there = [decode(fields[b"t"], Turn).id for _, fields in entries]
                wanted = acknowledged[session]
                outcome.lost += len(set(wanted) - set(there))
                outcome.doubled += len(there) - len(set(there))
                kept = set(wanted)
                outcome.out_of_order += [one for one in there if one in kept] != [t for t in wanted if t in set(there)]


async def test(given: argparse.Namespace, folder: Path) -> Outcome:
    """The whole of it."""
    outcome, acknowledged = Outcome(), defaultdict[str, list[str]](list)
    redis = Restarting(folder)
    redis.start()
    try:
        with (
            stand_in() as behind,
            service(folder / "serve", redis.url, behind.url, workers=given.workers, **SETTINGS) as running,
        ):
            await fill(running, given.connections)
            rate = given.rate
            if not rate:
                first = min(60.0, given.seconds / 10)
                took = await traffic(
                    running, outcome, acknowledged, connections=given.connections, seconds=first, rate=0
                )
                rate = len(took) / first / 2
                print(f"at most {rate * 2:,.0f} a second: {rate:,.0f} are asked from now on", file=sys.stderr)
            trouble = asyncio.create_task(redis.come_and_go(given.every, outcome))
            memory = asyncio.create_task(watch_memory(running, outcome, max(0.2, given.seconds / 200)))
            began = time.monotonic()
            took = await traffic(
                running, outcome, acknowledged, connections=given.connections, seconds=given.seconds, rate=rate
            )
            outcome.seconds, outcome.rate = time.monotonic() - began, rate
            for task in (trouble, memory):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            if not redis.ready():
                redis.end(signal.SIGTERM)
                redis.start()
            await delivered(running)
        # The service has ended, and what it wrote behind is written.
        compare(redis.url, acknowledged, outcome)
    finally:
        redis.end(signal.SIGTERM)
    percentiles = statistics.quantiles(took, n=100)
    outcome.p50_ms, outcome.p99_ms = percentiles[49], percentiles[98]
    later = [point for point in outcome.rss_mb if point[0] >= outcome.seconds / 3]
    slope, start = statistics.linear_regression(*zip(*later, strict=True))
    outcome.slope_mb_per_minute = slope * 60
    outcome.growth = slope * outcome.seconds * 2 / 3 / (start + slope * later[0][0])
    return outcome


#: A busy machine is not an outage: only what happens to Redis is.
SETTINGS = {"AFW_REDIS_COMMAND_TIMEOUT_SECONDS": "2"}


def shown(outcome: Outcome) -> str:
    """What came of it, for people."""
    rss = [size for _, size in outcome.rss_mb]
    kinds = ", ".join(f"{name} {count:,}" for name, count in outcome.by_outcome.most_common())
    memory = (
        f"memory of all workers: {rss[0]:.1f} MB at first, {rss[-1]:.1f} MB at last; "
        f"{outcome.slope_mb_per_minute:+.2f} MB a minute ({outcome.growth:+.1%}) after the first third"
    )
    lines = [
        f"{outcome.seconds:.0f} s at {outcome.rate:,.0f} a second, {outcome.restarts} restarts of Redis",
        f"{outcome.answered:,} answered ({kinds}); p50 {outcome.p50_ms:.1f} ms, p99 {outcome.p99_ms:.1f} ms",
        f"{len(outcome.wrong)} wrong, {len(outcome.failed)} failed",
        f"turns: {outcome.lost} lost, {outcome.doubled} doubled, {outcome.out_of_order} sessions out of order",
        memory,
        *outcome.wrong[:3],
        *outcome.failed[:3],
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default 600)")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second (default: half of what is possible)")
    parser.add_argument("--workers", type=int, default=2, help="processes that serve (default 2)")
    parser.add_argument("--connections", type=int, default=32, help="clients (default 32)")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between restarts of Redis (default 30)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where something went wrong")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="afw-load-") as folder:
        outcome = uvloop.run(test(given, Path(folder)))
    print(msgspec.json.encode(outcome).decode() if given.json else shown(outcome))
    return 1 if given.check and not outcome.met else 0


if __name__ == "__main__":
    sys.exit(main())

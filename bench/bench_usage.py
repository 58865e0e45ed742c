"""What counting costs: bytes for each flow and day, time for each question, and how long figures take to read.

    python bench/bench_usage.py [--server valkey|redis|URL] [--days N] [--json] [--write]

One flow is given a day of questions, as answers, hits and failures come: `quiet` (50 questions in ten hours), `team`
(1,000 in ten hours) and `busy` (100,000 around the clock), each of 40 users. What the server keeps of it is measured
with MEMORY USAGE, by width of bucket; a flow keeps 7 days of minutes and 90 of hours and days.

Then counting itself: the processor time that this process spends on one question's counts, sent alone (as when one
question comes every 50 ms or less often) and sent a hundred at a time (as under load), and the server's own.

Then reading: `--days` days (90) of ten flows of a team, as `afw stats` and charts read them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import Any

import msgspec
from redis.asyncio import Redis

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.flows.protocol import FlowHealth
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.latency import bucket_of
from agentic_flywheel.insight.usage import Usage
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.counters import Unsent, asker_digest
from agentic_flywheel.store.store import Store
from performance_page import circumstances, markdown_table, write_part
from private_server import private_server, private_settings

LOADS = {"quiet": (50, 10), "team": (1_000, 10), "busy": (100_000, 24)}
DAY = 1_795_305_600.0  # a midnight of UTC
USERS = [asker_digest(f"user {number}") for number in range(40)]
FLOWS = 10
TOGETHER = 100


class Weight(msgspec.Struct):
    """A day of one flow in Redis: bytes by width of bucket, and of users; and what all that is kept comes to."""

    load: str
    questions: int
    minutes: int
    hours: int
    day: int
    askers: int
    kept: int


class Cost(msgspec.Struct):
    """Microseconds for one question's counts: of this process, and of the server."""

    how: str
    client_us: float
    server_us: float
    commands: float


def question(draw: random.Random) -> tuple[dict[str, int], dict[str, int]]:
    """What one question adds for its flow and its user: 70 hits, 29 answers and a failure in a hundred."""
    chance = draw.random()
    session = {"session:known": 1, "session:kept": 1} if draw.random() < 0.5 else {"session:alone": 1}
    if chance < 0.7:
        hit, saved = int(draw.lognormvariate(6.5, 0.6)), int(draw.lognormvariate(14.7, 0.5))
        fields = {"outcome:hit": 1, "reason:exact": 1, "hit_us": hit, f"h{bucket_of(hit)}": 1}
        fields |= {"saved_us": saved, f"s{bucket_of(saved)}": 1}
        return fields | session, {"asked": 1, "served": 1, "saved_ms": saved // 1000}
    if chance < 0.99:
        took = int(draw.lognormvariate(14.7, 0.5))
        fields = {"outcome:miss": 1, "reason:not_stored": 1, "calls": 1, "flow_us": took, f"f{bucket_of(took)}": 1}
        return fields | session, {"asked": 1}
    return {"failed": 1, "failed:flow_timeout": 1, "errors": 1, "error:flow_timeout": 1}, {"failed": 1}


def count(unsent: Unsent, flow: str, moment: float, draw: random.Random) -> None:
    fields, asked = question(draw)
    unsent.add(flow, moment, fields)
    unsent.add_asker(draw.choice(USERS), moment, asked)


async def weigh(store: Store, client: Redis, load: str) -> Weight:
    questions, hours = LOADS[load]
    draw, unsent = random.Random(7), Unsent()
    begin = DAY + (24 - hours) / 2 * 3600
    for _ in range(questions):
        # More is asked in the middle of the day than at its ends.
        count(unsent, load, begin + (draw.random() + draw.random()) / 2 * hours * 3600, draw)
    await client.flushall()
    await store.counters.send(unsent)
    sizes = {"minutes": 0, "hours": 0, "day": 0, "askers": 0}
    async for key in client.scan_iter("afw:*"):
        parts = key.decode().split(":")
        kind = (
            "askers" if parts[3] == "askers" else parts[6] if len(parts) > 6 else {8: "day", 10: "hours"}[len(parts[5])]
        )
        sizes[kind] += await client.memory_usage(key, samples=0)
    kept = 7 * sizes["minutes"] + 90 * (sizes["hours"] + sizes["day"])
    return Weight(load=load, questions=questions, **sizes, kept=kept)


async def cost(store: Store, client: Redis, how: str, together: int, rounds: int) -> Cost:
    """Counts of questions that come by and by, so many in one exchange."""
    draw, counters = random.Random(8), store.counters
    questions = [question(draw) for _ in range(together)]
    await client.config_resetstat()
    commands, spent = 0, 0.0
    for number in range(rounds):
        began = process_time()
        unsent = Unsent()
        for at, (fields, asked) in enumerate(questions):
            unsent.add("flow", DAY + number * 30 + at / 1000, fields)
            unsent.add_asker(USERS[at % len(USERS)], DAY, asked)
        await counters.send(unsent)
        spent += process_time() - began
        commands += len(counters.commands(unsent))
    stats = await client.info("commandstats")
    served = sum(
        stats[f"cmdstat_{name}"]["usec"] for name in ("hincrby", "expire", "evalsha") if f"cmdstat_{name}" in stats
    )
    each = rounds * together
    return Cost(how=how, client_us=spent / each * 1e6, server_us=served / each, commands=commands / each)


async def unchecked(_flow: str) -> FlowHealth:
    return FlowHealth(ok=True)


async def read(settings: Settings, store: Store, days: int) -> dict[str, float]:
    """Milliseconds that figures take, when ten flows of a team have `days` days of them."""
    registry = Registry(settings)
    for flow in range(FLOWS):
        unsent, draw = Unsent(), random.Random(flow)
        for day in range(days):
            for _ in range(100):
                count(unsent, f"flow{flow}", DAY - day * 86400 + (7 + 10 * draw.random()) * 3600, draw)
        await store.counters.send(unsent)
        registry.register(f"flow{flow}", str.upper)
    behind = WriteBehind(store)
    usage = Usage(settings, registry, store, behind, unchecked, clock=lambda: DAY + 18 * 3600)
    actions: dict[str, Callable[[], Awaitable[Any]]] = {
        "report of 7 days": usage.report,
        f"report of {days} days": lambda: usage.report(since=f"{days} days"),
        f"{days} days, by day": lambda: usage.by("day", since=f"{days} days"),
        "7 days, by hour": lambda: usage.by("hour", since="7 days"),
        "chart of an hour, by minute": lambda: usage.series(since="1 hour", step="1m"),
        "chart of 7 days, by hour": lambda: usage.series(since="7 days", step="1h"),
        "chart of 7 days, by minute": lambda: usage.series(since="7 days", step="1m"),
    }
    taken = {}
    for name, action in actions.items():
        times = []
        for _ in range(5):
            began = perf_counter()
            await action()
            times.append((perf_counter() - began) * 1000)
        taken[name] = statistics.median(times)
    return taken


async def measure(url: str, days: int) -> tuple[list[Weight], list[Cost], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        settings = private_settings(url, folder, tenant="bench")
        client, store = Redis.from_url(url), Store(settings)
        try:
            weights = [await weigh(store, client, load) for load in LOADS]
            costs = [
                await cost(store, client, "one question alone", 1, 2000),
                await cost(store, client, f"{TOGETHER} questions together", TOGETHER, 100),
            ]
            await client.flushall()
            return weights, costs, await read(settings, store, days)
        finally:
            await store.aclose()
            await client.aclose()


def tables(weights: list[Weight], costs: list[Cost], reads: dict[str, float]) -> str:
    kept = markdown_table(
        ["one flow, a day of", "questions", "minutes", "24 hours", "day", "users", "7 and 90 days of it"],
        [
            [w.load, f"{w.questions:,}", *(f"{n / 1000:.1f} kB" for n in (w.minutes, w.hours, w.day, w.askers)),
             f"{w.kept / 1e6:.2f} MB"]
            for w in weights
        ],
    )  # fmt: skip
    spent = markdown_table(
        ["counts of", "this process, us", "server, us", "commands"],
        [[c.how, f"{c.client_us:.1f}", f"{c.server_us:.1f}", f"{c.commands:.1f}"] for c in costs],
    )
    taken = markdown_table(["reading, of ten flows", "ms"], [[name, f"{ms:.0f}"] for name, ms in reads.items()])
    return f"{kept}\n\n{spent}\n\n{taken}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--days", type=int, default=90, help="days of figures that are read (default 90)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()
    with private_server(arguments.server) as server:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        weights, costs, reads = asyncio.run(measure(url, arguments.days))
        name = server.name
    if arguments.json:
        told = {"weights": weights, "costs": costs, "reads": reads}
        sys.stdout.write(json.dumps(msgspec.to_builtins(told)) + "\n")
        return 0
    text = f"{tables(weights, costs, reads)}\n\n{circumstances(name)}"
    print(text)
    if arguments.write:
        write_part("usage", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What it costs to count what is asked: processor time per hit, memory per day, and the time of a list.

    python bench/bench_popular.py [--server valkey|redis|URL] [--hits N] [--days N] [--quick] [--json] [--write]

Hits: 50 tasks ask a thousand questions at random, with counting and, in turns with it, without (what is gathered is
thrown away before anything is made of it). Processor time is that of this process, and the server's own by `INFO cpu`,
the writing of every turn included in both.

Memory: a flow's day after N different questions of 60 characters, each asked once by somebody else (`MEMORY USAGE` of
its key); then a list over `--days` such days. Times are processor times too: the server's for counting one question,
what trims the day included, and this process's for the list.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from time import process_time
from typing import Any

import msgspec

from agentic_flywheel import Flywheel
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.popularity import Count, Told
from agentic_flywheel.store.store import Store
from performance_page import circumstances, markdown_table, write_part
from private_server import private_server, private_settings

TASKS = 50
QUESTIONS = 1000
ROUNDS = 5
SIZES = (100, 1_000, 5_000, 50_000)


class Hits(msgspec.Struct, frozen=True):
    """Processor time of one hit in microseconds, medians of all rounds."""

    name: str
    client_us: float
    server_us: float


class Day(msgspec.Struct, frozen=True):
    """A day of `asked` different questions: what is kept of them, and what it costs."""

    asked: int
    kept: int
    bytes_each: float
    count_us: float
    list_ms: float


async def _server_seconds(store: Store) -> float:
    text = (await store.link.execute("INFO", "cpu")).decode()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return float(fields["used_cpu_sys"]) + float(fields["used_cpu_user"])


async def measure_hits(flywheel: Flywheel, store: Store, hits: int, rounds: int) -> list[Hits]:
    """Hits without a session and in one, counted and not, in turns."""
    questions = [f"How do I configure part number {number} of the system?" for number in range(QUESTIONS)]
    for _ in range(2):
        for question in questions:
            await flywheel.ask(question, flow="bench")
    await flywheel.flush()
    behind = flywheel._behind  # noqa: SLF001 -- the product has no switch that turns counting off
    tally = behind._popular  # noqa: SLF001
    counting = behind.count_asked, tally.add_repeat
    times: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        for session in (False, True):
            for counted in (True, False):
                nothing: Any = lambda *_, **__: None  # noqa: E731
                behind.count_asked, tally.add_repeat = counting if counted else (nothing, nothing)  # type: ignore[method-assign]
                left = iter(range(hits))

                async def ask(left: Any, mark: str) -> None:
                    for each in left:
                        named = f"{mark}-{each}" if mark else None
                        await flywheel.ask(random.choice(questions), flow="bench", session=named)

                before, began = await _server_seconds(store), process_time()
                mark = f"{number}{counted}" if session else ""
                await asyncio.gather(*(ask(left, mark) for _ in range(TASKS)))
                await flywheel.flush()
                client = (process_time() - began) / hits * 1e6
                server = (await _server_seconds(store) - before) / hits * 1e6
                name = f"{'in a session' if session else 'one-off'}, {'counted' if counted else 'not counted'}"
                times.setdefault(name, []).append((client, server))
    behind.count_asked, tally.add_repeat = counting  # type: ignore[method-assign]
    return [
        Hits(name, statistics.median(t[0] for t in taken), statistics.median(t[1] for t in taken))
        for name, taken in times.items()
    ]


async def measure_day(flywheel: Flywheel, store: Store, size: int, days: int) -> Day:
    """Days of `size` different questions each, and a list over all of them."""
    flow, now = f"flow-{size}", time.time()
    flywheel.registry.register(flow, lambda _: "")
    before = await _server_seconds(store)
    for back in range(days):
        day = day_of(now - 86400 * back)
        for start in range(0, size, 100):
            counts = {}
            for number in range(start, min(size, start + 100)):
                text = f"What is to be done about number {number} of {back} here?".ljust(60, "?")
                count = counts[Told(flow, day, name_of(text))] = Count(text, now - 86400 * back + number)
                count.asked, count.marks = 1, {random.getrandbits(32)}
            await store.link.run(*store.popularity.commands(counts), slow=True)
    counted = (await _server_seconds(store) - before) / (size * days)
    key = store.keys.popular(flow, day_of(now))
    kept, weight = await store.link.run(("HLEN", key), ("MEMORY", "USAGE", key, "SAMPLES", 0), slow=True)
    began = process_time()
    await flywheel.popular.list(days=days, flow=flow)
    return Day(size, kept, weight / kept, counted * 1e6, (process_time() - began) * 1e3)


async def measure(url: str, hits: int, days: int, rounds: int, sizes: Sequence[int]) -> tuple[list[Hits], list[Day]]:
    """All of it on one server."""
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        settings = private_settings(url, folder, **{"embedder.model": "off"})
        registry = Registry(settings)
        registry.register("bench", lambda _: "word " * 400)
        store = Store(settings)
        try:
            async with Flywheel.open(settings=settings, registry=registry) as flywheel:
                counted = await measure_hits(flywheel, store, hits, rounds)
                return counted, [await measure_day(flywheel, store, size, days) for size in sizes]
        finally:
            await store.aclose()


def shown(hits: list[Hits], days: list[Day], over: int) -> str:
    """The tables as they stand in the documentation."""
    rows = [[each.name, f"{each.client_us:.0f}", f"{each.server_us:.0f}"] for each in hits]
    sizes = [
        [
            f"{day.asked:,}",
            f"{day.kept:,}",
            f"{day.bytes_each:.0f}",
            f"{day.kept * day.bytes_each / 1e6:.2f}",
            f"{day.count_us:.1f}",
            f"{day.list_ms:.0f}",
        ]
        for day in days
    ]
    head = ["different questions a day", "kept", "bytes each", "MB a day", "us to count one"]
    return "\n".join(
        [
            markdown_table(["a hit", "CPU us, client", "CPU us, server"], rows),
            "",
            markdown_table([*head, f"list over {over} days, ms"], sizes),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--hits", type=int, default=5000, help="hits in each round (default 5000)")
    parser.add_argument("--days", type=int, default=30, help="days of the list (default 30)")
    parser.add_argument("--quick", action="store_true", help="small days only, and one round")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args()
    with private_server(given.server) as server:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        rounds, sizes = (1, SIZES[:2]) if given.quick else (ROUNDS, SIZES)
        hits, days = asyncio.run(measure(url, given.hits, given.days, rounds, sizes))
        name = server.name
    if given.json:
        print(json.dumps(msgspec.to_builtins({"hits": hits, "days": days}), indent=2))
        return
    text = shown(hits, days, given.days)
    print(text)
    if given.write:
        write_part("popular", f"{text}\n\n{circumstances(name)}")


if __name__ == "__main__":
    sys.exit(main())

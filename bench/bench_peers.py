"""A stored answer found by Agentic Flywheel, by other caches, and by a bare GET: one run, one server, same answers.

    python bench/bench_peers.py [--entries N] [--rounds N] [--json] [--check] [--write]

The other caches are installed from the package registry into .cache/bench-venv, at the versions in bench_venv.py; one
that cannot be installed or does not run is named in the table. The server is Redis 7.4 with the query engine, which
some of them need. Every arm goes over TCP, and ours over the unix socket as well. Answers have 2 KB; every hit is
compared with what was stored.

Every round runs all arms, in an order that changes: what disturbs this machine disturbs all of them. With one task,
each 20 hits are followed by 20 of redis-py's GETs, and the ratio is the median of the blocks' ratios. With 50 tasks,
arms without an async API get 50 threads. Ours does more than the others at a hit: it remembers the turn, and the
throughput includes the time until the last turn is written.

Goals: p50 of one task at most 1.6 times that of redis-py's asyncio GET; hits per second at 50 tasks at least 60 % of
its GETs, and more than every other cache. `--check` exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

import bench_venv
from performance_page import circumstances, markdown_table, write_part
from private_server import PrivateServer, private_server

if TYPE_CHECKING:
    from peer_arms import Arm

BASE = "redis-py asyncio GET"
OURS = ("Agentic Flywheel", "Agentic Flywheel, unix socket", "Agentic Flywheel, near cache")
MOST_P50 = 1.6
LEAST_THROUGHPUT = 0.6
TASKS = 50
BLOCK = 20
ANSWER_BYTES = 2048


class Figures(msgspec.Struct):
    """What one arm came to at one number of tasks; `ratio` is that of its median, or of its throughput, to `BASE`."""

    p50_us: float
    p99_us: float
    ratio: float
    per_second: float = 0.0


class Row(msgspec.Struct):
    """One arm: at one task, at `TASKS`, and what is to be known of it. Without figures, the note says why."""

    name: str
    one: Figures | None = None
    many: Figures | None = None
    note: str = ""


def answers(count: int) -> dict[str, str]:
    """Questions and answers of 2 KB that compress like prose."""
    draw = random.Random(3)
    words = [
        "".join(draw.choices("etaoinshrdlucmfwyp", weights=range(18, 0, -1), k=draw.randint(2, 9))) for _ in range(2000)
    ]
    return {
        f"How does part {number} of the system work?": " ".join(draw.choices(words, k=420))[:ANSWER_BYTES]
        for number in range(count)
    }


async def measure(server: PrivateServer, entries: int, rounds: int) -> list[Row]:
    """Every arm on one server."""
    import peer_arms as arms

    texts = answers(entries)
    url = server.urls["TCP"]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="afw-bench-"))
        wanted: list[tuple[str, str, Awaitable[arms.Arm]]] = [
            ("redis-py GET", "", arms.bare_sync(url, texts, stack)),
            (BASE, "", arms.bare_async(url, texts, stack)),
            (OURS[0], "", arms.flywheel(url, texts, stack, folder, OURS[0])),
            (OURS[1], "", arms.flywheel(server.urls["unix socket"], texts, stack, folder, OURS[1])),
            (OURS[2], "", arms.flywheel(url, texts, stack, folder, OURS[2], **{"near.enabled": True})),
            ("langchain-redis RedisCache", "langchain-redis", arms.langchain_redis(url, texts, stack)),
            ("redisvl SemanticCache", "redisvl", arms.redisvl(url, texts, stack)),
            ("GPTCache redis,faiss", "GPTCache", arms.gptcache(url, texts, stack, folder)),
        ]
        ready: list[arms.Arm] = []
        rows: dict[str, Row] = {}
        for name, package, making in wanted:
            rows[name] = Row(name)
            try:
                arm = await making
            except Exception as error:
                if not package:
                    raise
                gone = package in bench_venv.not_installed()
                rows[name].note = "could not be installed" if gone else f"does not run: {type(error).__name__}: {error}"
            else:
                ready.append(arm)
                rows[name].note = arm.note
        print(f"{len(ready)} arms with {entries} answers each", file=sys.stderr)
        draw = random.Random(5)
        drawn = (draw.choice(list(texts)) for _ in itertools.count())
        gc.collect()
        gc.freeze()
        for name, figures in (await _one_by_one(ready, drawn, rounds)).items():
            rows[name].one = figures
        with ThreadPoolExecutor(TASKS) as pool:
            for name, figures in (await _together(ready, drawn, rounds, pool)).items():
                rows[name].many = figures
    return list(rows.values())


async def _one_by_one(ready: list[Arm], questions: Iterator[str], rounds: int) -> dict[str, Figures]:
    from peer_arms import one_by_one

    base = next(arm for arm in ready if arm.name == BASE)
    took: dict[str, list[int]] = {arm.name: [] for arm in ready}
    ratios: dict[str, list[float]] = {arm.name: [] for arm in ready}
    for number in range(5 * rounds):
        for arm in random.Random(number).sample(ready, len(ready)):
            own = await one_by_one(arm, questions, BLOCK)
            bare = await one_by_one(base, questions, BLOCK)
            took[arm.name] += own
            ratios[arm.name].append(statistics.median(own) / statistics.median(bare))
    return {
        name: Figures(
            p50_us=statistics.median(own) / 1000,
            p99_us=statistics.quantiles(own, n=100)[98] / 1000,
            ratio=statistics.median(ratios[name]),
        )
        for name, own in took.items()
    }


async def _together(
    ready: list[Arm], questions: Iterator[str], rounds: int, pool: ThreadPoolExecutor
) -> dict[str, Figures]:
    from peer_arms import concurrently

    took: dict[str, list[int]] = {arm.name: [] for arm in ready}
    speed: dict[str, list[float]] = {arm.name: [] for arm in ready}
    size = {arm.name: 4 * TASKS for arm in ready}
    for number in range(-1, rounds):
        for arm in random.Random(number).sample(ready, len(ready)):
            start = perf_counter()
            each = await concurrently(arm, questions, TASKS, size[arm.name], pool)
            elapsed = perf_counter() - start
            if number < 0:  # a block takes some tenths of a second, and no fewer hits than two for each task
                size[arm.name] = max(2 * TASKS, min(4000, round(0.3 * len(each) / elapsed) // TASKS * TASKS))
                continue
            took[arm.name] += each
            speed[arm.name].append(len(each) / elapsed)
    return {
        name: Figures(
            p50_us=statistics.median(all_) / 1000,
            p99_us=statistics.quantiles(all_, n=100)[98] / 1000,
            ratio=statistics.median(x / y for x, y in zip(speed[name], speed[BASE], strict=True)),
            per_second=statistics.median(speed[name]),
        )
        for name, all_ in took.items()
    }


def goals(rows: list[Row]) -> list[tuple[str, bool]]:
    """Each goal as a sentence with its figure, and whether it is met."""
    by_name = {row.name: row for row in rows}
    ours = by_name[OURS[0]]
    assert ours.one is not None
    assert ours.many is not None
    ratio, share = ours.one.ratio, ours.many.ratio
    others = [row for row in rows if row.many and row.name not in (*OURS, BASE, "redis-py GET")]
    best = max(others, key=lambda row: row.many.per_second if row.many else 0, default=None)
    found = [
        (f"an exact hit takes {ratio:.2f} times a bare asyncio GET (at most {MOST_P50})", ratio <= MOST_P50),
        (
            f"{share:.0%} of the throughput of bare asyncio GETs at {TASKS} tasks (at least {LEAST_THROUGHPUT:.0%})",
            share >= LEAST_THROUGHPUT,
        ),
    ]
    if best is not None and best.many is not None:
        times = ours.many.per_second / best.many.per_second
        found.append((f"{times:.1f} times the throughput of {best.name}, the fastest of the others", times > 1))
    return found


def page(server: PrivateServer, rows: list[Row], entries: int) -> str:
    """The rows as docs/performance.md shows them."""
    lines = []
    for row in rows:
        if row.one is None or row.many is None:
            lines.append([f"{row.name} ({row.note})", *["-"] * 7])
            continue
        lines.append(
            [
                row.name + (f" ({row.note})" if row.note else ""),
                f"{row.one.p50_us:,.0f}",
                f"{row.one.p99_us:,.0f}",
                f"{row.one.ratio:.2f}",
                f"{row.many.p50_us / 1000:,.1f}",
                f"{row.many.p99_us / 1000:,.1f}",
                f"{row.many.per_second:,.0f}",
                f"{row.many.ratio:.2f}",
            ]
        )
    head = ["", "p50 us", "p99 us", "x GET", f"p50 ms at {TASKS}", f"p99 ms at {TASKS}", f"hits/s at {TASKS}", "x GET"]
    said = "\n".join(f"- {'met' if met else '**missed**'}: {goal}" for goal, met in goals(rows))
    below = f"{circumstances(server.name)} {entries:,} answers of 2 KB."
    return f"{markdown_table(head, lines)}\n\n{said}\n\n{below}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000, help="stored answers per arm (default 1000)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of all arms (default 20)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    if not bench_venv.inside():
        return bench_venv.run_inside(__file__, sys.argv[1:])
    warnings.simplefilter("ignore")  # the peers' own
    os.environ["TQDM_DISABLE"] = "1"
    with private_server("stack") as server:
        rows = asyncio.run(measure(server, given.entries, given.rounds))
    if given.json:
        print(json.dumps({"server": server.name, "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        print(page(server, rows, given.entries))
    if given.write:
        write_part("peers", page(server, rows, given.entries))
    return int(given.check and not all(met for _, met in goals(rows)))


if __name__ == "__main__":
    sys.exit(main())

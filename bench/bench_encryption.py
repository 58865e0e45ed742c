"""What encryption adds to a hit: the same questions asked with and without keys, in turns, in one run.

    python bench/bench_encryption.py [--server valkey|redis|URL] [--questions N] [--json] [--write] [--check]

Two flywheels on one server, of two tenants, one with a key. Every round asks each arm of both, in an order drawn anew,
so what disturbs this machine disturbs both alike:

    one-off  exact hit without a session; its turn is written behind
    fresh    exact hit as the first question of a named session; its turn is acknowledged before the answer returns
    sixth    exact hit as the sixth question of a session: five turns and the first one are read, and opened
    search   a search of history by words, on the local index, of `--turns` turns

Measured are the time that passes and the processor time of this process, both as the tenth percentile (p10): on a
machine that is busy with other work, medians are mostly waiting for a processor. What the server does is the same in
both. Goal: 15 % more time at most for each kind of hit. `--check` exits with 1 where it is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import perf_counter_ns, process_time_ns
from typing import Any

import msgspec

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from hits import PATH, answer_text
from performance_page import circumstances, markdown_table, write_part
from private_server import PrivateServer, private_server, private_settings

HITS = ("one-off", "fresh", "sixth")
ARMS = (*HITS, "search")
MOST = 1.15
WARM_UP = 50


class Row(msgspec.Struct, frozen=True):
    """One arm, without and with a key: what passed and processor time (p10), and the ratios of either."""

    arm: str
    plain_ms: float
    sealed_ms: float
    ratio: float
    plain_cpu_ms: float
    sealed_cpu_ms: float
    cpu_ratio: float


class Side:
    """One of the two flywheels, with what its arms need."""

    def __init__(self, flywheel: Flywheel) -> None:
        self.flywheel = flywheel
        self._numbers = itertools.count()
        self.walked = ""

    async def ask(self, question: str, session: str | None = None) -> None:
        answer = await self.flywheel.ask(question, flow="bench", session=session)
        if answer.outcome is not Outcome.HIT:
            raise SystemExit(f"{question!r} is no hit but a {answer.outcome} ({answer.reason}): {answer.warnings}")

    async def prepare(self, turns: int) -> None:
        """Store every answer of the path, and a history to search."""
        for question in PATH:
            await self.flywheel.ask(question, flow="bench", session="stored-first")
        for number in range(turns):
            await self.flywheel.ask(f"What is the state of part {number}?", flow="bench", session=f"h{number % 40}")
        await self.flywheel.flush()
        await self.flywheel.history.search("state of a part")

    async def walk(self) -> None:
        """A session of five turns, for `sixth`."""
        self.walked = f"long-{next(self._numbers)}"
        for question in PATH[:-1]:
            await self.ask(question, self.walked)

    def action(self, arm: str) -> Callable[[], Awaitable[Any]]:
        number = next(self._numbers)
        return {
            "one-off": lambda: self.ask(PATH[0]),
            "fresh": lambda: self.ask(PATH[0], f"fresh-{number}"),
            "sixth": lambda: self.ask(PATH[-1], self.walked),
            "search": lambda: self.flywheel.history.search("state of part 7", limit=5),
        }[arm]


async def measure(url: str, rounds: int, turns: int) -> list[Row]:
    """All arms of both, `rounds` times each."""
    key = f"k1:{base64.b64encode(os.urandom(32)).decode()}"
    run = random.randrange(10**9)
    async with AsyncExitStack() as stack:
        sides = {}
        for name, given in (("plain", {}), ("sealed", {"encryption.keys": key})):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="afw-bench-"))
            settings = private_settings(url, folder, tenant=f"bench-{run}-{name}", **given)
            registry = Registry(settings)
            registry.register("bench", answer_text)
            flywheel = await stack.enter_async_context(Flywheel.open(settings=settings, registry=registry))
            sides[name] = Side(flywheel)
            await sides[name].prepare(turns)
        return await _measure(sides, rounds)


async def _measure(sides: dict[str, Side], rounds: int) -> list[Row]:
    times: dict[tuple[str, str], list[tuple[int, int]]] = {(arm, name): [] for arm in ARMS for name in sides}
    gc.collect()
    gc.freeze()
    warm_up = min(WARM_UP, rounds)
    for number in range(warm_up + rounds):
        for arm in ARMS:
            names = random.sample(list(sides), len(sides))
            if arm == "sixth":
                for name in names:
                    await sides[name].walk()
            for name in names:
                action = sides[name].action(arm)
                await sides[name].flywheel.flush()  # nothing of the arm before falls into this one
                began, worked = perf_counter_ns(), process_time_ns()
                await action()
                took = (perf_counter_ns() - began, process_time_ns() - worked)
                if number >= warm_up:
                    times[arm, name].append(took)
    return [_row(arm, times[arm, "plain"], times[arm, "sealed"]) for arm in ARMS]


def _row(arm: str, plain: list[tuple[int, int]], sealed: list[tuple[int, int]]) -> Row:
    (plain_ms, plain_cpu), (sealed_ms, sealed_cpu) = (
        (_tenth([one[0] for one in taken]) / 1e6, _tenth([one[1] for one in taken]) / 1e6) for taken in (plain, sealed)
    )
    return Row(arm, plain_ms, sealed_ms, sealed_ms / plain_ms, plain_cpu, sealed_cpu, sealed_cpu / plain_cpu)


def _tenth(taken: list[int]) -> float:
    return statistics.quantiles(taken, n=10)[0]


def page(server: PrivateServer, rows: list[Row], turns: int) -> str:
    """The part of docs/performance.md."""
    table = markdown_table(
        ["p10, ms", "without", "with a key", "ratio", "processor, without", "with a key", "ratio"],
        [
            [
                row.arm,
                *(f"{value:.2f}" for value in (row.plain_ms, row.sealed_ms, row.ratio)),
                *(f"{value:.2f}" for value in (row.plain_cpu_ms, row.sealed_cpu_ms, row.cpu_ratio)),
            ]
            for row in rows
        ],
    )
    return f"{table}\n\n{circumstances(server.name)} Answers of 2 KB, unix socket, {turns} turns to search."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--questions", type=int, default=400, help="measured rounds (default 400)")
    parser.add_argument("--turns", type=int, default=2000, help="turns to search (default 2000)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the goal is missed")
    given = parser.parse_args()
    with private_server(given.server) as server:
        rows = asyncio.run(measure(next(iter(server.urls.values())), given.questions, given.turns))
    if given.json:
        print(json.dumps(msgspec.to_builtins(rows), indent=2))
    else:
        print(page(server, rows, given.turns))
    if given.write:
        write_part("encryption", page(server, rows, given.turns))
    return int(given.check and any(row.ratio > MOST for row in rows if row.arm in HITS))


if __name__ == "__main__":
    sys.exit(main())

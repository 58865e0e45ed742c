"""What a question takes beyond the flow's own time, while all is well and while Redis is not.

    python bench/bench_outage.py [--server valkey|redis] [--seconds N] [--json] [--write] [--check]

Every question is new, asked in a session of eight turns, and answered by a flow that takes its own time (20 ms for one
task; 200 ms for fifty, so that the machine is not busy by itself). What is measured is the time of `ask` less that of
the flow, for every question asked from the moment at which trouble strikes:

    healthy   nothing happens
    refused   the server is killed and stays away
    hanging   the server is stopped (SIGSTOP): connections stay, nothing is answered
    restarts  the server is killed again and again, and is there for a second between

With the settings as they are delivered; every turn is kept, in Redis or in the outbox. The goal of at most 50 ms is for
p95. `--check` exits with 1 where it is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter

import msgspec

from agentic_flywheel import Flywheel
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.binaries import find_servers
from performance_page import circumstances, markdown_table, write_part

GOAL_P95_MS = 50.0
TURNS = 8
TASKS = (1, 50)
FLOW_SECONDS = {1: 0.02, 50: 0.2}
UP_SECONDS = 1.0
DOWN_SECONDS = 0.5
#: Questions that are measured at least, however long that takes: percentiles of fewer say nothing.
LEAST = 20


class Row(msgspec.Struct, frozen=True):
    """One condition: milliseconds beyond the flow's own, how many questions, and how many turns were not kept."""

    condition: str
    tasks: int
    questions: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    most_ms: float
    not_kept: int

    @property
    def met(self) -> bool:
        return self.p95_ms <= GOAL_P95_MS and not self.not_kept


class KilledServer:
    """A server on a unix socket that can be taken away."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.url = f"unix://{folder / 'redis.sock'}"
        options = ["--unixsocket", str(folder / "redis.sock"), "--port", "0", "--dir", str(folder)]
        self._command = [str(binary), *options, "--save", "", "--loglevel", "warning"]
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Come back, empty, and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.DEVNULL)
        deadline = monotonic() + 20
        while monotonic() < deadline:
            with suppress(OSError):
                _, writer = await asyncio.open_unix_connection(self._folder / "redis.sock")
                writer.close()
                return
            await asyncio.sleep(0.01)
        raise SystemExit("waited 20 s for the server")

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def stop(self) -> None:
        """Hang, with every connection open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)


async def _nothing(_server: KilledServer) -> None:
    """All is well."""


async def _restarts(server: KilledServer) -> None:
    while True:
        await server.kill()
        await asyncio.sleep(DOWN_SECONDS)
        await server.start()
        await asyncio.sleep(UP_SECONDS)


CONDITIONS: dict[str, Callable[[KilledServer], Awaitable[None]]] = {
    "healthy": _nothing,
    "refused": KilledServer.kill,
    "hanging": KilledServer.stop,
    "restarts": _restarts,
}


async def measure(binary: Path, condition: str, tasks: int, seconds: float) -> Row:
    """One condition on a server of its own."""
    flow_seconds = FLOW_SECONDS[tasks]

    async def flow(question: str) -> str:
        await asyncio.sleep(flow_seconds)
        return f"The answer to {question}"

    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        server = KilledServer(binary, Path(folder))
        await server.start()
        try:
            settings = load_settings(
                {"redis_url": server.url, "data_dir": str(Path(folder, "data"))},
                environ={"AFW_CONFIG_DIR": folder},
                directory=Path(folder),
            )
            registry = Registry(settings)
            registry.register("flow", flow)
            async with Flywheel.open(settings=settings, registry=registry) as flywheel:
                return await _measure(flywheel, server, condition, tasks, seconds)
        finally:
            await server.kill()


async def _measure(flywheel: Flywheel, server: KilledServer, condition: str, tasks: int, seconds: float) -> Row:
    numbers = itertools.count()
    times: list[float] = []
    not_kept, enough, ended, measuring = 0, asyncio.Event(), asyncio.Event(), False

    async def converse(task: int) -> None:
        nonlocal not_kept
        while not ended.is_set():
            number = next(numbers)
            began, counted = perf_counter(), measuring
            answer = await flywheel.ask(
                f"What is known of number {number} in all the books?",
                session=f"{task}-{number // tasks // TURNS}",
                flow="flow",
            )
            if counted:
                times.append((perf_counter() - began) * 1000 - (answer.flow_ms or 0.0))
                not_kept += not answer.remembered
                if len(times) == LEAST:
                    enough.set()

    async with asyncio.TaskGroup() as group:
        for task in range(tasks):
            group.create_task(converse(task))
        await asyncio.sleep(1)
        measuring = True
        trouble = group.create_task(_strike(CONDITIONS[condition], server))
        await asyncio.sleep(seconds)
        await enough.wait()
        ended.set()
        trouble.cancel()
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Row(
        condition=condition,
        tasks=tasks,
        questions=len(times),
        p50_ms=cuts[49],
        p95_ms=cuts[94],
        p99_ms=cuts[98],
        most_ms=max(times),
        not_kept=not_kept,
    )


async def _strike(trouble: Callable[[KilledServer], Awaitable[None]], server: KilledServer) -> None:
    await trouble(server)


def page(name: str, rows: list[Row]) -> str:
    """The rows as people read them."""
    head = ["Redis", "tasks", "questions", "p50", "p95", "p99", "longest", "turns not kept"]
    table = [
        [
            row.condition,
            str(row.tasks),
            f"{row.questions:,}",
            *(f"{ms:.1f} ms" for ms in (row.p50_ms, row.p95_ms, row.p99_ms, row.most_ms)),
            str(row.not_kept),
        ]
        for row in rows
    ]
    missed = [f"{row.condition} at {row.tasks}" for row in rows if not row.met]
    verdict = f"missed: {', '.join(missed)}" if missed else "met"
    return "\n\n".join(
        [
            markdown_table(head, table),
            f"Goal: at most {GOAL_P95_MS:g} ms at p95, and every turn kept: {verdict}. {circumstances(name)}",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default) or redis")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each condition is measured (default 5)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the goal is missed")
    given = parser.parse_args()
    binary = next((found for found in find_servers(os.environ) if found.family == given.server), None)
    if binary is None:
        raise SystemExit(f"no {given.server} server of version 7 or later on this machine")
    logging.disable(logging.WARNING)  # an outage is noted for every question, and nobody reads it here
    rows = [
        asyncio.run(measure(binary.path, condition, tasks, given.seconds))
        for tasks, condition in itertools.product(TASKS, CONDITIONS)
    ]
    whole = page(f"{binary.family} {binary.version_text}", rows)
    print(json.dumps(msgspec.to_builtins(rows), indent=2) if given.json else whole)
    if given.write:
        write_part("outage", whole)
    return int(given.check and not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())

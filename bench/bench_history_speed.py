"""How long a search of history takes, by the number of turns, on both indexes; and what the indexes cost.

    python bench/bench_history_speed.py [--index local,engine] [--sizes N,N] [--most engine=N] [--samples N] [--quick]
                                        [--json] [--check] [--write]

At each size a private Redis holds so many turns (bench/made_up_turns.py says what they are like), put there as asking
puts them. The index is made by `history.rebuild`, beyond `LARGEST_REBUILT` in bulk (bulk_load.py says how); then
searches of several kinds run in turns through `Flywheel.history.search`, catching up with Redis included, each for
words of another turn:

    words, meaning, both    all of the team's turns
    both, one flow          filtered: a quarter of them
    both, one session       filtered: twenty of them
    both, last hours        filtered by time: the newest tenth
    FTS5                    SQLite's own ranking of any of the same words, over the same texts (up to 100,000)

Vectors are made up as well and looked up at once, so no embedding is measured. CPU is that of this process, and for the
query engine that of the server, too. Catching up is measured with 2,000 turns that another process appended.

Goals: p50 of words at most 10 ms and of both at most 15 ms at 100,000 turns. What counts is processor time: a machine
under load takes longer by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import msgspec

from agentic_flywheel import Flywheel
from agentic_flywheel.findings import HistoryPage
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.store.store import Store
from bulk_load import load
from history.product import whole
from line_chart import line_chart
from made_up_turns import FLOWS, MadeUpVectors, Team, session_of
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server, private_settings

#: Index -> the server that it needs.
INDEXES = {"local": "valkey", "engine": "stack"}
SIZES = (10_000, 100_000)
QUICK = 1_000
GOALS = {("words", 100_000): 10.0, ("both", 100_000): 15.0}
ARMS = ("words", "meaning", "both", "both, one flow", "both, one session", "both, last hours")
PLAIN = "FTS5"
LARGEST_PLAIN = 100_000
#: Beyond this, an index is not made from Redis turn by turn.
LARGEST_REBUILT = {"local": 100_000, "engine": 10_000}
CAUGHT_UP = 2_000
WARM_UP = 10
_TOGETHER = 200


class Cost(msgspec.Struct, frozen=True):
    """One kind of search: milliseconds by the clock, and of processor time (here, and in the server)."""

    p50: float
    p95: float
    cpu: float
    server_cpu: float


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One index at one size. `words_seconds` and `vectors_seconds` are what making it took, by the clock, or
    `bulk_seconds` what it took to load the `bulk` turns that were not there yet (for the query engine into their
    sessions as well); `resident_mb` is what it added to this process, `server_mb` to the server, `disk_mb` what lies
    on disk."""

    index: str
    size: int
    costs: dict[str, Cost]
    words_seconds: float = 0.0
    vectors_seconds: float = 0.0
    bulk: int = 0
    bulk_seconds: float = 0.0
    caught_up_per_second: float
    resident_mb: float
    server_mb: float
    disk_mb: float


class Plain:
    """The same texts in a plain FTS5 table."""

    def __init__(self, folder: str) -> None:
        self._connection = sqlite3.connect(Path(folder, "plain.sqlite"))
        self._connection.execute("PRAGMA mmap_size = 268435456")
        self._connection.execute("CREATE VIRTUAL TABLE t USING fts5 (text)")

    def add(self, texts: list[str]) -> None:
        self._connection.executemany("INSERT INTO t (text) VALUES (?)", ((text,) for text in texts))
        self._connection.commit()

    async def search(self, query: str) -> None:
        any_of = " OR ".join(f'"{word}"' for word in query.split())
        self._connection.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT 10", (any_of,)).fetchall()


async def fill(store: Store, team: Team, start: int, end: int, plain: Plain | None, now: float) -> None:
    """Append turns, a session at a time."""
    for begin in range(start, end, _TOGETHER):
        turns = [team.turn(number, now=now) for number in range(begin, min(end, begin + _TOGETHER))]
        await store.link.run(*store.sessions.append_commands(*turns), slow=True)
        if plain is not None:
            plain.add([f"{turn.question}\n{turn.answer}" for turn in turns])


async def measure(index: str, sizes: list[int], samples: int) -> tuple[str, list[Point]]:
    """All sizes of one index, smallest first, on one server."""
    team = Team()
    vectors = MadeUpVectors(team)
    now = time.time()
    points = []
    with private_server(INDEXES[index]) as server, tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        url = server.urls.get("unix socket") or next(iter(server.urls.values()))
        settings = private_settings(url, folder, **{"search.index": index}, tenant="speed", data_dir=folder)
        registry = Registry(settings)
        for flow in FLOWS:
            registry.register(flow, str)
        store, plain, filled = Store(settings), Plain(folder), 0
        try:
            for size in sizes:
                small, bulk = size <= LARGEST_PLAIN, size > LARGEST_REBUILT[index]
                if not bulk:
                    await fill(store, team, filled, size, plain if small else None, now)
                elif small:
                    turns = (team.turn(number, now=now) for number in range(filled, size))
                    plain.add([f"{turn.question}\n{turn.answer}" for turn in turns])
                print(
                    f"{size:,} turns, {'to be loaded' if bulk else 'stored'} for the {index} index",
                    file=sys.stderr,
                    flush=True,
                )
                before = resident_mb()
                opened = Flywheel.open(settings=settings, registry=registry, embedder=vectors, background=False)
                async with opened as flywheel:
                    bench = _Bench(flywheel, store, team, size, samples, now)
                    made = await (bench.load(filled, vectors) if bulk else bench.rebuild())
                    points.append(await bench.point(index, made, before, plain if small else None))
                filled = size + CAUGHT_UP
        finally:
            await store.aclose()
    return server.name, points


class _Bench:
    """One index at one size."""

    def __init__(self, flywheel: Flywheel, store: Store, team: Team, size: int, samples: int, now: float) -> None:
        self._flywheel = flywheel
        self._store = store
        self._team = team
        self._size = size
        self._samples = samples
        self._now = now
        self._memory = 0.0
        self._since = now - 86_400 + 0.9 * size * 0.05

    async def rebuild(self) -> dict[str, Any]:
        """Make the index from Redis; what that took."""
        steps: dict[str, float] = {}
        self._memory = await self._server("memory", "used_memory")
        began = perf_counter()
        await self._flywheel.history.rebuild(lambda step, *_: steps.__setitem__(step, perf_counter() - began))
        build = perf_counter() - began
        words = steps.get("sessions", build)
        return {"words_seconds": words, "vectors_seconds": build - words}

    async def load(self, filled: int, vectors: MadeUpVectors) -> dict[str, Any]:
        """Load what is not there yet; what that took."""
        self._memory = await self._server("memory", "used_memory")
        if not filled:
            await self._flywheel.history.rebuild()
        index = (await self._flywheel.history.indexes.used()).index
        seconds = await load(index, self._store, self._team, vectors, filled, self._size, self._now)
        return {"bulk": self._size - filled, "bulk_seconds": seconds}

    async def point(self, index: str, made: dict[str, Any], before: float, plain: Plain | None) -> Point:
        """The index as it is now: its searches, what it takes, how it is caught up."""
        await whole(self._flywheel)
        state = await self._flywheel.history.state()
        if (state.kind, state.turns, state.vectors) != (index, self._size, self._size):
            raise SystemExit(f"the index holds something else: {state}")
        costs = await self._searched(plain)
        resident, server_after = resident_mb(), await self._server("memory", "used_memory")
        rate = await self._caught_up()
        return Point(
            index=index,
            size=self._size,
            costs=costs,
            **made,
            caught_up_per_second=rate,
            resident_mb=resident - before,
            server_mb=(server_after - self._memory) / 1e6,
            disk_mb=state.size_bytes / 1e6 if index == "local" else 0.0,
        )

    async def _searched(self, plain: Plain | None) -> dict[str, Cost]:
        draw = random.Random(self._size)
        arms: dict[str, Callable[[str], Awaitable[Any]]] = {arm: self._arm(arm, draw) for arm in ARMS}
        if plain is not None:
            arms[PLAIN] = plain.search
        took: dict[str, list[tuple[float, float, float]]] = {arm: [] for arm in arms}
        gc.collect()
        gc.freeze()
        for number in range(-WARM_UP, self._samples):
            for arm in random.Random(number).sample(list(arms), len(arms)):
                query = self._team.query(draw, self._size)
                served = await self._server_cpu() if number >= 0 else 0.0
                began, cpu = perf_counter(), process_time()
                await arms[arm](query)
                elapsed, spent = perf_counter() - began, process_time() - cpu
                if number >= 0:
                    took[arm].append((elapsed, spent, await self._server_cpu() - served))
        return {arm: _cost(each) for arm, each in took.items()}

    def _arm(self, arm: str, draw: random.Random) -> Callable[[str], Awaitable[Any]]:
        mode, _, which = arm.partition(", ")
        search = self._flywheel.history.search

        async def look(query: str) -> None:
            match which:
                case "one flow":
                    page = await search(query, mode=mode, flow=draw.choice(FLOWS))
                case "one session":
                    page = await search(query, mode=mode, session=session_of(draw.randrange(self._size)))
                case "last hours":
                    page = await search(query, mode=mode, since=self._since)
                case _:
                    page = await search(query, mode=mode)
            expect(page, mode)

        return look

    async def _caught_up(self) -> float:
        """Turns a second that were taken in after another process appended them, their vectors included."""
        await fill(self._store, self._team, self._size, self._size + CAUGHT_UP, None, time.time())
        began = perf_counter()
        while (state := await self._flywheel.history.state()).turns < self._size + CAUGHT_UP:
            pass
        await self._flywheel.history.search("anything", mode="meaning")
        while (state := await self._flywheel.history.state()).vectors < state.turns:
            await self._flywheel.history.search("anything", mode="meaning")
        return CAUGHT_UP / (perf_counter() - began)

    async def _server(self, section: str, field: str) -> float:
        (raw,) = await self._store.link.run(("INFO", section), slow=True)
        lines = (raw if isinstance(raw, str) else raw.decode()).splitlines()
        return float(next(line.partition(":")[2] for line in lines if line.startswith(f"{field}:")))

    async def _server_cpu(self) -> float:
        return await self._server("cpu", "used_cpu_user") + await self._server("cpu", "used_cpu_sys")


def expect(page: HistoryPage, mode: str) -> None:
    """A page that is what was asked for, or the end of the benchmark."""
    if page.mode != mode or page.warnings:
        raise SystemExit(f"searched by {page.mode}, not {mode}: {page.warnings}")


def _cost(each: list[tuple[float, float, float]]) -> Cost:
    wall = sorted(one[0] * 1000 for one in each)
    cpu, served = (statistics.median(one[place] for one in each) * 1000 for place in (1, 2))
    return Cost(statistics.median(wall), wall[int(0.95 * (len(wall) - 1))], cpu, served)


def resident_mb() -> float:
    """What this process has in memory now, in MB; its peak, where the system does not say."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def goals(points: list[Point]) -> list[tuple[str, bool]]:
    """Each goal as a sentence with its figure, and whether it is met."""
    said = []
    for point in points:
        for (arm, size), most in GOALS.items():
            if size == point.size:
                cost = point.costs[arm]
                spent = cost.cpu + cost.server_cpu
                text = (
                    f"{arm} at {size:,} turns, {point.index} index: {spent:.1f} ms of processor time "
                    f"(at most {most:g}), {cost.p50:.1f} ms by the clock, at the median"
                )
                said.append((text, spent <= most))
    return said


def page(points: list[Point], servers: list[str]) -> str:
    """The points as docs/performance.md shows them."""
    parts = []
    for index in dict.fromkeys(point.index for point in points):
        own = [point for point in points if point.index == index]
        bulk = any(point.bulk for point in own)
        head = [f"{index} index, turns", *(f"{point.size:,}" for point in own)]
        arms = [arm for arm in (*ARMS, PLAIN) if any(arm in point.costs for point in own)]
        rows = [[_label(arm), *(_shown(point.costs.get(arm), index) for point in own)] for arm in arms]
        rows += [
            ["made: words", *(_took(point.size, point.words_seconds) for point in own)],
            ["made: vectors, without embedding", *(_took(point.size, point.vectors_seconds) for point in own)],
            *([["loaded in bulk", *(_took(point.bulk, point.bulk_seconds) for point in own)]] if bulk else []),
            ["caught up with 2,000 turns", *(f"{point.caught_up_per_second:,.0f}/s" for point in own)],
            ["in this process", *(f"{point.resident_mb:,.0f} MB" for point in own)],
        ]
        kind = ["on disk", "disk_mb"] if index == "local" else ["in the server", "server_mb"]
        rows.append([kind[0], *(f"{getattr(point, kind[1]):,.0f} MB" for point in own)])
        parts.append(markdown_table(head, rows))
    said = "\n".join(f"- {'met' if met else '**missed**'}: {goal}" for goal, met in goals(points))
    picture = "![Processor time of a search, by number of turns](images/history.svg)"
    below = f"{circumstances(', '.join(servers))} p50 / p95 by the clock; in brackets processor time at the median."
    return "\n\n".join([*parts, picture, said, below])


def _label(arm: str) -> str:
    return "plain FTS5, any of the words" if arm == PLAIN else arm


def _shown(cost: Cost | None, index: str) -> str:
    if cost is None:
        return ""
    served = f" + {cost.server_cpu:.1f}" if index == "engine" else ""
    return f"{cost.p50:.1f} / {cost.p95:.1f} ms ({cost.cpu:.1f}{served})"


def _took(turns: int, seconds: float) -> str:
    return f"{seconds:,.0f} s ({turns / seconds:,.0f}/s)" if seconds > 0 else ""


def picture(points: list[Point]) -> str:
    """Processor time by size as SVG."""
    sizes = sorted({point.size for point in points})
    at = {(point.index, point.size): point for point in points}
    lines = {}
    for index in dict.fromkeys(point.index for point in points):
        for arm in ("words", "both"):
            values = [at[index, size].costs[arm] if (index, size) in at else None for size in sizes]
            lines[f"{arm}, {index}"] = [cost and cost.cpu + cost.server_cpu for cost in values]
    return line_chart(
        "Processor time of a search, by number of turns",
        "turns; ms of processor time for a search, in this process and the server",
        sizes,
        lines,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default=",".join(INDEXES), help="indexes, separated by commas (default: all)")
    parser.add_argument("--sizes", default="", help="turns, separated by commas (default: 10000,100000)")
    parser.add_argument("--most", default="", help="no more turns than this on an index: engine=10000")
    parser.add_argument("--quick", action="store_true", help="a thousand turns")
    parser.add_argument("--samples", type=int, default=200, help="per kind of search and size (default 200)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/")
    given = parser.parse_args()
    points: list[Point] = []
    servers = []
    bounds = {index: int(most) for index, _, most in (one.partition("=") for one in given.most.split(",") if one)}
    for index in given.index.split(","):
        sizes = [int(size) for size in given.sizes.split(",") if size] or list(SIZES)
        sizes = [size for size in sizes if size <= bounds.get(index, size)]
        server, found = asyncio.run(measure(index, [QUICK] if given.quick else sizes, given.samples))
        servers.append(f"{server} ({index} index)")
        points += found
    print(json.dumps(msgspec.to_builtins(points), indent=2) if given.json else page(points, servers))
    if given.write:
        write_part("history", page(points, servers))
        (DOCS / "images" / "history.svg").write_text(picture(points), "utf-8")
    return int(given.check and not all(met for _, met in goals(points)))


if __name__ == "__main__":
    sys.exit(main())

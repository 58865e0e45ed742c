"""How the cost of an operation grows with what is stored: a thousand answers and turns to a million, on one server.

    python bench/bench_growth.py [--quick] [--server valkey|redis|URL] [--samples N] [--json] [--check] [--write]

At each size the server holds that many answers of one flow, and that many turns: half of them in one session, half in
sessions of 50. Answers have 0.5 KB here, so that a million of both fit into the memory of a small machine. They are
written through the store's own commands, many in one go. Then, in turns and one at a time:

    get         redis-py's asyncio GET of 0.5 KB: what this machine is capable of at that moment
    hit         an exact hit through `Flywheel.ask`, without a session
    append      one more turn for the long session, acknowledged
    recall      header, the last five turns and the first turn of the long session
    invalidate  clearing the flow: the one write that makes all its answers unreachable

Sizes are measured one after the other, so each figure is a ratio to the GET right before it. Goal: no ratio at any
size is more than 1.5 times the smallest one of its operation. `--quick` stops at ten thousand.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter_ns
from typing import Any

import msgspec
from redis.asyncio import Redis

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Entry, Reason, Turn
from agentic_flywheel.store.keys import shard_of
from agentic_flywheel.store.store import Store
from line_chart import line_chart
from performance_page import DOCS, circumstances, markdown_table, write_part
from private_server import private_server, private_settings

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK = SIZES[:2]
FLAT_WITHIN = 1.5
ANSWER_BYTES = 512
SHORT = 50
LONG_SESSION = "long"
OPERATIONS = ("hit", "append", "recall", "invalidate")
WARM_UP = 100
_BATCH = 200


class Point(msgspec.Struct):
    """All operations at one size: medians in microseconds, medians of the ratios to the GET before, and the server's
    memory."""

    size: int
    p50_us: dict[str, float]
    ratios: dict[str, float]
    used_bytes: int


class Filler:
    """Fills one tenant's store: what differs between two values is what the server sees of them, not their text."""

    def __init__(self, store: Store, flow: str, answer: str) -> None:
        self._store = store
        self._flow = flow
        self._draw = random.Random(23)
        now = time.time()
        self._entry = Entry(
            question="how is it?", identity="", answer=answer, flow=flow, flow_id=flow, flow_name=flow,
            fingerprint="0" * 32, generation=1, created_at=now, ttl_seconds=604800, trace_id="0" * 32, turn_id="0" * 32,
        )  # fmt: skip
        self._turn = Turn(
            id="", session_id="", at=now, question="How is it?", answer=answer, flow=flow, fingerprint="0" * 32,
            outcome=Outcome.MISS, reason=Reason.NOT_STORED, trace_id="0" * 32,
        )  # fmt: skip
        self._first: tuple[tuple[str, ...], list[Any]] | None = None
        self.entries = self.turns = 0

    async def fill(self, size: int) -> None:
        """Bring answers and turns up to `size` each."""
        await self._send(self._put() for _ in range(size - self.entries))
        self.entries = size
        while self.turns < size:
            session = LONG_SESSION if self.turns % (2 * SHORT) < SHORT else f"short-{self.turns // SHORT}"
            count = min(SHORT, size - self.turns)
            turns = [self.turn(session) for _ in range(count)]
            await self._store.link.run(*self._store.sessions.append_commands(*turns), slow=True)
            self.turns += count

    def turn(self, session: str) -> Turn:
        """A turn with an id of its own."""
        return msgspec.structs.replace(self._turn, id=self._name(), session_id=session)

    def _put(self) -> list[tuple[Any, ...]]:
        """One entry's commands: those of `EntryStore.put_commands` for the first one, under a key of its own."""
        key = self._store.keys.entry("team", self._flow, self._name())
        names = (key, self._store.keys.entries(self._flow, shard_of(key)), f"{self._entry.generation}|{key}")
        if self._first is None:
            self._first = names, self._store.entries.put_commands(key, self._entry)
        others, commands = self._first
        renamed = dict(zip(others, names, strict=True))
        return [tuple(renamed.get(part, part) for part in command) for command in commands]

    def _name(self) -> str:
        return f"{self._draw.getrandbits(128):032x}"

    async def _send(self, groups: Iterable[Any]) -> None:
        batch: list[Any] = []
        for group in groups:
            batch += group
            if len(batch) >= 2 * _BATCH:
                await self._store.link.run(*batch, slow=True)
                batch = []
        if batch:
            await self._store.link.run(*batch, slow=True)


async def measure(url: str, sizes: tuple[int, ...], samples: int) -> list[Point]:
    """All sizes, smallest first."""
    answer = " ".join(random.Random(29).choices(__doc__.split(), k=200))[:ANSWER_BYTES]
    questions = [f"How does part {number} of the system work?" for number in range(100)]
    points: list[Point] = []
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        settings = private_settings(url, folder, tenant="growth")
        registry = Registry(settings)
        registry.register("bench", lambda _question: answer)
        store, client = Store(settings), Redis.from_url(url)
        try:
            filler = Filler(store, "bench", answer)
            await client.set("bare", answer)
            for size in sizes:
                await filler.fill(size)
                print(f"{size:,} answers and turns are stored", file=sys.stderr, flush=True)
                # Without a background, so that nothing frees the memory of what is cleared here.
                async with Flywheel.open(settings=settings, registry=registry, background=False) as flywheel:
                    for question in questions:
                        await flywheel.ask(question, flow="bench")
                    points.append(await _measure(size, samples, flywheel, store, client, filler, questions))
        finally:
            await client.aclose()
            await store.aclose()
    return points


async def _measure(
    size: int, samples: int, flywheel: Flywheel, store: Store, client: Redis, filler: Filler, questions: list[str]
) -> Point:
    if await client.dbsize() < size:
        raise SystemExit(f"the server holds fewer than {size} keys: something removed them")
    draw = random.Random(size)
    took: dict[str, list[int]] = {name: [] for name in ("get", *OPERATIONS)}
    ratios: dict[str, list[float]] = {name: [] for name in OPERATIONS}

    async def hit() -> None:
        given = await flywheel.ask(draw.choice(questions), flow="bench")
        if given.outcome is not Outcome.HIT:
            raise SystemExit(f"no hit but a {given.outcome} ({given.reason}): {given.warnings}")

    async def timed(action: Callable[[], Awaitable[Any]]) -> int:
        start = perf_counter_ns()
        await action()
        return perf_counter_ns() - start

    async def once(name: str, action: Callable[[], Awaitable[Any]], *, counts: bool) -> None:
        get, elapsed = await timed(lambda: client.get("bare")), await timed(action)
        if counts:
            took["get"].append(get)
            took[name].append(elapsed)
            ratios[name].append(elapsed / get)

    gc.collect()
    gc.freeze()
    for number in range(-WARM_UP, samples):
        counts = number >= 0
        await once("hit", hit, counts=counts)
        await once("append", functools.partial(store.sessions.append, filler.turn(LONG_SESSION)), counts=counts)
        await once("recall", lambda: store.sessions.recall(LONG_SESSION, 5), counts=counts)
    await flywheel.flush()
    for number in range(-WARM_UP, samples):
        await once("invalidate", lambda: store.flows.clear("bench"), counts=number >= 0)
    used = (await client.info("memory"))["used_memory"]
    return Point(
        size,
        {name: statistics.median(each) / 1000 for name, each in took.items()},
        {name: statistics.median(each) for name, each in ratios.items()},
        used,
    )


def spread(points: list[Point], operation: str) -> float:
    """The largest of an operation's ratios, as a multiple of the smallest."""
    ratios = [point.ratios[operation] for point in points]
    return max(ratios) / min(ratios)


def page(name: str, points: list[Point]) -> str:
    """The points as docs/performance.md shows them."""
    head = ["answers and turns, each", *(f"{point.size:,}" for point in points), "largest / smallest"]
    rows = [["GET, us", *(f"{point.p50_us['get']:.0f}" for point in points), ""]]
    rows += [
        [
            f"{operation}, in GETs",
            *(f"{point.ratios[operation]:.2f} ({point.p50_us[operation]:.0f} us)" for point in points),
            f"{spread(points, operation):.2f}{'' if spread(points, operation) <= FLAT_WITHIN else ' **missed**'}",
        ]
        for operation in OPERATIONS
    ]
    rows.append(["memory of the server, MB", *(f"{point.used_bytes / 2**20:,.0f}" for point in points), ""])
    return f"{markdown_table(head, rows)}\n\n![Cost by size](images/growth.svg)\n\n{circumstances(name)} Medians."


def picture(points: list[Point]) -> str:
    """The ratios by size as SVG."""
    return line_chart(
        "Cost of operations, in GETs, by number of stored answers and turns",
        "stored answers and turns; cost in bare GETs",
        [point.size for point in points],
        {operation: [point.ratios[operation] for point in points] for operation in OPERATIONS},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--quick", action="store_true", help="stop at ten thousand")
    parser.add_argument("--samples", type=int, default=1000, help="per operation and size (default 1000)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where the goal is missed")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/")
    given = parser.parse_args()
    with private_server(given.server) as server:
        url = next(iter(server.urls.values()))
        points = asyncio.run(measure(url, QUICK if given.quick else SIZES, given.samples))
    print(json.dumps(msgspec.to_builtins(points), indent=2) if given.json else page(server.name, points))
    if given.write:
        write_part("growth", page(server.name, points))
        images = DOCS / "images"
        images.mkdir(exist_ok=True)
        (images / "growth.svg").write_text(picture(points), "utf-8")
    return int(given.check and any(spread(points, operation) > FLAT_WITHIN for operation in OPERATIONS))


if __name__ == "__main__":
    sys.exit(main())

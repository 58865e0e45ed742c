"""How long a hit takes, against a bare asyncio GET of the same bytes on the same server.

    python bench/hits.py [--server valkey|redis|URL] [--questions N] [--json] [--check]

The goals are ratios to redis-py's GET, with its defaults. Every round measures each arm once, so what disturbs this
machine disturbs all of them alike:

    get      redis.asyncio GET of the stored entry, as it lies in Redis
    own get  the same bytes by `Flywheel.plain_get`, over the connection that the other arms use too
    one-off  exact hit through `Flywheel.ask` without a session; its turn is written behind
    fresh    exact hit as the first question of a named session; its turn is acknowledged before the answer returns
    sixth    exact hit as the sixth question of a session, with five turns and the first one recalled; likewise
    near     as one-off, by a second flywheel that has the near cache; its turn is written behind likewise. A question
             that goes the whole way, as one does every 0.25 s, is asked again

Goals (p50, as ratios to `get`): one-off at most 3, with a session at most 6, near at most 0.1; p99 far under 50 ms.
What is written behind runs between the rounds as it comes, and so weighs on the slow end of all arms. `--check` exits
with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import perf_counter_ns
from typing import Any

import msgspec
from redis.asyncio import Redis

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from private_server import PrivateServer, private_server, private_settings

GOALS = {"one-off": 3.0, "fresh": 6.0, "sixth": 6.0, "near": 0.1}
MOST_P99_MS = 50.0
ANSWER_BYTES = 2048
WARM_UP = 100
#: The path of the long session; every question of it is asked, and so stored, once before the measurement.
PATH = [
    "How do I enable append-only persistence in Redis?",
    "What does the everysec policy cost?",
    "And what happens on a crash?",
    "How large does the file grow?",
    "When is it rewritten?",
    "Can I turn that off?",
]


class Arm(msgspec.Struct, frozen=True):
    """What one arm came to: milliseconds, and the ratio of its median to that of `get`."""

    name: str
    p50_ms: float
    p99_ms: float
    ratio: float
    round_trips: float
    goal: float | None = None

    @property
    def met(self) -> bool:
        return self.goal is None or (self.ratio <= self.goal and self.p99_ms < MOST_P99_MS)


def answer_text(question: str) -> str:
    """About 2 KB that compress like prose, different for every question."""
    draw = random.Random(question)
    words = [
        "".join(draw.choices("etaoinshrdlucmfwyp", weights=range(18, 0, -1), k=draw.randint(2, 9))) for _ in range(120)
    ]
    text = ""
    while len(text) < ANSWER_BYTES:
        text += draw.choice(words) + " "
    return text[:ANSWER_BYTES]


async def measure(url: str, rounds: int) -> list[Arm]:
    """All arms on one server, `rounds` times each."""
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        settings = private_settings(url, folder, tenant=f"bench-{random.randrange(10**9)}")
        registry = Registry(settings)
        registry.register("bench", answer_text)
        async with Flywheel.open(settings=settings, registry=registry) as flywheel:
            named = {"tenant": settings.text("tenant"), "near.enabled": True}
            beside = Flywheel.open(settings=private_settings(url, folder, **named), registry=registry)
            client = Redis.from_url(url)
            try:
                async with beside:
                    return await _measure(flywheel, beside, client, rounds)
            finally:
                await client.aclose()


async def _measure(flywheel: Flywheel, beside: Flywheel, client: Redis, rounds: int) -> list[Arm]:
    numbers = itertools.count()

    async def ask(question: str, session: str | None = None) -> None:
        answer = await flywheel.ask(question, flow="bench", session=session)
        if answer.outcome is not Outcome.HIT:
            raise SystemExit(f"{question!r} is no hit but a {answer.outcome} ({answer.reason}): {answer.warnings}")

    first = await flywheel.ask(PATH[0], flow="bench", session="stored-first")
    for question in PATH[1:]:
        await flywheel.ask(question, flow="bench", session="stored-first")
    assert first.key is not None
    key = first.key
    stored = await client.get(key)
    assert isinstance(stored, bytes)
    copy = f"bench:{random.randrange(10**9)}"
    await flywheel.plain_set(copy, stored, timedelta(minutes=10))

    async def walk() -> str:
        session = f"long-{next(numbers)}"
        for question in PATH[:-1]:
            await ask(question, session)
        return session

    async def at_hand() -> tuple[int, int]:
        await beside.ask(PATH[0], flow="bench")  # the channel is opened by the first one
        await asyncio.sleep(0)
        for _ in range(1000):
            start = perf_counter_ns()
            answer = await beside.ask(PATH[0], flow="bench")
            took = perf_counter_ns() - start
            if answer.near:
                return took, 0
            await asyncio.sleep(0)
        raise SystemExit("the near cache does not have what was asked a thousand times")

    async def once(action: Callable[[], Awaitable[Any]]) -> tuple[int, int]:
        trips, start = flywheel.redis_round_trips, perf_counter_ns()
        await action()
        return perf_counter_ns() - start, flywheel.redis_round_trips - trips

    times: dict[str, list[int]] = {name: [] for name in ("get", "own get", *GOALS)}
    trips: dict[str, list[int]] = {name: [] for name in times}
    gc.collect()
    gc.freeze()
    for number in range(WARM_UP + rounds):
        fresh, walked = f"fresh-{number}", await walk()
        for name, action in (
            ("get", lambda: client.get(key)),
            ("own get", lambda: flywheel.plain_get(copy)),
            ("one-off", lambda: ask(PATH[0])),
            ("fresh", lambda fresh=fresh: ask(PATH[0], fresh)),
            ("sixth", lambda walked=walked: ask(PATH[-1], walked)),
        ):
            took, spoken = await once(action)
            if number >= WARM_UP:
                times[name].append(took)
                trips[name].append(spoken)
        took, spoken = await at_hand()
        if number >= WARM_UP:
            times["near"].append(took)
            trips["near"].append(spoken)
    bare = statistics.median(times["get"])
    return [
        Arm(
            name=name,
            p50_ms=statistics.median(taken) / 1e6,
            p99_ms=statistics.quantiles(taken, n=100)[98] / 1e6,
            ratio=statistics.median(taken) / bare,
            # The median, since what is written behind may fall into the time of any question.
            round_trips=1 if name == "get" else statistics.median(trips[name]),
            goal=GOALS.get(name),
        )
        for name, taken in times.items()
    ]


def table(server: PrivateServer, transport: str, arms: list[Arm]) -> str:
    """The arms as people read them."""
    lines = [
        f"{server.name}, {transport}",
        f"  {'':10}{'p50':>10}{'p99':>10}{'ratio':>8}{'goal':>7}{'round trips':>13}",
    ]
    for arm in arms:
        goal = f"{arm.goal:g}" if arm.goal else ""
        lines.append(
            f"  {arm.name:10}{arm.p50_ms:7.3f} ms{arm.p99_ms:7.3f} ms{arm.ratio:8.2f}{goal:>7}{arm.round_trips:13g}"
            f"{'' if arm.met else '   missed'}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="valkey", help="valkey (default), redis, or a Redis address")
    parser.add_argument("--questions", type=int, default=1000, help="measured questions per arm (default 1000)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    given = parser.parse_args()
    figures: dict[str, list[Arm]] = {}
    with private_server(given.server) as server:
        for transport, url in server.urls.items():
            figures[transport] = asyncio.run(measure(url, given.questions))
            if not given.json:
                print(table(server, transport, figures[transport]), flush=True)
    if given.json:
        print(json.dumps({"server": server.name, "figures": msgspec.to_builtins(figures)}, indent=2))
    return int(given.check and not all(arm.met for arms in figures.values() for arm in arms))


if __name__ == "__main__":
    sys.exit(main())

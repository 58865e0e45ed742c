"""What an FAQ costs the questions of its flow, and what it takes to hear of a change in it.

    python bench/bench_faq.py [--entries N] [--questions N] [--json]

Every round asks each arm once, as the first question of a session of its own, so that each goes the whole way, and what
disturbs this machine disturbs all of them alike:

    no FAQ    an exact hit in a flow without an FAQ
    beside    an exact hit in a flow whose FAQ has N entries, on a question that is in none of them
    approved  a question that one of the N entries answers
    changed   as approved, by a process that has to read the N entries again, since one of them has just been changed
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
from time import perf_counter_ns

import msgspec

from agentic_flywheel import Flywheel, Origin
from agentic_flywheel.curated import FaqBook, FaqEntry, Publication
from agentic_flywheel.flows.registry import Registry
from hits import answer_text
from private_server import private_server, private_settings

QUESTION = "How do I enable append-only persistence in Redis?"
WARM_UP = 20
ARMS = ("no FAQ", "beside", "approved", "changed")


class Arm(msgspec.Struct, frozen=True):
    """What one arm came to: milliseconds, and the median of its round trips."""

    name: str
    p50_ms: float
    p99_ms: float
    round_trips: float


async def measure(url: str, entries: int, rounds: int) -> list[Arm]:
    """All arms on one server."""
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        tenant = f"bench-{random.randrange(10**9)}"
        settings = private_settings(url, folder, tenant=tenant)
        registry = Registry(settings)
        for flow in ("plain", "curated"):
            registry.register(flow, answer_text)
        one = Flywheel.open(settings=settings, registry=registry)
        async with one as asker, Flywheel.open(settings=settings, registry=registry) as other:
            return await _measure(asker, other, entries, rounds)


async def _measure(asker: Flywheel, other: Flywheel, entries: int, rounds: int) -> list[Arm]:
    for flow in ("plain", "curated"):
        await asker.ask(QUESTION, flow=flow)
    draft = await asker.faq.add("What is approved?", answer_text("approved"), flow="curated")
    view = await asker.faq.approve(draft.id, owner="bench")
    said = view.entry.published
    assert said is not None
    for number in range(entries - 1):
        await _write(asker, _entry(number, said))
    times: dict[str, list[int]] = {name: [] for name in ARMS}
    trips: dict[str, list[int]] = {name: [] for name in ARMS}

    async def once(name: str, flywheel: Flywheel, question: str, flow: str, session: str, source: Origin) -> None:
        before, start = flywheel.redis_round_trips, perf_counter_ns()
        answer = await flywheel.ask(question, flow=flow, session=session)
        times[name].append(perf_counter_ns() - start)
        trips[name].append(flywheel.redis_round_trips - before)
        if answer.source is not source:
            raise SystemExit(f"{name}: {question!r} was answered by {answer.source} ({answer.reason})")

    for number in range(WARM_UP + rounds):
        if number == WARM_UP:
            for name in ARMS:
                times[name].clear()
                trips[name].clear()
        session = f"s{number}"
        await once("no FAQ", asker, QUESTION, "plain", f"{session}-a", Origin.CACHE)
        await once("beside", asker, QUESTION, "curated", f"{session}-b", Origin.CACHE)
        await once("approved", asker, "what is approved", "curated", f"{session}-c", Origin.FAQ)
        if number % 10 == 0:
            await _write(asker, _entry(entries + number, said))
            await once("changed", other, "what is approved", "curated", f"{session}-d", Origin.FAQ)
            await asker.ask("what is approved", flow="curated")
        await asyncio.sleep(0)
    return [
        Arm(
            name=name,
            p50_ms=statistics.median(taken) / 1e6,
            p99_ms=statistics.quantiles(taken, n=100)[98] / 1e6 if len(taken) > 1 else taken[0] / 1e6,
            round_trips=statistics.median(trips[name]),
        )
        for name, taken in times.items()
    ]


def _entry(number: int, said: Publication) -> FaqEntry:
    question = f"What is thing number {number} good for?"
    own = msgspec.structs.replace(said, question=question, answer=answer_text(question))
    return FaqEntry(f"e{number}", "curated", question, (), own.answer, time.time(), 0.0, "bench", published=own)


async def _write(flywheel: Flywheel, entry: FaqEntry) -> None:
    store = flywheel._store.faq  # noqa: SLF001 -- a thousand approvals, without what only people need of each
    version = (await store.versions(["curated"]))["curated"]
    assert await store.write(FaqBook(flow="curated", version=version), entry)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1000, help="entries of the FAQ (default 1000)")
    parser.add_argument("--questions", type=int, default=500, help="rounds (default 500)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    given = parser.parse_args()
    with private_server("valkey") as server:
        arms = asyncio.run(measure(server.urls["unix socket"], given.entries, given.questions))
        name = server.name
    if given.json:
        print(json.dumps({"server": name, "entries": given.entries, "arms": msgspec.to_builtins(arms)}, indent=2))
        return 0
    print(f"{name}, unix socket, an FAQ of {given.entries} entries of 2 KB")
    print(f"  {'':10}{'p50':>10}{'p99':>10}{'round trips':>13}")
    for arm in arms:
        print(f"  {arm.name:10}{arm.p50_ms:7.3f} ms{arm.p99_ms:7.3f} ms{arm.round_trips:13g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

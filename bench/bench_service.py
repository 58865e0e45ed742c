"""A stored answer of 2 KB through every way into the service, beside a bare endpoint and LiteLLM's proxy: one run.

    python bench/bench_service.py [--rounds N] [--seconds N] [--questions N] [--only WORD] [--no-litellm] [--json]
                                  [--check] [--write]

`afw serve` runs as it is delivered, with one worker and its log of requests, twice: answers come from Redis, or from
the near cache. It is asked by anybody, and once more with an API key that has a rate. Behind it stands a process that
is a Flowise; the bare endpoint is a Starlette route in that process, on the same server and loop, that answers as many
bytes and does nothing. LiteLLM's proxy (one worker, its Redis cache, the same Redis, an OpenAI-compatible model in the
same process behind) is installed from the package registry into .cache/litellm-venv. This process is the client
(http_load.py), over kept connections; it checks every answer.

Every round runs all arms at 1 and at 32 connections, in an order that changes, each beside a block of the bare
endpoint: what disturbs this machine disturbs both, and the ratio is the median of the rounds' ratios. Each block of
ours begins with every question once, unmeasured, so that what is told of the near cache comes from there. Every hit of
ours is a turn in a session of its own, counted and logged; the time that writing takes falls into the blocks.

Goals, for the throughput at 32 connections: the Flowise proxy at least 25 % of the bare endpoint's from Redis and 50 %
from the near cache, and 20 times LiteLLM's. `--check` exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from agentic_flywheel import Flywheel
from agentic_flywheel.callers import Scope
from http_load import Block, Sent, ask, percentile, post
from performance_page import circumstances, markdown_table, write_part
from private_server import PrivateServer, private_server
from service_processes import LITELLM, LITELLM_KEY, Running, litellm, service, stand_in
from stand_in import FLOW_ID, answer_of

BARE = "bare Starlette endpoint"
PROXY, NEAR = "Flowise proxy, from Redis", "Flowise proxy, near cache"
OTHER = "LiteLLM proxy, Redis cache"
CONNECTIONS = (1, 32)
GOALS = {PROXY: 0.25, NEAR: 0.5}
TIMES_OTHER = 20.0


class Arm(msgspec.Struct):
    """One way to an answer: `make` turns a question into what is sent."""

    name: str
    server: Running
    make: Callable[[str], bytes]
    blocks: dict[int, list[Block]] = msgspec.field(default_factory=lambda: {many: [] for many in CONNECTIONS})
    ratios: dict[int, list[float]] = msgspec.field(default_factory=lambda: {many: [] for many in CONNECTIONS})


class Figures(msgspec.Struct):
    """What an arm came to at a number of connections; `share` is of the bare endpoint's throughput."""

    per_second: float
    p50_ms: float
    p99_ms: float
    share: float
    processor_us: float


class Row(msgspec.Struct):
    """One arm: at one connection, and at 32."""

    name: str
    one: Figures
    many: Figures


def questions(count: int) -> list[str]:
    return [f"How does part {number} of the system work?" for number in range(count)]


def arms_of(name: str, running: Running, key: str) -> list[Arm]:
    """The ways into a service: what is sent for a question, by anybody and by who has the key."""

    def flowise(question: str) -> bytes:
        return post(f"{running.url}/api/v1/prediction/{FLOW_ID}", json.dumps({"question": question}).encode())

    def keyed(question: str) -> bytes:
        body = json.dumps({"question": question}).encode()
        return post(f"{running.url}/api/v1/prediction/{FLOW_ID}", body, {"X-API-Key": key})

    def openai(question: str) -> bytes:
        return post(f"{running.url}/v1/chat/completions", chat(question))

    def rest(question: str) -> bytes:
        return post(f"{running.url}/api/v2/ask", json.dumps({"question": question, "flow": "bench"}).encode())

    def mcp(question: str) -> bytes:
        call = {"name": "flowise_query", "arguments": {"question": question, "flow_override": "bench"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
        return post(f"{running.url}/mcp", json.dumps(body).encode(), headers)

    arms = [
        Arm(f"Flowise proxy, {name}", running, flowise),
        Arm(f"Flowise proxy, API key, {name}", running, keyed),
        Arm(f"OpenAI proxy, {name}", running, openai),
    ]
    if "/api/v2/ask" in running.routes:
        arms.append(Arm(f"REST, {name}", running, rest))
    return [*arms, Arm(f"MCP, {name}", running, mcp)]


async def key_for(url: str, tenant: str) -> str:
    """The secret of a new key of a tenant, with a rate that is looked at and never reached."""
    async with Flywheel.open(redis_url=url, tenant=tenant, background=False) as flywheel:
        made = await flywheel.api_keys.create("bench", {Scope.ASK}, by="bench", rate_per_minute=1_000_000)
        return made.secret


def chat(question: str) -> bytes:
    """A chat completion request."""
    return json.dumps({"model": "bench", "messages": [{"role": "user", "content": question}]}).encode()


async def measure(arms: list[Arm], asked: list[str], rounds: int, seconds: float) -> None:
    """All arms, round by round; the first arm is the bare endpoint."""
    bare, others = arms[0], arms[1:]
    for number in range(rounds):
        for arm in random.Random(number).sample(others, len(others)):
            ready = [(arm.make(question), answer_of(question).encode()) for question in asked]
            await once(arm, ready)
            for connections in CONNECTIONS:
                block = await one_block(arm, drawn(ready), connections, seconds)
                limit = await one_block(bare, drawn([(bare.make(asked[0]), b'"text"')]), connections, seconds / 2)
                arm.ratios[connections].append(block.per_second / limit.per_second)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)


async def once(arm: Arm, ready: list[Sent]) -> None:
    """Every question once."""
    refuse(arm, await ask(arm.server.url, iter(ready), connections=8))


async def one_block(arm: Arm, requests: Iterator[Sent], connections: int, seconds: float) -> Block:
    block = await ask(arm.server.url, requests, connections=connections, seconds=seconds, pid=arm.server.pid)
    refuse(arm, block)
    arm.blocks[connections].append(block)
    return block


def refuse(arm: Arm, block: Block) -> None:
    """No arm wins by answering wrongly."""
    if block.wrong:
        raise SystemExit(f"{arm.name}: {len(block.wrong)} wrong answers, the first: {block.wrong[0]!r}")


def drawn(ready: list[Sent]) -> Iterator[Sent]:
    draw = random.Random(7)
    while True:
        yield ready[int(draw.random() * len(ready))]


def row_of(arm: Arm) -> Row:
    def figures(connections: int) -> Figures:
        blocks = arm.blocks[connections]
        took = [one for block in blocks for one in block.took_ns]
        return Figures(
            per_second=statistics.median(block.per_second for block in blocks),
            p50_ms=percentile(took, 50),
            p99_ms=percentile(took, 99),
            share=statistics.median(arm.ratios[connections] or [1.0]),
            processor_us=sum(block.processor_seconds for block in blocks) / len(took) * 1e6,
        )

    return Row(arm.name, *(figures(connections) for connections in CONNECTIONS))


def goals(rows: list[Row]) -> list[tuple[str, bool]]:
    """Each goal as a sentence with its figure, and whether it is met."""
    by_name = {row.name: row for row in rows}
    found = []
    for name, least in GOALS.items():
        if name in by_name:
            share = by_name[name].many.share
            found.append((f"{name}: {share:.0%} of the bare endpoint's (at least {least:.0%})", share >= least))
    if OTHER in by_name and PROXY in by_name:
        times = by_name[PROXY].many.share / by_name[OTHER].many.share
        found.append((f"{PROXY}: {times:.0f} times LiteLLM's (at least {TIMES_OTHER:.0f})", times >= TIMES_OTHER))
    return found


def page(server: PrivateServer, rows: list[Row]) -> str:
    """The rows as docs/performance.md shows them."""
    head = [
        "",
        "a second at 1",
        "p50 ms",
        "p99 ms",
        "of bare",
        "a second at 32",
        "p50 ms",
        "p99 ms",
        "of bare",
        "CPU us",
    ]
    lines = [
        [
            row.name,
            *(
                text
                for one in (row.one, row.many)
                for text in (f"{one.per_second:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.share:.1%}")
            ),
            f"{row.many.processor_us:,.0f}",
        ]
        for row in rows
    ]
    said = "\n".join(f"- {'met' if met else '**missed**'}: {goal}" for goal, met in goals(rows))
    below = f"{circumstances(server.name)} {LITELLM[0]}."
    return f"{markdown_table(head, lines)}\n\n{said}\n\n{below}"


def run(server: PrivateServer, given: argparse.Namespace) -> list[Row]:
    """Start everything, and measure."""
    url, asked = server.urls["TCP"], questions(given.questions)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="afw-bench-")))
        behind = stack.enter_context(stand_in())
        arms = [
            Arm(BARE, behind, lambda question: post(f"{behind.url}/bare", json.dumps({"question": question}).encode()))
        ]
        for name, near in (("from Redis", "false"), ("near cache", "true")):
            more = {"AFW_NEAR_ENABLED": near, "AFW_TENANT": f"near-{near}"}
            running = stack.enter_context(service(folder / name.replace(" ", "-"), url, behind.url, **more))
            arms += arms_of(name, running, asyncio.run(key_for(url, f"near-{near}")))
        key = {"Authorization": f"Bearer {LITELLM_KEY}"}
        if not given.no_litellm and (other := stack.enter_context(litellm(folder / "litellm", url, behind.url))):
            arms.append(
                Arm(OTHER, other, lambda question: post(f"{other.url}/v1/chat/completions", chat(question), key))
            )
        arms = [arm for arm in arms if arm.name == BARE or given.only.casefold() in arm.name.casefold()]
        uvloop.run(prepared(arms, asked, given))
        return [row_of(arm) for arm in arms]


async def prepared(arms: list[Arm], asked: list[str], given: argparse.Namespace) -> None:
    """Have every answer stored, then measure; nothing is asked of the flow any more."""
    for arm in arms[1:]:
        ready = [(arm.make(question), answer_of(question).encode()) for question in asked]
        await once(arm, ready)
        await once(arm, ready)
    before = calls(arms[0].server)
    await measure(arms, asked, given.rounds, given.seconds)
    if more := calls(arms[0].server) - before:
        raise SystemExit(f"{more} of the answers came from the flow")


def calls(behind: Running) -> int:
    with urllib.request.urlopen(f"{behind.url}/calls") as response:
        return int(json.load(response))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds of all arms (default 10)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block (default 1)")
    parser.add_argument("--questions", type=int, default=200, help="stored answers (default 200)")
    parser.add_argument("--only", default="", metavar="WORD", help="arms whose name holds this word")
    parser.add_argument("--no-litellm", action="store_true", help="without LiteLLM's proxy")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    with private_server("valkey") as server:
        rows = run(server, given)
        if given.write:
            write_part("service", page(server, rows))
        if given.json:
            print(msgspec.json.encode(rows).decode())
        else:
            print(page(server, rows))
    return 1 if given.check and not all(met for _, met in goals(rows)) else 0


if __name__ == "__main__":
    sys.exit(main())

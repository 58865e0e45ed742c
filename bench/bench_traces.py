"""What traces cost a question, whoever takes them.

    python bench/bench_traces.py [--server valkey|redis] [--questions N] [--json] [--write] [--check]

Every round asks each flywheel once, in an order of its own, so what disturbs this machine disturbs all alike:

    off       no traces
    on        OTLP to a server that takes them (a process of its own)
    langfuse  the same with Langfuse's attributes and all text
    hanging   the server takes the connection and says nothing
    refusing  the server answers 503
    absent    nobody listens

Asked are an exact hit without a session (familiar after the first time), and an exact hit as the first question of a
named session (the whole way, its turn acknowledged). `end` is how long closing the flywheel takes. The goal: medians
within 10 % of `off`, and every end within 2 s. `--check` exits with 1 where that is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from time import perf_counter, thread_time
from typing import Any

import msgspec

from agentic_flywheel import Flywheel
from agentic_flywheel.flows.registry import Registry
from performance_page import circumstances, markdown_table, write_part
from private_server import private_server, private_settings

ARMS = ("off", "on", "langfuse", "hanging", "refusing", "absent")
WITHIN = 1.10
END_SECONDS = 2.0
WARM_UP = 50
QUESTION = "How do I enable append-only persistence in Redis?"
#: Says its port, then answers as it is told: 200, 503, or never.
_SINK = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if sys.argv[1] == "0":
            threading.Event().wait()
        self.send_response(int(sys.argv[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
_STATUS = {"on": 200, "langfuse": 200, "hanging": 0, "refusing": 503}


class Arm(msgspec.Struct, frozen=True):
    """One arm: medians and 95th percentiles in milliseconds, their ratios to `off`, its end in seconds, its traces.

    `..._work` is the ratio of the processor time of the asking thread (tenth percentile): what others do to this
    machine, and when the sender's thread has its turn, is not in it.
    """

    name: str
    one_off_ms: float
    one_off_p95_ms: float
    one_off_ratio: float
    session_ms: float
    session_p95_ms: float
    session_ratio: float
    one_off_work: float
    session_work: float
    end_seconds: float
    sent: int
    dropped: int
    failed: int


async def measure(server: str, questions: int) -> tuple[list[Arm], str]:
    """All arms, side by side; and which server they ran on."""
    times: dict[tuple[str, str], list[float]] = {(arm, way): [] for arm in ARMS for way in ("one-off", "session")}
    works: dict[tuple[str, str], list[float]] = {name: [] for name in times}
    ends: dict[str, float] = {}
    deliveries: dict[str, Any] = {}
    with private_server(server) as redis, tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            flywheels = {}
            for arm in ARMS:
                where = _where(arm, stack)
                settings = private_settings(redis.urls["unix socket"], folder).overlaid(where)
                registry = Registry(settings)
                registry.register("oracle", lambda question: f"{question} " * 40)
                flywheels[arm] = Flywheel.open(settings=settings, registry=registry)
            await flywheels["off"].ask(QUESTION, flow="oracle")
            await flywheels["off"].flush()
            gc.disable()
            for number in range(-WARM_UP, questions):
                for arm in random.sample(ARMS, len(ARMS)):
                    for way, session in (("one-off", None), ("session", f"s-{arm}-{number}")):
                        began, worked = perf_counter(), thread_time()
                        answer = await flywheels[arm].ask(QUESTION, flow="oracle", session=session)
                        work, took = (thread_time() - worked) * 1000, (perf_counter() - began) * 1000
                        assert answer.outcome.value == "hit", answer.outcome
                        if number >= 0:
                            times[arm, way].append(took)
                            works[arm, way].append(work)
                await asyncio.sleep(0.002)  # as people pause: threads get to work
                if number % 200 == 0:
                    gc.collect()
            for arm, flywheel in flywheels.items():
                began = perf_counter()
                await flywheel.aclose()
                ends[arm] = perf_counter() - began
                deliveries[arm] = flywheel._tracing.delivery if flywheel._tracing else None  # noqa: SLF001
    return [_arm(arm, times, works, ends[arm], deliveries[arm]) for arm in ARMS], redis.name


def _where(arm: str, stack: AsyncExitStack) -> dict[str, Any]:
    if arm == "off":
        return {}
    if arm == "absent":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    else:
        sink = subprocess.Popen([sys.executable, "-c", _SINK, str(_STATUS[arm])], stdout=subprocess.PIPE, text=True)
        stack.callback(sink.wait)
        stack.callback(sink.kill)
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
    url = f"http://127.0.0.1:{port}"
    if arm == "langfuse":
        keys = {"langfuse.public_key": "pk", "langfuse.secret_key": "sk", "langfuse.url": url}
        return {"trace.exporter": "langfuse", "trace.text": "on", **keys}
    return {"trace.exporter": "otlp", "trace.endpoint": f"{url}/v1/traces"}


def _arm(
    name: str,
    times: dict[tuple[str, str], list[float]],
    works: dict[tuple[str, str], list[float]],
    end: float,
    delivery: Any,
) -> Arm:
    def work(way: str) -> float:
        mine, off = (statistics.quantiles(works[arm, way], n=10)[0] for arm in (name, "off"))
        return mine / off

    one_off, session = sorted(times[name, "one-off"]), sorted(times[name, "session"])
    middle = statistics.median
    return Arm(
        name,
        middle(one_off),
        one_off[int(len(one_off) * 0.95)],
        middle(one_off) / middle(times["off", "one-off"]),
        middle(session),
        session[int(len(session) * 0.95)],
        middle(session) / middle(times["off", "session"]),
        work("one-off"),
        work("session"),
        end,
        delivery.sent if delivery else 0,
        delivery.dropped if delivery else 0,
        delivery.failed if delivery else 0,
    )


def table(arms: list[Arm]) -> str:
    """The arms in Markdown."""
    head = ["traces", "one-off p50 / p95", "to off", "in a session p50 / p95", "to off", "processor to off", "end"]
    head.append("sent / dropped / failed")
    rows = [
        [
            arm.name,
            f"{arm.one_off_ms:.2f} / {arm.one_off_p95_ms:.2f} ms",
            f"{arm.one_off_ratio:.2f}",
            f"{arm.session_ms:.2f} / {arm.session_p95_ms:.2f} ms",
            f"{arm.session_ratio:.2f}",
            f"{arm.one_off_work:.2f} / {arm.session_work:.2f}",
            f"{arm.end_seconds:.2f} s",
            f"{arm.sent} / {arm.dropped} / {arm.failed}",
        ]
        for arm in arms
    ]
    return markdown_table(head, rows)


def missed(arms: list[Arm]) -> list[str]:
    """The goals that were missed, as sentences."""
    found = []
    for arm in arms:
        if max(arm.one_off_ratio, arm.session_ratio) > WITHIN:
            found.append(f"{arm.name}: a hit takes {max(arm.one_off_ratio, arm.session_ratio):.2f} times as long")
        if arm.end_seconds > END_SECONDS:
            found.append(f"{arm.name}: the end takes {arm.end_seconds:.2f} s")
    return found


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--server", default="valkey")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with suppress(KeyboardInterrupt):
        arms, redis_name = asyncio.run(measure(given.server, given.questions))
        if given.json:
            print(json.dumps([msgspec.to_builtins(arm) for arm in arms], indent=2))
        else:
            print(table(arms))
        if given.write:
            write_part("traces", f"{table(arms)}\n\n{circumstances(redis_name)}")
        for sentence in missed(arms):
            print(sentence, file=sys.stderr)
        return int(given.check and bool(missed(arms)))
    return 130


if __name__ == "__main__":
    sys.exit(main())

"""How long the command takes to start: what a client of MCP and a person at a terminal wait for.

    python bench/bench_start.py [--runs N] [--json]

Every run starts each arm once, so what disturbs this machine disturbs all of them alike:

    python        the interpreter alone: nothing can be faster
    initialize    `afw mcp`, from the start of the process to the answer to `initialize`
    discover      the same to the answer to `server/discover`, in the protocol of 2026-07-28
    proper        the same as `initialize`, with a server that answers it only once the SDK is there
    list          `afw mcp` to the answer to the `tools/list` that follows `initialize`
    --help        `afw --help`, to its end
    ask           `afw ask`, answered from memory, to its end

Goals: `initialize` and `discover` at most 100 ms, `--help` at most 150 ms, on a machine with nothing else to do; the
fastest run is nearest to that, the median tells how busy this one is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from private_server import private_server

GOALS_MS = {"initialize": 100, "discover": 100, "--help": 150}
AFW = [sys.executable, "-c", "from agentic_flywheel.interfaces.cli.main import main; main()"]
PROPER = [sys.executable, "-c", "from agentic_flywheel.interfaces.mcp.server import main; main()"]
QUESTION = "How long do answers stay good?"

_CLIENT = {"name": "bench", "version": "1"}
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _CLIENT}
DISCOVER = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": _CLIENT,
    }
}


def _line(method: str, number: int | None = None, params: object = None) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    return json.dumps(message | ({} if number is None else {"id": number})).encode() + b"\n"


def _to_its_end(command: list[str], environ: dict[str, str]) -> float:
    start = perf_counter()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return perf_counter() - start


def _to_an_answer(command: list[str], environ: dict[str, str], said: bytes, number: int) -> float:
    """Seconds until the request `number` is answered."""
    start = perf_counter()
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(said)
        process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if message["id"] == number:
                took = perf_counter() - start
                process.stdin.close()
                if "error" in message:
                    raise SystemExit(f"{command}: {message}")
                return took
    raise SystemExit(f"{command} ended without an answer")


def measure(url: str, home: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of every run, by arm."""
    environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environ |= {"HOME": str(home), "AFW_CONFIG_DIR": str(home), "AFW_DATA_DIR": str(home), "AFW_REDIS_URL": url}
    mcp, initialize = [*AFW, "mcp"], _line("initialize", 1, INITIALIZE)
    listing = initialize + _line("notifications/initialized") + _line("tools/list", 2)
    ask = [*AFW, "ask", "--flow", "documents"]
    arms: dict[str, Callable[[], float]] = {
        "python": lambda: _to_its_end([sys.executable, "-c", ""], environ),
        "initialize": lambda: _to_an_answer(mcp, environ, initialize, 1),
        "discover": lambda: _to_an_answer(mcp, environ, _line("server/discover", 1, DISCOVER), 1),
        "proper": lambda: _to_an_answer(PROPER, environ, initialize, 1),
        "list": lambda: _to_an_answer(mcp, environ, listing, 2),
        "--help": lambda: _to_its_end([*AFW, "--help"], environ),
        "ask": lambda: _to_its_end([*ask, "--only-if-cached", QUESTION], environ),
    }
    _to_its_end([*ask, QUESTION], environ)  # stores the answer
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(runs + 1):
        for name, arm in arms.items():
            took = arm()
            if number:  # the first run fills the caches of the disk
                times[name].append(took)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="measured starts per arm (default 10)")
    parser.add_argument("--json", action="store_true", help="figures as JSON, in milliseconds")
    given = parser.parse_args()
    with private_server("valkey") as server, tempfile.TemporaryDirectory(prefix="afw-bench-") as home:
        times = measure(server.urls["unix socket"], Path(home), given.runs)
    figures = {
        name: {"least_ms": min(taken) * 1e3, "median_ms": statistics.median(taken) * 1e3, "goal_ms": GOALS_MS.get(name)}
        for name, taken in times.items()
    }
    if given.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"  {'':12}{'fastest':>11}{'median':>11}{'goal':>9}")
    for name, figure in figures.items():
        goal = f"{figure['goal_ms']} ms" if figure["goal_ms"] else ""
        missed = "   missed" if figure["goal_ms"] and figure["least_ms"] > figure["goal_ms"] else ""
        print(f"  {name:12}{figure['least_ms']:8.0f} ms{figure['median_ms']:8.0f} ms{goal:>9}{missed}")


if __name__ == "__main__":
    main()

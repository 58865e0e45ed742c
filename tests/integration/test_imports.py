"""What is imported when, by name: the budget of every start, which no clock has to measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from afw_command import Afw
from servers import Server

#: Nothing that only shows words needs any of these.
HEAVY = {
    "asyncio",
    "concurrent",
    "email",
    "hiredis",
    "httpx2",
    "importlib.metadata",
    "logging",
    "mcp",
    "msgspec",
    "platformdirs",
    "pydantic",
    "redis",
    "ruamel",
    "ssl",
    "xxhash",
    "zstandard",
}
#: Above that, what the first answer of `afw mcp` must not wait for.
HEAVY_FOR_MCP = HEAVY | {
    "anyio",
    "click",
    "contextvars",
    "dataclasses",
    "datetime",
    "difflib",
    "importlib.util",
    "inspect",
    "pathlib",
    "random",
    "selectors",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "tomllib",
    "traceback",
    "typing",
    "urllib",
    "uuid",
}
#: What an answer from memory does not need: clients of services, MCP, and comforts for people. (The registry is read
#: at every start, and so is its YAML.)
NOT_FOR_A_HIT = {
    "agentic_flywheel.interfaces.mcp",
    "agentic_flywheel.store.cluster",
    "cryptography",
    "email",
    "httpx2",
    "importlib.metadata",
    "mcp",
    "multiprocessing",
    "numpy",
    "opentelemetry",
    "platformdirs",
    "pydantic",
    "redis",
    "rich",
    "sqlite3",
    "tempfile",
    "unittest",
    "xml",
    "zoneinfo",
}

BEFORE = "import sys; there = set(sys.modules)\n"
AFTER = "; print(*sorted(set(sys.modules) - there), file=sys.stderr)"


def imported(script: str, afw: Afw | None = None) -> set[str]:
    """The modules that `script` imports, beyond those that every Python has at its start."""
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + script + AFTER],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
        **({"env": afw.environ, "cwd": afw.work} if afw else {}),
    )
    return set(done.stderr.splitlines()[-1].split())


def among(modules: set[str], heavy: set[str]) -> list[str]:
    """Those of `heavy` that were imported, whole or in part."""
    return sorted(name for name in heavy if any(f"{module}.".startswith(f"{name}.") for module in modules))


def test_the_package_itself_imports_nothing() -> None:
    assert imported("import agentic_flywheel") == {"__future__", "agentic_flywheel"}


@pytest.mark.parametrize("arguments", [["--help"], ["session", "--help"], ["ask", "--help"], ["--version"]])
def test_help_imports_click_and_nothing_heavy(arguments: list[str]) -> None:
    modules = imported(
        f"from agentic_flywheel.interfaces.cli.main import run; code = run({arguments!r}); assert code == 0"
    )
    assert among(modules, HEAVY) == []
    assert "click" in modules


def test_mcp_has_answered_before_anything_heavy_is_imported() -> None:
    client = '{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}'
    line = f'{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{client}}}\n'
    # What follows the answer is cut off, and the modules are looked at instead.
    modules = imported(
        "import os; incoming, client = os.pipe(); os.dup2(incoming, 0)\n"
        f"os.write(client, {line.encode()!r})\n"
        "from agentic_flywheel.interfaces.cli import main\n"
        "main._run = lambda arguments, opening: opening\n"
        "assert main.run(['--tenant', 'a', 'mcp']).answer"
    )
    assert among(modules, HEAVY_FOR_MCP) == []
    assert {name for name in modules if name.startswith("agentic_flywheel")} == {
        "agentic_flywheel",
        "agentic_flywheel.interfaces",
        "agentic_flywheel.interfaces.cli",
        "agentic_flywheel.interfaces.cli.main",
        "agentic_flywheel.interfaces.mcp",
        "agentic_flywheel.interfaces.mcp.opening",
    }
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names | {"agentic_flywheel"}


def test_a_hit_imports_no_more_than_it_needs(tmp_path: Path, valkey: Server) -> None:
    afw = Afw(tmp_path, valkey.url)
    afw.ok("ask", "How do I rotate the keys?", "--flow", "echo")
    asked = len(afw.asked())
    modules = imported(
        "from agentic_flywheel.interfaces.cli.main import run\n"
        "assert run(['ask', 'How do I rotate the keys?', '--flow', 'echo']) == 0",
        afw,
    )
    assert len(afw.asked()) == asked == 1
    assert among(modules, NOT_FOR_A_HIT - {"agentic_flywheel.interfaces.mcp"}) == []
    assert not any(name.startswith("agentic_flywheel.interfaces.mcp.") for name in modules)
    assert "agentic_flywheel.flywheel" in modules

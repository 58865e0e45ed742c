"""Fetch the MCP inspector, the reference client for checking servers, with npm.

    python tests/fetch_inspector.py [DIR]        (default: .cache/inspector in the project)

The inspector wants a newer Node.js than many machines have; where it is older, one comes from the same registry, as a
package with nothing but the binary. No script of any package is run.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import npm_packages

DEFAULT_DIR = npm_packages.CACHE / "inspector"

INSPECTOR = "2.12.0"
NODE = "24.21.0"
OLDEST_NODE = (22, 19)

_LAUNCHER = Path("node_modules", "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def command(directory: Path = DEFAULT_DIR) -> list[str]:
    """What starts the inspector, fetched if it is not there. Raises `NotFetched`."""
    launcher = directory / _LAUNCHER
    own_node = directory / "node_modules" / _node_package() / "bin" / "node"
    node = _node()
    if not (launcher.is_file() and (node or own_node.is_file())):
        more = [] if node else [f"{_node_package()}@{NODE}"]
        npm_packages.install([f"@modelcontextprotocol/inspector@{INSPECTOR}", *more], directory)
    return [node or str(own_node), str(launcher), "--cli"]


def _node() -> str | None:
    """The machine's Node.js, if it is new enough."""
    node = shutil.which("node")
    if node is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major, minor, *_ = (int(part) for part in said.strip().removeprefix("v").split("."))
    return node if (major, minor) >= OLDEST_NODE else None


def _node_package() -> str:
    return f"node-{platform.system().lower()}-{_MACHINES.get(platform.machine().lower(), platform.machine())}"


if __name__ == "__main__":
    print(*command(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_DIR))

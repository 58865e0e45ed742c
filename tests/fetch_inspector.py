"""Fetch the MCP inspector, the reference client for checking servers, with npm.

    python tests/fetch_inspector.py [DIR]        (default: .cache/inspector in the project)

The inspector wants a newer Node.js than many machines have; where it is older, one comes from the same registry, as a
package with nothing but the binary. No script of any package is run.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEFAULT_DIR = Path(__file__).resolve().parent.parent / ".cache" / "inspector"

INSPECTOR = "2.12.0"
NODE = "24.21.0"
OLDEST_NODE = (22, 19)

_LAUNCHER = Path("node_modules", "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class NoInspector(RuntimeError):
    """The inspector is not there and cannot be fetched; `npm_missing` says whether for want of npm."""

    def __init__(self, message: str, *, npm_missing: bool = False) -> None:
        super().__init__(message)
        self.npm_missing = npm_missing


def command(directory: Path = DEFAULT_DIR) -> list[str]:
    """What starts the inspector, fetched if it is not there. Raises `NoInspector`."""
    launcher = directory / _LAUNCHER
    own_node = directory / "node_modules" / _node_package() / "bin" / "node"
    node = _node()
    if not (launcher.is_file() and (node or own_node.is_file())):
        _fetch(directory, [] if node else [f"{_node_package()}@{NODE}"])
    return [node or str(own_node), str(launcher), "--cli"]


def _fetch(directory: Path, more: list[str]) -> None:
    """Install into a directory of its own and put that in place; others may do the same at the same time."""
    npm = shutil.which("npm")
    if npm is None:
        raise NoInspector("npm is not installed", npm_missing=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inspector.", dir=directory.parent) as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        (tree / "package.json").write_text(json.dumps({"private": True}))
        packages = [f"@modelcontextprotocol/inspector@{INSPECTOR}", *more]
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *packages]
        try:
            subprocess.run(install, cwd=tree, check=True, capture_output=True, text=True, timeout=600)
        except subprocess.CalledProcessError as error:
            raise NoInspector(f"npm could not install {', '.join(packages)}: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise NoInspector(f"npm did not install {', '.join(packages)} in ten minutes") from error
        if directory.is_dir():  # an older one, or another Node.js
            directory.rename(Path(scratch, "old"))
        tree.rename(directory)


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

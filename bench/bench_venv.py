"""A virtual environment for the benchmarks alone, with the caches of others in it.

It lies in .cache/bench-venv and has what requirements/core.lock says, at those versions, and each peer at the version
written here. The project itself is imported from its source. Nothing of it is a dependency of the project. What needs
nothing of the project has an environment of its own beside it (`python_with`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "bench-venv"

#: Peer -> what pip is given, one call for each. GPTCache's Redis store needs the redis-om of its day, whose own
#: demands (an old redis-py) its code does not have.
PEERS = {
    "langchain-redis": [["langchain-redis==0.2.6", "langchain-core==1.7.2"]],
    "redisvl": [["redisvl==0.28.0"]],
    "GPTCache": [
        ["gptcache==0.1.44", "faiss-cpu==1.15.1", "numpy==2.4.6", "more-itertools==11.2.1", "setuptools==84.2.1"],
        ["--no-deps", "redis-om==0.2.2"],
    ],
}


def run_inside(script: str, arguments: list[str]) -> int:
    """Run a benchmark with the environment's own Python, peers installed as far as they can be; its exit code."""
    missing = _install()
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "bench")])
    environ = os.environ | {"PYTHONPATH": path, "AFW_BENCH_INSIDE": "1", "AFW_BENCH_MISSING": ",".join(missing)}
    return subprocess.run([FOLDER / "bin/python", script, *arguments], env=environ, check=False).returncode


def python_with(name: str, requirements: list[str]) -> Path | None:
    """The Python of an environment with these requirements alone; None where they cannot be installed."""
    folder = FOLDER.parent / f"{name}-venv"
    python, stamp = folder / "bin/python", folder / "installed"
    wanted = " ".join((sys.version, *requirements))
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"making {folder.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "--disable-pip-version-check", "-qq", "install", *requirements]
        if subprocess.run(install, check=False).returncode:
            return None
        stamp.write_text(wanted)
    return python


def inside() -> bool:
    """Whether this process runs in the environment already."""
    return os.environ.get("AFW_BENCH_INSIDE") == "1"


def not_installed() -> list[str]:
    """The peers that pip could not install."""
    return [name for name in os.environ.get("AFW_BENCH_MISSING", "").split(",") if name]


def _install() -> list[str]:
    lock = ROOT / "requirements" / "core.lock"
    wanted = hashlib.sha256(f"{sys.version}{lock.read_text()}{PEERS}".encode()).hexdigest()
    stamp = FOLDER / "installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return []
    print(f"making {FOLDER.relative_to(ROOT)}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
    pip = [FOLDER / "bin/python", "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True)
    pinned = FOLDER / "constraints.txt"
    lines = (line for line in lock.read_text().splitlines() if "==" in line and not line.startswith((" ", "#")))
    pinned.write_text("".join(line.removesuffix(" \\") + "\n" for line in lines))
    missing = [
        name
        for name, calls in PEERS.items()
        if any(subprocess.run([*pip, "-c", pinned, *call], check=False).returncode for call in calls)
    ]
    if not missing:
        stamp.write_text(wanted)
    return missing

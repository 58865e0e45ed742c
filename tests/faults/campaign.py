"""Askers under load, and what is needed to strike while they ask: a server that keeps its data, and a seed.

Nothing waits for the clock: strikes fall after so many more turns, drawn from the seed, and every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest
import redis

from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.binaries import bundled_binary
from agentic_flywheel.store.embedded import EmbeddedServer
from agentic_flywheel.store.outbox import OutboxStatus
from agentic_flywheel.store.store import Store
from asker import TENANT, Orders
from audit import Findings, audit, read_ledgers
from servers import Server, wait_until

#: The longest that any one thing may take here before it counts as hanging, on a slow machine.
DEADLINE_SECONDS = 60.0
#: Multiplies the strikes of every campaign (`AFW_FAULTS_ROUNDS`), or the campaigns.
ROUNDS = int(os.environ.get("AFW_FAULTS_ROUNDS", "1"))


class DurableServer(Server):
    """A private server with an append-only file, killed and started again on the same data."""

    def __init__(self, fsync: str = "always") -> None:
        binary = bundled_binary()
        assert binary is not None
        options = ["--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction"]
        super().__init__("durable", [str(binary)], dict(os.environ), options=options)


class Askers:
    """Processes that ask until they are told to stop; what they say is counted."""

    def __init__(self, folder: Path, seed: int, settings: dict[str, Any], **orders: Any) -> None:
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        registry = folder / "flows.yaml"
        registry.write_text("flows: {}\n", "utf-8")
        own = {
            "registry": str(registry),
            "data_dir": str(folder / "data"),
            # A busy machine is no outage: what is to be seen here is what the faults do.
            "redis.command_timeout_seconds": 0.25,
            "ttl.refresh_after": 1.0,
        }
        self._settings = own | settings
        self._folder = folder
        self._seed = seed
        self._orders = orders
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self._heard: Counter[str] = Counter()
        self._listening: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        for thread in self._listening:
            thread.join(DEADLINE_SECONDS)

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def heard(self, marks: str = "ron") -> int:
        """How many turns ended so: `r` acknowledged by Redis, `o` kept in the outbox, `n` not kept."""
        return sum(self._heard[mark] for mark in marks)

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            self._started += 1
            name = f"a{self._started}"
            orders = Orders(
                name=name,
                seed=self._seed * 1000 + self._started,
                folder=str(self._folder),
                ledger=str(self.ledger),
                settings=self._settings,
                **self._orders,
            )
            with (self._folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-W", "error", Path(__file__).with_name("asker.py"), msgspec.json.encode(orders)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
            self._running[name] = process
            thread = threading.Thread(target=self._listen, args=(process,), name=name)
            thread.start()
            self._listening.append(thread)

    def await_turns(self, count: int, marks: str = "ron") -> None:
        """Wait until `count` more turns ended so."""
        wanted = self.heard(marks) + count

        def came() -> bool:
            self._check()
            return self.heard(marks) >= wanted

        wait_until(came, f"{count} more turns ({marks}); so far {dict(self._heard)}", DEADLINE_SECONDS)

    def kill(self, name: str) -> None:
        """As the kernel does when memory is short."""
        process = self._running.pop(name)
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def stop(self) -> None:
        """Let everybody finish the question that is being asked, and close in order."""
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
        for name, process in list(self._running.items()):
            process.wait(DEADLINE_SECONDS)
            if process.returncode:
                self._fail(name)
            del self._running[name]
        for thread in self._listening:
            thread.join(DEADLINE_SECONDS)

    def log(self) -> str:
        """The last words of all askers."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self._folder.glob("a*.log")))

    def _check(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                self._fail(name)

    def _fail(self, name: str) -> None:
        pytest.fail(f"asker {name} ended with {self._running[name].returncode}: {self.log()}")

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            while mark := said.read(1):
                self._heard[mark.decode()] += 1


class EmbeddedData:
    """The embedded server of a data directory, which the askers start themselves."""

    def __init__(self, folder: Path) -> None:
        settings = load_settings({"data_dir": str(folder / "data")}, environ={}, directory=folder)
        self._server = EmbeddedServer(settings)

    @property
    def pid(self) -> int:
        """Of the server that answers now, which may have to be awaited."""
        return wait_until(self._server.status_now, "the embedded server to answer", DEADLINE_SECONDS).pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._server.socket), socket_timeout=10)

    def close(self) -> None:
        """Stop it, and wait until its watcher is gone too."""
        self._server.stop_now()
        with (self._server.path / "watcher.lock").open("ab") as watcher:
            fcntl.flock(watcher, fcntl.LOCK_EX)


def settle(folder: Path, settings: dict[str, Any]) -> OutboxStatus:
    """Deliver what waits in the outbox, as the next process would; how the outbox then is."""
    patient = {"redis.connect_timeout_seconds": 20.0, "redis.command_timeout_seconds": 20.0}
    named = {"data_dir": str(folder / "data"), "tenant": TENANT, **patient, **settings}

    async def deliver() -> OutboxStatus:
        store = Store(load_settings(named, environ={"AFW_CONFIG_DIR": str(folder)}, directory=folder))
        try:
            await store.outbox.deliver()
            return await store.outbox.status()
        finally:
            await store.aclose()

    return asyncio.run(deliver())


def verdict(askers: Askers, folder: Path, settings: dict[str, Any], client: redis.Redis, **audited: Any) -> Findings:
    """Stop everybody, let the outbox be delivered, and fail where anything that was promised does not hold."""
    askers.stop()
    outbox = settle(folder, settings)
    findings = audit(client, read_ledgers(askers.ledger), **audited)
    print(findings.counts, outbox)
    assert not findings.faults(), findings.faults()
    assert (outbox.waiting, outbox.rejected, outbox.unreadable) == (0, 0, ())
    return findings

"""Several real servers that belong together: a Redis Cluster of six, and a primary with replicas under sentinels.

All of them listen on random ports of 127.0.0.1, keep nothing on disk, and end with whoever started them. Time-outs
of the cluster and the sentinels are short, so that a failover takes a second or two.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from servers import free_port, wait_until

#: After so long without a word a server of the cluster counts as gone.
NODE_TIMEOUT_MS = 1000
SERVICE = "memory"


class Member:
    """One server process on a port of 127.0.0.1."""

    def __init__(self, directory: Path, port: int, *options: str, sentinel: bool = False) -> None:
        self.port = port
        self.directory = directory
        directory.mkdir()
        binary = shutil.which("redis-server")
        if binary is None:
            if os.environ.get("CI") == "true":
                pytest.fail("redis-server is not on this machine")
            pytest.skip("redis-server is not on this machine")
        configuration = directory / "server.conf"
        own = ["port", str(port), "bind", "127.0.0.1", "dir", str(directory)]
        lines = [f"{name} {value}" for name, value in zip(own[::2], own[1::2], strict=True)]
        configuration.write_text("\n".join([*lines, *options, ""]))
        self._command = [binary, str(configuration), *(["--sentinel"] if sentinel else [])]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self.answers, f"port {self.port} to answer")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "server.log").read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis("127.0.0.1", self.port, retry=Retry(NoBackoff(), 0), socket_timeout=10)

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def role(self) -> str:
        """What it says that it is: master or slave; "" while it does not say."""
        try:
            return str(self.ask("INFO", "replication")["role"])
        except redis.ConnectionError:
            return ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash."""
        if self.process is not None:
            if self.running:
                self.process.kill()
            self.process.wait(20)
            self.process = None


class ClusterOfSix:
    """Three primaries with a replica each."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="afw-cluster-"))
        self.members: list[Member] = []
        options = ("cluster-enabled yes", f"cluster-node-timeout {NODE_TIMEOUT_MS}", 'save ""', "appendonly no")
        options += ("cluster-replica-validity-factor 0", "repl-diskless-sync-delay 0")
        try:
            for number in range(6):
                bus = f"cluster-port {free_port()}"
                self.members.append(Member(self.directory / f"server-{number}", free_port(), *options, bus))
                self.members[-1].start()
            self._join()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members[:2])

    def _join(self) -> None:
        first, *others = self.members
        bus = int(first.ask("CONFIG GET", "cluster-port")["cluster-port"])
        for number, member in enumerate(self.members):
            member.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for number, member in enumerate(self.members[:3]):
            member.ask("CLUSTER ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
        for member in others:
            member.ask("CLUSTER MEET", "127.0.0.1", first.port, bus)
        for member in self.members:
            wait_until(lambda m=member: m.ask("CLUSTER INFO")["cluster_known_nodes"] == "6", "all to know each other")
        ids = [member.ask("CLUSTER MYID").decode() for member in self.members]
        for number, member in enumerate(self.members[3:]):
            known = lambda m=member, i=ids[number]: any(n["node_id"] == i for n in m.ask("CLUSTER NODES").values())  # noqa: E731
            wait_until(known, "the replica to know its primary")
            member.ask("CLUSTER REPLICATE", ids[number])
        self.settle()

    def settle(self) -> None:
        """Wait until every member that runs sees all slots served, and each primary has a replica in step."""
        running = [member for member in self.members if member.running]
        for member in running:
            wait_until(lambda m=member: m.ask("CLUSTER INFO")["cluster_state"] == "ok", "the cluster to be well")
        for member in running:
            info = lambda m=member: m.ask("INFO", "replication")  # noqa: E731
            wait_until(
                lambda i=info: i()["role"] == "master" or i()["master_link_status"] == "up", "a replica to be in step"
            )

    def primaries(self) -> list[Member]:
        return [member for member in self.members if member.running and member.role == "master"]

    def primary_of(self, key: str, *, but: Member | None = None) -> Member | None:
        """The running primary that has a key's slot, as it says itself; `but` not this one."""
        from agentic_flywheel.store.cluster import slot_of

        slot = slot_of(key)
        return next((m for m in self.primaries() if m is not but and _has(m, slot)), None)

    def heal(self) -> None:
        """Start what was killed, let it join as a replica, and empty everything."""
        for member in self.members:
            if not member.running:
                member.start()
        self.settle()
        wait_until(lambda: len(self.primaries()) == 3, "three primaries")
        wait_until(
            lambda: all(m.ask("INFO", "replication")["connected_slaves"] == 1 for m in self.primaries()),
            "a replica of each primary",
        )
        for member in self.primaries():
            member.ask("FLUSHALL")

    def close(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self.directory)


def _has(member: Member, slot: int) -> bool:
    for (first, last), served in _ranges(member):
        if first <= slot <= last:
            return served == member.port
    return False


def _ranges(member: Member) -> Iterator[tuple[tuple[int, int], int]]:
    for first, last, primary, *_ in _raw(member, "CLUSTER SLOTS"):
        yield (int(first), int(last)), int(primary[1])


def _raw(member: Member, *command: str) -> Any:
    with member.client() as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


class Sentinels:
    """A primary with two replicas, watched by three sentinels."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="afw-sentinels-"))
        self.members: list[Member] = []
        self.sentinels: list[Member] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        quick = ('save ""', "appendonly no", "repl-diskless-sync-delay 0")
        for number in range(3):
            replica = [f"replicaof 127.0.0.1 {self.members[0].port}"] if number else []
            self.members.append(Member(self.directory / f"server-{number}", free_port(), *quick, *replica))
            self.members[-1].start()
        watched = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.members[0].port} 2",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 3000",
        )
        for number in range(3):
            self.sentinels.append(Member(self.directory / f"sentinel-{number}", free_port(), *watched, sentinel=True))
            self.sentinels[-1].start()
        for sentinel in self.sentinels:
            wait_until(lambda s=sentinel: self._complete(s), "sentinels to know all others")

    def _complete(self, sentinel: Member) -> bool:
        state = sentinel.ask("SENTINEL MASTER", SERVICE)
        return state["num-other-sentinels"] == 2 and state["num-slaves"] == 2

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}"

    @property
    def primary(self) -> Member | None:
        """The server that says that it is the primary."""
        running = [member for member in self.members if member.running]
        return next((m for m in running if m.role == "master"), None)

    def close(self) -> None:
        for member in [*self.sentinels, *self.members]:
            member.kill()
        shutil.rmtree(self.directory)

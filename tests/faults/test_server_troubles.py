"""The server is there and does not serve: full, read-only, locked, hanging, robbed of its data."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from audit import read_ledgers
from campaign import ROUNDS, Askers, DurableServer, verdict
from servers import free_port, wait_until

TIMES = 3
HANG_SECONDS = 2.0
PASSWORD = "correct horse"

Trouble = Callable[[DurableServer], AbstractContextManager[None]]


@contextmanager
def full(server: DurableServer) -> Iterator[None]:
    """OOM: no room, and nothing may be evicted."""
    with server.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def read_only(server: DurableServer) -> Iterator[None]:
    """READONLY: somebody made it a replica."""
    with server.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def locked(server: DurableServer) -> Iterator[None]:
    """NOAUTH: a password was set while everybody was connected."""
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield
        client.config_set("requirepass", "")


@contextmanager
def hanging(server: DurableServer) -> Iterator[None]:
    """Neither an answer nor an end of the connection, for two seconds at least."""
    since = time.monotonic()
    server.pause()
    yield
    wait_until(lambda: time.monotonic() - since > HANG_SECONDS, "two seconds to pass")
    server.resume()


@pytest.mark.parametrize("trouble", [full, read_only, locked, hanging])
def test_turns_wait_until_it_is_over(durable: DurableServer, folder: Path, seed: int, trouble: Trouble) -> None:
    draw, settings = random.Random(seed), {"redis_url": durable.url}
    with Askers(folder, seed, settings) as askers:
        askers.start(2)
        for _ in range(TIMES * ROUNDS):
            askers.await_turns(draw.randint(1, 40), "r")
            with trouble(durable):
                askers.await_turns(draw.randint(10, 40), "o")
        askers.await_turns(30, "r")
        counts = verdict(askers, folder, settings, durable.client()).counts
        assert counts["acknowledged"] == counts["turns"]


def test_a_server_without_its_data_is_a_new_beginning(durable: DurableServer, folder: Path, seed: int) -> None:
    """What it had is gone with its disk; everything since is there, and nothing is mistaken for anything."""
    draw, settings = random.Random(seed), {"redis_url": durable.url}
    with Askers(folder, seed, settings) as askers:
        askers.start(2)
        robbed = 0.0
        for _ in range(TIMES * ROUNDS):
            askers.await_turns(draw.randint(30, 60), "r")
            shutil.rmtree(durable.directory / "appendonlydir")
            askers.await_turns(draw.randint(1, 20))
            durable.kill()
            robbed = time.monotonic()
            durable.start()
        askers.await_turns(60, "r")
        gone = [one for one in read_ledgers(askers.ledger) if one.ended < robbed]
        findings = verdict(askers, folder, settings, durable.client(), may_lose=gone)
        assert findings.excused
        assert findings.counts["acknowledged"] == findings.counts["turns"]

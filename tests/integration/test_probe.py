"""The probe says what a server is, also where it may hardly ask; the judgement follows the promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel.errors import StoreUnavailable
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.address import Address
from agentic_flywheel.store.link import Link
from agentic_flywheel.store.probe import Capabilities, examine, probe
from servers import Server, free_port

pytestmark = pytest.mark.anyio

HERE = Address("redis://localhost", "test")
FINE = Capabilities(
    family="redis",
    version="7.0.15",
    cluster=False,
    search=False,
    role="master",
    max_memory_bytes=10**8,
    eviction_policy="volatile-lru",
    append_only=True,
    snapshots=False,
)


async def probed(url: str) -> Capabilities:
    link = Link(load_settings({"redis_url": url}, environ={}, directory=Path("/")))
    try:
        return await probe(link)
    finally:
        await link.aclose()


async def test_every_server_is_known(redis_server: Server) -> None:
    found = await probed(redis_server.url)
    family, version, search = {
        "valkey9": ("valkey", "9.", False),
        "redis7": ("redis", "7.", False),
        "stack74": ("redis", "7.4.", True),
        "redis62": ("redis", "6.2.", False),
    }[redis_server.name]
    assert found.family == family
    assert found.version.startswith(version)
    assert found.search is search
    assert (found.cluster, found.role, found.append_only, found.snapshots) == (False, "master", False, False)
    assert (found.max_memory_bytes, found.eviction_policy) == (0, "noeviction")
    assert found.notes == ()
    assert {check.name: check.state for check in examine(found, HERE)} == {
        "version": "ok",
        "role": "ok",
        "eviction": "ok",
        "persistence": "warn",
        "search": "ok",
    }


async def test_forbidden_questions_become_notes(redis_server: Server) -> None:
    plain = redis_server.client()
    plain.execute_command("ACL", "SETUSER", "guest", "on", ">guest", "~*", "+@all", "-info", "-config")
    try:
        found = await probed(f"unix://guest:guest@{redis_server.socket}")
    finally:
        plain.execute_command("ACL", "DELUSER", "guest")
        plain.close()
    assert (found.family, found.version, found.role, found.append_only, found.snapshots) == ("unknown", "", *[None] * 3)
    assert [note.partition(" is not")[0] for note in found.notes] == ["INFO", "CONFIG GET save"]
    checks = examine(found, HERE)
    assert {check.state for check in checks if check.name != "search"} == {"warn"}


async def test_unreachable_server_is_no_note() -> None:
    with pytest.raises(StoreUnavailable):
        await probed(f"redis://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({}, "eviction", "ok"),
        ({"eviction_policy": "volatile-ttl"}, "eviction", "ok"),
        ({"eviction_policy": "allkeys-lru"}, "eviction", "warn"),
        ({"eviction_policy": "noeviction"}, "eviction", "warn"),
        ({"eviction_policy": "noeviction", "max_memory_bytes": 0}, "eviction", "ok"),
        ({"eviction_policy": None}, "eviction", "warn"),
        ({"version": "6.0.16"}, "version", "fail"),
        ({"version": "6.2.0"}, "version", "ok"),
        ({"version": "10.0.0"}, "version", "ok"),
        ({"family": "valkey", "version": "7.2.5"}, "version", "ok"),
        ({"version": ""}, "version", "warn"),
        ({"role": "slave"}, "role", "fail"),
        ({"role": None}, "role", "warn"),
        ({"append_only": False}, "persistence", "warn"),
        ({"append_only": False, "snapshots": True}, "persistence", "warn"),
        ({"append_only": None, "snapshots": None}, "persistence", "warn"),
        ({}, "persistence", "ok"),
        ({"cluster": True}, "cluster", "fail"),
        ({"search": True}, "search", "ok"),
    ],
)
def test_judgement(changes: dict[str, Any], name: str, state: str) -> None:
    checks = {check.name: check for check in examine(msgspec.structs.replace(FINE, **changes), HERE)}
    assert checks[name].state == state
    assert checks[name].message


@pytest.mark.parametrize(
    ("url", "warned"), [("redis://example.org", True), ("rediss://example.org", False), ("redis://127.0.0.1", False)]
)
def test_open_network_is_warned_of(url: str, warned: bool) -> None:
    assert ("encryption" in {check.name for check in examine(FINE, Address(url, "test"))}) is warned


def test_a_fine_server_has_nothing_to_advise() -> None:
    assert {(check.state, check.advice) for check in examine(FINE, HERE)} == {("ok", "")}

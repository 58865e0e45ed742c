"""Flywheels on test servers, with flows that answer in this process and say what they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Flywheel
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.settings import Settings, load_settings
from agentic_flywheel.settings_table import SETTINGS
from servers import Server


class Oracle:
    """A flow that numbers its answers and keeps what it was asked."""

    def __init__(self, name: str = "oracle") -> None:
        self.name = name
        self.asked: list[FlowQuestion] = []

    def __call__(self, question: FlowQuestion) -> str:
        self.asked.append(question)
        return f"{self.name} {len(self.asked)}: {question.text}"

    @property
    def calls(self) -> int:
        return len(self.asked)


def settings_for(server: Server | str, folder: Path, **arguments: Any) -> Settings:
    """Settings of a flywheel on a server, patient, that sees nothing of the machine's own configuration.

    Names are written with `_` for the dot, as for `Flywheel.open`; `environ_X` sets a variable of the environment.
    """
    registry = folder / "flows.yaml"
    if not registry.exists():
        registry.write_text("flows: {}\n", "utf-8")
    named: dict[str, Any] = {
        "redis_url": server if isinstance(server, str) else server.url,
        "registry": str(registry),
        "data_dir": str(folder / "data"),
        "redis.command_timeout_seconds": 20.0,
        "redis.connect_timeout_seconds": 20.0,
        "embedder.model": "off",  # whoever tests similar questions says so
        "similar.patience_seconds": 20.0,
    }
    # Nothing is kept past its lifetime or refreshed behind the back of a test that does not ask for it.
    quiet = {"ttl.stale_seconds": 0, "ttl.refresh_after": 1.0}
    named |= {name: value for name, value in quiet.items() if name in {setting.name for setting in SETTINGS}}
    sections = {setting.name.partition(".")[0] for setting in SETTINGS if "." in setting.name}
    environ = {"AFW_CONFIG_DIR": str(folder)}
    for name, value in arguments.items():
        if name.startswith("environ_"):
            environ[name.removeprefix("environ_")] = value
            continue
        section, _, rest = name.partition("_")
        named[f"{section}.{rest}" if section in sections and name != "redis_url" else name] = value
    return load_settings(named, environ=environ, directory=folder)


@asynccontextmanager
async def opened(
    server: Server | str,
    folder: Path,
    flows: Mapping[str, Any] | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> AsyncIterator[Flywheel]:
    """A flywheel with flows of this process: by key, a callable, or a callable with fields of `FlowSpec`.

    `given` is what `Flywheel.open` is given besides settings: embedder, comparer, draw.
    """
    settings = settings_for(server, folder, **arguments)
    registry = Registry(settings)
    for key, flow in (flows or {}).items():
        answer, fields = flow if isinstance(flow, tuple) else (flow, {})
        registry.register(key, answer, **fields)
    async with Flywheel.open(settings=settings, registry=registry, **given or {}) as flywheel:
        yield flywheel


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition without blocking the loop."""
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"waited 20 s for {what}")
        await asyncio.sleep(0.002)


def everything(server: Server) -> dict[bytes, object]:
    """Every key of the server with its value and whether it expires, for comparing before and after."""
    found: dict[bytes, object] = {}
    with server.client() as client:
        for key in client.scan_iter(count=1000):
            found[key] = (_held(client, key), client.pttl(key) < 0)
    return found


def _held(client: Any, key: bytes) -> object:
    """A value, so that equal ones are equal: DUMP tells the order in which a hash or a set happens to lie in memory.

    That changes while nothing is written: longer values, sealed ones among them, lie in a table that grows.
    """
    match client.type(key):
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
    return client.dump(key)


def text_anywhere(server: Server, text: str) -> list[bytes]:
    """The keys that hold a text, in their name or in any value, compressed or not."""
    from agentic_flywheel.curated import FaqChange, FaqEntry
    from agentic_flywheel.errors import StoreDamaged
    from agentic_flywheel.model import Entry, Turn
    from agentic_flywheel.store.codec import decode

    def readings(raw: bytes) -> str:
        shown = raw.decode("utf-8", "replace")
        for kind in (Entry, Turn, FaqEntry, FaqChange):
            try:
                shown += repr(decode(raw, kind))
            except StoreDamaged:
                continue
        return shown

    holding = []
    with server.client() as client:
        for key in client.scan_iter(count=1000):
            match client.type(key):
                case b"string":
                    values = [client.get(key)]
                case b"hash":
                    values = [part for pair in client.hgetall(key).items() for part in pair]
                case b"stream":
                    values = [p for _, fields in client.xrange(key) for pair in fields.items() for p in pair]
                case b"list":
                    values = client.lrange(key, 0, -1)
                case b"set":
                    values = list(client.smembers(key))
                case _:
                    values = client.zrange(key, 0, -1)
            if any(text in readings(value) for value in [key, *values]):
                holding.append(key)
    return holding


def nothing_said() -> KnownPolicies:
    """Policies of a tenant that has none, for tests that ask no Redis."""
    from agentic_flywheel.store.keys import Keys
    from agentic_flywheel.store.privacy import PolicyStore

    nowhere: Any = None
    return KnownPolicies(PolicyStore(nowhere, Keys("t")), lambda: None, withholds=False)

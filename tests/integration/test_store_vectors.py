"""Vectors of stored questions: what came in is learnt by everybody once, whatever happened to the log in between."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest

from agentic_flywheel.store.keys import shard_of
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

E = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
P = "0" * 31 + "1"
DIMENSION = 8


def vector(*values: float) -> bytes:
    return struct.pack(f"<{DIMENSION}e", *values, *(0.0,) * (DIMENSION - len(values)))


def key_of(store: Store, number: int) -> str:
    return store.keys.entry("team", "f", f"{number:032x}")


def of_shard(store: Store, shard: int, count: int) -> list[str]:
    """Keys of entries that are told of in one shard of the log."""
    keys = (key_of(store, number) for number in range(100_000))
    return [key for key, _ in zip((k for k in keys if shard_of(k) == shard), range(count), strict=False)]


async def put(store: Store, key: str, value: bytes = vector(1), **named: Any) -> None:
    how: dict[str, Any] = {"seconds": 1000.0, "now": time.time(), "embedder": E, "partition": P, **named}
    await store.vectors.put(how.pop("embedder"), how.pop("partition"), key, value, **how)


async def test_news_come_once_and_with_all_that_was_kept(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert (await store.vectors.news(E, P, ())).items == ()
        keys = [key_of(store, number) for number in range(40)]
        for number, key in enumerate(keys):
            await put(store, key, vector(number), now=1_700_000_000.25)
        first = await store.vectors.news(E, P, ())
        assert {item.key: item.vector for item in first.items} == {key: vector(n) for n, key in enumerate(keys)}
        assert {item.expires_at for item in first.items} == {1_700_001_000.25}
        assert (await store.vectors.news(E, P, first.places)).items == ()
        await put(store, key_of(store, 99))
        second = await store.vectors.news(E, P, first.places)
        assert [item.key for item in second.items] == [key_of(store, 99)]

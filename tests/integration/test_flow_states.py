"""What all processes know of a flow: changes are noticed once, written down, and make older answers unreachable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import FlowChange, FlowState
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio


async def observe(store: Store, fingerprint: str, *, now: float = 1.0, **fields: Any) -> int:
    whole: dict[str, Any] = {"revision": "r", "etag": "e", "checked_at": now}
    return await store.flows.observe("f", fingerprint=fingerprint, now=now, **{**whole, **fields})


async def test_nothing_is_known_of_a_flow_that_was_never_asked(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.flows.state("f") == FlowState()
        assert await store.flows.changes("f") == []
        assert await store.flows.known() == []


async def test_a_change_raises_the_generation_and_is_written_down(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await observe(store, "a", now=1.25) == 1
        assert await observe(store, "a", now=2.0) == 1
        assert await observe(store, "b", now=1732300000.123, revision="r2", etag="e2") == 2
        assert await store.flows.state("f") == FlowState(
            fingerprint="b",
            generation=2,
            changed_at=1732300000.123,
            revision="r2",
            etag="e2",
            checked_at=1732300000.123,
        )
        newest, oldest = await store.flows.changes("f")
        assert oldest == FlowChange(old="", new="a", at=1.25, generation=1)
        assert (newest.old, newest.new, newest.generation) == ("a", "b", 2)
        assert newest.at == pytest.approx(1732300000.123, abs=0.01)
        assert await store.flows.known() == ["f"]


async def test_going_back_is_a_change_too(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert [await observe(store, fingerprint) for fingerprint in ("a", "b", "a")] == [1, 2, 3]


async def test_clearing_raises_the_generation_alone(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await observe(store, "a")
        before = await store.flows.state("f")
        assert await store.flows.clear("f") == 2
        after = await store.flows.state("f")
        assert (after.generation, after.fingerprint) == (2, before.fingerprint)
        assert await observe(store, "a") == 2


async def test_many_observers_notice_one_change_once(redis_server: Server) -> None:
    async with stored(redis_server) as one, stored(redis_server) as other:
        for expected, fingerprint in enumerate(("a", "b", "c"), 1):
            seen = await asyncio.gather(*(observe(store, fingerprint) for _ in range(50) for store in (one, other)))
            assert set(seen) == {expected}
        assert [(c.old, c.new) for c in await one.flows.changes("f")] == [("b", "c"), ("a", "b"), ("", "a")]


async def test_the_list_of_changes_is_bounded(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(120):
            await observe(store, f"p{number}")
        changes = await store.flows.changes("f")
        assert [c.new for c in changes] == [f"p{n}" for n in range(119, 19, -1)]
        assert (await store.flows.state("f")).generation == 120


async def test_lifetimes_that_were_set_and_taken_back(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.flows.set_ttl("f", 1.5)
        await store.flows.set_type_ttl("technical", 3600.0)
        assert (await store.flows.state("f")).ttl_seconds == 1.5
        assert await store.flows.type_ttls() == {"technical": 3600.0}
        await observe(store, "a")
        assert (await store.flows.state("f")).ttl_seconds == 1.5
        await store.flows.set_ttl("f", None)
        await store.flows.set_type_ttl("technical", None)
        assert (await store.flows.state("f")).ttl_seconds is None
        assert await store.flows.type_ttls() == {}


async def test_odd_fingerprints_and_names(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        name = 'a:{b} "é"\n'
        await store.flows.observe(name, fingerprint='"\\é', revision="", etag='W/"x"', checked_at=1.0, now=1.0)
        (change,) = await store.flows.changes(name)
        assert change.new == '"\\é'
        assert (await store.flows.state(name)).etag == 'W/"x"'
        assert await store.flows.known() == [name]


@pytest.mark.parametrize("field", ["generation", "changed_at", "checked_at", "ttl_seconds"])
async def test_a_state_that_somebody_else_wrote_is_damage(redis_server: Server, field: str) -> None:
    async with stored(redis_server) as store:
        await observe(store, "a")
        with redis_server.client() as client:
            client.hset(store.keys.flow("f"), field, "soon")
        with pytest.raises(StoreDamaged):
            await store.flows.state("f")


async def test_a_lifetime_that_somebody_else_wrote_is_damage(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        with redis_server.client() as client:
            client.hset(store.keys.lifetimes, "technical", "a week")
        with pytest.raises(StoreDamaged):
            await store.flows.type_ttls()
        await store.flows.set_type_ttl("technical", 5.0)
        assert await store.flows.type_ttls() == {"technical": 5.0}

"""Stored answers in Redis: always with a lifetime, cleared in O(1), and nothing foreign is taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from agentic_flywheel.model import Entry
from agentic_flywheel.policy.identity import question_hash
from agentic_flywheel.store.codec import encode
from agentic_flywheel.store.keys import shard_of
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.0


def entry(number: int = 0, **fields: Any) -> Entry:
    whole: dict[str, Any] = {
        "question": f"q{number}",
        "identity": "",
        "answer": f"answer {number} é🎉",
        "flow": "f",
        "flow_id": "f",
        "flow_name": "F",
        "fingerprint": "p",
        "generation": 1,
        "created_at": NOW,
        "ttl_seconds": 1000.0 + number,
        "trace_id": "t",
        "turn_id": "t",
    }
    return Entry(**{**whole, **fields})


def key_of(store: Store, number: int = 0, flow: str = "f") -> str:
    return store.keys.entry("team", flow, question_hash(f"q{number}"))


async def put(store: Store, number: int = 0, **fields: Any) -> str:
    value = entry(number, **fields)
    key = key_of(store, number, value.flow)
    await store.entries.put(key, value)
    return key


async def test_an_entry_comes_back_with_what_is_left_of_its_life(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        key = await put(store)
        looked, left = await store.entries.get(key)
        assert looked.entry == entry()
        assert not looked.damaged
        assert left is not None
        assert 990 < left <= 1000
        assert looked.size_bytes == len(encode(entry()))
        looked, left = await store.entries.get(key_of(store, 1))
        assert (looked.entry, looked.damaged, left) == (None, False, None)


async def test_value_and_lifetime_are_one_command(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        (_index, set_) = store.entries.put_commands(key_of(store), entry(ttl_seconds=1.5))
        assert (set_[0], *set_[3:]) == ("SET", "PX", 1500)
        # Even the shortest life is one, and replacing a value replaces its lifetime.
        await put(store, ttl_seconds=5000.0)
        await put(store, ttl_seconds=0.0001)
        with redis_server.client() as client:
            assert client.pttl(key_of(store)) <= 1


async def test_a_hit_may_give_its_life_anew_but_never_take_it_away(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        key = await put(store, ttl_seconds=10.0)
        await store.link.run(*store.entries.renew_commands(key, entry(), seconds=500.0, now=NOW + 5))
        with redis_server.client() as client:
            assert 490_000 < client.pttl(key) <= 500_000
        assert await store.entries.count("f", now=NOW + 400) == 1
        gone = key_of(store, 1)
        await store.link.run(*store.entries.renew_commands(gone, entry(1), seconds=500.0, now=NOW))
        with redis_server.client() as client:
            assert not client.exists(gone)
        assert await store.entries.count("f", now=NOW) == 1


async def test_entries_are_listed_longest_lived_first_across_shards(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        keys = [await put(store, n) for n in range(40)]
        await put(store, 99, flow="g")
        assert await store.entries.count("f", now=NOW) == 40
        listed = [await store.entries.listed("f", now=NOW, offset=o, count=15) for o in (0, 15, 30, 45)]
        assert [key for page in listed for key in page] == list(reversed(keys))
        assert await store.entries.count("f", now=NOW + 1020.5) == 19
        assert await store.entries.listed("f", now=NOW + 1038.5, offset=0, count=9) == [keys[39]]


async def test_clearing_costs_one_command_however_much_is_stored(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.flows.observe("f", fingerprint="p", revision="", etag="", checked_at=NOW, now=NOW)
        for n in range(200):
            await put(store, n)
        with redis_server.client() as client:
            client.config_resetstat()
        generation = await store.flows.clear("f")
        with redis_server.client() as client:
            calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
        calls = {name: n for name, n in calls.items() if not name.startswith(("cmdstat_config", "cmdstat_info"))}
        connecting = {"cmdstat_hello", "cmdstat_client", "cmdstat_client|setinfo", "cmdstat_select"}
        assert {name: n for name, n in calls.items() if name not in connecting} == {"cmdstat_hincrby": 1}
        assert generation == 2


async def test_reclaiming_removes_older_generations_and_what_expired(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        old = [await put(store, n, generation=1) for n in range(1200)]
        new = [await put(store, n, generation=2) for n in range(2000, 2010)]
        with redis_server.client() as client:
            expired = [await put(store, n, generation=2, created_at=NOW - 5000) for n in range(3000, 3005)]
            assert await store.entries.reclaim("f", generation=2, now=NOW) == (1200, 5)
            assert client.exists(*old) == 0
            assert client.exists(*new) == 10
            # Their own lifetime ends these; reclaiming only forgets that they are listed.
            assert client.exists(*expired) == 5
        assert await store.entries.count("f", now=0.0) == 10
        assert await store.entries.reclaim("f", generation=2, now=NOW) == (0, 0)


@pytest.mark.parametrize("moment", range(1, 5))
async def test_reclaiming_spares_a_key_that_is_answered_meanwhile(valkey: Server, moment: int) -> None:
    """Between any two steps of it."""
    async with stored(valkey) as store, stored(valkey) as elsewhere:
        keys = [await put(store, number) for number in range(3)]
        run, steps = store.link.run, [0]

        async def answered_meanwhile(*commands: Any, **how: Any) -> Any:
            replies = await run(*commands, **how)
            shard = commands[0][3] if commands[0][0] == "EVALSHA" else commands[0][1]
            if keys[0] in shard or shard == store.keys.entries("f", shard_of(keys[0])):
                steps[0] += 1
                if steps[0] == moment:
                    await put(elsewhere, generation=2)
            return replies

        store.link.run = answered_meanwhile  # type: ignore[method-assign]
        await store.entries.reclaim("f", generation=2, now=NOW)
        assert steps[0] >= 3, "reclaiming has other steps now"
        found = [looked.entry.generation for looked in await elsewhere.entries.get_many(keys) if looked.entry]
        assert found == [2]


async def test_reclaiming_spares_a_key_that_was_answered_again(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for n in range(20):
            await put(store, n, generation=1)
        again = [await put(store, n, generation=2) for n in range(0, 20, 2)]
        assert await store.entries.reclaim("f", generation=2, now=NOW) == (10, 0)
        with redis_server.client() as client:
            assert client.exists(*again) == 10
        assert sorted(await store.entries.listed("f", now=NOW, offset=0, count=99)) == sorted(again)


@pytest.mark.parametrize("value", ["plain text", b"", b"\x01\x00" + bytes(50), b"\x02" + bytes(30), encode("text")])
async def test_foreign_values_are_damage_and_are_replaced(redis_server: Server, value: str | bytes) -> None:
    async with stored(redis_server) as store:
        key = key_of(store)
        with redis_server.client() as client:
            client.set(key, value, ex=100)
        looked, _ = await store.entries.get(key)
        assert (looked.entry, looked.damaged) == (None, True)
        await put(store)
        assert (await store.entries.get(key))[0].entry == entry()


@pytest.mark.parametrize("command", [("LPUSH", "x"), ("HSET", "a", "b"), ("SADD", "x"), ("ZADD", 1, "x")])
async def test_values_of_another_type_are_damage_and_are_replaced(redis_server: Server, command: Any) -> None:
    async with stored(redis_server) as store:
        key = key_of(store)
        with redis_server.client() as client:
            client.execute_command(command[0], key, *command[1:])
        looked, _ = await store.entries.get(key)
        assert (looked.entry, looked.damaged) == (None, True)
        other = await put(store, 1)
        assert [(v.entry is not None, v.damaged) for v in await store.entries.get_many([key, other])] == [
            (False, True),
            (True, False),
        ]
        await put(store)
        assert (await store.entries.get(key))[0].entry == entry()


async def test_deleting_counts_what_was_there(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        keys = [await put(store, n) for n in range(700)]
        assert await store.entries.delete([*keys, key_of(store, 9999)]) == 700
        assert await store.entries.delete(keys) == 0
        assert await store.entries.delete([]) == 0
        assert await store.entries.get_many([]) == []

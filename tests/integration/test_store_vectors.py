"""Vectors of stored questions: what came in is learnt by everybody once, whatever happened to the log in between."""

from __future__ import annotations

import asyncio
import math
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import StoreDamaged, StoreError, StoreMisused
from agentic_flywheel.likeness import Neighbour
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.store import Store
from servers import Server, Servers
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


def keys_of(store: Store, count: int) -> list[str]:
    return [key_of(store, number) for number in range(count)]


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


async def test_nothing_new_costs_one_round_trip(valkey: Server) -> None:
    async with stored(valkey) as store:
        for number in range(100):
            await put(store, key_of(store, number))
        known = await store.vectors.news(E, P, ())
        before = store.link.round_trips
        assert (await store.vectors.news(E, P, known.places)).items == ()
        assert store.link.round_trips == before + 1


async def test_partitions_embedders_and_tenants_share_nothing(redis_server: Server) -> None:
    async with stored(redis_server) as store, stored(redis_server, "other") as other:
        await put(store, key_of(store, 1))
        assert len((await store.vectors.news(E, P, ())).items) == 1
        assert (await store.vectors.news(OTHER, P, ())).items == ()
        assert (await store.vectors.news(E, "0" * 32, ())).items == ()
        assert (await other.vectors.news(E, P, ())).items == ()


async def test_the_latest_vector_of_a_question_wins(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        one, other = keys_of(store, 2)
        for number, key in enumerate((one, other, one)):
            await put(store, key, vector(number))
        found = await store.vectors.news(E, P, ())
        assert [(item.key, item.vector) for item in found.items] == [(other, vector(1)), (one, vector(2))]


async def test_a_question_that_was_told_of_twice_comes_where_it_was_told_of_last(valkey: Server) -> None:
    """Also where pages lie between."""
    async with stored(valkey) as store:
        keys = keys_of(store, 700)
        for key in (*keys, keys[0]):
            await put(store, key)
        found = await store.vectors.news(E, P, ())
        assert [item.key for item in found.items] == [*keys[1:], keys[0]]


async def test_more_than_a_page_comes_whole(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        keys = keys_of(store, 350)
        await put(store, keys[0])
        known = await store.vectors.news(E, P, ())
        await asyncio.gather(*(put(store, key) for key in keys[1:]))
        found = await store.vectors.news(E, P, known.places)
        assert sorted(item.key for item in found.items) == sorted(keys[1:])
        everything = await store.vectors.news(E, P, ())
        assert sorted(item.key for item in everything.items) == sorted(keys)
        assert everything.places == found.places


async def test_what_is_gone_is_left_out(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        keys = [key_of(store, number) for number in range(300)]
        await asyncio.gather(*(put(store, key) for key in keys))
        assert await store.vectors.remove(E, P, keys[:250]) == 250
        assert await store.vectors.remove(E, P, keys[:250]) == 0
        assert sorted(item.key for item in (await store.vectors.news(E, P, ())).items) == sorted(keys[250:])


async def test_entries_without_a_vector_are_named(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        one, other = keys_of(store, 2)
        await put(store, one)
        assert await store.vectors.lacking(E, [(P, one), (P, other), ("0" * 32, one)]) == [other, one]
        assert await store.vectors.lacking(OTHER, [(P, one)]) == [one]
        assert await store.vectors.lacking(E, []) == []


async def test_vectors_and_log_end_with_the_answers(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        one, other = keys_of(store, 2)
        await put(store, one, seconds=1000)
        await put(store, other, seconds=10)
        log = store.keys.vector_log(E, P)
        keys = (store.keys.vector(E, P, one), store.keys.vector(E, P, other), log)
        left = await store.link.run(*(("PTTL", key) for key in keys))
        assert 990_000 < left[0] <= 1_000_000
        assert 0 < left[1] <= 10_000
        assert 990_000 < left[2] <= 1_000_000, "the log lives as long as the longest"
        await put(store, other, seconds=2000)
        (left,) = await store.link.run(("PTTL", log))
        assert 1_990_000 < left <= 2_000_000


async def test_the_log_forgets_what_is_over(redis_server: Server) -> None:
    """Also where it forgets more than it gains, and none that lives on."""
    async with stored(redis_server) as store:
        keys = keys_of(store, 60)
        now = time.time()
        for key in keys[:40]:
            await put(store, key, now=now - 2000)  # over for a long time, by its own account
        for key in keys[40:45]:
            await put(store, key)
        log = store.keys.vector_log(E, P)
        (told,) = await store.link.run(("XRANGE", log, "-", "+"))
        assert len(told) <= 45 - 40 + 1
        for key in keys[45:]:
            await put(store, key, seconds=500)
        (told,) = await store.link.run(("XRANGE", log, "-", "+"))
        assert [fields[1].decode() for _, fields in told] == keys[40:]


@pytest.mark.parametrize("how", ["evicted", "flushed"])
async def test_a_log_that_was_lost_hides_nothing(redis_server: Server, how: str) -> None:
    async with stored(redis_server) as store:
        keys = keys_of(store, 20)
        for key in keys[:10]:
            await put(store, key)
        known = await store.vectors.news(E, P, ())
        await store.link.run(("UNLINK", store.keys.vector_log(E, P)) if how == "evicted" else ("FLUSHALL",))
        lost = await store.vectors.news(E, P, known.places)
        assert lost.items == ()
        for key in keys[10:]:
            await put(store, key)
        for after in (known.places, lost.places):
            found = await store.vectors.news(E, P, after)
            assert [item.key for item in found.items] == keys[10:]
            assert (await store.vectors.news(E, P, found.places)).items == ()


async def test_a_log_begun_anew_with_the_same_ids_hides_nothing(redis_server: Server) -> None:
    """As it happens within a millisecond."""
    async with stored(redis_server) as store:
        one, other = keys_of(store, 2)
        await put(store, one)
        await put(store, other)
        known = await store.vectors.news(E, P, ())
        id_, log = known.places[0].split()[0], store.keys.vector_log(E, P)
        anew = ("XADD", log, id_, "k", one, "x", repr(time.time() + 1000))
        await store.link.run(("UNLINK", log), anew, ("PEXPIRE", log, 1_000_000))
        assert [item.key for item in (await store.vectors.news(E, P, known.places)).items] == [one]


@pytest.mark.parametrize("behind", [True, False])
async def test_a_log_begun_anew_by_a_slow_clock_hides_nothing(redis_server: Server, behind: bool) -> None:
    """Another server took over, or its clock was set back: places of the log from before lie in the future."""
    async with stored(redis_server) as store:
        old, first, second = keys_of(store, 3)
        log = store.keys.vector_log(E, P)
        await put(store, old)
        known = await store.vectors.news(E, P, ())
        ahead = int(known.places[0].partition("-")[0])
        await store.link.run(("UNLINK", log))
        await put(store, first)
        await put(store, second)
        # The same entries with the ids that such a clock gives: both before the known place, or one on either side.
        later = ahead - 900 if behind else ahead + 900
        commands: list[Any] = [("UNLINK", log)]
        for place, key in ((ahead - 1000, first), (later, second)):
            commands.append(("XADD", log, f"{place}-0", "k", key, "x", repr(time.time() + 1000)))
        await store.link.run(*commands, ("PEXPIRE", log, 1_000_000))
        found = await store.vectors.news(E, P, known.places)
        assert [item.key for item in found.items] == [first, second]


async def test_a_place_that_was_trimmed_is_no_reason_to_read_anything_twice(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        keys = keys_of(store, 8)
        for key in keys[:4]:
            await put(store, key, now=time.time() - 2000)
        known = await store.vectors.news(E, P, ())
        for key in keys[4:]:
            await put(store, key)
        (told,) = await store.link.run(("XRANGE", store.keys.vector_log(E, P), "-", "+"))
        assert known.places[0].split()[0].encode() not in [place for place, _ in told]
        found = await store.vectors.news(E, P, known.places)
        assert [item.key for item in found.items] == keys[4:]


async def test_places_of_another_form_mean_the_beginning(valkey: Server) -> None:
    async with stored(valkey) as store:
        await put(store, key_of(store, 1))
        assert len((await store.vectors.news(E, P, ("1-1", "2-2"))).items) == 1


@pytest.mark.parametrize(
    "damage",
    [
        ("HSET", "v", b"\0" * 2 * DIMENSION),
        ("HSET", "v", b""),
        ("HSET", "k", "another"),
        ("HSET", "x", "soon"),
        ("HDEL", "c"),
        ("HDEL", "v"),
    ],
)
async def test_damaged_vectors_are_left_out_and_counted(valkey: Server, damage: tuple[Any, ...]) -> None:
    async with stored(valkey) as store:
        good, bad = key_of(store, 1), key_of(store, 2)
        await put(store, good)
        await put(store, bad)
        command, *rest = damage
        await store.link.run((command, store.keys.vector(E, P, bad), *rest))
        assert [item.key for item in (await store.vectors.news(E, P, ())).items] == [good]
        assert store.vectors.damaged == 1


async def test_keys_of_another_type(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        good, bad = key_of(store, 1), key_of(store, 2)
        await put(store, good)
        await put(store, bad)
        await store.link.run(
            ("UNLINK", store.keys.vector(E, P, bad)), ("SET", store.keys.vector(E, P, bad), "x", "EX", 9)
        )
        assert [item.key for item in (await store.vectors.news(E, P, ())).items] == [good]
        assert store.vectors.damaged == 1
        log = store.keys.vector_log(E, P)
        await store.link.run(("UNLINK", log), ("SET", log, "x", "EX", 9))
        with pytest.raises(StoreMisused):
            await store.vectors.news(E, P, ())
        with pytest.raises(StoreMisused):
            await put(store, good)


async def test_a_log_with_foreign_entries_is_nonsense_and_does_not_stop_writers(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        key = key_of(store, 1)
        log = store.keys.vector_log(E, P)
        await store.link.run(("XADD", log, "*", "other", "field"), ("PEXPIRE", log, 9000))
        with pytest.raises(StoreDamaged):
            await store.vectors.news(E, P, ())
        await put(store, key)


async def test_many_writers_and_readers_at_once_lose_nothing(redis_server: Server) -> None:
    """Readers of another process that read while writers write know everything in the end, each once."""
    async with stored(redis_server) as writer, stored(redis_server) as reader:
        keys = [key_of(writer, number) for number in range(400)]
        heard: list[str] = []
        done = False

        async def read() -> None:
            places: tuple[str, ...] = ()
            while True:
                last = done
                news = await reader.vectors.news(E, P, places)
                heard.extend(item.key for item in news.items)
                places = news.places
                if last:
                    return

        reading = asyncio.create_task(read())
        await asyncio.gather(*(put(writer, key) for key in keys))
        done = True
        await reading
        assert sorted(heard) == sorted(keys)


# The query engine


def near(rng: random.Random) -> tuple[float, ...]:
    return tuple(rng.uniform(-1, 1) for _ in range(DIMENSION))


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    length = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / length


@pytest.fixture
def stack(servers: Servers) -> Server:
    return servers.get("stack74")


async def test_only_servers_with_an_engine_have_one(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.vectors.has_engine() == (redis_server.name == "stack74")
        before = store.link.round_trips
        await store.vectors.has_engine()
        assert store.link.round_trips == before


async def test_without_an_engine_a_search_is_refused(valkey: Server) -> None:
    async with stored(valkey) as store:
        with pytest.raises(StoreError, match="unknown command"):
            await store.vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=3)


async def test_databases_but_the_first_are_without_an_engine(stack: Server) -> None:
    settings = load_settings({"redis_url": stack.unix_url(1)}, environ={}, directory=Path("/"))
    store = Store(settings)
    try:
        assert not await store.vectors.has_engine()
    finally:
        await store.aclose()


async def test_the_engine_finds_the_nearest_of_the_partition(stack: Server) -> None:
    rng = random.Random(4)
    async with stored(stack) as store, stored(stack, "other") as other:
        known = {key_of(store, number): near(rng) for number in range(200)}
        for key, values in known.items():
            await put(store, key, vector(*values))
        asked = near(rng)
        for elsewhere in ({"partition": "0" * 32}, {"embedder": OTHER}):
            await put(store, key_of(store, 999), vector(*asked), **elsewhere)
        await put(other, key_of(store, 999), vector(*asked))
        found = await store.vectors.nearest(E, P, vector(*asked), dimension=DIMENSION, count=5)
        expected = sorted(known, key=lambda key: -cosine(known[key], asked))[:5]
        assert [one.key for one in found] == expected
        assert [one.similarity for one in found] == pytest.approx([cosine(known[k], asked) for k in expected], abs=0.01)
        opposite = vector(*(-value for value in known[expected[0]]))
        everything = await store.vectors.nearest(E, P, opposite, dimension=DIMENSION, count=200)
        assert len(everything) == 200
        assert all(0 <= one.similarity <= 1 for one in everything), "one scale, 0 to 1"
        assert everything[-1].similarity == 0


@pytest.mark.parametrize("partition", ["1" * 32, "1e5" + "0" * 29, "0x" + "1" * 30, "a-b", "deadbeef" * 4])
async def test_the_engine_takes_partitions_as_they_are(stack: Server, partition: str) -> None:
    async with stored(stack) as store:
        await put(store, key_of(store, 1), partition=partition)
        await put(store, key_of(store, 2), partition=partition[:-1] + "9")
        found = await store.vectors.nearest(E, partition, vector(1), dimension=DIMENSION, count=5)
        assert [one.key for one in found] == [key_of(store, 1)]


async def test_what_the_engine_finds_is_no_longer_there_once_removed(stack: Server) -> None:
    async with stored(stack) as store:
        await put(store, key_of(store, 1))
        await put(store, key_of(store, 2))
        assert len(await store.vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=5)) == 2
        await store.vectors.remove(E, P, [key_of(store, 1)])
        found = await store.vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=5)
        assert [one.key for one in found] == [key_of(store, 2)]


async def test_an_index_that_was_lost_is_made_again(stack: Server) -> None:
    async with stored(stack) as store:
        await put(store, key_of(store, 1))
        assert len(await store.vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=5)) == 1
        stack.flush()
        await put(store, key_of(store, 2))
        found = await store.vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=5)
        assert [one.key for one in found] == [key_of(store, 2)]


async def test_an_engine_that_does_not_take_the_index_is_left_alone(stack: Server) -> None:
    """As one without float16; here it is the dimension that it does not take."""
    async with stored(stack) as store:
        assert await store.vectors.has_engine()
        with pytest.raises(StoreError, match=r"FT\.CREATE"):
            await store.vectors.nearest(E, P, vector(1), dimension=0, count=1)
        assert not await store.vectors.has_engine()


async def test_many_askers_make_one_index(stack: Server) -> None:
    async with stored(stack) as one, stored(stack) as other:
        await put(one, key_of(one, 1))
        asking = ((one, other)[n % 2].vectors.nearest(E, P, vector(1), dimension=DIMENSION, count=5) for n in range(50))
        assert {len(found) for found in await asyncio.gather(*asking)} == {1}
        assert len(await one.link.execute("FT._LIST")) == 1


async def test_a_vector_of_another_length_is_refused(stack: Server) -> None:
    async with stored(stack) as store:
        await put(store, key_of(store, 1))
        with pytest.raises(StoreError):
            await store.vectors.nearest(E, P, b"123", dimension=DIMENSION, count=5)


async def test_an_index_that_is_being_built_never_passes_for_the_whole(stack: Server) -> None:
    """A search right after many vectors were met for the first time finds the nearest, or says that it cannot yet."""
    async with stored(stack) as store:
        rng = random.Random(8)
        for start in range(0, 20_000, 1000):
            commands: list[Any] = []
            for number in range(start, start + 1000):
                values = vector(*near(rng))
                commands += store.vectors.put_commands(
                    E, P, key_of(store, number), values, seconds=1000, now=time.time()
                )
            await store.link.run(*commands, slow=True)
        wanted = key_of(store, 50_000)
        await put(store, wanted, vector(*(9.0,) * DIMENSION))
        refused: list[StoreError] = []
        found: list[Neighbour] = []
        while not found:
            assert len(refused) < 100, "the index is never finished"
            try:
                found = await store.vectors.nearest(E, P, vector(*(9.0,) * DIMENSION), dimension=DIMENSION, count=1)
            except StoreError as error:
                refused.append(error)
        assert [one.key for one in found] == [wanted]
        assert {(error.code, error.retry_after_seconds) for error in refused} <= {("store_error", 1.0)}

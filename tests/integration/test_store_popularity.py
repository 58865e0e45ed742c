"""Counts of questions on real servers: added up, bounded, put together, taken back."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from agentic_flywheel.policy.identity import digest
from agentic_flywheel.store import popularity
from agentic_flywheel.store.popularity import KEPT, LONGEST_TEXT, MARKS, Count, Record, Told
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

DAY = "20261123"
AT = 1_795_000_000


def name(word: object) -> str:
    return digest(str(word))


def count(text: str, *marks: int, times: int = 1, served: int = 0, at: int = AT, taken_for: str = "") -> Count:
    made = Count(text, at)
    made.asked, made.served, made.saved_us, made.taken_for = times, served, 1000 * served, taken_for
    made.marks = set(marks or (1,))
    return made


async def add(store: Store, counts: dict[str, Count], *, day: str = DAY) -> None:
    await store.link.run(*store.popularity.commands({Told("f", day, n): c for n, c in counts.items()}))


async def read(store: Store, *, steps: bool = False, after: Iterable[str] | None = None) -> dict[str, Record]:
    found: dict[str, Record] = {}
    async for _, records in store.popularity.days(["f"], [DAY], steps=steps, after=after):
        found |= records
    return found


async def test_counts_add_up(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await add(store, {name("a"): count("A?", 5, 9, times=3, served=2, at=AT + 10)})
        await add(store, {name("a"): count("other", 1, 9, times=2, served=2, at=AT), name("b"): count("é" * 500)})
        found = await read(store)
        assert found[name("a")] == Record(5, 4, 4000, AT, AT + 10, (1, 5, 9), "A?")
        assert found[name("b")].text == "é" * LONGEST_TEXT
        key = store.keys.popular("f", DAY)
        (left,) = await store.link.run(("PTTL", key))
        assert 0 < left <= KEPT.total_seconds() * 1000


async def test_the_marks_that_stay_are_the_smallest(redis_server: Server) -> None:
    draw = random.Random(1)
    every = [draw.getrandbits(32) for _ in range(1000)]
    async with stored(redis_server) as store:
        for start in range(0, 1000, 7):
            await add(store, {name("a"): count("A?", *every[start : start + 7])})
            expected = tuple(sorted(set(every[: start + 7]))[:MARKS])
            assert (await read(store))[name("a")].marks == expected


async def test_a_flood_of_questions_is_bounded_and_what_is_asked_often_stays(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popularity, "MOST", 60)
    often, seldom = name("often"), name("seldom")
    truth = {often: 0, seldom: 0}
    async with stored(redis_server) as store:
        for batch in range(100):
            counts = {name((batch, each)): count("once", at=AT + batch) for each in range(12)}
            for what, every in ((often, 1), (seldom, 3)):
                if batch % every == 0:
                    counts[what] = count("often", at=AT + batch)
                    truth[what] += 1
            await add(store, counts)
            (size,) = await store.link.run(("HLEN", store.keys.popular("f", DAY)))
            assert size <= 60 * 1.25
        found = await read(store)
        assert {what: found[what].asked for what in truth} == truth
        once = [record.last for record in found.values() if record.text == "once"]
        assert min(once) >= AT + 90, "those asked longest ago go first"


async def test_a_flood_of_wordings_is_bounded(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popularity, "MOST_JOINED", 40)
    async with stored(redis_server) as store:
        for number in range(100):
            day = f"202611{1 + number // 10:02}"
            await add(store, {name(number): count("q", taken_for=name(f"of {number}"))}, day=day)
        joined = await store.popularity.joined("f")
        assert len(joined) <= 40 * 1.25
        assert {name(99), name("of 99")} <= set(joined)
        assert name(0) not in joined


async def heads(store: Store, *names: str) -> list[str]:
    joined = await store.popularity.joined("f")
    found = []
    for each in names:
        head = each
        while joined.get(head, head) != head:
            head = joined[head]
        found.append(head)
    return found


async def test_wordings_are_joined_without_circles(redis_server: Server) -> None:
    a, b, c, d, e = (name(letter) for letter in "abcde")
    async with stored(redis_server) as store:
        await add(store, {b: count("b", taken_for=a)})
        await add(store, {c: count("c", taken_for=b)})
        await add(store, {a: count("a", taken_for=c)})
        assert await heads(store, a, b, c) == [a, a, a]
        await add(store, {a: count("a", taken_for=d)})  # one that is new comes to what is known
        assert await heads(store, d) == [a]
        await add(store, {e: count("e", taken_for=name("f"))})
        await add(store, {b: count("b", taken_for=e)})  # both belong somewhere: they stay there
        assert await heads(store, b, e) == [a, name("f")]
        await add(store, {name("f"): count("f", taken_for=d)})  # what stands for all takes all with it
        assert await heads(store, e, d) == [a, a]


async def test_wordings_are_parted(redis_server: Server) -> None:
    a, b, c = (name(letter) for letter in "abc")
    async with stored(redis_server) as store:
        await add(store, {b: count("b", taken_for=a), c: count("c", taken_for=a)})
        assert await store.popularity.part("f", b, c)
        assert await heads(store, a, b, c) == [a, b, a]
        assert await store.popularity.part("f", a, c)
        assert await heads(store, a, c) == [a, c]
        assert not await store.popularity.part("f", a, c)


async def test_what_was_counted_is_taken_back(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await add(store, {name("a"): count("A?", 5, 9, times=4, served=3)})
        place = Told("f", DAY, name("a"))
        assert await store.popularity.subtract({place: [(True, 9)]}) == 0
        assert (await read(store))[name("a")] == Record(3, 2, 2000, AT, AT, (5,), "A?")
        assert await store.popularity.subtract({place: [(True, 5), (False, 5), (True, 7)]}) == 1
        assert await store.popularity.subtract({place: [(True, 5)]}) == 0
        assert await store.popularity.subtract({}) == 0
        assert await read(store) == {}


async def test_what_is_hidden_is_not_counted(redis_server: Server) -> None:
    a, b, c = (name(letter) for letter in "abc")
    every = {a: count("a"), b: count("b"), f"{a}>{b}": count("b"), f"{b}>{a}": count("a"), f"{b}>{c}": count("c")}
    async with stored(redis_server) as store:
        await add(store, {b: count("b", taken_for=a)})
        await store.popularity.hide("f", [a])
        await add(store, every)
        assert set(await read(store)) == {b}
        assert {step: record.asked for step, record in (await read(store, steps=True)).items()} == {f"{b}>{c}": 1}
        assert await read(store, steps=True, after=[c]) == {}
        (left,) = await store.link.run(("PTTL", store.keys.hidden("f")))
        assert left > KEPT.total_seconds() * 1000


async def test_wordings_and_steps_are_removed(redis_server: Server) -> None:
    a, b, c = (name(letter) for letter in "abc")
    async with stored(redis_server) as store:
        for day in (DAY, "20261122"):
            await add(store, {a: count("a", taken_for=c), b: count("b"), f"{a}>{b}": count("b")}, day=day)
        days = [DAY, "20261122", "20261121"]
        assert await store.popularity.remove("f", [a], days) == 2
        assert set(await read(store)) == {b}
        assert a not in await store.popularity.joined("f")
        found = {day: steps async for day, steps in store.popularity.steps("f", days)}
        assert found == {day: [f"{a}>{b}"] for day in days[:2]}
        assert await store.popularity.remove_steps("f", found) == 2
        assert await store.popularity.remove_steps("f", {}) == 0
        assert await read(store, steps=True) == {}


async def test_a_record_that_is_something_else_is_left_out_and_written_anew(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await add(store, {name("a"): count("A?"), name("b"): count("B?")})
        with redis_server.client() as client:
            key = store.keys.popular("f", DAY)
            good = client.hget(key, name("a"))
            for bad in (b"", b"\x02" + good[1:], good[:20], good[:25] + b"\x40" + good[26:], good[:-1] + b"\xff"):
                client.hset(key, name("a"), bad)
                assert set(await read(store)) == {name("b")}
        assert store.popularity.damaged == 5
        client.hset(key, name("a"), b"\x07")
        await add(store, {name("a"): count("A?")})
        assert (await read(store))[name("a")].asked == 1


async def test_large_days_are_read_alone(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popularity, "_PAGE", 10)
    days = [f"202611{day:02}" for day in range(1, 8)]
    sizes = [4, 0, 6, 1, 25, 3, 3]
    async with stored(valkey) as store:
        for day, size in zip(days, sizes, strict=True):
            if size:
                await add(store, {name((day, each)): count("q") for each in range(size)}, day=day)
        before = store.link.round_trips
        found = [len(records) async for _, records in store.popularity.days(["f"], days)]
        assert found == [size for size in sizes if size]
        assert store.link.round_trips - before == 1 + 4

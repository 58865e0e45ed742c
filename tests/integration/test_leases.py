"""Leases: one owner at a time, nobody waits for a dead one, and what the owner says reaches all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from agentic_flywheel.errors import StoreUnavailable
from agentic_flywheel.store.keys import flight_name
from agentic_flywheel.store.leases import Begun, Ended, Heard, Leases, Part, Silence
from agentic_flywheel.store.store import Store
from flywheels import settings_for
from servers import Server
from stages import eventually

pytestmark = pytest.mark.anyio

NAME = flight_name("afw:v1:default:team:flow:oracle:q:{5f}", "1")
BEGUN = Begun("whoever")


@asynccontextmanager
async def leases_on(server: Server, folder: Path) -> AsyncIterator[Leases]:
    """The leases of one process."""
    store = Store(settings_for(server, folder))
    try:
        yield store.leases
    finally:
        await store.aclose()


async def heard_by(leases: Leases, into: list[Heard]) -> None:
    async for heard in leases.listen(NAME):
        into.append(BEGUN if isinstance(heard, Begun) else heard)  # noqa: PERF401 (those who look at `into` meanwhile see each when it comes)


def blocked(server: Server) -> int:
    """How many connections wait in a blocking read."""
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def run_out(server: Server) -> None:
    """As if the owner had said nothing for the whole time of its lease."""
    with server.client() as client:
        for key in client.scan_iter("afw:v1:*:lease:*"):
            if client.type(key) == b"string":
                client.delete(key)


async def test_who_becomes_the_owner_looks_again_after_that(redis_server: Server, tmp_path: Path) -> None:
    """Also where the server does not know the script yet: else what another owner stored meanwhile is not seen."""
    with redis_server.client() as client:
        client.script_flush()
    async with leases_on(redis_server, tmp_path) as leases:
        for name in ("5f", "6f"):
            key = f"afw:v1:default:lease:{{{name}}}:1"
            lease, (seen,) = await leases.acquire(f"{name}:1", ("GET", key))
            assert lease is not None
            assert seen is not None


async def test_one_owner_at_a_time(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        won = [lease for lease, _ in await asyncio.gather(*(x.acquire(NAME) for x in [ours, theirs] * 20)) if lease]
        assert len(won) == 1
        assert (await theirs.acquire(NAME))[0] is None
        other, _ = await theirs.acquire(flight_name("afw:v1:default:team:flow:oracle:q:{5f}", "2"))
        assert other is not None, "a changed flow is another call"
        await won[0].finish(Ended(code="flow_error"))
        assert (await theirs.acquire(NAME))[0] is not None


async def test_looking_again_happens_after_the_lease_is_had(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as leases:
        lease, _ = await leases.acquire(NAME)
        assert lease is not None
        await lease.finish(Ended(b"e"), ("SET", "looked", "for", "PX", 60000))
        again, replies = await leases.acquire(NAME, ("GET", "looked"))
        assert again is not None
        assert replies == [b"for"]


async def test_a_script_that_is_sent_twice_acts_once(redis_server: Server, tmp_path: Path) -> None:
    """A connection that breaks before the reply has the command sent again."""
    from agentic_flywheel.store.leases import ACQUIRE, FINISH

    store = Store(settings_for(redis_server, tmp_path))
    keys = store.keys.lease(NAME)
    try:
        twice = await store.link.run(*[ACQUIRE.call(keys, "token", 5000, 5000, "")] * 2)
        assert twice == [1, 1]
        assert await store.link.run(ACQUIRE.call(keys, "other", 5000, 5000, "")) == [0]
        assert await store.link.run(*[FINISH.call(keys, "token", 5000, b"end")] * 2) == [1, 0]
        assert len((await store.link.run(("XRANGE", keys[1], "-", "+")))[0]) == 2
    finally:
        await store.aclose()


async def test_listeners_hear_everything_in_order_however_late(redis_server: Server, tmp_path: Path) -> None:
    early: list[Heard] = []
    late: list[Heard] = []
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        lease, _ = await ours.acquire(NAME)
        assert lease is not None
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(heard_by(theirs, early))
            assert await lease.speak("Seven ", 0)
            await eventually(lambda: Part("Seven ", 0) in early, "the first part")
            tasks.create_task(heard_by(theirs, late))
            await eventually(lambda: late, "the late one to have heard something")
            assert await lease.speak()  # prolongs, says nothing
            assert await lease.speak("days.", 6)
            await lease.finish(Ended(b"entry"))
        after: list[Heard] = []
        await heard_by(theirs, after)  # who comes just after the end
    expected = [BEGUN, Part("Seven ", 0), Part("days.", 6), Ended(b"entry")]
    assert early == late == after == expected


async def test_the_end_wakes_who_waits_in_a_blocking_read(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        lease, _ = await ours.acquire(NAME)
        assert lease is not None
        heard: list[list[Heard]] = [[] for _ in range(4)]
        waiting = [asyncio.create_task(heard_by(theirs, into)) for into in heard]
        await eventually(lambda: blocked(redis_server) == 4, "four to wait")
        with redis_server.client() as client:
            client.config_resetstat()
            await lease.finish(Ended(code="flow_refused"))
            await asyncio.wait_for(asyncio.gather(*waiting), 20)
            stats = client.info("commandstats")
        assert all(into[-1] == Ended(code="flow_refused") for into in heard)
        # Servers count a read that waited when it ends; asking again would begin with PTTL.
        assert "cmdstat_pttl" not in stats, "woken, without asking again"
        assert stats.get("cmdstat_xread", {"calls": 0})["calls"] <= 4


async def test_an_owner_that_dies_is_noticed_when_its_lease_runs_out(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        lease, _ = await ours.acquire(NAME)
        assert lease is not None
        assert await lease.speak("Sev", 0)
        heard: list[Heard] = []
        with redis_server.client() as client:
            client.config_resetstat()
            await asyncio.wait_for(heard_by(theirs, heard), 20)
            assert heard == [BEGUN, Part("Sev", 0), Silence()]
            asked = client.info("commandstats")["cmdstat_xread"]["calls"]
        assert asked <= 4, "one wait for the lease's end, and one last look"


async def test_who_lost_its_lease_cannot_end_the_flight_of_another(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        lost, _ = await ours.acquire(NAME)
        assert lost is not None
        run_out(redis_server)
        lease, _ = await theirs.acquire(NAME)
        assert lease is not None
        assert not await lost.speak("nonsense", 0)
        await lost.finish(Ended(code="flow_refused"))
        assert (await ours.acquire(NAME))[0] is None, "still owned"
        assert await lease.speak("Seven", 0)
        await lease.finish(Ended(b"entry"))
        heard: list[Heard] = []
        await heard_by(ours, heard)
        assert heard == [BEGUN, Part("Seven", 0), Ended(b"entry")]


async def test_an_owner_that_failed_is_followed_once(redis_server: Server, tmp_path: Path) -> None:
    """However late the others come who heard of its failure."""
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        first, _ = await ours.acquire(NAME)
        assert first is not None
        await first.finish(Ended(code="flow_unavailable", takeover=True))
        async with aclosing(theirs.listen(NAME)) as said:
            begun = await anext(said)
        assert isinstance(begun, Begun)
        second, _ = await ours.acquire(NAME, after=begun.owner)
        assert second is not None
        await second.finish(Ended(code="flow_unavailable"))
        assert (await theirs.acquire(NAME, after=begun.owner))[0] is None
        heard: list[Heard] = []
        await heard_by(theirs, heard)
        assert heard[-1] == Ended(code="flow_unavailable")
        assert (await theirs.acquire(NAME))[0] is not None, "a new asker is not bound by it"


async def test_nothing_stays_without_expiry_when_the_stream_is_evicted(redis_server: Server, tmp_path: Path) -> None:
    """The fixture looks for keys without expiry."""
    async with leases_on(redis_server, tmp_path) as leases:
        lease, _ = await leases.acquire(NAME)
        assert lease is not None
        with redis_server.client() as client:
            (stream,) = client.scan_iter("afw:v1:*:lease:*:parts")
            client.delete(stream)
            assert await lease.speak("Seven", 0)
            assert client.pttl(stream) > 0


async def test_one_refresh_over_all_processes(redis_server: Server, tmp_path: Path) -> None:
    async with leases_on(redis_server, tmp_path) as ours, leases_on(redis_server, tmp_path) as theirs:
        may = await asyncio.gather(*(leases.may_refresh(NAME) for leases in [ours, theirs] * 10))
        assert sum(may) == 1


async def test_a_server_that_goes_ends_the_waiting(valkey: Server, tmp_path: Path) -> None:
    async with leases_on(valkey, tmp_path) as leases:
        lease, _ = await leases.acquire(NAME)
        assert lease is not None
        waiting = asyncio.create_task(heard_by(leases, []))
        await eventually(lambda: blocked(valkey) == 1, "one to wait")
        valkey.kill()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(waiting, 20)

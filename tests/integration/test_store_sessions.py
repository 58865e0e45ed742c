"""Sessions in Redis: every turn exactly once and in order, whatever is repeated, damaged or done at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentic_flywheel.errors import StoreDamaged, StoreMisused
from agentic_flywheel.model import Outcome, Reason, Session, Turn
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio


def turn(number: int, session: str = "s", **fields: Any) -> Turn:
    whole: dict[str, Any] = {
        "id": f"t{number}",
        "session_id": session,
        "at": 1000.0 + number,
        "question": f"question {number}",
        "answer": f"answer {number} é🎉",
        "flow": "f",
        "fingerprint": "p",
        "outcome": Outcome.MISS,
        "reason": Reason.NOT_STORED,
        "trace_id": "x",
    }
    return Turn(**{**whole, **fields})


async def test_a_turn_comes_back_as_it_was(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        first = turn(0, user="ana", context=("a", "b"), private=True, flow_ms=1.5, intent="x")
        assert await store.sessions.append(first)
        recalled = await store.sessions.recall("s", 5)
        assert recalled.turns == (first,)
        assert recalled.first == first
        assert recalled.session == Session(
            id="s", owner="ana", flow="f", turns=1, created_at=1000.0, last_active_at=1000.0
        )


async def test_nothing_is_known_of_a_session_that_never_was(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        recalled = await store.sessions.recall("s", 5)
        assert (recalled.session, recalled.turns, recalled.first, recalled.damaged) == (None, (), None, 0)
        assert await store.sessions.header("s") is None
        assert await store.sessions.headers(["s"]) == []
        assert not await store.sessions.amend("s", title="x")
        with redis_server.client() as client:
            assert client.dbsize() == 0


async def test_an_append_may_be_repeated(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.sessions.append(turn(0))
        assert not await store.sessions.append(turn(0, answer="another"))
        turns, _ = await store.sessions.turns("s")
        assert turns == (turn(0),)
        header = await store.sessions.header("s")
        assert header is not None
        assert header.turns == 1
        assert await store.sessions.append(turn(0, session="s2"))  # an id counts within its session


async def test_the_last_turns_and_the_first(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(12):
            await store.sessions.append(turn(number))
        recalled = await store.sessions.recall("s", 5)
        assert [t.id for t in recalled.turns] == ["t7", "t8", "t9", "t10", "t11"]
        assert recalled.first is not None
        assert recalled.first.id == "t0"
        shown, damaged = await store.sessions.turns("s", limit=3)
        assert ([t.id for t in shown], damaged) == (["t9", "t10", "t11"], 0)
        assert len((await store.sessions.turns("s"))[0]) == 12


async def test_a_long_session_is_read_whole_and_in_order(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for start in range(0, 1234, 100):
            commands = [
                c for n in range(start, min(start + 100, 1234)) for c in store.sessions.append_commands(turn(n))
            ]
            await store.link.run(*commands)
        turns, _ = await store.sessions.turns("s")
        assert [t.id for t in turns] == [f"t{n}" for n in range(1234)]
        newest, _ = await store.sessions.turns("s", limit=777)
        assert [t.id for t in newest] == [f"t{n}" for n in range(1234 - 777, 1234)]


async def test_recalling_does_not_cost_more_in_a_long_session(valkey: Server) -> None:
    async with stored(valkey) as store:
        await store.link.run(*[c for n in range(300) for c in store.sessions.append_commands(turn(n))])
        with valkey.client() as client:
            client.config_resetstat()
        await store.sessions.recall("s", 5)
        with valkey.client() as client:
            calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
        assert {name: n for name, n in calls.items() if "range" in name or "hmget" in name} == {
            "cmdstat_hmget": 1,
            "cmdstat_xrange": 1,
            "cmdstat_xrevrange": 1,
        }


async def test_concurrent_appends_of_several_processes_lose_and_double_nothing(redis_server: Server) -> None:
    async with stored(redis_server) as one, stored(redis_server) as other:

        async def append(store: Store, number: int) -> bool:
            await asyncio.sleep(0)
            return await store.sessions.append(turn(number))

        # Every turn is sent by both, as a retry would.
        done = await asyncio.gather(*(append(store, n) for n in range(200) for store in (one, other)))
        assert sum(done) == 200
        turns, _ = await one.sessions.turns("s")
        assert sorted(t.id for t in turns) == sorted(f"t{n}" for n in range(200))
        header = await one.sessions.header("s")
        assert header is not None
        assert header.turns == 200


async def test_damaged_turns_are_left_out_and_counted(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(3):
            await store.sessions.append(turn(number))
        with redis_server.client() as client:
            key = store.keys.turns("s")
            client.xadd(key, {"t": b"\x01\x00garbage"})
            client.xadd(key, {"other": b"field"})
            client.xadd(key, {"t": b"\x63" + bytes(40)})
        await store.sessions.append(turn(3))
        recalled = await store.sessions.recall("s", 5)
        assert [t.id for t in recalled.turns] == ["t2", "t3"]
        assert recalled.damaged == 3
        turns, damaged = await store.sessions.turns("s")
        assert ([t.id for t in turns], damaged) == (["t0", "t1", "t2", "t3"], 3)


async def test_a_damaged_first_turn_is_left_out(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.begin("s", at=0.0)
        with redis_server.client() as client:
            client.xadd(store.keys.turns("s"), {"t": b"garbage"})
        await store.sessions.append(turn(1))
        recalled = await store.sessions.recall("s", 1)
        assert recalled.first is None
        assert [t.id for t in recalled.turns] == ["t1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("tags", b"no json"), ("tags", b'{"a": 1}'), ("turns", b"many"), ("title", b"\xff"), ("config", b"[]")],
)
async def test_a_header_that_somebody_else_wrote_is_damage(redis_server: Server, field: str, value: bytes) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0))
        await store.sessions.append(turn(1, session="sound"))
        with redis_server.client() as client:
            client.hset(store.keys.session("s"), field, value)
        with pytest.raises(StoreDamaged):
            await store.sessions.recall("s", 5)
        with pytest.raises(StoreDamaged):
            await store.sessions.header("s")
        assert [s.id for s in await store.sessions.headers(["s", "sound"])] == ["sound"]


async def test_the_owner_is_the_first_user_and_the_title_the_first_question(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0, question="  A \n long " + "title " * 40))
        await store.sessions.append(turn(1, user="ana", flow="g"))
        with pytest.raises(StoreMisused, match="another user"):
            await store.sessions.append(turn(2, user="ben"))
        header = await store.sessions.header("s")
        assert header is not None
        assert (header.owner, header.flow, header.turns) == ("ana", "g", 2)
        assert header.title.startswith("A long title title")
        assert header.title.endswith("…")
        assert len(header.title) <= 80


async def test_amending_changes_what_is_named_alone(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0))
        before = await store.sessions.header("s")
        assert await store.sessions.amend("s", title="Über", tags=["a", "é"], config={"temperature": 0.5, "x": [1]})
        header = await store.sessions.header("s")
        assert before is not None
        assert header is not None
        assert (header.title, header.tags, header.config) == ("Über", ("a", "é"), {"temperature": 0.5, "x": [1]})
        assert (header.turns, header.created_at) == (before.turns, before.created_at)


async def test_beginning_a_session_leaves_one_that_exists_alone(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.begin("s", at=5.0)
        header = await store.sessions.header("s")
        assert header == Session(id="s", created_at=5.0, last_active_at=5.0)
        await store.sessions.append(turn(0))
        await store.sessions.begin("s", at=9.0)
        header = await store.sessions.header("s")
        assert header is not None
        assert (header.created_at, header.turns, header.last_active_at) == (5.0, 1, 1000.0)


async def test_pages_by_activity_newest_first(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(30):
            user = "ana" if number % 3 == 0 else "ben"
            await store.sessions.append(turn(number, session=f"s{number}", user=user))
        await store.sessions.append(turn(99, session="s4", user="ben"))
        order = ["s4", *(f"s{n}" for n in range(29, -1, -1) if n != 4)]
        listed = [await store.sessions.recent(user="", offset=o, count=10) for o in (0, 10, 20, 30)]
        assert [s for page in listed for s in page] == order
        assert await store.sessions.recent(user="ana", offset=2, count=3) == ["s21", "s18", "s15"]
        assert await store.sessions.recent(user="nobody", offset=0, count=3) == []
        assert sorted(await store.sessions.inactive_since(1005.0)) == ["s0", "s1", "s2", "s3"]


async def test_deleting_leaves_no_trace_of_a_session(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0, session="kept", user="ana"))
        with redis_server.client() as client:
            before = {k for k in client.scan_iter() if b":feed:" not in k}
        await store.sessions.append(turn(1, session="gone", user="ana"))
        header = await store.sessions.header("gone")
        assert header is not None
        await store.sessions.delete(header)
        with redis_server.client() as client:
            assert {k for k in client.scan_iter() if b":feed:" not in k} == before
        assert await store.sessions.recent(user="", offset=0, count=9) == ["kept"]
        assert await store.sessions.recent(user="ana", offset=0, count=9) == ["kept"]


async def test_a_session_that_found_its_user_later_is_deleted_whole(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0))
        await store.sessions.append(turn(1, user="ana"))
        header = await store.sessions.header("s")
        assert header is not None
        await store.sessions.delete(header)
        assert await store.sessions.recent(user="ana", offset=0, count=9) == []


async def test_tenants_see_nothing_of_each_other(redis_server: Server) -> None:
    async with stored(redis_server, "one") as one, stored(redis_server, "two") as two:
        await one.sessions.append(turn(0, user="ana"))
        assert (await two.sessions.recall("s", 5)).session is None
        assert await two.sessions.recent(user="", offset=0, count=9) == []
        assert await two.sessions.recent(user="ana", offset=0, count=9) == []


async def test_odd_ids_are_sessions_of_their_own(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        odd = ["a b", "é", "a:b", "a{b}", "*", "../x", "日本", "x" * 256]
        for number, session in enumerate(odd):
            await store.sessions.append(turn(number, session=session))
        for number, session in enumerate(odd):
            recalled = await store.sessions.recall(session, 5)
            assert [t.id for t in recalled.turns] == [f"t{number}"]
            assert recalled.session is not None
            assert recalled.session.id == session


async def test_what_survives_a_restart_of_the_script_cache(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0))
        with redis_server.client() as client:
            client.script_flush()
        assert not await store.sessions.append(turn(0))
        assert await store.sessions.append(turn(1))


async def test_a_turn_is_found_by_its_event(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(600):
            await store.sessions.append(turn(number, f"s{number % 40}"))
        before = store.link.round_trips
        assert await store.sessions.find("t599") == "s39"
        assert store.link.round_trips == before + 2, "one page of events, and whether it is still there"
        assert await store.sessions.find("t0") == "s0"
        assert await store.sessions.find("t600") is None


async def test_a_turn_is_found_without_its_event_too(redis_server: Server) -> None:
    """Events of long ago fall off: then all sessions are gone through, more of them than a page of the index has."""
    async with stored(redis_server) as store:
        turns = [turn(number, f"s{number}", user="ana") for number in range(1500)]
        await store.link.run(*store.sessions.append_commands(*turns), slow=True)
        await store.link.run(*(("UNLINK", feed) for feed in store.keys.feeds()))
        assert await store.sessions.find("t1499") == "s1499"
        assert await store.sessions.find("t0") == "s0"
        assert await store.sessions.find("t1500") is None


async def test_a_turn_of_a_deleted_session_is_not_found(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.sessions.append(turn(0))
        header = await store.sessions.header("s")
        assert header is not None
        await store.sessions.delete(header)
        assert await store.sessions.find("t0") is None


async def test_a_turn_among_many_that_came_together_is_found(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        turns = [turn(number, f"s{number % 3}") for number in range(30)]
        await store.link.run(*store.sessions.append_commands(*turns))
        assert [await store.sessions.find(f"t{number}") for number in (0, 16, 29)] == ["s0", "s1", "s2"]

"""The feed over REST: what happens is told as it happens, to who may know, once more to who comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from afw_command import Afw
from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import InputError, ServiceBusy
from agentic_flywheel.happenings import Happening
from agentic_flywheel.interfaces.http.listeners import Listeners
from flywheels import Oracle, opened
from http_process import HttpServer, assert_problem, served
from servers import Server, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("rest_events")]

PATIENCE_SECONDS = 60.0
ANSWER = "The answer of the oracle"


@asynccontextmanager
async def following(flywheel: Flywheel, **wanted: Any) -> AsyncIterator[AsyncIterator[Happening]]:
    """What somebody is told who follows; it has begun when the block does."""
    told = flywheel.happenings.follow(patience_seconds=0.05, **wanted)
    began = await anext(told)
    assert began is not None
    assert began.what == "began"
    assert began.place

    async def happened() -> AsyncIterator[Happening]:
        async for one in told:
            if one is not None:
                yield one

    yield happened()
    await told.aclose()


async def next_of(told: AsyncIterator[Happening]) -> Happening:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await anext(told)


async def test_what_happens_is_told_in_order_with_facts_and_without_words(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel, following(flywheel) as told:
        first = await flywheel.ask("What is told?", session="monday", flow="oracle", user="ann")
        again = await flywheel.ask("What is told?", flow="oracle")
        await flywheel.flush()
        one, other = await next_of(told), await next_of(told)
        assert (one.what, one.session_id, one.turn_id) == ("turn", "monday", first.turn_id)
        assert (one.flow, one.user, one.outcome, one.reason) == ("oracle", "ann", first.outcome, first.reason)
        assert (other.turn_id, other.outcome) == (again.turn_id, again.outcome)
        assert "told" not in repr((one, other))
        await flywheel.sessions.rename("monday", "Renamed")
        assert [(await next_of(told)).what] == ["session_changed"]
        await flywheel.sessions.delete_turn("monday", first.turn_id, dry_run=False)
        gone = await next_of(told)
        assert (gone.what, gone.session_id, gone.turn_id) == ("turn_deleted", "monday", first.turn_id)
        await flywheel.sessions.delete("monday", dry_run=False)
        assert (await next_of(told)).what == "session_deleted"


async def test_who_comes_back_misses_nothing(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        async with following(flywheel) as told:
            await flywheel.ask("One?", session="s", flow="oracle")
            place = (await next_of(told)).place
        assert place
        for question in ("Two?", "Three?"):
            await flywheel.ask(question, session="s", flow="oracle")
        async with following(flywheel, after=place) as told:
            missed = [await next_of(told), await next_of(told)]
            turns = (await flywheel.sessions.show("s")).turns
            assert [one.turn_id for one in missed] == [turn.id for turn in turns[1:]]
            assert [bool(one.place) for one in missed] == [False, True]  # read together: gone on from after both
        for wrong in ("x", "AAAA", place[:-3], place + "A" * 40):
            with pytest.raises(InputError):
                await anext(flywheel.happenings.follow(after=wrong))


async def test_nobody_is_told_of_what_they_could_not_find(valkey: Server, tmp_path: Path) -> None:
    flows = {"oracle": Oracle(), "other": Oracle()}
    async with (
        opened(valkey, tmp_path, flows) as flywheel,
        following(flywheel, user="ann") as ann,
        following(flywheel, session="s") as session,
        following(flywheel, among={"other"}) as other,
    ):
        await flywheel.ask("Where is my invoice?", session="b", user="bob", flow="oracle")
        await flywheel.ask("Hidden?", session="b", user="bob", flow="oracle", directives=Directives(private=True))
        await flywheel.sessions.rename("b", "Bob's")
        await flywheel.ask("Open to all?", session="c", user="bob", flow="oracle")
        await flywheel.ask("In the session?", session="s", flow="other", directives=Directives(private=True))
        await flywheel.ask("Public?", session="t", flow="other")
        seen = [await next_of(ann), await next_of(ann)]
        assert [one.session_id for one in seen] == ["c", "t"]
        assert {one.what for one in seen} == {"turn"}
        assert (await next_of(session)).session_id == "s"
        assert (await next_of(other)).session_id == "t"


async def test_what_was_trimmed_is_told_as_lost(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        async with following(flywheel) as told:
            await flywheel.ask("One?", session="s", flow="oracle")
            place = (await next_of(told)).place
        await flywheel.ask("Two?", session="s", flow="oracle")
        with valkey.client() as redis:
            for feed in redis.keys("*:feed:*"):
                redis.xtrim(feed, maxlen=1, approximate=False)
        await flywheel.ask("Three?", session="s", flow="oracle")
        with valkey.client() as redis:
            for feed in redis.keys("*:feed:*"):
                redis.xtrim(feed, maxlen=1, approximate=False)
        async with following(flywheel, after=place) as told:
            assert (await next_of(told)).what == "lost"


async def test_after_an_outage_all_of_it_is_told(valkey: Server, tmp_path: Path) -> None:
    given = {"redis_command_timeout_seconds": 0.2}
    async with opened(valkey, tmp_path, {"oracle": Oracle()}, **given) as flywheel, following(flywheel) as told:
        valkey.pause()
        try:
            away = await flywheel.ask("While away?", session="s", flow="oracle")
        finally:
            valkey.resume()
        await flywheel.settled()
        assert (await next_of(told)).turn_id == away.turn_id


# Over HTTP.


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[tuple[HttpServer, Afw]]:
    afw = Afw(tmp_path_factory.mktemp("events"), servers.get("valkey9").url)
    afw.environ["AFW_SERVE_CREDENTIALS"] = "always"
    afw.ok("key", "create", "first", "--scope", "ask")
    with served(afw) as server:
        yield server, afw


def key(afw: Afw, *scopes: str, user: str = "") -> str:
    name = f"k-{'-'.join(scopes)}-{user}-{len(afw.json('key', 'list')['keys'])}"
    given = [part for scope in scopes for part in ("--scope", scope)]
    return afw.ok("key", "create", name, *given, *(["--user", user] if user else [])).out.strip()


def read(response: httpx2.Response, count: int) -> list[tuple[str, str, Any]]:
    """So many events: name, id, data."""
    found: list[tuple[str, str, Any]] = []
    name = id_ = ""
    for line in response.iter_lines():
        head, _, value = line.partition(": ")
        if head == "event":
            name = value
        elif head == "id":
            id_ = value
        elif head == "data":
            found.append((name, id_, json.loads(value)))
            name = id_ = ""
            if len(found) == count:
                break
    return found


def test_events_over_http_resume_where_the_client_left(running: tuple[HttpServer, Afw], valkey: Server) -> None:
    server, afw = running
    secret = key(afw, "ask", "read")
    with server.client(secret) as client:
        with client.stream("GET", "/api/v2/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            lines = read(stream, 1)
            assert lines[0][0] == "began"
        asked = client.post("/api/v2/ask", json={"question": "SECRETWORD?", "flow": "echo", "session_id": "s"}).json()
        with client.stream("GET", "/api/v2/events", headers={"Last-Event-ID": lines[0][1]}) as stream:
            _, (name, place, turn) = read(stream, 2)
            assert (name, turn["turn_id"], turn["outcome"]) == ("turn", asked["turn_id"], "miss")
            assert place
            assert "SECRETWORD" not in json.dumps(turn)
            assert turn["place"] == ""
        with client.stream("GET", "/api/v2/events", params={"after": place, "seconds": 0}) as stream:
            assert [name for name, _, _ in read(stream, 5)] == ["began"]
        assert_problem(client.get("/api/v2/events", headers={"Last-Event-ID": "../x"}), 400, "invalid_input")
        assert_problem(client.get("/api/v2/events", params={"seconds": 301}), 400, "invalid_input")


def test_who_may_only_ask_follows_their_own_sessions_alone(running: tuple[HttpServer, Afw], valkey: Server) -> None:
    server, afw = running
    with server.client(key(afw, "ask", user="ann")) as ann, server.client(key(afw, "ask", user="bob")) as bob:
        ann.post("/api/v2/ask", json={"question": "Mine?", "flow": "echo", "session_id": "anns"})
        assert_problem(ann.get("/api/v2/events", params={"seconds": 0}), 403, "not_allowed")
        with ann.stream("GET", "/api/v2/events", params={"session_id": "anns", "seconds": 0}) as stream:
            assert read(stream, 1)[0][0] == "began"
        refused = bob.get("/api/v2/events", params={"session_id": "anns", "seconds": 0})
        assert_problem(refused, 404, "unknown_session")


def test_a_service_that_ends_ends_the_streams_of_those_who_follow(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path, valkey.url)
    with served(afw) as server, server.client() as client, client.stream("GET", "/api/v2/events") as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        server.process.terminate()
        assert any(line.startswith("event: began") for line in lines)  # and it comes to its end
        assert server.process.wait(60) == 0


def test_what_is_too_many_is_refused_and_what_ended_counts_no_more() -> None:
    listeners = Listeners(2)
    with listeners.one_more(), listeners.one_more(), pytest.raises(ServiceBusy):
        listeners.check()
    listeners.check()
    assert listeners.open == 0

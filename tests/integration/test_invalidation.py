"""Clearing: exactly what is named is gone at once, the receipt says so truly, and a dry run changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Directives, Flywheel
from agentic_flywheel.errors import NotCached, UnknownKey, UnknownSession
from flywheels import Oracle, everything, opened
from servers import Server

pytestmark = pytest.mark.anyio

QUESTIONS = [f"What is the number {n} called in Redis?" for n in range(6)]
ONLY = Directives(only_if_cached=True)


@pytest.fixture
async def filled(redis_server: Server, tmp_path: Path) -> AsyncIterator[tuple[Flywheel, dict[str, str]]]:
    """Six answers: of two flows, three users and four sessions; by question, the key of its answer."""
    flows = {"docs": (Oracle("docs"), {"id": "docs"}), "code": (Oracle("code"), {"id": "code"})}
    async with opened(redis_server, tmp_path, flows) as flywheel:
        asked: list[tuple[str, str | None, str]] = [
            ("docs", "s1", "ana"),
            ("docs", "s2", "ben"),
            ("docs", "s3", "ana"),
            ("code", "s4", "ana"),
            ("code", None, "ben"),
            ("code", None, ""),
        ]
        keys = {}
        for question, (flow, session, user) in zip(QUESTIONS, asked, strict=True):
            answer = await flywheel.ask(question, flow=flow, session=session, user=user)
            keys[question] = str(answer.key)
        # Ben is served what Ana asked first: it stays hers.
        await flywheel.ask(QUESTIONS[0], flow="docs", session="s5", user="ben")
        await flywheel.flush()
        yield flywheel, keys


async def served(flywheel: Flywheel) -> list[int]:
    """The numbers of the questions that are still answered from memory."""
    found = []
    for n, question in enumerate(QUESTIONS):
        try:
            await flywheel.ask(question, flow="docs" if n < 3 else "code", directives=ONLY)
        except NotCached:
            continue
        found.append(n)
    return found


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ({"flow": "docs"}, [0, 1, 2]),
        ({"flow": "code"}, [3, 4, 5]),
        ({"session": "s1"}, [0]),
        ({"session": "s5"}, []),
        ({"user": "ana"}, [0, 2, 3]),
        ({"user": "ben"}, [1, 4]),
        ({"user": "nobody"}, []),
        ({"key": 4}, [4]),
        ({"everything": True}, [0, 1, 2, 3, 4, 5]),
    ],
    ids=str,
)
async def test_clearing(
    redis_server: Server, filled: tuple[Flywheel, dict[str, str]], what: dict[str, Any], gone: list[int]
) -> None:
    flywheel, keys = filled
    if "key" in what:
        what = {"key": keys[QUESTIONS[what["key"]]]}
    before = everything(redis_server)
    dry = await flywheel.cache.clear(**what, dry_run=True)
    assert everything(redis_server) == before
    assert (dry.dry_run, dry.unreachable, dry.removed) == (True, len(gone), {"entries": len(gone)})
    done = await flywheel.cache.clear(**what, dry_run=False)
    assert (done.dry_run, done.unreachable, done.removed) == (False, len(gone), {"entries": len(gone)})
    assert (done.action, done.target) == (dry.action, dry.target)
    assert await served(flywheel) == [n for n in range(6) if n not in gone]
    with redis_server.client() as client:
        left = {key for key in keys.values() if client.exists(key)}
    assert left == {key for n, key in enumerate(keys.values()) if n not in gone}
    # Conversations stay, and clearing again finds nothing.
    assert len((await flywheel.sessions.show("s1")).turns) == 1
    if "key" in what:
        with pytest.raises(UnknownKey):
            await flywheel.cache.clear(**what, dry_run=True)
    else:
        assert (await flywheel.cache.clear(**what, dry_run=True)).unreachable == 0
    # What is listed and counted is what is there.
    listed, _ = await flywheel.cache.list()
    assert {answer.key for answer in listed} == left
    assert (await flywheel.cache.stats()).total.entries == len(left)


async def test_a_cleared_flow_is_answered_afresh_everywhere(redis_server: Server, tmp_path: Path) -> None:
    flows = {"docs": Oracle()}
    async with opened(redis_server, tmp_path, flows) as one, opened(redis_server, tmp_path, flows) as other:
        await one.ask(QUESTIONS[0])
        assert (await other.ask(QUESTIONS[0])).outcome == "hit"
        await one.cache.clear(flow="docs", dry_run=False)
        again = await other.ask(QUESTIONS[0])
        assert again.outcome == "miss"
        assert (await one.ask(QUESTIONS[0])).text == again.text


async def test_a_flow_that_was_removed_can_still_be_cleared(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"docs": Oracle()}) as flywheel:
        await flywheel.ask(QUESTIONS[0])
    async with opened(redis_server, tmp_path, {"code": Oracle()}) as flywheel:
        (left,), _ = await flywheel.cache.list()
        assert not left.servable
        assert (await flywheel.cache.clear(flow="docs", dry_run=False)).removed == {"entries": 1}
        assert (await flywheel.cache.list())[0] == []


async def test_answers_are_listed_page_by_page(redis_server: Server, filled: tuple[Flywheel, dict[str, str]]) -> None:
    flywheel, keys = filled
    pages: list[list[str]] = []
    cursor = ""
    while True:
        page, cursor = await flywheel.cache.list(limit=4, cursor=cursor)
        pages.append([answer.key for answer in page])
        if not cursor:
            break
    assert [len(page) for page in pages] == [4, 2]
    assert sorted(key for page in pages for key in page) == sorted(keys.values())
    of_docs, _ = await flywheel.cache.list(flow="docs")
    assert {answer.entry.flow for answer in of_docs} == {"docs"}
    assert len(of_docs) == 3


async def test_deleting_a_session_takes_what_was_kept_for_it_alone(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"docs": Oracle()}) as flywheel:
        shared = await flywheel.ask(QUESTIONS[0], session="s", user="ana")
        private = await flywheel.ask(QUESTIONS[1], session="s", user="ana", directives=Directives(private=True))
        await flywheel.ask(QUESTIONS[2], session="other", user="ana")
        await flywheel.flush()
        before = everything(redis_server)
        dry = await flywheel.sessions.delete("s", dry_run=True)
        assert everything(redis_server) == before
        done = await flywheel.sessions.delete("s", dry_run=False)
        assert dry.removed == done.removed == {"sessions": 1, "turns": 2, "entries": 1}
        with redis_server.client() as client:
            assert client.exists(str(shared.key), str(private.key)) == 1
            assert not list(client.scan_iter("*session:{s}*"))
        with pytest.raises(UnknownSession):
            await flywheel.sessions.show("s")
        assert [s.id for s in (await flywheel.sessions.list(user="ana")).sessions] == ["other"]
        # Its id begins a new conversation, which knows nothing of the old one.
        assert (await flywheel.ask("What about mobile?", session="s", user="ben")).context == ()


async def test_sweeping_takes_sessions_without_activity(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"docs": Oracle()}, session_retention_days=30) as flywheel:
        for session in ("old", "new"):
            await flywheel.ask(QUESTIONS[0], session=session)
        await flywheel.flush()
        with redis_server.client() as client:
            for key in client.scan_iter("afw:v1:default:sessions:*"):
                if client.zscore(key, "old"):
                    aged = client.zincrby(key, -31 * 86400, "old")
                    client.hset("afw:v1:default:session:{old}", "last_active_at", aged)
        before = everything(redis_server)
        dry = await flywheel.sessions.sweep(dry_run=True)
        assert dry.removed["sessions"] == 1
        assert everything(redis_server) == before
        assert (await flywheel.sessions.sweep(dry_run=False)).removed["sessions"] == 1
        assert [s.id for s in (await flywheel.sessions.list()).sessions] == ["new"]
    async with opened(redis_server, tmp_path, {"docs": Oracle()}, session_retention_days=0) as flywheel:
        assert (await flywheel.sessions.sweep(dry_run=True)).removed["sessions"] == 0


async def test_renaming_tagging_resuming(redis_server: Server, tmp_path: Path) -> None:
    async with opened(redis_server, tmp_path, {"docs": Oracle()}) as flywheel:
        for n, session in enumerate(("a", "b", "c")):
            await flywheel.ask(QUESTIONS[n], session=session, user="ana" if session != "c" else "ben")
        assert (await flywheel.sessions.rename("a", "  The  first\n")).title == "The first"
        assert (await flywheel.sessions.tag("a", add=["x", "y", "x"])).tags == ("x", "y")
        assert (await flywheel.sessions.tag("a", add=["z"], remove=["x", "none"])).tags == ("y", "z")
        assert [s.id for s in (await flywheel.sessions.list(tag="y")).sessions] == ["a"]
        assert (await flywheel.sessions.resume()).id == "c"
        assert (await flywheel.sessions.resume(user="ana")).id == "b"
        await flywheel.ask(QUESTIONS[3], session="a", user="ana")
        shown = await flywheel.sessions.resume()
        assert (shown.id, shown.title, shown.turns) == ("a", "The first", 2)
        page = await flywheel.sessions.list(limit=2)
        rest = await flywheel.sessions.list(limit=2, cursor=page.cursor)
        assert [s.id for s in (*page.sessions, *rest.sessions)] == ["a", "c", "b"]
        assert rest.cursor == ""


async def test_lifetimes_are_shown_with_the_rule_that_set_them(valkey: Server, tmp_path: Path) -> None:
    flows = {"docs": (Oracle(), {"ttl": timedelta(hours=1)}), "technical": (Oracle(), {"id": "t"})}
    async with opened(valkey, tmp_path, flows) as flywheel:
        await flywheel.lifetimes.set("technical", timedelta(seconds=5))
        await flywheel.lifetimes.set("flow:technical", timedelta(seconds=7))
        rows = {(row.kind, row.name): (row.ttl_seconds, row.origin) for row in await flywheel.lifetimes.show()}
        assert rows["type", "technical"] == (5.0, "set at run time")
        assert rows["type", "creative"] == (30 * 86400.0, "default")
        assert rows["flow", "docs"] == (3600.0, "registry")
        assert rows["flow", "technical"] == (7.0, "set at run time")
        await flywheel.lifetimes.reset("flow:technical")
        rows = {(row.kind, row.name): (row.ttl_seconds, row.origin) for row in await flywheel.lifetimes.show()}
        assert rows["flow", "technical"] == (5.0, "type technical")

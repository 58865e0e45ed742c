"""What a conversation is called: by its first question that says something, until a person names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_flywheel import Flywheel
from flywheels import Oracle, opened
from servers import Server, Servers

pytestmark = pytest.mark.anyio

GREETING, QUESTION, LATER = "hello there", "Where are the access logs kept?", "How large may they grow?"


async def titles(flywheel: Flywheel) -> dict[str, str]:
    return {session.id: session.title for session in (await flywheel.sessions.list()).sessions}


async def test_a_weak_title_gives_way_to_the_first_question_that_says_something(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        shown = []
        for question in (GREETING, "ok", QUESTION, LATER, "thanks"):
            await flywheel.ask(question, session="s")
            shown.append((await titles(flywheel))["s"])
        assert shown == [GREETING, GREETING, QUESTION, QUESTION, QUESTION]


async def test_a_title_goes_with_its_turn_and_comes_back_when_a_person_takes_theirs_away(
    redis_server: Server, tmp_path: Path
) -> None:
    async with opened(redis_server, tmp_path, {"oracle": Oracle()}) as flywheel:
        for question in (GREETING, QUESTION, LATER):
            await flywheel.ask(question, session="s")
        turns = {turn.question: turn.id for turn in (await flywheel.sessions.show("s")).turns}
        await flywheel.sessions.delete_turn("s", turns[QUESTION], dry_run=False)
        assert (await titles(flywheel))["s"] == LATER
        await flywheel.sessions.delete_turn("s", turns[LATER], dry_run=False)
        assert (await titles(flywheel))["s"] == GREETING
        await flywheel.ask(QUESTION, session="s")  # the greeting is as weak as it was
        assert (await titles(flywheel))["s"] == QUESTION
        await flywheel.sessions.rename("s", "hi")
        await flywheel.ask(LATER, session="s")
        assert (await titles(flywheel))["s"] == "hi", "what a person wrote gives way to nothing"
        assert (await flywheel.sessions.rename("s", None)).title == QUESTION


async def test_an_import_brings_titles_back_as_strong_as_they_were(servers: Servers, tmp_path: Path) -> None:
    here, there = servers.get("valkey9"), servers.get("redis62")
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    file = tmp_path / "backup.jsonl"
    async with opened(here, folders[0], {"oracle": Oracle()}) as source:
        for session, question in (("weak", GREETING), ("strong", QUESTION), ("named", GREETING)):
            await source.ask(question, session=session)
        await source.sessions.rename("named", "hi")
        expected = await titles(source)
        await source.backup.export(file)
    async with opened(there, folders[1], {"oracle": Oracle()}) as target:
        await target.backup.restore(file)
        assert await titles(target) == expected
        for session in expected:
            await target.ask("What does the archive cost?", session=session)
        after = await titles(target)
        assert after == {**expected, "weak": "What does the archive cost?"}
        assert {s.id: s.title for s in (await target.sessions.list()).sessions if not s.title_from} == {"named": "hi"}
        assert (await target.sessions.rename("named", None)).title == "What does the archive cost?"

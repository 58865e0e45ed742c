"""Whoever listens hears that something happened, and Redis is asked by nobody where nobody listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentic_flywheel.findings import FeedPage
from agentic_flywheel.following import Following, News
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 60.0


async def test_turns_changes_and_deletions_are_told_to_all_who_listen(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path, {"oracle": Oracle()}) as flywheel:
        await flywheel.ask("Before?", session="before", flow="oracle")
        async with flywheel.following.listen() as one, flywheel.following.listen() as other:
            await flywheel.ask("What is told?", session="monday", flow="oracle")
            for ear in (one, other):
                news = await ear.next(PATIENCE_SECONDS)
                assert news is not None
                assert (news.sessions, news.turns, news.deleted) == ({"monday"}, 1, 0)
                assert news.concerns("monday")
                assert not news.concerns("before")
            await flywheel.sessions.rename("before", "Renamed")
            changed = await one.next(PATIENCE_SECONDS)
            assert changed is not None
            assert (changed.sessions, changed.turns) == ({"before"}, 0)
            await flywheel.sessions.delete("monday", dry_run=False)
            gone = await one.next(PATIENCE_SECONDS)
            assert gone is not None
            assert (gone.sessions, gone.deleted) == ({"monday"}, 1)
            # The other one was busy meanwhile: it hears of all of it at once, or of what is left of it.
            heard: set[str] = set()
            while heard != {"before", "monday"}:
                late = await other.next(PATIENCE_SECONDS)
                assert late is not None
                heard |= late.sessions
        assert flywheel.following._looking is None


class Fed(Following):
    """A feed that tells what the test says."""

    def __init__(self, pages: list[FeedPage]) -> None:
        super().__init__(self)  # type: ignore[arg-type]
        self.pages = pages
        self.looked = 0

    async def ends(self) -> dict[int, str]:
        return {0: "5-0"}

    async def news(self, places: object, *, slow: bool = True) -> FeedPage:
        self.looked += 1
        return self.pages.pop(0) if self.pages else FeedPage()


async def test_what_was_lost_may_concern_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentic_flywheel.following.EVERY_SECONDS", 0.001)
    feed = Fed([FeedPage(trimmed=(0,), more=True), FeedPage(grown=("a",), events=1)])
    async with feed.listen() as ear:
        news = News()
        while not (news.lost and news.sessions):
            more = await ear.next(PATIENCE_SECONDS)
            assert more is not None
            news = news.with_more(more)
        assert news.concerns("whatever it is called")
    looking = feed.looked
    await asyncio.sleep(0)
    assert feed._looking is None
    assert feed.looked == looking
    assert await ear.next(0.0) is None

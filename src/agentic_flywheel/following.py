"""How a program hears that something happened: that turns came, that sessions changed or went.

Invariant: whoever listens is told of everything that happened after they began to, put together where they were busy
meanwhile, and never of words. However many listen, Redis is looked at by one of them all, once a second, and by nobody
where nobody listens. While Redis is away nothing is told; afterwards, all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from agentic_flywheel.errors import StoreError
from agentic_flywheel.findings import FeedPage
from agentic_flywheel.store.feed import Feed

#: How often Redis is looked at, in seconds.
EVERY_SECONDS = 1.0


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What happened: `sessions` that got turns or changed, how many `deleted` sessions and turns. `turns` counts events
    of turns; `lost` says that there was more than is known, so that everything may have changed."""

    sessions: frozenset[str] = frozenset()
    turns: int = 0
    deleted: int = 0
    lost: bool = False

    def concerns(self, session: str) -> bool:
        """Whether it may have to do with a session ("": any)."""
        return self.lost or not session or session in self.sessions

    def with_more(self, more: News) -> News:
        """Both together."""
        return News(
            sessions=self.sessions | more.sessions,
            turns=self.turns + more.turns,
            deleted=self.deleted + more.deleted,
            lost=self.lost or more.lost,
        )


class Ear:
    """One listener."""

    def __init__(self) -> None:
        self._heard: News | None = None
        self._something = asyncio.Event()

    def tell(self, news: News) -> None:
        """Let it hear."""
        self._heard = news if self._heard is None else self._heard.with_more(news)
        self._something.set()

    async def next(self, patience_seconds: float) -> News | None:
        """What has happened since the last call, waiting so long for it; None if nothing has."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._something.wait()
        self._something.clear()
        heard, self._heard = self._heard, None
        return heard


class Following:
    """Tells of what happens in one tenant.

    async with flywheel.following.listen() as ear:
        while (news := await ear.next(60)) is not None:
            print(news.sessions)
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._ears: set[Ear] = set()
        self._looking: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._places: Mapping[int, str] = {}

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Ear]:
        """Hear of what happens from now on. Raises `StoreError` where Redis cannot be asked where "now" is."""
        ear = Ear()
        async with self._beginning:
            if not self._ears:
                self._places = await self._feed.ends()
                self._looking = asyncio.create_task(self._look())
            self._ears.add(ear)
        try:
            yield ear
        finally:
            self._ears.discard(ear)
            if not self._ears and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            with contextlib.suppress(StoreError):  # who asks for something is told what is the matter
                more = True
                while more:
                    page = await self._feed.news(self._places)
                    more = page.more
                    await self._tell(page)

    async def _tell(self, page: FeedPage) -> None:
        self._places = {**self._places, **page.places}
        if page.trimmed:
            self._places = {**self._places, **await self._ends_of(page.trimmed)}
        sessions = frozenset((*page.grown, *page.changed, *page.gone, *(session for session, _ in page.gone_turns)))
        if not sessions and not page.trimmed:
            return
        news = News(
            sessions=sessions,
            turns=page.events - len(page.changed) - len(page.gone) - len(page.gone_turns),
            deleted=len(page.gone) + len(page.gone_turns),
            lost=bool(page.trimmed),
        )
        for ear in self._ears:
            ear.tell(news)

    async def _ends_of(self, shards: tuple[int, ...]) -> dict[int, str]:
        ends = await self._feed.ends()
        return {shard: ends[shard] for shard in shards}

"""What happened, one thing after the other, for who follows: turns that were asked, sessions that changed or went.

Invariant: a happening tells facts and never words, and is told to nobody who could not find the turn by searching
(`policy.visibility`). Sessions that changed or went are told to who speaks for nobody in particular and is limited to
no flow, and to who named the session. Every happening is told at least once: who goes on from the last `place` that
they were given misses nothing that the feed still holds; where it holds less, they are told that something is lost.
"""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Literal, TypeAlias

import msgspec

from agentic_flywheel.errors import InputError, StoreError
from agentic_flywheel.findings import FeedPage
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.following import Following
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.policy.visibility import audience_of, sees, sight_of
from agentic_flywheel.store.keys import SHARDS
from agentic_flywheel.store.store import Store

What: TypeAlias = Literal["began", "turn", "session_changed", "session_deleted", "turn_deleted", "lost"]
_PLACE = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; `what` it was says which other fields are set.

    `place` goes with the last one of those that were read together: to go on after it. `began` is the first of all,
    `lost` says that more happened than is known. `at` is in epoch seconds.
    """

    what: What
    place: str = ""
    session_id: str = ""
    turn_id: str = ""
    at: float | None = None
    flow: str = ""
    user: str = ""
    outcome: Outcome | None = None
    reason: Reason | None = None
    elapsed_ms: float | None = None


class Happenings:
    """What happens in one tenant.

    async for happening in flywheel.happenings.follow():
        if happening is not None:
            print(happening.what, happening.session_id)
    """

    def __init__(self, store: Store, registry: Registry, following: Following) -> None:
        self._store = store
        self._registry = registry
        self._following = following

    async def follow(
        self,
        *,
        after: str = "",
        user: str = "",
        session: str = "",
        among: Collection[str] | None = None,
        patience_seconds: float = 0.5,
    ) -> AsyncGenerator[Happening | None, None]:
        """What happens from now on, or `after` a place; None whenever nothing did for so long. It has no end.

        `user` is who looks ("" for nobody in particular), `session` the only one that is told of, `among` the only
        flows. Raises `InputError` for a place that is none, `StoreError` where Redis is away at the beginning.
        """
        places = _read(after) if after else await self._store.feed.ends()
        async with self._following.listen() as ear:
            yield Happening(what="began", place=_written(places))
            looks = True  # between the place and the first word of the ear something may have happened
            while True:
                if not looks and await ear.next(patience_seconds) is None:
                    yield None
                    continue
                try:
                    page = await self._store.feed.news(places)
                    told = await self._told(page, user=user, session=session, among=among)
                    ends = await self._store.feed.ends() if page.trimmed else {}
                except StoreError:  # told when Redis is back
                    looks = True
                    yield None
                    await asyncio.sleep(patience_seconds)
                    continue
                places = {**places, **page.places, **{shard: ends[shard] for shard in page.trimmed}}
                looks = page.more
                for happening in told[:-1]:
                    yield happening
                if told:
                    yield msgspec.structs.replace(told[-1], place=_written(places))

    async def _told(self, page: FeedPage, *, user: str, session: str, among: Collection[str] | None) -> list[Happening]:
        """What of a page is told, in the order of time."""
        named = [(place, turn) for place, turn in page.turns if session in {"", place}]
        turns = [turn for turn in await self._store.sessions.read_turns(named) if turn is not None]
        sharing = {key: spec.sharing for key, spec in self._registry.current().flows.items()}
        sight = sight_of(user, session=session, sharing=sharing)

        def shown(turn: Turn) -> bool:
            if among is not None and turn.flow not in among:
                return False
            audience = audience_of(turn.question, private=turn.private, own=turn.own)
            return sees(sight, audience=audience, flow=turn.flow, user=turn.user, session=turn.session_id)

        told = [_of(turn) for turn in sorted(turns, key=lambda turn: turn.at) if shown(turn)]
        if session or not (user or among is not None):
            gone = [("turn_deleted", place, turn) for place, turn in page.gone_turns]
            gone += [("session_deleted", place, "") for place in page.gone]
            gone += [("session_changed", place, "") for place in page.changed]
            told += [
                Happening(what=what, session_id=place, turn_id=turn)  # type: ignore[arg-type]
                for what, place, turn in gone
                if session in {"", place}
            ]
        if page.trimmed:
            told.append(Happening(what="lost"))
        return told


def _of(turn: Turn) -> Happening:
    return Happening(
        what="turn",
        session_id=turn.session_id,
        turn_id=turn.id,
        at=turn.at,
        flow=turn.flow,
        user=turn.user,
        outcome=turn.outcome,
        reason=turn.reason,
        elapsed_ms=turn.elapsed_ms,
    )


def _written(places: Mapping[int, str]) -> str:
    """Where in the feed one is, as a word that stands in headers."""
    return urlsafe_b64encode(" ".join(places[shard] for shard in range(SHARDS)).encode()).decode().rstrip("=")


def _read(place: str) -> dict[int, str]:
    try:
        parts = urlsafe_b64decode(place + "=" * (-len(place) % 4)).decode().split(" ")
    except ValueError:
        parts = []
    if len(parts) != SHARDS or not all(_PLACE.fullmatch(part) for part in parts):
        raise InputError(
            "this is no place in the feed of this service",
            suggestions=("Give the id of the last event as it was.", "Leave it out to follow from now on."),
        )
    return dict(enumerate(parts))

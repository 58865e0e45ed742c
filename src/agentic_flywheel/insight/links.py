"""Which sessions belong together: those that people tied, and those of the same user that are about the same.

Invariant: only sessions of one user are linked, to whoever may see them, and only by turns that this caller may see
without naming their session (`policy.visibility`): what is private leads nowhere. Nothing is stored of what is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from agentic_flywheel.errors import IndexUnusable, InputError, StoreError, UnknownSession
from agentic_flywheel.findings import Sight
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.history import History
from agentic_flywheel.model import Session, Turn
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.topics import FLOOR, LEAST_WORDS, Topic, likeness, rarity_of, spread, topic_of
from agentic_flywheel.policy.visibility import audience_of, sees, sight_of
from agentic_flywheel.sessions import Sessions, link_to
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.store import Store
from agentic_flywheel.threads import LinkedSessions, LinkHow, SessionLink

#: Sessions that are compared: the newest ones of the user, and those that the index finds; turns that are read of each.
_NEWEST = 30
_COMPARED = 50
_TURNS = 24
#: Words that the index is asked for.
_WORDS = 12
_SHOWN_WORDS = 5
_NO_INDEX = "Only the newest {} sessions were compared: {}."


class Links:
    """Links between the sessions of one tenant."""

    def __init__(
        self, settings: Settings, registry: Registry, store: Store, sessions: Sessions, history: History
    ) -> None:
        self._user = settings.text("user")
        self._registry = registry
        self._store = store
        self._sessions = sessions
        self._history = history

    async def of(self, session: str, *, user: str | None = None, limit: int = 5) -> LinkedSessions:
        """The sessions that belong to one: all that people tied to it, then up to `limit` on the same topic, the most
        alike first. `user` is who looks. Raises `UnknownSession`, also for another user's session."""
        if not 0 <= limit <= _COMPARED:
            raise InputError(f"0 to {_COMPARED} sessions can be found, not {limit}")
        caller = self._user if user is None else user and admit_id(user, "user")
        thread = await self._sessions.show(session, limit=_TURNS)
        owner = thread.session.owner
        if caller and owner and caller != owner:
            raise UnknownSession(f"user {caller!r} has no session {session!r}", session_id=session, user=caller)
        found: tuple[SessionLink, ...] = ()
        warnings: list[str] = list(thread.warnings)
        sight = self._sight(caller)
        topic = await asyncio.to_thread(_topic, thread.turns, sight)
        if limit and topic.weights:
            known = {session, *(link.session_id for link in thread.links)}
            candidates = await self._candidates(thread.session, topic, caller, warnings)
            found = await self._alike(topic, [one for one in candidates if one.id not in known], sight)
        return LinkedSessions(session_id=session, links=(*thread.links, *found[:limit]), warnings=tuple(warnings))

    def _sight(self, caller: str) -> Sight:
        sharing = {key: spec.sharing for key, spec in self._registry.current().flows.items()}
        return sight_of(caller, session="", sharing=sharing)

    async def _candidates(self, session: Session, topic: Topic, caller: str, warnings: list[str]) -> Sequence[Session]:
        """Sessions of the same user that may be about the same: those that the index finds, then the newest."""
        ids: dict[str, None] = {}
        query = " ".join(topic.telling(_WORDS))
        if session.owner and '"' not in session.owner:
            query += f' user:"{session.owner}"'
        try:
            page = await self._history.search(query, user=caller, limit=100)
            ids.update(dict.fromkeys(found.session_id for found in page.found))
        except (IndexUnusable, StoreError) as error:
            warnings.append(_NO_INDEX.format(_NEWEST, error.message))
        newest = await self._store.sessions.recent(user=session.owner, offset=0, count=_NEWEST)
        ids.update(dict.fromkeys(newest))
        ids.pop(session.id, None)
        headers = await self._store.sessions.headers(list(ids)[: 2 * _COMPARED])
        return [header for header in headers if header.owner == session.owner][:_COMPARED]

    async def _alike(self, topic: Topic, sessions: Sequence[Session], sight: Sight) -> tuple[SessionLink, ...]:
        """Those of these sessions that are about the same, the most alike first."""
        turns = await self._store.sessions.newest([session.id for session in sessions], count=_TURNS)
        return await asyncio.to_thread(_compared, topic, sessions, turns, sight)


def _topic(turns: Sequence[Turn], sight: Sight) -> Topic:
    """What those turns are about that may be seen without naming their session."""
    seen = [
        (turn.question, turn.answer)
        for turn in turns
        if sees(
            sight,
            audience=audience_of(turn.question, private=turn.private, own=turn.own),
            flow=turn.flow,
            user=turn.user,
            session=turn.session_id,
        )
    ]
    return topic_of(spread(seen))


def _compared(
    topic: Topic, sessions: Sequence[Session], turns: Sequence[Sequence[Turn]], sight: Sight
) -> tuple[SessionLink, ...]:
    topics = [_topic(own, sight) for own in turns]
    rarity = rarity_of([topic, *topics])
    found = []
    for session, other in zip(sessions, topics, strict=True):
        share, words = likeness(topic, other, rarity)
        if share >= FLOOR and len(words) >= LEAST_WORDS:
            link = link_to(session, LinkHow.FOUND)
            found.append(msgspec.structs.replace(link, likeness=share, words=words[:_SHOWN_WORDS]))
    return tuple(sorted(found, key=lambda link: (-(link.likeness or 0.0), link.session_id)))

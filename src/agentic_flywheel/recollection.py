"""What the store knows that bears on a question: its session's turns, its flow's state, the candidates for an answer.

Invariant: one round trip where the prediction holds. The candidates' keys depend on the session's turns, so they are
predicted from what this process saw of the session last; a wrong prediction costs one more read, never a wrong
candidate. A store that fails is an answer too: nothing is known, and `error` says why.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import StoreError, UnknownSession
from agentic_flywheel.model import FlowState, Session, Turn
from agentic_flywheel.policy.decision import Found
from agentic_flywheel.questions import Asked, Plan, Planner
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.flow_states import seconds_of
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.recalled import Recalled, recalled_with
from agentic_flywheel.store.store import Store
from agentic_flywheel.store.wire import Refusal

#: Sessions whose last turns this process remembers, to predict where their next question is looked up.
SESSIONS_REMEMBERED = 4096

_log = logging.getLogger(__name__)
_NO_STATE = FlowState()
_UNKNOWN = Recalled()


class Read(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What the store said. `error` is set where it could not be asked; then nothing was found. `commands` and
    `replies` are what was asked and said, word for word, for questions without a session."""

    recalled: Recalled
    state: FlowState
    type_ttl: float | None
    found: tuple[Found, ...]
    error: StoreError | None = None
    commands: Sequence[Command] = ()
    replies: Sequence[Any] = ()

    def without_store(self, error: StoreError) -> Read:
        """The same question with a store that failed after all."""
        found = tuple(Found(found.wanted) for found in self.found)
        return Read(recalled=self.recalled, state=_NO_STATE, type_ttl=None, found=found, error=error)


class Recollection:
    """Reads for the questions of one tenant."""

    def __init__(self, planner: Planner, store: Store, behind: WriteBehind) -> None:
        self._planner = planner
        self._store = store
        self._behind = behind
        self._remembered: OrderedDict[str, Recalled] = OrderedDict()

    async def look(self, asked: Asked) -> tuple[Plan, Read]:
        """Where the question goes, and what is stored for it. Raises `UnknownSession` for another user's session."""
        waiting = await self._waiting(asked) if asked.resumed else ()
        known = recalled_with(self._remembered.get(asked.session, _UNKNOWN), waiting) if asked.resumed else _UNKNOWN
        plan = self._planner.plan(asked, known)
        try:
            read = await self._read(asked, plan, recall=asked.resumed, waiting=waiting)
            if asked.resumed:
                _check_owner(asked, read.recalled)
                if not _alike(read.recalled, known):
                    actual = self._planner.plan(asked, read.recalled)
                    if actual.wanted != plan.wanted or actual.spec is not plan.spec:
                        again = await self._read(asked, actual, recall=False)
                        read = msgspec.structs.replace(again, recalled=read.recalled)
                    plan = actual
        except StoreError as error:
            _check_owner(asked, known)
            _log.debug("asked without the store: %s", error)
            nothing = tuple(Found(wanted) for wanted in plan.wanted)
            read = Read(recalled=known, state=_NO_STATE, type_ttl=None, found=nothing, error=error)
        return plan, read

    def remember(self, recalled: Recalled, turn: Turn) -> None:
        """Note that a turn was appended to the session as it was recalled."""
        session = recalled.session or Session(id=turn.session_id, owner=turn.user, created_at=turn.at)
        count = max(1, self._planner.turns, len(recalled.turns))
        self._remembered[turn.session_id] = Recalled(
            msgspec.structs.replace(session, flow=turn.flow, turns=session.turns + 1, last_active_at=turn.at),
            (*recalled.turns, turn)[-count:],
            recalled.first or turn,
        )
        self._remembered.move_to_end(turn.session_id)
        while len(self._remembered) > SESSIONS_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _waiting(self, asked: Asked) -> tuple[Turn, ...]:
        """The session's turns that Redis has not been given yet, so that a follow-up knows of them."""
        try:
            return await self._store.outbox.turns(asked.session)
        except StoreError as error:
            _log.warning("asked without the outbox: %s", error)
            return ()

    async def _read(self, asked: Asked, plan: Plan, *, recall: bool, waiting: Sequence[Turn] = ()) -> Read:
        store, spec = self._store, plan.spec
        turns = max(self._planner.turns, self._planner.turns_of(spec))
        commands = store.sessions.recall_commands(asked.session, turns) if recall else []
        if waiting:
            commands.append(store.sessions.present_command(asked.session, [turn.id for turn in waiting]))
        flow_at = len(commands)
        commands.append(store.flows.read_command(spec.key))
        commands.append(store.flows.type_ttl_command(spec.type))
        commands += [("GET", wanted.key) for wanted in plan.wanted]
        replies = await store.link.run_each(*commands)
        store.outbox.notice()
        for reply in replies[: flow_at + 2]:
            if isinstance(reply, Refusal):
                raise store.link.error(reply, "reading a session and its flow") from reply
        try:
            read = self._understood(asked, plan, replies, flow_at=flow_at, recall=recall, waiting=waiting)
        except NONSENSE as error:
            raise nonsense(error, "a session and its flow") from error
        return read if asked.resumed else msgspec.structs.replace(read, commands=commands, replies=replies)

    def _understood(
        self, asked: Asked, plan: Plan, replies: Sequence[Any], *, flow_at: int, recall: bool, waiting: Sequence[Turn]
    ) -> Read:
        store, spec = self._store, plan.spec
        state, type_ttl, *values = replies[flow_at:]
        found = []
        for wanted, value in zip(plan.wanted, values, strict=True):
            looked = store.entries.looked(value)
            if looked.damaged:
                self._behind.count(spec.key, asked.at, damaged=1)
            found.append(Found(wanted, looked.entry, looked.damaged))
        recalled = store.sessions.recalled(replies[:3]) if recall else _UNKNOWN
        if any(turn.session_id != asked.session for turn in recalled.turns):
            raise ValueError("turns of another session")
        if waiting:
            places = replies[flow_at - 1]
            recalled = recalled_with(
                recalled, [turn for turn, place in zip(waiting, places, strict=True) if place is None]
            )
        return Read(
            recalled=recalled,
            state=store.flows.state_of(state),
            type_ttl=seconds_of(type_ttl),
            found=tuple(found),
        )


def _check_owner(asked: Asked, recalled: Recalled) -> None:
    owner = recalled.session.owner if recalled.session else ""
    if owner and asked.user and owner != asked.user:
        raise UnknownSession(
            f"user {asked.user!r} has no session {asked.session!r}", session_id=asked.session, user=asked.user
        )


def _alike(one: Recalled, other: Recalled) -> bool:
    """Whether two readings of a session lead to the same plan."""
    if one.session is None or other.session is None:
        return one.session is other.session
    return (
        one.session.flow == other.session.flow
        and one.session.config == other.session.config
        and [turn.id for turn in one.turns] == [turn.id for turn in other.turns]
    )

"""What the store knows that bears on a question: its session's turns, its flow's state, the candidates for an answer.

Invariant: one round trip where the prediction holds. The candidates' keys depend on the session's turns, so they are
predicted from what this process saw of the session last; a wrong prediction costs one more read, never a wrong
candidate. Turns further back come in the same round trip where this process does not know them. A store that fails is
an answer too: nothing is known, and `error` says why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import StoreError, UnknownSession
from agentic_flywheel.known_policies import KnownPolicies
from agentic_flywheel.model import FlowState, Turn
from agentic_flywheel.observe.names import Span
from agentic_flywheel.policy.decision import Found
from agentic_flywheel.policy.relevance import Earlier
from agentic_flywheel.questions import Asked, Plan, Planner
from agentic_flywheel.remembered import (
    UNKNOWN,
    Conversation,
    Remembered,
    continued,
    further_back,
    read_further,
    with_waiting,
)
from agentic_flywheel.store.entries import Looked
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.flow_states import seconds_of
from agentic_flywheel.store.gone import is_gone
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.recalled import Recalled
from agentic_flywheel.store.store import Store
from agentic_flywheel.store.wire import Refusal

_log = logging.getLogger(__name__)
_NO_STATE = FlowState()


class Read(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What the store said. `error` is set where it could not be asked; then nothing was found. `commands` and
    `replies` are what was asked and said, word for word, for questions without a session."""

    known: Conversation = UNKNOWN
    state: FlowState
    type_ttl: float | None
    policies: str | None = None  # their version
    found: tuple[Found, ...]
    error: StoreError | None = None
    commands: Sequence[Command] = ()
    replies: Sequence[Any] = ()

    @property
    def recalled(self) -> Recalled:
        """The session's newest turns and its first one."""
        return self.known.recalled

    def without_withheld(self, plan: Plan) -> Read:
        """The same without answers that were stored before and hold what may not be kept any more."""
        held = plan.kept.holds_back_entry
        found = tuple(Found(one.wanted) if one.entry and held(one.entry) else one for one in self.found)
        return msgspec.structs.replace(self, found=found)

    def without_store(self, error: StoreError) -> Read:
        """The same question with a store that failed after all."""
        found = tuple(Found(found.wanted) for found in self.found)
        return Read(known=self.known, state=_NO_STATE, type_ttl=None, found=found, error=error)


class Recollection:
    """Reads for the questions of one tenant."""

    def __init__(self, planner: Planner, store: Store, behind: WriteBehind, policies: KnownPolicies) -> None:
        self._planner = planner
        self.policies = policies
        self._store = store
        self._behind = behind
        self._remembered = Remembered()

    async def look(self, asked: Asked, *, after: Conversation = UNKNOWN) -> tuple[Plan, Read]:
        """Where the question goes, and what is stored for it. Raises `UnknownSession` for another user's session.

        `after` is the conversation before a question that nobody has asked in a session.
        """
        known = remembered = self._remembered.get(asked.session) if asked.resumed else after
        waiting = await self._waiting(asked) if asked.resumed else ()
        if waiting:
            known = with_waiting(remembered, waiting)
        plan = self._planner.plan(asked, known)
        try:
            if not asked.resumed:
                read = await self._read(asked, plan)
                if read.policies != self.policies.version:
                    plan, read = await self._anew(asked, plan, known, read)
                return plan, read if after is UNKNOWN else msgspec.structs.replace(read, known=after)
            if asked.among is not None:
                await self._check_flows(asked)
            read = await self._recall(asked, plan, remembered, waiting)
            guess, known = known, read.known
            _check_owner(asked, known.recalled)
            changed = await self.policies.follow(read.policies or "")
            actual, known = await self._planned(asked, plan, guess, known, changed=changed)
            if actual.wanted != plan.wanted or actual.spec is not plan.spec:
                read = await self._read(asked, actual)
            return actual, msgspec.structs.replace(read, known=known, commands=(), replies=())
        except StoreError as error:
            asked.mark(*((Span.RECALL, Span.LOOK_UP) if asked.resumed else (Span.LOOK_UP,)))
            _check_owner(asked, known.recalled)
            _log.debug("asked without the store: %s", error)
            self.policies.fall_back()
            plan = self._planner.plan(asked, known)  # what had been read by then is not lost
            nothing = tuple(Found(wanted) for wanted in plan.wanted)
            return plan, Read(known=known, state=_NO_STATE, type_ttl=None, found=nothing, error=error)

    def remember(self, plan: Plan, known: Conversation, turn: Turn) -> None:
        """Note that a turn was appended to the session as it was known."""
        self._remembered.add(known, turn, window=self._planner.window(plan.registry))

    async def _waiting(self, asked: Asked) -> tuple[Turn, ...]:
        """The session's turns that Redis has not been given yet, so that a follow-up knows of them."""
        try:
            return await self._store.outbox.turns(asked.session)
        except StoreError as error:
            _log.warning("asked without the outbox: %s", error)
            return ()

    async def _anew(self, asked: Asked, plan: Plan, known: Conversation, read: Read) -> tuple[Plan, Read]:
        """Plan again, under the policies that hold now."""
        if not await self.policies.follow(read.policies or ""):
            return plan, read
        actual = self._planner.plan(asked, known)
        return actual, read if actual.wanted == plan.wanted else await self._read(asked, actual)

    async def _planned(
        self, asked: Asked, plan: Plan, guess: Conversation, known: Conversation, *, changed: bool
    ) -> tuple[Plan, Conversation]:
        """The plan that holds for what is known of the session, and that, with turns further back where they count."""
        if changed or not _alike(guess, known):
            plan = self._planner.plan(asked, known)
        if self._planner.looks_back(asked, plan.spec) and not known.reaches_back():
            command = further_back(self._store.sessions, asked.session, self._planner.window(plan.registry))
            (reply,) = await self._store.link.run(command)
            asked.mark(Span.RECALL)
            known = read_further(known.recalled, *self._further(asked, reply))
            plan = self._planner.plan(asked, known)
        return plan, known

    async def _recall(self, asked: Asked, plan: Plan, remembered: Conversation, waiting: Sequence[Turn]) -> Read:
        """Read the session and, on the strength of what was remembered of it, what is stored for the question.

        Which of the turns that wait are there is asked first: one that is delivered meanwhile then comes up in what is
        read after it, or is still taken for one that waits.
        """
        sessions = self._store.sessions
        window = self._planner.window(plan.registry)
        commands = [sessions.present_command(asked.session, [turn.id for turn in waiting])] if waiting else []
        commands += sessions.recall_commands(asked.session, window)
        reads_back = self._planner.looks_back(asked, plan.spec) and not remembered.reaches_back()
        if reads_back:
            commands.append(further_back(sessions, asked.session, window))
        read = await self._read(asked, plan, *commands)
        places, replies = (read.replies[0], read.replies[1:]) if waiting else ((), read.replies)
        try:
            recalled = sessions.recalled(replies[:3])
            if any(turn.session_id != asked.session for turn in recalled.turns):
                raise ValueError("turns of another session")
        except NONSENSE as error:
            raise nonsense(error, "a session") from error
        absent = [turn for turn, place in zip(waiting, places, strict=True) if place is None]
        if reads_back:
            known = read_further(recalled, *self._further(asked, replies[3]))
        else:
            known = continued(remembered, recalled)
        known = with_waiting(known, absent)
        return msgspec.structs.replace(read, known=known)

    async def _check_flows(self, asked: Asked) -> None:
        """Raises `UnknownSession` for a session in which another flow answered than those that the asker knows of."""
        turns, _ = await self._store.sessions.turns(asked.session)
        if any(turn.flow not in (asked.among or ()) for turn in turns):
            raise _unknown(asked)

    def _further(self, asked: Asked, reply: Any) -> tuple[list[tuple[Turn, int]], int]:
        """The turns further back in a session, as they were read; and how many could not be."""
        try:
            stored, damaged = self._store.sessions.earlier(reply)
        except NONSENSE as error:
            raise nonsense(error, "the earlier turns of a session") from error
        return [(turn, size) for turn, size in stored if turn.session_id == asked.session], damaged

    async def _read(self, asked: Asked, plan: Plan, *first: Command) -> Read:
        """What is stored for the question; the replies to the commands that go `first` are left in `replies`."""
        store, spec = self._store, plan.spec
        commands = [*first, store.flows.read_command(spec.key), store.flows.type_ttl_command(spec.type)]
        commands.append(store.policies.version_command())
        commands += [("GET", wanted.key) for wanted in plan.wanted]
        replies = await store.link.run_each(*commands)
        asked.mark(*((Span.RECALL, Span.LOOK_UP) if first else (Span.LOOK_UP,)))
        store.outbox.notice()
        for reply in replies[: len(first) + 3]:
            if isinstance(reply, Refusal):
                raise store.link.error(reply, "reading a session and its flow") from reply
        try:
            read = self._understood(asked, plan, replies[len(first) :])
        except NONSENSE as error:
            raise nonsense(error, "a flow and its answers") from error
        return msgspec.structs.replace(read, commands=commands, replies=replies[: len(first)] if first else replies)

    def _understood(self, asked: Asked, plan: Plan, replies: Sequence[Any]) -> Read:
        store, spec = self._store, plan.spec
        said, type_ttl, policies, *values = replies
        state = store.flows.state_of(said)
        found = []
        for wanted, value in zip(plan.wanted, values, strict=True):
            looked = store.entries.looked(value)
            if state.gone and looked.entry is not None and is_gone(looked.entry, state.gone):
                looked = Looked(damaged=True)  # forgotten, and put back by somebody
            if looked.damaged:
                self._behind.count(spec.key, asked.at, damaged=1)
            found.append(Found(wanted, looked.entry, looked.damaged))
        return Read(
            state=state,
            type_ttl=seconds_of(type_ttl),
            policies=store.policies.version_of(policies),
            found=tuple(found),
        )


def _check_owner(asked: Asked, recalled: Recalled) -> None:
    owner = recalled.session.owner if recalled.session else ""
    if asked.among is not None and any(turn.flow not in asked.among for turn in recalled.turns):
        raise _unknown(asked)
    if owner and asked.user and owner != asked.user:
        raise UnknownSession(
            f"user {asked.user!r} has no session {asked.session!r}", session_id=asked.session, user=asked.user
        )


def _unknown(asked: Asked) -> UnknownSession:
    return UnknownSession(f"no session {asked.session!r}", session_id=asked.session)


def _alike(one: Conversation, other: Conversation) -> bool:
    """Whether two readings of a session lead to the same plan."""
    here, there = one.recalled, other.recalled
    if here.session is None or there.session is None:
        return here.session is there.session
    return (
        here.session.flow == there.session.flow
        and here.session.config == there.session.config
        and [turn.id for turn in here.turns] == [turn.id for turn in there.turns]
        and (one.earlier is other.earlier or _ids(one.earlier) == _ids(other.earlier))
    )


def _ids(earlier: Sequence[Earlier] | None) -> list[str]:
    return [turn.id for turn in earlier or ()]

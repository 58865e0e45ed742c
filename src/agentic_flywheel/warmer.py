"""Asking a flow what nobody has asked yet: the way of a question, without an asker.

Invariant: the same planning, look-up, lease and storing as for a person, so that the answer lies where a person's
question finds it; but no turn, no session, no count as somebody's question, and no place that somebody who asks needs.
The place comes first and the lease after it: whoever asks the same meanwhile never waits behind a call that waits.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import msgspec

from agentic_flywheel.admission import Admission, Spare
from agentic_flywheel.asking import Asking
from agentic_flywheel.calling import Calling
from agentic_flywheel.errors import FlowError
from agentic_flywheel.flights import Flights, Landed
from agentic_flywheel.learning import Learning
from agentic_flywheel.model import Entry, Outcome, Reason, Session, Turn
from agentic_flywheel.near import NearCache
from agentic_flywheel.personal_data import spoken
from agentic_flywheel.policy.decision import Ask, Bypass, Serve, ends_soon
from agentic_flywheel.policy.warming import refusal
from agentic_flywheel.questions import Planner
from agentic_flywheel.remembered import Conversation
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step, flight_of
from agentic_flywheel.store.recalled import Recalled
from agentic_flywheel.warmups import NotWarmed

#: Where nobody waits, Redis may take its time: seconds before each further attempt at a look-up.
_PATIENCE = (0.2, 1.0, 3.0)


class Called(msgspec.Struct, frozen=True):
    """What came of asking: how the flight landed, or its failure; and whether it cost a call of the flow."""

    landed: Landed | None = None
    error: FlowError | None = None
    called: bool = False


class Warmer:
    """Asks for the answers of one tenant's warm-ups."""

    def __init__(
        self,
        settings: Settings,
        planner: Planner,
        asking: Asking,
        calling: Calling,
        flights: Flights,
        admission: Admission,
        learning: Learning,
        near: NearCache | None,
    ) -> None:
        self._planner = planner
        self._asking = asking
        self._calling = calling
        self._flights = flights
        self._admission = admission
        self._learning = learning
        self._near = near
        self._refresh_after = settings.number("ttl.refresh_after")

    async def look(self, question: str, *, flow: str = "", after: Conversation) -> Step:
        """A question as somebody would ask it after these turns: planned and looked up.

        Raises `InputError`, `NotFound`, `FlowError` where it cannot be asked, and `StoreError`.
        """
        asked = self._planner.admit(question, flow=flow or None, user="")
        asked = msgspec.structs.replace(asked, session="")
        step = await self._asking.look(asked, after=after)
        for pause in _PATIENCE:
            if step.read.error is None:
                return step
            await asyncio.sleep(pause)
            step = await self._asking.look(asked, after=after)
        if step.read.error is not None:
            raise step.read.error
        return step

    def refusal(self, step: Step, *, standalone: bool = False) -> tuple[NotWarmed, str] | None:
        """Why policy does not let this question be warmed; None where it may be."""
        spec = step.plan.spec
        return refusal(
            step.asked.text,
            sharing=spec.sharing,
            acts=spec.acts,
            calls_per_minute=spec.calls_per_minute,
            follow_up=step.read.recalled.session is not None,
            standalone=standalone,
            kept=step.plan.privacy.cache,
            holds=spoken(step.plan.kept.sensitive | {one.kind for one in step.plan.kept.found}),
            withdrawn=isinstance(step.decision, Bypass) and step.decision.reason is Reason.WITHDRAWN,
        )

    def fresh(self, step: Step) -> Entry | None:
        """The stored answer that somebody who asks is given, unless it is about to end."""
        decision = step.decision
        if not isinstance(decision, Serve):
            return None
        facts = msgspec.structs.replace(step.facts, refresh_after=self._refresh_after)
        if decision.wanted is step.plan.wanted[0] and ends_soon(decision.entry, facts, decision.ttl_seconds):
            return None
        return decision.entry

    def place(self, step: Step) -> AbstractAsyncContextManager[Spare]:
        """A place among the calls of the question's flow, to be held around `call`; it may take long to get one."""
        return self._admission.spare(step.plan.spec)

    async def call(self, step: Step, spare: Spare) -> Called:
        """Ask the flow and store its answer, or hear it from whoever is asking. A failure is a value too: `GaveWay`
        where somebody who asks needed the place."""
        name = flight_of(step)
        if (under_way := self._flights.under_way(name)) is not None:  # somebody's question: it is answered anyway
            try:
                return Called(await under_way.landed())
            except FlowError as error:
                return Called(error=error)
        reason = step.decision.reason if isinstance(step.decision, Ask) else Reason.EXPIRED
        kept = msgspec.structs.replace(step, decision=Ask(reason))
        flight = self._flights.launch(
            name, lambda flight: self._calling.fly(kept, flight, shared=name, refresh=True, spare=spare)
        )
        try:
            landed = await flight.landed()
        except FlowError as error:
            return Called(error=error, called=flight.called)
        if landed.own and landed.stored:
            if self._near is not None:
                self._near.forget(step.plan.wanted[0].key)
            if isinstance(step.decision, Serve):
                self._learning.after_refresh(step, landed)
            await self._learning.after_warming(kept, landed.entry)
        return Called(landed, called=landed.own)


def followed(after: Conversation, step: Step, entry: Entry) -> Conversation:
    """A conversation in which this question, too, was asked and given this answer."""
    spec, before = step.plan.spec, after.recalled
    turn = Turn(
        id=step.asked.turn,
        session_id="",
        at=step.asked.at,
        question=step.asked.text,
        answer=entry.answer,
        flow=spec.key,
        fingerprint=entry.fingerprint,
        outcome=Outcome.HIT,
        reason=Reason.EXACT,
        trace_id=step.asked.trace,
    )
    session = Session(id="", flow=spec.key, turns=len(before.turns) + 1)
    return Conversation(Recalled(session, (*before.turns, turn), before.first or turn))

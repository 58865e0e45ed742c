"""Questions that this process has answered from Redis before, recognised by what Redis says of them.

Invariant: Redis is asked every time, for exactly what the whole way would ask it, and so are registry and flow. Only
if every byte of the reply is what it was when the question last went the whole way is the same decision taken again
without being thought through again; whatever differs, in what is asked, said or in force, goes the whole way. One thing
may differ: that the flow was checked once more, and found to be what it was.

So a hit on a question that is asked often costs the round trip and little more (docs/performance.md). Kept are
answers to questions without session, directives and overrides, no more than `MOST_BYTES` of them.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from agentic_flywheel.behind import Repeat, WriteBehind, repeated
from agentic_flywheel.counting import Counted, IntentLabels, answered
from agentic_flywheel.errors import FlowError, StoreError
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.snapshot import RegistrySnapshot
from agentic_flywheel.identifiers import new_id, new_session_id
from agentic_flywheel.model import Answer, Reason, Turn
from agentic_flywheel.policy.decision import Serve
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step, turn_of
from agentic_flywheel.store.store import Store
from agentic_flywheel.watching import FlowWatch, Standing

#: Memory that all kept answers may take, with what Redis said of them.
MOST_BYTES = 16_000_000
_OVERHEAD_BYTES = 3000

Name = tuple[str, str | None, str, str | None]


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A question that went the whole way: what Redis was asked and said, and what came of it."""

    registry: RegistrySnapshot
    step: Step
    standing: Standing
    commands: Sequence[Any]
    replies: Sequence[Any]
    answer: Answer
    turn: Turn
    born: float
    life: float
    good_until: float
    counted: Counted
    size: int


class Familiar:
    """The familiar questions of one process."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        clients: ClientPool,
        watch: FlowWatch,
        behind: WriteBehind,
    ) -> None:
        self._registry = registry
        self._store = store
        self._clients = clients
        self._watch = watch
        self._behind = behind
        self._labels = IntentLabels()
        self._user = settings.text("user")
        self._refresh_after = settings.number("ttl.refresh_after")
        self._known: OrderedDict[Name, _Known] = OrderedDict()
        self.size_bytes = 0

    async def answer(
        self, question: str, flow: str | None, user: str | None, intent: str | None, *, trace: str = ""
    ) -> Answer | None:
        """The answer to a question without session and directives, if all is as it was; None: go the whole way."""
        name = (question, flow, self._user if user is None else user, intent)
        known = self._known.get(name)
        if known is None or self._behind.crowded:
            return None
        started, now = time.perf_counter(), time.time()
        if not known.born <= now < known.good_until or self._registry.current() is not known.registry:
            self._forget(name)
            return None
        confirmed = await self._confirmed(known, now)
        if confirmed is None:
            self._forget(name)
            return None
        elapsed = (time.perf_counter() - started) * 1000
        id_ = new_id()
        again = Repeat(known.turn, new_session_id(), id_, trace or id_, now, elapsed, known.counted, near=False)
        if not self._behind.repeat(again):
            return None
        if self._known.get(name) is known:
            self._known[name] = confirmed
            self._known.move_to_end(name)
        return repeated(known.answer, again, born=known.born, life=known.life)

    async def _confirmed(self, known: _Known, now: float) -> _Known | None:
        """The question, where Redis and the flow say what they said before; None where they do not, or fail to say."""
        spec = known.step.plan.spec
        try:
            with self._store.link.patience():
                replies = await self._store.link.run_each(*known.commands)
                if replies != known.replies:
                    checked = self._checked(known, replies)
                    if checked is None:
                        return None
                    known = checked
                self._store.outbox.notice()
                state, client = known.step.read.state, self._clients.at_hand(spec)
                standing = None if client is None else self._watch.known(spec, client, state, now=now)
                if standing is None:
                    async with self._clients.use(spec) as client:
                        standing = await self._watch.standing(spec, client, state, now=now)
        except (StoreError, FlowError):
            return None
        return known if standing == known.standing else None

    def _checked(self, known: _Known, replies: Sequence[Any]) -> _Known | None:
        """The question with the flow's state as it is said now, where that differs in a check and nothing else does."""
        flow, *others = replies  # in the order of `Recollection`
        if others != known.replies[1:] or not isinstance(flow, list):
            return None
        state = self._store.flows.state_of(flow)
        if state.lasting != known.step.read.state.lasting:
            return None
        read = msgspec.structs.replace(known.step.read, state=state, replies=[flow, *known.replies[1:]])
        step = msgspec.structs.replace(known.step, read=read)
        return msgspec.structs.replace(known, step=step, replies=read.replies)

    def keep(self, step: Step, answer: Answer) -> None:
        """Keep a question that was just answered from Redis, if another like it would be answered alike."""
        asked, decision, read = step.asked, step.decision, step.read
        if not asked.plain or not step.plan.privacy.history:  # every hit leaves a turn
            return
        if not isinstance(decision, Serve) or decision.reason not in {Reason.EXACT, Reason.CURATED}:
            return
        if decision.refresh or (step.facts.lifetime.sliding and decision.reason is Reason.EXACT):
            return
        if answer.warnings or not read.replies:
            return
        turn = turn_of(step, answer)
        if turn.answer != answer.text:  # kept with holes, as a trace of it would have to be
            return
        entry, facts = decision.entry, step.facts
        life = answer.age_seconds + decision.ttl_seconds
        size = _OVERHEAD_BYTES + sum(map(sys.getsizeof, (answer.text, answer.question, *read.replies)))
        name = (asked.text, asked.flow, asked.user, asked.intent)
        self._forget(name)
        self._known[name] = _Known(
            registry=step.plan.registry,
            step=step,
            standing=Standing(facts.fingerprint, facts.generation, facts.verified),
            commands=read.commands,
            replies=read.replies,
            answer=answer,
            turn=turn,
            born=entry.created_at,
            life=life,
            good_until=entry.created_at + life * min(1.0, self._refresh_after),
            counted=answered(step, answer, entry, self._labels),
            size=size,
        )
        self.size_bytes += size
        while self.size_bytes > MOST_BYTES:
            self._forget(next(iter(self._known)))

    def _forget(self, name: Name) -> None:
        known = self._known.pop(name, None)
        if known is not None:
            self.size_bytes -= known.size

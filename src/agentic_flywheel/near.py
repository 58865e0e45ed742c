"""The near cache: answers that this process served a moment ago, without asking Redis again.

Invariant: what is served from here was true in Redis at most `near.max_staleness_seconds` ago. The server itself says
what has changed (`store.tracking`); when it falls silent, nothing is served from here any more. The registry is looked
at with every question, and the flow at least once per `near.max_staleness_seconds`: in the background once half of that
has passed, by a question that goes the whole way once all of it has. Once anything of a flow was written, nothing of it
is served before a question that began later has found the flow as it was, as it is after a mere check. Only answers
that the whole team shares are kept, only for questions without session, directives and overrides, and no more than
`near.max_megabytes` of them.

Every such hit leaves a turn and is counted like any other; both are written behind.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections import OrderedDict, deque
from typing import NamedTuple

import msgspec

from agentic_flywheel.behind import Repeat, WriteBehind, repeated
from agentic_flywheel.counting import Counted, IntentLabels, answered
from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.flows.snapshot import RegistrySnapshot
from agentic_flywheel.identifiers import new_id, new_session_id
from agentic_flywheel.model import Answer, FlowState, Reason, Turn
from agentic_flywheel.policy.decision import Serve
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step, turn_of
from agentic_flywheel.store.store import Store
from agentic_flywheel.store.tracking import Tracking
from agentic_flywheel.watching import FlowWatch, Standing

#: However well the channel does, an answer is read from Redis again after so long: nothing that a server or what stands
#: before it forgets to tell (SWAPDB, for one) lasts.
LONGEST_SECONDS = 10.0
#: Changes heard lately, to see whether one came between a read and its keeping.
_CHANGES_KEPT = 256
#: What one kept answer costs besides its texts, in bytes, index and all: measured at 2,350.
_OVERHEAD_BYTES = 2500

_log = logging.getLogger(__name__)

Name = tuple[str, str | None, str, str | None]


class Moment(NamedTuple):
    """When a question began: how many changes were heard until then, the monotonic clock, the registry in force."""

    changes: int
    at: float
    registry: RegistrySnapshot


class _Flow:
    """What a flow answered with when it was last looked at; `looking` is a look that is under way.

    `written` is how many changes had been heard when one was of the flow itself: what began before does not count.
    """

    __slots__ = ("bound", "looked_at", "looking", "spec", "standing", "state", "written")

    def __init__(self, spec: FlowSpec, standing: Standing, state: FlowState) -> None:
        self.spec = spec
        self.standing = standing
        self.state = state
        self.bound = 0.0
        self.looked_at = -math.inf
        self.looking: asyncio.Task[None] | None = None
        self.written = 0

    def seen(self, at: float, *, changes: int) -> None:
        """Note a look that found it as it was, and that began at `at`, when so many changes had been heard."""
        if changes >= self.written:
            self.looked_at = max(self.looked_at, at)

    def doubt(self, changes: int) -> None:
        """Believe nothing of it before it is looked at anew; so many changes were heard."""
        self.written = changes
        self.looked_at = -math.inf


class _Kept:
    """One answer, ready to be served again."""

    __slots__ = (
        "answer",
        "born",
        "counted",
        "flow",
        "good_until",
        "keys",
        "life",
        "read_at",
        "registry",
        "size",
        "turn",
    )

    def __init__(
        self,
        answer: Answer,
        turn: Turn,
        flow: _Flow,
        keys: tuple[bytes, ...],
        since: Moment,
        counted: Counted,
        *,
        born: float,
        life: float,
        good: float,
    ) -> None:
        self.answer = answer
        self.turn = turn
        self.flow = flow
        self.keys = keys
        self.read_at = since.at
        self.registry = since.registry
        self.born = born
        self.life = life
        self.good_until = born + life * good
        self.counted = counted
        texts = [answer.text, answer.question, turn.question]
        texts += [text for source in answer.sources for text in (source.title, source.uri, source.excerpt)]
        self.size = _OVERHEAD_BYTES + sum(map(sys.getsizeof, texts))


class NearCache:
    """The answers that one process keeps at hand; made only where `near.enabled` is set, and not for a cluster: there a
    channel tells of one server's changes alone."""

    def __init__(
        self, settings: Settings, registry: Registry, store: Store, watch: FlowWatch, behind: WriteBehind
    ) -> None:
        self._registry = registry
        self._store = store
        self._watch = watch
        self._behind = behind
        self._room = int(settings["near.max_megabytes"]) * 1_000_000
        self._bound = settings.number("near.max_staleness_seconds")
        self._check_every = settings.number("flow.check_every_seconds")
        self._labels = IntentLabels()
        self._user = settings.text("user")
        self._refresh_after = settings.number("ttl.refresh_after")
        self._kept: OrderedDict[Name, _Kept] = OrderedDict()
        self._by_key: dict[bytes, set[Name]] = {}
        self._flows: dict[str, _Flow] = {}
        self._flow_at: dict[bytes, _Flow] = {}
        self._changes: deque[tuple[int, frozenset[bytes] | None]] = deque(maxlen=_CHANGES_KEPT)
        self._heard = 0
        self._closed = False
        self.size_bytes = 0
        self.channel = Tracking(
            store.link,
            store.keys.shared_prefixes(),
            canary=store.keys.mark(f"near-{new_id()}"),
            bound=self._bound,
            on_change=self._changed,
        )

    def now(self) -> Moment:
        """The moment before a question is looked up: what is read later is kept only if nothing changed since."""
        return Moment(self._heard, time.monotonic(), self._registry.current())

    def answer(
        self, question: str, flow: str | None, user: str | None, intent: str | None, *, trace: str = ""
    ) -> Answer | None:
        """The answer to a question without session and directives, if it is at hand and may be relied on."""
        started = time.perf_counter()
        name = (question, flow, self._user if user is None else user, intent)
        kept = self._kept.get(name)
        if kept is None:
            return None
        monotonic, now = time.monotonic(), time.time()
        looked = kept.flow
        if monotonic > self.channel.trusted_until or monotonic > looked.looked_at + looked.bound:
            return None
        if monotonic > kept.read_at + LONGEST_SECONDS or not kept.born <= now < kept.good_until:
            return None
        if self._registry.current() is not kept.registry:
            return None
        if monotonic > looked.looked_at + looked.bound / 2 and looked.looking is None:
            looked.looking = asyncio.get_running_loop().create_task(self._look_ahead(looked))
        elapsed = (time.perf_counter() - started) * 1000
        id_ = new_id()
        again = Repeat(kept.turn, new_session_id(), id_, trace or id_, now, elapsed, kept.counted)
        if not self._behind.repeat(again):
            return None  # too much is waiting to be written: an asker who waits for Redis lets it drain
        self._kept.move_to_end(name)
        return repeated(kept.answer, again, born=kept.born, life=kept.life)

    def keep(self, step: Step, answer: Answer, *, since: Moment) -> None:
        """Keep an answer that was just served from Redis, unless something changed `since` its question began."""
        asked, decision, facts, spec = step.asked, step.decision, step.facts, step.plan.spec
        if self._closed or not isinstance(decision, Serve) or decision.reason not in {Reason.EXACT, Reason.CURATED}:
            return
        looked = self._look(step, since)
        if not asked.plain or not step.plan.privacy.history:  # every hit leaves a turn
            return
        if decision.wanted.scope != Scope.TEAM or answer.warnings or not looked.bound:
            return
        if facts.lifetime.sliding and decision.reason is Reason.EXACT:
            return  # every hit has to renew it in Redis
        self.channel.start()
        name = (asked.text, asked.flow, asked.user, asked.intent)
        keys = self._store.keys
        names = (keys.flow(spec.key), keys.lifetimes, keys.privacy, decision.wanted.key)
        watched = tuple(key.encode() for key in names)
        if not self._unchanged(watched, since.changes):
            return
        entry, turn = decision.entry, turn_of(step, answer)
        if turn.answer != answer.text:  # kept with holes, as a trace of it would have to be
            return
        self._drop(name)
        kept = _Kept(
            msgspec.structs.replace(answer, near=True),
            turn,
            looked,
            watched,
            since,
            answered(step, answer, entry, self._labels),
            born=entry.created_at,
            life=answer.age_seconds + decision.ttl_seconds,
            good=min(1.0, self._refresh_after),
        )
        if kept.size > self._room:
            return
        self._kept[name] = kept
        self.size_bytes += kept.size
        for key in watched:
            self._by_key.setdefault(key, set()).add(name)
        while self.size_bytes > self._room:
            self._drop(next(iter(self._kept)))

    def forget(self, *keys: str) -> None:
        """Forget what rests on these keys (none: everything): this process has changed them, and need not be told."""
        self._changed([key.encode() for key in keys] or None)

    async def aclose(self) -> None:
        """Forget everything and close the channel."""
        self._closed = True
        looking = [flow.looking for flow in self._flows.values() if flow.looking is not None]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        await self.channel.aclose()
        self._changed(None)

    def _look(self, step: Step, since: Moment) -> _Flow:
        """Note what a flow answers with; what it answered with before is forgotten if that was something else."""
        spec, facts, state = step.plan.spec, step.facts, step.read.state.lasting
        standing = Standing(facts.fingerprint, facts.generation, facts.verified)
        every = self._check_every if spec.check_every is None else spec.check_every.total_seconds()
        looked = self._flows.get(spec.key)
        if looked is None or (looked.standing, looked.state) != (standing, state):
            key = self._store.keys.flow(spec.key).encode()
            self._drop_all(key)
            looked = self._flows[spec.key] = self._flow_at[key] = _Flow(spec, standing, state)
        looked.spec = spec
        looked.bound = min(self._bound, every)
        looked.seen(since.at, changes=since.changes)
        return looked

    async def _look_ahead(self, looked: _Flow) -> None:
        """Look whether a flow still answers with what it did, so that no question has to. What is not known, and what
        changed, is left to the next question."""
        began, heard = time.monotonic(), self._heard
        try:
            if await self._watch.current(looked.spec, now=time.time()) == looked.standing:
                looked.seen(began, changes=heard)
        except FlywheelError as error:
            _log.debug("flow %s is left to the next question: %s", looked.spec.key, error)
        finally:
            looked.looking = None

    def _unchanged(self, keys: tuple[bytes, ...], since: int) -> bool:
        if self._heard - since > len(self._changes):
            return False  # too much has changed meanwhile to know
        for moment, changed in reversed(self._changes):
            if moment <= since:
                break
            if changed is None or not changed.isdisjoint(keys):
                return False
        return True

    def _changed(self, keys: list[bytes] | None) -> None:
        self._heard += 1
        self._changes.append((self._heard, None if keys is None else frozenset(keys)))
        if keys is None:
            self._kept.clear()
            self._by_key.clear()
            self.size_bytes = 0
            return
        for key in keys:
            if (flow := self._flow_at.get(key)) is not None:
                flow.doubt(self._heard)
            else:
                self._drop_all(key)

    def _drop_all(self, key: bytes) -> None:
        for name in tuple(self._by_key.get(key, ())):
            self._drop(name)

    def _drop(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        self.size_bytes -= kept.size
        for key in kept.keys:
            names = self._by_key[key]
            names.discard(name)
            if not names:
                del self._by_key[key]

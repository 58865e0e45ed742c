"""The near cache: answers that this process served a moment ago, without asking Redis again.

Invariant: what is served from here was true in Redis at most `near.max_staleness_seconds` ago. The server itself says
what has changed (`store.tracking`); when it falls silent, nothing is served from here any more. Only answers that the
whole team shares are kept, only for questions without session, directives and overrides, and no more than
`near.max_megabytes` of them. Registry and flow are looked at again at the same interval.

Every such hit leaves a turn and is counted like any other; both are written behind.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

import msgspec

from agentic_flywheel.behind import Repeat, WriteBehind
from agentic_flywheel.identifiers import new_id, new_session_id
from agentic_flywheel.model import Answer, Directives, Turn
from agentic_flywheel.policy.decision import Serve
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step, turn_of
from agentic_flywheel.store.store import Store
from agentic_flywheel.store.tracking import Tracking

#: Changes heard lately, to see whether one came between a read and its keeping.
_CHANGES_KEPT = 256
#: What one kept answer costs besides its texts, roughly, in bytes.
_OVERHEAD_BYTES = 3000

_NO_DIRECTIVES = Directives()

Name = tuple[str, str | None, str, str | None]


class _Kept:
    """One answer, ready to be served again."""

    __slots__ = ("answer", "born", "good_until", "keys", "life", "looked_at", "saved_us", "size", "turn")

    def __init__(
        self,
        answer: Answer,
        turn: Turn,
        keys: tuple[bytes, ...],
        *,
        born: float,
        life: float,
        good: float,
        saved_us: int,
    ) -> None:
        self.answer = answer
        self.turn = turn
        self.keys = keys
        self.born = born
        self.life = life
        self.good_until = born + life * good
        self.looked_at = time.monotonic()
        self.saved_us = saved_us
        self.size = _OVERHEAD_BYTES + 2 * (len(answer.text) + len(answer.question))


class NearCache:
    """The answers that one process keeps at hand; made only where `near.enabled` is set."""

    def __init__(self, settings: Settings, store: Store, behind: WriteBehind) -> None:
        self._store = store
        self._behind = behind
        self._room = int(settings["near.max_megabytes"]) * 1_000_000
        self._bound = settings.number("near.max_staleness_seconds")
        self._user = settings.text("user")
        self._refresh_after = settings.number("ttl.refresh_after")
        self._kept: OrderedDict[Name, _Kept] = OrderedDict()
        self._by_key: dict[bytes, set[Name]] = {}
        self._changes: deque[tuple[int, frozenset[bytes] | None]] = deque(maxlen=_CHANGES_KEPT)
        self.moment = 0  # counts the changes heard: what was read at one moment is kept only if it still holds
        self.size_bytes = 0
        prefixes = store.keys.shared_prefixes()
        self._tracking = Tracking(store.link, prefixes, bound=self._bound, on_change=self._changed)

    def answer(self, question: str, flow: str | None, user: str | None, intent: str | None) -> Answer | None:
        """The answer to a question without session and directives, if it is at hand and may be relied on."""
        started = time.perf_counter()
        name = (question, flow, self._user if user is None else user, intent)
        kept = self._kept.get(name)
        if kept is None:
            return None
        monotonic, now = time.monotonic(), time.time()
        if monotonic > self._tracking.trusted_until or monotonic - kept.looked_at > self._bound:
            return None
        if not kept.born <= now < kept.good_until:
            return None
        session, turn, trace = new_session_id(), new_id(), new_id()
        age, elapsed = now - kept.born, (time.perf_counter() - started) * 1000
        if not self._behind.repeat(Repeat(kept.turn, session, turn, trace, now, elapsed, kept.saved_us)):
            return None  # too much is waiting to be written: an asker who waits for Redis lets it drain
        self._kept.move_to_end(name)
        return msgspec.structs.replace(
            kept.answer,
            session_id=session,
            turn_id=turn,
            trace_id=trace,
            age_seconds=age,
            ttl_seconds=kept.life - age,
            elapsed_ms=elapsed,
        )

    def keep(self, step: Step, answer: Answer, *, since: int) -> None:
        """Keep an answer that was just served from Redis, unless something changed since `moment` was `since`."""
        self._tracking.start()
        asked, decision = step.asked, step.decision
        if asked.resumed or asked.config or asked.domain or asked.directives != _NO_DIRECTIVES:
            return
        if not isinstance(decision, Serve) or decision.wanted.scope != Scope.TEAM or answer.warnings:
            return
        name = (asked.text, asked.flow, asked.user, asked.intent)
        spec, keys = step.plan.spec, self._store.keys
        names = (keys.flow(spec.key), keys.lifetimes, decision.wanted.key)
        watched = tuple(key.encode() for key in names)
        if not self._unchanged(watched, since):
            return
        if step.facts.lifetime.sliding:
            return  # every hit has to renew it in Redis
        entry = decision.entry
        self._drop(name)
        kept = _Kept(
            msgspec.structs.replace(answer, near=True),
            turn_of(step, answer),
            watched,
            born=entry.created_at,
            life=answer.age_seconds + decision.ttl_seconds,
            good=min(1.0, self._refresh_after),
            saved_us=int((entry.flow_ms or 0.0) * 1000),
        )
        self._kept[name] = kept
        self.size_bytes += kept.size
        for key in watched:
            self._by_key.setdefault(key, set()).add(name)
        while self.size_bytes > self._room:
            self._drop(next(iter(self._kept)))

    async def aclose(self) -> None:
        """Forget everything and close the channel."""
        await self._tracking.aclose()
        self._changed(None)

    def _unchanged(self, keys: tuple[bytes, ...], since: int) -> bool:
        if self.moment - since > len(self._changes):
            return False  # too much has changed meanwhile to know
        return all(
            moment <= since or (changed is not None and changed.isdisjoint(keys)) for moment, changed in self._changes
        )

    def _changed(self, keys: list[bytes] | None) -> None:
        self.moment += 1
        self._changes.append((self.moment, None if keys is None else frozenset(keys)))
        if keys is None:
            self._kept.clear()
            self._by_key.clear()
            self.size_bytes = 0
            return
        for key in keys:
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

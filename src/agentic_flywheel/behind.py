"""Writes that an asker does not wait for: one-off turns and counters, gathered and sent together.

Invariant: nothing stays here longer than 50 ms plus one round trip while Redis answers; `aclose` and `flush` send
what is left. (What was asked, where that is much, is gathered for a second.) Turns that Redis does not take go
to the outbox at once. What the outbox cannot keep either is tried again with the next flush, up to a bound; what is
lost in the end is counted in `lost` and logged. Counters that Redis does not take are added up here until it does: they
are gone if the process ends before.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agentic_flywheel.counting import Counted, hit_time
from agentic_flywheel.errors import StoreError, StoreFull
from agentic_flywheel.insight.tally import Tally
from agentic_flywheel.model import Answer, Outcome, Turn
from agentic_flywheel.store.counters import Unsent
from agentic_flywheel.store.popularity import Count, Told
from agentic_flywheel.store.store import Store

DELAY_SECONDS = 0.05
MOST_TURNS = 2000
_BATCH = 100
#: Where so many questions and more come at a time, they are gathered up to so long: most of them come up again, and
#: are sent as one.
_MANY_ASKED = 50
_GATHER_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Repeat(NamedTuple):
    """A turn that differs from another one in what is named here."""

    turn: Turn
    session: str
    id: str
    trace: str
    at: float
    elapsed_ms: float
    counted: Counted
    near: bool = True


def repeated(answer: Answer, repeat: Repeat, *, born: float, life: float) -> Answer:
    """An answer as it is served once more; `born` is when it was computed, `life` what it has in all, in seconds
    (infinite where a person approved it)."""
    age = repeat.at - born
    return msgspec.structs.replace(
        answer,
        session_id=repeat.session,
        turn_id=repeat.id,
        trace_id=repeat.trace,
        age_seconds=age,
        ttl_seconds=None if life == math.inf else life - age,
        elapsed_ms=repeat.elapsed_ms,
        config={},
    )


class WriteBehind:
    """The queue of one `Flywheel`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[tuple[str, str], Turn] = {}
        self._unsent = Unsent()
        self._repeats: list[Repeat] = []
        self._asked: list[tuple[Turn, Sequence[Turn], int]] = []
        self._popular = Tally(store.keys.root)
        self._popular_sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.lost = 0
        self._counted = 0

    def add_turn(self, turn: Turn) -> None:
        """Queue a turn. Beyond the bound the oldest one is given up, counted and logged."""
        self._turns[turn.session_id, turn.id] = turn
        if len(self._turns) > MOST_TURNS:
            self._turns.pop(next(iter(self._turns)))
            self._give_up(1)
        self._wake()

    def count(self, flow: str, moment: float, **fields: int) -> None:
        """Queue counters of a flow for `moment` (epoch seconds)."""
        self._unsent.add(flow, moment, fields)
        self._wake()

    def count_asker(self, asker: str, moment: float, fields: Mapping[str, int]) -> None:
        """Queue counters of who asked, a digest (`store.counters.asker_digest`)."""
        self._unsent.add_asker(asker, moment, fields)
        self._wake()

    def count_asked(self, turn: Turn, before: Sequence[Turn], saved_us: int) -> None:
        """Queue a turn to be counted among what is asked often; `before` are the turns before it in its session."""
        if turn.entry_key:
            self._asked.append((turn, before, saved_us))
            self._wake()

    def repeat(self, repeat: Repeat) -> bool:
        """Queue the turn of an answer that was served from memory, and count it; False where the queue is too long.

        As little work as possible now: the turn is made when it is sent.
        """
        if self.crowded:
            return False
        self._repeats.append(repeat)
        self._wake()
        return True

    @property
    def crowded(self) -> bool:
        """Whether so much is queued that askers should wait for a flush."""
        return len(self._turns) + len(self._repeats) >= MOST_TURNS // 2

    def holds(self, session: str) -> bool:
        """Whether a turn of this session has not been sent yet."""
        return any(queued == session for queued, _ in self._turns) or any(
            repeat.session == session for repeat in self._repeats
        )

    async def flush(self, *, patiently: bool = False) -> None:
        """Send what is queued; `patiently` may leave what was asked often for later. Raises `StoreError` for counters
        and turns that are nowhere yet; those stay queued."""
        async with self._lock:
            await self._send_turns()
            await self._send_counts(patiently=patiently)

    async def flush_turns(self) -> None:
        """Send the turns that are queued, to Redis or to the outbox. Raises `StoreError` if some are in neither."""
        async with self._lock:
            await self._send_turns()

    async def _send_counts(self, *, patiently: bool) -> None:
        """Send counters and what was asked, in one round trip."""
        popular = self._take_asked(patiently=patiently)
        sent, self._unsent = self._unsent, Unsent()
        counters = self._store.counters.commands(sent)
        commands = [*counters, *self._store.popularity.commands(popular)]
        if not commands:
            return
        try:
            replies = await self._store.link.run_each(*commands)
        except StoreError:
            self._unsent.take_back(sent)
            self._popular.put_back(popular)
            raise
        refused = [reply for reply in replies[len(counters) :] if isinstance(reply, Exception)]
        if refused and len(refused) == len(commands) - len(counters):
            full = isinstance(self._store.link.error(refused[0], "counting"), StoreFull)
            self._popular.put_back(popular if full else {})
        if refused:  # what was refused for another reason, or in part, would be counted twice or refused for ever
            _log.warning("what was asked is not counted (yet): %s", refused[0])
        try:
            self._store.counters.taken(replies[: len(counters)])
        except StoreError:
            self._unsent.take_back(sent)
            raise

    def _take_asked(self, *, patiently: bool) -> dict[Told, Count]:
        asked, self._asked = self._asked, []
        for each in asked:
            self._popular.add(*each)
        now = asyncio.get_running_loop().time()
        if patiently and len(self._popular.counts) >= _MANY_ASKED and now < self._popular_sent_at + _GATHER_SECONDS:
            self._wake()
            return {}
        if self._popular.counts:
            self._popular_sent_at = now
        popular, self._popular.counts = self._popular.counts, {}
        return popular

    async def _send_turns(self) -> None:
        self._make_turns()
        # What comes in meanwhile waits for the next flush: else a busy process would flush turn by turn, for ever.
        due = list(self._turns.values())
        for start in range(0, len(due), _BATCH):
            batch = due[start : start + _BATCH]
            direct = batch
            if self._store.outbox.waits():
                direct = [turn for turn in batch if await self._store.outbox.in_order(turn.session_id)]
            error: StoreError | None = None
            try:
                if direct:
                    await self._store.link.run(*self._store.sessions.append_commands(*direct))
            except StoreError as failure:
                error, direct = failure, []
            self._sent(direct)
            if direct is not batch:
                await self._keep([turn for turn in batch if turn not in direct] if direct else batch, error)

    def _make_turns(self) -> None:
        repeats, self._repeats = self._repeats, []
        for again in repeats:
            turn = msgspec.structs.replace(
                again.turn,
                id=again.id,
                session_id=again.session,
                at=again.at,
                trace_id=again.trace,
                elapsed_ms=again.elapsed_ms,
            )
            self._turns[turn.session_id, turn.id] = turn
            self._unsent.add(turn.flow, again.at, again.counted.fields)
            self._unsent.add(turn.flow, again.at, hit_time(Outcome.HIT, again.elapsed_ms) | {"near": int(again.near)})
            if again.counted.asker:
                self._unsent.add_asker(again.counted.asker, again.at, again.counted.asked)
            saved_us = again.counted.fields.get("saved_us", 0)
            self._popular.add_repeat(turn, session=again.session, at=again.at, saved_us=saved_us)

    async def _keep(self, turns: Sequence[Turn], error: StoreError | None) -> None:
        outbox = self._store.outbox
        ends = await asyncio.gather(
            *(outbox.keep(turn, error, last_chance=False) for turn in turns), return_exceptions=True
        )
        self._sent([turn for turn, end in zip(turns, ends, strict=True) if end is None])
        for end in ends:
            if end is not None:
                raise end

    def _sent(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            self._turns.pop((turn.session_id, turn.id), None)

    async def aclose(self) -> None:
        """Send what is left, and say what could not be kept."""
        self._stop_timer()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        try:
            await self.flush()
        except StoreError as error:
            _log.warning("not kept at close: %s", error)
            self._give_up(len(self._turns))
            self._turns.clear()
        self._stop_timer()  # what was made of repeats has woken it
        if self.lost > self._counted:
            await self._store.outbox.count_lost(self.lost - self._counted)
            self._counted = self.lost

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._start)

    def _start(self) -> None:
        self._timer = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush_quietly())
        else:
            self._wake()

    async def _flush_quietly(self) -> None:
        try:
            await self.flush(patiently=True)
        except StoreError as error:
            _log.warning("kept for the next attempt (%d turns): %s", len(self._turns), error)

    def _give_up(self, turns: int) -> None:
        if turns:
            self.lost += turns
            _log.error("%d turn(s) lost: neither Redis nor the outbox took them", turns)

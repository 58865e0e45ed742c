"""Writes that nobody waits for: what is gathered, when it leaves, in which order, and what nobody takes.

The store is a stand-in that remembers what it was given; what real servers do with it is tested in integration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agentic_flywheel import behind
from agentic_flywheel.behind import Repeat, WriteBehind
from agentic_flywheel.counting import Counted
from agentic_flywheel.errors import StoreError, StoreFull, StoreMisused, StoreUnavailable
from agentic_flywheel.insight.latency import bucket_of
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.store.counters import Unsent
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.popularity import Count, Told
from flywheels import until

pytestmark = pytest.mark.anyio


class Asked:
    """Counts of what was asked, each as a command of its own."""

    def commands(self, counts: dict[Told, Count]) -> list[Any]:
        return [("ASKED", place.name, count.asked) for place, count in counts.items()]


class Stand:
    """Link, outbox, sessions and counters in one: takes everything, until it is told to fail."""

    def __init__(self) -> None:
        self.link = self.outbox = self.sessions = self.counters = self
        self.keys = Keys("t")
        self.popularity = Asked()
        self.refusals: dict[str, StoreError] = {}
        self.away: StoreError | None = None
        self.outbox_full = False
        self.hold: asyncio.Event | None = None
        self.exchanges: list[list[Any]] = []
        self.kept: list[str] = []
        self.lost = 0

    def append_commands(self, *turns: Turn) -> list[Any]:
        return [("TURN", turn.id) for turn in turns]

    def commands(self, unsent: Unsent) -> list[Any]:
        rows = {**unsent.minutes, **unsent.hours, **unsent.askers}
        return [("COUNT", *place, *count) for place, fields in rows.items() for count in fields.items()]

    def taken(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply

    async def run(self, *commands: Any) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if self.away is not None:
            raise self.away
        self.exchanges.append(list(commands))

    async def run_each(self, *commands: Any) -> list[Any]:
        await self.run(*commands)
        return [self.refusals.get(name) for name, *_ in commands]

    def error(self, error: StoreError, what: str) -> StoreError:
        return error

    def waits(self) -> bool:
        return True

    async def in_order(self, session: str) -> bool:
        return session != "waits"

    async def keep(self, turn: Turn, error: StoreError | None, *, last_chance: bool) -> None:
        if self.outbox_full:
            raise error or StoreUnavailable("no room", command="")
        self.kept.append(turn.id)

    async def count_lost(self, turns: int) -> None:
        self.lost += turns

    @property
    def turns(self) -> list[str]:
        return [word for exchange in self.exchanges for name, word, *_ in exchange if name == "TURN"]


def turn(number: int, session: str = "") -> Turn:
    return Turn(
        id=f"t{number}",
        session_id=session or f"s{number}",
        at=1_700_000_000.0 + number,
        question="q",
        answer="a",
        flow="f",
        fingerprint="",
        outcome=Outcome.HIT,
        reason=Reason.EXACT,
        trace_id="x",
        origin_trace_id="o",
    )


def repeat(number: int) -> Repeat:
    counted = Counted({"outcome:hit": 1, "saved_us": 1000}, "ann", {"asked": 1})
    return Repeat(turn(0), f"r{number}", f"n{number}", f"x{number}", 1_700_000_000.0, 0.005, counted)


def queue(stand: Stand) -> WriteBehind:
    return WriteBehind(stand)  # type: ignore[arg-type]


async def test_turns_leave_in_their_order_and_in_batches() -> None:
    stand = Stand()
    waiting = queue(stand)
    for number in range(250):
        waiting.add_turn(turn(number))
    await waiting.flush()
    assert stand.turns == [f"t{number}" for number in range(250)]
    assert [len(exchange) for exchange in stand.exchanges] == [100, 100, 50]
    await waiting.aclose()


async def test_what_is_queued_leaves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "DELAY_SECONDS", 0.001)
    stand = Stand()
    waiting = queue(stand)
    waiting.add_turn(turn(1))
    assert waiting.holds("s1")
    await until(lambda: not waiting.holds("s1"), "the turn to leave")
    assert stand.turns == ["t1"]
    await waiting.aclose()


async def test_a_repeat_is_a_turn_with_its_own_ids_and_is_counted() -> None:
    stand = Stand()
    waiting = queue(stand)
    waiting.add_turn(turn(7))
    assert waiting.repeat(repeat(1))
    assert waiting.repeat(repeat(2))
    assert waiting.holds("r1")
    await waiting.flush()
    assert stand.turns == ["t7", "n1", "n2"]
    counts = {row[1:] for exchange in stand.exchanges for row in exchange if row[0] == "COUNT"}
    told = {"outcome:hit": 2, "near": 2, "saved_us": 2000, "hit_us": 10, f"h{bucket_of(5)}": 2}
    minute = 1_700_000_000 // 60
    assert counts == {("f", minute, *count) for count in told.items()} | {("ann", minute // 1440, "asked", 2)}
    assert not waiting.holds("r1")
    await waiting.aclose()


async def test_a_crowded_queue_takes_no_repeats_until_it_has_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "MOST_TURNS", 20)
    stand = Stand()
    waiting = queue(stand)
    taken = [number for number in range(30) if waiting.repeat(repeat(number))]
    assert len(taken) == 10
    assert waiting.crowded
    await waiting.flush_turns()
    assert not waiting.crowded
    assert len(stand.turns) == 10
    await waiting.aclose()


async def test_a_server_and_an_outbox_that_take_nothing_do_not_let_the_queue_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(behind, "MOST_TURNS", 20)
    stand = Stand()
    stand.away, stand.outbox_full = StoreUnavailable("away", command=""), True
    waiting = queue(stand)
    for number in range(200):
        waiting.repeat(repeat(number))
        if number % 5 == 4:
            with pytest.raises(StoreError):
                await waiting.flush_turns()
    assert len(waiting._turns) + len(waiting._repeats) <= 20
    await waiting.aclose()
    assert stand.lost == waiting.lost == 10


async def test_the_oldest_turn_is_given_up_where_nobody_takes_any_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(behind, "MOST_TURNS", 3)
    stand = Stand()
    waiting = queue(stand)
    for number in range(5):
        waiting.add_turn(turn(number))
    assert waiting.lost == 2
    await waiting.aclose()
    assert stand.turns == ["t2", "t3", "t4"]
    assert stand.lost == 2


async def test_what_redis_does_not_take_goes_to_the_outbox_and_counters_wait() -> None:
    stand = Stand()
    stand.away = StoreUnavailable("away", command="")
    waiting = queue(stand)
    waiting.add_turn(turn(1))
    for _ in range(3):
        waiting.count("f", 1_700_000_000.0, misses=1)
        with pytest.raises(StoreError):
            await waiting.flush()
    assert stand.kept == ["t1"]
    stand.away = None
    await waiting.flush()
    assert stand.exchanges == [[("COUNT", "f", 1_700_000_000 // 60, "misses", 3)]]
    await waiting.aclose()


def asked(question: str) -> Turn:
    return msgspec.structs.replace(
        turn(0), question=question, entry_key=Keys("t").entry("team", "f", name_of(question))
    )


async def test_what_was_asked_leaves_with_the_counters_in_one_round_trip() -> None:
    stand = Stand()
    waiting = queue(stand)
    waiting.count("f", 1_700_000_000.0, misses=1)
    for question in ("a", "b", "a"):
        waiting.count_asked(asked(question), [], 0)
    waiting.count_asked(turn(1), [], 0)  # kept for nobody
    waiting.repeat(repeat(1)._replace(turn=asked("b")))
    await waiting.flush()
    *_, (first, *rest) = stand.exchanges
    assert first[0] == "COUNT"
    assert {row[1:] for row in rest if row[0] == "ASKED"} == {(name_of("a"), 2), (name_of("b"), 2)}
    await waiting.flush()
    await waiting.aclose()
    assert len(stand.exchanges) == 2


async def test_where_much_is_asked_it_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "_MANY_ASKED", 3)
    monkeypatch.setattr(behind, "_GATHER_SECONDS", 3600.0)
    stand = Stand()
    waiting = queue(stand)

    async def sent(*questions: str, patiently: bool = True) -> int:
        before = len(stand.exchanges)
        for question in questions:
            waiting.count_asked(asked(question), [], 0)
        await waiting.flush(patiently=patiently)
        return sum(row[2] for exchange in stand.exchanges[before:] for row in exchange)

    waiting._popular_sent_at = -3600.0
    assert await sent("a", "b", "c") == 3
    assert await sent("a", "b") == 2, "a few are sent at once"
    assert await sent("a", "b", "c") == 0
    assert await sent("a", "b", "d") == 0
    assert await sent(patiently=False) == 6
    assert {row[1]: row[2] for row in stand.exchanges[-1]}[name_of("a")] == 2
    await sent("a", "b", "c")
    await waiting.aclose()
    assert len(stand.exchanges[-1]) == 3
    assert waiting._timer is None


@pytest.mark.parametrize(
    ("refusal", "kept"), [(StoreFull("full", command=""), True), (StoreMisused("no hash", command=""), False)]
)
async def test_what_a_full_server_refuses_is_counted_later_and_nothing_else_twice(
    refusal: StoreError, kept: bool
) -> None:
    stand = Stand()
    waiting = queue(stand)
    stand.refusals = {"ASKED": refusal}
    waiting.count("f", 1_700_000_000.0, misses=1)
    waiting.count_asked(asked("a"), [], 0)
    await waiting.flush()
    stand.refusals = {}
    waiting.count_asked(asked("b"), [], 0)
    await waiting.flush()
    later = {name_of("a"), name_of("b")} if kept else {name_of("b")}
    assert {row[1] for row in stand.exchanges[-1]} == later
    await waiting.aclose()


async def test_what_was_asked_waits_while_redis_is_away() -> None:
    stand = Stand()
    waiting = queue(stand)
    stand.away = StoreUnavailable("away", command="")
    for _ in range(3):
        waiting.count_asked(asked("a"), [], 0)
        with pytest.raises(StoreError):
            await waiting.flush()
    stand.away = None
    await waiting.flush()
    assert stand.exchanges == [[("ASKED", name_of("a"), 3)]]
    await waiting.aclose()


async def test_a_session_with_turns_in_the_outbox_is_continued_there() -> None:
    stand = Stand()
    waiting = queue(stand)
    waiting.add_turn(turn(1, "waits"))
    waiting.add_turn(turn(2))
    await waiting.flush()
    assert (stand.turns, stand.kept) == (["t2"], ["t1"])
    await waiting.aclose()


async def test_what_comes_in_while_a_flush_is_under_way_leaves_with_the_next_one() -> None:
    stand = Stand()
    stand.hold = asyncio.Event()
    waiting = queue(stand)
    waiting.add_turn(turn(1))
    flushing = asyncio.create_task(waiting.flush_turns())
    await asyncio.sleep(0)
    waiting.add_turn(turn(2))
    stand.hold.set()
    await flushing
    assert stand.turns == ["t1"]
    await waiting.aclose()
    assert stand.turns == ["t1", "t2"]


async def test_closing_sends_what_is_left_and_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    stand = Stand()
    waiting = queue(stand)
    waiting.add_turn(turn(1))
    waiting.repeat(repeat(1))
    await waiting.aclose()
    assert stand.turns == ["t1", "n1"]
    assert waiting._timer is None or waiting._timer.cancelled()
    assert asyncio.all_tasks() == before

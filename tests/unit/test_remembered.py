"""What a process remembers of a session is what it would read; where it cannot know, it says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel import remembered
from agentic_flywheel.model import Outcome, Reason, Session, Turn
from agentic_flywheel.policy import relevance
from agentic_flywheel.policy.relevance import Earlier, within_reach
from agentic_flywheel.remembered import UNKNOWN, Conversation, Remembered, continued, read_further, with_waiting
from agentic_flywheel.store.recalled import Recalled, recalled_with

WINDOW = 3


def turn(number: int) -> Turn:
    return Turn(f"t{number}", "s", float(number), f"q{number}", "a", "f", "", Outcome.MISS, Reason.NOT_STORED, "")


def size(turn: Turn) -> int:
    return 10 + int(turn.id[1:]) * 7 % 40


class Redis:
    """One session, as any process reads it."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.made = 0

    def append(self) -> Turn:
        self.turns.append(turn(self.made))
        self.made += 1
        return self.turns[-1]

    def recall(self) -> Recalled:
        if not self.turns:
            return Recalled()
        newest = tuple(self.turns[-WINDOW:])
        header = Session(id="s", turns=len(self.turns))
        return Recalled(header, newest, self.turns[0], 0, {turn.id: size(turn) for turn in newest})

    def further_back(self) -> tuple[Earlier, ...]:
        older = [Earlier.of(turn, size(turn)) for turn in self.turns[:-WINDOW]]
        return tuple(turn for turn in within_reach(older) if turn.id != self.turns[0].id)


class Process:
    """Asks in the session as `Recollection` does."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.remembered = Remembered()
        self.read_again = 0

    def ask(self) -> Conversation:
        known = self.look()
        self.remembered.add(known, self.redis.append(), window=WINDOW)
        return known

    def ask_twice_at_once(self) -> Conversation:
        known, same = self.look(), self.look()
        for one in (known, same):
            self.remembered.add(one, self.redis.append(), window=WINDOW)
        return known

    def look(self) -> Conversation:
        recalled = self.redis.recall()
        known = continued(self.remembered.get("s"), recalled)
        if not known.reaches_back():
            known = read_further(recalled, [(turn, size(turn)) for turn in self.redis.turns[:-WINDOW]])
            known = Conversation(recalled, tuple(within_reach(known.earlier or ())))
            self.read_again += 1
        return known


@contextmanager
def looking_back(*, turns: int, size: int = 10**6) -> Iterator[None]:
    with patch.object(relevance, "MOST_TURNS", turns), patch.object(relevance, "MOST_BYTES", size):
        yield


steps = st.lists(
    st.one_of(
        st.sampled_from(["here", "here", "here", "there", "at once"]),
        st.tuples(st.just("gone"), st.integers(0, 40)),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 12), st.integers(30, 400))
def test_what_is_remembered_is_what_would_be_read(
    path: list[str | tuple[str, int]], most: int, most_bytes: int
) -> None:
    redis = Redis()
    process, other = Process(redis), Process(redis)
    with looking_back(turns=most, size=most_bytes):
        for step in path:
            match step:
                case "here" | "there":
                    expected = redis.further_back()
                    known = (process if step == "here" else other).ask()
                    assert (known.earlier or ()) == expected
                case "at once":
                    expected = redis.further_back()
                    assert (process.ask_twice_at_once().earlier or ()) == expected
                case (_, place) if redis.turns:
                    redis.turns.pop(place % len(redis.turns))


def test_a_process_that_is_alone_reads_nothing_twice() -> None:
    process = Process(Redis())
    for _ in range(30):
        process.ask()
    assert process.read_again == 0


def test_a_session_is_read_once_and_then_followed_with_others() -> None:
    redis = Redis()
    for _ in range(20):
        redis.append()
    process = Process(redis)
    for _ in range(5):
        process.ask()
        redis.append()  # somebody else, each time
    assert process.read_again == 1
    for _ in range(WINDOW + 1):
        redis.append()  # more than are recalled
    process.ask()
    assert process.read_again == 2


def test_a_turn_that_was_taken_away_is_not_known_any_more() -> None:
    redis = Redis()
    process = Process(redis)
    for _ in range(10):
        process.ask()
    redis.turns.pop(4)
    assert "t4" not in {turn.id for turn in process.ask().earlier or ()}
    assert process.read_again == 1
    redis.turns.pop(3)
    redis.append()  # the count alone would not tell
    assert "t3" not in {turn.id for turn in process.ask().earlier or ()}


def test_after_two_questions_at_once_the_count_alone_tells_nothing() -> None:
    redis = Redis()
    process = Process(redis)
    for _ in range(6):
        process.ask()
    process.ask_twice_at_once()
    redis.turns.pop(2)  # as many as the second question did not know of
    redis.append()
    redis.append()
    expected = redis.further_back()
    assert process.ask().earlier == expected


def test_turns_of_unknown_size_are_read_before_they_count() -> None:
    redis = Redis()
    process = Process(redis)
    for _ in range(WINDOW + 2):
        process.ask()
    waiting = [turn(90 + n) for n in range(WINDOW + 1)]
    merged = recalled_with(redis.recall(), waiting)
    process.remembered.add(Conversation(merged, ()), turn(99), window=WINDOW)
    assert process.remembered.get("s").earlier is None


def test_what_waits_comes_along_from_further_back() -> None:
    merged = recalled_with(Recalled(Session(id="s", turns=2), (turn(0), turn(1)), turn(0)), [turn(2), turn(3), turn(4)])
    known = Conversation(merged, ())
    assert [one.id for one in known.before(2)] == ["t1", "t2"]
    assert known.before(5) == ()


def test_what_waits_and_lies_further_back_counts_once() -> None:
    """Seen when Redis was away for longer than the turns that are recalled."""
    redis = Redis()
    process = Process(redis)
    for _ in range(7):
        process.ask()
    known = process.remembered.get("s")
    assert "t2" in {one.id for one in known.earlier or ()}
    known = with_waiting(known, redis.turns[2:])
    assert [one.id for one in known.before(2)] == ["t1", "t2", "t3", "t4"]


def test_what_came_in_between_two_readings_counts_once() -> None:
    """Turns are appended, by others or on delivery, after the newest were read and before those further back."""
    redis = Redis()
    for _ in range(6):
        redis.append()
    recalled = redis.recall()
    redis.append()
    redis.append()
    known = read_further(recalled, [(one, size(one)) for one in redis.turns[:-WINDOW]])
    assert [one.id for one in known.before(2)] == ["t1", "t2", "t3"]


def test_a_damaged_turn_breaks_what_follows() -> None:
    known = Conversation(Recalled(Session(id="s", turns=9), (turn(7), turn(8)), turn(0)), (Earlier.of(turn(6)),))
    damaged = Recalled(Session(id="s", turns=9), (turn(8),), turn(0), 1)
    assert continued(known, damaged).earlier is None
    assert not continued(known, damaged).reaches_back()
    assert Conversation(Recalled(Session(id="s", turns=3), (turn(1),), turn(0), 1), None).reaches_back()


def test_so_much_is_remembered_and_no_more() -> None:
    kept = Remembered()
    far = tuple(Earlier.of(turn(n)) for n in range(4))
    with patch.object(remembered, "MOST_BYTES_IN_ALL", 17_000), patch.object(remembered, "MOST_SESSIONS", 4):
        for name in ("a", "b", "c"):
            session = Recalled(Session(id=name, turns=9), (turn(8),), turn(0), 0, {"t8": 1})
            one = Turn(f"{name}9", name, 9.0, "q", "a", "f", "", Outcome.MISS, Reason.NOT_STORED, "")
            kept.add(Conversation(session, far), one, window=2)
        assert kept.get("a") is UNKNOWN
        assert kept.get("b") is not UNKNOWN
        assert kept.get("c").earlier == far
        assert 0 < kept.size_bytes <= 17_000
    with patch.object(remembered, "MOST_SESSIONS", 2):
        for name in ("d", "e", "f"):
            one = Turn(f"{name}9", name, 9.0, "q", "a", "f", "", Outcome.MISS, Reason.NOT_STORED, "")
            kept.add(UNKNOWN, one, window=2)
    assert [name for name in "abcdef" if kept.get(name) is not UNKNOWN] == ["e", "f"]
    assert kept.size_bytes == sum(kept.get(name).size_bytes() for name in "ef")

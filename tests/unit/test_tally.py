"""What a turn counts for, what is taken back with it, and how many people asked."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.insight import tally
from agentic_flywheel.insight.askers import estimated, smallest
from agentic_flywheel.insight.tally import Tally, asked_of, counted_for, name_of, node_of, step_of, steps_over
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.policy.identity import question_hash
from agentic_flywheel.store.askers import mark_of
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.popularity import MARKS, Told

KEYS = Keys("t")
AT = 1_795_000_000.0
DAY = "20261118"


def turn(number: int, question: str, *, context: str = "", outcome: Outcome = Outcome.HIT, **more: object) -> Turn:
    """A turn whose answer is kept for the team; with `context` as a follow-up's is."""
    matched = str(more.get("matched_question", ""))
    hash_ = question_hash(tally.normalise(matched or question), context)
    fields = {
        "id": f"t{number}",
        "session_id": "s",
        "at": AT + number,
        "question": question,
        "answer": "a",
        "flow": "f",
        "fingerprint": "",
        "outcome": outcome,
        "reason": Reason.EXACT,
        "trace_id": "",
        "entry_key": KEYS.entry("team", "f", hash_),
    }
    return Turn(**{**fields, **more})


FIRST = turn(1, "How do I rotate the keys?", outcome=Outcome.MISS)
SECOND = turn(2, "And what does it cost?", context="c1")
THIRD = turn(3, "Can it be undone?", context="c2")
FOURTH = turn(4, "By whom?", context="c3")
FIFTH = turn(5, "Since when?", context="c4")
WALK = [FIRST, SECOND, THIRD, FOURTH, FIFTH]


def names(*turns: Turn) -> list[str]:
    return [name_of(each.question) for each in turns]


def test_a_question_counts_by_the_hash_of_its_answers_key() -> None:
    asked = asked_of(FIRST)
    assert asked is not None
    assert f"{{{asked.name}}}" in FIRST.entry_key
    assert asked.taken_for == asked.name
    similar = turn(1, "How can I rotate keys?", outcome=Outcome.SIMILAR, matched_question=FIRST.question)
    assert asked_of(similar) == (name_of(similar.question), asked.name)


@pytest.mark.parametrize(
    "changes",
    [
        {"entry_key": ""},
        {"entry_key": KEYS.entry("user", "f", "0" * 32, user="u")},
        {"entry_key": KEYS.entry("session", "f", "0" * 32, session="s")},
        {"entry_key": KEYS.entry("team", "f", "0" * 32)},
        {"private": True},
        {"matched_question": "Something else?"},
    ],
)
def test_what_is_not_kept_for_all_under_its_words_alone_counts_for_nothing(changes: dict[str, object]) -> None:
    assert asked_of(msgspec.structs.replace(FIRST, **changes)) is None


def test_a_step_belongs_to_the_way_up_to_it() -> None:
    one, two, three, four, _ = names(*WALK)
    assert step_of(SECOND, WALK[:1]) == (f"{one}>{two}", ["t2", "t1"])
    assert step_of(THIRD, WALK[:2]) == (f"{node_of([one, two])}>{three}", ["t3", "t2", "t1"])
    assert step_of(FOURTH, WALK[:3]) == (f"{node_of([one, two, three])}>{four}", ["t4", "t3", "t2", "t1"])
    assert step_of(FIFTH, WALK[:4]) is None, "too far from a question that stands alone"
    assert step_of(SECOND, []) is None
    assert step_of(FIRST, [FIRST]) is None, "the same question again is no step"
    assert step_of(FIRST, [THIRD]) is None


@pytest.mark.parametrize(
    "changes", [{"private": True}, {"flow": "g"}, {"entry_key": KEYS.entry("session", "f", "0" * 32, session="s")}]
)
@pytest.mark.parametrize("place", [0, 1])
def test_no_step_crosses_what_is_not_for_all(changes: dict[str, object], place: int) -> None:
    before = WALK[:2]
    before[place] = msgspec.structs.replace(before[place], **changes)
    assert step_of(THIRD, before) is None
    assert step_of(msgspec.structs.replace(THIRD, **changes), WALK[:2]) is None


def test_what_was_counted_is_what_is_taken_back() -> None:
    made = Tally("t")
    for place, each in enumerate(WALK):
        made.add(each, WALK[:place], 0)
    back = counted_for(WALK, {each.id for each in WALK}, tenant="t", since=0)
    assert {place: count.asked for place, count in made.counts.items()} == {
        place: len(turns) for place, turns in back.items()
    }
    mark = mark_of("s", "t")
    assert {told for turns in back.values() for told in turns} == {(False, mark), (True, mark)}
    for each in WALK:
        assert counted_for(WALK, {each.id}, tenant="t", since=AT + 10) == {}
    one, two, three, _, _ = names(*WALK)
    middle = counted_for(WALK, {"t3"}, tenant="t", since=0)
    assert Told("f", DAY, f"{one}>{two}") not in middle
    assert Told("f", DAY, f"{node_of([one, two])}>{three}") in middle
    assert len(middle) == 2, "the step to the turn, and the step from it"


def test_every_step_over_a_question_is_found() -> None:
    q, r, f, g, h = names(*(turn(n, word) for n, word in enumerate(["q?", "r?", "f?", "g?", "h?"])))
    over_f = {f"{q}>{f}", f"{node_of([q, f])}>{g}", f"{node_of([q, f, g])}>{h}", f"{f}>{h}"}
    others = {f"{q}>{g}", f"{node_of([q, g])}>{h}", f"{r}>{g}", f"{node_of([r, g])}>{h}", f"{node_of([r, g, h])}>{q}"}
    assert steps_over([f], over_f | others) == over_f
    assert steps_over([q], over_f | others) == (over_f - {f"{f}>{h}"}) | {
        f"{q}>{g}",
        f"{node_of([q, g])}>{h}",
        f"{node_of([r, g, h])}>{q}",
    }
    assert steps_over([], over_f | others) == set()


def test_a_turn_that_is_sent_again_counts_once() -> None:
    made = Tally("t")
    made.add(FIRST, [FIRST], 0)
    assert made.counts == {}


def test_what_is_gathered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_GATHERED", 3)
    made = Tally("t")
    for number in range(10):
        made.add(turn(number, f"Question {number}?"), [], 5)
        made.add(turn(100 + number, "Question 1?"), [], 5)
    assert len(made.counts) == 3
    assert sorted(count.asked for count in made.counts.values()) == [1, 1, 11]


def test_what_could_not_be_sent_is_added_to_what_came_since() -> None:
    made = Tally("t")
    made.add(FIRST, [], 0)
    similar = turn(2, FIRST.question, outcome=Outcome.SIMILAR, matched_question="Other?", user="u")
    made.add(similar, [], 7)
    unsent, made.counts = made.counts, {}
    made.add_repeat(msgspec.structs.replace(FIRST, at=0), session="s2", at=AT + 50, saved_us=9)
    made.put_back(unsent)
    (count,) = made.counts.values()
    assert (count.asked, count.served, count.saved_us, count.first, count.last) == (3, 2, 16, AT + 1, AT + 50)
    assert count.taken_for == name_of("Other?")
    assert count.marks == {mark_of(asker, "t") for asker in ("s", "u", "s2")}


def test_repeats_of_what_is_not_for_all_are_not_counted() -> None:
    made = Tally("t")
    key = KEYS.entry("user", "f", "0" * 32, user="u")
    made.add_repeat(msgspec.structs.replace(FIRST, entry_key=key), session="s", at=AT, saved_us=1)
    assert made.counts == {}


@given(st.lists(st.sets(st.integers(0, 2**32 - 1), max_size=40), max_size=6))
def test_askers_of_several_days_are_counted_once(days: list[set[int]]) -> None:
    every = set().union(*days)
    kept = smallest([mark for day in days for mark in smallest(day)])
    assert kept == smallest(every)
    if len(every) < MARKS:
        assert estimated(kept) == len(every)


def test_many_askers_are_estimated() -> None:
    """Within three standard errors of 1 / sqrt(64 - 2) for this draw, and on the whole not too many or too few."""
    draw = random.Random(5)
    off = []
    for _ in range(60):
        true = draw.randrange(100, 5000)
        off.append(estimated(draw.getrandbits(32) for _ in range(true)) / true - 1)
    assert max(map(abs, off)) < 3 * 0.127
    assert abs(sum(off) / len(off)) < 0.05


def test_askers_are_other_ones_in_other_tenants() -> None:
    assert mark_of("ann", "t") == mark_of("ann", "t")
    assert len({mark_of("ann", "t"), mark_of("bob", "t"), mark_of("ann", "u")}) == 3

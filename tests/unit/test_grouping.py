"""Which questions seem to ask the same: rules, each against questions of its own; whatever the order."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_flywheel.policy.grouping import Grouped, Worded, alike_in_words, grouped

RESET = "How do I reset the password of the router?"
FORGOT = "Forgot the router password, how can it be reset?"
LOGS = "Where are the access logs kept?"
SENT = "The card is in the envelope that the bank sends after seven days."


def texts(questions: Sequence[Worded], found: Grouped) -> list[set[str]]:
    return [{questions[at].text for at in group} for group in found.groups]


def vectors(*pairs: tuple[int, int, float], count: int) -> list[list[float]]:
    rows = [[1.0 if one == other else 0.1 for other in range(count)] for one in range(count)]
    for one, other, alike in pairs:
        rows[one][other] = rows[other][one] = alike
    return rows


def test_by_words_what_shares_its_words_is_together() -> None:
    some = [Worded(RESET, 3), Worded(LOGS, 9), Worded(FORGOT, 2)]
    found = grouped(some)
    assert texts(some, found) == [{LOGS}, {RESET, FORGOT}], "the most asked first"
    assert found.groups[1] == (0, 2)


def test_answers_that_agree_bring_questions_together_that_words_do_not() -> None:
    ask, other = "When does my new card come?", "Delivery date of a new card"
    told = [Worded(ask, 2, SENT), Worded(other, 2, "After seven days the bank sends an envelope with the card.")]
    assert len(grouped([Worded(ask, 2), Worded(other, 2)]).groups) == 2
    assert len(grouped(told).groups) == 1
    said_otherwise = [told[0], Worded(other, 2, "Dogs, cats and rabbits may live in the flat.")]
    assert len(grouped(said_otherwise).groups) == 2


def test_an_answer_that_is_none_or_is_given_to_all_says_nothing() -> None:
    questions = ["Is there a gym?", "What does parking cost?", "Who feeds the fish?", "Which bus goes there?"]
    for answer in ("I don't know.", "Please look into the intranet of the house."):
        rows = vectors((0, 1, 0.4), count=4)
        found = grouped([Worded(text, 2, answer) for text in questions], likeness=rows)
        assert len(found.groups) == 4, answer


def test_guards_part_what_vectors_take_for_one() -> None:
    some = [Worded("Who won the cup in 2023?", 2, SENT), Worded("Who won the cup in 2024?", 2, SENT)]
    assert len(grouped(some, likeness=vectors((0, 1, 0.98), count=2)).groups) == 2
    some = [Worded("How do I enable backups?", 2), Worded("How do I disable backups?", 2)]
    assert len(grouped(some, likeness=vectors((0, 1, 0.98), count=2)).groups) == 2


def test_what_a_person_parted_is_not_together_by_a_third_one() -> None:
    some = [Worded(f"What about {name}?", 2) for name in ("apples", "pears", "plums")]
    rows = vectors((0, 1, 0.95), (0, 2, 0.95), (1, 2, 0.95), count=3)
    assert len(grouped(some, likeness=rows).groups) == 1
    found = grouped(some, likeness=rows, parted=lambda one, other: {one, other} == {1, 2})
    assert sorted(map(len, found.groups)) == [1, 2]


def test_one_wording_between_two_questions_does_not_make_them_one() -> None:
    some = [Worded(f"Question {name}?", 2) for name in "abcd"]
    rows = vectors((0, 1, 0.9), (2, 3, 0.9), (1, 2, 0.75), count=4)
    assert sorted(map(sorted, grouped(some, likeness=rows).groups)) == [[0, 1], [2, 3]]


def test_what_is_nearly_the_same_follows_what_was_asked_more() -> None:
    some = [Worded("Question a?", 2), Worded("Question b?", 5), Worded("Question c?", 9)]
    found = grouped(some, likeness=vectors((0, 1, 0.5), count=3))
    assert found.groups == ((2,), (1,), (0,))
    assert found.near == {2: 1}


def test_what_came_up_once_needs_more() -> None:
    rows = vectors((0, 1, 0.65), count=2)
    assert len(grouped([Worded("Question a?", 2), Worded("Question b?", 2)], likeness=rows).groups) == 1
    assert len(grouped([Worded("Question a?", 2), Worded("Question b?", 1)], likeness=rows).groups) == 2


def test_texts_without_a_word_are_alike_to_nothing() -> None:
    assert alike_in_words(["", "???", RESET])[0] == [0.0, 0.0, 0.0]
    assert grouped([]).groups == ()
    assert grouped([Worded("???", 2), Worded("!!!", 2)]).groups == ((1,), (0,))


WORDS = ("router", "password", "reset", "logs", "card", "bank", "2023", "2024", "not")


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
            st.integers(1, 4),
            st.sampled_from(("", SENT, "No.")),
        ),
        max_size=9,
    ),
    st.randoms(use_true_random=False),
)
def test_every_question_is_in_one_group_whatever_their_order(
    rows: list[tuple[list[str], int, str]], draw: random.Random
) -> None:
    some = [Worded(f"{' '.join(words)} {at}?", asked, answer) for at, (words, asked, answer) in enumerate(rows)]
    found = grouped(some)
    assert sorted(at for group in found.groups for at in group) == list(range(len(some)))
    totals = [sum(some[at].asked for at in group) for group in found.groups]
    assert totals == sorted(totals, reverse=True)
    assert all(near < place and near not in found.near for place, near in found.near.items())
    shuffled = draw.sample(some, len(some))
    assert texts(shuffled, grouped(shuffled)) == texts(some, found)

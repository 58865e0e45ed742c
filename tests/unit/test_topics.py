"""What sessions are about, and how alike two of them are: by words, rare ones first."""

from __future__ import annotations

import pytest

from agentic_flywheel.policy.topics import FLOOR, SPREAD, likeness, rarity_of, spread, stems_of, topic_of

ROUTER = [("How do I reset the router?", "Hold its button."), ("Does the router keep its password?", "No.")]
ALSO = [("Which password does a router have after a reset?", "The one on its label.")]
FISH = [("Who feeds the fish at the weekend?", "Ann feeds them.")]


def test_sessions_on_one_topic_are_alike_and_others_are_not() -> None:
    one, other, fish = map(topic_of, (ROUTER, ALSO, FISH))
    rarity = rarity_of([one, other, fish])
    share, words = likeness(one, other, rarity)
    assert share >= FLOOR
    assert set(words) >= {"router", "password", "reset"}
    assert likeness(one, fish, rarity) == (0.0, ())
    assert likeness(other, one, rarity)[0] == pytest.approx(share)
    assert likeness(one, one, rarity)[0] == pytest.approx(1.0)


def test_what_all_sessions_have_says_little() -> None:
    said = [topic_of([(f"The router and the {word}?", "")]) for word in ("printer", "lamp", "desk", "door", "chair")]
    rarity = rarity_of(said)
    assert rarity["router"] < rarity["lamp"]


def test_a_question_weighs_more_than_an_answer_and_light_words_nothing() -> None:
    topic = topic_of([("Where is the printer?", "Beside the lamp.")])
    assert topic.telling(1) == ["printer"]
    assert topic.weights[stems_of("printer")[0]] > topic.weights[stems_of("lamp")[0]]
    assert topic_of([("What is it?", "That.")]).weights == {}
    assert likeness(topic_of([]), topic, rarity_of([topic])) == (0.0, ())


def test_long_sessions_are_read_all_over() -> None:
    read = spread(range(100))
    assert (len(read), read[0], read[-1]) == (SPREAD, 0, 99)
    assert read == sorted(set(read))
    assert spread([1, 2]) == [1, 2]

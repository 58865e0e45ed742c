"""Which earlier turns bear on a question: by words, the same whoever asks, and no further back than is looked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Exchange
from agentic_flywheel.policy.relevance import (
    MOST_BYTES,
    MOST_TURNS,
    SIDE_CHARACTERS,
    Earlier,
    cut,
    relevant,
    spaced,
    within_reach,
)


def earlier(id_: str, question: str, answer: str = "", size: int = 0) -> Earlier:
    return Earlier(id_, Exchange(question, answer), spaced(question), spaced(answer), stored_bytes=size)


def found(question: str, *turns: tuple[str, str] | str) -> list[str]:
    """The places of the turns that bear on a question, best first."""
    pairs = [turn if isinstance(turn, tuple) else (turn, "") for turn in turns]
    return [one.turn.id for one in relevant(question, [earlier(str(n), *pair) for n, pair in enumerate(pairs)])]


def test_a_turn_is_found_by_a_word_of_its_question_or_answer() -> None:
    turns = ("Which port does Keycloak use?", ("And behind a proxy?", "Set KC_HTTP_RELATIVE_PATH."), "Who wrote it?")
    assert found("What was the port again?", *turns) == ["0"]
    assert found("What did you say of kc_http_relative_path?", *turns) == ["1"]
    (one,) = relevant("Ports, you said?", [earlier("0", turns[0])])
    assert one.words == ("ports",)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Where are my certificates?", "How is a certificate rotated?"),
        ("Was persistence lost?", "How do I make it persist?"),
        ("What of the query?", "How slow are queries?"),
        ("Où sont les données ?", "Combien de données restent ?"),
        ("L'été dernier ?", "Que fait-on en été ?"),
        ("记忆系统在哪里", "什么是记忆"),
        ("¿Dónde está la contraseña?", "¿Cómo cambio la contraseña?"),
        ("What of caf\u00e9s?", "Where is the cafe\u0301?"),
    ],
)
def test_words_meet_in_any_of_their_forms(asked: str, said: str) -> None:
    assert found(asked, "nothing alike", said) == ["1"]


def test_short_words_are_not_taken_for_the_beginning_of_others() -> None:
    assert found("Which key is it?", "Where is the keyboard?", "Is there a key?", "Where are the keys?") == ["2", "1"]


def test_words_without_content_find_nothing() -> None:
    turns = ("What about that?", "And this one?", "How is it with the other?")
    assert found("And what about the other one?", *turns) == []
    assert found("", *turns) == []
    assert found("?!", *turns) == []
    assert relevant("port", []) == []


def test_a_rare_word_says_more_than_a_common_one() -> None:
    turns = ["How is Redis started?", "How is Redis stopped?", "How is Redis backed up?", "What does nginx do?"]
    assert found("Does Redis need nginx?", *turns)[0] == "3"


def test_a_word_in_the_question_says_more_than_one_in_the_answer() -> None:
    assert found("And nginx?", ("Why?", "Since nginx wants it."), ("Does nginx want it?", "Yes.")) == ["1", "0"]


def test_of_equal_turns_the_later_comes_first() -> None:
    assert found("And nginx?", "Is it nginx?", "Is it nginx?", "Is it nginx?") == ["2", "1", "0"]


def test_what_is_carried_along_is_cut_and_only_that_is_looked_at() -> None:
    assert cut("x" * SIDE_CHARACTERS) == "x" * SIDE_CHARACTERS
    assert cut("x" * (SIDE_CHARACTERS + 1)) == "x" * (SIDE_CHARACTERS - 1) + "…"


def test_turns_are_looked_at_so_far_back_and_no_further() -> None:
    many = [earlier(str(n), "x", size=1) for n in range(MOST_TURNS + 5)]
    assert [turn.id for turn in within_reach(many)] == [str(n) for n in range(5, MOST_TURNS + 5)]
    large = [earlier(str(n), "x", size=MOST_BYTES // 3) for n in range(6)]
    assert [turn.id for turn in within_reach(large)] == ["3", "4", "5"]
    assert within_reach([earlier("0", "x"), earlier("1", "x", size=MOST_BYTES + 1), earlier("2", "x")])[0].id == "2"
    assert within_reach([]) == []


texts = st.text(max_size=80)


@given(st.lists(st.tuples(texts, texts), max_size=12), texts)
def test_the_choice_is_a_function_of_the_texts(sides: Sequence[tuple[str, str]], question: str) -> None:
    turns = [earlier(str(n), *pair) for n, pair in enumerate(sides)]
    best = relevant(question, turns)
    assert best == relevant(question, list(turns))
    assert len({one.turn.id for one in best}) == len(best)
    assert all(one.words for one in best)


@given(st.text(max_size=300))
def test_any_text_is_cut_into_words(text: str) -> None:
    words = spaced(text)
    assert words.startswith(" ")
    assert words.endswith(" ")
    assert "  " not in words.strip() or not words.strip()

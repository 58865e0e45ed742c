"""What may be asked at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import IdError, QuestionError
from agentic_flywheel.policy.admission import LONGEST_ID, admit_id, admit_question


@pytest.mark.parametrize(
    "question", ["", "  \n\t", "\u200b\u2060", "\x00", "\u00a0", None, 5, b"bytes", ["q"], "x" * 101, "a\ud800b"]
)
def test_questions_that_cannot_be_asked(question: object) -> None:
    with pytest.raises(QuestionError) as caught:
        admit_question(question, longest=100)
    assert len(caught.value.suggestions) >= 3


def test_a_question_too_long_says_how_long_and_does_not_repeat_it() -> None:
    with pytest.raises(QuestionError, match="101") as caught:
        admit_question("x" * 101, longest=100)
    assert caught.value.details == {"characters": 101, "limit": 100}
    assert "xxx" not in caught.value.message


@pytest.mark.parametrize("question", ["?", "é", " why ", "x" * 100, "日本", "🎉", "a\nb"])
def test_questions_that_can_be_asked(question: str) -> None:
    assert admit_question(question, longest=100) == question.strip()


@given(st.text(max_size=50))
def test_what_passes_can_be_written_anywhere(question: str) -> None:
    try:
        admitted = admit_question(question, longest=40)
    except QuestionError:
        return
    assert 1 <= len(admitted) <= 40
    assert admitted == admitted.strip()
    admitted.encode()


@pytest.mark.parametrize(
    "value", ["", " ", "\n", "a\nb", "a\x00", "a\x1b[31m", "\u2028", "a\ud800", "x" * (LONGEST_ID + 1), None, 7, b"s"]
)
def test_ids_that_cannot_be_used(value: object) -> None:
    with pytest.raises(IdError, match="session"):
        admit_id(value, "session")


def test_a_tag_is_called_a_tag() -> None:
    with pytest.raises(IdError, match="the tag is empty"):
        admit_id("", "tag")


@pytest.mark.parametrize("value", ["a", "Ana Lovelace", "é:{x}|*?[", "x" * LONGEST_ID, "../..", "日本"])
def test_odd_ids_that_can_be_used(value: str) -> None:
    assert admit_id(value, "session") == value

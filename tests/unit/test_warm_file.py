"""Questions to warm, read from files: every form, and what is refused with its line."""

from __future__ import annotations

import pytest

from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.warm_file import read_questions
from agentic_flywheel.warmups import MOST_QUESTIONS, WarmPath

TWO = (
    WarmPath(questions=("What is Redis?", "How is it backed up?", "How often?"), flow="docs"),
    WarmPath(questions=("Is it free?",), standalone=True),
)
JSON_LINES = """{"question": "What is Redis?", "flow": "docs", "then": ["How is it backed up?", "How often?"]}

{"question": " Is it free? ", "standalone": true}
"""
YAML = """
- question: What is Redis?
  flow: docs
  then:
    - How is it backed up?
    - How often?
- question: Is it free?
  standalone: true
"""


def test_plain_text_has_a_question_a_line() -> None:
    found = read_questions("\ufeff# for newcomers\nWhat is Redis?\r\n\n  Why C#? \n", "questions.txt")
    assert [path.questions for path in found] == [("What is Redis?",), ("Why C#?",)]
    assert not any(path.flow or path.standalone for path in found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", JSON_LINES),
        ("stdin", JSON_LINES),
        ("a.yaml", YAML),
        ("a.YML", "questions:" + YAML.replace("\n", "\n  ")),
        ("a.json", "[" + ",".join(line for line in JSON_LINES.splitlines() if line) + "]"),
    ],
)
def test_every_form_says_the_same(name: str, text: str) -> None:
    assert read_questions(text, name) == TWO


def test_one_follow_up_and_bare_questions() -> None:
    text = "- What is Redis?\n- {question: Is Valkey free?, then: And Redis?}\n"
    assert [path.questions for path in read_questions(text, "a.yaml")] == [
        ("What is Redis?",),
        ("Is Valkey free?", "And Redis?"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "# nothing\n\n", "a.txt holds no question"),
        ("a.jsonl", '{"question": "A?"}\n{"question": \n', "a.jsonl:2: expected one JSON value"),
        ("a.jsonl", '{"question": "A?"}\n{"questions": "B?"}\n', "a.jsonl:2: expected only flow, question"),
        ("a.jsonl", '{"then": ["B?"]}\n', "a.jsonl:1: expected each question to be text"),
        ("a.jsonl", '{"question": "A?", "then": [3]}\n', "a.jsonl:1: expected each question to be text"),
        ("a.jsonl", '{"question": "A?", "then": {"question": "B?"}}\n', "a.jsonl:1: expected 'then'"),
        ("a.jsonl", '{"question": "A?", "standalone": "yes"}\n', "a.jsonl:1: expected 'flow'"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected a question"),
        ("a.yaml", "- A?\n- question: ''\n", "a.yaml:2: expected each question to be text"),
        ("a.yaml", "- A?\n- 'B\n", "a.yaml:"),
        ("a.yaml", "what: A?\n", "a.yaml:1: expected a list of questions"),
        ("a.yaml", "", "a.yaml:1: expected a list of questions"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(name: str, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_questions(text, name)
    assert caught.value.message.startswith(told)
    assert len(caught.value.suggestions) >= 3


def test_too_many_questions_are_a_slip() -> None:
    lines = "\n".join(f"Question {number}?" for number in range(MOST_QUESTIONS + 1))
    with pytest.raises(InputError, match="at most 10000"):
        read_questions(lines, "a.txt")

"""Titles that follow from what was asked: short, saying something, and never what was asked in private."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.titles import LONGEST, Titled, title_of, titled


def turn(number: int, question: str, **fields: Any) -> Turn:
    return Turn(f"t{number}", "s", float(number), question, "a", "f", "", Outcome.MISS, Reason.NOT_STORED, "", **fields)


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("How do I resume a session?", "How do I resume a session?"),
        ("Hi, could you please tell me how answers are kept?", "How answers are kept?"),
        ("Hello there! Can you help me to set up TLS?", "Set up TLS?"),
        ("I'd like to know whether Redis 6 is enough.", "Redis 6 is enough."),
        ("Quick question: where are the logs?", "Where are the logs?"),
        ("ok so please explain vector clocks", "Explain vector clocks"),
        ("Can you explain vector clocks?", "Explain vector clocks?"),
        ("I was wondering if npm works", "Npm works"),
        ("please, iOS or Android?", "iOS or Android?"),
        ("Bonjour, pourriez-vous me dire comment activer les journaux ?", "Comment activer les journaux ?"),
        ("Je voudrais savoir si TLS est requis", "TLS est requis"),
        ("S'il vous plaît, dites-moi où sont les données", "Où sont les données"),
        ("# Deploying\n\nHow is it **deployed**?", "Deploying How is it deployed?"),
        ("What is wrong?\n```\nTraceback ...\n```", "What is wrong?"),
        ("Questions about taxes", "Questions about taxes"),
        ("Solr or Elastic?", "Solr or Elastic?"),
        ("Please", "Please"),
        ("怎么安装这个系统？", "怎么安装这个系统？"),
    ],
)
def test_what_says_nothing_is_taken_off(asked: str, title: str) -> None:
    assert title_of(asked).text == title


def test_of_a_long_text_the_question_is_the_title() -> None:
    asked = (
        "My server has been down since Monday, and I have tried all that I know of. Can you tell me how nginx is "
        "restarted? It is on Debian."
    )
    assert title_of(asked).text == "How nginx is restarted?"
    assert title_of("It has been down since Monday. " * 9).text == "It has been down since Monday."


def test_a_long_sentence_is_cut_at_a_word() -> None:
    long = title_of("How do I configure the " + "configuration of the " * 9 + "server?").text
    assert long == "How do I configure the configuration of the configuration of the configuration…"
    assert len(title_of("x" * 200).text) == LONGEST
    assert title_of("Why " + "x" * 200).text == "Why " + "x" * (LONGEST - 5) + "…"


@pytest.mark.parametrize("asked", ["hi", "Hello there!", "ok", "test", "Bonjour !", "thanks", "?!", "Can you help me?"])
def test_some_questions_give_a_title_only_until_there_is_a_better_one(asked: str) -> None:
    assert title_of(asked).weak
    assert title_of(asked).text == asked
    assert titled([turn(0, asked), turn(1, "Where are the logs?"), turn(2, "And metrics?")]) == Titled(
        "Where are the logs?", "t1", False
    )
    assert titled([turn(0, asked), turn(1, "ok")]) == Titled(asked, "t0", True)


def test_what_is_private_gives_no_title() -> None:
    assert titled([turn(0, "What is my salary?", private=True)]) == Titled("", "", True)
    assert titled([turn(0, "What is my salary?", private=True), turn(1, "Where are logs?")]).turn == "t1"
    assert titled([]) == Titled("", "", True)


@given(st.text(max_size=400))
def test_any_text_gives_one_short_line(asked: str) -> None:
    title = title_of(asked)
    assert len(title.text) <= LONGEST
    assert title.text == title.text.strip()
    assert not any(unicodedata.category(char) == "Cc" for char in title.text)
    assert len(title.text.splitlines()) <= 1
    assert title == title_of(asked)
    assert title.text or not "".join(char for char in asked if char.isalnum())

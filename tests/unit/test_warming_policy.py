"""What may be asked before anybody asks it, case by case."""

from __future__ import annotations

import pytest

from agentic_flywheel.model import Directives, Sharing
from agentic_flywheel.policy.sharing import Scope, leaning, personal, scope_of
from agentic_flywheel.policy.warming import refusal
from agentic_flywheel.warmups import NotWarmed

PLAIN = "How is Redis persistence enabled?"


@pytest.mark.parametrize(
    ("question", "facts", "reason"),
    [
        (PLAIN, {}, None),
        ("What is Redis?", {}, None),  # few words, but nothing that points elsewhere
        (PLAIN, {"sharing": Sharing.USER}, NotWarmed.NOT_SHARED),
        (PLAIN, {"sharing": Sharing.SESSION}, NotWarmed.NOT_SHARED),
        (PLAIN, {"sharing": Sharing.NONE}, NotWarmed.NOT_SHARED),
        (PLAIN, {"acts": True}, NotWarmed.ACTS),
        (PLAIN, {"calls_per_minute": 1}, NotWarmed.NO_ROOM),
        (PLAIN, {"calls_per_minute": 2}, None),
        (PLAIN, {"withdrawn": True}, NotWarmed.WITHDRAWN),
        ("Where is my invoice?", {}, NotWarmed.PERSONAL),
        ("Where is my invoice?", {"standalone": True, "follow_up": True}, NotWarmed.PERSONAL),
        ("Où est notre facture ?", {}, NotWarmed.PERSONAL),
        ("What about mobile?", {}, NotWarmed.FOLLOW_UP),
        ("How do I handle token refresh in that setup?", {}, NotWarmed.FOLLOW_UP),
        ("Et sur mobile ?", {}, NotWarmed.FOLLOW_UP),
        ("Please explain", {}, NotWarmed.FOLLOW_UP),
        ("Why?", {}, NotWarmed.FOLLOW_UP),
        ("What about mobile?", {"follow_up": True}, None),
        ("How does it scale?", {}, NotWarmed.FOLLOW_UP),
        ("Is there a limit on that?", {}, NotWarmed.FOLLOW_UP),
        ("How does it scale?", {"standalone": True}, None),
        ("What about mobile?", {"standalone": True, "withdrawn": True}, NotWarmed.WITHDRAWN),
    ],
)
def test_what_is_refused_and_why(question: str, facts: dict[str, object], reason: NotWarmed | None) -> None:
    found = refusal(question, **{"sharing": Sharing.TEAM, **facts})  # type: ignore[arg-type]
    assert (found and found[0]) == reason
    if found:
        assert found[1]


def test_nothing_is_let_through_that_is_kept_for_fewer_than_the_team() -> None:
    for sharing in Sharing:
        for question in (PLAIN, "Where is my invoice?", "Was ist Redis?"):
            if refusal(question, sharing=sharing, standalone=True) is None:
                assert scope_of(sharing, Directives(), question=question, user="") is Scope.TEAM
                assert not personal(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is Redis?",
        "How do I install Valkey on Debian?",
        "Qu'est-ce que Redis ?",
        "Est-ce que Redis est libre ?",
        "Comment installer Redis en production ?",
        "Is there a limit on the size of keys?",
        "Is it possible to rename a key?",
    ],
)
def test_a_question_that_leans_on_nothing(question: str) -> None:
    assert leaning(question) == ""

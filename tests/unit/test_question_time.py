"""No question makes planning it slow: eight times the text takes about eight times the time, whatever it is made of.

All of this is done on the event loop, before anything is asked: what grew with the square let one question of a few
thousand exclamation marks hold up everybody for seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.relevance import spaced
from agentic_flywheel.policy.sharing import leaning, marker, personal
from agentic_flywheel.policy.similarity.language import language_of
from agentic_flywheel.titles import title_of

SHORT, LONG, MOST = 2_000, 16_000, 24
HOSTILE = (
    "!",
    "?",
    " !",
    "! ?",
    "….",
    "5!",
    "`",
    "```a",
    "`a",
    "'",
    "l'",
    "my ",
    "and ",
    "a.",
    "1 ",
    "é",
    "\u0301",
    "\u4e00",
)
STEPS = (normalise, marker, leaning, personal, spaced, language_of, title_of)


def seconds(step: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for run in range(3):
        another = f"q{run} {text}"  # or a step that remembers what it made would take no time
        began = time.process_time()
        step(another)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("unit", HOSTILE, ids=repr)
def test_time_grows_with_the_question_and_no_faster(step: Callable[[str], object], unit: str) -> None:
    text = unit * (LONG // len(unit) + 1)
    # What comes last keeps that from being all of one kind, and from being ASCII alone.
    assert seconds(step, text[:LONG] + "xé") <= MOST * max(seconds(step, text[:SHORT] + "xé"), 20e-6)

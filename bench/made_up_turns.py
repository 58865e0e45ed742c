"""Turns of a team that are made up, alike to real ones in what costs a search time: their length and their words.

Invariant: turn `n` is the same in every run, and no text of anybody. Words are drawn by Zipf's law with Mandelbrot's
offset (30,000 words, offset 30), which puts them into as many turns as the words of BEAM's chats stand in: the tenth
into a fifth of them, the hundredth into 6 %, the thousandth into 1 %. Nearly half are stop words. A question has some
20 words, an answer some 80. Sessions have 20 turns; 4 flows, 50 users.

Vectors are made of these words, so that turns that share rare words lie near each other: a random direction for each
word, weighted by its rarity, with most of the length on few dimensions, as measured on MiniLM.
"""

from __future__ import annotations

import itertools
import math
import random
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agentic_flywheel.model import Outcome, Reason, Turn

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS, OFFSET, DIMENSIONS = 30_000, 30, 384
SESSION_TURNS = 20
FLOWS = ("docs", "shop", "ops", "plans")
USERS = 50
_STOPS = "the to of a in is i for and how do my it on with that this can you what are be have".split()
_SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "or", "il")]
_DAY = 86_400.0
#: Every fifth search looks for common words alone.
_COMMON, _COMMONEST = 5, 300


def _word(number: int) -> str:
    """A word for each number, of two or more syllables."""
    parts = []
    number += len(_SYLLABLES)
    while number:
        number, syllable = divmod(number, len(_SYLLABLES))
        parts.append(_SYLLABLES[syllable])
    return "".join(reversed(parts))


class Team:
    """What a team asked and was answered."""

    def __init__(self, seed: int = 23) -> None:
        self._seed = seed
        self.words = [_word(number) for number in range(WORDS)]
        self._weights = list(itertools.accumulate(1 / (rank + OFFSET) for rank in range(WORDS)))
        self._stops = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(_STOPS))))

    def turn(self, number: int, *, now: float) -> Turn:
        """Turn `number`; they come in one minute after the other up to `now`'s day."""
        draw = random.Random(f"{self._seed} {number}")
        question = self._text(draw, max(3, min(120, int(draw.lognormvariate(3.0, 0.5)))))
        answer = self._text(draw, max(10, min(400, int(draw.lognormvariate(4.3, 0.5)))))
        session = number // SESSION_TURNS
        return Turn(
            id=f"{number:032x}", session_id=session_of(number), at=now - _DAY + number * 0.05,
            question=f"{question.capitalize()}?", answer=f"{answer.capitalize()}.", flow=FLOWS[session % len(FLOWS)],
            user=f"user-{session % USERS}", fingerprint="0" * 32, outcome=Outcome.MISS, reason=Reason.NOT_STORED,
            trace_id="0" * 32,
        )  # fmt: skip

    def query(self, draw: random.Random, size: int) -> str:
        """Some words of a turn's question; every fifth time common words, as in "how do I improve my app"."""
        if draw.randrange(_COMMON) == 0:
            words = draw.choices(self.words[:_COMMONEST], cum_weights=self._weights[:_COMMONEST], k=draw.randint(2, 4))
        else:
            asked = self.turn(draw.randrange(size), now=0.0).question.rstrip("?").lower().split()
            content = [word for word in asked if word not in _STOPS] or asked
            words = draw.sample(content, min(len(content), draw.randint(3, 7)))
        return f"how do i {' '.join(words)}"

    def _text(self, draw: random.Random, length: int) -> str:
        words = draw.choices(self.words, cum_weights=self._weights, k=length)
        stops = draw.choices(_STOPS, cum_weights=self._stops, k=length)
        return " ".join(stop if draw.random() < 0.45 else word for word, stop in zip(words, stops, strict=True))


def session_of(number: int) -> str:
    """The session of a turn."""
    return f"session-{number // SESSION_TURNS}"


class MadeUpVectors:
    """An embedder of made-up turns."""

    name = "made-up"
    fingerprint = "e" * 32
    dimension = DIMENSIONS
    calibration = ""
    at_once = 64

    def __init__(self, team: Team) -> None:
        draw = np.random.default_rng(1)
        scales = ((8 + np.arange(DIMENSIONS)) ** -0.62).astype("f4")
        rarity = np.log(np.arange(WORDS, dtype="f4") + OFFSET) - math.log(OFFSET) + 0.1
        rows = draw.standard_normal((WORDS, DIMENSIONS), dtype="f4") * scales
        self._rows: NDArray[np.float32] = (rows * rarity[:, None]).astype(np.float32)
        self._numbers = {word: number for number, word in enumerate(team.words)}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of unit length per text."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> NDArray[np.float32]:
        words = text.lower().rstrip("?.").split()
        content = [word for word in words if word not in _STOPS] or words or [""]
        # Words that are none of ours take the place of one of them.
        numbers = [self._numbers.get(word, zlib.crc32(word.encode()) % WORDS) for word in content]
        vector = self._rows[numbers].sum(0)
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit

    def close(self) -> None:
        """Nothing to put away."""

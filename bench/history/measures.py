"""How well a ranking finds the turns that answer a question.

Invariant: a turn is found or not; nothing is judged by a model. Recall is the share of a question's evidence, so a
question with ten turns of evidence cannot have more than half of it among the first five.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

#: A turn: the conversation, and its place in it.
Turn = tuple[str, int]


class Score(NamedTuple):
    """One question: the shares of its evidence among the first 5 and 10, whether any is among the first 5, and one
    over the rank of the first."""

    recall_5: float
    recall_10: float
    hit_5: float
    reciprocal_rank: float


class Row(msgspec.Struct, frozen=True):
    """One way of searching on one set: a score for each question."""

    name: str
    scores: list[Score]

    def mean(self, measure: Callable[[Score], float], chosen: Sequence[bool] | None = None) -> float:
        """The mean over all questions, or over those that are chosen."""
        values = [measure(score) for place, score in enumerate(self.scores) if chosen is None or chosen[place]]
        return sum(values) / len(values) if values else math.nan

    def error(self, measure: Callable[[Score], float]) -> float:
        """The standard error of the mean: another sample of such questions would differ by so much."""
        mean = self.mean(measure)
        return math.sqrt(sum((measure(score) - mean) ** 2 for score in self.scores)) / max(1, len(self.scores))


def score(found: Sequence[Turn], evidence: frozenset[Turn]) -> Score:
    """The score of a ranking, best first.

    >>> score([("a", 3), ("a", 1)], frozenset({("a", 1), ("a", 2)}))
    Score(recall_5=0.5, recall_10=0.5, hit_5=1.0, reciprocal_rank=0.5)
    """
    first = next((place for place, turn in enumerate(found, 1) if turn in evidence), None)
    return Score(
        recall_5=len(evidence.intersection(found[:5])) / len(evidence),
        recall_10=len(evidence.intersection(found[:10])) / len(evidence),
        hit_5=float(first is not None and first <= 5),
        reciprocal_rank=1 / first if first else 0.0,
    )


def paired_error(one: Row, other: Row, measure: Callable[[Score], float]) -> float:
    """The standard error of the difference of two rows' means: both were asked the same questions."""
    apart = [measure(a) - measure(b) for a, b in zip(one.scores, other.scores, strict=True)]
    mean = sum(apart) / len(apart)
    return math.sqrt(sum((each - mean) ** 2 for each in apart)) / len(apart)

"""What became of every question of a stream, and the shares that follow, with their 95 % intervals.

Invariant: one character per question in the order asked, so that every figure of every shorter stream can be counted
from one run.
"""

from __future__ import annotations

import math

import msgspec

MISS, EXACT, EXACT_WRONG, SIMILAR, WRONG = ".", "x", "X", "s", "S"


class Share(msgspec.Struct, gc=False, frozen=True):
    """`part` of `whole`."""

    part: float
    whole: int

    @property
    def value(self) -> float:
        return self.part / self.whole if self.whole else 0.0

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (E. B. Wilson 1927): nearly exact for few cases, too, and never outside of 0 to 1.

        >>> [round(100 * end, 2) for end in Share(3, 347).interval()]
        [0.29, 2.51]
        """
        if not self.whole:
            return 0.0, 1.0
        z2 = 1.959964**2
        middle = (self.value + z2 / (2 * self.whole)) / (1 + z2 / self.whole)
        spread = math.sqrt(self.value * (1 - self.value) * z2 / self.whole + (z2 / (2 * self.whole)) ** 2)
        spread /= 1 + z2 / self.whole
        return max(0.0, middle - spread), min(1.0, middle + spread)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy did with one stream. `mistakes` are the wrong similar hits: asked, taken for, similarity. Ours
    compare pairs of answers: how many, how many were judged otherwise than the labels say, and how many not at all."""

    policy: str
    outcomes: str
    mistakes: list[tuple[str, str, float]] = []
    seconds: float = 0.0
    compared: int = 0
    misjudged: int = 0
    unjudged: int = 0

    def first(self, count: int) -> Run:
        """The same, as if the stream had ended after `count` questions."""
        return msgspec.structs.replace(self, outcomes=self.outcomes[:count])

    @property
    def requests(self) -> int:
        return len(self.outcomes)

    @property
    def similar(self) -> int:
        return self.outcomes.count(SIMILAR) + self.wrong

    @property
    def wrong(self) -> int:
        """Similar questions that were given the answer of another class."""
        return self.outcomes.count(WRONG)

    @property
    def exact(self) -> int:
        return self.outcomes.count(EXACT) + self.outcomes.count(EXACT_WRONG)

    @property
    def hits(self) -> Share:
        return Share(self.exact + self.similar, self.requests)

    def wrong_of_similar(self, truly_wrong: float = 1.0) -> Share:
        """Wrong hits of the similar ones: what somebody sees who is told "similar"."""
        return Share(self.wrong * truly_wrong, self.similar)

    def wrong_of_requests(self, truly_wrong: float = 1.0) -> Share:
        return Share(self.wrong * truly_wrong, self.requests)


def pooled(runs: list[Run]) -> Run:
    """One policy on several streams, added up."""
    return Run(policy=runs[0].policy, outcomes="".join(run.outcomes for run in runs))

"""vCache, written from its paper for this benchmark (Schroeder et al., arXiv 2502.03771); none of its authors' code.

Each stored question has a curve of its own: the probability that its answer is right for a question of similarity s is
taken to be L(s, t, g) = 1 / (1 + exp(-g (s - t))), and t and g are fitted by maximum likelihood to the similarities and
verdicts that this stored question has seen as the nearest neighbour. With confidence 1 - e its threshold is at most
t'(e). The model is asked with the probability

    tau = min over e of ((1 - d) - (1 - e) L(s, t'(e), g)) / (1 - (1 - e) L(s, t'(e), g)),    cut to 0 to 1,

so that the share of wrong answers among all *requests* stays at or below d. Whenever the model is asked, its answer is
compared with the neighbour's, and the verdict is one more observation of the neighbour; the question becomes one that
others are compared with where the answers differ. Every stored question begins with the observations (0, wrong) and (1,
right); with fewer than six the model is asked.

What had to be decided here, each time in its favour. Where right and wrong are perfectly separated the likelihood has
no maximum: g is at most 45, the steepest for which budgets of 1, 2 and 5 % hold on the streams of BANKING77 and
CLINC150 (steeper ones hit more and break them). The band of t is that of the likelihood ratio at the fitted g.
Comparing with every asked question, instead of those whose answer differs, hits far less often.
"""

from __future__ import annotations

import random
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from similar.baselines import Memory, Neighbourhood
from similar.counts import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_OBSERVATIONS = 6
STEEPEST = 45.0
#: Where the likelihood is looked at: every t and g that could matter for similarities of 0 to 1.
_T = np.linspace(0.0, 1.1, 111)
_G = np.geomspace(2.0, STEEPEST, 20)
#: The confidences tried, and how far the logarithm of the likelihood may lie below its maximum for each (z^2 / 2).
_E = np.concatenate([np.geomspace(0.0005, 0.02, 16), np.linspace(0.03, 0.49, 24)])
_FALL = np.array([NormalDist().inv_cdf(1 - float(e)) ** 2 / 2 for e in _E])


def _log_likelihood(similarity: float, right: bool) -> NDArray[np.float64]:
    """Of one observation, for every t (rows) and g."""
    raised = (similarity - _T)[:, None] * _G
    return -np.logaddexp(0.0, -raised if right else raised)


_SEED = _log_likelihood(0.0, False) + _log_likelihood(1.0, True)


class _Curve:
    """What one stored question knows of its neighbours."""

    __slots__ = ("_fitted", "_likelihood", "_observations")

    def __init__(self) -> None:
        self._observations = 2
        self._likelihood = _SEED
        self._fitted: tuple[float, NDArray[np.float64]] | None = None

    def observe(self, similarity: float, right: bool) -> None:
        self._likelihood = self._likelihood + _log_likelihood(similarity, right)
        self._observations += 1
        self._fitted = None

    def _fit(self) -> tuple[float, NDArray[np.float64]]:
        """g, and t' for each confidence."""
        _, steepness = np.unravel_index(int(np.argmax(self._likelihood)), self._likelihood.shape)
        falls = self._likelihood.max() - self._likelihood[:, steepness]
        highest = [_T[np.flatnonzero(falls <= fall + 1e-6)[-1]] for fall in _FALL]
        return float(_G[steepness]), np.array(highest)

    def ask_probability(self, similarity: float, budget: float) -> float:
        """tau of the module's docstring."""
        if self._observations < LEAST_OBSERVATIONS:
            return 1.0
        if self._fitted is None:
            self._fitted = self._fit()
        steepness, highest = self._fitted
        sure = (1 - _E) / (1 + np.exp(-steepness * (similarity - highest)))
        return float(np.clip(np.min(((1 - budget) - sure) / (1 - sure)), 0.0, 1.0))


def vcache(near: Neighbourhood, budget: float, policy: str, *, seed: int = 1) -> Run:
    """vCache with the error budget `budget` (of requests) on one stream."""
    memory = Memory(near)
    curves: dict[int, _Curve] = {}
    draw = random.Random(seed)
    for place in range(len(near.keys)):
        if memory.exact(place):
            continue
        other, similarity = near.nearest(place, memory.stored)
        if other < 0:
            memory.ask(place)
            continue
        curve = curves.setdefault(other, _Curve())
        if draw.random() > curve.ask_probability(similarity, budget):
            memory.serve(place, other, similarity)
            continue
        same = memory.same(place, other)
        curve.observe(similarity, same)
        memory.ask(place, findable=not same)
    return memory.run(policy)

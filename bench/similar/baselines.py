"""What others do with the same stream and the same vectors: exact only, and one fixed cut of the cosine.

Invariant: an exact look-up comes first for all of them, as it does for ours; a question that is answered from memory
stores nothing; the nearest stored question is found exactly, so no approximate index is to blame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agentic_flywheel.policy.identity import normalise
from similar.counts import EXACT, EXACT_WRONG, MISS, SIMILAR, WRONG, Run
from similar.streams import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Cuts tried for "the best one cut", chosen afterwards by what came of it.
SWEPT = tuple(round(0.70 + 0.0025 * step, 4) for step in range(120))
#: A cut that no cosine reaches.
EXACT_ONLY = 2.0
#: Earlier questions that are kept sorted for each question; what lies beyond is computed when it is needed.
_KEPT = 192
_BLOCK = 512


class Neighbourhood:
    """For each question of a stream the earlier ones, nearest first.

    `vectors` has one row of unit length per question. Memory: a kilobyte and a half per question.
    """

    def __init__(self, stream: Stream, vectors: NDArray[np.float32]) -> None:
        self.stream = stream
        self.keys = [normalise(asked.text) for asked in stream.asked]
        self._vectors = vectors
        self._near: list[list[int]] = []
        self._similarities: list[list[float]] = []
        for begin in range(0, len(vectors), _BLOCK):
            rows = vectors[begin : begin + _BLOCK] @ vectors[: begin + _BLOCK].T
            for offset, row in enumerate(rows):
                earlier = row[: begin + offset]
                if len(earlier) > _KEPT:
                    places = np.argpartition(-earlier, _KEPT)[:_KEPT]
                    places = places[np.argsort(-earlier[places], kind="stable")]
                else:
                    places = np.argsort(-earlier, kind="stable")
                self._near.append(places.tolist())
                self._similarities.append(earlier[places].tolist())

    def nearest(self, place: int, stored: bytearray, least: float = -1.0) -> tuple[int, float]:
        """The nearest question before `place` whose byte in `stored` is set, and its similarity; (-1, 0.0) where none
        has `least`."""
        similarities = self._similarities[place]
        for other, similarity in zip(self._near[place], similarities, strict=True):
            if similarity < least:
                return -1, 0.0
            if stored[other]:
                return other, similarity
        if len(similarities) < _KEPT:
            return -1, 0.0
        there = np.flatnonzero(np.frombuffer(stored, np.uint8)[:place])
        if not len(there):
            return -1, 0.0
        found = self._vectors[there] @ self._vectors[place]
        best = int(np.argmax(found))
        return (int(there[best]), float(found[best])) if found[best] >= least else (-1, 0.0)


class Memory:
    """The stored questions of one run, and what has become of each question so far."""

    def __init__(self, near: Neighbourhood) -> None:
        self._near = near
        self.stored = bytearray(len(near.keys))
        self._exact: dict[str, int] = {}
        self._outcomes: list[str] = []
        self._mistakes: list[tuple[str, str, float]] = []

    def exact(self, place: int) -> bool:
        """Whether the very question is stored; then that is what becomes of it."""
        other = self._exact.get(self._near.keys[place])
        if other is None:
            return False
        self._outcomes.append(EXACT if self.same(place, other) else EXACT_WRONG)
        return True

    def same(self, place: int, other: int) -> bool:
        """Whether two questions have one answer."""
        asked = self._near.stream.asked
        return asked[place].answer_class == asked[other].answer_class

    def serve(self, place: int, other: int, similarity: float) -> None:
        """The question is given the other one's answer."""
        same = self.same(place, other)
        self._outcomes.append(SIMILAR if same else WRONG)
        if not same:
            asked = self._near.stream.asked
            self._mistakes.append((asked[place].text, asked[other].text, similarity))

    def ask(self, place: int, *, findable: bool = True) -> None:
        """The model answers, and the answer is stored: for the very question, and for similar ones if `findable`."""
        self._outcomes.append(MISS)
        self._exact[self._near.keys[place]] = place
        self.stored[place] = findable

    def run(self, policy: str) -> Run:
        return Run(policy=policy, outcomes="".join(self._outcomes), mistakes=self._mistakes)


def fixed_cut(near: Neighbourhood, cut: float, policy: str) -> Run:
    """The nearest stored question's answer wherever it is at least as similar as `cut`."""
    memory = Memory(near)
    for place in range(len(near.keys)):
        if memory.exact(place):
            continue
        other, similarity = near.nearest(place, memory.stored, cut) if cut <= 1 else (-1, 0.0)
        if other >= 0:
            memory.serve(place, other, similarity)
        else:
            memory.ask(place)
    return memory.run(policy)

"""Which questions seem to ask the same, so that people see one of them: for looking at, never for answering.

Invariant: a pure function of its arguments, whatever the order of the questions. What comes together here shares no
answer: only a person can see to that. Two questions that a guard tells apart (another number, the opposite, another
name), or that somebody parted, are never together, by whatever third one.

Groups grow from the likest pair on, as long as two of them are alike on average ("average linkage"): one wording that
is like two different questions does not make them one. What two questions have in common is half their own likeness and
half that of their answers, by words: a flow that says the same to both takes them for one thing. Cuts are measured
(docs/faq.md).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import msgspec

from agentic_flywheel.likeness import Profile
from agentic_flywheel.policy.similarity.answers import is_refusal, plain
from agentic_flywheel.policy.similarity.guards import refused, weigh
from agentic_flywheel.policy.topics import stems_of

#: Characters of an answer that are read.
_ANSWER = 600
#: From here on two answers are the same, by their words.
_SAME = 0.9


class Worded(msgspec.Struct, gc=False, frozen=True):
    """A question in some words: how often it was asked in them, and the answer that is stored for it ("": none)."""

    text: str
    asked: int = 1
    answer: str = ""


class Cuts(msgspec.Struct, gc=False, frozen=True):
    """From where on questions are together; `near`: from where on one follows the other in a list. `unknown` is what
    an answer counts as that is not there. Questions that are less alike than `floor` are not together, whatever their
    answers. `once` is what a wording that came up a single time is short of."""

    together: float
    near: float
    unknown: float
    floor: float
    once: float = 0.05


#: By vectors of all-MiniLM-L6-v2, and by words alone.
BY_VECTORS = Cuts(together=0.40, near=0.30, unknown=0.20, floor=0.30)
BY_WORDS = Cuts(together=0.30, near=0.22, unknown=0.15, floor=0.10)

Likeness = Sequence[Sequence[float]]


class Grouped(msgspec.Struct, frozen=True):
    """Indexes of what is together, each group with its most asked first, and the groups by how often they were asked.
    `near` leads from a group to one before it that it may well belong to."""

    groups: tuple[tuple[int, ...], ...]
    near: dict[int, int]


def grouped(
    questions: Sequence[Worded],
    *,
    likeness: Likeness | None = None,
    parted: Callable[[int, int], bool] | None = None,
) -> Grouped:
    """The questions by what they seem to ask. `likeness` has the cosines of their vectors (all-MiniLM-L6-v2); None
    goes by their words. `parted` says of two (indexes) whether somebody said that they are different questions."""
    cuts = BY_WORDS if likeness is None else BY_VECTORS
    own = likeness if likeness is not None else alike_in_words([question.text for question in questions])
    scores = _scores(questions, own, cuts)
    apart = _apart(questions, scores, own, cuts, parted)
    groups, between = _grown(scores, apart, cuts.together)

    def rank(group: int) -> tuple[int, str]:
        asked = sum(questions[place].asked for place in groups[group])
        return -asked, min(questions[place].text for place in groups[group])

    order = sorted(groups, key=rank)
    near: dict[int, int] = {}
    for place, group in enumerate(order):
        before = [(between(group, other), -at) for at, other in enumerate(order[:place]) if at not in near]
        likest = max(before, default=(0.0, 0))
        if likest[0] >= cuts.near:
            near[place] = -likest[1]
    ranked = (sorted(groups[group], key=lambda at: (-questions[at].asked, questions[at].text)) for group in order)
    return Grouped(tuple(map(tuple, ranked)), near)


def alike_in_words(texts: Sequence[str]) -> list[list[float]]:
    """The cosines of texts by the stems of their words, rare ones weighing more; 0 for a text without any.

    >>> same, other = alike_in_words(["How do I reset the router?", "Resetting a router", "Where is the key?"])[0][1:]
    >>> same > 0.9, other
    (True, 0.0)
    """
    counts = [Counter(stems_of(text)) for text in texts]
    having = Counter(root for count in counts for root in count)
    places: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for at, count in enumerate(counts):
        weights = {root: (1 + math.log(n)) * math.log(1 + len(texts) / having[root]) for root, n in count.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        for root, weight in weights.items():
            places[root].append((at, weight / length))
    cosines = [[0.0] * len(texts) for _ in texts]
    for some in places.values():
        for one, weight in some:
            row = cosines[one]
            for other, its in some:
                row[other] += weight * its
    return cosines


def _scores(questions: Sequence[Worded], own: Likeness, cuts: Cuts) -> list[list[float]]:
    said = [plain(question.answer[: 2 * _ANSWER])[:_ANSWER] for question in questions]
    said = ["" if is_refusal(text) else text for text in said]
    answers = alike_in_words(said)
    tells = [bool(text) and not _told_to_all(own[at], answers[at], cuts) for at, text in enumerate(said)]
    scores = []
    for one, row in enumerate(own):
        once = questions[one].asked == 1
        scores.append(
            [
                (row[other] + (answers[one][other] if tells[one] and tells[other] else cuts.unknown)) / 2
                - (cuts.once if once or questions[other].asked == 1 else 0.0)
                for other in range(len(questions))
            ]
        )
    return scores


def _told_to_all(own: Sequence[float], answers: Sequence[float], cuts: Cuts) -> bool:
    """Whether an answer is given to many a question that has nothing to do with this one, so that it says nothing."""
    same = [alike for alike, answer in zip(own, answers, strict=True) if answer >= _SAME]
    return 2 * sum(alike < cuts.floor for alike in same) > len(same) - 1  # it is the same as itself


def _apart(
    questions: Sequence[Worded],
    scores: Sequence[Sequence[float]],
    own: Likeness,
    cuts: Cuts,
    parted: Callable[[int, int], bool] | None,
) -> list[set[int]]:
    """For each question those that it is never together with."""
    apart: list[set[int]] = [set() for _ in questions]
    for one, row in enumerate(scores):
        for other in range(one):
            if row[other] >= cuts.near and (
                own[one][other] < cuts.floor
                or (parted is not None and parted(one, other))
                or refused(weigh(questions[one].text, questions[other].text, Profile.FAQ))
            ):
                apart[one].add(other)
                apart[other].add(one)
    return apart


def _grown(
    scores: list[list[float]], apart: list[set[int]], cut: float
) -> tuple[dict[int, list[int]], Callable[[int, int], float]]:
    """Groups by their first member, and how alike two of them are on average."""
    groups = {at: [at] for at in range(len(scores))}
    sums = [row[:] for row in scores]  # of all pairs between two groups, by their first members
    pairs = [(-row[other], other, one) for one, row in enumerate(scores) for other in range(one) if row[other] >= cut]
    heapq.heapify(pairs)

    def mean(one: int, other: int) -> float:
        return sums[one][other] / (len(groups[one]) * len(groups[other]))

    while pairs:
        score, one, other = heapq.heappop(pairs)
        if one not in groups or other not in groups or -score != mean(one, other):
            continue  # one of them has grown since
        if not apart[one].isdisjoint(groups[other]):
            continue
        groups[one] += groups.pop(other)
        apart[one] |= apart[other]
        for third in groups:
            if third != one:
                sums[one][third] += sums[other][third]
                sums[third][one] = sums[one][third]
                if (alike := mean(one, third)) >= cut:
                    heapq.heappush(pairs, (-alike, min(one, third), max(one, third)))
    return groups, mean

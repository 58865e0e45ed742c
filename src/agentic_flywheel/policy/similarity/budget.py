"""From which similarity on answers are shared: labels, what they prove, and the cut that follows.

Invariant: the cut is never below the floor; it loosens only on labels whose upper confidence bound is inside the
budget; one more wrong label never loosens it. Labels are counted in bins of similarity, so that evidence is a handful
of integers that several processes can add to (`hincrby`) and anybody can add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from agentic_flywheel.likeness import Band, Cut, SimilarMode, Terms

#: Bins per unit of similarity: a bin is .01 wide.
BINS = 100
#: Least labels at or above a cut (`search` for the reason: below that, chance decides).
LEAST_LABELS = 30
#: How sure an upper bound is (one-sided).
CONFIDENCE = 0.9


class LabelSource(StrEnum):
    """How it came to be known whether two questions have the same answer."""

    MISS = "miss"  # the question was answered by its flow; its nearest neighbour would have been served otherwise
    AUDIT = "audit"  # the neighbour's answer was served, and the flow asked as well
    REPORT = "report"  # a person said so


class Label(msgspec.Struct, gc=False, frozen=True):
    """One pair of questions that every guard lets through, and whether they have the same answer."""

    similarity: float
    same: bool
    source: LabelSource = LabelSource.MISS


class ComparerError(msgspec.Struct, gc=False, frozen=True):
    """How often the comparer of answers was found wrong, as counts of checked verdicts: "same" that were not, and
    "different" that were the same."""

    false_same: int = 0
    checked_same: int = 0
    false_different: int = 0
    checked_different: int = 0


class Evidence(msgspec.Struct, gc=False, frozen=True):
    """All labels of a flow, as counts by field `<source>:<bin>:<right|wrong>` (bin: lower edge in hundredths).

    >>> evidence = Evidence.of([Label(0.984, True), Label(0.972, False, LabelSource.AUDIT)])
    >>> evidence.counts
    {'miss:98:right': 1, 'audit:97:wrong': 1}
    """

    counts: dict[str, int] = {}

    @classmethod
    def read(cls, fields: Mapping[str, int]) -> Evidence:
        """The evidence in stored fields; fields of others (`cut`, `version`) are passed over."""
        return cls({name: int(count) for name, count in fields.items() if _parts(name) is not None})

    @classmethod
    def of(cls, labels: Iterable[Label]) -> Evidence:
        """The evidence of these labels alone."""
        counts: dict[str, int] = {}
        for label in labels:
            for name, more in increments(label).items():
                counts[name] = counts.get(name, 0) + more
        return cls(counts)

    def with_label(self, label: Label) -> Evidence:
        """The evidence with one more label."""
        more = increments(label)
        return Evidence({**self.counts, **{name: self.counts.get(name, 0) + n for name, n in more.items()}})

    def bins(self, *sources: LabelSource) -> dict[int, tuple[int, int]]:
        """Right and wrong labels by bin, of these sources (none named: of all)."""
        found: dict[int, tuple[int, int]] = {}
        for name, count in self.counts.items():
            parts = _parts(name)
            if parts is None or (sources and parts[0] not in sources):
                continue
            _, number, same = parts
            right, wrong = found.get(number, (0, 0))
            found[number] = (right + count, wrong) if same else (right, wrong + count)
        return found

    def count(self, *sources: LabelSource) -> tuple[int, int]:
        """Right and wrong labels of these sources (none named: of all)."""
        bins = self.bins(*sources).values()
        return sum(right for right, _ in bins), sum(wrong for _, wrong in bins)


def increments(label: Label) -> dict[str, int]:
    """What one label adds to the stored fields."""
    number = min(BINS - 1, max(0, math.floor(label.similarity * BINS + 1e-9)))
    return {f"{label.source}:{number:02d}:{'right' if label.same else 'wrong'}": 1}


def _parts(name: str) -> tuple[LabelSource, int, bool] | None:
    """A field's source, bin and verdict; None for a field that is no evidence."""
    match name.split(":"):
        case [source, number, "right" | "wrong" as verdict] if source in set(LabelSource) and number.isdigit():
            return LabelSource(source), int(number), verdict == "right"
    return None


def bands(evidence: Evidence) -> tuple[Band, ...]:
    """The labels by similarity, highest first, for people."""
    return tuple(
        Band(number / BINS, (number + 1) / BINS, right, wrong)
        for number, (right, wrong) in sorted(evidence.bins().items(), reverse=True)
    )


def cut_of(evidence: Evidence, terms: Terms, comparer: ComparerError | None = None) -> Cut:
    """The cut that the labels justify now; `value` None: nothing is served, `why` says what is missing."""
    if terms.mode is SimilarMode.OFF:
        return Cut(value=None, why="similar questions are off for this flow")
    shadowed = terms.mode is SimilarMode.SHADOW
    best: Cut | None = None
    right = wrong = 0
    sane = 1.0 - _missed_share(comparer)
    for number, (more_right, more_wrong) in sorted(evidence.bins().items(), reverse=True):
        right, wrong = right + more_right, wrong + more_wrong
        total = right + wrong
        if total < LEAST_LABELS:
            continue
        bound = upper_bound(wrong, total, CONFIDENCE) / sane
        if bound <= terms.max_error:
            value = max(terms.floor, number / BINS)
            best = Cut(
                value=value,
                why=f"{total} labels at or above {value:g}, {wrong} wrong: at most {bound:.1%} of answers "
                f"({CONFIDENCE:.0%} sure), within {terms.max_error:.1%}",
                right=right,
                wrong=wrong,
                bound=bound,
            )
        if number / BINS <= terms.floor:
            break
    if shadowed:
        return Cut(value=None, why="shadow: what would be served is only noted")
    if best is not None:
        return best
    if terms.mode is SimilarMode.FIXED:
        return Cut(value=terms.floor, why=f"fixed at the floor {terms.floor:g}")
    return Cut(value=None, why=f"closed until {LEAST_LABELS} labels show at most {terms.max_error:.1%} wrong answers")


def _missed_share(comparer: ComparerError | None) -> float:
    """Upper bound of the share of wrong answers that the comparer takes for the same."""
    if comparer is None or comparer.checked_same == 0:
        return 0.0
    return min(0.9, upper_bound(comparer.false_same, comparer.checked_same, CONFIDENCE))


def upper_bound(wrong: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Upper confidence bound of a share, one-sided (Clopper and Pearson 1934); 1 without any labels.

    >>> round(upper_bound(2, 347, 0.95), 4)
    0.018
    """
    if wrong >= total:
        return 1.0
    return _quantile(confidence, wrong + 1, total - wrong)


def interval(wrong: int, total: int) -> tuple[float, float]:
    """The two-sided 95 % interval of a share (Clopper and Pearson 1934); (0, 1) without any labels."""
    low = 0.0 if wrong <= 0 else _quantile(0.025, wrong, total - wrong + 1)
    return low, upper_bound(wrong, total, 0.975)


def _quantile(probability: float, a: float, b: float) -> float:
    """The quantile of the Beta distribution, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b).

    By its continued fraction, evaluated from the front (Lentz; Numerical Recipes 6.4). `a` and `b` are positive.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    upper, lower = 1.0, 1.0 - (a + b) * x / (a + 1)
    lower = 1.0 / (lower if abs(lower) > tiny else tiny)
    fraction = lower
    for m in range(1, 1000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            lower = 1.0 + factor * lower
            lower = 1.0 / (lower if abs(lower) > tiny else tiny)
            upper = 1.0 + factor / upper
            upper = upper if abs(upper) > tiny else tiny
            fraction *= upper * lower
        if abs(upper * lower - 1.0) < 1e-14:
            break
    return min(1.0, math.exp(front) * fraction / a)

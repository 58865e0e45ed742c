"""From which similarity on answers are shared: labels, what they prove, and the cut that follows.

Invariant: a cut is never below its floor; it loosens only on `LEAST_LABELS` right labels and an upper confidence bound
inside the budget; one more wrong label never loosens it. Labels are counted in bins of similarity, so that evidence is
a handful of integers that several processes can add to, and a cut is a function of them alone.

Similarity says less than one would hope, the neighbourhood says more. With all-MiniLM-L6-v2 on the questions of
BANKING77, of pairs of similarity .80 to .86 some 2 % have different answers where the other neighbours agree with the
nearest, and some 30 % where one of them does not; at .94 still 0 and 10 %. So there is a cut for each `Standing`, and
each keeps the whole budget by itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec

from agentic_flywheel.likeness import Band, Cut, SimilarMode, Terms

#: Bins per unit of similarity: a bin is .01 wide. Half and twice the width came out the same.
BINS = 100
#: Least labels (right ones) that a cut rests on: fewer say nothing, however good they are.
LEAST_LABELS = 30
#: How sure a bound is, one-sided. At .95 hits begin later and errors are not fewer: what errs is not chance alone.
CONFIDENCE = 0.9
#: A wrong answer that somebody was given counts as so many wrong labels: few of the answers served are checked.
CONFIRMED_WEIGHT = 3
#: Neighbours that are so much farther away than the one in question say nothing of it.
WINDOW = 0.12
#: A comparer that misses more than that proves nothing; the budget is never divided by zero.
_MOST_MISSED = 0.9
_ANY = "any"


class Standing(StrEnum):
    """What the other neighbours of a question say of the one whose answer would be served."""

    AGREED = "agreed"  # there are others within `WINDOW`, and all have the same answer
    ALONE = "alone"  # there is no other within `WINDOW`
    CONTESTED = "contested"  # one of them has another answer


def standing_of(similarity: float, others: Iterable[tuple[float, bool]]) -> Standing:
    """The standing of a neighbour. `others`: similarity of each other neighbour that was found (up to four, whether or
    not a guard refuses it), and whether it has the same answer.

    >>> standing_of(0.93, [(0.95, True), (0.84, True), (0.79, False)])
    <Standing.AGREED: 'agreed'>
    """
    near = [same for other, same in others if similarity - other < WINDOW]
    if not near:
        return Standing.ALONE
    return Standing.AGREED if all(near) else Standing.CONTESTED


class LabelSource(StrEnum):
    """How it came to be known whether two questions have the same answer."""

    MISS = "miss"  # the question was answered by its flow, and the neighbour's answer compared
    AUDIT = "audit"  # the neighbour's answer was served, and the flow asked as well
    REPORT = "report"  # a person said so


class Label(msgspec.Struct, gc=False, frozen=True):
    """One pair of questions that every guard lets through, and whether they have the same answer (None: whoever
    compared could not tell). `certain` says that the answers' words are the same, so that no comparer can have erred. A
    `standing` of None is not known: the label counts for every one."""

    similarity: float
    same: bool | None
    source: LabelSource = LabelSource.MISS
    standing: Standing | None = None
    certain: bool = True


class ComparerError(msgspec.Struct, gc=False, frozen=True):
    """How often the comparer of answers errs, as counts: of `different` answers that it was shown it called
    `false_same` the same, of `same` ones `false_different` different."""

    false_same: int = 0
    different: int = 0
    false_different: int = 0
    same: int = 0

    def missed(self) -> float:
        """Upper bound of the share of wrong answers that go unnoticed; 0 where the comparer was never checked."""
        if self.different == 0:
            return 0.0
        return min(_MOST_MISSED, upper_bound(self.false_same, self.different))


class Evidence(msgspec.Struct, gc=False, frozen=True):
    """All labels of a flow, as counts by field `<source>:<standing>:<bin>:<right|wrong|doubt>` (bin: lower edge in
    hundredths; standing `any` where it is not known). In `doubt` are those that are right by a comparer's word alone,
    counted as right besides, and those of which it could not tell: no more wrong answers can be hidden than these.

    >>> labels = [Label(0.984, True, standing=Standing.ALONE), Label(0.972, False, LabelSource.AUDIT)]
    >>> Evidence.of(labels).counts
    {'miss:alone:98:right': 1, 'audit:any:97:wrong': 1}
    """

    counts: dict[str, int] = {}

    @classmethod
    def read(cls, fields: Mapping[str, int]) -> Evidence:
        """The evidence in stored fields; others are passed over."""
        return cls({name: int(count) for name, count in fields.items() if _parts(name) is not None})

    @classmethod
    def of(cls, labels: Iterable[Label]) -> Evidence:
        """The evidence of these labels alone."""
        evidence = cls()
        for label in labels:
            evidence = evidence.with_label(label)
        return evidence

    def with_label(self, label: Label) -> Evidence:
        """The evidence with one more label."""
        more = {name: self.counts.get(name, 0) + count for name, count in increments(label).items()}
        return Evidence({**self.counts, **more})

    def bins(self, *sources: LabelSource, standings: Collection[Standing] = ()) -> dict[int, tuple[int, int]]:
        """Right and wrong labels by bin, of these sources and standings (none named: of all)."""
        found: dict[int, tuple[int, int]] = {}
        for source, standing, number, verdict, count in self._fields():
            if (sources and source not in sources) or (standings and standing not in {*standings, _ANY}):
                continue
            right, wrong = found.get(number, (0, 0))
            if verdict != "doubt":
                found[number] = (right + count, wrong) if verdict == "right" else (right, wrong + count)
        return found

    def doubts(self, standing: Standing | None) -> dict[int, int]:
        """Labels in doubt by bin, of this standing (None: of all)."""
        found: dict[int, int] = {}
        for _, stands, number, verdict, count in self._fields():
            if verdict == "doubt" and (standing is None or stands in {standing, _ANY}):
                found[number] = found.get(number, 0) + count
        return found

    def _fields(self) -> Iterator[tuple[str, str, int, str, int]]:
        for name, count in self.counts.items():
            if (parts := _parts(name)) is not None:
                yield *parts, count

    def count(self, *sources: LabelSource, standings: Collection[Standing] = ()) -> tuple[int, int]:
        """Right and wrong labels of these sources and standings (none named: of all)."""
        bins = self.bins(*sources, standings=standings).values()
        return sum(right for right, _ in bins), sum(wrong for _, wrong in bins)


def increments(label: Label) -> dict[str, int]:
    """What one label adds to the stored fields."""
    number = min(BINS - 1, max(0, math.floor(label.similarity * BINS + 1e-6)))
    place = f"{label.source.value}:{_ANY if label.standing is None else label.standing.value}:{number:02d}"
    verdicts = [] if label.same is None else ["right" if label.same else "wrong"]
    if label.same is None or (label.same and not label.certain):
        verdicts.append("doubt")
    return {f"{place}:{verdict}": 1 for verdict in verdicts}


def _parts(name: str) -> tuple[str, str, int, str] | None:
    """A field's source, standing, bin and verdict; None for a field that is no evidence."""
    match name.split(":"):
        case [source, standing, number, "right" | "wrong" | "doubt" as verdict] if (
            source in _SOURCES and standing in _STANDINGS
        ):
            return (source, standing, int(number), verdict) if number.isdecimal() else None
    return None


_SOURCES = frozenset(source.value for source in LabelSource)
_STANDINGS = frozenset({_ANY, *(standing.value for standing in Standing)})


def bands(evidence: Evidence, *standings: Standing) -> tuple[Band, ...]:
    """The labels of these standings (none named: of all) by similarity, highest first, for people."""
    return tuple(
        Band(number / BINS, (number + 1) / BINS, right, wrong)
        for number, (right, wrong) in sorted(evidence.bins(standings=standings).items(), reverse=True)
    )


def cuts_of(
    evidence: Evidence, terms: Terms, floors: Mapping[Standing, float], comparer: ComparerError | None = None
) -> dict[Standing, Cut]:
    """The cut of every standing; `floors` as `profiles.floors_of` gives them."""
    return {
        standing: cut_of(evidence, terms, comparer, standing=standing, floor=floors[standing]) for standing in Standing
    }


def loosest(cuts: Mapping[Standing, Cut]) -> Cut:
    """The cut from which on anything is served at all, to be shown where there is room for one."""
    return min(cuts.values(), key=lambda cut: math.inf if cut.value is None else cut.value)


def cut_of(
    evidence: Evidence,
    terms: Terms,
    comparer: ComparerError | None = None,
    *,
    standing: Standing | None = None,
    floor: float | None = None,
) -> Cut:
    """The cut that the labels of one standing (None: of all) justify now; `value` None: nothing is served.

    In mode learn it is the lowest similarity at or above which the upper bound of the share of wrong answers is within
    `max_error`. In mode fixed it is the floor, or the lowest similarity above it that labels do not speak against;
    contested neighbours have to be learnt even there. In either mode a wrong answer that was served (an audit or a
    report said so) lifts the cut above it, until the labels between the two keep the budget with that answer counted
    `CONFIRMED_WEIGHT` times: it is misses in this very stretch that are labelled then.

    The comparer is taken for worse than it was found: of the wrong answers it may have missed as many as an upper bound
    allows, so that the budget shrinks by this share (Rogan and Gladen 1978, without the part that would flatter), but
    never by more than the labels that are in doubt at all.
    """
    if terms.mode is SimilarMode.OFF:
        return Cut(value=None, why="similar questions are off for this flow")
    about = "" if standing is None else f"{standing.value}: "
    missed = comparer.missed() if comparer is not None else 0.0
    scale = _Scale(evidence, standing, terms.floor if floor is None else floor, terms.max_error, missed)
    if terms.mode is SimilarMode.FIXED and standing is not Standing.CONTESTED:
        return _fixed(scale, about)
    cut = _learnt(scale, about)
    if terms.mode is SimilarMode.SHADOW:
        would = "nothing would be served yet" if cut.value is None else f"the cut would be {cut.value:.3f}"
        why = f"{about}shadow: what is similar is only noted; {would} ({cut.why.removeprefix(about)})"
        return Cut(value=None, why=why, right=cut.right, wrong=cut.wrong, bound=cut.bound)
    return cut


class _Scale:
    """The labels of one standing, added up from the top: what is known at or above every possible cut."""

    def __init__(
        self, evidence: Evidence, standing: Standing | None, floor: float, max_error: float, missed: float
    ) -> None:
        self.floor = floor
        self.max_error = max_error
        self._missed = missed
        standings = () if standing is None else (standing,)
        bins = evidence.bins(standings=standings)
        served = evidence.bins(LabelSource.AUDIT, LabelSource.REPORT, standings=standings)
        lowest = math.floor(floor * BINS + 1e-6)
        #: Right and wrong labels at or above the bin, and right ones within it; wrong ones that were served count more.
        self.sums: dict[int, tuple[int, int, int]] = {}
        self._confirmed: list[int] = []  # bins with a wrong answer that was served, highest first
        doubts = evidence.doubts(standing)
        self._doubts: dict[int, int] = {}
        right = wrong = doubt = 0
        for number in range(BINS - 1, lowest - 1, -1):
            here, off = bins.get(number, (0, 0))
            confirmed = served.get(number, (0, 0))[1]
            if confirmed:
                self._confirmed.append(number)
            right, wrong = right + here, wrong + off + confirmed * (CONFIRMED_WEIGHT - 1)
            self.sums[number] = (right, wrong, here)
            doubt += doubts.get(number, 0)
            self._doubts[number] = doubt

    def allowed(self, number: int) -> float:
        """The share of wrong labels at or above the bin that keeps the budget, the hidden ones allowed for."""
        right, _, _ = self.sums[number]
        doubt = self._doubts[number] / right if right else 1.0  # of the right ones: a wrong label lessens no doubt
        return max(self.max_error * (1.0 - self._missed), self.max_error - doubt)

    def value(self, number: int) -> float:
        """The cut at the lower edge of a bin."""
        return max(self.floor, number / BINS)

    def relapsed(self, number: int) -> bool:
        """Whether a wrong answer was served at or above the bin, and the labels from here up to it do not make up for
        it."""
        right, wrong, _ = self.sums[number]
        allowed = self.allowed(number)
        for confirmed in self._confirmed:
            if confirmed >= number:
                above_right, above_wrong, _ = self.sums.get(confirmed + 1, (0, 0, 0))
                between = right - above_right, wrong - above_wrong
                if between[1] > allowed * sum(between):
                    return True
        return False


def _learnt(scale: _Scale, about: str) -> Cut:
    """The lowest cut whose labels keep the budget; the looser ones first, since most that fail fail at a glance."""
    max_error = scale.max_error
    for number, (right, wrong, here) in reversed(scale.sums.items()):
        total, allowed = right + wrong, scale.allowed(number)
        if here == 0 or right < LEAST_LABELS or wrong > allowed * total or scale.relapsed(number):
            continue
        if incomplete_beta(allowed, wrong + 1, right) < CONFIDENCE:
            continue
        bound = upper_bound(wrong, total) * max_error / allowed
        value = scale.value(number)
        why = f"{about}{_labels(right, wrong)} at or above {value:g}: at most {bound:.2%} of answers are wrong"
        return Cut(value=value, why=f"{why}, within {max_error:.2%}", right=right, wrong=wrong, bound=bound)
    right, wrong, _ = scale.sums.get(math.floor(scale.floor * BINS + 1e-6), (0, 0, 0))
    bound = upper_bound(wrong, right + wrong)
    known = f"{_labels(right, wrong)} at or above {scale.floor:g}"
    why = f"{about}closed: {known} do not prove that at most {max_error:.2%} of answers are wrong"
    return Cut(value=None, why=why, right=right, wrong=wrong, bound=bound if right + wrong else None)


def _fixed(scale: _Scale, about: str) -> Cut:
    """The lowest cut that labels do not speak against."""
    for number, (right, wrong, _) in reversed(scale.sums.items()):
        # More wrong than allowed even by the lower bound, so that a few chance labels close nothing.
        condemned = wrong > 0 and incomplete_beta(scale.allowed(number), wrong, right + 1) < 1 - CONFIDENCE
        if condemned or scale.relapsed(number):
            continue
        value, total = scale.value(number), right + wrong
        lifted = value > scale.floor
        why = f"fixed at the floor {value:g}" if not lifted else f"lifted from the floor {scale.floor:g} to {value:g}"
        known = f"{_labels(right, wrong)} at or above it" if total else "no labels yet"
        bound = upper_bound(wrong, total) if total else None
        return Cut(value=value, why=f"{about}{why}; {known}", right=right, wrong=wrong, bound=bound)
    right, wrong, _ = next(reversed(scale.sums.values()), (0, 0, 0))
    return Cut(
        value=None, why=f"{about}closed: {_labels(right, wrong)} speak against every cut", right=right, wrong=wrong
    )


def _labels(right: int, wrong: int) -> str:
    total = right + wrong
    return f"{total} label{'' if total == 1 else 's'}, {wrong} wrong"


def upper_bound(wrong: int, total: int, confidence: float = CONFIDENCE) -> float:
    """Upper confidence bound of a share, one-sided (Clopper and Pearson 1934); 1 without any labels.

    >>> round(upper_bound(3, 347, 0.95), 4)
    0.0222
    """
    if wrong >= total:
        return 1.0
    return _quantile(confidence, wrong + 1, total - wrong)


def interval(wrong: int, total: int) -> tuple[float, float]:
    """The two-sided 95 % interval of a share (Clopper and Pearson 1934); (0, 1) without any labels."""
    low = 0.0 if wrong <= 0 else _quantile(0.025, wrong, total - wrong + 1)
    return low, upper_bound(wrong, total, 0.975)


def _quantile(probability: float, a: float, b: float) -> float:
    """The quantile of the Beta distribution, to 1e-9: Newton's steps, a bisection wherever one would lead astray."""
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(100):
        short = probability - incomplete_beta(x, a, b)
        low, high = (x, high) if short > 0 else (low, x)
        step = short * math.exp(min(700.0, (1 - a) * math.log(x) + (1 - b) * math.log1p(-x) - constant))
        after = x + step if low < x + step < high else (low + high) / 2
        if abs(after - x) < 1e-9:
            break
        x = after
    return x


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), the distribution function of Beta(a, b); `a`, `b` positive.

    By its continued fraction, evaluated from the front (Lentz 1976; Numerical Recipes 6.4).
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    upper, lower = 1.0, 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1))
    fraction = lower
    for m in range(1, 10_000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            lower = 1.0 / _off_zero(1.0 + factor * lower)
            upper = _off_zero(1.0 + factor / upper)
            fraction *= upper * lower
        if abs(upper * lower - 1.0) < 1e-13:
            break
    return min(1.0, math.exp(front) * fraction / a)


def _off_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300

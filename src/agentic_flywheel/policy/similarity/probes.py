"""How far the comparer of answers can be trusted: pairs whose truth is known besides, and what they show.

Invariant: errors are shares of the truth, not of the verdicts: of the pairs that truly differ, how many were not called
different (a "cannot tell" is one of them); of those that say the same, how many were called different. Only so do they
carry over to pairs among which wrong answers are rarer. Counts of two comparers are never added up.

A share of wrong answers w shows as w * (1 - missed) at least, so a bound on what was seen, divided by (1 - missed), is
a bound on w: that is what `budget.cut_of` does with a `ComparerError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from agentic_flywheel.policy.similarity.budget import ComparerError, upper_bound

#: Below this similarity of their questions, two answers are taken to differ.
FAR = 0.5
#: What is assumed of any comparer before anything is known of it: counts of the default on the half of the benchmark
#: that its figures were not chosen on (answers about the same subject that differ), scaled down to what a hundred live
#: probes outweigh (docs/comparer.md).
PRIOR = ComparerError(false_same=45, different=100, false_different=1, same=100)

_FIELDS = ("different", "missed", "same", "mistaken", "far", "far_missed", "labels")


class Probe(StrEnum):
    """How it came to be known what a comparer should have said."""

    REFRESH = "refresh"  # one flow, one configuration, the same words asked twice: its answers should say the same
    FAR = "far"  # questions far apart: their answers should differ
    REPORT = "report"  # a person called an answer wrong that the comparer had judged: they do differ


def probe_of(similarity: float) -> Probe | None:
    """Whether two answers are a probe by how far apart their questions are."""
    return Probe.FAR if similarity < FAR else None


def probe_increments(comparer: str, probe: Probe, same: bool | None) -> dict[str, int]:
    """What one verdict on a pair of known truth adds to the stored fields; `comparer` is its fingerprint.

    >>> probe_increments("0123456789abcdef", Probe.REPORT, None)
    {'comparer:01234567:different': 1, 'comparer:01234567:missed': 1}
    """
    if probe is Probe.REFRESH:
        # "Cannot tell" is no error here: it costs a label, and makes no right answer look wrong.
        return _counted(comparer, "same", "mistaken" if same is False else "")
    truth, missed = ("far", "far_missed") if probe is Probe.FAR else ("different", "missed")
    return _counted(comparer, truth, missed if same is not False else "")


def label_increments(comparer: str) -> dict[str, int]:
    """What one label adds besides its own field: that this comparer had a part in a flow's evidence."""
    return _counted(comparer, "labels")


def _counted(comparer: str, *names: str) -> dict[str, int]:
    return {f"comparer:{comparer[:8]}:{name}": 1 for name in names if name}


def judged(fields: Mapping[str, int]) -> bool:
    """Whether a comparer's word stands behind any label; labels by equal words alone leave nothing to doubt."""
    return any(field.startswith("comparer:") and field.endswith(":labels") for field in fields)


def error_of(fields: Mapping[str, int]) -> ComparerError:
    """How often those who gave a flow's labels err, from its stored fields; the worst of several, the prior for none.

    A changed comparer leaves the labels of the one before where they are, and their doubts with them. Pairs far apart
    are easy, so they are counted by themselves and only count where they show more errors than the others.

    >>> error_of({}) == PRIOR
    True
    >>> error_of({"comparer:01234567:same": 900, "comparer:01234567:labels": 9}).same
    1000
    """
    counts: dict[str, dict[str, int]] = {}
    for field, count in fields.items():
        match field.split(":"):
            case ["comparer", comparer, name] if name in _FIELDS:
                counts.setdefault(comparer, {})[name] = int(count)
    gave = [known for known in counts.values() if known.get("labels", 0) > 0] or [{}]
    same = max((_same_of(known) for known in gave), key=_doubt)
    missed = max((pair for known in gave for pair in _different_of(known)), key=_doubt)
    return ComparerError(false_same=missed[0], different=missed[1], false_different=same[0], same=same[1])


def _different_of(known: Mapping[str, int]) -> list[tuple[int, int]]:
    return [
        (PRIOR.false_same + known.get("missed", 0), PRIOR.different + known.get("different", 0)),
        (known.get("far_missed", 0), known.get("far", 0)) if known.get("far", 0) >= PRIOR.different else (0, 0),
    ]


def _same_of(known: Mapping[str, int]) -> tuple[int, int]:
    return PRIOR.false_different + known.get("mistaken", 0), PRIOR.same + known.get("same", 0)


def _doubt(pair: tuple[int, int]) -> float:
    return upper_bound(*pair) if pair[1] else 0.0

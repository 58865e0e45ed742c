"""What evidence suggests that a person should decide: another profile, another lifetime.

Invariant: nothing here changes anything. A draft says what holds now, what is proposed, and the counts that speak for
it; the budget's own cut is the only thing that moves by itself.
"""

from __future__ import annotations

import math

import msgspec

from agentic_flywheel.likeness import Profile, SimilarMode, Terms
from agentic_flywheel.policy.similarity.budget import (
    BINS,
    CONFIDENCE,
    Evidence,
    Standing,
    incomplete_beta,
    upper_bound,
)
from agentic_flywheel.policy.similarity.profiles import floor_of

#: Labels that a proposal of a profile rests on, at least.
LEAST_LABELS = 100
#: Comparisons of refreshed answers that a proposal of a lifetime rests on, at least.
LEAST_REFRESHES = 30
#: Reports of outdated answers that suggest a shorter lifetime.
OUTDATED_REPORTS = 3
#: Refreshed answers that say the same: from this share on they may be kept longer; below the other, less long.
_STEADY = 0.95
_CHANGING = 0.80
_LONGER = 2.0
_LONGEST_SECONDS = 90 * 86400.0
_SHORTEST_SECONDS = 60.0
#: From the strictest to the loosest.
_LADDER = (Profile.STRICT, Profile.BALANCED, Profile.FAQ)


class Draft(msgspec.Struct, gc=False, frozen=True):
    """A proposal without id and time; `setting`, `now` and `proposed` as in `likeness.Proposal`."""

    setting: str
    now: str
    proposed: str
    evidence: str


class Refreshes(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What became of a flow's answers: refreshed ones that said the `same` or something `different`, and reports that
    one was `outdated`."""

    same: int = 0
    different: int = 0
    outdated: int = 0


def drafts_of(
    evidence: Evidence, terms: Terms, calibration: str, *, ttl_seconds: float, refreshes: Refreshes
) -> tuple[Draft, ...]:
    """All that is suggested for one flow now."""
    found = profile_draft(evidence, terms, calibration), ttl_draft(ttl_seconds, refreshes)
    return tuple(draft for draft in found if draft is not None)


def profile_draft(evidence: Evidence, terms: Terms, calibration: str) -> Draft | None:
    """A stricter profile where the present one does not keep the budget, else a looser one that would keep it.

    None where a floor was written down: the profile's does not hold then. Contested neighbours are left out: no profile
    serves them without labels of their own.
    """
    floor = floor_of(terms.profile, calibration)
    if floor is None or terms.floor != floor or terms.mode is SimilarMode.OFF:
        return None
    rank = _LADDER.index(terms.profile)
    right, wrong = _from(evidence, floor)
    total = right + wrong
    enough = total >= LEAST_LABELS and wrong > 0
    if rank > 0 and enough and incomplete_beta(terms.max_error, wrong, right + 1) < 1 - CONFIDENCE:
        return Draft(
            "profile",
            terms.profile,
            _LADDER[rank - 1],
            f"{wrong} of {total} labels at or above {floor:g} had another answer ({wrong / total:.1%}): more than "
            f"{terms.max_error:.1%}, {CONFIDENCE:.0%} sure",
        )
    if rank + 1 < len(_LADDER):
        looser = _LADDER[rank + 1]
        lower = floor_of(looser, calibration) or floor
        right, wrong = _from(evidence, lower)
        bound = upper_bound(wrong, right + wrong)
        if right + wrong >= LEAST_LABELS and bound <= terms.max_error and _has_news(evidence, lower, floor):
            return Draft(
                "profile",
                terms.profile,
                looser,
                f"{wrong} of {right + wrong} labels at or above {lower:g} had another answer: at most {bound:.2%}, "
                f"{CONFIDENCE:.0%} sure, within {terms.max_error:.1%}",
            )
    return None


def ttl_draft(ttl_seconds: float, refreshes: Refreshes) -> Draft | None:
    """A shorter lifetime where answers change or were reported as outdated, a longer one where they stay the same."""
    compared = refreshes.same + refreshes.different
    share = refreshes.same / compared if compared else 0.0
    words = f"{refreshes.same} of {compared} refreshed answers said the same ({share:.0%})"
    if refreshes.outdated >= OUTDATED_REPORTS:
        why = f"{refreshes.outdated} answers were reported as outdated"
        return _ttl(ttl_seconds, 1 / _LONGER, f"{why}; {words}" if compared else why)
    if compared < LEAST_REFRESHES:
        return None
    if share < _CHANGING:
        return _ttl(ttl_seconds, 1 / _LONGER, words)
    if share >= _STEADY and refreshes.outdated == 0:
        return _ttl(ttl_seconds, _LONGER, words)
    return None


def _ttl(seconds: float, factor: float, evidence: str) -> Draft | None:
    proposed = min(max(seconds * factor, _SHORTEST_SECONDS), _LONGEST_SECONDS)
    if (proposed - seconds) * (factor - 1) <= 0:  # at the end of what is proposed at all
        return None
    return Draft("ttl", f"{seconds:.0f}", f"{proposed:.0f}", evidence)


def _from(evidence: Evidence, floor: float) -> tuple[int, int]:
    """Right and wrong labels at or above a floor, of neighbours that are not contested (or not known to be)."""
    lowest = math.floor(floor * BINS + 1e-6)
    bins = evidence.bins(standings=(Standing.AGREED, Standing.ALONE))
    chosen = [counts for number, counts in bins.items() if number >= lowest]
    return sum(right for right, _ in chosen), sum(wrong for _, wrong in chosen)


def _has_news(evidence: Evidence, lower: float, floor: float) -> bool:
    """Whether labels lie between the two floors at all: without any, the looser one proves nothing."""
    return sum(_from(evidence, lower)) > sum(_from(evidence, floor))

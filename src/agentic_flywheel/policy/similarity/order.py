"""Whether two questions say the same words in another order, so that something else is meant by them.

Invariant: symmetric; where the order of shared words says nothing (a list joined by "and", "or", "vs"; one phrase moved
from the end to the beginning), it is not held against a pair.
"""

from __future__ import annotations

from itertools import pairwise

from agentic_flywheel.policy.similarity.reading import Reading
from agentic_flywheel.policy.similarity.stems import stem

#: The share of neighbouring shared words that may change (reference figures: docs/guards.md).
_MOST_CHANGED = 0.5
#: Prepositions of place and time: which one is used says little.
_PLACES = frozenset("in on at using en dans".split())
#: Words, as stems, that stand here or there in a question without another meaning.
_FOLDED_FLOATING = "best good popular easily easy quickly online important better famous meilleur facilement rapidement"
_FLOATING = frozenset(stem(word, french) for word in _FOLDED_FLOATING.split() for french in (False, True))


def changed_order(left: Reading, right: Reading, *, only_whole: bool = False) -> str:
    """Evidence that shared words changed places, "" if they did not.

    `only_whole` holds it against questions of the very same words only.
    """
    if left.sequence == right.sequence:
        return ""
    one, gaps = _shared(left, right)
    other, others = _shared(right, left)
    if one == other or len(one) < 2 or (left.symmetric and right.symmetric):
        return ""
    before = set(pairwise(one))
    kept = sum(pair in before for pair in pairwise(other))
    whole = set(left.sequence) == set(right.sequence)
    if not whole and (only_whole or kept >= (1 - _MOST_CHANGED) * (len(one) - 1)):
        return ""
    if _is_rephrased(one, gaps, other, others):
        return ""
    return f"{_show(one, other, left)} / {_show(other, one, right)}"


def changed_roles(left: Reading, right: Reading) -> str:
    """Evidence that shared words changed prepositions ("from A to B", "to A from B"), "" if they did not."""
    if left.roles == right.roles:
        return ""
    both = {role for role, _ in left.roles} & {role for role, _ in right.roles} - _PLACES
    if len(both) < 2:
        return ""
    for word in sorted({word for _, word in left.roles} & {word for _, word in right.roles}):
        had = {role for role, placed in left.roles if placed == word} & both
        has = {role for role, placed in right.roles if placed == word} & both
        if had - has and has - had:
            return f"{min(had - has)} {word} / {min(has - had)} {word}"
    return ""


def _shared(one: Reading, other: Reading) -> tuple[list[str], list[str]]:
    """The words of `one` that `other` has, each once, in order of first appearance, and what stands before each."""
    known = set(other.sequence)
    found: dict[str, str] = {}
    for word, gap in zip(one.sequence, one.gaps, strict=True):
        if word in known:
            found.setdefault(word, gap)
    return list(found), list(found.values())


def _show(one: list[str], other: list[str], reading: Reading) -> str:
    differing = [mine for mine, theirs in zip(one, other, strict=True) if mine != theirs]
    return " ".join(reading.content.get(stem, stem.lstrip("#")) for stem in differing[:4])


def _is_rephrased(one: list[str], gaps: list[str], other: list[str], others: list[str]) -> bool:
    """Whether two neighbouring phrases changed places without a change of meaning.

    So it is with "X and Y", with "English newspaper" and "newspaper in English", with one phrase behind a preposition
    that stands at either end, and with one adverb or superlative that floats.
    """
    start, end = 0, len(one)
    while one[start] == other[start]:
        start += 1
    while one[end - 1] == other[end - 1]:
        end -= 1
    mine, theirs = one[start:end], other[start:end]
    for size in range(1, len(mine)):
        if theirs != mine[size:] + mine[:size]:
            continue
        here, there = gaps[start + size], others[end - size]
        if {here, there} == {"and"} or {here, there} == {"", "of"}:
            return True
        if (size == 1 and mine[0] in _FLOATING) or (size == len(mine) - 1 and mine[-1] in _FLOATING):
            return True
        outer, outer_there = gaps[start], others[start]
        whole = start == 0 and end == len(one)
        return whole and ((outer == "of" and there == "of") or (outer_there == "of" and here == "of"))
    return False

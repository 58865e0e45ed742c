"""Whether two questions say the same words in another order, so that something else is meant by them.

Invariant: symmetric; where the order of shared words says nothing (a list joined by "and", "or", "vs"; one phrase moved
from the end to the beginning), it is not held against a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentic_flywheel.policy.similarity.reading import Reading

#: The share of neighbouring shared words that may change (reference figures: docs/guards.md).
_MOST_CHANGED = 0.5
#: Prepositions that begin a phrase which may stand at either end of a question.
_PLACES = frozenset("in on at using en dans".split())
_MOVABLE = frozenset("in on for with using under without en dans pour avec sous sur sans chez at".split())


def changed_order(left: Reading, right: Reading) -> str:
    """Evidence that shared words changed places, "" if they did not."""
    if left.sequence == right.sequence:
        return ""
    one, other = _shared(left.sequence, right.sequence), _shared(right.sequence, left.sequence)
    if one == other or len(one) < 2:
        return ""
    if len(one) == len(other):
        before = set(zip(one, one[1:], strict=False))
        kept = sum(pair in before for pair in zip(other, other[1:], strict=False))
        whole = sorted(left.sequence) == sorted(right.sequence)
        if not whole and kept >= (1 - _MOST_CHANGED) * (len(one) - 1):
            return ""
        if _linked(left, right) or _moved(one, other, left, right):
            return ""
    return f"order: {_show(one, other, left)} / {_show(other, one, right)}"


def changed_roles(left: Reading, right: Reading) -> str:
    """Evidence that shared words changed prepositions ("from A to B", "to A from B"), "" if they did not."""
    if left.roles == right.roles:
        return ""
    both = {role for role, _ in left.roles} & {role for role, _ in right.roles} - _PLACES
    if len(both) < 2:
        return ""
    placed = {word: role for role, word in left.roles if role in both}
    for role, word in sorted(right.roles):
        had = placed.get(word)
        if had is not None and had != role and role in both and (role, word) not in left.roles:
            return f"order: {had} {word} / {role} {word}"
    return ""


def _shared(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """The words of `one` that `other` has, each once, in order of first appearance."""
    known = set(other)
    return [word for word in dict.fromkeys(one) if word in known]


def _show(one: list[str], other: list[str], reading: Reading) -> str:
    pairs = zip(one, other, strict=False)
    differing = [mine for mine, theirs in pairs if mine != theirs]
    return " ".join(reading.content.get(stem, stem.lstrip("#")) for stem in differing[:4])


def _linked(left: Reading, right: Reading) -> bool:
    """Whether the orders differ only by what stands on the two sides of one "and", "or", "vs"."""
    a, b = left.sequence, right.sequence
    if len(a) != len(b):
        return False
    start = 0
    while start < len(a) and a[start] == b[start]:
        start += 1
    end = len(a)
    while end > start and a[end - 1] == b[end - 1]:
        end -= 1
    for link in left.links:
        if start < link < end and b[start:end] == (*a[link:end], *a[start:link]) and start + end - link in right.links:
            return True
    return False


def _moved(one: list[str], other: list[str], left: Reading, right: Reading) -> bool:
    """Whether one phrase behind a preposition stands at the end here and at the beginning there."""
    for size in range(1, min(4, len(one))):
        for front, back, ends in ((one, other, left), (other, one, right)):
            if [*front[size:], *front[:size]] == back:
                role = next((role for role, word in ends.roles if word == front[0]), "")
                again = {role for role, word in (right if ends is left else left).roles if word == front[0]}
                if role in _MOVABLE and role in again:
                    return True
    return False

"""The guards: what two questions must have in common before a similarity is believed.

Invariant: a guard can only refuse; the decision does not depend on which question is the stored one; a question never
refuses itself. Every verdict names its evidence, so that a person can follow it (docs/guards.md).
"""

from __future__ import annotations

from collections.abc import Iterable

from agentic_flywheel.likeness import GuardVerdict, Profile
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.similarity.language import GUARDED, language_of
from agentic_flywheel.policy.similarity.order import changed_order, changed_roles
from agentic_flywheel.policy.similarity.reading import Reading, read
from agentic_flywheel.policy.similarity.tokens import READ_CHARACTERS
from agentic_flywheel.policy.similarity.words import is_common, is_weak, word_of

#: The guards in the order in which their verdicts come; `faq` has the first eight, `content` is wider in `strict`.
GUARDS = ("language", "length", "numbers", "negation", "opposites", "names", "symbols", "order", "focus", "content")
#: What evidence shows of one side at most.
_SHOWN = 60
#: "Never" and "ne ... plus" (no longer) are not "not"; all other negations are one.
_NEGATION_KINDS = {"never": "never", "jamais": "never", "ne": "ne"}


def weigh(asked: str, stored: str, profile: Profile) -> tuple[GuardVerdict, ...]:
    """What every guard of the profile says of two questions, in the order of `GUARDS`.

    >>> [v.evidence for v in weigh("Who won in 2023?", "Who won in 2024?", Profile.BALANCED) if not v.passed]
    ['asked: 2023, stored: 2024']
    >>> refused(weigh("How do I reset my password?", "How can I reset my passwords?", Profile.STRICT))
    False
    """
    one, other = language_of(asked), language_of(stored)
    french = "fr" in {one, other}
    left, right = read(asked, french), read(stored, french)
    faq = profile is Profile.FAQ
    evidence = {
        "language": _language(one, other),
        "length": _length(asked, stored),
        "numbers": _numbers(left, right),
        "negation": _negation(left, right),
        "opposites": _opposites(left, right),
        "names": _names(left, right),
        "symbols": _symbols(left, right),
        "order": changed_roles(left, right) or changed_order(left, right, only_whole=faq),
    }
    if not faq:
        # Narrow flows know few things, and what is asked of one has one answer: these two cost hits there and catch
        # nothing (measured: docs/guards.md).
        evidence["focus"] = _focus(left, right)
        strict = profile is Profile.STRICT
        evidence["content"] = _content(left, right, french) if strict else _exchanged(left, right, french)
    if any(evidence.values()) and normalise(asked) == normalise(stored):
        evidence = dict.fromkeys(evidence, "")
    return tuple(GuardVerdict(guard, not found, found) for guard, found in evidence.items())


def refused(verdicts: Iterable[GuardVerdict]) -> bool:
    """Whether any guard refused."""
    return not all(verdict.passed for verdict in verdicts)


def _sides(asked: Iterable[str], stored: Iterable[str]) -> str:
    left, right = " ".join(asked)[:_SHOWN], " ".join(stored)[:_SHOWN]
    return f"asked: {left or 'none'}, stored: {right or 'none'}"


def _language(one: str, other: str) -> str:
    unguarded = sorted({one, other} - GUARDED)
    if unguarded:
        return f"no guards for {unguarded[0]}"
    return f"asked: {one}, stored: {other}" if {one, other} == {"en", "fr"} else ""


def _length(asked: str, stored: str) -> str:
    return f"longer than {READ_CHARACTERS} characters" if max(len(asked), len(stored)) > READ_CHARACTERS else ""


def _numbers(left: Reading, right: Reading) -> str:
    if left.numbers == right.numbers:
        return ""
    asked, stored = left.numbers - right.numbers, right.numbers - left.numbers
    # "one" and "un" are numbers, articles or pronouns: they stand for a 1 of the other side, never against it.
    if set(asked) <= {"1"} and not stored and asked["1"] <= right.ones:
        return ""
    if set(stored) <= {"1"} and not asked and stored["1"] <= left.ones:
        return ""
    return _sides(sorted(asked.elements()), sorted(stored.elements()))


def _negation(left: Reading, right: Reading) -> str:
    kinds = [sorted(_NEGATION_KINDS.get(word, "not") for word in side.negations) for side in (left, right)]
    if kinds[0] != kinds[1]:
        return _sides(left.negations, right.negations)
    if left.scopes != right.scopes:
        return _sides(sorted(left.scopes - right.scopes), sorted(right.scopes - left.scopes))
    return ""


def _opposites(left: Reading, right: Reading) -> str:
    for group, mine in left.poles.items():
        theirs = right.poles.get(group)
        if theirs is None or mine.keys() == theirs.keys():
            continue
        extra = [word for pole, word in mine.items() if pole not in theirs]
        lacking = [word for pole, word in theirs.items() if pole not in mine]
        if is_weak(group) and not (extra and lacking):
            continue
        return f"{' '.join(extra) or ' '.join(mine.values())} / {' '.join(lacking) or ' '.join(theirs.values())}"
    return ""


def _focus(left: Reading, right: Reading) -> str:
    """Who, when, where, why, how much, can, should: another one is another question.

    "What" and "how" are asked for almost anything: they count where nothing else differs.
    """
    if left.asks == right.asks or not left.asks or not right.asks:
        return ""
    if not (left.asks | left.hints).isdisjoint(right.asks | right.hints):
        return ""
    loose = {"what", "how"}
    if not (left.asks | right.asks).isdisjoint(loose) and left.content.keys() != right.content.keys():
        return ""
    if left.asks <= loose and right.asks <= loose:
        return ""
    return _sides(sorted(left.asks), sorted(right.asks))


def _names(left: Reading, right: Reading) -> str:
    asked = _only(left, right)
    stored = _only(right, left)
    if not asked and not stored:
        return ""
    if asked and stored:
        return _sides(asked, stored)
    return f"only {'asked' if asked else 'stored'}: {' '.join(asked or stored)[:_SHOWN]}"


def _only(one: Reading, other: Reading) -> list[str]:
    """Names and code that only one side has."""
    found = [
        shown
        for word, shown in one.names.items()
        if word not in other.words
        and word.replace("-", "") not in other.words
        and not _stem_known(word, other)
        and not (1 < len(word) < 6 and shown.isupper() and word in other.initials)
    ]
    found += [code for code in one.codes - other.codes if other.codes or code not in other.text]
    return found


def _stem_known(word: str, other: Reading) -> bool:
    return word_of(word, french=False).stem in other.stems or word_of(word, french=True).stem in other.stems


def _symbols(left: Reading, right: Reading) -> str:
    if left.symbols == right.symbols:
        return ""
    return _sides(sorted((left.symbols - right.symbols).elements()), sorted((right.symbols - left.symbols).elements()))


def _content(left: Reading, right: Reading, french: bool) -> str:
    """Words of content that one side has and the other has neither itself nor by another word of the same meaning."""
    asked, stored = _unshared(left, right, french), _unshared(right, left, french)
    if asked and stored:
        return _sides(asked.values(), stored.values())
    rare = [word for word in (*asked.values(), *stored.values()) if french or not is_common(word)]
    if rare:
        return f"only {'asked' if asked else 'stored'}: {' '.join(rare)[:_SHOWN]}"
    again = [word for word in left.content if left.sequence.count(word) != right.sequence.count(word) > 0]
    if again:
        return f"not as often: {' '.join(left.content[word] for word in again)[:_SHOWN]}"
    more = (left.asks - right.asks - right.hints) | (right.asks - left.asks - left.hints)
    more &= {"who", "when", "where", "why"}
    return f"only one asks {' '.join(sorted(more))}" if more else ""


def _exchanged(left: Reading, right: Reading, french: bool) -> str:
    """One word of content stands in the place of another, and nothing else differs."""
    differing = [(a, b) for a, b in zip(left.sequence, right.sequence, strict=False) if a != b]
    if len(left.sequence) != len(right.sequence) or len(differing) != 1:
        return ""
    asked, stored = _unshared(left, right, french), _unshared(right, left, french)
    return _sides(asked.values(), stored.values()) if asked and stored else ""


def _unshared(one: Reading, other: Reading, french: bool) -> dict[str, str]:
    return {
        stem: word
        for stem, word in one.content.items()
        if stem not in other.stems and not _has_synonym(word, other, french)
    }


def _has_synonym(word: str, other: Reading, french: bool) -> bool:
    senses = word_of(word, french).senses
    if senses and any(not set(senses).isdisjoint(word_of(w, french).senses) for w in other.content.values()):
        return True
    return not french and any(_is_derived(word, w) for w in other.content.values())


def _is_derived(one: str, other: str) -> bool:
    """Whether two frequent English words are of one family: "recover" and "recovery", "different" and "difference"."""
    if one[:6] != other[:6] or len(one) < 6:
        return False
    shared = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return shared >= 0.65 * max(len(one), len(other)) and is_common(one) and is_common(other)

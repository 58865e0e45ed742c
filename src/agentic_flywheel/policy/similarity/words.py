"""What single words are, whatever their place: stems, content or not, the poles of opposed terms they stand at.

Invariant: built once from the lexicons, then only looked up.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from agentic_flywheel.policy.similarity.lexicon import OPPOSED
from agentic_flywheel.policy.similarity.lexicon_fr import OPPOSED as OPPOSED_FRENCH
from agentic_flywheel.policy.similarity.lexicon_light import LIGHT, SAME, SAME_FRENCH, STOP_ENGLISH, STOP_FRENCH
from agentic_flywheel.policy.similarity.stems import stem


class Word(msgspec.Struct, frozen=True, gc=False):
    """What one word is, whatever its place; `poles` are (group, pole), `senses` groups of words that mean the same."""

    stem: str
    content: bool
    light: bool
    poles: tuple[tuple[int, int], ...]
    senses: tuple[int, ...]


def _groups(text: str) -> list[tuple[bool, list[list[str]]]]:
    found = []
    for line in text.strip().splitlines():
        weak = line.startswith("!")
        found.append((weak, [pole.split() for pole in line.lstrip("!").split("/")]))
    return found


class _Terms:
    """The lexicons by word and by stem; built when the first question is read."""

    def __init__(self) -> None:
        self.exact: dict[str, list[tuple[int, int]]] = {}
        self.stems: tuple[dict[str, list[tuple[int, int]]], dict[str, list[tuple[int, int]]]] = ({}, {})
        self.weak: set[int] = set()
        self.french: set[int] = set()
        number = 0
        for text, french in ((OPPOSED, False), (OPPOSED_FRENCH, True)):
            for weak, poles in _groups(text):
                if weak:
                    self.weak.add(number)
                if french:
                    self.french.add(number)
                for pole, words in enumerate(poles):
                    for word in words:
                        self.exact.setdefault(word, []).append((number, pole))
                        self.stems[french].setdefault(stem(word, french), []).append((number, pole))
                number += 1
        self.same: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
        for text, french in ((SAME, False), (SAME_FRENCH, True)):
            for line in text.strip().splitlines():
                for word in line.split():
                    for as_french in (False, True) if not french else (True,):
                        self.same[as_french].setdefault(stem(word, as_french), []).append(number)
                number += 1
        self.light = ({stem(w, False) for w in LIGHT} | LIGHT, {stem(w, True) for w in LIGHT} | LIGHT)


@lru_cache(maxsize=1)
def _terms() -> _Terms:
    return _Terms()


def is_weak(group: int) -> bool:
    """Whether a group of opposed terms counts only where each side has a pole of its own."""
    return group in _terms().weak


@lru_cache(maxsize=32768)
def word_of(word: str, french: bool) -> Word:
    """What a folded word is, from the lexicons."""
    terms = _terms()
    root = stem(word, french)
    stopped = word in STOP_FRENCH if french else word in STOP_ENGLISH
    found: dict[tuple[int, int], None] = {}
    for pole in terms.exact.get(word, ()):
        # Words of the other language that are function words of this one: "on" in French, "plus" and "pour" elsewhere.
        if pole[0] in terms.french:
            if french or word not in STOP_FRENCH:
                found[pole] = None
        elif not french or word not in STOP_FRENCH:
            found[pole] = None
    if not found and not stopped and len(word) > 3:
        for as_french in (False, True):
            for pole in terms.stems[as_french].get(stem(word, as_french), ()):
                if as_french == french or len(word) > 5:
                    found[pole] = None
    light = word in terms.light[french] or root in terms.light[french]
    content = not stopped and (len(word) > 1 or not word.isalpha() or word in {"c", "r"})
    return Word(root, content, light, tuple(found), tuple(terms.same[french].get(root, ())))


@lru_cache(maxsize=1)
def _common() -> frozenset[str]:
    from importlib.resources import files  # only where questions are compared: it takes a while

    text = files("agentic_flywheel.policy.similarity").joinpath("common-english.txt").read_text("utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def is_common(word: str) -> bool:
    """Whether a folded English word is among the frequent ones (names of people and places left out)."""
    return word in _common() or stem(word, False) in _common()

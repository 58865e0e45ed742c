"""Reads the corpus: texts with what is to be found in them, and how well a redactor does on them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from agentic_flywheel.personal_data import ALL_KINDS, Found, Kind
from agentic_flywheel.policy.redaction.finding import Redactor

CORPUS = Path(__file__).with_name("redaction_corpus.txt")
_MARK = re.compile(r"⟦(\w+):(.*?)⟧")
_PART = re.compile(r"# part: (\w+), language: (\w+)")


class Line(NamedTuple):
    """A text, and what is to be found in it."""

    part: str
    language: str
    text: str
    found: tuple[Found, ...]


class Score(NamedTuple):
    """How much of a kind was found, and how much of what was found is there."""

    there: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.there if self.there else 1.0


def corpus() -> list[Line]:
    """All lines, in their order."""
    part, language, lines = "", "", list[Line]()
    for written in CORPUS.read_text(encoding="utf-8").splitlines():
        if heading := _PART.match(written):
            part, language = heading.groups()
        elif written and not written.startswith("# ") and part:
            lines.append(_read(part, language, written))
    return lines


def _read(part: str, language: str, written: str) -> Line:
    text, place, found = "", 0, list[Found]()
    for mark in _MARK.finditer(written):
        text += written[place : mark.start()]
        found.append(Found(Kind(mark.group(1)), len(text), len(text) + len(mark.group(2))))
        text, place = text + mark.group(2), mark.end()
    return Line(part, language, text + written[place:], tuple(found))


def slips(lines: Iterable[Line], redactor: Redactor) -> list[tuple[str, str, str, str]]:
    """What was missed, and what was taken for something: the mark (- or +), the kind, the words, the whole text."""
    wrong = []
    for line in lines:
        found = redactor.find(line.text)
        wrong += [
            ("-", one.kind.value, line.text[one.start : one.end], line.text) for one in line.found if one not in found
        ]
        wrong += [
            ("+", one.kind.value, line.text[one.start : one.end], line.text) for one in found if one not in line.found
        ]
    return wrong


def scores(lines: Iterable[Line]) -> dict[str, Score]:
    """By kind: right is what was found with exactly its characters and its kind."""
    redactor = Redactor(ALL_KINDS)
    there, told, right = Counter[str](), Counter[str](), Counter[str]()
    for line in lines:
        found = redactor.find(line.text)
        there.update(one.kind.value for one in line.found)
        told.update(one.kind.value for one in found)
        right.update(one.kind.value for one in found if one in line.found)
    return {kind.value: Score(there[kind], told[kind], right[kind]) for kind in Kind if kind is not Kind.NAME}

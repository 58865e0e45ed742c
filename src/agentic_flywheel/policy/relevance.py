"""Which earlier turns of a session bear on a question, by the words that they share with it.

Invariant: a pure function of texts, the same in every process and on every machine: no index, no model, no clock. Words
are weighed by how few of the turns have them (BM25, Robertson and Zaragoza 2009), so a word that every turn has decides
nothing. Only words of the question are looked for in the turns: nothing need be kept of them but what would be carried
along, and hundreds cost a fraction of a millisecond. Figures: docs/threads.md.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from agentic_flywheel.model import Exchange, Turn
from agentic_flywheel.policy.sharing import is_light, personal
from agentic_flywheel.policy.similarity.language import fold, language_of
from agentic_flywheel.policy.similarity.stems import stem

#: Characters of a side of an earlier exchange that are carried along; its beginning holds what follow-ups refer to.
SIDE_CHARACTERS = 600
#: How far back turns are looked at: so many, and so many bytes as they lie in Redis (about 120 with long answers).
#: This bounds what a process reads when it meets a long session; docs/threads.md has what less of it would find.
MOST_TURNS = 256
MOST_BYTES = 256 * 1024

#: What a word of the answer counts beside one of the question, and how soon repeating a word stops counting. On BEAM
#: and LoCoMo anything from 0.3 to 1 and from 0.5 to 1.6 is within two points, with and without regard to length.
_ANSWER_WEIGHT = 0.5
_SATURATION = 0.8
#: Longer words are the same word if their stems begin alike; shorter ones have their few forms looked for.
_LONG = 4
_BEGINNING = 7
#: Whoever pastes a page is looked for by its first words.
_MOST_WORDS = 24
#: Scores are compared so finely: the last digits of a logarithm differ between machines.
_DIGITS = 6
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}])[^\W_])+")
_NOT_WORD = re.compile(r"[\W_]+")


class Owned(NamedTuple):
    """Whose an earlier turn is: its session's alone (`private`), its user's alone (`own`), or, as far as it goes, that
    of whom its `flow` shares answers with."""

    flow: str = ""
    private: bool = False
    own: bool = False


def whose(turn: Turn) -> Owned:
    """Whose a turn is. One about its asker's own things is its user's, and so is what follows from it."""
    return Owned(turn.flow, turn.private, turn.own or personal(turn.question))


class Earlier(msgspec.Struct, gc=False, frozen=True):
    """A turn that lies further back: what is carried along of it, and the words of both sides (see `spaced`).

    `stored_bytes` is its size in Redis, 0 where that is not known.
    """

    id: str
    exchange: Exchange
    asked: str
    answered: str
    owned: Owned = Owned()
    stored_bytes: int = 0

    @classmethod
    def of(cls, turn: Turn, stored_bytes: int = 0) -> Earlier:
        """What is kept of a turn."""
        exchange = Exchange(cut(turn.question), cut(turn.answer))
        return cls(turn.id, exchange, spaced(exchange.question), spaced(exchange.answer), whose(turn), stored_bytes)


class Relevant(NamedTuple):
    """An earlier turn that shares words with a question, and which ones, as the question has them."""

    turn: Earlier
    words: tuple[str, ...]


def cut(text: str) -> str:
    """The beginning of a side of an exchange; an ellipsis says that there is more."""
    return text if len(text) <= SIDE_CHARACTERS else text[: SIDE_CHARACTERS - 1].rstrip() + "…"


def spaced(text: str) -> str:
    """The words of a text, folded, each between single spaces, so that the beginning of a word can be looked for.

    >>> spaced("L’été: AFW_REDIS_URL!")
    ' l ete afw redis url '
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return f" {fold(_NOT_WORD.sub(' ', text)).strip()} "


def within_reach(turns: Sequence[Earlier]) -> Sequence[Earlier]:
    """The newest of these turns (given oldest first) that are looked at: `MOST_TURNS` of `MOST_BYTES` together."""
    room, start = MOST_BYTES, len(turns)
    for turn in reversed(turns[-MOST_TURNS:]):
        room -= turn.stored_bytes
        if room < 0:
            break
        start -= 1
    return turns[start:]


def relevant(question: str, turns: Sequence[Earlier]) -> list[Relevant]:
    """The turns that share a word of content with the question, best first; of equal ones the later first.

    >>> port = Earlier("1", Exchange("", ""), spaced("Which ports does Redis use?"), spaced("6379"))
    >>> other = Earlier("2", Exchange("", ""), spaced("And with TLS?"), spaced("The same."))
    >>> [(found.turn.id, found.words) for found in relevant("What was the port again?", [port, other])]
    [('1', ('port',))]
    """
    scores: dict[int, float] = {}
    shared: dict[int, list[str]] = {}
    for word, forms in _words_of(question):
        counts = _counts(forms, turns)
        rarity = math.log(1 + (len(turns) - len(counts) + 0.5) / (len(counts) + 0.5))
        for place, count in counts.items():
            gain = rarity * count * (1 + _SATURATION) / (count + _SATURATION)
            scores[place] = scores.get(place, 0.0) + gain
            shared.setdefault(place, []).append(word)
    ranked = sorted(scores, key=lambda place: (round(scores[place], _DIGITS), place), reverse=True)
    return [Relevant(turns[place], tuple(shared[place])) for place in ranked]


def _counts(forms: Sequence[str], turns: Sequence[Earlier]) -> dict[int, float]:
    """How often each turn has a word; in its answer it counts for less. Turns without it are left out."""
    counts: dict[int, float] = {}
    for form in forms:
        for place, turn in enumerate(turns):
            if form in turn.asked or form in turn.answered:
                count = turn.asked.count(form) + _ANSWER_WEIGHT * turn.answered.count(form)
                counts[place] = counts.get(place, 0.0) + count
    return counts


@lru_cache(maxsize=512)
def _words_of(question: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The words of content of a question, each once, with the forms to look for in a text that is `spaced`."""
    french = language_of(question) == "fr"
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for word in _pieces(_WORD.findall(fold(question))):
        if len(found) == _MOST_WORDS:
            break
        if word[0] > "\u303f":
            found.setdefault(word, (word, (word,)))
        elif not is_light(word) and (len(word) > 1 or word.isdigit()):
            root = stem(word, french)
            found.setdefault(root, (word, _forms(word, root)))
    return tuple(found.values())


def _forms(word: str, root: str) -> tuple[str, ...]:
    """What to look for to find any form of a word."""
    if len(root) < _LONG:  # so short a beginning is that of many other words
        singular = word.removesuffix("s")
        return tuple({f" {form} ": 0 for form in (word, root, f"{root}s", singular, f"{singular}s")})
    if root.endswith("y") and len(root) <= _BEGINNING:
        return f" {root}", f" {root[:-1]}i"  # queries
    return (f" {root[:_BEGINNING]}",)


def _pieces(words: Iterable[str]) -> Iterable[str]:
    """Words as they are; of scripts without spaces, pairs of neighbouring characters."""
    for word in words:
        if word[0] > "\u303f" and len(word) > 1:
            yield from (word[at : at + 2] for at in range(len(word) - 1))
        else:
            yield word

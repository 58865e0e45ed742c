"""What a session is about, and how much of that another one shares: by words, weighed by how few sessions have them.

Invariant: a pure function of texts, symmetric, from 0 (nothing shared) to 1 (the same words). Who may see which turns
is decided before: nothing plays a part that was not given. Sizes and floor are measured (docs/threads.md).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from agentic_flywheel.policy.sharing import is_light
from agentic_flywheel.policy.similarity.language import fold, language_of
from agentic_flywheel.policy.similarity.stems import stem

#: Exchanges that are read of a session, spread over it: more of them, and long sessions are all about the same.
SPREAD = 12
#: From here on two sessions are on one topic.
FLOOR = 0.18
#: So many words must say so.
LEAST_WORDS = 2
#: Characters of a question and of an answer that are read; what a word of an answer counts beside one of a question.
_QUESTION = 600
_ANSWER = 600
_ANSWER_WEIGHT = 0.3
#: Sessions without any of the words, beside those that are compared: what two of three share is not common yet.
_OTHERS = 4
_WORD = re.compile(r"[^\W\d_][^\W_]+")

_T = TypeVar("_T")


class Topic(msgspec.Struct, gc=False, frozen=True):
    """The words of a session by their stems: how much each counts, and how it was written."""

    weights: Mapping[str, float]
    words: Mapping[str, str]

    def telling(self, count: int) -> list[str]:
        """The words that count most."""
        return [self.words[root] for root in sorted(self.weights, key=lambda root: (-self.weights[root], root))[:count]]


def spread(items: Sequence[_T]) -> list[_T]:
    """At most `SPREAD` of these, the first and the last among them.

    >>> spread(range(23))
    [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    """
    if len(items) <= SPREAD:
        return list(items)
    return [items[round(place * (len(items) - 1) / (SPREAD - 1))] for place in range(SPREAD)]


def topic_of(exchanges: Sequence[tuple[str, str]]) -> Topic:
    """What questions and answers are about: words that come up in more of them count more."""
    counts: Counter[str] = Counter()
    written: dict[str, str] = {}
    for question, answer in exchanges:
        french = language_of(question) == "fr"
        asked = _stems(question[:_QUESTION], french, written)
        answered = _stems(answer[:_ANSWER], french, written) - asked
        counts.update(dict.fromkeys(asked, 10))
        counts.update(dict.fromkeys(answered, round(10 * _ANSWER_WEIGHT)))
    return Topic({root: math.log1p(count / 10) for root, count in counts.items()}, written)


def stems_of(text: str) -> list[str]:
    """The stems of a text's words that say what it is about, in their order.

    >>> stems_of("How do I reset the routers?")
    ['reset', 'router']
    """
    french = language_of(text) == "fr"
    return [stem(word, french) for word in _WORD.findall(fold(text)) if not is_light(word)]


def _stems(text: str, french: bool, written: dict[str, str]) -> set[str]:
    found = set()
    for word in _WORD.findall(fold(text)):
        if not is_light(word):
            root = stem(word, french)
            written.setdefault(root, word)
            found.add(root)
    return found


def rarity_of(topics: Sequence[Topic]) -> dict[str, float]:
    """What each word says that some of these sessions have: the fewer, the more; 0 for what all have."""
    having = Counter(root for topic in topics for root in topic.weights)
    sessions = len(topics) + _OTHERS
    return {root: math.log(1 + sessions / count) - math.log(2) for root, count in having.items()}


def likeness(one: Topic, other: Topic, rarity: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """How much two sessions share, and the words that say it, the most telling first."""
    shared = {
        root: weight * other.weights[root] * rarity[root] ** 2
        for root, weight in one.weights.items()
        if root in other.weights
    }
    length = _length(one, rarity) * _length(other, rarity)
    if not length:
        return 0.0, ()
    telling = sorted(shared, key=lambda root: (-shared[root], root))
    return min(1.0, sum(shared.values()) / length), tuple(one.words[root] for root in telling)


def _length(topic: Topic, rarity: Mapping[str, float]) -> float:
    return math.sqrt(sum((weight * rarity[root]) ** 2 for root, weight in topic.weights.items()))

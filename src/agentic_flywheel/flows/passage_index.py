"""Finding the passages that answer a question, by words.

Invariant: a pure function of the passages and the query: same passages, same order, same ranking; ties go to the
passage that comes first.

BM25F (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009): words of headings count
more than those of the text, and repeated words count less and less. On top of it what short questions over
documentation need: words that stand side by side in question and passage, the share of the question that a passage
covers, and a little from its neighbours.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from agentic_flywheel.flows.passages import Passage
from agentic_flywheel.flows.words import is_content, pieces_of, stem, words_of

_K1 = 1.2
_B = 0.6
_HEADING, _PARENT, _FILE = 2.5, 1.0, 0.7
_LEAD = 1.5  # what a paragraph or list item begins with in bold is its heading
_PIECE = 0.5  # a part of an identifier counts half as much as the whole
_SIDE_BY_SIDE = 0.35
_NEIGHBOUR = 0.15
_MISSPELT = 0.6
_LEAST_RATIO = 0.84


_BOLD_LEAD = re.compile(r"^\s*(?:[-*+]\s+|\d+[.)]\s+)?\*{1,2}([^*\n]+)\*", re.MULTILINE)


class Found(msgspec.Struct, frozen=True):
    """A passage, its `score` (no scale), and its `coverage`: the share of the question's weight it holds, 0 to 1.

    `matched` counts the question's words that it holds.
    """

    passage: Passage
    position: int
    score: float
    coverage: float
    matched: int


def terms_of(text: str) -> list[tuple[str, float]]:
    """The index terms of a text in order, with their weight: stems of content words, identifiers whole and in parts.

    >>> terms_of("Set AFW_REDIS_URL")
    [('set', 1.0), ('afw_redis_url', 1.0), ('afw', 0.5), ('redis', 0.5), ('url', 0.5)]
    """
    terms: list[tuple[str, float]] = []
    for word in words_of(text):
        if is_content(word):
            terms.append((stem(word), 1.0))
            terms.extend((stem(piece), _PIECE) for piece in pieces_of(word) if is_content(piece))
    return terms


class PassageIndex:
    """All passages of a folder, ready to be searched.

    >>> index = PassageIndex([Passage("a.md", "ttl", ("TTL",), "Answers live seven days.", "text")])
    >>> index.search(dict(terms_of("How long do answers live?")))[0].passage.title
    'TTL'
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        self._postings: dict[str, dict[int, float]] = defaultdict(dict)
        self._pairs: list[set[tuple[str, str]]] = []
        lengths = []
        counted: list[Counter[str]] = []
        for passage in self.passages:
            weights: Counter[str] = Counter()
            body = terms_of(passage.text)
            for term, weight in body:
                weights[term] += weight  # type: ignore[assignment]  # counts are weights here
            lengths.append(max(1, len(body)))
            counted.append(weights)
            title = terms_of(passage.title)
            self._pairs.append(_pairs(body) | _pairs(title))
        mean = sum(lengths) / len(lengths) if lengths else 1.0
        for position, (passage, weights, length) in enumerate(zip(self.passages, counted, lengths, strict=True)):
            norm = 1 - _B + _B * length / mean
            scaled = {term: weight / norm for term, weight in weights.items()}
            for text, boost in self._fields(passage):
                for term, weight in terms_of(text):
                    scaled[term] = scaled.get(term, 0.0) + boost * weight
            for term, weight in scaled.items():
                self._postings[term][position] = weight
        self._vocabulary = sorted(self._postings)

    @staticmethod
    def _fields(passage: Passage) -> Iterable[tuple[str, float]]:
        yield passage.title, _HEADING
        for title in passage.titles[:-1]:
            yield title, _PARENT
        yield passage.file.rpartition(".")[0], _FILE
        yield " ".join(_BOLD_LEAD.findall(passage.text)), _LEAD

    def search(self, query: Mapping[str, float], pairs: Iterable[tuple[str, str]] = (), limit: int = 8) -> list[Found]:
        """The best passages for weighted terms; `pairs` are terms that stand side by side in the question."""
        weights = self._known(query)
        meant = {asked: term for term, (asked, _) in weights.items()}
        total = sum(self._rarity(meant.get(term, term)) * weight for term, weight in query.items())
        if not weights or not total:
            return []
        scores: dict[int, float] = defaultdict(float)
        covered: dict[int, float] = defaultdict(float)
        matched: Counter[int] = Counter()
        for term, (asked, weight) in weights.items():
            rarity = self._rarity(term)
            for position, found in self._postings[term].items():
                certain = weight if asked == term else weight * _MISSPELT
                scores[position] += certain * rarity * found * (_K1 + 1) / (found + _K1)
                covered[position] += rarity * weight
                matched[position] += 1
        wanted = set(pairs)
        for position, score in scores.items():
            beside = sum(self._rarity(a) + self._rarity(b) for a, b in wanted & self._pairs[position])
            scores[position] = (score + _SIDE_BY_SIDE * beside) * (0.4 + 0.6 * covered[position] / total)
        smoothed = {position: score + _NEIGHBOUR * self._beside(scores, position) for position, score in scores.items()}
        ranked = sorted(smoothed, key=lambda position: (-smoothed[position], position))[:limit]
        return [Found(self.passages[p], p, smoothed[p], min(1.0, covered[p] / total), matched[p]) for p in ranked]

    def _beside(self, scores: Mapping[int, float], position: int) -> float:
        own = self.passages[position]
        return max(
            (
                scores.get(other, 0.0)
                for other in (position - 1, position + 1)
                if 0 <= other < len(self.passages) and self.passages[other].titles == own.titles
            ),
            default=0.0,
        )

    def _rarity(self, term: str) -> float:
        count, holding = len(self.passages), len(self._postings.get(term, ()))
        return math.log(1 + (count - holding + 0.5) / (holding + 0.5))

    def _known(self, query: Mapping[str, float]) -> dict[str, tuple[str, float]]:
        """The query in terms that occur, with what was asked: an unknown one by what it is a misspelling of."""
        known: dict[str, tuple[str, float]] = {}
        for term, weight in query.items():
            if term in self._postings:
                known[term] = (term, weight)
            elif len(term) >= 5 and term.isalpha():
                for near in difflib.get_close_matches(term, self._alike(term), n=1, cutoff=_LEAST_RATIO):
                    known.setdefault(near, (term, weight))
        return known

    def _alike(self, term: str) -> list[str]:
        return [word for word in self._vocabulary if word[0] == term[0] and abs(len(word) - len(term)) <= 2]


def _pairs(terms: Sequence[tuple[str, float]]) -> set[tuple[str, str]]:
    whole = [term for term, weight in terms if weight == 1.0]
    return set(pairwise(whole))


def pairs_of(text: str) -> set[tuple[str, str]]:
    """The index terms that stand side by side in a text, stop words left out."""
    return _pairs(terms_of(text))

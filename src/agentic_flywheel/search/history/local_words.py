"""Finding by words in the local index: FTS5 ranks by BM25, and is only ever asked what it can rank quickly.

Invariant: what a search costs is bounded however common its words are. Ranking a turn costs some microseconds, reading
that it matches some 40 nanoseconds, so the rarest terms choose at most `RANKED` turns to rank, and commoner ones add
their weight to those among them that hold them. What covers more of a query is raised (`COVERAGE`). Where even the
rarest is too common, the newest turns with it are ranked. Expressions are made of stems alone (`search.history.words`),
in quotes.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from agentic_flywheel.findings import ANSWER_WEIGHT, COVERAGE, HistoryQuery
from agentic_flywheel.search.history.local_scope import Scope

#: Turns that one search ranks, about; some 2 ms. Among 40,000 turns, more find LoCoMo's no better (R@5 55.5 to 56.1
#: from 500 to 20,000) and BEAM's worse (44.8 to 40.8): what is common only adds noise. Of a session all are, up to
#: `FEW`.
RANKED = 600
FEW = 1000
#: Common terms that add their weight.
_ADDED = 4

_RANK = f"bm25(words, 1.0, {ANSWER_WEIGHT})"
#: id, score, session, place, at, flow, user, outcome, words, and which terms it holds (`Hit.holds`), as numbers.
Row = tuple[int, float, int, int, float, int, int, int, int, int]
FACTS = "d.session, d.place, d.at, d.flow, d.user, d.outcome, d.size, 0"


class Ranked(NamedTuple):
    """The best turns by words, whether there may be more than those, and what the terms weigh that they may hold."""

    rows: list[Row]
    more: bool = False
    weights: tuple[float, ...] = ()


class Vocabulary:
    """In how many turns terms stand; remembered until the index has grown by a tenth."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._size = 0

    def counts(self, connection: sqlite3.Connection, terms: Iterable[str]) -> dict[str, int]:
        """Of these terms, how many turns hold each; those in none are left out."""
        size = last_id(connection)
        if not self._size <= size <= self._size * 1.1 or len(self._counts) > 10_000:
            self._counts, self._size = {}, size
        found = {}
        for term in terms:
            if not self._counts.get(term):  # what is in none may be by now
                row = connection.execute("SELECT doc FROM temp.vocabulary WHERE term = ?", (term,)).fetchone()
                self._counts[term] = row[0] if row else 0
            if self._counts[term]:
                found[term] = self._counts[term]
        return found


def last_id(connection: sqlite3.Connection) -> int:
    """The number of the newest turn."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM docs").fetchone()[0])


def ranked(
    connection: sqlite3.Connection, vocabulary: Vocabulary, query: HistoryQuery, scope: Scope, count: int
) -> Ranked:
    """The best `count` turns by words."""
    terms = sorted(vocabulary.counts(connection, query.terms).items(), key=lambda item: (item[1], item[0]))
    size = last_id(connection)
    span = _Span(0, size)
    few = False
    if scope.session is not None:  # a session's turns came in near each other
        found = "SELECT min(id), max(id), count(*) FROM docs WHERE session = ?"
        first, last, turns = connection.execute(found, (scope.session,)).fetchone()
        if not turns:
            return Ranked([])
        span, few = _Span(first, last), turns <= FEW
    if query.phrases:
        wanted = " AND ".join(f"({any_of(variants)})" for variants in query.phrases)
        named = any_of([(term,) for term, _ in terms] + list(query.phrases[0]))
        rows = _matching(connection, _less(f"({wanted}) AND ({named})", query), scope, span, count)
        return Ranked(rows, len(rows) == count)
    if not terms:
        return Ranked([])
    chosen, left = 1, RANKED - terms[0][1]
    while chosen < len(terms) and (few or terms[chosen][1] <= left):
        left -= terms[chosen][1]
        chosen += 1
    partial = chosen < len(terms)
    if left < 0 and not few:  # even the rarest is too common: the newest with it
        span = span.newest(RANKED / terms[0][1])
        partial = True
    rare = any_of([(term,) for term, _ in terms[:chosen]])
    rows = _matching(connection, _less(rare, query), scope, span, count)
    weights = {term: math.log(1 + (size - held + 0.5) / (held + 0.5)) for term, held in terms[: chosen + _ADDED]}
    weighed = _weighed(connection, rows, weights, chosen, span)
    return Ranked(weighed, partial or len(rows) == count, tuple(weights.values()))


class _Span(NamedTuple):
    """Turns that came in one after the other, by their first and last number."""

    first: int
    last: int

    def newest(self, share: float) -> _Span:
        return _Span(max(self.first, self.last - int((self.last - self.first) * share)), self.last)


def _weighed(
    connection: sqlite3.Connection, rows: list[Row], weights: Mapping[str, float], rare: int, span: _Span
) -> list[Row]:
    """Rows with the weight of common terms added, which are all but the first `rare`; then raised by the share of the
    query that they cover."""
    whole = sum(weights.values())
    scores = {row[0]: row[1] for row in rows}
    covered = dict.fromkeys(scores, 0.0)
    holds = dict.fromkeys(scores, 0)
    named = any_of([(term,) for term in islice(weights, rare)])
    sql = "SELECT rowid FROM words WHERE words MATCH ? AND rowid BETWEEN ? AND ?"
    for place, (term, weight) in enumerate(weights.items()):
        common = place >= rare
        expression = f"({named}) AND {_quoted((term,))}" if common else _quoted((term,))
        for (id_,) in connection.execute(sql, (expression, *span)).fetchall():
            if id_ in holds:
                holds[id_] |= 1 << place
                covered[id_] += weight
                if common:
                    scores[id_] += weight
    weighed = [
        (row[0], scores[row[0]] * (1 + COVERAGE * covered[row[0]] / whole), *row[2:9], holds[row[0]]) for row in rows
    ]
    return sorted(weighed, key=lambda row: (-row[1], -row[0]))


def holding(connection: sqlite3.Connection, query: HistoryQuery) -> tuple[list[int] | None, list[int]]:
    """The turns that hold every phrase (None: none is asked for), and those that hold something excluded."""
    wanted = None
    if query.phrases:
        every = " AND ".join(f"({any_of(variants)})" for variants in query.phrases)
        wanted = [row[0] for row in connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (every,))]
    unwanted: list[int] = []
    if query.excluded:
        unwanted = [
            row[0]
            for row in connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (any_of(query.excluded),))
        ]
    return wanted, unwanted


def _matching(connection: sqlite3.Connection, expression: str, scope: Scope, span: _Span, count: int) -> list[Row]:
    """The best by BM25. Facts are only read of as many as are needed, the best first (SQLite may leave out the order of
    an inner query that has no limit)."""
    condition, bound = scope.conditions()
    sql = (
        f"SELECT d.id, best.rank_, {FACTS} FROM ("
        f"SELECT rowid AS id, {_RANK} AS rank_ FROM words WHERE words MATCH ? AND rowid BETWEEN ? AND ?"
        " ORDER BY rank_, rowid DESC LIMIT -1"
        f") best CROSS JOIN docs d ON d.id = best.id WHERE {condition} LIMIT ?"
    )
    found = connection.execute(sql, (expression, *span, *bound, count))
    return [(row[0], -row[1], *row[2:]) for row in found]


def _less(expression: str, query: HistoryQuery) -> str:
    return f"({expression}) NOT ({any_of(query.excluded)})" if query.excluded else expression


def any_of(phrases: Sequence[Sequence[str]]) -> str:
    """An expression for any of these phrases."""
    return " OR ".join(_quoted(phrase) for phrase in phrases)


def _quoted(phrase: Sequence[str]) -> str:
    return '"' + " ".join(phrase) + '"'


def placeholders(values: Sequence[Any]) -> str:
    """As many question marks as there are values."""
    return ",".join("?" * len(values))

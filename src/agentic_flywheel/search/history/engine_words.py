"""Finding by words with the query engine: what it is asked, and how what it found is ranked.

Invariant: turns are ranked by the same rule as in the local index (`local_words`): BM25 with an answer's words at
`ANSWER_WEIGHT`, raised by the share of the query that a turn covers. The engine only chooses the candidates, so neither
its scorer nor its release decides what is best. What a search costs is bounded: the rarest terms choose, up to `RANKED`
matches; where even the rarest is commoner than that, the newest turns are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentic_flywheel.findings import ANSWER_WEIGHT, COVERAGE, EngineFound, EngineState, HistoryQuery
from agentic_flywheel.search.history import engine_query
from agentic_flywheel.search.history.engine_docs import Facts, facts_of, token

#: Matches that one search has the engine look at, about: a millisecond of the server's time, and twice as much to read
#: the best of them. The local index ranks fewer, and finds no less.
RANKED = 1_000
#: Common terms that help to choose candidates.
_HELPING = 4
#: Of the usual formula.
_K1, _B = 1.2, 0.75


class Plan(NamedTuple):
    """What to ask: an expression ("" where nothing can match), and whether it leaves some matches out."""

    expression: str
    partial: bool = False


def plan(query: HistoryQuery, counts: Mapping[str, int], state: EngineState, scope: str) -> Plan:
    """How to ask for the words of a query; `counts` says how many turns hold each term."""
    terms = sorted((term for term in query.terms if counts.get(term)), key=lambda term: (counts[term], term))
    if query.phrases:
        return Plan(engine_query.all_of(scope, engine_query.phrases_of(query), more=terms[:_HELPING]))
    if not terms:
        return Plan("")
    if query.session:  # its turns are few, however common the words
        return Plan(engine_query.any_of(scope, terms))
    chosen, left = 1, RANKED - counts[terms[0]]
    while chosen < len(terms) and counts[terms[chosen]] <= left:
        left -= counts[terms[chosen]]
        chosen += 1
    if left < 0:
        oldest = max(0, state.sequence - RANKED * max(1, state.sequence) // counts[terms[0]])
        newest = engine_query.newer(oldest)
        return Plan(engine_query.any_of(scope, terms[:1], must=newest, more=terms[1:_HELPING]), partial=True)
    return Plan(engine_query.any_of(scope, terms[:chosen]), partial=chosen < len(terms))


def ranked(
    found: Sequence[EngineFound], query: HistoryQuery, counts: Mapping[str, int], state: EngineState
) -> tuple[list[tuple[EngineFound, float, Facts, int]], tuple[float, ...]]:
    """What was found, each with its score, its facts and the terms that it holds (`Hit.holds`), best first; and what
    the terms weigh. Turns that the caller may not see are left out."""
    size = max(state.docs, 1)
    average = max(state.words / size, 1.0)
    weights = [
        (1 << place, f" {token(term)} ".encode(), math.log(1 + (size - held + 0.5) / (held + 0.5)))
        for place, (term, held) in enumerate(
            (term, min(counts[term], size)) for term in query.terms if counts.get(term)
        )
    ]
    whole = sum(weight for _, _, weight in weights) or 1.0
    rows = []
    for one in found:
        facts = facts_of(one.fields[b"m"])
        if not engine_query.allowed(query.sight, facts):
            continue
        asked = one.fields.get(b"q", b"")
        text = b" %b %b " % (asked, one.fields.get(b"a", b""))
        end = len(asked) + 1  # the space between both
        longer = _K1 * (1 - _B + _B * facts.words / average)
        score = covered = 0.0
        holds = 0
        for bit, word, weight in weights:
            if word in text:  # most turns hold one or two of the terms
                often = text.count(word, 0, end + 1) + ANSWER_WEIGHT * text.count(word, end)
                score += weight * often * (_K1 + 1) / (often + longer)
                covered += weight
                holds |= bit
        rows.append((one, score * (1 + COVERAGE * covered / whole) if weights else 1.0, facts, holds))
    rows.sort(key=lambda row: (-row[1], -row[2].at, row[0].name))
    return rows, tuple(weight for _, _, weight in weights)

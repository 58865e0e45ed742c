"""What the query engine is asked: filters, the caller's sight, words and phrases as one expression.

Invariant: an expression is made of numbers, digests and tokens alone (`engine_docs`), in a form whose every part stands
in parentheses, so no text of anybody gets into it, and none can break it or the server (RediSearch 2.10 reads `-@z:{s}
2000` as "not both", ends with signal 11 over stop words in an OR group, and loses matches where a negation stands in
one: a negation stands beside others, never in a choice). `allowed` is the same sight for one document: whatever an
engine makes of an expression, nothing that it forbids is shown. A test holds both to `policy.visibility.sees`.

Filters stand with every single term, `(F a)|(F b)`: before a choice, `F (a|b)`, the scores of some branches get lost
(LoCoMo, R@5 43 instead of 55). The words of two fields are neighbours to the engine, so a question ends with a token
that nobody asks for (`engine_docs.END`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentic_flywheel.findings import EngineState, HistoryQuery, Sight
from agentic_flywheel.search.history.engine_docs import Facts, digest, number, token

EVERYTHING = "*"


def scope_of(query: HistoryQuery, state: EngineState) -> str:
    """What filters and sight leave, as terms that must all hold; "" where that is everything."""
    parts = [
        f"(@{field}:{{{digest(value)}}})"
        for field, value in (
            *(("s", query.session), ("f", query.flow), ("u", query.user)),
            *(("o", query.outcome), ("t", query.tag)),
        )
        if value
    ]
    if query.since is not None or query.until is not None:
        parts.append(between(query.since, query.until))
    if query.seen is not None and query.seen < state.sequence:
        parts.append(f"(-(@n:[({query.seen} +inf]))")
    parts += [f"(-({hidden}))" for hidden in _hidden(query.sight, state.flows)]
    if query.excluded:
        parts.append(f"(-({'|'.join(map(_phrase, query.excluded))}))")
    return " ".join(parts)


def _hidden(sight: Sight, flows: Iterable[str]) -> list[str]:
    """What is not shown, in parts. Said so, and not by what is shown, since most turns are anybody's: that costs the
    engine half the time."""
    closed = _flows(sight.closed_flows)
    other = _flows(sorted(set(flows) - set(sight.open_flows) - set(sight.closed_flows)))
    named = ""
    if sight.session:
        theirs = f" @u:{{{digest(sight.caller)}|{digest('')}}}" if sight.caller else ""
        named = f" (-(@s:{{{digest(sight.session)}}}{theirs}))"
    hidden = [f"@z:{{s}}{named}"]
    if closed:
        hidden.append(f"{closed}{named}")
    if sight.caller:
        others = f" (-(@u:{{{digest(sight.caller)}}}))"
        hidden.append(f"@z:{{u}}{others}" + (f" (-({closed}))" if closed else ""))
        if other:
            hidden.append(f"@z:{{t}} {other}{others}")
    return hidden


def _flows(flows: Sequence[str]) -> str:
    return f"@f:{{{'|'.join(map(digest, flows))}}}" if flows else ""


def allowed(sight: Sight, facts: Facts) -> bool:
    """Whether a document may be shown."""
    if facts.audience == "s" or facts.flow in sight.closed_flows:
        return facts.session == sight.session and (not sight.caller or facts.user in {"", sight.caller})
    if facts.audience == "t" and facts.flow in sight.open_flows:
        return True
    return sight.caller in {"", facts.user}


def within(query: HistoryQuery, facts: Facts, number: int) -> bool:
    """Whether a document, the so-manieth that was taken in, is one that filters and sight leave, tags left out."""
    named = ((query.session, facts.session), (query.flow, facts.flow), (query.user, facts.user))
    return (
        all(wanted in {"", own} for wanted, own in (*named, (query.outcome, facts.outcome)))
        and (query.since is None or facts.at >= query.since)
        and (query.until is None or facts.at < query.until)
        and (query.seen is None or number <= query.seen)
        and allowed(query.sight, facts)
    )


def narrow(query: HistoryQuery) -> bool:
    """Whether the filters leave few turns, as far as one can tell."""
    return bool(query.session or query.user or query.tag or query.flow or query.outcome or query.phrases)


def phrases_of(query: HistoryQuery) -> str:
    """Every phrase, in one of its forms; "" where none is asked for."""
    return " ".join(f"({'|'.join(map(_phrase, variants))})" for variants in query.phrases)


def any_of(scope: str, stems: Sequence[str], *, must: str = "", more: Sequence[str] = ()) -> str:
    """Whatever holds any of these stems within a scope, and all of `must`; better where it holds `more` as well."""
    also = "".join(f" (~{token(stem)})" for stem in more)
    within = " ".join(part for part in (scope, must) if part)
    return "|".join(f"({within} {token(stem)}{also})" if within or also else token(stem) for stem in stems)


def all_of(scope: str, must: str, *, more: Sequence[str] = ()) -> str:
    """Whatever lies in a scope and holds `must`; better where it holds `more` as well."""
    parts = [part for part in (scope, must) if part]
    return " ".join([*parts, *(f"(~{token(stem)})" for stem in more)]) if parts else EVERYTHING


def newer(sequence: int) -> str:
    """What came in after this."""
    return f"(@n:[({sequence} +inf])"


def between(since: float | None, until: float | None) -> str:
    """What was asked from `since` on and before `until`."""
    end = "+inf" if until is None else f"({number(until)}"
    return f"(@x:[{'-inf' if since is None else number(since)} {end}])"


def _phrase(stems: Sequence[str]) -> str:
    return token(stems[0]) if len(stems) == 1 else f'"{" ".join(map(token, stems))}"'

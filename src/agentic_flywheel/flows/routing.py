"""Which flow a question goes to.

Invariant: pure and deterministic; the same question, registry and turns give the same route, with its scores, and a
flow or intent that somebody named is never silently replaced by another: it is followed, or refused.

An explicit flow comes first, then an explicit intent, then the session's flow (a follow-up stays where its
conversation is), then keywords. Each intent keyword of a flow (and its key and name) gives points once:

    exact       the keyword stands in the question, word for word, or phrase for phrase
    partial     another form of it does ("deployment" for "deploy"), or a part of the phrase (its share of the points)
    similarity  a word spelled much like it does (a typing error)
    context     it stands, word for word, in the turns before

    confidence = best / (best + second + DOUBT)

so a lone match is sure enough, a close race is not, and a tie never is at the default threshold of 0.6.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.snapshot import RegistrySnapshot, RoutingRules
from agentic_flywheel.flows.words import is_content, pieces_of, stem, words_of
from agentic_flywheel.model import Route, RouteScore

#: Points that speak for none of the flows; keeps a single weak match from being certain.
DOUBT = 0.3
#: Least likeness of spelling (difflib's ratio) that counts, and the shortest word for which it means anything.
_LEAST_RATIO = 0.8
_LEAST_LETTERS = 4


def route(
    question: str,
    snapshot: RegistrySnapshot,
    *,
    flow: str | None = None,
    intent: str | None = None,
    session_flow: str | None = None,
    context: Sequence[str] = (),
) -> Route:
    """Pick the flow: explicit flow > explicit intent > the session's flow > keywords > fallback.

    `context` holds the recent turns' texts. Raises `UnknownFlow` for a flow that does not exist or is inactive, for
    an intent that fits no flow where no fallback is configured, and where no flow is active at all.
    """
    if flow:
        return Route(flow=snapshot.get(flow).key, how="explicit", intent=intent or "")
    candidates = snapshot.routable()
    if intent and (meant := _meant(intent, snapshot, candidates)):
        if len(meant) == 1:
            return Route(flow=meant[0].key, how="intent", intent=intent)
        scores = _scores(f"{intent}. {question}", meant, snapshot.routing, context)
        return Route(
            flow=scores[0].flow, how="intent", confidence=confidence_of(scores), intent=intent, scores=tuple(scores)
        )
    if session_flow and not intent and session_flow in snapshot.flows and snapshot.flows[session_flow].active:
        return Route(flow=session_flow, how="session")
    if len(candidates) == 1:
        return Route(flow=candidates[0].key, how="only", intent=intent or "")
    default = snapshot.default
    if default is None:
        raise snapshot.unknown("", f"no active flow in {snapshot.path} to route the question to")
    scores = _scores(f"{intent}. {question}" if intent else question, candidates, snapshot.routing, context)
    confidence = confidence_of(scores)
    if scores and scores[0].score > 0 and confidence >= snapshot.routing.threshold:
        chosen, how = scores[0].flow, "keywords"
    elif intent and default.key != snapshot.routing.fallback:
        raise snapshot.unknown(intent, f"the intent {intent!r} fits no active flow in {snapshot.path}")
    else:
        chosen, how = default.key, "fallback"
    return Route(flow=chosen, how=how, confidence=confidence, intent=intent or "", scores=tuple(scores))


def confidence_of(scores: Sequence[RouteScore]) -> float:
    """How sure the first of the ranked scores is, 0 to 1 (formula in the module's docstring).

    >>> confidence_of([RouteScore(flow="a", score=3.0), RouteScore(flow="b", score=1.5)])
    0.625
    """
    best, second = ([score.score for score in scores] + [0.0, 0.0])[:2]
    return round(best / (best + second + DOUBT), 3) if best > 0 else 0.0


def _meant(intent: str, snapshot: RegistrySnapshot, candidates: Sequence[FlowSpec]) -> list[FlowSpec]:
    """The flows that an intent names: by key or name, else every one that has it among its keywords."""
    wanted = _phrase(intent)
    named = [s for s in snapshot.flows.values() if wanted and wanted in {_phrase(s.key), _phrase(s.name)}]
    if named:
        active = [spec for spec in named if spec.active]
        return active or [snapshot.get(named[0].key)]  # raises: the flow that was meant is inactive
    return [s for s in candidates if any(_phrase(keyword) == wanted for keyword in s.intent_keywords)]


def _phrase(text: str) -> str:
    """A name for comparison: `Creative-Orientation` is `creative orientation`."""
    return " ".join(_spelled_out(text))


def _spelled_out(text: str) -> list[str]:
    return [piece for word in words_of(text) for piece in (pieces_of(word) or [word])]


class _Text:
    """A text taken apart once for all keywords."""

    def __init__(self, text: str) -> None:
        words = _spelled_out(text)
        whole = words_of(text)
        self.joined = f" {' '.join(words)} "
        self.words = set(words) | set(whole)
        self.stems = {stem(word) for word in self.words if is_content(word)}

    def has(self, words: Sequence[str]) -> bool:
        """Whether the words stand in the text one after the other."""
        return f" {' '.join(words)} " in self.joined


def _scores(
    question: str, candidates: Sequence[FlowSpec], rules: RoutingRules, context: Sequence[str]
) -> list[RouteScore]:
    """Every candidate's points, best first; equal ones in the order of the registry."""
    asked, before = _Text(question), _Text(" . ".join(context))
    scores = [_score(spec, asked, before, rules) for spec in candidates]
    return sorted(scores, key=lambda score: -score.score)


def _score(spec: FlowSpec, asked: _Text, before: _Text, rules: RoutingRules) -> RouteScore:
    points, matched = 0.0, []
    for phrase in dict.fromkeys(_phrase(text) for text in (*spec.intent_keywords, spec.key, spec.name)):
        words = phrase.split()
        if not words:
            continue
        found = _points(words, asked, rules)
        if before.has(words) and any(is_content(word) for word in words):
            found += rules.context
        if found > 0:
            points += found
            matched.append(phrase)
    return RouteScore(flow=spec.key, score=round(points, 3), matched=tuple(matched))


def _points(words: list[str], asked: _Text, rules: RoutingRules) -> float:
    if asked.has(words):
        return rules.exact
    content = [word for word in words if is_content(word)]
    if not content:
        return 0.0
    shared = sum(_in_another_form(word, asked) for word in content) / len(content)
    alike = max((_likeness(word, asked) for word in content), default=0.0) / len(content)
    return max(rules.partial * shared, rules.similarity * alike)


def _in_another_form(word: str, asked: _Text) -> bool:
    if word in asked.words or stem(word) in asked.stems:
        return True
    return len(word) >= _LEAST_LETTERS and any(
        other.startswith(word) or (len(other) >= _LEAST_LETTERS and word.startswith(other))
        for other in asked.words
        if is_content(other)
    )


def _likeness(word: str, asked: _Text) -> float:
    if len(word) < _LEAST_LETTERS:
        return 0.0
    others = sorted(other for other in asked.words if len(other) >= _LEAST_LETTERS and abs(len(other) - len(word)) < 3)
    best = max((difflib.SequenceMatcher(None, word, other).ratio() for other in others), default=0.0)
    return best if best >= _LEAST_RATIO else 0.0

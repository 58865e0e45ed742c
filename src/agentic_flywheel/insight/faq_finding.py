"""Looking for entries of the FAQ by their words: it is small enough to be read from end to end."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_flywheel.curated import FaqView
from agentic_flywheel.findings import ANSWER_WEIGHT
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.search.history.words import is_french, is_stop, stem, words_of


def fitting(query: str, views: Sequence[FaqView]) -> list[FaqView]:
    """The entries that have words of the query, best first: its very wording, then more words of it in the question or,
    for less, in the answer."""
    named, wanted = normalise(query), _stems(query)
    scored: list[tuple[float, int, FaqView]] = []
    for place, view in enumerate(views):
        said = view.entry.published or view.entry
        asked = set().union(*(_stems(wording) for wording in said.asked_as))
        score = len(wanted & asked) + ANSWER_WEIGHT * len(wanted & (_stems(said.answer) - asked))
        if named in {normalise(wording) for wording in said.asked_as}:
            score += len(wanted) + 1
        if score:
            scored.append((-score, place, view))
    return [view for *_, view in sorted(scored, key=lambda one: one[:2])]


def _stems(text: str) -> set[str]:
    """The words that carry content, as indexes hold them; all words of a text that has none such."""
    as_french = bool(is_french(text))
    folded = [word.folded for word in words_of(text)]
    telling = [word for word in folded if not is_stop(word, as_french=as_french)]
    return {stem(word, as_french=as_french) for word in telling or folded}

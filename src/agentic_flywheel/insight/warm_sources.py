"""Where the questions of a warm-up come from, besides those that are given word for word.

Invariant: sources are read when a warm-up runs, also when it is resumed; their words are not kept with it, so that what
is deleted where it came from is gone from here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentic_flywheel.curated import FaqState
from agentic_flywheel.insight.faq import Faq
from agentic_flywheel.insight.popular import Popular, PopularQuestion
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.store.popularity import LONGEST_TEXT
from agentic_flywheel.warmups import WarmOrder, WarmPath

#: Popular is what was asked within so many days.
POPULAR_DAYS = 30


class WarmSources:
    """Reads popular questions, what is asked after them, and the FAQ; each is made when it is needed."""

    def __init__(self, popular: Callable[[], Popular], faq: Callable[[], Faq]) -> None:
        self._popular = popular
        self._faq = faq

    async def paths(self, order: WarmOrder) -> list[tuple[WarmPath, bool]]:
        """All paths of an order, each with whether its words were given with the order."""
        found = [(path, True) for path in order.paths]
        if order.faq:
            found += [(path, False) for path in await self._of_faq(order)]
        if order.popular:
            found += [(path, False) for path in await self._of_popular(order)]
        return found

    async def _of_popular(self, order: WarmOrder) -> list[WarmPath]:
        """What is asked most, and behind all of it what is asked next. A popular question was asked on its own, so
        nobody needs to vouch for that."""
        popular = self._popular()
        questions = await popular.list(days=POPULAR_DAYS, flow=order.flow or None, limit=order.popular)
        worded = [(question, text) for question in questions if (text := _words(question))]
        paths = [WarmPath(questions=(text,), flow=question.flow, standalone=True) for question, text in worded]
        if order.follow_ups:
            following = await popular.next_of([q for q, _ in worded], days=POPULAR_DAYS, limit=order.follow_ups)
            for (question, text), steps in zip(worded, following, strict=True):
                whole: Sequence[str] = [step.question for step in steps if len(step.question) < LONGEST_TEXT]
                paths += [WarmPath(questions=(text, then), flow=question.flow, standalone=True) for then in whole]
        return paths

    async def _of_faq(self, order: WarmOrder) -> list[WarmPath]:
        """Questions of what is served, which are warm, and of what a change of its flow took out of service."""
        views = await self._faq().entries(flow=order.flow or None)
        kept = [view.entry for view in views if view.state.served or view.state is FaqState.STALE]
        return [WarmPath(questions=(entry.question,), flow=entry.flow, standalone=True) for entry in kept]


def _words(question: PopularQuestion) -> str:
    """The commonest wording that is known whole: of a long one only the beginning is kept."""
    return next((wording.text for wording in question.wordings if name_of(wording.text) == wording.name), "")

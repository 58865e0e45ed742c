"""Popular questions by what they seem to ask, for the list of the FAQ's candidates.

Invariant: nothing is stored of it and nothing served by it. Two questions of which somebody said that they differ are
never together (`policy.grouping` has the rules). Without an embedder that the cuts were measured for, words decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentic_flywheel.errors import EmbedderError
from agentic_flywheel.insight.askers import estimated
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.policy.grouping import Likeness, Worded, grouped
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.similarity.choice import pair_of
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.store.scan import Scan
from agentic_flywheel.store.store import Store

#: Embedders that the cuts were measured for (docs/faq.md).
_MEASURED = frozenset({"minilm-fp32", "minilm-int8"})
#: Longest wait for vectors, in seconds; then words decide.
_PATIENCE = 20.0

_log = logging.getLogger(__name__)

#: A popular question, and the marks of who asked it.
Marked = tuple[PopularQuestion, frozenset[int]]


class Group(NamedTuple):
    """Questions that seem to ask the same, the most asked first. `near` is the place of a group before this one that
    they may well belong to, None for none."""

    questions: tuple[Marked, ...]
    near: int | None

    @staticmethod
    def asked(questions: Sequence[Marked]) -> int:
        """How often some of them were asked."""
        return sum(question.asked for question, _ in questions)

    @classmethod
    def askers(cls, questions: Sequence[Marked]) -> int:
        """How many different people asked some of them."""
        marks = frozenset[int]().union(*(marks for _, marks in questions))
        return max(1, min(cls.asked(questions), estimated(marks)))


class Groups:
    """Puts the questions of a flow together."""

    def __init__(self, store: Store, embedding: Embedding) -> None:
        self._store = store
        self._embedding = embedding

    async def of(self, flow: str, questions: Sequence[Marked]) -> list[Group]:
        """The questions of one flow as groups, the most asked first. Raises `StoreError`."""
        if len(questions) < 2:
            return [Group((one,), None) for one in questions]
        answers = await self._answers([question.entry_key for question, _ in questions])
        worded = [
            Worded(question.question, question.asked, answer)
            for (question, _), answer in zip(questions, answers, strict=True)
        ]
        likeness = await self._likeness([one.text for one in worded])
        parted = await self._parted(flow, [question for question, _ in questions])
        found = await asyncio.to_thread(grouped, worded, likeness=likeness, parted=parted)
        return [
            Group(tuple(questions[at] for at in group), found.near.get(place))
            for place, group in enumerate(found.groups)
        ]

    async def _answers(self, keys: Sequence[str | None]) -> list[str]:
        wanted = [key for key in keys if key]
        looked = dict(zip(wanted, await self._store.entries.get_many(wanted), strict=True)) if wanted else {}
        entries = [looked[key].entry if key else None for key in keys]
        return [entry.answer if entry is not None and not entry.withdrawn else "" for entry in entries]

    async def _likeness(self, texts: Sequence[str]) -> Likeness | None:
        """The cosines of the questions' vectors; None where there are none to go by."""
        if self._embedding.state == "off":
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                if not await self._embedding.ready(_PATIENCE) or self._embedding.embedder.calibration not in _MEASURED:
                    return None
                vectors = await self._embedding.embed_many(texts)
        except (EmbedderError, TimeoutError) as error:
            _log.warning("questions are put together by their words alone: %s", error)
            return None
        import numpy as np

        rows = np.stack(vectors)
        cosines: Likeness = (rows @ rows.T).tolist()
        return cosines

    async def _parted(self, flow: str, questions: Sequence[PopularQuestion]) -> Callable[[int, int], bool] | None:
        """Whether somebody said of two of them that they are different questions."""
        pairs = frozenset(await Scan(self._store.link, self._store.keys).blocked(flow))
        if not pairs:
            return None
        named = [[(normalise(w.text), w.name) for w in question.wordings] for question in questions]

        def parted(one: int, other: int) -> bool:
            return any(
                pair_of(normal, f":{its}") in pairs or pair_of(its_normal, f":{name}") in pairs
                for normal, name in named[one]
                for its_normal, its in named[other]
            )

        return parted

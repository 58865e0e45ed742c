"""What people ask next: the steps from one question to the following one in the same session.

Invariant: no single person's path is shown: a step counts as soon as it is taken, and is shown once different people
took it (sessions, where nobody said who asks). A step is only counted from a question that everybody may see, along
turns that everybody may see (`insight.tally`).

A way begins at a question that stands alone; what follows leans on it, so it has no meaning elsewhere. Hence a step
belongs to the whole way up to it (four questions at most): "and on mobile?" after one question is not the same as after
another. Other wordings of the first question begin the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.askers import estimated
from agentic_flywheel.insight.tally import DEPTH, node_of
from agentic_flywheel.store.popularity import STEP, Record
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.insight.popular import Heads


class NextQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question that was asked next: `count` times, by `askers` different people (see `PopularQuestion`).

    `share` is its part of all that was asked next there, from 0 to 1, what is not shown included. `cluster` names it.
    """

    question: str
    flow: str
    cluster: str
    count: int
    share: float
    askers: int
    last_at: float


class Paths:
    """The paths of one tenant. `heads` tells which wordings of a flow are one question."""

    def __init__(self, store: Store, heads: Callable[[str], Awaitable[Heads]]) -> None:
        self._store = store
        self._heads = heads

    async def after(
        self, ways: Sequence[tuple[str, Sequence[str]]], days: Sequence[str], *, limit: int, least_askers: int
    ) -> list[list[NextQuestion]]:
        """What was asked next at the end of each way (a flow, and the names of the questions on it), most often first.

        Raises `InputError` for a way that is too long.
        """
        if limit < 1 or least_askers < 1:
            raise InputError("at least 1 question by at least 1 asker can be shown")
        heads = {flow: await self._heads(flow) for flow in {flow for flow, _ in ways}}
        nodes: dict[tuple[str, str], set[int]] = {}
        for place, (flow, names) in enumerate(ways):
            if not 1 <= len(names) <= DEPTH:
                raise InputError(f"a way has at most {DEPTH} questions, not {len(names)}; leave out the first ones")
            first, *then = names
            for wording in heads[flow].all_of(first):
                nodes.setdefault((flow, node_of([wording, *then])), set()).add(place)
        found: list[dict[str, _Step]] = [{} for _ in ways]
        wanted = {node for _, node in nodes}
        async for flow, records in self._store.popularity.days(sorted(heads), days, steps=True, after=wanted):
            for name, record in records.items():
                before, _, after = name.partition(STEP)
                for place in nodes.get((flow, before), ()):
                    found[place].setdefault(heads[flow].of(after), _Step()).add(record)
        return [_shown(flow, steps, limit, least_askers) for (flow, _), steps in zip(ways, found, strict=True)]


class _Step:
    """One step over several days and wordings."""

    def __init__(self) -> None:
        self.count = self.last = 0
        self.marks: set[int] = set()
        self.texts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Take in one record of one day."""
        self.count += record.asked
        self.last = max(self.last, record.last)
        self.marks.update(record.marks)
        self.texts[record.text] += record.asked

    @property
    def askers(self) -> int:
        """How many different people took it."""
        return min(self.count, estimated(self.marks))


def _shown(flow: str, steps: Mapping[str, _Step], limit: int, least_askers: int) -> list[NextQuestion]:
    total = sum(step.count for step in steps.values())
    told = [(name, step) for name, step in steps.items() if step.askers >= least_askers]
    told.sort(key=lambda item: (-item[1].count, item[0]))
    return [
        NextQuestion(
            question=min(step.texts, key=lambda text: (-step.texts[text], text)),
            flow=flow,
            cluster=name,
            count=step.count,
            share=step.count / total,
            askers=step.askers,
            last_at=float(step.last),
        )
        for name, step in told[:limit]
    ]

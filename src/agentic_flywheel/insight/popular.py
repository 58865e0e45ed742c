"""What is asked often: counts per question over a window of days, whatever words it was asked in.

Invariant: shown is only what everybody of the tenant may see today: what was counted (`insight.tally`), of flows that
still share with the team. A question that somebody called private is not shown from the moment the report returns, and
what was deleted is not counted. Counting is written behind; who asks here sees what this process has counted so far,
and of others what they sent, within 50 ms.

Several wordings are one question once one of them was given the other's answer as a similar one. The question is named
by the hash of one of its wordings; it may be named by any of them.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.askers import estimated
from agentic_flywheel.insight.tally import name_of, steps_over
from agentic_flywheel.insight.windows import window_of
from agentic_flywheel.model import Directives, FlowState, Lifetime, Reason, Receipt, Sharing
from agentic_flywheel.policy.decision import Facts, Found, Wanted, verdict
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.counters import day_of
from agentic_flywheel.store.popularity import KEPT, Popularity, Record
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.insight.paths import NextQuestion, Paths

MOST_DAYS = KEPT.days
#: Wordings of one question whose answers are looked for.
_LOOKED_FOR = 4
_NAME = re.compile(r"[0-9a-f]{32}")


class Wording(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a question was asked, and how often; `name` is the hash in the key of its own stored answer."""

    text: str
    count: int
    name: str


class PopularQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question over a window of days. `cluster` names it; `question` is its commonest wording; of
    equals, the one it is named after.

    `asked` counts every time, `served` those that were answered from memory, as `hit_rate` does as a share;
    `saved_seconds` is what the flow took when it computed what was served, less the wait for it. `askers` is how many
    different people asked (sessions, where nobody said who asks): exact up to 64, within 13 % beyond. `entry_key` is
    the key of an answer that would be served now, None where none is stored; `faq` is the entry of the FAQ that answers
    it, "" where there is none. Times are epoch seconds.
    """

    cluster: str
    flow: str
    question: str
    wordings: tuple[Wording, ...]
    asked: int
    askers: int
    served: int
    hit_rate: float
    saved_seconds: float
    first_at: float
    last_at: float
    entry_key: str | None = None
    faq: str = ""


class Popular:
    """The popular questions of one tenant, and the paths between them."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        lifetime: Callable[[FlowSpec, FlowState, float | None], Lifetime],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._jitter = settings.number("ttl.jitter")
        self._registry = registry
        self._store = store
        self._lifetime = lifetime  # that holds for a flow now
        self._flush = flush

    async def list(
        self,
        days: int = 30,
        flow: str | None = None,
        limit: int = 20,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Sequence[PopularQuestion]:
        """The questions that were asked most over the last `days` days (1 to 90, today included), most asked first.

        `since` and `until` (epoch seconds) take the place of `days`: all days (UTC) that they touch. Raises
        `InputError`, `UnknownFlow` and `StoreError`.
        """
        return [question for question, _ in await self.marked(days, flow, limit, since=since, until=until)]

    async def marked(
        self,
        days: int = 30,
        flow: str | None = None,
        limit: int = 20,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> Sequence[tuple[PopularQuestion, frozenset[int]]]:
        """The same as `list`, each with the marks of its askers: who asked several of them is counted once."""
        if limit < 1:
            raise InputError(f"at least 1 question can be shown, not {limit}")
        window = days_of(days) if since is None and until is None else _days_between(since, until)
        flows = self.flows(flow)
        await self._flush()
        merged: dict[tuple[str, str], _Merged] = {}
        heads = {name: await self.heads(name) for name in flows}
        async for of, records in self._store.popularity.days(flows, window):
            for name, record in records.items():
                head = heads[of].of(name)
                merged.setdefault((of, head), _Merged()).add(name, record)
        best = sorted(merged.items(), key=lambda item: (-item[1].asked, item[0]))[:limit]
        shown = await self._with_answers([found.shown(of, head, heads[of].faq) for (of, head), found in best])
        return [(question, frozenset(found.marks)) for question, (_, found) in zip(shown, best, strict=True)]

    async def next(
        self,
        question: str,
        *then: str,
        days: int = 30,
        flow: str | None = None,
        limit: int = 5,
        least_askers: int = 2,
    ) -> Sequence[NextQuestion]:
        """What people asked next in the same session: after a question (its text, or the name of its cluster), and
        after what they had asked `then` (two more questions at most); most asked first.

        Only what at least `least_askers` different people asked is shown, so that no single person's path is. Raises
        as `list` does.
        """
        names = [named(each) for each in (question, *then)]
        ways = [(each, names) for each in self.flows(flow)]
        window = days_of(days)
        await self._flush()
        found = await self._paths.after(ways, window, limit=limit, least_askers=least_askers)
        return sorted((step for steps in found for step in steps), key=lambda step: (-step.count, step.cluster))[:limit]

    async def next_of(
        self, questions: Sequence[PopularQuestion], *, days: int = 30, limit: int = 3
    ) -> Sequence[Sequence[NextQuestion]]:
        """What people asked next after each of several questions, as `next` shows it."""
        ways = [(question.flow, [question.cluster]) for question in questions]
        return await self._paths.after(ways, days_of(days), limit=limit, least_askers=2)

    async def forget(self, *questions: str, flow: str | None = None, hide: bool = False) -> Receipt:
        """Remove wordings (texts, or names) from every count of every flow, or of one, with every step from and to
        them; with `hide` they are not counted again for a year. Other wordings of the same question stay."""
        await self._flush()
        names = [named(question) for question in questions]
        known = await self._store.flows.known()
        flows = [flow] if flow else sorted({*known, *self._registry.current().flows})
        removed = sum([await forget_names(self._store.popularity, each, names, hide=hide) for each in flows])
        return Receipt(
            action="forget questions",
            target=f"{len(names)} wording(s)",
            dry_run=False,
            removed={"counts": removed},
            at=time.time(),
        )

    def flows(self, flow: str | None = None) -> Sequence[str]:
        """The flows whose questions everybody may see; of one flow itself, or nothing. Raises `UnknownFlow`."""
        snapshot = self._registry.current()
        specs = [snapshot.get(flow, inactive=True)] if flow else snapshot.flows.values()
        return [spec.key for spec in specs if spec.sharing is Sharing.TEAM]

    async def heads(self, flow: str) -> Heads:
        """Which of a flow's wordings are one question: those that were taken for each other, and those that a person
        gave one answer in the FAQ."""
        heads = Heads(await self._store.popularity.joined(flow))
        for entry in (await self._store.faq.book(flow)).entries.values():
            if entry.published is not None and not entry.retired:
                heads.curate([name_of(wording) for wording in entry.published.asked_as], entry.id)
        return heads

    @cached_property
    def _paths(self) -> Paths:
        from agentic_flywheel.insight.paths import Paths

        return Paths(self._store, self.heads)

    async def _with_answers(self, questions: Sequence[PopularQuestion]) -> Sequence[PopularQuestion]:
        """The questions with the keys of their answers, as far as those would be served now."""
        key_of = self._store.keys.entry
        keys = [
            [key_of("team", question.flow, wording.name) for wording in question.wordings[:_LOOKED_FOR]]
            for question in questions
        ]
        flat = list({key for of_question in keys for key in of_question})
        looked = dict(zip(flat, await self._store.entries.get_many(flat), strict=True))
        facts = {flow: await self._facts(flow) for flow in {question.flow for question in questions}}

        def served(question: PopularQuestion, key: str) -> bool:
            entry = looked[key].entry
            if entry is None:
                return False
            wanted = Wanted(key=key, scope="team", question=entry.question, identity="")
            return verdict(Found(wanted, entry), facts[question.flow]) is Reason.EXACT

        return [
            msgspec.structs.replace(question, entry_key=next((key for key in those if served(question, key)), None))
            for question, those in zip(questions, keys, strict=True)
        ]

    async def _facts(self, flow: str) -> Facts:
        """What decides whether a stored answer of a flow would be served now."""
        spec = self._registry.current().get(flow, inactive=True)
        state = await self._store.flows.state(flow)
        overrides = await self._store.flows.type_ttls()
        return Facts(
            directives=Directives(),
            found=(),
            fingerprint=state.fingerprint,
            generation=state.generation,
            lifetime=self._lifetime(spec, state, overrides.get(spec.type)),
            now=time.time(),
            jitter=self._jitter,
        )


class Heads:
    """Which wordings are one question: each leads to another one, up to one that leads to itself or nowhere."""

    def __init__(self, joined: Mapping[str, str]) -> None:
        self._joined = dict(joined)
        self.faq: dict[str, str] = {}  # wording -> the entry of the FAQ that answers it

    def curate(self, names: Sequence[str], entry: str) -> None:
        """Make wordings one question that an entry of the FAQ answers."""
        first = self.of(names[0])
        for name in names:
            self.faq.setdefault(name, entry)
            self._joined[self.of(name)] = first

    def of(self, name: str) -> str:
        """The wording that stands for the question that this one asks.

        >>> Heads({"a": "b", "b": "c"}).of("a"), Heads({}).of("x")
        ('c', 'x')
        """
        seen = {name}
        while (up := self._joined.get(name, name)) not in seen:
            seen.add(up)
            name = up
        return name

    def all_of(self, name: str) -> list[str]:
        """Every wording of the question that this one asks, this one included."""
        head = self.of(name)
        return sorted({name, head, *(other for other in self._joined if self.of(other) == head)})


class _Merged:
    """One question over several days and wordings."""

    def __init__(self) -> None:
        self.asked = self.served = self.saved_us = self.last = 0
        self.first = 2**32
        self.marks: set[int] = set()
        self.wordings: dict[str, tuple[int, int, str]] = {}  # times asked, last time, the text of that day

    def add(self, name: str, record: Record) -> None:
        """Take in one wording's record of one day."""
        self.asked += record.asked
        self.served += record.served
        self.saved_us += record.saved_us
        self.first, self.last = min(self.first, record.first), max(self.last, record.last)
        self.marks.update(record.marks)
        asked, last, text = self.wordings.get(name, (0, 0, ""))
        if record.last >= last:
            last, text = record.last, record.text
        self.wordings[name] = (asked + record.asked, last, text)

    def shown(self, flow: str, head: str, faq: Mapping[str, str]) -> PopularQuestion:
        """The question as it is shown, without its answer."""
        # Of wordings that were asked as often, the one that the question had before others joined it.
        ranked = sorted(self.wordings.items(), key=lambda item: (-item[1][0], item[0] != head, item[0]))
        wordings = tuple(Wording(text=text, count=asked, name=name) for name, (asked, _, text) in ranked)
        return PopularQuestion(
            cluster=head,
            flow=flow,
            question=wordings[0].text,
            wordings=wordings,
            asked=self.asked,
            askers=max(1, min(self.asked, estimated(self.marks))),
            served=self.served,
            hit_rate=self.served / self.asked,
            saved_seconds=self.saved_us / 1_000_000,
            first_at=float(self.first),
            last_at=float(self.last),
            faq=next((faq[name] for name, _ in ranked if name in faq), ""),
        )


async def forget_names(popularity: Popularity, flow: str, names: Sequence[str], *, hide: bool) -> int:
    """Remove wordings of a flow from every day, with every step of a way that leads over one of them; with `hide` they
    are not counted again for a year. How many records are gone."""
    days = days_of(MOST_DAYS)
    if hide:  # first of all, so that none comes in behind
        await popularity.hide(flow, names)
    removed = await popularity.remove(flow, names, days)
    steps = {day: list(found) async for day, found in popularity.steps(flow, days)}
    over = steps_over(names, {step for found in steps.values() for step in found})
    return removed + await popularity.remove_steps(
        flow, {day: [step for step in found if step in over] for day, found in steps.items()}
    )


def named(question: str) -> str:
    """The name of a question: itself if it is one, else that of its words."""
    return question if _NAME.fullmatch(question) else name_of(question)


def days_of(days: int) -> list[str]:
    """The last so many days as they stand in keys, newest first. Raises `InputError`."""
    if not 1 <= days <= MOST_DAYS:
        raise InputError(f"what was asked is kept for {MOST_DAYS} days; ask for 1 to {MOST_DAYS}, not {days}")
    now = time.time()
    return [day_of(now - 86400 * back) for back in range(days)]


def _days_between(since: float | None, until: float | None) -> list[str]:
    window = window_of(since, until, now=time.time(), default_seconds=86400.0 * (MOST_DAYS - 1))
    first, last = int(window.since // 86400), math.ceil(window.until / 86400)
    return [day_of(86400.0 * day) for day in range(max(first, last - MOST_DAYS), last)]

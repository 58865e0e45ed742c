"""Warm-ups: questions are asked before anybody asks them, so that whoever does finds the answer.

Invariant: only what would be stored for the whole team is asked; a warm-up is nobody's question (no turn, no session,
no count of questions); it is known in Redis from its beginning, so that it can be watched, and gone on with, from
anywhere.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.amounts import counted
from agentic_flywheel.errors import InputError, UnknownWarmUp
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.insight.faq import Faq
from agentic_flywheel.insight.figures import Price
from agentic_flywheel.insight.popular import Popular
from agentic_flywheel.insight.warm_file import read_questions
from agentic_flywheel.insight.warm_run import WarmRun, roots_of
from agentic_flywheel.insight.warm_sources import WarmSources
from agentic_flywheel.personal_data import spoken
from agentic_flywheel.policy.admission import admit_text
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.store import Store
from agentic_flywheel.store.warm_jobs import SILENT_SECONDS, WarmJob
from agentic_flywheel.warmer import Warmer
from agentic_flywheel.warmups import (
    MOST_QUESTIONS,
    WarmBudget,
    WarmItem,
    WarmOrder,
    WarmOutcome,
    WarmPath,
    WarmProgress,
    WarmReport,
)

#: More calls of flows at a time would help nobody.
MOST_CONCURRENCY = 32
_NO_BUDGET = WarmBudget()


class WarmUp:
    """A warm-up that is ready to run: iterate over it, once, for a `WarmProgress` per question. `report` says how far
    it has come, also after it was cut off; `aclose` stops it."""

    def __init__(self, run: WarmRun, currency: str, warnings: tuple[str, ...] = ()) -> None:
        self._run = run
        self._currency = currency
        self._warnings = warnings
        self._events = run.events()

    @property
    def job(self) -> str:
        """Its id; "" for a dry run."""
        return self._run.job.order.id

    @property
    def total(self) -> int:
        """How many questions there are."""
        return self._run.total

    async def announce(self) -> None:
        """Write it down before it is iterated over, so that whoever is told of it can watch it. Raises `StoreError`."""
        await self._run.announce()

    def __aiter__(self) -> AsyncGenerator[WarmProgress, None]:
        return self._events

    async def aclose(self) -> None:
        """Stop it."""
        await self._events.aclose()

    @property
    def report(self) -> WarmReport:
        """How far it has come."""
        run = self._run
        job = msgspec.structs.replace(
            run.job,
            state=("left" if run.bound else "done") if run.ended or run.bound else "running",
            bound=run.bound,
            calls=run.calls,
            money=run.money,
            seconds=run.seconds,
            total=run.total,
        )
        report = _report(job, run.items, currency=self._currency, warnings=self._warnings)
        return msgspec.structs.replace(report, state="dry") if not self.job else report


class Warming:
    """The warm-ups of one tenant; `flywheel.warming`.

    warm_up = await flywheel.warming.begin(["What is Redis?"], budget=WarmBudget(calls=10))
    async for progress in warm_up:
        print(progress.done, progress.total, progress.item.outcome)
    print(warm_up.report.stored)
    """

    def __init__(
        self,
        settings: Settings,
        redacting: Redacting,
        registry: Registry,
        store: Store,
        warmer: Warmer,
        sources: WarmSources,
    ) -> None:
        self._settings = settings
        self._redacting = redacting
        self._registry = registry
        self._store = store
        self._warmer = warmer
        self._sources = sources
        self._money = settings.text("usage.currency")
        self.clock: Callable[[], float] = time.monotonic  # tests have another

    async def begin(
        self,
        questions: Iterable[str | WarmPath] = (),
        *,
        file: str | Path | None = None,
        popular: int = 0,
        follow_ups: int = 0,
        faq: bool = False,
        flow: str | None = None,
        budget: WarmBudget = _NO_BUDGET,
        concurrency: int | None = None,
        refresh: bool = False,
        standalone: bool = False,
        dry_run: bool = False,
        cause: str = "asked",
        job: str | None = None,
    ) -> WarmUp:
        """Make a warm-up ready; nothing is asked or written before it is iterated over.

        `questions` are asked as they stand, those of `file` too; `popular` many popular ones, with `follow_ups` of what
        is asked next after each; the FAQ's. `flow` names the flow of those questions that name none, and keeps popular
        and FAQ to it. `standalone` vouches that no question needs an earlier one, whatever its words. `refresh` asks
        although a fresh answer is there. A dry run looks, and writes and asks nothing. A `job` id that is known already
        is gone on with.

        Raises `InputError`, `UnknownFlow` and `StoreError`: then nothing was done.
        """
        paths = [path if isinstance(path, WarmPath) else WarmPath(questions=(path,)) for path in questions]
        name = ""
        if file is not None:
            paths += read_questions(_read(Path(file)), str(file))
            name = str(file)
        if flow is not None:
            flow = self._registry.current().get(flow).key
        if popular < 0 or follow_ups < 0:
            raise InputError("a number of questions is 0 or more")
        paths = [
            msgspec.structs.replace(path, flow=path.flow or flow or "", standalone=path.standalone or standalone)
            for path in paths
        ]
        for question in (question for path in paths for question in path.questions):
            admit_text(question, "question")
        if not (paths or popular or faq):
            raise InputError(
                "there is nothing to warm",
                suggestions=("Give questions, a file, a number of popular questions (1 or more), or the FAQ.",),
            )
        if not dry_run:
            self._check_kept(paths)
        order = WarmOrder(
            id="" if dry_run else job or f"w-{new_id()[:8]}",
            at=time.time(),
            paths=tuple(paths),
            name=name,
            popular=popular,
            follow_ups=follow_ups,
            faq=faq,
            flow=flow or "",
            refresh=refresh,
            cause=cause,
        )
        check(budget)
        concurrency = self._at_a_time(concurrency)
        known = await self._store.warm_jobs.read(job) if job and not dry_run else None
        if known is not None:
            await self._store.warm_jobs.grant(known, _NO_BUDGET)
            return await self._ready(known, await self._store.warm_jobs.items(order.id), concurrency)
        return await self._ready(WarmJob(order=order, budget=budget), {}, concurrency)

    async def resume(self, job: str = "", *, budget: WarmBudget = _NO_BUDGET, concurrency: int | None = None) -> WarmUp:
        """Go on with a warm-up that was cut off or left; "" is the last one. What was done is not asked again, what
        failed is. A `budget` counts from now on; what it leaves open is what is left of the old one.

        Raises `UnknownWarmUp` and `StoreError`.
        """
        check(budget)
        concurrency = self._at_a_time(concurrency)
        known = await self._known(job)
        warnings: tuple[str, ...] = ()
        silent = time.time() - known.heard_at
        if known.state == "running" and silent < SILENT_SECONDS:
            heard = f"{known.order.id} was heard of {silent:.0f} s ago"
            warnings = (f"{heard}; if it still runs elsewhere, the two share its questions and its budget.",)
        await self._store.warm_jobs.grant(known, budget)
        items = await self._store.warm_jobs.items(known.order.id)
        return await self._ready(await self._known(known.order.id), items, concurrency, warnings)

    async def run(self, questions: Iterable[str | WarmPath] = (), **arguments: Any) -> WarmReport:
        """As `begin`, to its end."""
        warm_up = await self.begin(questions, **arguments)
        async for _ in warm_up:
            pass
        return warm_up.report

    async def show(self, job: str = "", *, items: bool = True) -> WarmReport:
        """A warm-up as Redis knows it, whichever process runs it; "" is the last one. Raises `UnknownWarmUp`."""
        known = await self._known(job)
        found = await self._store.warm_jobs.items(known.order.id)
        shown = await self._worded(found) if items else found
        report = _report(_as_of_now(known), shown, currency=self._currency(found))
        return report if items else msgspec.structs.replace(report, items=())

    async def recent(self, limit: int = 10) -> list[WarmReport]:
        """The last warm-ups, newest first, without their questions."""
        if limit < 1:
            raise InputError(f"a list holds at least 1 warm-up, not {limit}")
        reports = []
        for job in await self._store.warm_jobs.latest(limit):
            known = await self._store.warm_jobs.read(job)
            if known is not None:
                found = await self._store.warm_jobs.items(job)
                report = _report(_as_of_now(known), found, currency=self._currency(found))
                reports.append(msgspec.structs.replace(report, items=()))
        return reports

    async def stop(self, job: str = "") -> WarmReport:
        """Ask whoever runs a warm-up to stop it, in whatever process; "" is the last one. No further call is made, and
        it can be gone on with. One that does not run stays as it is. Raises `UnknownWarmUp` and `StoreError`."""
        known = await self._known(job)
        if known.state == "running":
            await self._store.warm_jobs.stop(known.order.id)
        return await self.show(known.order.id, items=False)

    async def _known(self, job: str) -> WarmJob:
        if not job:
            job = next(iter(await self._store.warm_jobs.latest(1)), "")
            if not job:
                raise UnknownWarmUp("nothing has been warmed yet")
        known = await self._store.warm_jobs.read(job)
        if known is None:
            raise UnknownWarmUp(f"no warm-up {job!r} (any more)", job=job)
        return known

    async def _ready(
        self,
        job: WarmJob,
        items: Mapping[str, WarmItem],
        concurrency: int,
        warnings: tuple[str, ...] = (),
    ) -> WarmUp:
        paths = await self._sources.paths(job.order)
        roots, total = roots_of(paths)
        if total > MOST_QUESTIONS:
            raise InputError(f"{total} questions are too many; one warm-up takes at most {MOST_QUESTIONS}")
        if job.budget.money is not None and (free := self._without_price(paths)):
            named = ", ".join(free)
            warnings = (*warnings, f"No price is known of {named}: calls of it are not counted as money.")
        run = WarmRun(
            self._warmer,
            self._store.warm_jobs if job.order.id else None,
            job,
            roots,
            total,
            items=items,
            concurrency=concurrency,
            clock=self.clock,
        )
        return WarmUp(run, self._money if any(map(_priced, self._registry.current().active())) else "", warnings)

    def _check_kept(self, paths: Iterable[WarmPath]) -> None:
        """Raises `InputError` where an order, which is kept, holds what may not be."""
        flows = self._registry.current().flows
        for path in paths:
            redactor = self._redacting.redactor(self._redacting.kinds_for(flows.get(path.flow)))
            for number, question in enumerate(path.questions if redactor else (), 1):
                if redactor is not None and (found := redactor.find(question)):
                    raise InputError(
                        f"there is {spoken(one.kind for one in found)} in question {number} of a path, which may not "
                        "be kept: it cannot be warmed",
                        suggestions=("Look with --dry-run which one it is, and leave it out.",),
                    )

    def _without_price(self, paths: Iterable[tuple[WarmPath, bool]]) -> list[str]:
        """The flows that are named, or might be picked, and have no price."""
        snapshot = self._registry.current()
        named = {path.flow for path, _ in paths}
        flows = snapshot.active() if "" in named else [snapshot.flows[key] for key in named if key in snapshot.flows]
        return sorted(spec.key for spec in flows if not _priced(spec))

    def _at_a_time(self, concurrency: int | None) -> int:
        chosen = int(self._settings["warm.concurrency"]) if concurrency is None else concurrency
        if not 1 <= chosen <= MOST_CONCURRENCY:
            raise InputError(f"1 to {MOST_CONCURRENCY} questions can be asked at a time, not {chosen}")
        return chosen

    def _currency(self, items: Mapping[str, WarmItem]) -> str:
        """What money is counted in; "" where no flow that was asked has a price."""
        flows = self._registry.current().flows
        return self._money if any(_priced(flows[item.flow]) for item in items.values() if item.flow in flows) else ""

    async def _worded(self, items: Mapping[str, WarmItem]) -> dict[str, WarmItem]:
        """Items with the words of their questions: what was not kept, the stored answer tells, while there is one."""
        keys = [item.key for item in items.values() if not item.question and item.key]
        looked = dict(zip(keys, await self._store.entries.get_many(keys), strict=True))
        worded = {}
        for name, item in items.items():
            entry = looked[item.key].entry if item.key in looked else None
            worded[name] = msgspec.structs.replace(item, question=entry.asked or entry.question) if entry else item
        return worded


def warming_of(
    settings: Settings,
    redacting: Redacting,
    registry: Registry,
    store: Store,
    warmer: Warmer,
    *,
    popular: Callable[[], Popular],
    faq: Callable[[], Faq],
) -> Warming:
    """The warm-ups of a flywheel."""
    return Warming(settings, redacting, registry, store, warmer, WarmSources(popular, faq))


def check(budget: WarmBudget) -> None:
    """Refuse a budget that allows nothing, or less. Raises `InputError`."""
    for name, value in msgspec.structs.asdict(budget).items():
        if value is not None and not value > 0:
            raise InputError(f"a budget of {name} is more than 0, not {value:g}")


def _priced(spec: FlowSpec) -> bool:
    return Price.of(spec) != Price()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", file=str(file)) from error


def _as_of_now(job: WarmJob) -> WarmJob:
    """A warm-up with the time that it has taken since it was heard of last."""
    silent = time.time() - job.heard_at
    if job.state != "running" or not 0 < silent < SILENT_SECONDS:
        return job
    return msgspec.structs.replace(job, seconds=job.seconds + silent)


def _report(
    job: WarmJob, items: Mapping[str, WarmItem], *, currency: str, warnings: tuple[str, ...] = ()
) -> WarmReport:
    outcomes = Counter(item.outcome for item in items.values())
    broken = job.state == "running" and job.heard_at and time.time() - job.heard_at > SILENT_SECONDS
    order = job.order
    sources = (
        order.name or (counted(sum(len(path.questions) for path in order.paths), "questions") if order.paths else ""),
        "FAQ" if order.faq else "",
        counted(order.popular, "popular questions") if order.popular else "",
        f"{counted(order.follow_ups, 'follow-ups')} of each" if order.popular and order.follow_ups else "",
    )
    return WarmReport(
        job=order.id,
        state="broken" if broken else job.state,
        sources=tuple(source for source in sources if source),
        cause=order.cause,
        total=job.total,
        asked=job.calls,
        stored=outcomes[WarmOutcome.STORED],
        warm=outcomes[WarmOutcome.WARM],
        refused=outcomes[WarmOutcome.REFUSED],
        failed=outcomes[WarmOutcome.FAILED],
        due=outcomes[WarmOutcome.DUE],
        left=max(0, job.total - len(items)),
        bound=job.bound,
        refusals=_reasons(items, WarmOutcome.REFUSED),
        failures=_reasons(items, WarmOutcome.FAILED),
        money=job.money if currency else None,
        currency=currency,
        seconds=job.seconds,
        at=order.at,
        ended_at=job.ended_at,
        stopping=job.stopping and job.state == "running",
        warnings=warnings,
        items=tuple(items.values()),
    )


def _reasons(items: Mapping[str, WarmItem], outcome: WarmOutcome) -> dict[str, int]:
    counts = Counter(item.reason for item in items.values() if item.outcome is outcome)
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

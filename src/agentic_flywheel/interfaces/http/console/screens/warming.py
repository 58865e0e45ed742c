"""Warm-ups: one is ordered and bounded here, watched while it runs wherever it runs, stopped, gone on with, read."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.durations import parse_duration
from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.warm_file import read_questions
from agentic_flywheel.insight.warming import MOST_CONCURRENCY, WarmUp
from agentic_flywheel.interfaces.http.console.doing import written_down
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.problems import advice_of
from agentic_flywheel.warmups import MOST_QUESTIONS, WarmBudget, WarmReport

_RECENT: Final = 20
#: What is bounded even if nobody says so: a slip of the mouse should not ask a model thousands of times.
_CALLS: Final = 50


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the form; a question a line, or JSON lines, or YAML, as `afw warm` reads them from a file."""

    questions: str = ""
    popular: str = ""
    follow_ups: str = ""
    faq: bool = False
    flow: str = ""
    calls: str = str(_CALLS)
    time: str = ""
    money: str = ""
    concurrency: str = ""
    refresh: bool = False
    standalone: bool = False


class WarmingPage(msgspec.Struct, frozen=True, kw_only=True):
    """The form and the last warm-ups; `dry` is what an order would come to, `problem` why it was not taken."""

    order: Order
    recent: tuple[WarmReport, ...]
    flows: tuple[str, ...]
    currency: str
    most_concurrency: int = MOST_CONCURRENCY
    dry: WarmReport | None = None
    problem: str = ""
    advice: str = ""


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up as far as it has come, each question with what came of it."""

    report: WarmReport
    done: int


async def show(visit: Visit) -> Page:
    """The form, filled in from the URL where that says something, and the last warm-ups."""
    order = Order(popular=visit.text("popular"), flow=visit.text("flow"), faq=visit.text("faq") == "1", follow_ups="")
    return Page("warming.html", await _page(visit, order))


async def show_job(visit: Visit) -> Page:
    """One warm-up, also while it runs."""
    report = await visit.flywheel.warming.show(visit.required("id"))
    done = report.stored + report.warm + report.refused + report.failed
    return Page("warming_job.html", JobPage(report=report, done=done))


async def begin(visit: Visit, form: Form) -> Page | Went:
    """Begin a warm-up, or say what it would ask."""
    said: dict[str, Any] = {
        name: form.ticked(name) if name in _TICKS else form.text(name) for name in Order.__struct_fields__
    }
    order = Order(**said)
    dry = form.ticked("dry_run")
    try:
        warm_up = await _ordered(visit, order, dry=dry)
    except InputError as error:
        page = await _page(visit, order)
        advice = "".join(advice_of(error)[:1])
        return Page("warming.html", msgspec.structs.replace(page, problem=error.message, advice=advice), 400)
    if dry:
        async for _ in warm_up:
            pass
        return Page("warming.html", msgspec.structs.replace(await _page(visit, order), dry=warm_up.report))
    await written_down(visit, "warm.begin", warm_up.job, questions=warm_up.total)
    return await _run(visit, warm_up)


async def stop(visit: Visit, form: Form) -> Went:
    """Stop a warm-up, whichever process runs it."""
    job = form.required("id")
    report = await visit.flywheel.warming.show(job, items=False)
    await written_down(visit, "warm.stop", report.job)
    await visit.flywheel.warming.stop(report.job)
    return Went(visit.link("/warming/job", id=job), said="warm_stopping")


async def resume(visit: Visit, form: Form) -> Went:
    """Go on with a warm-up, with so many calls more."""
    job = form.required("id")
    budget = WarmBudget(calls=_whole(form.text("calls"), "calls"), seconds=_seconds(form.text("time")))
    warm_up = await visit.flywheel.warming.resume(job, budget=budget)
    await written_down(visit, "warm.resume", job, calls=budget.calls)
    return await _run(visit, warm_up)


async def _run(visit: Visit, warm_up: WarmUp) -> Went:
    job = await visit.call.service.warm_ups.begin(visit.caller.tenant, warm_up)
    return Went(visit.link("/warming/job", id=job), said="warm_begun")


async def _ordered(visit: Visit, order: Order, *, dry: bool) -> WarmUp:
    """The warm-up of an order. Raises `InputError` for one that makes no sense."""
    questions = read_questions(order.questions, "what was pasted") if order.questions else ()
    return await visit.flywheel.warming.begin(
        questions,
        popular=_whole(order.popular, "popular") or 0,
        follow_ups=_whole(order.follow_ups, "follow_ups") or 0,
        faq=order.faq,
        flow=order.flow or None,
        budget=WarmBudget(calls=_whole(order.calls, "calls"), seconds=_seconds(order.time), money=_amount(order.money)),
        concurrency=_whole(order.concurrency, "concurrency"),
        refresh=order.refresh,
        standalone=order.standalone,
        dry_run=dry,
    )


async def _page(visit: Visit, order: Order) -> WarmingPage:
    flywheel = visit.flywheel
    if not order.concurrency:
        order = msgspec.structs.replace(order, concurrency=str(flywheel.settings["warm.concurrency"]))
    return WarmingPage(
        order=order,
        recent=tuple(await flywheel.warming.recent(_RECENT)),
        flows=tuple(spec.key for spec in flywheel.flows.list()),
        currency=flywheel.settings.text("usage.currency"),
    )


def _whole(said: str, name: str) -> int | None:
    """A whole number, None where nothing is said."""
    if not said:
        return None
    if not said.isascii() or not said.isdigit() or int(said[:9]) > MOST_QUESTIONS:
        raise InputError(f"{name} is a whole number up to {MOST_QUESTIONS}, not {said[:40]!r}")
    return int(said)


def _seconds(said: str) -> float | None:
    return parse_duration(said).total_seconds() if said else None


def _amount(said: str) -> float | None:
    """An amount of money, None where nothing is said.

    >>> _amount("2,50"), _amount("")
    (2.5, None)
    """
    if not said:
        return None
    try:
        return float(said.replace(",", "."))
    except ValueError:
        raise InputError(f"an amount of money is a number, not {said[:40]!r}") from None


_TICKS: Final = frozenset({"faq", "refresh", "standalone"})

SCREENS = (
    Screen("/warming", show, needs=Scope.READ, name="warming", place=70),
    Screen("/warming/job", show_job, needs=Scope.READ, name="warming"),
)
ACTIONS = (
    Action("/warming/begin", begin, needs=Scope.ADMIN),
    Action("/warming/stop", stop, needs=Scope.ADMIN),
    Action("/warming/resume", resume, needs=Scope.ADMIN),
)

"""Wrong answers: saying so, what that did at once, and what was said so far."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.screens.why import turn_of
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.likeness import Report, ReportKind, ReportReceipt, SimilarStatus
from agentic_flywheel.model import Answer, Turn


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that somebody wants to say something of."""

    turn: Turn
    kinds: tuple[ReportKind, ...] = tuple(ReportKind)


class ReportedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a report did, and the fresh answer where one was wanted."""

    receipt: ReportReceipt
    fresh: Answer | None = None


class ReportsView(msgspec.Struct, frozen=True, kw_only=True):
    """What people said, newest first, and how flows stand by it."""

    reports: tuple[Report, ...]
    statuses: tuple[SimilarStatus, ...] = ()


async def show(visit: Visit) -> Page:
    """The form, with the answer that it is about."""
    turn, _, _ = await turn_of(visit, visit.required("session"), visit.required("turn"))
    return Page("report.html", ReportView(turn=turn))


async def report(visit: Visit, form: Form) -> Page:
    """Take a report. Raises `UnknownSession`, `UnknownTurn`, `InputError`."""
    session, turn = form.required("session"), form.required("turn")
    await turn_of(visit, session, turn)
    receipt, fresh = await visit.flywheel.similar.report(
        turn,
        form.required("kind"),
        note=form.text("note")[:2000],
        session=session,
        user=visit.user,
        fresh=form.ticked("fresh"),
    )
    return Page("reported.html", ReportedView(receipt=receipt, fresh=fresh))


async def listed(visit: Visit) -> Page:
    """What was reported. Whoever speaks for one user sees what that one reported."""
    flow = visit.text("flow") or None
    reports = await visit.flywheel.similar.reports(limit=visit.whole("limit", 50, most=500), flow=flow)
    user = visit.caller.user
    if user is not None:
        return Page("reports.html", ReportsView(reports=tuple(one for one in reports if one.by == user)))
    flows = [spec.key for spec in visit.flywheel.flows.list() if flow in {None, spec.key}]
    statuses = [await visit.flywheel.similar.status(key) for key in flows]
    return Page("reports.html", ReportsView(reports=tuple(reports), statuses=tuple(statuses)))


SCREENS = (
    Screen("/report", show, needs=Scope.ASK, name="report"),
    Screen("/reports", listed, needs=Scope.READ, name="reports", place=30),
)
ACTIONS = (Action("/report", report, needs=Scope.ASK),)

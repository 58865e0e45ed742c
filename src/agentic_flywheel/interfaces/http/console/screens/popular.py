"""What is asked often, in which words; and what people ask next."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.insight.paths import NextQuestion
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.screens.faq import shared_flows
from agentic_flywheel.interfaces.http.console.visit import Visit

_MOST = 100


class PopularPage(msgspec.Struct, frozen=True, kw_only=True):
    """The questions that were asked most over `days`."""

    days: int
    flow: str
    flows: tuple[str, ...]
    questions: tuple[PopularQuestion, ...]


class PathsPage(msgspec.Struct, frozen=True, kw_only=True):
    """What people asked next, after a question and `then`."""

    question: str
    then: tuple[str, ...]
    days: int
    flow: str
    next: tuple[NextQuestion, ...]
    deeper: bool


async def show(visit: Visit) -> Page:
    """Popular questions, most asked first."""
    days, flow = visit.whole("days", 30, most=90), visit.text("flow")
    found = await visit.flywheel.popular.list(days, flow or None, visit.whole("limit", 25, most=_MOST))
    page = PopularPage(days=days, flow=flow, flows=shared_flows(visit), questions=tuple(found))
    return Page("popular.html", page)


async def show_paths(visit: Visit) -> Page:
    """What is asked next after a question, which is the way to its own next ones."""
    question, flow, days = visit.required("question"), visit.text("flow"), visit.whole("days", 30, most=90)
    then = tuple(one.strip() for one in visit.request.query_params.getlist("then") if one.strip())
    found = await visit.flywheel.popular.next(question, *then, days=days, flow=flow or None, limit=20)
    page = PathsPage(question=question, then=then, days=days, flow=flow, next=tuple(found), deeper=len(then) < 2)
    return Page("paths.html", page)


SCREENS = (
    Screen("/popular", show, needs=Scope.READ, name="popular", place=45),
    Screen("/popular/paths", show_paths, needs=Scope.READ, name="popular"),
)
ACTIONS: tuple[Action, ...] = ()

"""The first page: what the memory is worth, over time and by flow, and a box to ask."""

from __future__ import annotations

from typing import Final

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.insight.rows import Series, UsageReport
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.http.routes import INSIDE
from agentic_flywheel.model import Session

#: What is looked at, and the length of a step of its charts.
WINDOWS: Final = {"1h": "1m", "24h": "1h", "7d": "4h", "30d": "1d", "90d": "1d"}
_DEFAULT: Final = "7d"
_RECENT: Final = 5


class FlowName(msgspec.Struct, frozen=True):
    """A flow that can be asked."""

    key: str
    name: str


class HomeView(msgspec.Struct, frozen=True, kw_only=True):
    """What the first page shows. `report` and `series` are for who may read figures, `recent` sessions for who may read
    them; `reports` counts what people reported, `memory_bytes` what Redis uses (None: not known)."""

    since: str
    flow: str = ""
    flows: tuple[FlowName, ...] = ()
    report: UsageReport | None = None
    series: Series | None = None
    reports: int = 0
    memory_bytes: int | None = None
    recent: tuple[Session, ...] = ()


async def show(visit: Visit) -> Page:
    """The first page, as much of it as the caller may see."""
    since = visit.text("since", _DEFAULT)
    if since not in WINDOWS:
        raise InputError(f"since is one of {', '.join(WINDOWS)}, not {since!r}")
    flow = visit.text("flow")
    flywheel = visit.flywheel
    view = HomeView(since=since, flow=flow)
    if visit.may(Scope.ASK) or visit.may(Scope.READ):
        flows = tuple(FlowName(spec.key, spec.name or spec.key) for spec in flywheel.flows.list())
        view = msgspec.structs.replace(view, flows=flows)
    if visit.may(Scope.READ) or (visit.may(Scope.ASK) and visit.user):
        page = await flywheel.sessions.list(user=visit.user, limit=_RECENT)
        view = msgspec.structs.replace(view, recent=page.sessions)
    if visit.may(Scope.READ):
        named = flow or None
        report = await flywheel.usage.report(since=since, flow=named)
        series = await flywheel.usage.series(since=since, flow=named, step=WINDOWS[since])
        health = await flywheel.usage.health(since=since, flow=named, check=False)
        figures = await flywheel.cache.stats(days=1, flow=named)
        view = msgspec.structs.replace(
            view,
            report=report,
            series=series,
            reports=sum(sum(condition.reports.values()) for condition in health.flows),
            memory_bytes=figures.used_memory_bytes,
        )
    return Page("home.html", view)


SCREENS = (Screen("/", show, needs=INSIDE, name="home", place=10, twin="/index.json"),)
ACTIONS: tuple[Action, ...] = ()

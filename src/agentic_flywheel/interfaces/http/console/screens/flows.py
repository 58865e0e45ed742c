"""The flows at a glance: what each is, how long its answers stay good, how it does; and the lifetimes of types."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.durations import parse_duration
from agentic_flywheel.errors import StoreError
from agentic_flywheel.interfaces.http.console.doing import written_down
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.model import LifetimeRow

if TYPE_CHECKING:
    from agentic_flywheel.flows.protocol import FlowSpec
    from agentic_flywheel.insight.condition import FlowCondition
    from agentic_flywheel.likeness import SimilarStatus

#: Over how many days the figures of a flow are told.
DAYS = 7


class FlowRow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow in the list. `state` is its condition (see `FlowCondition`), "" without Redis; `cut` is the similarity
    from which answers are shared, None where none are; `ttl_set` says that the lifetime was set at run time."""

    key: str
    name: str
    kind: str
    type: str
    sharing: str
    active: bool
    ttl_seconds: float | None = None
    ttl_set: bool = False
    mode: str = ""
    profile: str = ""
    cut: float | None = None
    state: str = ""
    reachable: bool | None = None
    questions: int = 0
    hit_rate: float | None = None
    flow_ms: float | None = None
    reports: int = 0


class FlowsPage(msgspec.Struct, frozen=True, kw_only=True):
    """The flows of the registry, and the lifetimes by type. `looked` says that it was tried to reach them;
    `problem` is why the registry's file cannot be used (the last good reading holds)."""

    flows: tuple[FlowRow, ...]
    types: tuple[LifetimeRow, ...]
    registry: str
    looked: bool
    days: int = DAYS
    problem: str = ""
    notes: tuple[str, ...] = ()


async def show(visit: Visit) -> Page:
    """All flows; with `check=1` whether they can be reached now."""
    flywheel, check = visit.flywheel, visit.text("check") == "1"
    snapshot = flywheel.registry.current()
    problem = flywheel.registry.problem
    specs = flywheel.flows.list(inactive=True)
    notes = list(snapshot.notes)
    rows: list[FlowRow] = []
    types: tuple[LifetimeRow, ...] = ()
    try:
        lifetimes = {(row.kind, row.name): row for row in await flywheel.lifetimes.show()}
        types = tuple(row for (kind, _), row in lifetimes.items() if kind == "type")
        health = await flywheel.usage.health(since=f"{DAYS} days", check=check)
        conditions = {condition.flow: condition for condition in health.flows}
        found = await asyncio.gather(*(flywheel.similar.status(spec.key) for spec in specs))
        rows = [
            _row(spec, lifetimes["flow", spec.key], conditions.get(spec.key), status)
            for spec, status in zip(specs, found, strict=True)
        ]
    except StoreError as error:  # the registry's half is worth showing without Redis
        rows = [_bare(spec) for spec in specs]
        notes.append(error.message)
    page = FlowsPage(
        flows=tuple(rows),
        types=types,
        registry=str(snapshot.path) if visit.may(Scope.ADMIN) else snapshot.path.name,
        looked=check,
        problem=problem.message if problem else "",
        notes=tuple(notes),
    )
    return Page("flows.html", page)


async def set_lifetime(visit: Visit, form: Form) -> Went:
    """Set how long answers of a type, or of a flow, stay good; empty takes what was set back."""
    name, said = form.required("name"), form.text("ttl")
    key = name.removeprefix("flow:")
    back = visit.link("/flows/flow", key=key) if key != name else "/flows"
    if said and not form.ticked("reset"):
        ttl = parse_duration(said)
        await written_down(visit, "ttl.set", name, ttl_seconds=ttl.total_seconds())
        await visit.flywheel.lifetimes.set(name, ttl)
        return Went(f"{back}#lifetime", said="ttl_set")
    await written_down(visit, "ttl.reset", name)
    await visit.flywheel.lifetimes.reset(name)
    return Went(f"{back}#lifetime", said="ttl_reset")


def _bare(spec: FlowSpec) -> FlowRow:
    return FlowRow(
        key=spec.key,
        name=spec.name,
        kind=spec.kind,
        type=spec.type.value,
        sharing=spec.sharing.value,
        active=spec.active,
    )


def _row(spec: FlowSpec, lifetime: LifetimeRow, condition: FlowCondition | None, status: SimilarStatus) -> FlowRow:
    row = msgspec.structs.replace(
        _bare(spec),
        ttl_seconds=lifetime.ttl_seconds,
        ttl_set=lifetime.origin == "set at run time",
        mode="" if spec.acts else status.terms.mode.value,
        profile=status.terms.profile.value,
        cut=status.cut.value,
    )
    if condition is None:
        return row
    return msgspec.structs.replace(
        row,
        state=condition.state,
        reachable=condition.reachable,
        questions=condition.questions,
        hit_rate=condition.hit_rate,
        flow_ms=condition.latency.p50_ms,
        reports=sum(condition.reports.values()),
    )


SCREENS = (Screen("/flows", show, needs=Scope.READ, name="flows", place=50),)
ACTIONS = (Action("/flows/ttl", set_lifetime, needs=Scope.ADMIN),)

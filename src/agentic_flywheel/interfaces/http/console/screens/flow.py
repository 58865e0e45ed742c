"""One flow: how it does, how long its answers stay good, who shares them, what holds for similar questions and why.

Invariant: what is set here holds at once in every process, and is in the audit log before it holds; clearing shows what
it would do before it is done.
"""

from __future__ import annotations

from typing import Any

import anyio
import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError, StoreError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.insight.condition import FlowCondition
from agentic_flywheel.interfaces.http.console.doing import written_down
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.screens.flows import DAYS
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.interfaces.secrets import shown_config
from agentic_flywheel.likeness import CutChange, Profile, SimilarMode, SimilarStatus
from agentic_flywheel.model import FlowState, LifetimeRow, Receipt, Sharing


class FlowShown(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as the registry has it, secrets masked; `address` is where a person looks at it."""

    key: str
    name: str
    kind: str
    id: str
    address: str
    description: str
    purpose: str
    type: str
    sharing: str
    active: bool
    routable: bool
    acts: bool
    keywords: tuple[str, ...]
    config: dict[str, Any]
    options: dict[str, Any]
    key_variable: str
    max_concurrency: int | None
    calls_per_minute: int | None
    warm: int | None
    origin: str


class Turnover(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what the flow answers with; `old` is "" at first sight."""

    at: float
    old: str
    new: str
    generation: int


class FlowPage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one flow; what Redis knows of it is None without Redis (`problem` says why).

    `by_service` says that its sharing stands in a registry that all tenants share, and that the caller may change it.
    """

    flow: FlowShown
    lifetime: LifetimeRow | None = None
    type_ttl_seconds: float | None = None
    condition: FlowCondition | None = None
    looked: bool = False
    days: int = DAYS
    entries: int = 0
    state: FlowState | None = None
    turnovers: tuple[Turnover, ...] = ()
    similar: SimilarStatus | None = None
    cut_changes: tuple[CutChange, ...] = ()
    by_service: bool = False
    profiles: tuple[str, ...] = tuple(Profile)
    modes: tuple[str, ...] = tuple(SimilarMode)
    sharings: tuple[str, ...] = tuple(Sharing)
    problem: str = ""


class ClearPage(msgspec.Struct, frozen=True, kw_only=True):
    """What clearing a flow's answers would do, or did."""

    flow: str
    name: str
    receipt: Receipt


async def show(visit: Visit) -> Page:
    """One flow; with `check=1` whether it can be reached now."""
    flywheel, check = visit.flywheel, visit.text("check") == "1"
    spec = flywheel.flows.show(visit.required("key"))
    page = FlowPage(flow=_shown(visit, spec), looked=check, by_service=_operates(visit))
    try:
        lifetimes = {(row.kind, row.name): row for row in await flywheel.lifetimes.show()}
        health = await flywheel.usage.health(since=f"{DAYS} days", flow=spec.key, check=check)
        figures = await flywheel.cache.stats(flow=spec.key, days=1)
        page = msgspec.structs.replace(
            page,
            lifetime=lifetimes["flow", spec.key],
            type_ttl_seconds=lifetimes["type", spec.type.value].ttl_seconds,
            condition=health.flows[0] if health.flows else None,
            entries=figures.total.entries,
            state=await flywheel.flows.state(spec.key),
            turnovers=tuple(
                Turnover(at=change.at, old=change.old, new=change.new, generation=change.generation)
                for change in await flywheel.flows.changes(spec.key)
            ),
            similar=await flywheel.similar.status(spec.key),
            cut_changes=tuple(await flywheel.similar.changes(spec.key)),
        )
    except StoreError as error:  # the registry's half is worth showing without Redis
        page = msgspec.structs.replace(page, problem=error.message)
    return Page("flow.html", page)


async def set_terms(visit: Visit, form: Form) -> Went:
    """Decide what holds for similar questions, or take back what was decided."""
    spec = visit.flywheel.flows.show(form.required("key"))
    back = visit.link("/flows/flow", key=spec.key) + "#similar"
    if form.ticked("reset"):
        await written_down(visit, "similar.reset", spec.key)
        await visit.flywheel.similar.reset(spec.key)
        return Went(back, said="terms_reset")
    profile, mode, max_error = form.text("profile"), form.text("mode"), _share(form.text("max_error"))
    now = (await visit.flywheel.similar.status(spec.key)).terms
    changed: dict[str, Any] = {
        name: value
        for name, value, before in (
            ("profile", profile, now.profile),
            ("mode", mode, now.mode),
            ("max_error", max_error, now.max_error),
        )
        if value not in ("", None, before)
    }
    if changed:
        await written_down(visit, "similar.set", spec.key, **changed)
        await visit.flywheel.similar.set(spec.key, **changed)
    return Went(back, said="terms_set" if changed else "terms_same")


async def set_sharing(visit: Visit, form: Form) -> Went:
    """Say in the registry who shares the flow's answers; for who administers what all tenants share."""
    visit.call.require_operator()
    spec, sharing = visit.flywheel.flows.show(form.required("key")), form.required("sharing")
    if sharing not in tuple(Sharing):
        raise InputError(f"sharing is one of {', '.join(Sharing)}, not {sharing!r}")
    if sharing != spec.sharing:
        await written_down(visit, "flow.edit", spec.key, sharing=sharing)
        await anyio.to_thread.run_sync(lambda: visit.flywheel.registry.edit(spec.key, sharing=sharing))
    return Went(visit.link("/flows/flow", key=spec.key) + "#sharing", said="sharing_set")


async def clear(visit: Visit, form: Form) -> Page:
    """Clear every answer of a flow: first what it would do, then, once that is confirmed, do it."""
    spec, confirmed = visit.flywheel.flows.show(form.required("key")), form.ticked("confirmed")
    if confirmed:
        await written_down(visit, "cache.clear", f"flow {spec.key}")
    receipt = await visit.flywheel.cache.clear(flow=spec.key, dry_run=not confirmed)
    return Page("flow_cleared.html", ClearPage(flow=spec.key, name=spec.name or spec.key, receipt=receipt))


def _operates(visit: Visit) -> bool:
    """Whether whoever looks may change the registry, where the flow stands in a file."""
    return visit.may(Scope.ADMIN) and visit.caller.tenant == visit.call.service.settings.text("tenant")


def _shown(visit: Visit, spec: FlowSpec) -> FlowShown:
    inside = visit.may(Scope.ADMIN)
    return FlowShown(
        key=spec.key,
        name=spec.name,
        kind=spec.kind,
        id=spec.id if inside or spec.kind not in {"python", "documents"} else "",
        address=(visit.flywheel.flows.address(spec.key) or spec.base_url) if inside else "",
        description=spec.description,
        purpose=spec.purpose,
        type=spec.type.value,
        sharing=spec.sharing.value,
        active=spec.active,
        routable=spec.routable,
        acts=spec.acts,
        keywords=spec.intent_keywords,
        config=shown_config(spec.config),
        options=shown_config(spec.options) if inside else {},
        key_variable=spec.api_key_env if inside else "",
        max_concurrency=spec.max_concurrency,
        calls_per_minute=spec.calls_per_minute,
        warm=spec.warm,
        origin=spec.origin if inside else "",
    )


def _share(text: str) -> float | None:
    """A share as people write it: `2 %`, `2%`, `0.02`; None where nothing is said.

    >>> _share("2 %"), _share("0,5%"), _share("0.02"), _share("")
    (0.02, 0.005, 0.02, None)
    """
    if not text:
        return None
    plain = text.replace("\N{NO-BREAK SPACE}", " ").replace(",", ".").strip()
    try:
        return round(float(plain.rstrip("% ")) / (100 if plain.endswith("%") else 1), 6)
    except ValueError:
        raise InputError(f"{text!r} is not a share; write it as 2 % or 0.02") from None


SCREENS = (Screen("/flows/flow", show, needs=Scope.READ, name="flows"),)
ACTIONS = (
    Action("/flows/similar", set_terms, needs=Scope.ADMIN),
    Action("/flows/sharing", set_sharing, needs=Scope.ADMIN),
    Action("/flows/clear", clear, needs=Scope.ADMIN),
)

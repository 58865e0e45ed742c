"""Flows: list, look at, check, try; and for the operator add, change, remove.

Invariant: what would let whoever has a key run code, read folders or send an API key of the service's machine elsewhere
(kinds `python` and `documents`, `api_key_env`, the address of a machine that no flow is on yet) is not offered here;
people do that on that machine, with `afw flow add`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError, StoreError
from agentic_flywheel.flow_removal import remove_flow
from agentic_flywheel.flows.known_addresses import admit_known_address
from agentic_flywheel.flows.protocol import FlowHealth, FlowSpec
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    FlowKey,
    Meta,
    Query,
    Question,
    Removal,
)
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.interfaces.secrets import shown_config
from agentic_flywheel.model import Answer, FlowChange, FlowState, FlowType, Receipt, Sharing

flows = Operations("flows", "Who answers.")

_Text = Annotated[str, Meta(max_length=4000)]
_Seconds = Annotated[float, Meta(ge=1, le=315_360_000)]
_Price = Annotated[float, Meta(ge=0, lt=1_000_000)]
_Count = Annotated[int, Meta(ge=0, le=1_000_000)]


class FlowView(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as the registry describes it, secrets masked. `ttl_seconds` is the lifetime in force, null while Redis is
    away; `options`, `api_key_env` and `origin` are told to the operator alone."""

    key: str
    id: str
    kind: str
    name: str
    description: str
    purpose: str
    type: FlowType
    sharing: Sharing
    active: bool
    routable: bool
    acts: bool
    intent_keywords: tuple[str, ...]
    base_url: str
    config: Mapping[str, Any]
    ttl_seconds: float | None = None
    sliding: bool
    max_concurrency: int | None
    calls_per_minute: int | None
    price_per_call: float | None
    price_per_1000_tokens_in: float | None
    price_per_1000_tokens_out: float | None
    warm: int | None
    options: Mapping[str, Any] = {}
    api_key_env: str = ""
    origin: str = ""


class FlowViews(msgspec.Struct, frozen=True, kw_only=True):
    """The flows; `warnings` are sentences for people."""

    items: tuple[FlowView, ...]
    default_flow: str | None
    warnings: tuple[str, ...] = ()


class FlowFilter(Query, frozen=True, kw_only=True):
    """Which flows."""

    all: Annotated[bool, Meta(description="Inactive flows, too.")] = False


@flows.get("/flows", needs=Scope.ASK, by_flow=True)
async def list_flows(call: Call, query: FlowFilter) -> FlowViews:
    """List the flows that can be asked."""
    lifetimes, problem = await _lifetimes(call)
    snapshot = call.flywheel.registry.current()
    if call.flows is not None:
        snapshot = snapshot.only(call.flows)
    found = [spec for spec in call.flywheel.flows.list(inactive=query.all) if spec.key in snapshot.flows]
    return FlowViews(
        items=tuple(_view(call, spec, lifetimes.get(spec.key)) for spec in found),
        default_flow=snapshot.default.key if snapshot.default else None,
        warnings=(problem,) if problem else (),
    )


class FlowDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A flow, where a person looks at it, what all processes know of it, and when that changed (newest first)."""

    flow: FlowView
    address: str
    state: FlowState | None = None
    changes: tuple[FlowChange, ...] = ()
    warnings: tuple[str, ...] = ()


@flows.get("/flows/{flow}", needs=Scope.ASK, by_flow=True)
async def show_flow(call: Call, flow: FlowKey) -> FlowDetail:
    """One flow, its configuration and when that changed."""
    kept = call.flywheel.flows
    spec = kept.show(call.one_flow(flow) or flow)
    lifetimes, problem = await _lifetimes(call)
    shown = FlowDetail(flow=_view(call, spec, lifetimes.get(spec.key)), address=kept.address(spec.key))
    if problem:
        return msgspec.structs.replace(shown, warnings=(problem,))
    changes = tuple(await kept.changes(spec.key))
    return msgspec.structs.replace(shown, state=await kept.state(spec.key), changes=changes)


@flows.post("/flows/{flow}/check", needs=Scope.READ, repeats="harmless", by_flow=True)
async def check_flow(call: Call, flow: FlowKey) -> FlowHealth:
    """Look whether a flow could be asked, without asking it."""
    return await call.flywheel.flows.check(call.one_flow(flow) or flow)


class Trial(Body, frozen=True, kw_only=True):
    """What the flow is asked."""

    question: Question


@flows.post("/flows/{flow}/test", needs=Scope.ADMIN)
async def try_flow(call: Call, flow: FlowKey, body: Trial) -> Answer:
    """Ask one flow a question, past the memory: nothing is looked up and nothing is kept."""
    return await call.flywheel.flows.test(flow, body.question)


class FlowFields(Body, frozen=True, kw_only=True):
    """What can be said of a flow here; null takes a field away, `config` is laid over what there is, by name."""

    name: _Text | msgspec.UnsetType | None = msgspec.UNSET
    description: _Text | msgspec.UnsetType | None = msgspec.UNSET
    purpose: _Text | msgspec.UnsetType | None = msgspec.UNSET
    type: FlowType | msgspec.UnsetType | None = msgspec.UNSET
    sharing: Sharing | msgspec.UnsetType | None = msgspec.UNSET
    active: bool | msgspec.UnsetType | None = msgspec.UNSET
    routable: bool | msgspec.UnsetType | None = msgspec.UNSET
    acts: bool | msgspec.UnsetType | None = msgspec.UNSET
    intent_keywords: Annotated[list[str], Meta(max_length=200)] | msgspec.UnsetType | None = msgspec.UNSET
    ttl_seconds: _Seconds | msgspec.UnsetType | None = msgspec.UNSET
    sliding: bool | msgspec.UnsetType | None = msgspec.UNSET
    max_concurrency: Annotated[int, Meta(ge=1, le=100000)] | msgspec.UnsetType | None = msgspec.UNSET
    calls_per_minute: Annotated[int, Meta(ge=1, le=1000000)] | msgspec.UnsetType | None = msgspec.UNSET
    price_per_call: _Price | msgspec.UnsetType | None = msgspec.UNSET
    price_per_1000_tokens_in: _Price | msgspec.UnsetType | None = msgspec.UNSET
    price_per_1000_tokens_out: _Price | msgspec.UnsetType | None = msgspec.UNSET
    warm: _Count | msgspec.UnsetType | None = msgspec.UNSET
    config: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET

    def said(self) -> dict[str, Any]:
        """The fields that were given."""
        given = {name: getattr(self, name) for name in FlowFields.__struct_fields__}
        return {name: value for name, value in given.items() if value is not msgspec.UNSET}


class NewFlow(FlowFields, frozen=True, kw_only=True):
    """A flow to add. `base_url` is on the service's own machine, or on one that a flow is on already."""

    key: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    id: Annotated[
        str, Meta(min_length=1, max_length=256, description="Its id in its service; openai: the model's name.")
    ]
    kind: Literal["flowise", "langflow", "openai"] = "flowise"
    base_url: Annotated[str, Meta(max_length=2000)] = ""


class FlowChanged(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit did: the fields that differ, as the registry writes them, and the flow as it is now."""

    action: str
    flow: FlowView
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}


@flows.post("/flows", needs=Scope.ADMIN, status=201)
async def add_flow(call: Call, body: NewFlow) -> FlowChanged:
    """Add a flow to the registry; it can be asked at once.

    For administrators of the tenant that the service was started for. Kinds that run code or read folders, and API
    keys, are set up on the service's machine: `afw flow add`.
    """
    call.require_operator()
    if body.base_url:
        admit_known_address(body.base_url, call.flywheel.flows.list(inactive=True))
    said = body.said() | {"id": body.id, "kind": body.kind, "base_url": body.base_url or None}
    await call.flywheel.audit.record("flow.add", body.key, by=call.caller.actor, kind=body.kind)
    change = await asyncio.to_thread(partial(call.flywheel.registry.add, body.key, **_fields(said)))
    return await _changed(call, change.action, change.key, {}, dict(change.after))


@flows.patch("/flows/{flow}", needs=Scope.ADMIN)
async def edit_flow(call: Call, flow: FlowKey, body: FlowFields) -> FlowChanged:
    """Change fields of a flow; where this changes what it answers with, its old answers are not served as fresh.

    For administrators of the tenant that the service was started for.
    """
    call.require_operator()
    spec = call.flywheel.flows.show(flow)
    said = body.said()
    if not said:
        raise InputError("say what is to be changed")
    if config := said.get("config"):
        merged = {name: value for name, value in {**spec.config, **config}.items() if value is not None}
        said["config"] = merged or None
    await call.flywheel.audit.record("flow.edit", spec.key, by=call.caller.actor, fields=" ".join(sorted(said)))
    change = await asyncio.to_thread(partial(call.flywheel.registry.edit, spec.key, **_fields(said)))
    return await _changed(call, change.action, change.key, dict(change.before), dict(change.after))


@flows.delete("/flows/{flow}", needs=Scope.ADMIN)
async def delete_flow(call: Call, flow: FlowKey, query: Removal) -> Receipt:
    """Remove a flow and its stored answers; conversations stay.

    For administrators of the tenant that the service was started for.
    """
    call.require_operator()
    key = call.flywheel.flows.show(flow).key
    if not query.dry_run:
        await call.flywheel.audit.record("flow.remove", key, by=call.caller.actor, why=query.why)
    return (await remove_flow(call.flywheel, key, dry_run=query.dry_run))[0]


def _fields(said: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as the registry writes them."""
    return {name: getattr(value, "value", value) for name, value in said.items()}


async def _changed(call: Call, action: str, key: str, before: dict[str, Any], after: dict[str, Any]) -> FlowChanged:
    lifetimes, _ = await _lifetimes(call)
    view = _view(call, call.flywheel.flows.show(key), lifetimes.get(key))
    return FlowChanged(action=action, flow=view, before=_shown(before), after=_shown(after))


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as the registry writes them, without a secret."""
    shown: dict[str, Any] = msgspec.to_builtins(shown_config(fields), enc_hook=str)
    return shown


async def _lifetimes(call: Call) -> tuple[dict[str, float], str]:
    """The lifetimes in force by flow, and why they are not known."""
    try:
        rows = await call.flywheel.lifetimes.show()
    except StoreError:
        return {}, "What the team's Redis knows is missing: it does not answer."
    return {row.name: row.ttl_seconds for row in rows if row.kind == "flow"}, ""


def _view(call: Call, spec: FlowSpec, ttl_seconds: float | None) -> FlowView:
    names = [name for name in FlowView.__struct_fields__ if name != "ttl_seconds"]
    operator = call.caller.may(Scope.ADMIN) and call.caller.tenant == call.service.settings.text("tenant")
    hidden = () if operator else ("options", "api_key_env", "origin")
    shown = {name: getattr(spec, name) for name in names if name not in hidden}
    return FlowView(**shown, ttl_seconds=ttl_seconds)

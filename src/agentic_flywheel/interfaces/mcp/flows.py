"""The tools about flows: `flowise_list_flows`, `flowise_configure`, `flowise_add_flow`, `flowise_browse`.

Invariant: an edit goes through the registry, so it is in force at once in every process and changes the flow's
fingerprint: answers of the old configuration are not served again. What would let a caller who was led astray run
code, read folders or send an API key of this machine elsewhere (kinds `python` and `documents`, `api_key_env`, the
address of a machine that no flow is on yet) is not offered here; people do that with `afw flow add`.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

import anyio
import msgspec
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.durations import show_duration
from agentic_flywheel.errors import InputError, StoreError, UnknownSession
from agentic_flywheel.flows.known_addresses import admit_known_address
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.mcp.arguments import FlowConfig, SessionId, laid_over
from agentic_flywheel.interfaces.mcp.results import (
    AddFlowResult,
    BrowseResult,
    ConfigureResult,
    FlowListResult,
    FlowResult,
    shown_settings,
)
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.model import FlowType, Session

_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_EDITS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


def add_flow_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    @server.tool(title="List the flows", annotations=_READS)
    async def flowise_list_flows(
        include_inactive: Annotated[bool, Field(description="Also those that cannot be asked now.")] = False,
    ) -> Annotated[CallToolResult, FlowListResult]:
        """List the flows that can be asked: key, what each knows, its type, and how long its answers stay good.

        Use it to choose a flow_override, or to explain what can be asked. Do not use it before every question:
        questions are routed by themselves.
        """
        result = await flow_list(flywheel, inactive=include_inactive, known=server.caller_flows())
        lines = [_flow_line(flow) for flow in result.flows] or ["No flow is active. Add one with flowise_add_flow."]
        return answered(result, "\n".join(lines), *(f"Note: {warning}" for warning in result.warnings))

    @server.tool(title="Configure a flow", annotations=_EDITS)
    async def flowise_configure(
        ctx: Context[Any, Any],
        flow_id: Annotated[str, Field(description="The flow: its key, or its id in its own service.")],
        config: Annotated[FlowConfig, Field(description="The fields to change; null removes one.")],
        session_id: SessionId = None,
    ) -> Annotated[CallToolResult, ConfigureResult]:
        """Change what a flow is asked with: for one conversation (with session_id), or for everybody (without).

        Use it when answers should be shorter, stricter or in another tone. With session_id, the fields are laid over
        the configuration of whatever flow answers that conversation, days later too, and answers are shared only
        where the configuration is the same. Without, the flow registry is edited and answers of the old configuration
        are no longer served. Do not use it for one question's wording, nor to add a flow (flowise_add_flow).
        """
        spec = flywheel.flows.show(flow_id)
        if session_id is not None:
            return await configure_session(spec, session_id, config.changes())
        wanted = laid_over(spec.config, config.changes())
        changed = wanted != dict(spec.config)
        if changed:
            await anyio.to_thread.run_sync(
                partial(flywheel.registry.edit, spec.key, config=wanted or None), abandon_on_cancel=True
            )
            await server.tools_changed(ctx)
        result = ConfigureResult(flow=spec.key, config=wanted, session_id=None, changed=changed)
        return answered(result, _configured_text(result))

    async def configure_session(spec: FlowSpec, session_id: str, changes: dict[str, Any]) -> CallToolResult:
        try:
            session = await flywheel.sessions.resume(session_id)
        except UnknownSession:  # it is begun by being configured
            session = Session(id=session_id)
        wanted = laid_over(session.config, changes)
        if changed := wanted != session.config:
            session = await flywheel.sessions.configure(session_id, wanted)
        warnings = []
        if session.flow and session.flow != spec.key:
            warnings.append(f"Session {session_id!r} is with the flow {session.flow!r}, which is asked so now.")
        result = ConfigureResult(
            flow=spec.key, config=session.config, session_id=session_id, changed=changed, warnings=warnings
        )
        return answered(result, _configured_text(result), *(f"Note: {warning}" for warning in warnings))

    @server.tool(title="Add a flow", annotations=_EDITS.model_copy(update={"idempotent_hint": False}))
    async def flowise_add_flow(
        ctx: Context[Any, Any],
        flow_id: Annotated[str, Field(min_length=1, description="Its id in its service; openai: the model's name.")],
        flow_name: Annotated[str, Field(min_length=1, max_length=200, description="Its name, for people.")],
        description: Annotated[str, Field(description="What it knows, in a sentence.")] = "",
        intent_keywords: Annotated[
            list[str] | None, Field(description="Words of the questions that belong to it.")
        ] = None,
        temperature: Annotated[float | None, Field(ge=0, le=2, description="Randomness of its model.")] = None,
        max_tokens: Annotated[int | None, Field(ge=1, description="Longest answer, in tokens.")] = None,
        flow_key: Annotated[str | None, Field(description="Its key; left out: made from flow_name.")] = None,
        kind: Annotated[
            Literal["flowise", "langflow", "openai"], Field(description="What kind of service runs it.")
        ] = "flowise",
        type: Annotated[  # noqa: A002 -- the registry's own word, and the argument's name on the wire
            FlowType, Field(description="How long its answers stay good: technical 7, creative 30, document 3 days.")
        ] = FlowType.TECHNICAL,
        base_url: Annotated[
            str | None,
            Field(
                description="Address of its service: on this machine, or one that a flow of the registry is on. "
                "Left out: the registry's own (flowise)."
            ),
        ] = None,
    ) -> Annotated[CallToolResult, AddFlowResult]:
        """Add a flow to the registry; it can be asked at once, without a restart.

        Use it when a new chatflow is to be shared with the team. Do not use it to change one that exists
        (flowise_configure). Folders of documents, Python callables and API keys are set up by a person:
        `afw flow add`.
        """
        key = flow_key or _key_for(flow_name)
        if base_url is not None:
            admit_known_address(base_url, flywheel.flows.list(inactive=True))
        longest = {"maxOutputTokens" if kind == "flowise" else "max_tokens": max_tokens}
        change = await anyio.to_thread.run_sync(
            partial(
                flywheel.registry.add,
                key,
                id=flow_id,
                kind=kind,
                name=flow_name,
                description=description or None,
                type=type,
                base_url=base_url,
                intent_keywords=intent_keywords or None,
                config=laid_over({}, {"temperature": temperature, **longest}) or None,
            ),
            abandon_on_cancel=True,
        )
        await server.tools_changed(ctx)
        flow = FlowResult.model_validate(flywheel.flows.show(key))
        result = AddFlowResult(flow=flow, registry=str(change.path))
        return answered(result, f"Added the flow {key!r} to {change.path}; ask it with flow_override={key!r}.")

    @server.tool(title="Find a flow's page", annotations=_READS)
    async def flowise_browse(
        flow_name: Annotated[str, Field(description="The flow: its key, id or name.")],
        canvas: Annotated[bool, Field(description="The page to edit it, instead of the page to chat with it.")] = False,
    ) -> Annotated[CallToolResult, BrowseResult]:
        """Give the address where a person looks at a flow; nothing is opened.

        Use it when somebody wants to see or edit a flow. Do not use it to ask the flow (flowise_query).
        """
        spec = flywheel.flows.show(flow_name)
        address = flywheel.flows.address(spec.key)
        if address and spec.kind == "flowise" and not canvas:
            address = f"{spec.base_url}/chatbot/{spec.id}"
        if not address:
            raise InputError(
                f"the flow {spec.key!r} ({spec.kind}) has no page to look at",
                suggestions=(
                    "Flows of kind flowise and langflow have pages; list them with flowise_list_flows.",
                    "Set base_url of the flow in the registry.",
                    f"Ask the flow instead: flowise_query with flow_override={spec.key!r}.",
                ),
                flow=spec.key,
                kind=spec.kind,
            )
        return answered(BrowseResult(flow=spec.key, address=address, canvas=canvas), address)


async def flow_list(flywheel: Flywheel, *, inactive: bool, known: frozenset[str] | None = None) -> FlowListResult:
    """The flows with the lifetimes in force; without Redis the flows alone, with a warning.

    With `known`, those alone.
    """
    warnings: list[str] = []
    lifetimes: dict[str, float] = {}
    try:
        lifetimes = {row.name: row.ttl_seconds for row in await flywheel.lifetimes.show() if row.kind == "flow"}
    except StoreError as error:
        warnings.append(f"Lifetimes are not known at the moment: {error.message}")
    snapshot = flywheel.registry.current()
    if known is not None:
        snapshot = msgspec.structs.replace(snapshot.only(known), notes=())
    if flywheel.registry.problem is not None:
        warnings.append(f"The last good registry is in force: {flywheel.registry.problem.message}")
    specs = [spec for spec in flywheel.flows.list(inactive=inactive) if spec.key in snapshot.flows]
    return FlowListResult(
        flows=[_flow(spec, lifetimes.get(spec.key)) for spec in specs],
        default_flow=snapshot.default.key if snapshot.default else None,
        registry=str(snapshot.path),
        warnings=[*snapshot.notes, *warnings],
    )


def _flow(spec: FlowSpec, ttl_seconds: float | None) -> FlowResult:
    return FlowResult.model_validate(spec).model_copy(update={"ttl_seconds": ttl_seconds})


def _flow_line(flow: FlowResult) -> str:
    life = (
        f", answers stay good for {show_duration(timedelta(seconds=flow.ttl_seconds))}"
        if flow.ttl_seconds is not None
        else ""
    )
    what = flow.description or flow.purpose or flow.name or "no description"
    return f"{flow.key} ({flow.type.value}, {flow.kind}{'' if flow.active else ', inactive'}{life}): {what}"


def _configured_text(result: ConfigureResult) -> str:
    settings = shown_settings(result.config) or "no configuration of its own"
    if result.session_id is not None:
        text = f"Session {result.session_id} asks its flow with {settings}."
    else:
        text = f"Everybody asks {result.flow} with {settings}."
    return text if result.changed else f"{text} That was so already."


def _key_for(name: str) -> str:
    """A flow's key made from its name: ASCII letters, digits and hyphens.

    >>> _key_for("Équipe: Support 2")
    'equipe-support-2'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().casefold()
    key = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not key:
        raise InputError(
            f"no key can be made from the name {name!r}",
            suggestions=(
                "Give flow_key: letters, digits and hyphens read best.",
                "Use a name with some letters of the Latin alphabet.",
                "Look at existing keys with flowise_list_flows.",
            ),
            flow_name=name,
        )
    return key

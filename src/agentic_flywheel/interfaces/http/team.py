"""The tools of `afw mcp` over streamable HTTP, for callers of every tenant.

Invariant: a request is served by itself (no session of the protocol is kept, so any worker can answer it), with the
flywheel of its caller's tenant, for the caller's user where it speaks for one. What a caller may not use is neither
listed nor run, and another user's conversation is as unknown to it as one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, InputRequiredResult, Resource, Tool
from pydantic import AnyUrl

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlywheelError, NotAllowed
from agentic_flywheel.interfaces.http.call import Call, call_of
from agentic_flywheel.interfaces.http.problems import as_told
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.interfaces.mcp.access import BY_FLOW, RESOURCES_BY_FLOW, Need, need_of_resource, need_of_tool
from agentic_flywheel.interfaces.mcp.server import build_server
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, failed, structure_of

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as Connection

    from agentic_flywheel.flywheel import Flywheel

#: The call that is being served; every request is served in tasks of its own, which inherit it.
_CALL: ContextVar[Call] = ContextVar("afw.mcp.call")


class _Present:
    """Stands for the flywheel of whoever calls just now."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_CALL.get().flywheel, name)


class TeamServer(FlywheelServer):
    """The MCP server, with a look at who calls before anything is done."""

    def caller_user(self) -> str | None:
        """The user that the caller speaks for."""
        return _CALL.get().caller.user

    def caller_flows(self) -> frozenset[str] | None:
        """The only flows that there are for the caller; None: all."""
        return _CALL.get().flows

    async def list_tools(self) -> list[Tool]:
        """The tools that the caller may use."""
        call = _CALL.get()
        return [
            tool
            for tool in await super().list_tools()
            if any(_may(call, need_of_tool(tool.name, session=named)) for named in (True, False))
            and _of_flows(call, tool.name, BY_FLOW)
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool, if the caller may."""
        try:
            arguments = await self._admitted(name, arguments)
        except FlywheelError as error:
            return failed(as_told(error, _CALL.get()))
        return await super().call_tool(name, arguments, context)

    async def list_resources(self) -> list[Resource]:
        """The resources that the caller may read."""
        call = _CALL.get()
        return [
            one
            for one in await super().list_resources()
            if _may(call, need_of_resource(str(one.uri))) and _of_flows(call, str(one.uri), RESOURCES_BY_FLOW)
        ]

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource, if the caller may."""
        call = _CALL.get()
        known = {str(one.uri) for one in await super().list_resources()}
        if str(uri) in known:
            try:
                _require(call, need_of_resource(str(uri)))
                _require_flows(call, str(uri), RESOURCES_BY_FLOW)
            except FlywheelError as error:
                raise MCPError(INVALID_PARAMS, error.message, structure_of(error)) from error
        return await super().read_resource(uri, context)

    def _known(self, failure: ToolError, tool: str) -> FlywheelError:
        return as_told(super()._known(failure, tool), _CALL.get())

    async def _admitted(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as the caller's own. Raises `NotAllowed`, `UnknownSession`."""
        call = _CALL.get()
        session = arguments.get("session_id")
        _require(call, need_of_tool(name, session=session is not None))
        _require_flows(call, name, BY_FLOW)
        if isinstance(session, str):
            await admit_session(call, session)
        if call.flows is not None and name == "flowise_search_history":
            flow = arguments.get("flow")
            if flow is None or isinstance(flow, str):  # anything else is for the schema to refuse
                arguments = arguments | {"flow": call.one_flow(flow)}
        tool = next((tool for tool in self._tool_manager.list_tools() if tool.name == name), None)
        if tool is not None and "user_id" in tool.parameters.get("properties", {}):
            said = arguments.get("user_id")
            if said is None or isinstance(said, str):  # anything else is for the schema to refuse
                return arguments | {"user_id": call.speaks_for(said)}
        return arguments


class Endpoint:
    """The ASGI application under `/mcp`; `manager.run()` is open while it serves."""

    def __init__(self) -> None:
        server = build_server(cast("Flywheel", _Present()), TeamServer)
        self.manager = StreamableHTTPSessionManager(
            server.lowlevel,
            stateless=True,
            # The gate has looked at hosts, origins and sizes already, by the service's own settings.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=2**31,
        )

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        _CALL.set(call_of(scope))
        await self.manager.handle_request(scope, receive, send)


def _of_flows(call: Call, name: str, keep: frozenset[str]) -> bool:
    """Whether a caller may use what is called so, as far as flows go that it is limited to."""
    return call.flows is None or name in keep


def _require_flows(call: Call, name: str, keep: frozenset[str]) -> None:
    if not _of_flows(call, name, keep):
        raise NotAllowed(
            f"{call.caller.name!r} is limited to {', '.join(sorted(call.flows or ()))}: {name} is about all flows",
            key=call.caller.name,
        )


def _require(call: Call, need: Scope | Need) -> None:
    if need is Need.OPERATOR:
        call.require_operator()
    else:
        call.require(Scope(need))


def _may(call: Call, need: Scope | Need) -> bool:
    try:
        _require(call, need)
    except FlywheelError:
        return False
    return True

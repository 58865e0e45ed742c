"""The server itself: the official SDK's `MCPServer`, with our errors, our schemas and a shutdown that can be trusted.

Invariant: no exception of a tool reaches the client as bare text. Every failure is an `is_error` result (or, for a
resource, a protocol error) that carries `FlywheelError.as_dict()`; what nobody expected is logged with the id that
the client is given. Standard output carries the protocol alone.
"""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Iterable
from typing import Any, cast

import anyio
import msgspec
from mcp.server import MCPServer
from mcp.server.lowlevel import NotificationOptions
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError, UnexpectedToolError
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, CallToolResult, InputRequiredResult, TextContent, Tool
from pydantic import AnyUrl, ValidationError

from agentic_flywheel.errors import FlywheelError, InputError
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.mcp.arguments import described_input, described_output
from agentic_flywheel.interfaces.mcp.opening import Opening
from agentic_flywheel.interfaces.mcp.pipes import Output, Repeated, lines, take
from agentic_flywheel.interfaces.mcp.results import Result

logger = logging.getLogger(__name__)


class FlywheelServer(MCPServer[Any]):
    """An MCP server over one open `Flywheel`, which the caller closes."""

    def __init__(self, flywheel: Flywheel, **arguments: Any) -> None:
        super().__init__("agentic-flywheel", log_level="WARNING", **arguments)
        self.flywheel = flywheel

    @property
    def lowlevel(self) -> Any:
        """The SDK's server underneath, for a transport of its own."""
        return self._lowlevel_server

    def caller_user(self) -> str | None:
        """The user that all calls are made for; None where each call says so itself."""
        return None

    def caller_flows(self) -> frozenset[str] | None:
        """The only flows that there are for the caller; None: all."""
        return None

    async def list_tools(self) -> list[Tool]:
        """The tools, their schemas naming the flows there are now."""
        known = self.caller_flows()
        flows = [spec for spec in self.flywheel.flows.list() if known is None or spec.key in known]
        longest = int(self.flywheel.settings["question.max_characters"])
        return [
            tool.model_copy(
                update={
                    "description": inspect.cleandoc(tool.description or ""),
                    "input_schema": described_input(tool.name, tool.input_schema, flows, longest),
                    "output_schema": described_output(tool.output_schema) if tool.output_schema else None,
                }
            )
            for tool in await super().list_tools()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; every failure comes back as a result."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as failure:
            return failed(self._known(failure, name))

    def _known(self, failure: ToolError, tool: str) -> FlywheelError:
        """The failure of a tool as one of our errors; what is a defect of ours is logged under its id."""
        cause = failure.__cause__
        if isinstance(cause, FlywheelError):
            return cause
        if isinstance(failure, UnexpectedToolError):
            return _unexpected(f"the tool {tool!r} failed unexpectedly", failure, tool=tool)
        if isinstance(cause, ValidationError):
            return _bad_arguments(cause, tool)
        tools = [known.name for known in self._tool_manager.list_tools()]
        nearest = difflib.get_close_matches(tool, tools, n=1)
        return InputError(
            f"no tool {tool!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else ""),
            suggestions=("List the tools again: tools/list.", f"The tools are {', '.join(sorted(tools))}."),
            tool=tool,
        )

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource; a failure is a protocol error with our structure as its data."""
        try:
            return await super().read_resource(uri, context)
        except ResourceNotFoundError as failure:
            known = ", ".join(str(resource.uri) for resource in await self.list_resources())
            error: FlywheelError = InputError(
                f"no resource {str(uri)!r}",
                suggestions=("List the resources: resources/list.", f"The resources are {known}."),
                uri=str(uri),
            )
            raise MCPError(INVALID_PARAMS, error.message, structure_of(error)) from failure
        except ResourceError as failure:
            cause = failure.__cause__
            if isinstance(cause, FlywheelError):
                error = cause
            else:
                error = _unexpected(f"the resource {str(uri)!r} failed unexpectedly", failure, uri=str(uri))
            raise MCPError(INTERNAL_ERROR, error.message, structure_of(error)) from failure

    async def tools_changed(self, context: Context[Any, Any]) -> None:
        """Tell the client that the tools' schemas name other flows now, in the way of its protocol era."""
        await context.notify_tools_changed()
        if context.request_context.protocol_version < "2026":
            await context.session.send_tool_list_changed()

    async def serve(self, opening: Opening) -> None:
        """Speak the protocol over standard input and output until the input ends or the task is cancelled.

        `opening` is what was read of the input before, and answered.
        """
        incoming, outgoing = take()
        received, output = lines(incoming, opening.received), Output(outgoing)
        if opening.answer is not None:
            output = repeated = Repeated(outgoing, opening.answer)
            received = repeated.after_first(received)
        # The transport iterates over the one and writes to the other; that is all it needs of files.
        stdin, stdout = cast("anyio.AsyncFile[str]", received), cast("anyio.AsyncFile[str]", output)
        async with stdio_server(stdin, stdout) as (reading, writing):
            await self.speak(reading, writing)

    async def speak(self, reading: Any, writing: Any) -> None:
        """Speak the protocol over two streams of the SDK's until `reading` ends."""
        server = self._lowlevel_server
        options = server.create_initialization_options(NotificationOptions(tools_changed=True))
        await server.run(reading, writing, options)


def answered(result: Result, *paragraphs: str) -> CallToolResult:
    """A tool's result: `paragraphs` for people and models to read, the structure beside them."""
    return CallToolResult(
        content=[TextContent(text=text) for text in paragraphs if text],
        structured_content=result.model_dump(mode="json", by_alias=True),
    )


def failed(error: FlywheelError, **more: Any) -> CallToolResult:
    """A tool's failure: what happened and what to do, in words and as a structure (with `more` fields)."""
    retry = (
        f"Trying again makes sense after {error.retry_after_seconds:g} s."
        if error.retry_after_seconds
        else "Trying again makes sense only after something was changed."
    )
    structure = structure_of(error)
    advice = "\n".join(f"- {suggestion}" for suggestion in structure["suggestions"])
    text = f"{error.message}\n\nWhat to do:\n{advice}\n\n{retry} ({error.code}, error id {error.error_id})"
    return CallToolResult(content=[TextContent(text=text)], structured_content={**more, **structure}, is_error=True)


def structure_of(error: FlywheelError) -> dict[str, Any]:
    """`error.as_dict()` as plain JSON; advice for any failure of a command line goes where there is better."""
    structure: dict[str, Any] = msgspec.to_builtins(error.as_dict(), enc_hook=str)
    own = [advice for advice in structure["suggestions"] if advice not in FlywheelError.general_suggestions]
    return structure | {"suggestions": own} if len(own) >= 3 else structure


def _bad_arguments(cause: ValidationError, tool: str) -> InputError:
    """Arguments that do not fit the tool's schema, without repeating the values: they may be private."""
    problems = {".".join(str(part) for part in problem["loc"]): problem["msg"] for problem in cause.errors()}
    named = "; ".join(f"{argument}: {message}" for argument, message in problems.items())
    return InputError(
        f"the arguments of {tool!r} do not fit its schema: {named}",
        suggestions=(
            *(f"Correct the argument {argument!r}." for argument in problems),
            f"Compare the call with the input schema of {tool!r} (tools/list).",
            "Leave out optional arguments that are not needed.",
        ),
        tool=tool,
        arguments=problems,
    )


def _unexpected(message: str, failure: Exception, **details: Any) -> FlywheelError:
    error = FlywheelError(
        message,
        suggestions=(
            "Look for the error id in the server's log (standard error of `afw mcp`).",
            "Run `afw doctor` to see what is fine and what is not.",
            "Report it with the log lines if it happens again.",
        ),
        **details,
    )
    logger.error("%s (error id %s)", message, error.error_id, exc_info=failure)
    return error

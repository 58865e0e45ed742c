"""The official MCP client, talking to `afw mcp` in a process of its own over its real standard input and output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client

from afw_command import Afw

#: The era with a handshake, and the one without.
ERAS = ("legacy", "auto")
TOOLS = {
    "flowise_query",
    "flowise_domain_query",
    "flowise_list_flows",
    "flowise_configure",
    "flowise_add_flow",
    "flowise_browse",
    "flowise_session_info",
    "flowise_session_history",
    "flowise_search_history",
    "flowise_popular_questions",
    "flowise_faq",
    "flowise_cache_stats",
    "flowise_usage_analytics",
    "flowise_flow_health",
    "flowise_clear_cache",
    "flowise_set_ttl",
    "flowise_warm_cache",
    "flowise_report_answer",
    "flowise_trace_view",
    "flowise_trace_search",
    "flowise_quality_score",
    "coaia_tash",
    "coaia_fetch",
}
RESOURCES = {
    "flowise://flows",
    "flowise://sessions",
    "flowise://faq",
    "flowise://config-schema",
    "flowise://cache-metrics",
    "flowise://flow-health",
    "flowise://traces",
}


def parameters(afw: Afw, **environ: str) -> StdioServerParameters:
    """How a client starts the server."""
    command, *arguments = afw.command("mcp")
    return StdioServerParameters(command=command, args=arguments, env={**afw.environ, **environ}, cwd=afw.work)


@asynccontextmanager
async def connected(afw: Afw, mode: str = "auto", **environ: str) -> AsyncIterator[Client]:
    """A client of a new server process, which has ended when the block has."""
    with (afw.home / "mcp.log").open("a") as log:
        async with Client(stdio_client(parameters(afw, **environ), errlog=log), mode=mode) as client:
            yield client


async def called(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured content of a call that went well and said something readable beside it."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert all(block.type == "text" and block.text for block in result.content), result
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured content of a call that failed; the text beside it carries the error and all advice."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    error = result.structured_content
    assert error is not None
    assert {"error", "error_type", "details", "suggestions", "retry_after_seconds", "error_id"} <= set(error)
    assert len(error["suggestions"]) >= 3
    text = "".join(block.text for block in result.content if block.type == "text")
    assert all(part in text for part in (error["error"], error["error_id"], *error["suggestions"]))
    return error


async def resource(client: Client, uri: str) -> Any:
    """A resource's JSON."""
    (content,) = (await client.read_resource(uri)).contents
    assert content.mime_type == "application/json"
    return json.loads(content.text)


class RawServer:
    """A server process spoken to line by line, for what a well-behaved client would not do."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, method: str, params: dict[str, Any] | None = None, request: int | None = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if request is not None:
            message["id"] = request
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def greet(self) -> None:
        client = {"name": "raw", "version": "1"}
        self.send("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}, 1)
        assert self.receive()["result"]["serverInfo"]["name"] == "agentic-flywheel"
        self.send("notifications/initialized")

    def call(self, request: int, tool: str, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments, "_meta": {"progressToken": request}}, request)

    def ended(self) -> int:
        """The exit code; the process must end by itself."""
        return self.process.wait(30)


@contextmanager
def raw_server(afw: Afw) -> Iterator[RawServer]:
    """A server process with pipes of ours; killed only if the test fails to end it."""
    with (
        (afw.home / "mcp.log").open("ab") as log,
        afw.start("mcp", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            yield RawServer(process)
        finally:
            if process.poll() is None:
                process.kill()

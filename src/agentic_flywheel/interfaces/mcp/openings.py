"""What the server proper says to an opening request, written down for `opening` to say it sooner.

Run by `make openings` whenever the SDK of the lock file, the version of this package or what the server says of itself
has changed; a test fails until it was.
"""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agentic_flywheel.interfaces.mcp.opening import OPENINGS
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer

#: Members of an answer that says what is served.
_CLIENT = {"name": "client", "version": "1"}


async def openings(server: FlywheelServer) -> dict[str, Any]:
    """The server's answers by method and version of the protocol, and the version of the SDK that they are of."""
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

    return {
        "sdk": version("mcp"),
        "initialize": {
            named: await _answer(
                server, "initialize", {"protocolVersion": named, "capabilities": {}, "clientInfo": _CLIENT}
            )
            for named in HANDSHAKE_PROTOCOL_VERSIONS
        },
        "server/discover": {
            named: await _answer(
                server,
                "server/discover",
                {
                    "_meta": {
                        "io.modelcontextprotocol/protocolVersion": named,
                        "io.modelcontextprotocol/clientCapabilities": {},
                        "io.modelcontextprotocol/clientInfo": _CLIENT,
                    }
                },
            )
            for named in MODERN_PROTOCOL_VERSIONS
        },
    }


async def _answer(server: FlywheelServer, method: str, params: dict[str, Any]) -> Any:
    """The result of one request, the first and last of a connection."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import JSONRPCRequest

    to_server, reading = anyio.create_memory_object_stream[Any](1)
    writing, from_server = anyio.create_memory_object_stream[Any](1)
    async with anyio.create_task_group() as tasks, to_server, from_server:
        tasks.start_soon(server.speak, reading, writing)
        await to_server.send(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method=method, params=params)))
        answer = (await from_server.receive()).message
        to_server.close()
    return json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True))["result"]


async def _write() -> None:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.mcp.server import build_server
    from agentic_flywheel.settings import load_settings

    async with Flywheel.open(settings=load_settings(environ={})) as flywheel:
        told = await openings(build_server(flywheel))
    Path(__file__).with_name(OPENINGS).write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(_write())

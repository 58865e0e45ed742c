"""The resources: what clients may attach without calling a tool.

Invariant: JSON, computed at each read and never cached here or by the client, so it is as fresh as Redis and the
registry are.
"""

from __future__ import annotations

import msgspec
from pydantic import BaseModel

from agentic_flywheel.interfaces.mcp.arguments import FlowConfig
from agentic_flywheel.interfaces.mcp.caching import cache_stats
from agentic_flywheel.interfaces.mcp.figures import FlowHealthResult
from agentic_flywheel.interfaces.mcp.flows import flow_list
from agentic_flywheel.interfaces.mcp.results import SessionResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer
from agentic_flywheel.model import FlowType, Sharing

_SESSIONS_SHOWN = 50
_JSON = "application/json"


class SessionList(BaseModel):
    """The newest conversations; `more` says that there are older ones."""

    sessions: list[SessionResult]
    more: bool
    warnings: list[str] = []


def add_resources(server: FlywheelServer) -> None:
    """Register the resources on `server`."""
    flywheel = server.flywheel

    @server.resource("flowise://flows", title="Flows", mime_type=_JSON)
    async def flows() -> str:
        """The flows of the registry with their types, keywords and lifetimes."""
        return (await flow_list(flywheel, inactive=True, known=server.caller_flows())).model_dump_json(indent=2)

    @server.resource("flowise://sessions", title="Conversations", mime_type=_JSON)
    async def sessions() -> str:
        """The newest conversations: id, title, owner, flow, number of turns, last activity."""
        page = await flywheel.sessions.list(user=server.caller_user(), limit=_SESSIONS_SHOWN)
        shown = [SessionResult.of(session) for session in page.sessions]
        listed = SessionList(sessions=shown, more=bool(page.cursor), warnings=list(page.warnings))
        return listed.model_dump_json(indent=2)

    @server.resource("flowise://config-schema", title="What can be configured", mime_type=_JSON)
    async def config_schema() -> str:
        """JSON schema of a flow's configuration, the kinds of values there are, and the limits in force."""
        settings = flywheel.settings
        schema = {
            "config": FlowConfig.model_json_schema(),
            "flow_types": {kind.value: settings[f"ttl.{kind.value}_seconds"] for kind in FlowType},
            "sharing": [sharing.value for sharing in Sharing],
            "limits": {
                "question_characters": settings["question.max_characters"],
                "session_turns": settings["session.turns"],
                "session_context_tokens": settings["session.context_tokens"],
                "flow_timeout_seconds": settings["flow.timeout_seconds"],
            },
        }
        return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()

    @server.resource("flowise://flow-health", title="How the flows do", mime_type=_JSON)
    async def flow_health() -> str:
        """Whether each flow can be reached now, the times and errors of its calls of the last day, reports."""
        return FlowHealthResult.model_validate(await flywheel.usage.health()).model_dump_json(indent=2)

    @server.resource("flowise://cache-metrics", title="What the memory saves", mime_type=_JSON)
    async def cache_metrics() -> str:
        """Hits, misses and their reasons, times and stored answers of the last 7 days, per flow and in all."""
        _, result = await cache_stats(flywheel)
        return result.model_dump_json(indent=2)

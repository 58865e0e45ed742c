"""The tools that look at conversations: `flowise_session_info` and `flowise_session_history`.

Invariant: they only read; a session is named by its id, never by the connection.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.interfaces.mcp.arguments import KnownSessionId, SessionId, UserId
from agentic_flywheel.interfaces.mcp.results import (
    ChangeResult,
    LinkResult,
    SessionHistoryResult,
    SessionResult,
    TurnResult,
    shown_settings,
)
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.model import Turn

_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)


def add_session_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    @server.tool(title="Look at a conversation", annotations=_READS)
    async def flowise_session_info(
        session_id: SessionId = None, user_id: UserId = None
    ) -> Annotated[CallToolResult, SessionResult]:
        """Tell what is known of a conversation: owner, title, tags, flow, number of turns, its own configuration.

        Use it to find the conversation to go on with: without session_id it is the newest one (of user_id, if
        given). Do not use it to read the turns (flowise_session_history).
        """
        session = await flywheel.sessions.resume(session_id, user=user_id)
        title = f" {session.title!r}" if session.title else ""
        return answered(
            SessionResult.of(session),
            f"Session {session.id}{title}: {session.turns} turns, last active {_moment(session.last_active_at)}, "
            f"flow {session.flow or 'not chosen yet'}"
            + (f", owner {session.owner}" if session.owner else "")
            + (f", tags {', '.join(session.tags)}" if session.tags else "")
            + (f", linked with {', '.join(session.links)}" if session.links else "")
            + (f", asked with {shown_settings(session.config)}" if session.config else "")
            + ".",
        )

    @server.tool(title="Read a conversation", annotations=_READS)
    async def flowise_session_history(
        session_id: KnownSessionId,
        limit: Annotated[int, Field(ge=1, le=1000, description="How many of the newest turns.")] = 5,
    ) -> Annotated[CallToolResult, SessionHistoryResult]:
        """Read the newest turns of a conversation: questions, answers, and where each answer came from.

        Use it to catch up before going on. Do not use it to go on: flowise_query with the same session_id takes
        earlier turns into account by itself.
        """
        thread = await flywheel.sessions.show(session_id, limit=limit)
        result = SessionHistoryResult(
            session=SessionResult.of(thread.session),
            turns=[TurnResult.of(turn) for turn in thread.turns],
            changes=[ChangeResult.model_validate(change) for change in thread.changes],
            links=[LinkResult.model_validate(link) for link in thread.links],
            total_turns=thread.session.turns,
            warnings=list(thread.warnings),
        )
        read = [_turn_text(turn) for turn in thread.turns]
        heading = f"Session {thread.session.id}: the newest {len(read)} of {thread.session.turns} turns, oldest first."
        return answered(result, heading, *read, *(f"Note: {warning}" for warning in thread.warnings))


def _turn_text(turn: Turn) -> str:
    approved = f", FAQ {turn.faq}" if turn.faq else ""
    origin = f"{_moment(turn.at)}, {turn.flow}, {turn.outcome.value}{approved}, turn {turn.id}"
    return f"[{origin}]\nQ: {turn.question}\nA: {turn.answer}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")

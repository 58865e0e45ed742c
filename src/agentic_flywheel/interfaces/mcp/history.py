"""The tool that searches what was asked and answered: `flowise_search_history`.

Invariant: it only reads and translates; who may see what is decided by `Flywheel.history` alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.amounts import counted
from agentic_flywheel.findings import Found
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter, Since, Until, UserId
from agentic_flywheel.interfaces.mcp.results import Result
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered


class FoundResult(Result):
    """One turn that was found."""

    turn_id: Annotated[str, Field(description="The turn; flowise_report_answer takes it.")]
    session_id: Annotated[str, Field(description="Its conversation; flowise_query goes on with it.")]
    at: Annotated[float, Field(description="When it was asked, in seconds since 1970 (UTC).")]
    question: str
    excerpt: Annotated[str, Field(description="The part of the answer's beginning where the words stand.")]
    question_marks: Annotated[
        list[tuple[int, int]], Field(description="Where the words stand in the question: start and end offsets.")
    ]
    excerpt_marks: Annotated[list[tuple[int, int]], Field(description="The same for the excerpt.")]
    score: Annotated[float, Field(description="How well it fits, beside the others of this search only.")]
    flow: str
    user: str
    outcome: str
    tags: list[str]
    place: Annotated[int, Field(description="Its number in the conversation, from 0.")]


class HistoryResult(Result):
    """A page of what was found."""

    found: list[FoundResult]
    total: Annotated[int, Field(description="How many turns fit; at least so many if more_than_total.")]
    more_than_total: bool
    facets: Annotated[
        dict[str, dict[str, int]], Field(description="How many of them by flow, user, outcome and day (UTC).")
    ]
    cursor: Annotated[str, Field(description="Continues the list; empty at its end.")]
    mode: Annotated[str, Field(description="How it compared in fact: words alone where there is no embedder.")]
    index: str
    behind: Annotated[int, Field(description="Events that the index has not taken in yet.")]
    elapsed_ms: float
    warnings: list[str]


def add_history_tools(server: FlywheelServer) -> None:
    """Register the tool on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Search what was asked before",
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    async def flowise_search_history(
        query: Annotated[
            str,
            Field(
                description='Words, "phrases", -not, and filters in the text: flow: user: session: outcome: tag: '
                "since: until: (since:2d, until:2026-11-01). Without words, what the filters leave, newest first."
            ),
        ],
        mode: Annotated[
            Literal["both", "words", "meaning"], Field(description="Compare words, meaning, or both.")
        ] = "both",
        flow: FlowFilter = None,
        user_id: UserId = None,
        session_id: Annotated[
            str | None, Field(description="Only this conversation, with what it keeps for itself.")
        ] = None,
        outcome: Annotated[str | None, Field(description="Only answers that came to be so: hit, miss, ...")] = None,
        tag: Annotated[str | None, Field(description="Only conversations with this tag.")] = None,
        since: Since = None,
        until: Until = None,
        limit: Annotated[int, Field(ge=1, le=100, description="At most so many.")] = 10,
        cursor: Annotated[str, Field(description="The cursor of the page before.")] = "",
        sort: Annotated[
            Literal["relevance", "time"], Field(description="The best first, or the newest of the good ones.")
        ] = "relevance",
    ) -> Annotated[CallToolResult, HistoryResult]:
        """Search all earlier questions and answers of this team that the caller may see, in any conversation.

        Use it to find what was asked before, by whom and what came of it, or a conversation to go on with.
        Do not use it to get an answer to a question (flowise_query serves stored ones by itself), nor to read one
        conversation from end to end (flowise_session_history): what is found is excerpts, as old as they say.
        """
        page = await flywheel.history.search(
            query,
            mode=mode,
            flow=flow,
            user=user_id,
            session=session_id,
            outcome=outcome,
            tag=tag,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            sort=sort,
        )
        total = counted(page.total, "earlier turns") + (" or more" if page.more_than_total else "")
        heading = f"Found {total}, compared by {page.mode.value}; {len(page.found)} of them here."
        goes_on = f"More with cursor {page.cursor}." if page.cursor else ""
        return answered(
            HistoryResult.model_validate(page),
            heading,
            *(_found_text(found) for found in page.found),
            *(f"Note: {warning}" for warning in page.warnings),
            goes_on,
        )


def _found_text(found: Found) -> str:
    moment = datetime.fromtimestamp(found.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = ", ".join(part for part in (moment, found.flow, found.outcome, found.user) if part)
    return f"[{said}, session {found.session_id}, turn {found.turn_id}]\nQ: {found.question}\nA: {found.excerpt}"

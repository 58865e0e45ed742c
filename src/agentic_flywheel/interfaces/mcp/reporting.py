"""The tool that says what is the matter with an answer: `flowise_report_answer`.

Invariant: it translates; what a report removes, blocks and counts is decided by `Flywheel.similar` alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.interfaces.mcp.arguments import UserId
from agentic_flywheel.interfaces.mcp.asking import answer_paragraphs
from agentic_flywheel.interfaces.mcp.results import ReportResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.likeness import ReportReceipt


def add_reporting_tools(server: FlywheelServer) -> None:
    """Register the tool on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Report an answer",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=True
        ),
    )
    async def flowise_report_answer(
        turn_id: Annotated[
            str, Field(min_length=1, description="The turn_id of the answer, or `last` for that of session_id.")
        ],
        kind: Annotated[
            Literal["wrong", "outdated", "private"],
            Field(
                description="wrong: it does not answer the question. outdated: it was right once. private: it should "
                "not have been kept for others."
            ),
        ],
        note: Annotated[
            str, Field(max_length=2000, description="What is the matter, for those who look after it.")
        ] = "",
        session_id: Annotated[
            str | None, Field(description="The conversation of the answer; it is found sooner.")
        ] = None,
        user_id: UserId = None,
        fresh: Annotated[bool, Field(description="Ask the flow again at once; its answer is in the result.")] = False,
    ) -> Annotated[CallToolResult, ReportResult]:
        """Report an answer as wrong, outdated or private: it is served to nobody any more, and counts against the flow.

        Use it when the person you work for says so, or when matched_question of an answer with outcome similar asks
        for something else than the question: the two are then never taken for each other again. Do not use it because
        an answer is unwelcome, short or says that nothing is known, nor for one fresh answer (flowise_query with
        no_cache), nor to clear many (flowise_clear_cache).
        """
        receipt, answer = await flywheel.similar.report(
            turn_id, kind, note=note, session=session_id, user=user_id, fresh=fresh, among=server.caller_flows()
        )
        paragraphs = () if answer is None else answer_paragraphs(answer)
        return answered(ReportResult.of(receipt, answer), _receipt_text(receipt), *paragraphs)


def _receipt_text(receipt: ReportReceipt) -> str:
    said = receipt.report
    counts = ", ".join(f"{count} {what}" for what, count in receipt.removed.items() if count) or "nothing"
    lines = [
        f"Reported as {said.kind.value}: the answer to {said.question!r} (turn {said.turn_id}). Removed: {counts}."
    ]
    return "\n".join([*lines, *receipt.done])

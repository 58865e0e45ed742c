"""The tool that tells what is asked often, and what is asked next: `flowise_popular_questions`.

Invariant: it only reads and translates; what may be shown is decided by `Flywheel.popular` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.insight.paths import NextQuestion
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter
from agentic_flywheel.interfaces.mcp.results import Result
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered


class WordingResult(Result):
    """One way in which a question was asked."""

    text: str
    count: int


class NextQuestionResult(Result):
    """What was asked next in the same conversation, by at least two people."""

    question: str
    count: int
    share: Annotated[float, Field(description="Its part of all that was asked there, 0 to 1.")]
    askers: int


class PopularQuestionResult(Result):
    """A question in all its wordings, the commonest first."""

    cluster: Annotated[str, Field(description="Its name, the same whatever it is asked in.")]
    flow: str
    question: str
    wordings: list[WordingResult]
    asked: int
    askers: Annotated[int, Field(description="Different people, or conversations where nobody said who asks.")]
    served: Annotated[int, Field(description="How often from memory.")]
    hit_rate: Annotated[float, Field(description="0 to 1.")]
    saved_seconds: Annotated[float, Field(description="Time of the flow that was not needed.")]
    first_at: Annotated[float, Field(description="Epoch seconds, within the window.")]
    last_at: float
    entry_key: Annotated[str | None, Field(description="The key of an answer that would be served now.")]
    faq: Annotated[str, Field(description="The entry of the FAQ that answers it; empty where there is none.")] = ""
    next_questions: list[NextQuestionResult] = Field([], description="What people asked after it, commonest first.")


class PopularResult(Result):
    """The questions that were asked most over the last `days` days."""

    days: int
    questions: list[PopularQuestionResult]


def add_popular_tools(server: FlywheelServer) -> None:
    """Register the tool on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="List what is asked often",
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    async def flowise_popular_questions(
        flow: FlowFilter = None,
        days: Annotated[int, Field(ge=1, le=90, description="How many days back; today is one.")] = 30,
        limit: Annotated[int, Field(ge=1, le=100, description="At most so many.")] = 10,
    ) -> Annotated[CallToolResult, PopularResult]:
        """List the questions that this team asks most, in all their wordings, and what people asked after each.

        Use it to see what people need to know, what to document, or what to suggest next in a conversation.
        Do not use it to get an answer (flowise_query), nor to find what one person asked (flowise_search_history):
        questions that are private, about the asker's own things, or asked of flows that do not share with all are not
        in it.
        """
        questions = await flywheel.popular.list(days, flow, limit)
        following = await flywheel.popular.next_of(questions, days=days)
        result = PopularResult(
            days=days,
            questions=[
                PopularQuestionResult.model_validate(question).model_copy(
                    update={"next_questions": [NextQuestionResult.model_validate(step) for step in steps]}
                )
                for question, steps in zip(questions, following, strict=True)
            ],
        )
        told = [_told(*each) for each in zip(questions, following, strict=True)]
        heading = f"Asked most over the last {days} days:" if told else f"Nothing was counted in the last {days} days."
        return answered(result, heading, *told)


def _told(question: PopularQuestion, following: Sequence[NextQuestion]) -> str:
    askers = "1 asker" if question.askers == 1 else f"{question.askers} askers"
    how_often = f"  {question.asked} times by {askers}, {question.hit_rate:.0%} from memory, flow {question.flow}"
    lines = [question.question, how_often]
    lines += [f"  also: {wording.text} ({wording.count})" for wording in question.wordings[1:4]]
    lines += [f"  then: {step.question} ({step.count})" for step in following]
    return "\n".join(lines)

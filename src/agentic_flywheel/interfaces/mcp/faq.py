"""The tool that reads the FAQ, `flowise_faq`, and its resource.

Invariant: it only reads. What is approved is a person's word, and there is no way to give it from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.curated import FaqCandidate, FaqState, FaqView
from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.mcp.arguments import FlowFilter
from agentic_flywheel.interfaces.mcp.results import Result, SourceResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered

_RESOURCE_ENTRIES = 1000


class FaqEntryResult(Result):
    """One approved question with its answer."""

    id: str = Field(description="Pass it as faq_id to read this entry alone.")
    flow: str
    question: str
    wordings: list[str] = Field([], description="Other ways to ask it, answered likewise.")
    answer: str
    state: FaqState = Field(description="published; due: served, to be reviewed; stale: not served, its flow changed.")
    why: str = Field("", description="What there is to say of that, in a sentence.")
    owner: str = Field("", description="Who answers for it.")
    approved_by: str = ""
    approved_at: float = Field(description="Epoch seconds.")
    review_at: float | None = Field(None, description="When somebody is to look at it again; null: never.")
    sources: list[SourceResult] = Field([])

    @classmethod
    def of(cls, view: FaqView) -> Self:
        """The result for an entry that was approved."""
        said = view.entry.published
        assert said is not None, "only what was approved is shown here"
        return cls(
            id=view.id,
            flow=view.entry.flow,
            question=said.question,
            wordings=list(said.wordings),
            answer=said.answer,
            state=view.state,
            why=view.why,
            owner=said.owner,
            approved_by=said.by,
            approved_at=said.at,
            review_at=said.review_at or None,
            sources=[SourceResult.model_validate(source) for source in said.sources],
        )


class FaqCandidateResult(Result):
    """A question that asks for a place in the FAQ, since many ask it; nobody has approved an answer."""

    id: str
    flow: str
    question: str
    wordings: list[str] = Field([], description="Other ways in which it was asked.")
    alike: list[str] = Field([], description="Questions that seem to ask the same, counted with it; not confirmed.")
    near: str = Field("", description="The candidate before it, or the entry, that it may well belong to.")
    asked: int = Field(description="How often, over 30 days, those alike included.")
    askers: int
    answer: str = Field("", description="What is stored for it now; empty where nothing may be offered.")


class FaqResult(Result):
    """Entries of the FAQ, and with action candidates what asks for a place in it."""

    entries: list[FaqEntryResult] = Field([])
    candidates: list[FaqCandidateResult] = Field([])


def add_faq_tools(server: FlywheelServer) -> None:
    """Register the tool and the resource on `server`."""
    flywheel = server.flywheel

    @server.tool(
        title="Read the FAQ",
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
    async def flowise_faq(
        action: Annotated[
            Literal["list", "search", "get", "candidates"],
            Field(description="list: what is served. search: what fits query. get: one entry. candidates: see below."),
        ] = "list",
        query: Annotated[str, Field(max_length=1000, description="Words to look for (search).")] = "",
        faq_id: Annotated[
            str, Field(max_length=64, description="The entry to read (get), from an earlier result.")
        ] = "",
        flow: FlowFilter = None,
        limit: Annotated[int, Field(ge=1, le=100, description="At most so many.")] = 20,
    ) -> Annotated[CallToolResult, FaqResult]:
        """Read answers that a person of the team has approved, or (candidates) popular questions that lack one.

        Use it to see what the team stands behind, to quote it with its owner, or to tell people what waits for them.
        Do not use it to answer a question: flowise_query serves approved answers by itself (source faq). It cannot
        add, change or approve anything: that is for people, with `afw faq` on the command line.
        """
        views: Sequence[FaqView] = ()
        candidates: Sequence[FaqCandidate] = ()
        if action == "candidates":
            candidates = (await flywheel.faq.list(flow=flow, limit=limit)).candidates
        elif action == "get":
            views = (await flywheel.faq.get(_needed(faq_id, "faq_id", action)),)
        else:
            wanted = _needed(query, "query", action) if action == "search" else ""
            views = await flywheel.faq.published(flow=flow, query=wanted, limit=limit)
        result = FaqResult(
            entries=[FaqEntryResult.of(view) for view in views],
            candidates=[FaqCandidateResult.model_validate(candidate) for candidate in candidates],
        )
        return answered(result, *_paragraphs(result, action))

    @server.resource("flowise://faq", title="The FAQ", mime_type="application/json")
    async def faq() -> str:
        """The approved questions with their answers, owners and review dates, as they are served now."""
        views = await flywheel.faq.published(limit=_RESOURCE_ENTRIES)
        return FaqResult(entries=[FaqEntryResult.of(view) for view in views], candidates=[]).model_dump_json(indent=2)


def _needed(value: str, name: str, action: str) -> str:
    if not value.strip():
        raise InputError(f"the action {action!r} needs {name!r}", suggestions=(f"Give {name}.", "Or use action list."))
    return value


def _paragraphs(result: FaqResult, action: str) -> list[str]:
    if action == "candidates":
        told = [
            f"{one.question} ({one.flow}: asked {one.asked} times by {one.askers}; {one.id})"
            for one in result.candidates
        ]
        return told or ["Nothing asks for a place in the FAQ."]
    told = [
        f"{one.question}\n{one.answer}\n({one.flow}, owner {one.owner}, {one.state.value}, {one.id})"
        for one in result.entries
    ]
    return told or ["Nothing in the FAQ fits." if action == "search" else "The FAQ serves nothing yet."]

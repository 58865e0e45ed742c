"""The tools that ask: `flowise_query` and `flowise_domain_query`.

Invariant: they translate arguments and results, and report progress; what is served, asked and remembered is decided
by `Flywheel.ask` alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, Any, Literal

import anyio
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from agentic_flywheel.durations import show_age, show_duration
from agentic_flywheel.flights import RESTARTED
from agentic_flywheel.flows.protocol import StreamEvent, TextPart
from agentic_flywheel.interfaces.mcp.arguments import (
    FlowOverride,
    Intent,
    MaxAgeSeconds,
    MaxStaleSeconds,
    NoCache,
    NoStore,
    OnlyIfCached,
    Private,
    Question,
    SessionId,
    Standalone,
    UserId,
    directives,
)
from agentic_flywheel.interfaces.mcp.results import AnswerResult
from agentic_flywheel.interfaces.mcp.surface import FlywheelServer, answered
from agentic_flywheel.model import Answer, Directives, Origin, Outcome
from agentic_flywheel.policy.context import Domain

#: Clients drop a call that shows no life; theirs is commonly 30 to 60 s.
_SIGN_OF_LIFE_SECONDS = 5.0
#: What the flow says is reported at most so often, since each report holds all of it so far.
_REPORT_SECONDS = 0.5

_ASKS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)


def add_asking_tools(server: FlywheelServer) -> None:
    """Register the tools on `server`."""
    flywheel = server.flywheel

    async def ask(
        ctx: Context[Any, Any],
        question: str,
        *,
        session_id: str | None,
        flow: str | None,
        user_id: str | None,
        intent: str | None = None,
        wanted: Directives,
        domain: Domain | None = None,
    ) -> CallToolResult:
        facts: dict[str, Any] = {
            "session": session_id,
            "flow": flow,
            "user": user_id,
            "intent": intent,
            "directives": wanted,
            "domain": domain,
            "among": server.caller_flows(),
        }
        if (ctx.request_context.meta or {}).get("progress_token") is None:
            answer = await flywheel.ask(question, **facts)
        else:
            answer = await _with_progress(ctx, flywheel.stream(question, **facts))
        return answered(AnswerResult.of(answer), *answer_paragraphs(answer))

    @server.tool(title="Ask a flow", annotations=_ASKS)
    async def flowise_query(
        ctx: Context[Any, Any],
        question: Question,
        intent: Intent = None,
        session_id: SessionId = None,
        flow_override: FlowOverride = None,
        user_id: UserId = None,
        no_store: NoStore = False,
        no_cache: NoCache = False,
        only_if_cached: OnlyIfCached = False,
        private: Private = False,
        standalone: Standalone = False,
        max_age_seconds: MaxAgeSeconds = None,
        max_stale_seconds: MaxStaleSeconds = None,
    ) -> Annotated[CallToolResult, AnswerResult]:
        """Ask a question: it is routed to the flow that fits, answered from memory where that is right, and remembered.

        Use it for every question to the team's flows, and for follow-ups: pass the session_id of the earlier answer
        and earlier turns are taken into account. Do not use it to read what was said before
        (flowise_session_history), nor with a field of knowledge to set the scene (flowise_domain_query). An answer
        with outcome similar was given to another wording, matched_question: if that asks for something else, tell
        with flowise_report_answer.
        """
        wanted = directives(
            no_store=no_store,
            no_cache=no_cache,
            only_if_cached=only_if_cached,
            private=private,
            standalone=standalone,
            max_age_seconds=max_age_seconds,
            max_stale_seconds=max_stale_seconds,
        )
        return await ask(
            ctx, question, session_id=session_id, flow=flow_override, user_id=user_id, intent=intent, wanted=wanted
        )

    @server.tool(title="Ask within a domain", annotations=_ASKS)
    async def flowise_domain_query(
        ctx: Context[Any, Any],
        question: Question,
        domain_name: Annotated[str, Field(min_length=1, max_length=200, description="The field of knowledge.")],
        domain_description: Annotated[str, Field(max_length=4000, description="What the field is about.")] = "",
        context_type: Annotated[
            Literal["technical", "cultural", "strategic", "general"], Field(description="How to look at it.")
        ] = "general",
        stack_info: Annotated[str, Field(max_length=4000, description="Technologies in use.")] = "",
        cultural_info: Annotated[str, Field(max_length=4000, description="Cultural setting to respect.")] = "",
        session_id: SessionId = None,
        flow_override: FlowOverride = None,
        user_id: UserId = None,
        no_store: NoStore = False,
        no_cache: NoCache = False,
        only_if_cached: OnlyIfCached = False,
        private: Private = False,
        standalone: Standalone = False,
        max_age_seconds: MaxAgeSeconds = None,
        max_stale_seconds: MaxStaleSeconds = None,
    ) -> Annotated[CallToolResult, AnswerResult]:
        """Ask a question within a field of knowledge that is described to the flow along with it.

        Use it when the answer depends on a stack, a culture or a strategy that the question itself does not name.
        The domain is part of what is remembered: another domain never gets this answer. Do not use it for questions
        that stand on their own (flowise_query), since fewer askers can then share the answer.
        """
        wanted = directives(
            no_store=no_store,
            no_cache=no_cache,
            only_if_cached=only_if_cached,
            private=private,
            standalone=standalone,
            max_age_seconds=max_age_seconds,
            max_stale_seconds=max_stale_seconds,
        )
        domain = Domain(
            name=domain_name,
            description=domain_description,
            context_type=context_type,
            stack_info=stack_info,
            cultural_info=cultural_info,
        )
        return await ask(
            ctx, question, session_id=session_id, flow=flow_override, user_id=user_id, wanted=wanted, domain=domain
        )


async def _with_progress(ctx: Context[Any, Any], events: AsyncGenerator[StreamEvent, None]) -> Answer:
    """The answer, for a client that asked for progress: it is told the text so far as it grows, else that work goes
    on."""
    answers: list[Answer] = []
    failures: list[Exception] = []
    said: list[str] = []
    news = anyio.Event()

    async def report() -> None:
        nonlocal news
        began = time.monotonic()
        await ctx.report_progress(0.0, message="Looking in memory")
        while True:
            with anyio.move_on_after(_SIGN_OF_LIFE_SECONDS):
                await news.wait()
                await anyio.sleep(_REPORT_SECONDS)
            news = anyio.Event()
            await ctx.report_progress(time.monotonic() - began, message="".join(said) or "The flow is working")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(report)
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Answer):
                        answers.append(event)
                    elif isinstance(event, TextPart):
                        said.append(event.text)
                        news.set()
                    elif event is RESTARTED:
                        said.clear()
        except Exception as error:  # noqa: BLE001 -- raised again below, outside of the task group, which would wrap it
            failures.append(error)
        tasks.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return answers[0]


def answer_paragraphs(answer: Answer) -> tuple[str, ...]:
    """An answer to read: its text, where it came from, what should be known of it."""
    return answer.text, _provenance(answer), *(f"Note: {warning}" for warning in answer.warnings)


def _ago(age: str) -> str:
    return age if age == "just now" else f"{age} ago"


def _provenance(answer: Answer) -> str:
    """Where the answer came from, in a line or two that a person can read."""
    if answer.source is Origin.FAQ and answer.outcome is not Outcome.SIMILAR:
        age = show_age(timedelta(seconds=answer.age_seconds))
        origin = f"From the FAQ (entry {answer.faq}, {answer.outcome.value}), approved: {_ago(age)}"
    elif answer.outcome in {Outcome.HIT, Outcome.STALE}:
        age = show_age(timedelta(seconds=answer.age_seconds))
        origin = f"From memory ({answer.outcome.value}, {answer.reason.value}), age: {age}"
    elif answer.outcome is Outcome.SIMILAR:
        age = show_age(timedelta(seconds=answer.age_seconds))
        like = f"similarity {answer.similarity or 0:.3f} to {answer.matched_question!r}"
        place = f"the FAQ (entry {answer.faq})" if answer.source is Origin.FAQ else "memory"
        origin = f"From {place} (similar, {like}), age: {age}"
    elif answer.outcome is Outcome.JOINED:
        origin = f"Computed for another asker at the same moment ({answer.reason.value})"
    else:
        origin = f"Computed now ({answer.outcome.value}, {answer.reason.value})"
    took = show_duration(timedelta(milliseconds=answer.elapsed_ms))
    return (
        f"{origin}, in {took}. Flow: {answer.flow}. Session: {answer.session_id}. "
        f"Turn: {answer.turn_id}. Trace: {answer.trace_id}."
    )

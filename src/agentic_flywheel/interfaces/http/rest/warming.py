"""Warm-ups: begin one, follow it, stop it, go on with it. They run in the service, and go on after the response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from starlette.responses import StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.insight.warming import WarmUp
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.problems import known_error, problem_of
from agentic_flywheel.interfaces.http.rest.arguments import Body, FlowKey, Meta, Query
from agentic_flywheel.interfaces.http.rest.events import event
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.interfaces.http.rest.shapes import given_out
from agentic_flywheel.warmups import WarmBudget, WarmPath, WarmReport

warming = Operations("warm-ups", "Questions that are asked before anybody asks them.")

_STREAM = "text/event-stream"
#: How often Redis is asked how far a warm-up is, while somebody follows it.
_LOOK_SECONDS = 0.5
Job = Annotated[str, Meta(min_length=1, max_length=64, description="A warm-up's id; `last` is the last one.")]


class WarmQuestion(Body, frozen=True, kw_only=True):
    """A question, and the follow-ups of its path. `standalone` vouches that it needs no earlier question."""

    question: Annotated[str, Meta(min_length=1, max_length=100_000)]
    then: Annotated[tuple[str, ...], Meta(max_length=20)] = ()
    flow: Annotated[str, Meta(max_length=256)] = ""
    standalone: bool = False


class Budget(Body, frozen=True, kw_only=True):
    """Bounds: calls of flows, seconds after which no call begins, money by the flows' prices."""

    calls: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    seconds: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    money: Annotated[float, Meta(gt=0, le=1_000_000_000)] | None = None


class WarmWanted(Body, frozen=True, kw_only=True):
    """What is to be warmed: questions as they stand, so many popular ones with what is asked next, the FAQ."""

    questions: Annotated[tuple[WarmQuestion, ...], Meta(max_length=10_000)] = ()
    popular: Annotated[int, Meta(ge=0, le=10_000)] = 0
    follow_ups: Annotated[int, Meta(ge=0, le=100)] = 0
    faq: bool = False
    flow: FlowKey | None = None
    refresh: Annotated[bool, Meta(description="Ask although a fresh answer is stored.")] = False
    budget: Budget = Budget()
    concurrency: Annotated[int, Meta(ge=1, le=32)] | None = None


@warming.post("/warm-ups", needs=Scope.ADMIN, status=202)
async def begin_warm_up(call: Call, body: WarmWanted) -> WarmReport:
    """Begin a warm-up; it goes on in the service, and can be followed from anywhere."""
    warm_up = await _ready(call, body, dry_run=False)
    await call.flywheel.audit.record("warm.begin", warm_up.job, by=call.caller.actor, questions=warm_up.total)
    return await _running(call, warm_up)


@warming.post("/warm-ups/preview", needs=Scope.ADMIN, repeats="harmless")
async def preview_warm_up(call: Call, body: WarmWanted) -> WarmReport:
    """What a warm-up would ask; nothing is asked or written."""
    warm_up = await _ready(call, body, dry_run=True)
    try:
        async for _ in warm_up:
            pass
    finally:
        await warm_up.aclose()
    return warm_up.report


class WarmFilter(Query, frozen=True, kw_only=True):
    """How many."""

    limit: Annotated[int, Meta(ge=1, le=100, description="At most so many.")] = 10


class WarmReports(msgspec.Struct, frozen=True, kw_only=True):
    """Warm-ups, newest first, without their questions."""

    items: tuple[WarmReport, ...]


@warming.get("/warm-ups", needs=Scope.READ)
async def list_warm_ups(call: Call, query: WarmFilter) -> WarmReports:
    """The last warm-ups, newest first."""
    return WarmReports(items=tuple(await call.flywheel.warming.recent(query.limit)))


class WarmDetail(Query, frozen=True, kw_only=True):
    """How much is told."""

    items: Annotated[bool, Meta(description="With each question and what came of it.")] = False


@warming.get("/warm-ups/{job}", needs=Scope.READ)
async def show_warm_up(call: Call, job: Job, query: WarmDetail) -> WarmReport:
    """How far a warm-up is, whichever process runs it."""
    return await call.flywheel.warming.show(_named(job), items=query.items)


@warming.get(
    "/warm-ups/{job}/events",
    needs=Scope.READ,
    produces={_STREAM: "Events: report (as the warm-up itself gives it) whenever there is news; the last has ended."},
)
async def follow_warm_up(call: Call, job: Job) -> StreamingResponse:
    """Follow a warm-up until it has ended."""
    report = await call.flywheel.warming.show(_named(job), items=False)
    return StreamingResponse(_followed(call, report), 200, {"Cache-Control": "no-cache"}, _STREAM)


@warming.post("/warm-ups/{job}/stop", needs=Scope.ADMIN)
async def stop_warm_up(call: Call, job: Job) -> WarmReport:
    """Stop a warm-up, whichever process runs it; it can be gone on with."""
    report = await call.flywheel.warming.show(_named(job), items=False)
    await call.flywheel.audit.record("warm.stop", report.job, by=call.caller.actor)
    return await call.flywheel.warming.stop(report.job)


class WarmResumed(Body, frozen=True, kw_only=True):
    """A budget counts from now on."""

    budget: Budget = Budget()
    concurrency: Annotated[int, Meta(ge=1, le=32)] | None = None


@warming.post("/warm-ups/{job}/resume", needs=Scope.ADMIN, status=202)
async def resume_warm_up(call: Call, job: Job, body: WarmResumed) -> WarmReport:
    """Go on with a warm-up that was cut off, stopped, or left by its budget; what was done is not asked again."""
    warm_up = await call.flywheel.warming.resume(_named(job), budget=_budget(body.budget), concurrency=body.concurrency)
    await call.flywheel.audit.record("warm.resume", warm_up.job, by=call.caller.actor)
    return await _running(call, warm_up)


async def _ready(call: Call, body: WarmWanted, *, dry_run: bool) -> WarmUp:
    return await call.flywheel.warming.begin(
        [
            WarmPath(questions=(one.question, *one.then), flow=one.flow, standalone=one.standalone)
            for one in body.questions
        ],
        popular=body.popular,
        follow_ups=body.follow_ups,
        faq=body.faq,
        flow=body.flow,
        budget=_budget(body.budget),
        concurrency=body.concurrency,
        refresh=body.refresh,
        dry_run=dry_run,
    )


async def _running(call: Call, warm_up: WarmUp) -> WarmReport:
    warnings = warm_up.report.warnings
    job = await call.service.warm_ups.begin(call.caller.tenant, warm_up)
    report = await call.flywheel.warming.show(job, items=False)
    return msgspec.structs.replace(report, warnings=(*warnings, *report.warnings))


async def _followed(call: Call, report: WarmReport) -> AsyncIterator[bytes]:
    try:
        yield event("report", given_out(report, WarmReport))
        while report.state == "running":
            await asyncio.sleep(_LOOK_SECONDS)
            before, report = report, await call.flywheel.warming.show(report.job, items=False)
            if report != before:
                yield event("report", given_out(report, WarmReport))
    except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
        yield event("error", problem_of(known_error(error, call)[0], call))


def _budget(said: Budget) -> WarmBudget:
    return WarmBudget(calls=said.calls, seconds=said.seconds, money=said.money)


def _named(job: str) -> str:
    return "" if job == "last" else job

"""Asking: the question and its answer, plain and as a stream; what would come of it; its key; a report."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.flows.protocol import Progress, SourcesFound, StreamEvent, TextPart
from agentic_flywheel.interfaces.http.again import Again
from agentic_flywheel.interfaces.http.caching import directives_of, provenance_of
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.problems import known_error, problem_of
from agentic_flywheel.interfaces.http.rest.arguments import Body, FlowKey, Meta, Question, SessionId, TurnId, UserId
from agentic_flywheel.interfaces.http.rest.events import event
from agentic_flywheel.interfaces.http.rest.operations import Operations, Reply
from agentic_flywheel.interfaces.http.rest.shapes import JSON, given_out, written
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.likeness import Explanation, ReportKind, ReportReceipt
from agentic_flywheel.model import Answer, Decided, Directives, Exchange
from agentic_flywheel.policy.context import Domain

asking = Operations("ask", "Ask flows; every answer says where it came from.")

_Seconds = Annotated[float, Meta(ge=0, le=315_360_000)]


class EarlierExchange(Body, frozen=True, kw_only=True):
    """A question and its answer that the asker brings along."""

    question: str
    answer: str


class AskedDomain(Body, frozen=True, kw_only=True):
    """A field of knowledge that is described to the flow; it is part of what the answer is stored under."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    description: Annotated[str, Meta(max_length=4000)] = ""
    context_type: Literal["technical", "cultural", "strategic", "general"] = "general"
    stack_info: Annotated[str, Meta(max_length=4000)] = ""
    cultural_info: Annotated[str, Meta(max_length=4000)] = ""


class AskedQuestion(Body, frozen=True, kw_only=True):
    """A question, and what the asker wants of the memory."""

    question: Question
    session_id: SessionId | None = None
    flow: FlowKey | None = None
    user_id: UserId | None = None
    intent: Annotated[str, Meta(max_length=256, description="What it is for; it helps to pick the flow.")] | None = None
    no_store: Annotated[bool, Meta(description="Keep nothing of it: no answer, no turn.")] = False
    no_cache: Annotated[bool, Meta(description="Ask the flow afresh, and store what it says.")] = False
    only_if_cached: Annotated[bool, Meta(description="Answer from memory or not at all (504).")] = False
    private: Annotated[bool, Meta(description="Keep the answer for this session alone.")] = False
    standalone: Annotated[bool, Meta(description="It needs no earlier turn.")] = False
    max_age_seconds: _Seconds | None = None
    max_stale_seconds: _Seconds | None = None


class Asking(AskedQuestion, frozen=True, kw_only=True):
    """A question to be answered. `history` are earlier exchanges, oldest first, in place of the session's turns;
    `instructions` go to the flow with the question. Both are part of what the answer is stored under."""

    history: Annotated[tuple[EarlierExchange, ...], Meta(max_length=100)] = ()
    instructions: Annotated[str, Meta(max_length=16_000)] = ""
    domain: AskedDomain | None = None


@asking.post("/ask", needs=Scope.ASK, by_flow=True)
async def ask(call: Call, body: Asking, request: Request) -> Reply[Answer]:
    """Ask a question; the answer comes from memory where that is right, and is remembered.

    Give session_id of an earlier answer to go on with its conversation. Directives may also stand in the header
    Cache-Control, as HTTP writes them.
    """
    registry = call.flywheel.registry
    asked_under = registry.current()
    asked = await _asked(call, body, request)
    answer = await call.flywheel.ask(**asked)
    again = Again(
        call.flywheel,
        body.question,
        body.flow,
        asked["user"],
        headers=provenance_of,
        body=lambda answer: written(answer, Answer),
        media_type=JSON,
        holds=lambda: registry.current() is asked_under,
    )
    again.offer(call, asked, answer)
    return Reply(answer, provenance_of(answer))


@asking.post(
    "/ask/stream",
    needs=Scope.ASK,
    produces={"text/event-stream": "Events: decided, text, sources, progress, restarted, then answer or error."},
    by_flow=True,
)
async def ask_stream(call: Call, body: Asking, request: Request) -> StreamingResponse:
    """Ask a question, and read the answer while it comes.

    Server-sent events with JSON in data: `decided` (the answer as far as it is known), `text` (to append), `sources`,
    `progress`, `restarted` (the text so far is void, another answer takes its place), and at last `answer` (the whole
    of it, as /ask gives it) or `error` (a problem document).
    """
    events = call.flywheel.stream(**await _asked(call, body, request))
    first = await anext(events)
    headers = provenance_of(first.answer) if isinstance(first, Decided) else {}
    headers["Cache-Control"] = "no-cache"
    return StreamingResponse(_frames(first, events, call), 200, headers, "text/event-stream")


class ExplainedQuestion(AskedQuestion, frozen=True, kw_only=True):
    """A question, and how many similar ones are shown."""

    count: Annotated[int, Meta(ge=1, le=50, description="So many similar stored questions.")] = 5


@asking.post("/explain", needs=Scope.ASK, repeats="harmless", by_flow=True)
async def explain(call: Call, body: ExplainedQuestion, request: Request) -> Explanation:
    """What would become of a question, without asking it.

    Where it would go, what is stored for it and for similar ones, what stands in the way. Nothing is asked or written.
    """
    asked = await _question(call, body, request) | {"flow": call.one_flow(body.flow)}
    return await call.flywheel.similar.explain(**asked, count=body.count)


class KeyQuestion(Body, frozen=True, kw_only=True):
    """A question as somebody would ask it."""

    question: Question
    session_id: SessionId | None = None
    flow: FlowKey | None = None
    user_id: UserId | None = None
    standalone: bool = False


class EntryKey(msgspec.Struct, frozen=True):
    """The Redis key under which an answer to the question is looked for first."""

    key: str


@asking.post("/key", needs=Scope.ASK, repeats="harmless", by_flow=True)
async def entry_key(call: Call, body: KeyQuestion) -> EntryKey:
    """The Redis key of a question."""
    if body.session_id is not None:
        await admit_session(call, body.session_id)
    key = await call.flywheel.cache.key(
        body.question,
        flow=call.one_flow(body.flow),
        user=call.speaks_for(body.user_id),
        session=body.session_id,
        standalone=body.standalone,
    )
    return EntryKey(key)


class ReportedAnswer(Body, frozen=True, kw_only=True):
    """Which answer it is, and what is the matter with it. `fresh` has the flow asked again at once."""

    turn_id: TurnId
    kind: ReportKind
    note: Annotated[str, Meta(max_length=4000)] = ""
    session_id: SessionId | None = None
    user_id: UserId | None = None
    fresh: bool = False


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What a report did, and the fresh answer where one was wanted."""

    receipt: ReportReceipt
    answer: Answer | None = None


@asking.post("/reports", needs=Scope.ASK, status=201, by_flow=True)
async def report_answer(call: Call, body: ReportedAnswer) -> Reported:
    """Report an answer as wrong, outdated or private: it is served to nobody afterwards.

    turn_id may be `last`, with session_id. Where the answer had been given to a similar question, the two are never
    taken for each other again.
    """
    if body.session_id is not None:
        await admit_session(call, body.session_id)
    receipt, answer = await call.flywheel.similar.report(
        body.turn_id,
        body.kind,
        note=body.note,
        session=body.session_id,
        user=call.speaks_for(body.user_id),
        fresh=body.fresh,
        among=call.flows,
    )
    return Reported(receipt=receipt, answer=answer)


async def _question(call: Call, body: AskedQuestion, request: Request) -> dict[str, Any]:
    if body.session_id is not None:
        await admit_session(call, body.session_id)
    return {
        "question": body.question,
        "session": body.session_id,
        "flow": body.flow,
        "user": call.speaks_for(body.user_id),
        "intent": body.intent,
        "directives": _directives(body, request),
    }


async def _asked(call: Call, body: Asking, request: Request) -> dict[str, Any]:
    asked = await _question(call, body, request) | {"among": call.flows}
    if body.history:
        asked["history"] = tuple(Exchange(one.question, one.answer) for one in body.history)
    if body.domain is not None:
        asked["domain"] = Domain(**msgspec.structs.asdict(body.domain))
    return asked | ({"instructions": body.instructions} if body.instructions else {})


def _directives(body: AskedQuestion, request: Request) -> Directives:
    """Those of the body and of `Cache-Control` together; of two ages, the body's."""
    said = directives_of(request)
    return Directives(
        no_store=body.no_store or said.no_store,
        no_cache=body.no_cache or said.no_cache,
        only_if_cached=body.only_if_cached or said.only_if_cached,
        private=body.private or said.private,
        standalone=body.standalone or said.standalone,
        max_age=said.max_age if body.max_age_seconds is None else timedelta(seconds=body.max_age_seconds),
        max_stale=said.max_stale if body.max_stale_seconds is None else timedelta(seconds=body.max_stale_seconds),
    )


async def _frames(first: StreamEvent, events: AsyncGenerator[StreamEvent, None], call: Call) -> AsyncIterator[bytes]:
    try:
        async with aclosing(events):
            if told := _frame(first):
                yield told
            async for one in events:
                if told := _frame(one):
                    yield told
    except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
        yield event("error", problem_of(known_error(error, call)[0], call))


def _frame(one: StreamEvent) -> bytes:
    match one:
        case Decided():
            return event("decided", given_out(one.answer, Answer))
        case Answer():
            return event("answer", given_out(one, Answer))
        case TextPart():
            return event("text", {"text": one.text})
        case SourcesFound():
            return event("sources", given_out(one, SourcesFound))
        case Progress() if one.event == "restarted":
            return event("restarted", {})
        case Progress():
            return event("progress", {"name": one.event, "payload": one.payload})
        case _:
            return b""

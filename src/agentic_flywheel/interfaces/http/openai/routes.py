"""`/v1/chat/completions` and `/v1/models`: any OpenAI client asks flows, `model` being a flow's key.

Invariant: earlier messages that come with a request are all its context. A session that is named (`X-AFW-Session`, or
`metadata.session_id`) keeps the turns, and lends them to requests that bring no earlier messages.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response, StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlywheelError, UnknownSession
from agentic_flywheel.flows.protocol import FlowSpec, StreamEvent, TextPart
from agentic_flywheel.interfaces.http.again import Again
from agentic_flywheel.interfaces.http.caching import directives_of, provenance_of
from agentic_flywheel.interfaces.http.call import Call, call_of
from agentic_flywheel.interfaces.http.openai.reading import ChatRequest, read_chat
from agentic_flywheel.interfaces.http.openai.writing import Chunks, completion, error_frame, failure, model_of
from agentic_flywheel.interfaces.http.problems import as_told, known_error
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import AccessRoute
from agentic_flywheel.interfaces.http.speaking import spoken_of
from agentic_flywheel.model import Answer, Decided

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentic_flywheel.interfaces.http.service import Service

_STARTED = int(time.time())


def room(_service: Service) -> Room:
    """The routes of OpenAI's API that flows can serve."""
    return Room(
        "openai",
        [
            AccessRoute("/v1/chat/completions", _chat, methods=["POST"], needs=Scope.ASK, by_flow=True),
            AccessRoute("/v1/models", _models, methods=["GET"], needs=Scope.ASK, by_flow=True),
            AccessRoute("/v1/models/{model:path}", _model, methods=["GET"], needs=Scope.ASK, by_flow=True),
        ],
        "OpenAI clients at /v1 (model = flow)",
    )


async def _chat(request: Request) -> Response:
    call = call_of(request)
    try:
        chat = read_chat(await request.body())
        registry = call.flywheel.registry
        asked_under = registry.current()
        asked, ignored = _asked(request, call, chat)
        if not chat.stream:
            answer = await call.flywheel.ask(**asked)
            again = Again(
                call.flywheel,
                chat.question,
                asked["flow"],
                asked["user"],
                headers=lambda answer: provenance_of(answer) | ignored,
                body=lambda answer: msgspec.json.encode(completion(answer, int(time.time()))),
                media_type="application/json",
                holds=lambda: registry.current() is asked_under,
            )
            again.offer(call, asked, answer)
            return again.response(answer)
        events = call.flywheel.stream(**asked)
        decided = await anext(events)
        assert isinstance(decided, Decided)
    except FlywheelError as error:
        return _failed(error, call_of(request))
    chunks = Chunks(decided.answer, int(time.time()), include_usage=chat.include_usage)
    headers = provenance_of(decided.answer) | ignored | {"Cache-Control": "no-cache"}
    return StreamingResponse(_frames(events, chunks, call), 200, headers, "text/event-stream")


def _asked(request: Request, call: Call, chat: ChatRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """What the flywheel is asked, and a header for what had no effect. Raises `UnknownFlow`, `InputError`."""
    spec = _flow(call, chat.model)
    config, ignored = chat.overrides(spec)
    asked = {
        "question": chat.question,
        "flow": spec.key,
        "history": chat.history,
        "instructions": chat.instructions,
        "config": config,
        "user": call.speaks_for(chat.user or None),
        "session": request.headers.get("x-afw-session") or chat.session or None,
        "directives": directives_of(request),
        "among": call.flows,
    }
    return asked, {"X-AFW-Ignored": ", ".join(ignored)} if ignored else {}


async def _frames(events: AsyncGenerator[StreamEvent, None], chunks: Chunks, call: Call) -> AsyncIterator[bytes]:
    """The answer in pieces."""
    try:
        yield chunks.begin()
        async for event in spoken_of(events):
            if isinstance(event, TextPart):
                yield chunks.text(event.text)
            elif isinstance(event, Answer):
                yield chunks.end(event)
    except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
        yield error_frame(as_told(known_error(error, call)[0], call))


async def _models(request: Request) -> Response:
    call = call_of(request)
    flows = [spec for spec in call.flywheel.flows.list() if call.flows is None or spec.key in call.flows]
    return _json({"object": "list", "data": [model_of(spec, _STARTED) for spec in flows]})


async def _model(request: Request) -> Response:
    try:
        spec = _flow(call_of(request), request.path_params["model"])
    except FlywheelError as error:
        return _failed(error, call_of(request))
    return _json(model_of(spec, _STARTED))


def _flow(call: Call, model: str) -> FlowSpec:
    """The flow that a model stands for. Raises `UnknownFlow`."""
    known = call.flywheel.registry.current()
    return (known if call.flows is None else known.only(call.flows)).get(model)


def _failed(error: FlywheelError, call: Call) -> Response:
    status, body = failure(as_told(error, call))
    headers = {"Retry-After": str(max(1, round(error.retry_after_seconds)))} if error.retry_after_seconds else {}
    if isinstance(error, UnknownSession):
        body["error"] |= {"param": "session_id", "code": error.code}
    return Response(msgspec.json.encode(body, enc_hook=str), status, headers, "application/json")


def _json(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), 200, headers, "application/json")

"""`/api/v1`: a Flowise to its clients, with a memory. Predictions are questions; everything else is passed on.

Invariant: who may not ask a flow at Flowise gets no answer of it here: a credential that Flowise may look at is part of
what an answer is stored under, and pages that a flow does not name are Flowise's to refuse. Each call runs in a
conversation of its own at Flowise, so two streams never meet, whatever `chatId` their clients chose.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response, StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlowError, FlowMissing, FlywheelError, UnknownFlow
from agentic_flywheel.flows.flowise import Restrictions
from agentic_flywheel.flows.protocol import FlowSpec, Frame, Progress, StreamEvent, TextPart, Verbatim
from agentic_flywheel.flows.replies import Page
from agentic_flywheel.interfaces.http.again import Again
from agentic_flywheel.interfaces.http.caching import directives_of, provenance_of
from agentic_flywheel.interfaces.http.call import Call, call_of
from agentic_flywheel.interfaces.http.flowise.living import HEARTBEAT_SECONDS, living
from agentic_flywheel.interfaces.http.flowise.passing import Upstream, target_of, told_headers
from agentic_flywheel.interfaces.http.flowise.reading import Prediction, read_prediction
from agentic_flywheel.interfaces.http.flowise.writing import END, Telling, error_frames, failure, frame, said_by
from agentic_flywheel.interfaces.http.problems import as_told, known_error
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import AccessRoute
from agentic_flywheel.interfaces.http.speaking import spoken_of
from agentic_flywheel.model import Answer, Decided
from agentic_flywheel.policy.identity import digest

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentic_flywheel.flows.snapshot import RegistrySnapshot
    from agentic_flywheel.interfaces.http.service import Service

#: Flowise's own bound of a body is 50 MB: files come in it.
_LARGEST: Final = 50_000_000
#: What a caller that is limited to flows may have passed on besides predictions: of Flowise itself, and of one flow,
#: whose id comes next in the path.
_ABOUT_ALL: Final = frozenset({"ping", "version"})
_ABOUT_ONE: Final = frozenset(
    {
        "prediction", "public-chatbotConfig", "public-chatflows", "chatflows-streaming", "chatflows-uploads",
        "flow-config", "attachments",
    }
)  # fmt: skip
_EVENTS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_JSON: Final = "application/json; charset=utf-8"


def room(service: Service) -> Room | None:
    """Flowise's interface; None where no Flowise is named (`serve.flowise_url`)."""
    base_url = service.settings.text("serve.flowise_url").strip()
    if not base_url:
        return None
    proxy = Proxy(base_url)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await proxy.upstream.aclose()

    kept: dict[str, Any] = {"needs": Scope.ASK, "body_limit": _LARGEST, "by_flow": True}
    routes = [
        AccessRoute("/api/v1/prediction/{id}", proxy.predict, methods=["POST"], **kept),
        AccessRoute("/api/v1/{path:path}", proxy.pass_on, methods=None, **kept),
    ]
    return Room("flowise", routes, f"Flowise clients at /api/v1 (behind it {proxy.upstream.base_url})", lifespan)


class Proxy:
    """The way of one request; `upstream` is the Flowise behind."""

    def __init__(self, base_url: str) -> None:
        self.upstream = Upstream(base_url)

    async def pass_on(self, request: Request) -> Response:
        """Whatever is no prediction is Flowise's to answer."""
        call = call_of(request)
        if call.flows is not None:
            about, _, rest = request.path_params["path"].partition("/")
            if not (about in _ABOUT_ALL and not rest):
                self._admit(call, rest.partition("/")[0] if about in _ABOUT_ONE else "")
        return await self._passed(request, call)

    async def predict(self, request: Request) -> Response:
        """A prediction: answered from memory where that is right."""
        call = call_of(request)
        if call.flows is not None:
            try:
                self._admit(call, request.path_params["id"])
            except UnknownFlow as error:
                return _failed(error, call)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "multipart/form-data":  # files are not held here on their way
            return await self._passed(request, call)
        raw = await request.body()
        try:
            prediction = read_prediction(media_type, raw)
            if prediction is None:
                return await self._passed(request, call, raw)
            asked_under = call.flywheel.registry.current()
            try:
                spec, allowed = await self._flow(request, call)
            except FlowMissing as error:
                if prediction.streaming:  # Flowise would not answer at all
                    return _failed(error, call)
                return await self._passed(request, call, raw)
            origin = request.headers.get("origin", "")
            if spec is None or (origin and allowed.origins and not _named(origin, allowed.origins)):
                return await self._passed(request, call, raw)
            if prediction.streaming and allowed.streams:
                return await self._streamed(request, call, prediction, spec, allowed)
            return await self._answer(request, call, prediction, spec, allowed, asked_under)
        except FlywheelError as error:
            return _failed(error, call)

    async def _answer(
        self,
        request: Request,
        call: Call,
        prediction: Prediction,
        spec: FlowSpec,
        allowed: Restrictions,
        asked_under: RegistrySnapshot,
    ) -> Response:
        flywheel, asked = call.flywheel, _asked(request, call, prediction, spec, allowed)
        answer = await flywheel.ask(**asked)
        own = said_by(answer).body if answer.flow_ms is not None else ""
        if own:
            body = Telling(prediction.question, *prediction.ids()).live(own).encode()
            return Response(body, 200, provenance_of(answer), _JSON)
        again = Again(
            flywheel,
            prediction.question,
            spec.key,
            asked["user"],
            headers=provenance_of,
            body=lambda answer: Telling(prediction.question, *prediction.ids()).body(answer),
            media_type=_JSON,
            holds=lambda: (
                flywheel.registry.current() is asked_under and flywheel.flows.known_restrictions(spec) == allowed
            ),
        )
        again.offer(call, asked, answer)
        return again.response(answer)

    async def _streamed(
        self, request: Request, call: Call, prediction: Prediction, spec: FlowSpec, allowed: Restrictions
    ) -> Response:
        telling = Telling(prediction.question, *prediction.ids())
        events = call.flywheel.stream(**_asked(request, call, prediction, spec, allowed, streaming=True))
        decided = await anext(events)
        assert isinstance(decided, Decided)
        headers = provenance_of(decided.answer) | _EVENTS
        if decided.answer.text:
            await events.aclose()  # all of it is known, and remembered
            pieces: Any = telling.frames(decided.answer)
        else:
            first = asyncio.create_task(_next(events))
            await asyncio.wait({first}, timeout=HEARTBEAT_SECONDS)
            # Raises here, where the status can still say what went wrong.
            begun = first.result() if first.done() else first
            pieces = living(_pieces(begun, events, telling, call), HEARTBEAT_SECONDS)
        return StreamingResponse(_told(pieces), 200, headers | {"Content-Type": "text/event-stream"})

    async def _flow(self, request: Request, call: Call) -> tuple[FlowSpec | None, Restrictions]:
        """The flow of an id, and whom Flowise lets ask it; None for one that is switched off in the registry.

        A flow that the registry does not know is one with all defaults. Raises `FlowError`.
        """
        flywheel, flow_id = call.flywheel, request.path_params["id"]
        known = [s for s in flywheel.flows.list(inactive=True) if s.kind == "flowise" and s.id == flow_id]
        spec = known[0] if known else FlowSpec(key=flow_id, id=flow_id, kind="flowise", base_url=self.upstream.base_url)
        if not known:
            target_of(request)  # what is no id asks Flowise nothing
        allowed = await flywheel.flows.restrictions(spec)
        if not known:
            flywheel.registry.adopt(spec)
        return (spec if spec.active else None), allowed

    @staticmethod
    def _admit(call: Call, flow_id: str) -> None:
        """Let a caller that is limited to flows use the one of this id. Raises `UnknownFlow`."""
        known = call.flywheel.flows.list(inactive=True)
        keys = {spec.key for spec in known if spec.kind == "flowise" and spec.id == flow_id} or {flow_id}
        if keys.isdisjoint(call.flows or ()):
            raise UnknownFlow(f"there is no flow {flow_id!r} for {call.caller.name!r}", flow=flow_id)

    async def _passed(self, request: Request, call: Call, body: bytes | None = None) -> Response:
        response = await self.upstream.passed(request, call, body=body)
        response.headers["X-AFW-Outcome"] = "passed"
        return response


def _asked(
    request: Request,
    call: Call,
    prediction: Prediction,
    spec: FlowSpec,
    allowed: Restrictions,
    *,
    streaming: bool = False,
) -> dict[str, Any]:
    """What the flywheel is asked."""
    return {
        "question": prediction.question,
        "flow": spec.key,
        "session": prediction.session or None,
        "user": call.speaks_for(None),
        "config": prediction.config,
        "history": prediction.history,
        "directives": directives_of(request),
        "verbatim": _verbatim(call, request, allowed, streaming=streaming),
        "among": call.flows,
    }


def _verbatim(call: Call, request: Request, allowed: Restrictions, *, streaming: bool) -> Verbatim:
    """How the flow is asked, and what of the credential decides who may be given the answer."""
    shown = call.upstream_authorization
    origin = request.headers.get("origin", "")
    decides = shown and shown != allowed.own and allowed.bound is not False
    return Verbatim(
        streaming=streaming,
        authorization=shown or None,
        credential=digest("flowise", shown) if decides else "",
        headers=(("origin", origin),) if origin else (),
    )


async def _next(events: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
    return await anext(events)


async def _pieces(
    first: StreamEvent | asyncio.Task[StreamEvent],
    events: AsyncGenerator[StreamEvent, None],
    telling: Telling,
    call: Call,
) -> AsyncGenerator[bytes, None]:
    """A stream as it comes: Flowise's own events where they are at hand, else its text in the same form."""
    own, ended = False, False
    try:
        if isinstance(first, asyncio.Task):
            first = await first
        own = isinstance(first, Frame)
        if not own:
            for piece in telling.begin():
                yield piece
        async for event in spoken_of(events, first):
            if isinstance(event, Frame) and own:
                ended = '"event":"end"' in event.data[:20]
                yield frame(telling.live(event.data))
            elif isinstance(event, Progress) and event.event == "restarted":
                own = False
            elif isinstance(event, TextPart) and not own:
                yield telling.token(event.text)
            elif isinstance(event, Answer) and not ended:
                for piece in (frame(END),) if own else telling.rest(event):
                    yield piece
    except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
        failed = known_error(error, call)[0]
        # Flowise has said itself what is wrong, where its own events were passed on.
        for piece in (frame(END),) if own and isinstance(error, FlowError) else error_frames(as_told(failed, call)):
            yield piece


async def _told(pieces: Any) -> AsyncIterator[bytes]:
    if hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        yield b"".join(pieces)


def _failed(error: FlywheelError, call: Call) -> Response:
    """An error as Flowise's client reads it: Flowise's own words where it was Flowise that failed."""
    page = error.reply if isinstance(error, FlowError) else None
    if isinstance(page, Page):
        headers = {k: v for k, v in told_headers(page.headers).items() if k.lower() != "content-type"}
        return Response(page.body, page.status, headers, page.headers.get("content-type"))
    status, body = failure(as_told(error, call))
    headers = {"Retry-After": str(max(1, round(error.retry_after_seconds)))} if error.retry_after_seconds else {}
    return Response(body, status, headers, _JSON)


def _named(origin: str, allowed: tuple[str, ...]) -> bool:
    """Whether a flow names the page's host among those that may ask it, as Flowise compares them."""
    host = urlsplit(origin).hostname
    return any(host == (urlsplit(one).hostname or one) for one in allowed)

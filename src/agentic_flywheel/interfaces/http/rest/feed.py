"""What happens, as it happens: for programs that follow a team, or one of its sessions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.happenings import Happening
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.listeners import (
    AGAIN_MS,
    LISTENERS,
    LONGEST_SECONDS,
    LOOK_SECONDS,
    PING_SECONDS,
)
from agentic_flywheel.interfaces.http.problems import known_error, problem_of
from agentic_flywheel.interfaces.http.rest.arguments import FlowFilter, Meta, Query, SessionId, UserId
from agentic_flywheel.interfaces.http.rest.events import event
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.interfaces.http.rest.shapes import given_out
from agentic_flywheel.interfaces.http.sight import admit_session

feed = Operations("events", "What happens, as it happens.")

_STREAM = "text/event-stream"


class Follow(Query, frozen=True, kw_only=True):
    """What is followed, from where, and for how long."""

    session_id: SessionId | None = None
    flow: FlowFilter | None = None
    user_id: UserId | None = None
    after: Annotated[str, Meta(max_length=1000, description="The id of the last event; or Last-Event-ID.")] = ""
    seconds: Annotated[int, Meta(ge=0, le=int(LONGEST_SECONDS), description="The stream ends after so long.")] = int(
        LONGEST_SECONDS
    )


@feed.get(
    "/events",
    needs=Scope.ASK,
    by_flow=True,
    produces={
        _STREAM: "Events: began, turn, session_changed, session_deleted, turn_deleted, lost; what each concerns is in "
        "its data."
    },
)
async def follow_events(call: Call, query: Follow, request: Request) -> StreamingResponse:
    """Hear of turns, and of what changes, as it happens: what came of each question, and never its words.

    Of one session; of all that the caller could find by searching with the scope `read`. The stream ends after
    `seconds`; who comes back with Last-Event-ID (browsers do) or `after` misses nothing. `began` is the first event,
    `lost` says that more happened than is still known. Events may come twice.
    """
    if query.session_id is None:
        call.require(Scope.READ)
    else:
        await admit_session(call, query.session_id)
    among = call.flows
    if query.flow:
        among = frozenset({call.one_flow(query.flow) or query.flow})
    LISTENERS.check()
    happenings = call.flywheel.happenings.follow(
        after=request.headers.get("last-event-id", "") or query.after,
        user=call.speaks_for(query.user_id) or "",
        session=query.session_id or "",
        among=among,
        patience_seconds=LOOK_SECONDS,
    )
    began = await anext(happenings)  # raises here, while the status can still say what is wrong
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_told(call, began, happenings, query.seconds), 200, headers, _STREAM)


async def _told(
    call: Call, began: Happening | None, happenings: AsyncGenerator[Happening | None, None], seconds: float
) -> AsyncIterator[bytes]:
    started = said = time.monotonic()
    with LISTENERS.one_more():
        try:
            yield b"retry: %d\n\n" % AGAIN_MS
            one = began
            while True:
                if one is not None:
                    said_alone = msgspec.structs.replace(one, place="")  # it stands in the id
                    yield event(one.what, given_out(said_alone, Happening), id_=one.place)
                    said = time.monotonic()
                elif time.monotonic() - said > PING_SECONDS:
                    yield b": still here\n\n"
                    said = time.monotonic()
                if call.service.closing or time.monotonic() - started >= seconds:
                    return
                one = await anext(happenings)
        except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
            yield event("error", problem_of(known_error(error, call)[0], call))
        finally:
            await happenings.aclose()

"""News for pages that are open, as server-sent events: that something was asked, never what.

    event: news
    data: {"turns": 3, "sessions": 2, "deleted": 0}

Invariant: who may not read a session hears nothing of it: `/live` tells of the team's, to who may read those, and
`/live/session?id=ID` of one alone, to who may read that. A stream ends after a while, so that a key that was revoked
hears no more, and when the service closes; the browser comes back by itself. Nothing is asked of Redis for pages that
nobody looks at.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agentic_flywheel.interfaces.http.call import call_of
from agentic_flywheel.interfaces.http.listeners import (
    AGAIN_MS,
    LISTENERS,
    LONGEST_SECONDS,
    LOOK_SECONDS,
    PING_SECONDS,
)
from agentic_flywheel.interfaces.http.sight import admit_session

if TYPE_CHECKING:
    from agentic_flywheel.following import Following
    from agentic_flywheel.interfaces.http.service import Service


async def follow_team(request: Request) -> Response:
    """News of all sessions. Raises `ServiceBusy`."""
    return _stream(request, "")


async def follow_session(request: Request) -> Response:
    """News of one session. Raises `UnknownSession`, `ServiceBusy`."""
    call, session = call_of(request), request.query_params.get("id", "")
    await admit_session(call, session)
    await call.flywheel.sessions.resume(session)
    return _stream(request, session)


def _stream(request: Request, session: str) -> Response:
    call = call_of(request)
    LISTENERS.check()
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    wanted = request.query_params.get("seconds", "")  # for who only looks whether there is one
    longest = min(LONGEST_SECONDS, float(wanted)) if wanted.isdecimal() else LONGEST_SECONDS
    stream = _news(call.service, call.flywheel.following, session, longest)
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _news(service: Service, following: Following, session: str, longest: float) -> AsyncIterator[bytes]:
    with LISTENERS.one_more():
        async with following.listen() as ear:
            yield b"retry: %d\n\n" % AGAIN_MS
            began = said = time.monotonic()
            while not service.closing and time.monotonic() - began < longest:
                news = await ear.next(LOOK_SECONDS)
                if news is not None and news.concerns(session):
                    counts = {"turns": news.turns, "sessions": len(news.sessions), "deleted": news.deleted}
                    yield b"event: news\ndata: %b\n\n" % msgspec.json.encode(counts if not session else {})
                    said = time.monotonic()
                elif time.monotonic() - said > PING_SECONDS:
                    yield b": still here\n\n"
                    said = time.monotonic()

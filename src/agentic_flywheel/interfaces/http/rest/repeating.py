"""Doing a request once that may be sent again (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header-07).

Invariant: the handler runs only for who took the key; a repetition is given what that came to, or is told to wait. What
an answer says that was forgotten meanwhile is not said again; nor is what was redacted. An answer of which no turn is
kept is kept nowhere: its key is free again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.errors import StoreError, UnknownTurn
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.repeats import Kept, Repeat

_log = logging.getLogger(__name__)

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
_OWN_LENGTH: Final = frozenset({"content-length"})


class _Remembered(msgspec.Struct):
    """An answer, as far as it says in which session it stands."""

    session_id: str = ""
    turn_id: str = ""
    remembered: bool = False


async def once(call: Call, request: Request, key: str, work: Callable[[], Awaitable[Response]]) -> Response:
    """The response of `work`, done once for this key of this caller.

    Raises `InputError`, `RepeatInProgress`, `RepeatMismatch`, `StoreError`, and whatever the work raises.
    """
    caller = call.caller
    who = "\n".join((caller.proof, caller.name, caller.user or ""))
    address = request.scope.get("raw_path") or request.url.path.encode()
    said = b"\n".join((request.method.encode(), address, request.scope["query_string"], await request.body()))
    repeat = call.flywheel.repeats.of(key, caller=who, request=said)
    kept = await repeat.begin()
    if kept is not None:
        await _check_known(call, kept)
        return Response(kept.body, kept.status, dict(kept.headers) | {REPLAYED: "true"})
    try:
        response = await work()
    except BaseException:
        await _release(repeat)
        raise
    if _leaves_nothing(bytes(response.body)):
        await _release(repeat)
        return response
    headers = [(name, value) for name, value in response.headers.items() if name not in _OWN_LENGTH]
    body = call.flywheel.privacy.kept_body(bytes(response.body), call.caller.user or "")
    try:
        await repeat.keep(Kept(response.status_code, headers, body))
    except StoreError as error:  # it is done all the same; a repetition is told that it is under way, for five minutes
        _log.warning("what a request with an Idempotency-Key came to is not kept: %s", error.message)
    return response


async def _release(repeat: Repeat) -> None:
    """Let the key be free again."""
    try:
        await repeat.release()
    except StoreError as error:
        _log.warning("an Idempotency-Key is not free before its time: %s", error.message)


def _said(body: bytes) -> _Remembered:
    try:
        return msgspec.json.decode(body, type=_Remembered)
    except msgspec.DecodeError:  # no answer
        return _Remembered()


def _leaves_nothing(body: bytes) -> bool:
    """Whether it is an answer of which no turn is kept (`no_store`, a policy)."""
    said = _said(body)
    return bool(said.turn_id) and not said.remembered


async def _check_known(call: Call, kept: Kept) -> None:
    """Raises `UnknownTurn` for an answer whose turn was kept, and is gone."""
    said = _said(kept.body)
    if not said.remembered or not said.turn_id:
        return
    turns = (await call.flywheel.sessions.show(said.session_id)).turns
    if all(turn.id != said.turn_id for turn in turns):
        raise UnknownTurn("the answer to this request was deleted", turn_id=said.turn_id)

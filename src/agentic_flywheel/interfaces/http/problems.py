"""Errors as RFC 9457 problem documents, and the addresses that their types are.

Invariant: every failure leaves as `application/problem+json` with the code, the suggestions and the id of the error
that it was. What tells of the service's own insides (addresses of Redis, paths, settings) is told to administrators
alone; others get the kind of the error and the id under which the log has the rest. What nobody expected is logged with
its id and told to nobody.
"""

from __future__ import annotations

import inspect
import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from agentic_flywheel import errors
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.errors.root import PLACES
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import PUBLIC, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.call import Call
    from agentic_flywheel.interfaces.http.service import Service

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
#: The nearest of an error's classes counts.
STATUS: dict[type[FlywheelError], int] = {
    FlywheelError: 500,
    errors.InputError: 400,
    errors.SettingsError: 500,
    errors.RequestTooLarge: 413,
    errors.NotFound: 404,
    errors.UnknownMethod: 405,
    errors.NotCached: 504,  # RFC 9111, 5.2.1.7
    errors.EditConflict: 409,
    errors.PreconditionFailed: 412,
    errors.RepeatMismatch: 422,
    errors.RepeatInProgress: 409,
    errors.StoreError: 503,
    errors.StoreMisused: 500,
    errors.StoreDamaged: 500,
    errors.FlowError: 502,
    errors.FlowTimeout: 504,
    errors.FlowLimited: 429,
    errors.EmbedderError: 503,
    errors.IndexUnusable: 503,
    errors.ExtraMissing: 501,
    errors.AccessError: 403,
    errors.CredentialsMissing: 401,
    errors.CredentialsRefused: 401,
    errors.CredentialsUnchecked: 503,
    errors.HostRefused: 421,
    errors.RateLimited: 429,
    errors.ServiceBusy: 503,
}
#: Errors whose message and details may name the service's own insides.
_INSIDES = (errors.StoreError, errors.SettingsError, errors.RegistryError, errors.IndexUnusable, errors.ExtraMissing)
#: Facts of other errors that are the operator's alone.
_OPERATORS_FACTS = PLACES | {"callable"}
_ADVICE_OF_COMMANDS = frozenset((*FlywheelError.general_suggestions, *errors.InputError.general_suggestions))


def status_of(error: FlywheelError) -> int:
    """The HTTP status of an error.

    >>> status_of(errors.UnknownFlow("no flow")), status_of(errors.FlowTimeout("slow"))
    (404, 504)
    """
    return _status_of(type(error))


def _status_of(kind: type[FlywheelError]) -> int:
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def known_error(error: Exception, call: Call) -> tuple[FlywheelError, dict[str, str]]:
    """Any exception as one of ours, with headers that its answer needs; what is a defect of ours is logged."""
    if isinstance(error, FlywheelError):
        return error, {}
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        if error.status_code == 404:
            return errors.UnknownAddress("nothing is served at this address"), headers
        if error.status_code == 405:
            return errors.UnknownMethod("this address does not know this method"), headers
        if error.status_code == 413:
            return errors.RequestTooLarge("the request's body is too large"), headers
        return errors.InputError(str(error.detail)), headers
    if isinstance(error, ClientDisconnect):
        return errors.InputError("the client left before its request was read"), {}
    unexpected = FlywheelError(
        "the service failed unexpectedly",
        suggestions=(
            "Tell whoever runs the service the error id: its log has the rest.",
            "Try again: it may have been of the moment.",
            "Run `afw doctor` where the service runs.",
        ),
    )
    _log.error(
        "unexpected %s (error id %s)",
        type(error).__name__,
        unexpected.error_id,
        exc_info=error,
        extra={"facts": {"error_id": unexpected.error_id, "request_id": call.request_id, "route": call.route}},
    )
    return unexpected, {}


def as_told(error: FlywheelError, call: Call) -> FlywheelError:
    """The error as this caller may see it, under the same id."""
    if call.known is not None and call.known.may(Scope.ADMIN):
        return error
    message, details = error.outline, error.details
    if isinstance(error, _INSIDES):
        message, details = title_of(type(error)) + ".", {}
    told = type(error)(
        message,
        suggestions=error.suggestions,
        retry_after_seconds=error.retry_after_seconds,
        **{name: value for name, value in details.items() if name not in _OPERATORS_FACTS},
    )
    told.error_id = error.error_id
    return told


def problem_of(error: FlywheelError, call: Call) -> dict[str, Any]:
    """An error as the document that this caller may see."""
    told = as_told(error, call)
    detail, details = told.message, dict(told.details)
    return {
        "type": f"/problems/{error.code}",
        "title": title_of(type(error)),
        "status": status_of(error),
        "detail": detail,
        "code": error.code,
        "details": details,
        "suggestions": advice_of(error),
        "retry_after_seconds": error.retry_after_seconds,
        "error_id": error.error_id,
        "request_id": call.request_id,
    }


def advice_of(error: FlywheelError) -> list[str]:
    """What to do about an error, without what is meant for command lines in general.

    >>> advice_of(errors.InputError("no", suggestions=("Say yes.",)))
    ['Say yes.']
    """
    return [advice for advice in error.suggestions if advice not in _ADVICE_OF_COMMANDS]


def problem_response(error: FlywheelError, call: Call, headers: dict[str, str] | None = None) -> Response:
    """An error as a response; rooms use it where a failure must not end in an exception."""
    document = problem_of(error, call)
    more = dict(headers or {})
    if error.retry_after_seconds:
        more["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    if document["status"] == 401:
        more["WWW-Authenticate"] = _challenge(error)
    if document["status"] >= 500 and isinstance(error, _INSIDES):
        # The caller may not see it, so whoever runs the service must.
        _log.warning("%s: %s", error.code, error.message, extra={"facts": {"error_id": error.error_id}})
    content = msgspec.json.encode(document, enc_hook=str)
    return Response(content, document["status"], more, MEDIA_TYPE)


def _challenge(error: FlywheelError) -> str:
    """What a 401 asks for (RFC 6750)."""
    wrong = ', error="invalid_token"' if isinstance(error, errors.CredentialsRefused) else ""
    return f'Bearer realm="agentic-flywheel"{wrong}'


def title_of(kind: type[FlywheelError]) -> str:
    """What a kind of error is, in one line without a full stop."""
    doc = inspect.getdoc(kind) or kind.__name__
    return doc.split("\n\n", 1)[0].replace("\n", " ").split("; ", 1)[0].removesuffix(".").replace("`", "")


def _kinds(kind: type[FlywheelError] = FlywheelError) -> dict[str, type[FlywheelError]]:
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found |= _kinds(below)
    return found


def room(_service: Service) -> Room:
    """The descriptions that the type of a problem leads to."""
    return Room("problems", [AccessRoute("/problems/{code}", _describe, needs=PUBLIC)])


async def _describe(request: Request) -> Response:
    kind = _kinds().get(request.path_params["code"])
    if kind is None:
        raise errors.UnknownAddress("there is no such kind of problem")
    status = _status_of(kind)
    about = {
        "code": kind.code,
        "title": title_of(kind),
        "status": status,
        "meaning": HTTPStatus(status).phrase,
        "suggestions": list(kind.default_suggestions or kind.general_suggestions),
    }
    return Response(msgspec.json.encode(about), media_type="application/json")

"""From a request to an operation's arguments, and from what it gives back to a response.

Invariant: a handler is called with values of the types that it declares or not at all; what cannot be read is refused
by name before anything is done. Parts of a path may hold anything that an id may, a slash (`%2F`) included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin
from urllib.parse import quote, unquote, urlencode

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from agentic_flywheel.errors import InputError
from agentic_flywheel.interfaces.http.call import Call, call_of
from agentic_flywheel.interfaces.http.rest.operations import BASE, Items, Operation, Reply
from agentic_flywheel.interfaces.http.rest.paging import opened, sealed
from agentic_flywheel.interfaces.http.rest.repeating import HEADER, once
from agentic_flywheel.interfaces.http.rest.shapes import JSON, written
from agentic_flywheel.interfaces.http.routes import AccessRoute

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as Connection

#: What stays as it is in an address within a header: what RFC 3986 lets stand in a path, and escapes.
_AS_SENT: Final = "/%:@!$&'()*+,;=~"


class RestRoute(AccessRoute):
    """The route of one operation; `known` are all methods of its path."""

    def __init__(self, operation: Operation, known: Sequence[str]) -> None:
        super().__init__(
            BASE + operation.path,
            self._answer,
            methods=[operation.method],
            needs=operation.needs,
            name=operation.name,
            body_limit=operation.body_limit,
            by_flow=operation.by_flow,
        )
        self._operation = operation
        self._known = ", ".join(sorted(known))

    def matches(self, scope: Connection) -> tuple[Match, Connection]:
        """As Starlette does, on the path as it was sent: an encoded slash separates nothing."""
        raw = scope.get("raw_path") or b""
        if scope["type"] != "http" or b"%" not in raw:
            return super().matches(scope)
        match, below = super().matches({**scope, "path": raw.decode("latin-1")})
        if match is not Match.NONE:
            try:
                places = {name: unquote(value, errors="strict") for name, value in below["path_params"].items()}
            except UnicodeDecodeError:
                return Match.NONE, {}
            below = {**below, "path_params": places}
        return match, below

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer; a method that the path does not know is told those that it knows."""
        try:
            await super().handle(scope, receive, send)
        except HTTPException as error:
            if error.status_code != 405:
                raise
            raise HTTPException(405, headers={"Allow": self._known}) from error

    async def _answer(self, request: Request) -> Response:
        key = request.headers.get(HEADER)
        if key is None or self._operation.repeats == "harmless":
            return await self._done(request)
        if self._operation.repeats == "refused":
            raise InputError(f"{HEADER} cannot be honoured here: leave it out", param=HEADER)
        return await once(call_of(request), request, key, lambda: self._done(request))

    async def _done(self, request: Request) -> Response:
        operation, call = self._operation, call_of(request)
        arguments: dict[str, Any] = {
            name: _read(request.path_params[name], kind, name) for name, kind in operation.places.items()
        }
        about = b""
        if operation.query is not None:
            query = _query(request, operation.query)
            about = _about(operation, call, request.path_params, query)
            if cursor := getattr(query, "cursor", ""):
                query = msgspec.structs.replace(query, cursor=opened(cursor, about))
            arguments["query"] = query
        if operation.body is not None:
            arguments["body"] = _body(await request.body(), operation.body)
        if operation.wants_request:
            arguments["request"] = request
        return self._response(await operation.handler(call, **arguments), request, about)

    def _response(self, result: Any, request: Request, about: bytes) -> Response:
        if isinstance(result, Response):
            return result
        reply = result if isinstance(result, Reply) else Reply(result)
        headers, value = dict(reply.headers), reply.value
        if isinstance(value, Items):
            cursor = sealed(value.next_cursor, about) if value.next_cursor else None
            value = msgspec.structs.replace(value, next_cursor=cursor)
            if cursor:
                headers["Link"] = f'<{_next(request, cursor)}>; rel="next"'
        if self._operation.returns is None:
            return Response(None, 204, headers)
        content = written(value, self._operation.returns)
        return Response(content, reply.status or self._operation.status, headers, JSON)


def _read(value: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _unread(error, where, kind) from error


def _query(request: Request, kind: type[msgspec.Struct]) -> Any:
    """The query as `kind`; parameters that are lists may be given several times, others once."""
    listed = {part.encode_name for part in msgspec.structs.fields(kind) if _is_list(part.type)}
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in listed:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise InputError(f"the parameter {name[:40]!r} is given more than once", param=name[:40])
        else:
            given[name] = value
    return _read(given, kind, "query")


def _is_list(kind: Any) -> bool:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_origin(plain) is tuple


def _body(raw: bytes, kind: type[msgspec.Struct]) -> Any:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unread(error, "body", kind) from error


def _unread(error: Exception, where: str, kind: Any) -> InputError:
    """What could not be read: msgspec says at which place (`$.limit`)."""
    why, _, place = str(error).partition(" - at `$")
    param = place.removesuffix("`").removeprefix(".") or where
    choices = _choices(kind, param)
    return InputError(
        f"{param} cannot be read: {why if why[:2].isupper() else why[:1].lower() + why[1:]}",
        suggestions=(
            *([f"Choose one of {', '.join(choices)}."] if choices else []),
            f"See what it takes: {BASE}/docs in a browser, or {BASE}/openapi.json.",
            "Names are exact, and no others are accepted; bodies are JSON in UTF-8.",
            "Percent-encode what stands in a path or a query.",
        ),
        param=param,
    )


def _choices(kind: Any, param: str) -> list[str]:
    """What a parameter of a few values takes; [] for any other."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return []
    fields = msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]  # it is a struct's
    found = next((field.type for field in fields if field.encode_name == param), None)
    for one in getattr(found, "types", (found,)):
        match one:
            case msgspec.inspect.EnumType(cls=values):
                return [str(member.value) for member in values]
            case msgspec.inspect.LiteralType(values=values):
                return [str(value) for value in values]
    return []


def _about(operation: Operation, call: Call, places: Mapping[str, Any], query: msgspec.Struct) -> bytes:
    """All that tells one list from another, whatever page of it."""
    filters = {name: value for name, value in msgspec.structs.asdict(query).items() if name not in {"cursor", "limit"}}
    caller = call.caller if operation.needs != "public" else None
    who = (caller.tenant, caller.user) if caller else ()
    return msgspec.json.encode((operation.name, who, dict(places), filters))


def _next(request: Request, cursor: str) -> str:
    """The address of the next page."""
    others = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    raw = request.scope.get("raw_path") or quote(request.url.path).encode()
    return f"{quote(raw, safe=_AS_SENT)}?{urlencode([*others, ('cursor', cursor)])}"

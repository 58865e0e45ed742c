"""The gate that every request passes: checks before its handler, headers after it, and errors as problem documents.

Invariant: the order is fixed: host, origin, credentials, rate, then the route with its scope, then the handler; what is
refused has run nothing. A response goes out once, with security headers wherever its handler set none of its own. An
error after a response has begun ends the connection, so that what was cut off never looks whole.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.routing import Router

from agentic_flywheel.errors import CredentialsMissing, FlywheelError, InputError, RequestTooLarge, UnknownAddress
from agentic_flywheel.interfaces.http.again import ADMITTED, SENT, with_security
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.problems import known_error, problem_response
from agentic_flywheel.observe.marks import CALLER

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from agentic_flywheel.interfaces.http.service import Service

_ONCE: Final = (b"host", b"authorization", b"x-api-key", b"content-length", b"origin")


class Gate:
    """The ASGI application around the routes. `lifespan` messages are the router's."""

    def __init__(self, service: Service, router: Router) -> None:
        self._service = service
        self.router = router
        self._joins_traces = service.settings["trace.exporter"] != "off"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan of the application."""
        if scope["type"] != "http":
            await self.router(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        call: Call = scope.get(ADMITTED) or Call(
            self._service,
            request_id=headers.get(b"x-request-id", b"").decode("latin-1"),
            traceparent=headers.get(b"traceparent", b"").decode("latin-1"),
        )
        scope["afw.call"] = call
        if self._joins_traces and call.traceparent:
            CALLER.set(call.traceparent)  # of this request's own context
        scope["app"] = self  # Starlette raises what goes wrong in routing where there is one
        out = _Out(send, call)
        self._service.metrics.began()
        try:
            await self._pass(scope, headers, call, _Body(receive, headers, call), out)
            if call.again is not None and SENT in scope:
                self._service.repeats.learn(scope[SENT], scope["headers"], call, call.again)
        except Exception as error:
            known, more = known_error(error, call)
            if out.status:
                raise
            await (await self.failure(known, call, more, scope))(scope, receive, out)
        finally:
            call.release()
            seconds = time.perf_counter() - began
            self._service.metrics.left()
            self._service.answered(call.route, call.known, call.request_id, scope["method"], out.status or 500, seconds)

    async def _pass(self, scope: Scope, headers: dict[bytes, bytes], call: Call, body: _Body, out: _Out) -> None:
        if len(headers) != len(scope["headers"]):
            _check_once(scope["headers"])
        boundary = self._service.boundary
        boundary.check_host(headers)
        method = scope["method"].encode()
        if b"origin" in headers:
            out.more = boundary.cors(headers)
            if method == b"OPTIONS" and b"access-control-request-method" in headers:
                out.more = boundary.preflight(headers)
                await Response(status_code=204)(scope, body, out)
                return
        boundary.check_origin(method, headers)
        if ADMITTED not in scope:  # else it was, for bytes that have passed the checks above before
            call.known = await self._service.admit(call, headers)
        await self.router(scope, body, out)

    async def failure(self, error: FlywheelError, call: Call, headers: dict[str, str], _scope: Scope) -> Response:
        """The response to a request that went wrong."""
        return problem_response(error, call, headers)

    async def not_found(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """No route: who may not ask is not told."""
        call: Call = scope["afw.call"]
        if call.known is None:
            raise CredentialsMissing("this address is only answered to who says who they are")
        raise UnknownAddress(f"nothing is served at {scope['path']!r}")


class _Body:
    """The request's body, up to the limit of its call."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes], call: Call) -> None:
        self._receive = receive
        self._declared = headers.get(b"content-length")
        self._call = call
        self._read = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._declared is not None:
            if not self._declared.isdigit():
                raise InputError("Content-Length is not a number")
            self._check(int(self._declared))
            self._declared = None
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._check(self._read)
        return message

    def _check(self, size: int) -> None:
        limit = self._call.body_limit
        if size > limit:
            raise RequestTooLarge(f"a request's body may have {limit} bytes here, not {size}", limit_bytes=limit)


class _Out:
    """The way of the response: `status` is 0 until it has begun, `more` are headers that every response gets."""

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self.status = 0
        self.more: list[tuple[bytes, bytes]] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._call.request_id.encode())]
            if self.more:
                there = {name for name, _ in headers}
                headers += [pair for pair in self.more if pair[0] not in there or pair[0] == b"vary"]
            message["headers"] = with_security(headers) + self._call.headers
        await self._send(message)


def _check_once(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a request in which something that decides who may do what is said twice."""
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise InputError(f"the header {name.decode()!r} was sent more than once")

"""Requests that Flowise itself answers, passed on as they are, in both directions and as they come.

Invariant: the path that is passed on is the one that was checked, a client's credential for Flowise goes along and ours
never does, and nothing of either body is kept. Cookies are not passed on: they would be those of another service.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import httpx2
from starlette.responses import Response, StreamingResponse

from agentic_flywheel.errors import FlowTimeout, FlowUnavailable, UnknownAddress

if TYPE_CHECKING:
    from starlette.requests import Request

    from agentic_flywheel.interfaces.http.call import Call

#: Of the one connection alone (RFC 9110, 7.6.1), and what is told anew on the other side.
_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "host", "content-length", "accept-encoding", "cookie", "set-cookie", "authorization", "x-api-key",
        "content-encoding", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "date", "server",
    }
)  # fmt: skip
#: Flowise's own rules for pages; ours are looked at before.
_THEIRS: Final = ("access-control-",)
_DOTS: Final = frozenset({".", ".."})
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
#: How often a path may be percent-encoded.
_MOST_CODINGS: Final = 4
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 600.0


class Upstream:
    """The Flowise behind, at `base_url`."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/api/v1")
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=4.0),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def passed(self, request: Request, call: Call, *, body: bytes | None = None) -> Response:
        """The request as Flowise answers it; `body` where it was read already. Raises `FlowError`, `UnknownAddress`."""
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        if call.upstream_authorization:
            headers["authorization"] = call.upstream_authorization
        content = body if body is not None else _sent(request)
        built = self._client.build_request(
            request.method, self.base_url + target_of(request), headers=headers, content=content
        )
        if body is None and "content-length" in request.headers:
            built.headers["content-length"] = request.headers["content-length"]
            built.headers.pop("transfer-encoding", None)
        try:
            reply = await self._client.send(built, stream=True)
        except httpx2.TimeoutException as error:
            raise FlowTimeout(f"Flowise at {self.base_url} did not answer in time", address=self.base_url) from error
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise FlowUnavailable(
                f"Flowise at {self.base_url} cannot be asked: {why}", address=self.base_url
            ) from error
        return StreamingResponse(_received(reply), reply.status_code, told_headers(reply.headers))


def told_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What of a reply's headers is passed back."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in _HOP and not name.lower().startswith(_THEIRS)
    }


def target_of(request: Request) -> str:
    """Path and query as they were sent. Raises `UnknownAddress` for a path that leaves the interface."""
    raw = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
    plain = _plain(raw)
    if not raw.startswith("/api/v1/") or "//" in plain or not _DOTS.isdisjoint(plain.split("/")):
        raise UnknownAddress("nothing is served at this address")
    query = request.scope["query_string"].decode("latin-1")
    return f"{raw}?{query}" if query else raw


def _plain(raw: str) -> str:
    """A path as the most obliging reader would take it. Raises `UnknownAddress` for one that no two read alike."""
    for _ in range(_MOST_CODINGS):
        before = raw
        try:
            raw = unquote_to_bytes(before).decode()
        except UnicodeDecodeError as error:  # overlong forms of "." and "/" among others
            raise UnknownAddress("nothing is served at this address") from error
        if raw == before:
            break
    else:
        raise UnknownAddress("nothing is served at this address")
    if _CONTROLS.search(raw):
        raise UnknownAddress("nothing is served at this address")
    return raw.replace("\\", "/")


async def _sent(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _received(reply: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in reply.aiter_bytes():
            yield chunk
    finally:
        await reply.aclose()

"""`afw mcp --connect URL`: a client that speaks over standard input and output, and a service that speaks HTTP.

Invariant: messages pass as they are, in both eras of the protocol; every request gets exactly one answer, be it an
error that says why the service could not be asked. Nothing is kept here: no conversation, no answer, no retry.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import anyio
import httpx2

from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.replies import EventReader
from agentic_flywheel.interfaces.mcp.opening import encoded
from agentic_flywheel.interfaces.mcp.pipes import Output, lines, take

logger = logging.getLogger(__name__)

#: The variable that holds the key for the service; it stands in no command line, where others could read it.
KEY_VARIABLE: Final = "AFW_CONNECT_KEY"
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
#: JSON-RPC's code for an error of the implementation's own.
_FAILED: Final = -32000
_CONNECT_SECONDS: Final = 10.0


def connect(url: str, environ: Mapping[str, str]) -> None:
    """Pass messages on until standard input ends or a signal comes. Raises `InputError` for what is no address."""
    address = httpx2.URL(url)
    if address.scheme not in {"http", "https"} or not address.host:
        raise InputError(
            f"{url!r} is not the address of a service",
            suggestions=(
                "Give the address that `afw serve` names: `afw mcp --connect http://HOST:PORT/mcp`.",
                f"Put a key for it into the variable {KEY_VARIABLE}.",
                "See docs/mcp.md for an example of a client's configuration.",
            ),
        )
    if address.path in {"", "/"}:
        address = address.copy_with(path="/mcp")
    key = environ.get(KEY_VARIABLE, "").strip()
    anyio.run(_pass_on, str(address), {"Authorization": f"Bearer {key}"} if key else {})


async def _pass_on(url: str, headers: dict[str, str]) -> None:
    from agentic_flywheel.interfaces.mcp.server import cancel_on_signal

    incoming, outgoing = take()
    timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as client:
        bridge = Bridge(client, url, Output(outgoing))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
            async for line in lines(incoming):
                await bridge.take(line, tasks)
            tasks.cancel_scope.cancel()  # nobody is left to be told


class Bridge:
    """What was said so far that bears on what follows: the version agreed on, and calls under way."""

    def __init__(self, client: httpx2.AsyncClient, url: str, output: Output) -> None:
        self._client = client
        self._url = url
        self._output = output
        self._version = ""
        self._session = ""
        self._calls: dict[str | int, anyio.CancelScope] = {}
        self._writing = anyio.Lock()

    async def take(self, line: str, tasks: Any) -> None:
        """One message of the client; a request is served in a task of its own."""
        if not line.strip():
            return
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            await self._write(_error(None, -32700, "a message is one JSON object on a line of its own"))
            return
        number, method = message.get("id"), message.get("method")
        if not isinstance(method, str):
            return  # an answer to a question that a service without sessions never asks
        if method == "notifications/cancelled":
            scope = self._calls.get((message.get("params") or {}).get("requestId", ""))
            if scope is not None:
                scope.cancel()  # the service sees the connection end, and gives up
        elif method == "initialize" or number is None:
            await self._send(message, number)  # what follows depends on it
        else:
            tasks.start_soon(self._serve, message, number)

    async def _serve(self, message: dict[str, Any], number: str | int) -> None:
        with anyio.CancelScope() as scope:
            self._calls[number] = scope
            try:
                await self._send(message, number)
            finally:
                self._calls.pop(number, None)

    async def _send(self, message: dict[str, Any], number: Any) -> None:
        """Have the service answer, and pass on all that it says."""
        answered = False
        try:
            async with self._client.stream(
                "POST", self._url, content=encoded(message), headers=self._about(message)
            ) as r:
                self._session = r.headers.get("mcp-session-id", self._session)
                if r.headers.get("content-type", "").startswith("text/event-stream"):
                    reader = EventReader()
                    async for piece in r.aiter_bytes():
                        for said in reader.feed(piece):
                            answered |= await self._heard(said, message)
                    for said in reader.end():
                        answered |= await self._heard(said, message)
                elif r.is_success or r.headers.get("content-type", "").startswith("application/json"):
                    body = (await r.aread()).decode()
                    answered = bool(body.strip()) and await self._heard(body, message)
                else:
                    await self._refused(number, r.status_code, (await r.aread()).decode(errors="replace"))
                    answered = True
        except httpx2.HTTPError as error:
            logger.warning("%s cannot be asked: %s", self._url, error or type(error).__name__)
            if number is not None:
                why = f"{self._url} cannot be asked: {error or type(error).__name__}"
                await self._write(_error(number, _FAILED, why, _advice(self._url)))
            return
        if number is not None and not answered:
            await self._write(_error(number, _FAILED, f"{self._url} ended its answer too soon", _advice(self._url)))

    async def _heard(self, said: str, message: dict[str, Any]) -> bool:
        """Pass on what the service said; whether that was the answer."""
        if not said.strip():
            return False
        try:
            heard = json.loads(said)
        except ValueError:
            heard = None
        if not isinstance(heard, dict):
            logger.warning("%s said what is no message", self._url)
            return False
        if message["method"] == "initialize" and isinstance(heard.get("result"), dict):
            self._version = str(heard["result"].get("protocolVersion", ""))
        await self._write(heard)
        return heard.get("id") is not None and "method" not in heard

    async def _refused(self, number: Any, status: int, body: str) -> None:
        try:
            problem = json.loads(body)
            why = f"{self._url} refuses: {problem['detail']}"
        except (ValueError, TypeError, KeyError):
            problem, why = {"status": status}, f"{self._url} refuses with the status {status}"
        logger.warning("%s", why)
        if number is not None:
            await self._write(_error(number, _FAILED, why, problem))

    def _about(self, message: dict[str, Any]) -> dict[str, str]:
        """The headers that the transport wants beside a message (2025-06-18 and 2026-07-28)."""
        params = message.get("params") or {}
        meta = params.get("_meta") or {}
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        if version := str(meta.get(_VERSION) or self._version):
            headers["mcp-protocol-version"] = version
        if self._session:
            headers["mcp-session-id"] = self._session
        if _VERSION in meta:
            headers["mcp-method"] = message["method"]
            if name := params.get("name") or params.get("uri"):
                headers["mcp-name"] = _header(str(name))
        return headers

    async def _write(self, message: Any) -> None:
        async with self._writing:
            await self._output.write(encoded(message).decode() + "\n")


def _header(value: str) -> str:
    """A name as a header carries it: as it is, or in the protocol's base64 form where it is not plain ASCII."""
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def _error(number: Any, code: int, message: str, facts: Any = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if facts is not None:
        error["data"] = facts
    return {"jsonrpc": "2.0", "id": number, "error": error}


def _advice(url: str) -> dict[str, Any]:
    return {
        "suggestions": [
            f"Look whether the service runs: {url.removesuffix('/mcp')}/readyz.",
            "Compare the address with the one that `afw serve` names.",
            "Try again: what was asked was not kept here.",
        ],
        "retry_after_seconds": 5,
    }

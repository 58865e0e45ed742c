"""The first request of a client, answered before the server proper is there.

A client can do nothing before its opening request (`initialize`, or `server/discover` in the protocol of 2026-07-28)
is answered, and importing the SDK takes more than half a second. What the server says to it follows from the versions
of this package and of the SDK alone, so it stands in `openings.json`. `answer_opening` answers from there; the server
proper then gets the same bytes, and its own answer, the same again, is dropped (`pipes.Repeated`).

Invariant: what is answered here is what the server proper answers, and the only thing that is. Whatever is not
recognised in full (another SDK, another version of the protocol, an unusual or malformed message, a line that is not
whole) is left to the server proper, untouched. Nothing but the standard library's basics is imported. Proved by
tests/integration/test_mcp_opening.py: the file against the SDK, recognition against the SDK's own validation, and
whole conversations against a server that answers everything itself.
"""

# ruff: noqa: PTH112, PTH118, PTH120, PTH123 -- importing pathlib takes longer than everything that is done here

from __future__ import annotations

import json
import os
import select
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

OPENINGS = "openings.json"
#: Options of `afw` that take a value and may stand before or behind `mcp`.
OPTIONS = frozenset({"--tenant", "--redis-url", "--registry", "--env"})
#: More than any client says of itself; a longer line is left to the server proper.
_LONGEST_LINE = 1 << 16
_DEEPEST = 64
_LARGEST_ID = 1 << 53

_OBJECT: Any = {"*": object}
_EACH_AN_OBJECT: Any = {"*": _OBJECT}
#: What is recognised of a client's capabilities and of its description: `!name` must be there, `*` is any name.
_CAPABILITIES: Any = {
    "roots": {"listChanged": bool},
    "sampling": {"context": {}, "tools": {}},
    "elicitation": {"form": _OBJECT, "url": _OBJECT},
    "tasks": {
        "list": {},
        "cancel": {},
        "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}},
    },
    "experimental": _EACH_AN_OBJECT,
    "extensions": _EACH_AN_OBJECT,
}
_CLIENT: Any = {
    "!name": str,
    "!version": str,
    "title": str,
    "description": str,
    "websiteUrl": str,
    "icons": [{"!src": str, "mimeType": str, "sizes": [str]}],
}
_VERSION = "io.modelcontextprotocol/protocolVersion"
_ENVELOPE: Any = {
    f"!{_VERSION}": str,
    "!io.modelcontextprotocol/clientCapabilities": _CAPABILITIES,
    "io.modelcontextprotocol/clientInfo": _CLIENT,
}
_PARAMS: Any = {
    "initialize": {"!protocolVersion": str, "!capabilities": _CAPABILITIES, "!clientInfo": _CLIENT},
    "server/discover": {"!_meta": _ENVELOPE},
}


class Opening:
    """What was read of the input so far, and the answer to its first line, already written, or None."""

    __slots__ = ("answer", "received")

    def __init__(self, received: bytes = b"", answer: bytes | None = None) -> None:
        self.received = received
        self.answer = answer


def serves_mcp(arguments: Sequence[str]) -> bool:
    """Whether this command line serves MCP and does nothing unusual. Anything else is for the command line proper.

    >>> serves_mcp(["--tenant", "team-a", "mcp"]), serves_mcp(["mcp", "--help"]), serves_mcp(["ask", "mcp"])
    (True, False, False)
    """
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, given, _ = argument.partition("=")
        if name in OPTIONS:
            if not given and next(rest, "-").startswith("-"):
                return False
        else:
            words.append(argument)
    return words == ["mcp"]


def answer_opening(incoming: int = 0, outgoing: int = 1) -> Opening:
    """Wait for the first line of `incoming` and answer it on `outgoing` if it is an opening request as they come."""
    openings = _openings()
    if openings is None or os.isatty(incoming):
        return Opening()
    received = b""
    while b"\n" not in received and len(received) < _LONGEST_LINE:
        try:
            select.select([incoming], [], [])  # the descriptor may be one that does not block
            piece = os.read(incoming, _LONGEST_LINE)
        except OSError:  # the server proper meets the same, and reports it
            return Opening(received)
        if not piece:
            return Opening(received)
        received += piece
    answer = answer_to(received.partition(b"\n")[0], openings)
    if answer is not None:
        try:
            _write(outgoing, answer + b"\n")
        except BrokenPipeError:  # the server proper meets the same, and ends for it
            return Opening(received)
    return Opening(received, answer)


def answer_to(line: bytes, openings: dict[str, Any]) -> bytes | None:
    """The answer to an opening request, byte for byte that of the server proper; None leaves the line to it."""
    message = _parsed(line)
    if not _fits(message, {"!jsonrpc": str, "!id": object, "!method": str, "!params": object}):
        return None
    number, method, params = message["id"], message["method"], message["params"]
    if message["jsonrpc"] != "2.0" or method not in _PARAMS or not _fits(params, _PARAMS[method]):
        return None
    if type(number) is not str and not (type(number) is int and abs(number) < _LARGEST_ID):
        return None
    version = params["protocolVersion"] if method == "initialize" else params["_meta"][_VERSION]
    result = openings[method].get(version)
    return None if result is None else encoded({"jsonrpc": "2.0", "id": number, "result": result})


def encoded(message: Any) -> bytes:
    """JSON as the server proper writes it."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _openings() -> dict[str, Any] | None:
    """The answers, if they are those of the SDK that is installed."""
    sdk = PathFinder.find_spec("mcp")  # finds, and does not import
    if sdk is None or sdk.origin is None:
        return None
    with open(os.path.join(os.path.dirname(__file__), OPENINGS), encoding="utf-8") as file:
        openings: dict[str, Any] = json.load(file)
    installed = os.path.dirname(os.path.dirname(sdk.origin))
    known = os.path.isdir(os.path.join(installed, f"mcp-{openings['sdk']}.dist-info"))
    return openings if known else None


def _parsed(line: bytes) -> Any:
    """The line as JSON; None where parsers might differ: deep nesting, fractions, surrogates, a name given twice."""
    try:
        text = line.decode()
        if text.count("{") + text.count("[") > _DEEPEST or "\\ud" in text.lower():
            return None
        return json.loads(text, parse_float=_refuse, parse_constant=_refuse, object_pairs_hook=_object)
    except ValueError:
        return None


def _refuse(number: str) -> Any:
    raise ValueError(number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _fits(value: Any, shape: Any) -> bool:
    """Whether `value` has the types of `shape`, and no member that `shape` does not name."""
    if shape is object:
        return True
    if isinstance(shape, list):
        return type(value) is list and all(_fits(member, shape[0]) for member in value)
    if isinstance(shape, dict):
        if type(value) is not dict or any(name[0] == "!" and name[1:] not in value for name in shape):
            return False
        for name, member in value.items():
            inner = next((shape[known] for known in (name, "!" + name, "*") if known in shape), None)
            if inner is None or not _fits(member, inner):
                return False
        return True
    return type(value) is shape


def _write(descriptor: int, rest: bytes) -> None:
    while rest:
        select.select([], [descriptor], [])
        rest = rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]

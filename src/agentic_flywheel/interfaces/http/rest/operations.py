"""What an operation of the REST interface is: declared once, as a typed function, and served and described from that.

Invariant: an operation's parameters are read from its signature, so what is validated, what runs and what the document
says cannot differ. Nothing here answers a request.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from starlette.responses import Response

from agentic_flywheel.interfaces.http.routes import Needs

#: Where the interface begins.
BASE = "/api/v2"
_PLACE = re.compile(r"{(\w+)}")
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Operation:
    """One method of one path. `path` has its parameters in braces; `query` and `body` are structs, None where it takes
    none. `returns` is what the response's JSON is made of, None where `produces` (media type -> what it is) says more.

    `tagged` responses carry an ETag that `If-Match` may name; with an
    `Idempotency-Key` it is done `once`; where it changes nothing, or always comes to the same, repeating is `harmless`;
    where a key cannot be honoured it is `refused`. `body_limit` is in bytes, None for the service's own.
    `by_flow`: as for `AccessRoute`.
    """

    method: str
    path: str
    needs: Needs
    group: str
    handler: Callable[..., Awaitable[Any]]
    places: Mapping[str, Any]
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    returns: Any
    status: int = 200
    produces: Mapping[str, str] = field(default_factory=dict)
    takes: str = ""
    wants_request: bool = False
    tagged: bool = False
    repeats: Literal["once", "harmless", "refused"] = "harmless"
    body_limit: int | None = None
    by_flow: bool = False

    @property
    def name(self) -> str:
        """Its id in the document."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.handler) or "").split("\n\n", 1)[0].replace("\n", " ").removesuffix(".")

    @property
    def description(self) -> str:
        """What else is to know of it."""
        parts = (inspect.getdoc(self.handler) or "").split("\n\n")[1:]
        return "\n\n".join(part.replace("\n", " ") for part in parts)


class Operations:
    """The operations of one group, in the order in which they are matched."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.all: list[Operation] = []

    def get(self, path: str, *, needs: Needs, **more: Any) -> Callable[[_Handler], _Handler]:
        """Declare what reads."""
        return self._declare("GET", path, needs, more)

    def post(self, path: str, *, needs: Needs, **more: Any) -> Callable[[_Handler], _Handler]:
        """Declare what makes or does something."""
        return self._declare("POST", path, needs, more)

    def put(self, path: str, *, needs: Needs, **more: Any) -> Callable[[_Handler], _Handler]:
        """Declare what sets something."""
        return self._declare("PUT", path, needs, more)

    def patch(self, path: str, *, needs: Needs, **more: Any) -> Callable[[_Handler], _Handler]:
        """Declare what changes a part of something."""
        return self._declare("PATCH", path, needs, more)

    def delete(self, path: str, *, needs: Needs, **more: Any) -> Callable[[_Handler], _Handler]:
        """Declare what removes."""
        return self._declare("DELETE", path, needs, more)

    def _declare(self, method: str, path: str, needs: Needs, more: Mapping[str, Any]) -> Callable[[_Handler], _Handler]:
        def declare(handler: _Handler) -> _Handler:
            hints = get_type_hints(handler, include_extras=True)
            places = {name: hints[name] for name in _PLACE.findall(path)}
            returns = hints["return"]
            if get_origin(returns) is Reply:
                (returns,) = get_args(returns)
            if returns is type(None) or (isinstance(returns, type) and issubclass(returns, Response)):
                returns = None
            repeats = "harmless" if method != "POST" else "refused" if more.keys() & {"produces", "takes"} else "once"
            made = Operation(
                method=method,
                path=path,
                needs=needs,
                group=self.name,
                handler=handler,
                places=places,
                query=hints.get("query"),
                body=hints.get("body"),
                returns=returns,
                wants_request="request" in hints,
                **{"repeats": repeats, **more},
            )
            self.all.append(made)
            return handler

        return declare


class Reply(msgspec.Struct, Generic[_Value], frozen=True):
    """What a handler gives back where more than the value is to be said."""

    value: _Value
    headers: dict[str, str] = {}
    status: int | None = None


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """Base of lists that come in pages: `next_cursor` continues the list, null at its end."""

    next_cursor: str | None = None

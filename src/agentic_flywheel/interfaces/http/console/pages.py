"""What screens are made of, and what they give: a page is a value, and shown as HTML or JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from agentic_flywheel.interfaces.http.routes import Needs

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.console.forms import Form
    from agentic_flywheel.interfaces.http.console.visit import Visit

#: What a page may load, and where its forms may go: nothing but this service's own files and addresses, nothing inline.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Accept-Language, Cookie",
}


class Page(NamedTuple):
    """A page: its template, and the value that it shows, which is its JSON twin as well."""

    template: str
    view: msgspec.Struct
    status: int = 200


class Went(NamedTuple):
    """Where to go after something was done; `said` is a message that is shown there."""

    url: str
    said: str = ""


class Screen(NamedTuple):
    """A page at a path; see the package. `name` is `nav.NAME` among the words, `place` None keeps it out of there.
    `twin` is the path of its JSON twin, "" for none (a file, say), None for the path with `.json` behind it."""

    path: str
    show: Callable[[Visit], Awaitable[Page | Response]]
    needs: Needs
    name: str
    place: int | None = None
    twin: str | None = None

    @property
    def paths(self) -> dict[str, bool]:
        """Where it is served, and whether as JSON."""
        twin = f"{self.path}.json" if self.twin is None else self.twin
        return {self.path: False} | ({twin: True} if twin else {})


class Action(NamedTuple):
    """What a form does."""

    path: str
    do: Callable[[Visit, Form], Awaitable[Page | Went | Response]]
    needs: Needs


def json_of(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    headers = {"Vary": HEADERS["Vary"]}
    return Response(msgspec.json.encode(_named(value), enc_hook=str), status, headers, "application/json")


def _named(value: Any) -> Any:
    """A value with the names of all its fields: some structs are stored as arrays, which tell a reader nothing."""
    if isinstance(value, msgspec.Struct):
        return {name: _named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {name: _named(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_named(part) for part in value]
    return value

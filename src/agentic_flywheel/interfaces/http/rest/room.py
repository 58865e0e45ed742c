"""The room of the REST interface: its routes, and the document that describes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.interfaces.http.rest.asking import asking
from agentic_flywheel.interfaces.http.rest.openapi import document_of
from agentic_flywheel.interfaces.http.rest.operations import BASE, Operations
from agentic_flywheel.interfaces.http.rest.page import POLICY, page_of
from agentic_flywheel.interfaces.http.rest.serving import RestRoute
from agentic_flywheel.interfaces.http.rest.sessions import sessions
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import PUBLIC, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service

#: All operations, by group, in the order of the document.
GROUPS: tuple[Operations, ...] = (asking, sessions)


def room(_service: Service) -> Room:
    """What the command line does, over HTTP."""
    known: dict[str, list[str]] = {}
    for operation in (one for group in GROUPS for one in group.all):
        known.setdefault(operation.path, []).append(operation.method)
    routes = [RestRoute(one, known[one.path]) for group in GROUPS for one in group.all]
    about = [
        AccessRoute(f"{BASE}/openapi.json", _document, needs=PUBLIC),
        AccessRoute(f"{BASE}/docs", _page, needs=PUBLIC),
    ]
    return Room("rest", [*about, *routes], f"REST at {BASE} (read {BASE}/docs)")


async def _document(_request: Request) -> Response:
    return Response(_written()[0], media_type="application/json")


async def _page(_request: Request) -> Response:
    return Response(_written()[1], media_type="text/html", headers={"Content-Security-Policy": POLICY})


@cache
def _written() -> tuple[bytes, str]:
    """The document and its page; they are the same for everybody."""
    document = document_of(GROUPS)
    return msgspec.json.encode(document), page_of(document, f"{BASE}/openapi.json")

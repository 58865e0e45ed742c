"""The room of the REST interface: its routes, and the document that describes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.interfaces.http.rest.access import access
from agentic_flywheel.interfaces.http.rest.asking import asking
from agentic_flywheel.interfaces.http.rest.entries import entries
from agentic_flywheel.interfaces.http.rest.faq import faq
from agentic_flywheel.interfaces.http.rest.feed import feed
from agentic_flywheel.interfaces.http.rest.figures import figures
from agentic_flywheel.interfaces.http.rest.flows import flows
from agentic_flywheel.interfaces.http.rest.history import history
from agentic_flywheel.interfaces.http.rest.openapi import document_of
from agentic_flywheel.interfaces.http.rest.operations import BASE, Operations
from agentic_flywheel.interfaces.http.rest.page import POLICY, page_of
from agentic_flywheel.interfaces.http.rest.privacy import privacy
from agentic_flywheel.interfaces.http.rest.serving import RestRoute
from agentic_flywheel.interfaces.http.rest.sessions import sessions
from agentic_flywheel.interfaces.http.rest.similar import similar
from agentic_flywheel.interfaces.http.rest.upkeep import upkeep
from agentic_flywheel.interfaces.http.rest.warming import warming
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import PUBLIC, AccessRoute

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service

#: All operations, by group, in the order of the document.
GROUPS: tuple[Operations, ...] = (
    asking,
    sessions,
    history,
    entries,
    flows,
    similar,
    faq,
    warming,
    figures,
    feed,
    access,
    privacy,
    upkeep,
)


def room(_service: Service) -> Room:
    """What the command line does, over HTTP."""
    operations = [one for group in GROUPS for one in group.all]
    known: dict[str, list[str]] = {}
    for one in operations:
        known.setdefault(one.path, []).append(one.method)
    operations.sort(key=lambda one: [part.startswith("{") for part in one.path.split("/")])  # a word before any id
    routes = [RestRoute(one, known[one.path]) for one in operations]
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

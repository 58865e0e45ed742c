"""Search of what was asked and answered: words, meaning, filters, and what was found counted by them."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import InputError
from agentic_flywheel.findings import HistoryPage
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit

#: Filters besides the words, as they stand in the URL.
FILTERS = ("flow", "person", "session", "outcome", "tag", "since", "until")


class SearchView(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked for, and a page of what was found. `flows` are those that can be chosen."""

    query: str
    mode: str
    sort: str
    filters: dict[str, str]
    flows: tuple[str, ...]
    page: HistoryPage


async def show(visit: Visit) -> Page:
    """Search. Without any word, everything that the filters leave, newest first."""
    query = visit.text("q")
    filters = {name: visit.text(name) for name in FILTERS if visit.text(name)}
    mode, sort = visit.text("mode", "both"), visit.text("sort", "relevance")
    person = filters.get("person", "")
    if '"' in person:
        raise InputError('nobody is called so: names of people hold no "', suggestions=("Leave the quotes out.",))
    given = {name: value for name, value in filters.items() if name != "person"}
    page = await visit.flywheel.history.search(
        f'{query} user:"{person}"' if person else query,
        mode=mode,
        sort=sort,
        user=visit.user,
        limit=visit.whole("limit", 20, most=100),
        cursor=visit.text("cursor"),
        **given,
    )
    flows = sorted({*(spec.key for spec in visit.flywheel.flows.list(inactive=True)), *page.facets.get("flow", {})})
    view = SearchView(query=query, mode=mode, sort=sort, filters=filters, flows=tuple(flows), page=page)
    return Page("search.html", view)


SCREENS = (Screen("/search", show, needs=Scope.READ, name="search", place=15),)
ACTIONS: tuple[Action, ...] = ()

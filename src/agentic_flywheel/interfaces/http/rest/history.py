"""What was asked: search, what is popular, what is asked next; and the index that finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

import msgspec
from starlette.responses import StreamingResponse

from agentic_flywheel.callers import Scope
from agentic_flywheel.findings import Found, HistoryPage, IndexState, SearchMode, SearchSort
from agentic_flywheel.insight.paths import NextQuestion
from agentic_flywheel.insight.popular import PopularQuestion
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.problems import known_error, problem_of
from agentic_flywheel.interfaces.http.rest.arguments import (
    Cursor,
    Days,
    FlowFilter,
    Limit,
    Meta,
    Moment,
    Query,
    Removal,
    SessionId,
    UserId,
    carried_out,
)
from agentic_flywheel.interfaces.http.rest.events import event
from agentic_flywheel.interfaces.http.rest.operations import Items, Operations
from agentic_flywheel.interfaces.http.rest.shapes import given_out
from agentic_flywheel.interfaces.http.sight import admit_session
from agentic_flywheel.model import Receipt

history = Operations("history", "What was asked and answered, found again.")

_STREAM = "text/event-stream"


class Search(Query, frozen=True, kw_only=True):
    """What is looked for. `query` is words, "phrases", -not, and filters in the text (flow:docs since:2d)."""

    query: Annotated[
        str, Meta(max_length=2000, description='Words, "phrases", -not, filters (flow:docs since:2d).')
    ] = ""
    mode: SearchMode = SearchMode.BOTH
    flow: FlowFilter = ""
    user_id: UserId | None = None
    session_id: SessionId | None = None
    outcome: Annotated[str, Meta(max_length=64, description="Only answers that came to be so: hit, miss, ...")] = ""
    tag: Annotated[str, Meta(max_length=256, description="Only sessions with this tag.")] = ""
    since: Moment = ""
    until: Moment = ""
    sort: SearchSort = SearchSort.RELEVANCE
    limit: Limit = 10
    cursor: Cursor = ""


class FoundItems(Items, frozen=True, kw_only=True):
    """Turns that were found. `total` is exact unless `more_than_total`; `facets` counts all by flow, user, outcome and
    day. Marks are offsets (start, end) of the words looked for. `mode` is how it compared in fact."""

    items: tuple[Found, ...]
    total: int
    more_than_total: bool
    facets: Mapping[str, Mapping[str, int]]
    mode: SearchMode
    index: str
    behind: int
    elapsed_ms: float
    warnings: tuple[str, ...]


@history.get("/search", needs=Scope.READ, by_flow=True)
async def search(call: Call, query: Search) -> FoundItems:
    """Search what was asked and answered, by words and by meaning.

    Without words, what the filters leave is listed, newest first. user_id is who searches, for whom nothing that is
    only for others is shown; the turns of one person are found with user:ann in the query.
    """
    if query.session_id is not None:
        await admit_session(call, query.session_id)
    page: HistoryPage = await call.flywheel.history.search(
        query.query,
        mode=query.mode,
        flow=call.one_flow(query.flow),
        user=call.speaks_for(query.user_id),
        session=query.session_id,
        outcome=query.outcome,
        tag=query.tag,
        since=query.since,
        until=query.until,
        limit=query.limit,
        cursor=query.cursor,
        sort=query.sort,
    )
    facts = {name: getattr(page, name) for name in FoundItems.__struct_fields__ if name not in {"items", "next_cursor"}}
    return FoundItems(items=page.found, next_cursor=page.cursor, **facts)


class PopularFilter(Query, frozen=True, kw_only=True):
    """Over which days, of which flow."""

    days: Days = 30
    flow: FlowFilter | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most so many.")] = 20


class PopularQuestions(msgspec.Struct, frozen=True, kw_only=True):
    """The questions that were asked most, most asked first."""

    items: tuple[PopularQuestion, ...]


@history.get("/popular", needs=Scope.READ, by_flow=True)
async def popular(call: Call, query: PopularFilter) -> PopularQuestions:
    """What is asked most, whatever words it is asked in.

    Only what everybody of the tenant may see is counted.
    """
    found = await call.flywheel.popular.list(query.days, call.one_flow(query.flow), query.limit)
    return PopularQuestions(items=tuple(found))


class PathFilter(Query, frozen=True, kw_only=True):
    """After which question, over which days."""

    question: Annotated[str, Meta(min_length=1, description="Its text, or the name of its cluster.")]
    then: Annotated[tuple[str, ...], Meta(max_length=2, description="Asked after it; may be given twice.")] = ()
    days: Days = 30
    flow: FlowFilter | None = None
    limit: Limit = 10


class NextQuestions(msgspec.Struct, frozen=True, kw_only=True):
    """What people asked next, most asked first."""

    items: tuple[NextQuestion, ...]


@history.get("/paths", needs=Scope.READ)
async def paths(call: Call, query: PathFilter) -> NextQuestions:
    """What people ask next, after a question.

    A step is shown once two different people took it.
    """
    found = await call.flywheel.popular.next(
        query.question, *query.then, days=query.days, flow=query.flow or None, limit=query.limit
    )
    return NextQuestions(items=tuple(found))


@history.get("/index", needs=Scope.READ)
async def show_index(call: Call) -> IndexState:
    """What the index of history holds."""
    state = await call.flywheel.history.state()
    return state if call.caller.may(Scope.ADMIN) else msgspec.structs.replace(state, where="")


@history.post(
    "/index/rebuild",
    needs=Scope.ADMIN,
    produces={_STREAM: "Events: progress (stage, done, total), then index (as /index gives it) or error."},
)
async def rebuild_index(call: Call) -> StreamingResponse:
    """Make the index anew from Redis, and read how far it is.

    It goes on while somebody listens.
    """
    await call.flywheel.audit.record("index.rebuild", "history", by=call.caller.actor)
    return StreamingResponse(_rebuilding(call), 200, {"Cache-Control": "no-cache"}, _STREAM)


async def _rebuilding(call: Call) -> AsyncIterator[bytes]:
    news: asyncio.Queue[bytes] = asyncio.Queue()

    def progress(stage: str, done: int, total: int) -> None:
        news.put_nowait(event("progress", {"stage": stage, "done": done, "total": total}))

    async def work() -> None:
        try:
            state = await call.flywheel.history.rebuild(progress)
            news.put_nowait(event("index", given_out(state, IndexState)))
        except Exception as error:  # noqa: BLE001 -- the status has been sent: the stream itself says what went wrong
            news.put_nowait(event("error", problem_of(known_error(error, call)[0], call)))

    task = asyncio.create_task(work())
    try:
        while not (task.done() and news.empty()):
            waiting = asyncio.create_task(news.get())
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                yield waiting.result()
            else:
                waiting.cancel()
    finally:
        task.cancel()


@history.delete("/index", needs=Scope.ADMIN)
async def drop_index(call: Call, query: Removal) -> Receipt:
    """Give the index up that is in use; it is made anew when it is next needed."""
    kept = call.flywheel.history
    return await carried_out(
        call, "index.drop", "history", lambda dry: kept.drop(dry_run=dry), dry_run=query.dry_run, why=query.why
    )

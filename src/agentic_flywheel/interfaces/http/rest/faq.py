"""The FAQ: what askers are given; and for those who look after it, all that a person does about it.

Invariant: of two who change an entry at the same time the second is told: with the revision in the body (409), or with
`If-Match` (412).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.curated import FaqCandidate, FaqChange, FaqList, FaqView
from agentic_flywheel.errors import EditConflict, InputError, PreconditionFailed, UnknownFaqEntry
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    DryRun,
    FlowFilter,
    FlowKey,
    Meta,
    Query,
    UserId,
    person_of,
)
from agentic_flywheel.interfaces.http.rest.operations import Operations, Reply
from agentic_flywheel.model import Receipt

faq = Operations("faq", "Answers that somebody stands behind.")

FaqId = Annotated[str, Meta(min_length=1, max_length=128, description="An entry's id; it may be shortened.")]
_Text = Annotated[str, Meta(max_length=100_000)]
_Wordings = Annotated[tuple[str, ...], Meta(max_length=1000)]


class FaqFilter(Query, frozen=True, kw_only=True):
    """Which entries."""

    query: Annotated[str, Meta(max_length=2000, description="Words that it is to fit.")] = ""
    flow: FlowFilter | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most so many.")] = 100


class FaqViews(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of the FAQ."""

    items: tuple[FaqView, ...]


@faq.get("/faq", needs=Scope.READ)
async def list_faq(call: Call, query: FaqFilter) -> FaqViews:
    """What askers are given now; with a query what fits its words, best first."""
    found = await call.flywheel.faq.published(flow=query.flow or None, query=query.query, limit=query.limit)
    return FaqViews(items=tuple(found))


class FaqForm(Query, frozen=True, kw_only=True):
    """How it is written."""

    form: Literal["markdown", "json"] = "markdown"
    flow: FlowFilter | None = None
    everything: Annotated[bool, Meta(description="What was approved and is not served now, too.")] = False


@faq.get(
    "/faq/export",
    needs=Scope.READ,
    produces={"text/markdown": "The FAQ to read,", "application/json": "or for programs."},
)
async def export_faq(call: Call, query: FaqForm) -> Response:
    """The FAQ as one document: Markdown, or JSON."""
    text = await call.flywheel.faq.export(form=query.form, flow=query.flow or None, everything=query.everything)
    return Response(text, media_type="application/json" if query.form == "json" else "text/markdown")


class Desk(Query, frozen=True, kw_only=True):
    """What is looked at, and over which days candidates are counted."""

    flow: FlowFilter | None = None
    retired: Annotated[bool, Meta(description="Retired entries, too.")] = False
    days: Annotated[int, Meta(ge=1, le=90, description="Count candidates over so many days.")] = 30
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most so many candidates.")] = 20


@faq.get("/faq/entries", needs=Scope.ADMIN)
async def list_faq_entries(call: Call, query: Desk) -> FaqList:
    """All entries, what waits for a person first; and the candidates: questions that many ask."""
    return await call.flywheel.faq.list(
        flow=query.flow or None, retired=query.retired, days=query.days, limit=query.limit
    )


class NewFaqEntry(Body, frozen=True, kw_only=True):
    """An entry to begin: question and answer, or a turn that has them."""

    question: _Text = ""
    answer: _Text = ""
    wordings: _Wordings = ()
    flow: FlowKey | None = None
    turn_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    user_id: UserId | None = None


@faq.post("/faq/entries", needs=Scope.ADMIN, status=201, tagged=True)
async def add_faq_entry(call: Call, body: NewFaqEntry) -> Reply[FaqView]:
    """Begin an entry; it is served once it is approved."""
    return _tagged(
        await call.flywheel.faq.add(
            body.question,
            body.answer,
            flow=body.flow,
            wordings=body.wordings,
            turn=body.turn_id,
            by=person_of(call, body.user_id),
        )
    )


class FaqFile(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with its history, oldest change first; or the candidate of this id, with neither."""

    view: FaqView | None = None
    history: tuple[FaqChange, ...] = ()
    candidate: FaqCandidate | None = None


@faq.get("/faq/entries/{faq_id}", needs=Scope.ADMIN, tagged=True)
async def show_faq_entry(call: Call, faq_id: FaqId) -> Reply[FaqFile]:
    """One entry with its history, or a candidate."""
    try:
        view = await call.flywheel.faq.show(faq_id)
    except UnknownFaqEntry:
        return Reply(FaqFile(candidate=await call.flywheel.faq.candidate(faq_id)))
    history = tuple(await call.flywheel.faq.history(view.id))
    return Reply(FaqFile(view=view, history=history), {"ETag": _tag(view)})


class FaqEdit(Body, frozen=True, kw_only=True):
    """New words; what is left out or null stays. `revision` is the one that was read."""

    question: _Text | None = None
    answer: _Text | None = None
    wordings: _Wordings | None = None
    turn_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    user_id: UserId | None = None
    revision: Annotated[int, Meta(ge=1)] | None = None


@faq.patch("/faq/entries/{faq_id}", needs=Scope.ADMIN, tagged=True)
async def edit_faq_entry(call: Call, faq_id: FaqId, body: FaqEdit, request: Request) -> Reply[FaqView]:
    """Change the words of an entry, or begin one from a candidate; what is served changes once it is approved."""
    revision, named = _revision(request, body.revision)
    try:
        view = await call.flywheel.faq.edit(
            faq_id,
            question=body.question,
            answer=body.answer,
            wordings=body.wordings,
            turn=body.turn_id,
            by=person_of(call, body.user_id),
            revision=revision,
        )
    except EditConflict as error:
        raise _conflict(error, named=named) from error
    return _tagged(view)


class Wordings(Body, frozen=True, kw_only=True):
    """Questions, as texts or ids of candidates; to join, none are all that seem to ask the same."""

    wordings: _Wordings = ()
    user_id: UserId | None = None


class FaqLeft(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate or the entry as it is afterwards; neither where the candidate asks for no place any more."""

    candidate: FaqCandidate | None = None
    view: FaqView | None = None


@faq.post("/faq/entries/{faq_id}/join", needs=Scope.ADMIN)
async def join_faq_wordings(call: Call, faq_id: FaqId, body: Wordings) -> FaqLeft:
    """Say that questions ask the same: they become wordings of a candidate, or of an entry once it is approved."""
    return _left(await call.flywheel.faq.join(faq_id, *body.wordings, by=person_of(call, body.user_id)))


@faq.post("/faq/entries/{faq_id}/split", needs=Scope.ADMIN)
async def split_faq_wordings(call: Call, faq_id: FaqId, body: Wordings) -> FaqLeft:
    """Say that wordings of a candidate or an entry ask something else.

    They are never given its answer as a similar question.
    """
    if not body.wordings:
        raise InputError("name the wordings that ask something else", param="wordings")
    return _left(await call.flywheel.faq.split(faq_id, *body.wordings, by=person_of(call, body.user_id)))


def _left(found: FaqCandidate | FaqView | None) -> FaqLeft:
    return FaqLeft(view=found) if isinstance(found, FaqView) else FaqLeft(candidate=found)


class Approval(Body, frozen=True, kw_only=True):
    """Who answers for it, and when it is to be looked at again (epoch seconds; 0: never)."""

    owner: Annotated[str, Meta(max_length=256)] = ""
    review_at: Annotated[float, Meta(ge=0, le=253_402_300_799)] | None = None
    user_id: UserId | None = None
    revision: Annotated[int, Meta(ge=1)] | None = None


@faq.post("/faq/entries/{faq_id}/approve", needs=Scope.ADMIN, tagged=True)
async def approve_faq_entry(call: Call, faq_id: FaqId, body: Approval, request: Request) -> Reply[FaqView]:
    """Have an entry, or a candidate with its stored answer, served as it is now.

    At once and in every process, until its flow changes or somebody retires it.
    """
    revision, named = _revision(request, body.revision)
    await call.flywheel.audit.record("faq.approve", faq_id, by=call.caller.actor)
    try:
        view = await call.flywheel.faq.approve(
            faq_id,
            owner=body.owner,
            review_at=body.review_at,
            by=person_of(call, body.user_id),
            revision=revision,
        )
    except EditConflict as error:
        raise _conflict(error, named=named) from error
    return _tagged(view)


class Retirement(Body, frozen=True, kw_only=True):
    """Why, and whether the entry is removed for good (`purge`)."""

    reason: Annotated[str, Meta(max_length=1000)] = ""
    purge: bool = False
    user_id: UserId | None = None
    dry_run: DryRun = False


@faq.post("/faq/entries/{faq_id}/retire", needs=Scope.ADMIN)
async def retire_faq_entry(call: Call, faq_id: FaqId, body: Retirement) -> Receipt:
    """Take an entry out of service; a candidate is not proposed again."""
    if not body.dry_run:
        await call.flywheel.faq.retire(faq_id, purge=body.purge, dry_run=True)
        action = "faq.purge" if body.purge else "faq.retire"
        await call.flywheel.audit.record(action, faq_id, by=call.caller.actor, why=body.reason)
    return await call.flywheel.faq.retire(
        faq_id,
        reason=body.reason,
        purge=body.purge,
        by=person_of(call, body.user_id),
        dry_run=body.dry_run,
    )


@faq.get("/faq/{faq_id}", needs=Scope.READ)
async def show_faq(call: Call, faq_id: FaqId) -> FaqView:
    """One entry that was approved, served or stale."""
    return await call.flywheel.faq.get(faq_id)


def _tag(view: FaqView) -> str:
    return f'"{view.id}-{view.entry.revision}"'


def _tagged(view: FaqView) -> Reply[FaqView]:
    return Reply(view, {"ETag": _tag(view)})


def _revision(request: Request, said: int | None) -> tuple[int | None, bool]:
    """The revision that a change is made to, and whether `If-Match` named it."""
    tag = request.headers.get("if-match")
    if tag is None or tag.strip() == "*":
        return said, False
    number = tag.strip().removeprefix('"').removesuffix('"').rpartition("-")[2]
    if not (number.isascii() and number.isdecimal() and len(number) < 16 and int(number)):
        raise InputError("If-Match is not the ETag of an entry", param="If-Match")
    return int(number), True


def _conflict(error: EditConflict, *, named: bool) -> EditConflict:
    return PreconditionFailed(error.message, **error.details) if named else error

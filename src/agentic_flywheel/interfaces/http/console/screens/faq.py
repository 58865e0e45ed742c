"""The FAQ at a glance: what waits for a person, what asks for a place, what is served; and the document of it."""

from __future__ import annotations

from typing import Self

import msgspec
from starlette.responses import Response

from agentic_flywheel.callers import Scope
from agentic_flywheel.curated import FaqCandidate, FaqState, FaqView
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.model import Sharing


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in a list; `review_at` None: never, or not approved."""

    id: str
    state: FaqState
    why: str
    flow: str
    question: str
    wordings: int
    pending: bool
    owner: str
    review_at: float | None
    approved_at: float | None
    changed_at: float
    changed_by: str

    @classmethod
    def of(cls, view: FaqView) -> Self:
        """The row of an entry; of one that is served, its question is the one that is."""
        entry, said = view.entry, view.entry.published
        return cls(
            id=view.id,
            state=view.state,
            why=view.why,
            flow=entry.flow,
            question=entry.question,
            wordings=len(entry.wordings),
            pending=entry.pending,
            owner=entry.owner,
            review_at=(said.review_at or None) if said else None,
            approved_at=said.at if said else None,
            changed_at=entry.changed_at,
            changed_by=entry.changed_by,
        )


class CandidateRow(msgspec.Struct, frozen=True, kw_only=True):
    """A question that asks for a place; `wordings` are the other ways in which people asked it, `alike` questions that
    seem to ask the same, which a person is to judge; `near` is the one before it that it may belong to."""

    id: str
    flow: str
    question: str
    wordings: tuple[str, ...]
    asked: int
    askers: int
    last_at: float
    answered: bool
    alike: tuple[str, ...]
    near: str

    @classmethod
    def of(cls, found: FaqCandidate) -> Self:
        """The row of a candidate."""
        return cls(
            id=found.id,
            flow=found.flow,
            question=found.question,
            wordings=found.wordings,
            asked=found.asked,
            askers=found.askers,
            last_at=found.last_at,
            answered=bool(found.answer),
            alike=found.alike,
            near=found.near,
        )


class FaqPage(msgspec.Struct, frozen=True, kw_only=True):
    """The FAQ: `waiting` for a person, `candidates`, `served`, and `retired` where it is wanted (`everything`)."""

    flow: str
    query: str
    flows: tuple[str, ...]
    everything: bool
    waiting: tuple[EntryRow, ...]
    candidates: tuple[CandidateRow, ...]
    served: tuple[EntryRow, ...]
    retired: tuple[EntryRow, ...]
    warnings: tuple[str, ...]


async def show(visit: Visit) -> Page:
    """The FAQ; with `q`, what is served is what fits its words."""
    flow, query, everything = visit.text("flow"), visit.text("q"), visit.text("all") == "1"
    faq = visit.flywheel.faq
    found = await faq.list(flow=flow or None, retired=True)
    served = [view for view in found.entries if view.state.served]
    page = FaqPage(
        flow=flow,
        query=query,
        flows=shared_flows(visit),
        everything=everything,
        waiting=tuple(EntryRow.of(view) for view in found.entries if _waits(view)),
        candidates=tuple(map(CandidateRow.of, found.candidates)),
        served=tuple(map(EntryRow.of, await faq.published(flow=flow or None, query=query) if query else served)),
        retired=tuple(EntryRow.of(view) for view in found.entries if everything and view.state is FaqState.RETIRED),
        warnings=found.warnings,
    )
    return Page("faq.html", page)


async def export(visit: Visit) -> Response:
    """What is served as a document, Markdown or JSON; with `all=1` what was approved and is not served now, too."""
    form = visit.text("form", "markdown")
    flow, everything = visit.text("flow") or None, visit.text("all") == "1"
    text = await visit.flywheel.faq.export(form=form, flow=flow, everything=everything)
    kind, ending = ("application/json", "json") if form == "json" else ("text/markdown", "md")
    return Response(text, headers={"Content-Disposition": f'attachment; filename="faq.{ending}"'}, media_type=kind)


def shared_flows(visit: Visit) -> tuple[str, ...]:
    """The flows that may have an FAQ: those that share with the team."""
    return tuple(spec.key for spec in visit.flywheel.flows.list() if spec.sharing is Sharing.TEAM)


def _waits(view: FaqView) -> bool:
    """Whether a person is to look at it."""
    return view.state not in {FaqState.PUBLISHED, FaqState.RETIRED} or (view.entry.pending and view.state.served)


SCREENS = (
    Screen("/faq", show, needs=Scope.READ, name="faq", place=40),
    Screen("/faq/export", export, needs=Scope.READ, name="faq", twin=""),
)
ACTIONS: tuple[Action, ...] = ()

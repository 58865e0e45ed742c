"""Changes that evidence suggests, for a person to decide."""

from __future__ import annotations

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.console.doing import who, written_down
from agentic_flywheel.interfaces.http.console.forms import Form
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen, Went
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.likeness import Proposal


class ProposalsPage(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a decision, what was decided, and how many questions ask for a place in the FAQ."""

    open: tuple[Proposal, ...]
    decided: tuple[Proposal, ...]
    candidates: int


async def show(visit: Visit) -> Page:
    """All proposals, newest first; what evidence suggests by now is among them."""
    found = await visit.flywheel.similar.proposals(all=True)
    page = ProposalsPage(
        open=tuple(one for one in found if one.state == "open"),
        decided=tuple(one for one in found if one.state != "open"),
        candidates=len((await visit.flywheel.faq.list()).candidates),
    )
    return Page("proposals.html", page)


async def decide(visit: Visit, form: Form) -> Went:
    """Put a proposal in force, or turn it down with a reason."""
    id_, reason = form.required("id"), form.text("reason")
    if form.text("decision") == "accept":
        await written_down(visit, "proposal.accept", id_)
        await visit.flywheel.similar.accept(id_, by=who(visit))
        return Went("/proposals", said="proposal_accepted")
    await written_down(visit, "proposal.reject", id_, why=reason)
    await visit.flywheel.similar.reject(id_, reason=reason, by=who(visit))
    return Went("/proposals", said="proposal_rejected")


SCREENS = (Screen("/proposals", show, needs=Scope.READ, name="proposals", place=60),)
ACTIONS = (Action("/proposals/decide", decide, needs=Scope.ADMIN),)

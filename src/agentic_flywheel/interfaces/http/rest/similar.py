"""Similar questions: what holds for each flow, what is known, reports, proposals."""

from __future__ import annotations

from typing import Annotated

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import UnknownProposal
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.rest.arguments import (
    Body,
    FlowFilter,
    FlowKey,
    Meta,
    Query,
    UserId,
    person_of,
)
from agentic_flywheel.interfaces.http.rest.operations import Operations
from agentic_flywheel.likeness import CutChange, Profile, Proposal, Report, SimilarMode, SimilarStatus

similar = Operations("similar", "Similar questions: policies, evidence, reports, proposals.")


class Statuses(msgspec.Struct, frozen=True, kw_only=True):
    """How each active flow stands."""

    items: tuple[SimilarStatus, ...]


@similar.get("/similar", needs=Scope.READ)
async def list_similar(call: Call) -> Statuses:
    """How similar questions stand, flow by flow."""
    flows = call.flywheel.flows.list()
    return Statuses(items=tuple([await call.flywheel.similar.status(spec.key) for spec in flows]))


@similar.get("/similar/{flow}", needs=Scope.READ, by_flow=True)
async def show_similar(call: Call, flow: FlowKey) -> SimilarStatus:
    """How one flow stands: what holds and who said so, the cut and why, labels, the measured error, reports."""
    return await call.flywheel.similar.status(call.one_flow(flow) or flow)


class SimilarSet(Body, frozen=True, kw_only=True):
    """What is decided; what is left out stays as it is."""

    profile: Profile | None = None
    mode: SimilarMode | None = None
    max_error: (
        Annotated[float, Meta(ge=0.0001, le=0.5, description="Largest share of wrong similar answers.")] | None
    ) = None


@similar.patch("/similar/{flow}", needs=Scope.ADMIN)
async def set_similar(call: Call, flow: FlowKey, body: SimilarSet) -> SimilarStatus:
    """Decide for a flow: profile, mode, the budget of wrong answers; at once in every process."""
    said = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    key = call.flywheel.flows.show(flow).key
    await call.flywheel.audit.record("similar.set", key, by=call.caller.actor, **said)
    return await call.flywheel.similar.set(key, **said)


class SimilarReset(Query, frozen=True, kw_only=True):
    """How much is taken back."""

    labels: Annotated[bool, Meta(description="Forget what was learnt, too; the cut starts anew.")] = False


@similar.delete("/similar/{flow}", needs=Scope.ADMIN)
async def reset_similar(call: Call, flow: FlowKey, query: SimilarReset) -> SimilarStatus:
    """Take back what was decided: registry and settings hold again."""
    key = call.flywheel.flows.show(flow).key
    await call.flywheel.audit.record("similar.reset", key, by=call.caller.actor, labels=query.labels)
    return await call.flywheel.similar.reset(key, labels=query.labels)


class CutChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of a flow's cut with their evidence, newest first."""

    items: tuple[CutChange, ...]


@similar.get("/similar/{flow}/changes", needs=Scope.READ, by_flow=True)
async def list_cut_changes(call: Call, flow: FlowKey) -> CutChanges:
    """Every change of a flow's cut with its evidence, newest first."""
    return CutChanges(items=tuple(await call.flywheel.similar.changes(call.one_flow(flow) or flow)))


class ReportFilter(Query, frozen=True, kw_only=True):
    """Of which flow."""

    flow: FlowFilter | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="At most so many.")] = 20


class Reports(msgspec.Struct, frozen=True, kw_only=True):
    """What people reported, newest first."""

    items: tuple[Report, ...]


@similar.get("/reports", needs=Scope.ADMIN)
async def list_reports(call: Call, query: ReportFilter) -> Reports:
    """What people reported, newest first."""
    return Reports(items=tuple(await call.flywheel.similar.reports(limit=query.limit, flow=query.flow or None)))


class ProposalFilter(Query, frozen=True, kw_only=True):
    """Which of them."""

    all: Annotated[bool, Meta(description="Those that were decided, too.")] = False


class Proposals(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that evidence suggests, newest first."""

    items: tuple[Proposal, ...]


ProposalId = Annotated[str, Meta(min_length=1, max_length=128, description="A proposal's id.")]


class Decision(Body, frozen=True, kw_only=True):
    """Who decides, and why."""

    user_id: UserId | None = None
    reason: Annotated[str, Meta(max_length=1000)] = ""


@similar.get("/proposals", needs=Scope.READ)
async def list_proposals(call: Call, query: ProposalFilter) -> Proposals:
    """Changes that evidence suggests; nothing changes before a person accepts one."""
    return Proposals(items=tuple(await call.flywheel.similar.proposals(all=query.all)))


@similar.post("/proposals/{proposal_id}/accept", needs=Scope.ADMIN)
async def accept_proposal(call: Call, proposal_id: ProposalId, body: Decision) -> Proposal:
    """Put a proposal in force, in every process."""
    await _recorded(call, "proposal.accept", proposal_id, body.reason)
    return await call.flywheel.similar.accept(proposal_id, by=person_of(call, body.user_id))


@similar.post("/proposals/{proposal_id}/reject", needs=Scope.ADMIN)
async def reject_proposal(call: Call, proposal_id: ProposalId, body: Decision) -> Proposal:
    """Turn a proposal down; it is not made again for a month."""
    await _recorded(call, "proposal.reject", proposal_id, body.reason)
    return await call.flywheel.similar.reject(proposal_id, reason=body.reason, by=person_of(call, body.user_id))


async def _recorded(call: Call, action: str, proposal_id: str, why: str) -> None:
    found = next((one for one in await call.flywheel.similar.proposals() if one.id == proposal_id), None)
    if found is None:
        raise UnknownProposal(f"no open proposal {proposal_id!r}", proposal_id=proposal_id)
    change = f"{found.setting} {found.now} -> {found.proposed}"
    await call.flywheel.audit.record(action, proposal_id, by=call.caller.actor, why=why, flow=found.flow, change=change)

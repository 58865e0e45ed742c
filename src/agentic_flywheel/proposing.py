"""Changes that evidence suggests and a person decides: another profile, another lifetime.

Invariant: nothing is changed here but by a person's word, and that word holds at once for every process. What was
turned down is not proposed again for a month.
"""

from __future__ import annotations

import time
from datetime import timedelta

from agentic_flywheel.errors import UnknownProposal
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.lifetimes import Lifetimes
from agentic_flywheel.likeness import Profile, Proposal
from agentic_flywheel.matching import Matching
from agentic_flywheel.policy.identity import digest
from agentic_flywheel.policy.similarity.budget import Evidence
from agentic_flywheel.policy.similarity.proposals import Draft, Refreshes, drafts_of
from agentic_flywheel.store.store import Store

#: A change that was turned down is left alone for so long.
QUIET_SECONDS = 30 * 86400.0
#: Refreshes and reports of so many days count.
_DAYS = 30


class Proposing:
    """The proposals of one tenant."""

    def __init__(self, registry: Registry, store: Store, matching: Matching, lifetimes: Lifetimes) -> None:
        self._registry = registry
        self._store = store
        self._matching = matching
        self._lifetimes = lifetimes

    async def proposals(self, *, decided: bool) -> list[Proposal]:
        """The open proposals (with `decided`: all), newest first; what evidence suggests by now is among them."""
        now = time.time()
        known = await self._store.similar.proposals()
        for spec in self._registry.current().active():
            for draft in await self._drafts(spec, now):
                if not any(_answers(proposal, draft, now) for proposal in known):
                    await self._store.similar.put_proposal(draft)
                    known.append(draft)
        known.sort(key=lambda proposal: proposal.at, reverse=True)
        return [proposal for proposal in known if decided or proposal.state == "open"]

    async def accept(self, id: str, *, by: str) -> Proposal:  # noqa: A002
        """Put an open proposal in force."""
        proposal = await self._decide(id, "accepted", by=by, reason="")
        if proposal.setting == "ttl":
            await self._lifetimes.set(f"flow:{proposal.flow}", timedelta(seconds=float(proposal.proposed)))
        else:
            await self._store.similar.set_override(proposal.flow, profile=Profile(proposal.proposed))
        return proposal

    async def reject(self, id: str, *, reason: str, by: str) -> Proposal:  # noqa: A002
        """Turn an open proposal down."""
        return await self._decide(id, "rejected", by=by, reason=reason)

    async def _decide(self, id: str, state: str, *, by: str, reason: str) -> Proposal:  # noqa: A002
        decided = await self._store.similar.decide_proposal(id, state, by=by, reason=reason, at=time.time())
        if decided is None:
            raise UnknownProposal(f"there is no open proposal {id!r}", proposal_id=id)
        return decided

    async def _drafts(self, spec: FlowSpec, now: float) -> list[Proposal]:
        state = await self._store.similar.state(spec.key, self._matching.fingerprint)
        fields = await self._store.counters.read(spec.key, days=_DAYS, now=now)
        ttls = await self._store.flows.type_ttls()
        lifetime = self._lifetimes.of(spec, await self._store.flows.state(spec.key), ttls.get(spec.type))
        found = drafts_of(
            Evidence.read(state.evidence),
            self._matching.terms_of(spec, state),
            self._matching.calibration,
            ttl_seconds=lifetime.ttl.total_seconds(),
            refreshes=Refreshes(
                same=fields.get("refresh_same", 0),
                different=fields.get("refresh_different", 0),
                outdated=fields.get("report:outdated", 0),
            ),
        )
        return [_proposal(spec.key, draft, now) for draft in found]


def _proposal(flow: str, draft: Draft, now: float) -> Proposal:
    # Processes that come to the same proposal in the same month make one of it.
    name = digest("proposal", flow, draft.setting, draft.now, draft.proposed, str(int(now // QUIET_SECONDS)))
    return Proposal(
        id=name[:12],
        flow=flow,
        setting=draft.setting,
        now=draft.now,
        proposed=draft.proposed,
        evidence=draft.evidence,
        at=now,
    )


def _answers(known: Proposal, draft: Proposal, now: float) -> bool:
    """Whether a draft was made before, and is open or was answered not long ago."""
    if (known.flow, known.setting, known.proposed) != (draft.flow, draft.setting, draft.proposed):
        return False
    return known.state == "open" or now - (known.decided_at or known.at) < QUIET_SECONDS

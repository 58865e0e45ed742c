"""Similar questions as people look after them: explain, report, see what was learnt, decide.

Invariant: what is set here holds for every process with its next question; nothing here widens what may be served
beyond the floor that policy sets.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError
from agentic_flywheel.explaining import Explaining
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.learning import Learning
from agentic_flywheel.likeness import (
    CutChange,
    Explanation,
    Profile,
    Proposal,
    Report,
    ReportKind,
    ReportReceipt,
    SimilarMode,
    SimilarStatus,
)
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Answer, Directives
from agentic_flywheel.policy.context import Domain
from agentic_flywheel.policy.similarity.budget import Evidence, LabelSource, bands, interval, loosest
from agentic_flywheel.proposing import Proposing
from agentic_flywheel.questions import Planner
from agentic_flywheel.reporting import Reporting
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.store.store import Store

_LOAD_SECONDS = 30.0


class Similar:
    """The similar questions of one tenant.

    async with Flywheel.open() as flywheel:
        shown = await flywheel.similar.explain("How long are answers kept?")
        for near in shown.similar:
            print(near.similarity, near.question, near.why)
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        planner: Planner,
        behind: WriteBehind,
        embedding: Embedding,
        matching: Matching,
        learning: Learning,
        explaining: Explaining,
        reporting: Reporting,
        proposing: Proposing,
    ) -> None:
        self._registry = registry
        self._store = store
        self._planner = planner
        self._behind = behind
        self._embedding = embedding
        self._matching = matching
        self._learning = learning
        self._explaining = explaining
        self._reporting = reporting
        self._proposing = proposing

    async def ready(self, patience_seconds: float = _LOAD_SECONDS) -> bool:
        """Wait until similar questions can be looked for (the model is loaded); False where they cannot, or not yet.

        Questions do not wait: until then only their exact words count.
        """
        return await self._embedding.ready(patience_seconds)

    async def explain(
        self,
        question: str,
        *,
        session: str | None = None,
        flow: str | None = None,
        user: str | None = None,
        intent: str | None = None,
        directives: Directives | None = None,
        config: Mapping[str, Any] | None = None,
        domain: Domain | None = None,
        count: int = 5,
    ) -> Explanation:
        """What would come of a question, with its `count` nearest stored ones; nothing is asked or written.

        Raises `InputError`, `UnknownFlow` and `UnknownSession`.
        """
        if not 1 <= count <= 50:
            raise InputError(f"1 to 50 stored questions can be shown, not {count}")
        asked = self._planner.admit(
            question,
            session=session,
            flow=flow,
            user=user,
            intent=intent,
            directives=directives,
            config=config,
            domain=domain,
        )
        return await self._explaining.explain(asked, count=count)

    async def report(
        self,
        turn_id: str,
        kind: ReportKind | str,
        *,
        note: str = "",
        session: str | None = None,
        user: str | None = None,
        fresh: bool = False,
        among: Collection[str] | None = None,
    ) -> tuple[ReportReceipt, Answer | None]:
        """Say that an answer is wrong, outdated or private; it is served to nobody afterwards.

        `turn_id` is the id that came with the answer, or "last" for the newest turn of `session`. A wrong answer to a
        similar question also blocks the pair for ever and counts against the flow's budget. A private one is not kept
        for others again for a year; what is in its session stays there. With `fresh` the flow is asked again, in the
        same session; that answer comes back too. With `among`, answers of other flows are unknown.
        Raises `UnknownTurn`, `UnknownSession`, `StoreError`.
        """
        try:
            kind = ReportKind(kind)
        except ValueError:
            raise InputError(f"{kind!r} is none of {', '.join(ReportKind)}") from None
        if turn_id == "last" and session is None:
            raise InputError("'last' is the newest turn of a session: name the session as well")
        await self._embedding.ready(_LOAD_SECONDS)  # what is reported counts at once, in its vectors as well
        user = self._planner.user if user is None else user
        return await self._reporting.report(
            turn_id, kind, note=note, session=session, user=user or None, fresh=fresh, among=among
        )

    async def status(self, flow: str) -> SimilarStatus:
        """How a flow stands: terms, cut, labels, audits, reports. Raises `UnknownFlow` and `StoreError`."""
        spec = self._registry.current().get(flow, inactive=True)
        await self._embedding.ready(_LOAD_SECONDS)
        await self._behind.flush()
        fingerprint = self._matching.fingerprint
        state = await self._store.similar.state(spec.key, fingerprint)
        terms = self._matching.terms_of(spec, state)
        cuts = self._matching.cuts(spec.key, state, terms)
        evidence = Evidence.read(state.evidence)
        right, wrong = evidence.count()
        audit_right, audit_wrong = evidence.count(LabelSource.AUDIT)
        _, reported = evidence.count(LabelSource.REPORT)
        checked = audit_right + audit_wrong
        measured = None
        if checked:
            low, high = interval(audit_wrong, checked)
            measured = (audit_wrong / checked, low, high)
        fields = await self._store.counters.read(spec.key, days=90, now=time.time())
        reports = {kind.value: fields.get(f"report:{kind.value}", 0) for kind in ReportKind}
        return SimilarStatus(
            flow=spec.key,
            terms=terms,
            embedder=self._embedding.embedder.name if fingerprint else f"none: {self._embedding.why}",
            cut=loosest(cuts),
            cuts={standing.value: cut for standing, cut in cuts.items()},
            bands=bands(evidence),
            labels=right + wrong,
            audits=checked,
            audits_wrong=audit_wrong,
            reports=reports | {"wrong_similar": reported},
            measured_error=measured,
            changes=tuple((await self._store.similar.changes(spec.key, fingerprint))[:5]),
        )

    async def set(
        self,
        flow: str,
        *,
        profile: Profile | str | None = None,
        mode: SimilarMode | str | None = None,
        max_error: float | None = None,
    ) -> SimilarStatus:
        """Decide for a flow at run time, in every process; what is None stays as it is. Raises `InputError`."""
        spec = self._registry.current().get(flow, inactive=True)
        try:
            chosen_profile = None if profile is None else Profile(profile)
            chosen_mode = None if mode is None else SimilarMode(mode)
        except ValueError as error:
            raise InputError(
                f"{error}: profiles are {', '.join(Profile)}; modes are {', '.join(SimilarMode)}"
            ) from None
        if max_error is not None and not 0.0001 <= max_error <= 0.5:
            raise InputError(f"max_error is a share of similar hits from 0.0001 to 0.5, not {max_error:g}")
        chosen: dict[str, Any] = {"profile": chosen_profile, "mode": chosen_mode, "max_error": max_error}
        await self._store.similar.set_override(
            spec.key, **{name: value for name, value in chosen.items() if value is not None}
        )
        return await self._followed(spec)

    async def reset(self, flow: str, *, labels: bool = False) -> SimilarStatus:
        """Take back what was decided at run time: registry and settings hold again. With `labels`, what was learnt is
        forgotten too, and the cut starts anew; blocked pairs stay blocked."""
        spec = self._registry.current().get(flow, inactive=True)
        if labels:
            await self._embedding.ready(_LOAD_SECONDS)
            change = CutChange(at=time.time(), old=None, new=None, why="somebody had the labels forgotten")
            await self._store.similar.reset(spec.key, self._matching.fingerprint, change)
        await self._store.similar.set_override(spec.key, profile=None, mode=None, max_error=None)
        return await self._followed(spec)

    async def _followed(self, spec: FlowSpec) -> SimilarStatus:
        """Record where the cut stands now that people decided otherwise."""
        await self._embedding.ready(_LOAD_SECONDS)
        if fingerprint := self._matching.fingerprint:
            await self._learning.follow(spec, fingerprint)
        return await self.status(spec.key)

    async def changes(self, flow: str) -> list[CutChange]:
        """Every recorded change of a flow's cut (up to 200), newest first, each with its evidence."""
        spec = self._registry.current().get(flow, inactive=True)
        await self._embedding.ready(_LOAD_SECONDS)
        return await self._store.similar.changes(spec.key, self._matching.fingerprint)

    async def reports(self, *, limit: int = 50, flow: str | None = None) -> list[Report]:
        """What people reported, newest first."""
        key = None if flow is None else self._registry.current().get(flow, inactive=True).key
        return await self._store.similar.reports(limit, key)

    async def proposals(self, *, all: bool = False) -> list[Proposal]:  # noqa: A002 (the word that people use)
        """Changes that evidence suggests and a person decides: the open ones, or all, newest first."""
        await self._embedding.ready(_LOAD_SECONDS)
        return await self._proposing.proposals(decided=all)

    async def accept(self, id: str, *, by: str = "") -> Proposal:  # noqa: A002
        """Put a proposal in force. Raises `UnknownProposal` where there is no open one of this id."""
        return await self._proposing.accept(id, by=by)

    async def reject(self, id: str, *, reason: str = "", by: str = "") -> Proposal:  # noqa: A002
        """Turn a proposal down; it is not made again for a month. Raises `UnknownProposal`."""
        return await self._proposing.reject(id, reason=reason, by=by)

"""What asks for a place in the FAQ: popular questions, each with the answer that is stored for it; or a turn that
somebody picks.

Invariant: nothing is offered that policy would not show to the whole team: no private turn, no question about
somebody's own things, no answer that was computed with earlier turns, nothing that was reported. A question whose
answer was called private is not even named.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from agentic_flywheel.curated import FaqBook, FaqCandidate, wordings_of
from agentic_flywheel.errors import InputError, UnknownTurn
from agentic_flywheel.findings import Audience
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.popular import Popular, PopularQuestion
from agentic_flywheel.likeness import Report
from agentic_flywheel.model import Entry, Sharing, Turn
from agentic_flywheel.policy.faq import candidates, unfit
from agentic_flywheel.policy.identity import normalise, question_hash
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.policy.visibility import audience_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.keys import scope_of_key
from agentic_flywheel.store.store import Store

#: So many popular questions are looked through for each candidate that is wanted, besides those that are in the FAQ.
_MANY = 5
#: Other wordings that a candidate brings along.
_WORDINGS = 8
#: Reports that are looked through: more stand nowhere.
_REPORTS = 10_000


class Candidates:
    """Finds them for one tenant. `fingerprint` gives a flow's present configuration."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        popular: Popular,
        fingerprint: Callable[[FlowSpec], Awaitable[str]],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._store = store
        self._popular = popular
        self._fingerprint = fingerprint
        self._flush = flush
        self._least_asked = int(settings["faq.least_asked"])
        self._least_askers = int(settings["faq.least_askers"])

    async def find(
        self, books: Mapping[str, FaqBook], *, days: int, flow: str | None, limit: int
    ) -> list[FaqCandidate]:
        """The popular questions that are in none of the books, most asked first."""
        flows = self._registry.current().flows
        answered = sum(len(entry.asked_as) for book in books.values() for entry in book.entries.values())
        found = await self._popular.list(days=days, flow=flow, limit=limit * _MANY + answered)
        named = [(one, _candidate(one)) for one in found]
        wanted = candidates(
            [candidate for _, candidate in named],
            {key: book.entries.values() for key, book in books.items()},
            shared=lambda key: key in flows and flows[key].sharing is Sharing.TEAM,
            least_asked=self._least_asked,
            least_askers=self._least_askers,
        )
        keys = {candidate.id: one.entry_key or "" for one, candidate in named}
        chosen: list[FaqCandidate] = []
        for candidate in wanted:
            if (whole := await self._with_answer(candidate, keys[candidate.id])) is not None:
                chosen.append(whole)
            if len(chosen) == limit:
                break
        return chosen

    async def pick(self, turn_id: str, session: str | None = None) -> FaqCandidate:
        """A turn's question and answer. Raises `UnknownTurn`, and `InputError` where the team may not see them."""
        await self._flush()
        place = session or await self._store.sessions.find(turn_id)
        turns, _ = await self._store.sessions.turns(place) if place else ((), 0)
        turn = next((known for known in turns if known.id == turn_id), None)
        if turn is None:
            raise UnknownTurn(f"there is no turn {turn_id!r}", turn_id=turn_id, session_id=session)
        if why := await self._hidden(turn):
            raise InputError(
                f"the turn {turn_id!r} cannot be taken into the FAQ: {why}",
                suggestions=(
                    "Ask the question by itself, in the words of the FAQ, and take that turn.",
                    "Write the answer yourself: `afw faq add QUESTION --answer '...'`.",
                ),
                turn_id=turn_id,
            )
        return FaqCandidate(
            id="",
            flow=turn.flow,
            question=turn.question,
            wordings=(),
            asked=1,
            askers=1,
            answer=turn.answer,
            answered_at=turn.at,
            last_at=turn.at,
            sources=turn.sources,
            turn_id=turn.id,
            session_id=turn.session_id,
            trace_id="" if turn.faq else turn.origin_trace_id or turn.trace_id,
            flow_ms=turn.flow_ms,
        )

    async def withdrawn(self, flow: str, names: Iterable[str]) -> bool:
        """Whether an answer to one of these questions (by name) was called private, so that none is kept for others."""
        keys = [self._store.keys.entry(Scope.TEAM.value, flow, name) for name in names]
        looked = await self._store.entries.get_many(keys)
        return any(one.entry is not None and one.entry.withdrawn for one in looked)

    async def _hidden(self, turn: Turn) -> str:
        """Why a turn is not for the team's eyes, "" if it is."""
        spec = self._registry.current().flows.get(turn.flow)
        if spec is None:
            return f"its flow {turn.flow!r} is not in the registry"
        if spec.sharing is not Sharing.TEAM:
            return f"the flow {turn.flow!r} does not share its answers with the team"
        if audience_of(turn.question, private=turn.private) is not Audience.TEAM:
            return "it is private" if turn.private else unfit(turn.question)
        if turn.context:
            return "its answer rests on earlier turns of its session"
        looked, _ = await self._store.entries.get(turn.entry_key) if turn.entry_key else (None, None)
        if looked is not None and looked.entry is not None and looked.entry.withdrawn:
            return "an answer to this question was called private"
        return "its answer was reported" if await self._reported(turn.flow, turn.question, turn.at) else ""

    async def _with_answer(self, candidate: FaqCandidate, key: str) -> FaqCandidate | None:
        """The candidate with the answer that is stored for it, if that may be offered; None where nothing may be."""
        names = [question_hash(normalise(text)) for text in (candidate.question, *candidate.wordings)]
        if await self.withdrawn(candidate.flow, names):
            return None
        looked, _ = await self._store.entries.get(key) if key else (None, None)
        entry = looked.entry if looked is not None else None
        if entry is None or not await self._offers(candidate, key, entry):
            return candidate
        return msgspec.structs.replace(
            candidate,
            answer=entry.answer,
            answered_at=entry.created_at,
            sources=entry.sources,
            turn_id=entry.turn_id,
            session_id=entry.session_id,
            trace_id=entry.trace_id,
            flow_ms=entry.flow_ms,
        )

    async def _offers(self, candidate: FaqCandidate, key: str, entry: Entry) -> bool:
        """Whether a stored answer could be given to anybody of the team who asks now."""
        spec = self._registry.current().get(candidate.flow, inactive=True)
        state = await self._store.flows.state(candidate.flow)
        return (
            scope_of_key(key) == Scope.TEAM
            and entry.alone
            and not entry.identity
            and entry.fingerprint == await self._fingerprint(spec)
            and entry.generation == state.generation
            and entry.created_at + entry.ttl_seconds > time.time()
            and not await self._reported(candidate.flow, entry.asked or entry.question, entry.created_at)
        )

    async def _reported(self, flow: str, question: str, at: float) -> bool:
        """Whether somebody reported the answer that was given to a question at that time, or a later one."""
        named = normalise(question)
        reports: Sequence[Report] = await self._store.similar.reports(_REPORTS, flow)
        return any(
            report.at >= at and named in {normalise(report.question), normalise(report.matched_question)}
            for report in reports
        )


def _candidate(one: PopularQuestion) -> FaqCandidate:
    texts = [wording.text for wording in one.wordings if not unfit(wording.text)]
    others = [text for text in wordings_of(one.question, texts) if normalise(text) != normalise(one.question)]
    distinct = {normalise(text): text for text in reversed(others)}
    return FaqCandidate(
        id=one.cluster,
        flow=one.flow,
        question=one.question,
        wordings=tuple(text for text in others if text in distinct.values())[:_WORDINGS],
        asked=one.asked,
        askers=one.askers,
        last_at=one.last_at,
    )

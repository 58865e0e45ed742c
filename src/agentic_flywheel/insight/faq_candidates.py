"""What asks for a place in the FAQ: popular questions, one for all that seem to ask the same, each with the answer that
is stored for it; or a turn that somebody picks.

Invariant: nothing is offered that policy would not show to the whole team: no private turn, no question about
somebody's own things, no answer that was computed with earlier turns, nothing that was reported. A question whose
answer was called private is not even named.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from agentic_flywheel.curated import FaqBook, FaqCandidate, FaqEntry, wordings_of
from agentic_flywheel.errors import InputError, UnknownTurn
from agentic_flywheel.findings import Audience
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.faq_groups import Group, Groups, Marked
from agentic_flywheel.insight.popular import Popular, PopularQuestion, named
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.likeness import Report
from agentic_flywheel.model import Entry, Sharing, Turn
from agentic_flywheel.policy.admission import admit_id
from agentic_flywheel.policy.faq import candidates, taken_words, unfit
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.sharing import Scope
from agentic_flywheel.policy.similarity.choice import pair_of
from agentic_flywheel.policy.visibility import audience_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.keys import scope_of_key
from agentic_flywheel.store.store import Store

#: So many popular questions are looked through for each candidate that is wanted, and at least, besides those that are
#: in the FAQ.
_MANY = 5
_LEAST = 300
#: Other wordings, and questions that seem to ask the same, that a candidate brings along.
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
        groups: Groups,
        fingerprint: Callable[[FlowSpec], Awaitable[str]],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._store = store
        self._popular = popular
        self._groups = groups
        self._fingerprint = fingerprint
        self._flush = flush
        self._least_asked = int(settings["faq.least_asked"])
        self._least_askers = int(settings["faq.least_askers"])

    async def find(
        self, books: Mapping[str, FaqBook], *, days: int, flow: str | None, limit: int
    ) -> list[FaqCandidate]:
        """The popular questions that are in none of the books, one for all that seem to ask the same: at most `limit`,
        most asked first, each followed by those that may well belong to it."""
        entries = {key: book.entries.values() for key, book in books.items()}
        known = taken_words(entries)
        found = await self._popular.marked(days=days, flow=flow, limit=max(_LEAST, limit * _MANY) + len(known))
        asked: dict[str, list[Marked]] = {}
        for one in found:
            if self._shared(one[0].flow) and not unfit(one[0].question):
                asked.setdefault(one[0].flow, []).append(one)
        first: list[FaqCandidate] = []
        following: dict[str, list[FaqCandidate]] = {}
        for key, some in asked.items():
            for candidate in self._wanting(await self._groups.of(key, some), known, entries):
                if candidate.near:
                    following.setdefault(candidate.near, []).append(candidate)
                else:
                    first.append(candidate)
        first.sort(key=lambda one: (-one.asked, one.flow, one.id))
        strays = [one for near, some in following.items() if near not in {one.id for one in first} for one in some]
        chosen: list[FaqCandidate] = []
        count = 0
        for candidate in [*first, *sorted(strays, key=lambda one: (-one.asked, one.flow, one.id))]:
            if count == limit:
                break
            together = [candidate, *following.get(candidate.id, ())]
            offered = [whole for one in together if (whole := await self._with_answer(one)) is not None]
            chosen += offered
            count += bool(offered)
        return chosen

    def _shared(self, flow: str) -> bool:
        spec = self._registry.current().flows.get(flow)
        return spec is not None and spec.sharing is Sharing.TEAM

    def _wanting(
        self, groups: Sequence[Group], known: Mapping[tuple[str, str], str], entries: Mapping[str, Iterable[FaqEntry]]
    ) -> list[FaqCandidate]:
        """What of a flow's groups asks for a place: what is in no entry, asked often enough by enough people."""
        ids: dict[int, str] = {}
        wanting: list[FaqCandidate] = []
        for place, group in enumerate(groups):
            taken = {one: entry for one, _ in group.questions if (entry := _entry_of(one, known))}
            free = [marked for marked in group.questions if marked[0] not in taken]
            near = next(iter(taken.values()), "") or ids.get(group.near if group.near is not None else -1, "")
            if not free:
                ids[place] = near
                continue
            candidate = _candidate(free, near)
            passes = candidates(
                [candidate],
                entries,
                shared=self._shared,
                least_asked=self._least_asked,
                least_askers=self._least_askers,
            )
            if passes:
                ids[place] = candidate.id
                wanting += passes
        return wanting

    async def join(self, candidate: FaqCandidate, others: Sequence[str]) -> None:
        """A person says that questions (texts, or ids of popular ones) are other wordings of a candidate: they are
        counted as one from now on, and for the past."""
        await self._flush()
        for other in others:
            await self._store.popularity.join(candidate.flow, candidate.id, named(other))

    async def split(self, candidate: FaqCandidate, others: Sequence[str]) -> None:
        """A person says that wordings of a candidate are different questions: they are never taken for it again, nor
        given its answer as a similar one."""
        await self._flush()
        kept = [t for t in (candidate.question, *candidate.wordings, *candidate.alike) if t not in others]
        for text in others:
            for rest in kept:
                for one, two in ((text, rest), (rest, text)):
                    await self._store.similar.block(candidate.flow, pair_of(normalise(one), f":{name_of(two)}"))
                await self._store.popularity.part(candidate.flow, name_of(text), name_of(rest))

    async def pick(self, turn_id: str, session: str | None = None) -> FaqCandidate:
        """A turn's question and answer. Raises `UnknownTurn`, and `InputError` where the team may not see them."""
        admit_id(turn_id, "turn")
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

    async def withdrawn(self, flow: str, texts: Sequence[str]) -> set[str]:
        """Those of some questions of which an answer was called private, so that none is kept for others."""
        keys = [self._store.keys.entry(Scope.TEAM.value, flow, name_of(text)) for text in texts]
        looked = await self._store.entries.get_many(keys)
        return {text for text, one in zip(texts, looked, strict=True) if one.entry is not None and one.entry.withdrawn}

    async def _hidden(self, turn: Turn) -> str:
        """Why a turn is not for the team's eyes, "" if it is."""
        spec = self._registry.current().flows.get(turn.flow)
        if spec is None:
            return f"its flow {turn.flow!r} is not in the registry"
        if spec.sharing is not Sharing.TEAM:
            return f"the flow {turn.flow!r} does not share its answers with the team"
        if audience_of(turn.question, private=turn.private, own=turn.own) is not Audience.TEAM:
            return "it is private" if turn.private else unfit(turn.question)
        if turn.context:
            return "its answer rests on earlier turns of its session"
        looked, _ = await self._store.entries.get(turn.entry_key) if turn.entry_key else (None, None)
        if looked is not None and looked.entry is not None and looked.entry.withdrawn:
            return "an answer to this question was called private"
        return "its answer was reported" if await self._reported(turn.flow, turn.question, turn.at) else ""

    async def _with_answer(self, candidate: FaqCandidate) -> FaqCandidate | None:
        """The candidate with the answer that is stored for it, if that may be offered; None where nothing may be."""
        key = candidate.entry_key
        texts = (candidate.question, *candidate.wordings, *candidate.alike)
        private = await self.withdrawn(candidate.flow, texts)
        if not private.isdisjoint((candidate.question, *candidate.wordings)):
            return None
        alike = tuple(text for text in candidate.alike if text not in private)
        candidate = msgspec.structs.replace(candidate, alike=alike)
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


def _entry_of(one: PopularQuestion, known: Mapping[tuple[str, str], str]) -> str:
    """The entry that a popular question is in, "" for none."""
    names = [one.cluster, *(normalise(wording.text) for wording in one.wordings)]
    return next((known[one.flow, name] for name in names if (one.flow, name) in known), "")


def _candidate(questions: Sequence[Marked], near: str) -> FaqCandidate:
    """The questions of a group as one candidate, named after the most asked one."""
    (one, _), *others = questions
    own = {normalise(text) for text in (one.question, *(wording.text for wording in one.wordings))}
    alike = [wording.text for other, _ in others for wording in other.wordings]
    return FaqCandidate(
        id=one.cluster,
        flow=one.flow,
        question=one.question,
        wordings=_fit(one.question, [wording.text for wording in one.wordings], {normalise(one.question)}),
        asked=Group.asked(questions),
        askers=Group.askers(questions),
        last_at=max(question.last_at for question, _ in questions),
        alike=_fit(one.question, alike, own),
        covers=tuple(other.cluster for other, _ in others),
        near=near,
        entry_key=one.entry_key or "",
    )


def _fit(question: str, texts: Sequence[str], besides: set[str]) -> tuple[str, ...]:
    """Wordings that may stand in the FAQ, each once, without those `besides`."""
    fit = wordings_of(question, [text for text in texts if not unfit(text)])
    distinct = {normalise(text): text for text in reversed(fit) if normalise(text) not in besides}
    return tuple(text for text in fit if text in distinct.values())[:_WORDINGS]

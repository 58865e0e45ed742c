"""What people say of answers: wrong, outdated, private; and what that does at once.

Invariant: a reported answer is served to nobody from the moment the report returns; a pair of questions that was
called wrong is never merged again; an answer that was called private leaves nothing behind but a mark, without text,
that keeps it from being stored for others once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from agentic_flywheel.asking import Asking
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.comparing import Said
from agentic_flywheel.errors import EmbedderError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.insight.popular import forget_names
from agentic_flywheel.insight.tally import name_of
from agentic_flywheel.learning import Learning
from agentic_flywheel.likeness import Cut, Report, ReportKind, ReportReceipt
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import LASTING_GENERATION, Answer, Directives, Entry, Outcome, Turn
from agentic_flywheel.policy.identity import normalise, question_hash
from agentic_flywheel.policy.similarity.budget import Label, LabelSource, increments
from agentic_flywheel.policy.similarity.choice import pair_of
from agentic_flywheel.policy.similarity.probes import Probe
from agentic_flywheel.questions import Planner
from agentic_flywheel.redacting import Redacting
from agentic_flywheel.store.gone import records
from agentic_flywheel.store.keys import flight_name
from agentic_flywheel.store.store import Store
from agentic_flywheel.traced import Judgement, reported_as
from agentic_flywheel.turns import find_turn

if TYPE_CHECKING:
    from agentic_flywheel.insight.faq import Faq
    from agentic_flywheel.tracing import Tracing

#: How long the mark of a private answer keeps others from being given one like it, in seconds.
WITHDRAWN_SECONDS = 365 * 86400.0


class Reporting:
    """Takes the reports of one tenant."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        planner: Planner,
        asking: Asking,
        matching: Matching,
        learning: Learning,
        behind: WriteBehind,
        forget: Callable[[], None],
        faq: Callable[[], Faq],
        redacting: Redacting,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._redacting = redacting
        self._registry = registry
        self._store = store
        self._planner = planner
        self._asking = asking
        self._matching = matching
        self._learning = learning
        self._behind = behind
        self._forget = forget  # what this process has at hand
        self._faq = faq

    async def report(
        self,
        turn_id: str,
        kind: ReportKind,
        *,
        note: str,
        session: str | None,
        user: str | None,
        fresh: bool,
        among: Collection[str] | None = None,
    ) -> tuple[ReportReceipt, Answer | None]:
        """See `Similar.report`."""
        turn = await find_turn(self._store, self._behind, turn_id, session=session, user=user, among=among)
        now = time.time()
        note = self._redacting.text(note, self._registry.current().flows.get(turn.flow), turn.user)
        report = Report(
            id=new_id(),
            kind=kind,
            turn_id=turn.id,
            session_id=turn.session_id,
            flow=turn.flow,
            question=turn.question if kind is not ReportKind.PRIVATE else "",
            matched_question=turn.matched_question if kind is not ReportKind.PRIVATE else "",
            similarity=turn.similarity,
            note=note,
            by=user or "",
            at=now,
        )
        looked = None
        if turn.entry_key:
            looked, _ = await self._store.entries.get(turn.entry_key)
        entry = looked.entry if looked else None
        removed: dict[str, int] = {}
        if entry is not None and not entry.withdrawn:
            removed = await self._withdraw(turn.entry_key, entry, kind)
        if kind is ReportKind.PRIVATE:
            if turn.entry_key:
                await self._mark(turn, now)
            await self._hide(turn)
        curated = await self._withdraw_approved(turn, kind, note, user or "")
        blocked, cut = None, None
        if kind is ReportKind.WRONG and turn.outcome is Outcome.SIMILAR:
            blocked = (turn.question, turn.matched_question)
            cut = await self._block(turn, entry)
        await self._store.similar.add_report(report)
        judgement = judgement_of(report)
        await self._store.judgements.put(turn.session_id, judgement)
        if self._tracing is not None:
            self._tracing.judged(turn, judgement)
        self._behind.count(turn.flow, now, **{f"report:{kind.value}": 1})
        self._forget()
        answer = await self._fresh(turn, kind) if fresh else None
        if blocked and answer is not None:  # the two answers do differ: would the comparer have seen it?
            spec = self._registry.current().get(turn.flow, inactive=True)
            given, right = Said(turn.matched_question, turn.answer), Said(turn.question, answer.text)
            await self._learning.probe(spec, Probe.REPORT, given, right)
        return ReportReceipt(
            report=report,
            removed=removed,
            blocked=blocked,
            cut=cut,
            done=(*_done(turn, removed, blocked, cut, kind), *([curated] if curated else [])),
        ), answer

    async def _withdraw(self, key: str, entry: Entry, kind: ReportKind) -> dict[str, int]:
        """Take a stored answer out of use; what was removed."""
        now = time.time()
        await self._store.flows.remember_gone(entry.flow, records(turns=[entry.turn_id], at=now), now=now)
        removed = {"entries": await self._store.entries.remove({key: entry})}
        try:
            removed["vectors"] = await self._matching.forget(key, entry)
        except EmbedderError:
            removed["vectors"] = 0  # whoever finds it sees that its answer is gone
        if kind is ReportKind.PRIVATE:
            flight = flight_name(key, f"{entry.fingerprint} {entry.generation}")
            await self._store.leases.forget(flight)  # what its owner said is still there for those who joined late
        return removed

    async def _withdraw_approved(self, turn: Turn, kind: ReportKind, note: str, by: str) -> str:
        """Take an approved answer out of service; what was done, "" where it is none. Where it was only taken for the
        answer to another question, the two are kept apart, and it goes on answering its own."""
        if not turn.faq:
            return ""
        if kind is ReportKind.WRONG and turn.outcome is Outcome.SIMILAR:
            return f"The FAQ goes on answering {turn.matched_question!r}."
        return await self._faq().withdraw(turn.flow, turn.faq, kind, note=note, by=by)

    async def _mark(self, turn: Turn, now: float) -> None:
        """Keep an answer to this question from being stored for others, whether or not one is stored now."""
        mark = Entry(
            question="",
            identity="",
            answer="",
            flow=turn.flow,
            flow_id="",
            flow_name="",
            fingerprint=turn.fingerprint,
            generation=LASTING_GENERATION,
            created_at=now,
            ttl_seconds=WITHDRAWN_SECONDS,
            trace_id="",
            turn_id="",
            withdrawn=ReportKind.PRIVATE.value,
        )
        await self._store.entries.put(turn.entry_key, mark)

    async def _hide(self, turn: Turn) -> None:
        """Let the question, and the one whose answer it was given, be counted among those asked often no more."""
        names = [name_of(text) for text in (turn.question, turn.matched_question) if text]
        await forget_names(self._store.popularity, turn.flow, names, hide=True)

    async def _block(self, turn: Turn, entry: Entry | None) -> Cut | None:
        """Never merge the two questions again, and count the hit as a wrong one."""
        normal, matched = normalise(turn.question), normalise(turn.matched_question)
        own = question_hash(normal, entry.identity if entry else "")
        await self._store.similar.block(turn.flow, pair_of(normal, turn.entry_key))
        await self._store.similar.block(turn.flow, pair_of(matched, f":{own}"))
        await self._store.popularity.part(turn.flow, name_of(turn.question), name_of(turn.matched_question))
        if turn.similarity is None or not (embedder := self._matching.fingerprint):
            return None
        spec = self._registry.current().get(turn.flow, inactive=True)
        label = Label(turn.similarity, same=False, source=LabelSource.REPORT)
        return await self._learning.record(spec, embedder, increments(label))

    async def _fresh(self, turn: Turn, kind: ReportKind) -> Answer:
        """Ask the flow again, in the turn's own session."""
        directives = Directives(no_cache=True, standalone=not turn.context, private=kind is ReportKind.PRIVATE)
        return await self._asking.answer(
            self._planner.admit(
                turn.question, session=turn.session_id, flow=turn.flow, user=turn.user or None, directives=directives
            )
        )


def _done(
    turn: Turn, removed: dict[str, int], blocked: tuple[str, str] | None, cut: Cut | None, kind: ReportKind
) -> list[str]:
    """What a report did, as sentences for people."""
    done = []
    if removed.get("entries"):
        done.append("The answer is gone from the cache: nobody is given it any more.")
    elif kind is not ReportKind.PRIVATE and not turn.faq:
        done.append("No stored answer had to be removed.")
    if kind is ReportKind.PRIVATE:
        kept = "An answer to this question is not kept for others any more."
        done.append(kept if turn.entry_key else "No answer was ever kept for others.")
    if blocked:
        done.append("The two questions are never taken for each other again.")
    if cut is not None:
        state = "Nothing is served to similar questions now" if cut.value is None else f"The cut is {cut.value:.3f} now"
        done.append(f"{state}: {cut.why}.")
    return done


def judgement_of(report: Report) -> Judgement:
    """A report as what was said of an answer; a note on a private one stays with the report alone."""
    why = "" if report.kind is ReportKind.PRIVATE else report.note
    return Judgement(reported_as(report.kind.value), report.turn_id, 1.0, why, report.by, report.at)

"""Answered questions, one by one: what was done, where the answer came from, what people think of it.

Invariant: everything rests on the sessions' own record, so it is the same whether traces go somewhere or not; where
they do, it says where to look further. Nobody is shown a turn that they could not find by searching.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import InputError, StoreError, UnknownSession, UnknownTurn
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.history import History
from agentic_flywheel.model import Entry, Outcome, Turn
from agentic_flywheel.observe.names import Span
from agentic_flywheel.policy.admission import admit_id, admit_text
from agentic_flywheel.policy.visibility import audience_of, sees, sight_of
from agentic_flywheel.store.store import Store
from agentic_flywheel.traced import (
    QUALITY,
    Judgement,
    JudgementReceipt,
    TraceFound,
    TracePage,
    TraceStep,
    TraceView,
    quality_of,
)
from agentic_flywheel.turns import find_turn

if TYPE_CHECKING:
    from agentic_flywheel.redacting import Redacting
    from agentic_flywheel.tracing import Tracing

LEAST, MOST = 1, 10
#: Longest words that go with a judgement, in characters.
LONGEST_FEEDBACK = 2000
#: How many questions are looked at for one page where not every one that fits is wanted.
_LOOKED_AT = 500
_PAGE = 50
_HITS = frozenset({Outcome.HIT, Outcome.SIMILAR, Outcome.STALE})
_NOWHERE = "No traces are made (trace.exporter is off): this is what the session itself has kept."


class Traces:
    """The answered questions of one tenant; `flywheel.traces`."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        behind: WriteBehind,
        history: History,
        redacting: Redacting,
        tracing: Tracing | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._store = store
        self._behind = behind
        self._redacting = redacting
        self._history = history
        self._tracing = tracing
        self._clock = clock

    async def view(self, id: str, *, session: str | None = None, user: str | None = None) -> TraceView:  # noqa: A002
        """The question of a turn or a trace; "last" is the newest of `session`.

        A trace that its caller brought along is found with its session alone. Raises `UnknownTurn`, `UnknownSession`
        (another user's), `StoreError`.
        """
        turn = await self._turn(id, session, user)
        looked = (await self._store.entries.get(turn.entry_key))[0] if turn.entry_key else None
        entry = looked.entry if looked is not None else None
        if entry is not None and entry.trace_id != (turn.origin_trace_id or turn.trace_id):
            entry = None  # somebody else's by now
        said = (await self._store.judgements.of([turn.session_id]))[turn.session_id]
        spec = self._registry.current().flows.get(turn.flow)
        previous = await self._previous(turn)
        return TraceView(
            trace_id=turn.trace_id,
            name=_name(turn),
            turn=turn,
            flow_id=spec.id if spec else "",
            flow_name=(spec.name or spec.key) if spec else turn.flow,
            cache_hit=turn.outcome in _HITS,
            response_length=len(turn.answer),
            steps=_steps(turn),
            judgements=tuple(one for one in said if one.turn_id in {"", turn.id}),
            link=self._link(turn.trace_id),
            origin_link=self._link(turn.origin_trace_id) if turn.origin_trace_id != turn.trace_id else "",
            previous_trace_id=previous.trace_id if previous else "",
            exported=self._exported,
            config=dict(entry.config) if entry else {},
            **_tokens(turn, entry),
            notes=() if self._tracing else (_NOWHERE,),
        )

    async def search(
        self,
        query: str = "",
        *,
        since: str | float | None = None,
        until: str | float | None = None,
        flow: str | None = None,
        user: str | None = None,
        session: str | None = None,
        least: float | None = None,
        most: float | None = None,
        limit: int = 10,
        cursor: str = "",
    ) -> TracePage:
        """Answered questions that fit (see `History.search`), the newest first where there are no words.

        `least` and `most` bound the mean quality that people gave; answers that nobody judged are left out then. Not
        more than 500 questions are looked at for a page. Raises what `History.search` raises.
        """
        if not 1 <= limit <= 100:
            raise InputError("a page has 1 to 100 traces")
        found: list[TraceFound] = []
        judged, looked_at, warnings = least is not None or most is not None, 0, list[str]()
        while True:
            page = await self._history.search(
                query,
                since=since,
                until=until,
                flow=flow,
                user=user,
                session=session,
                limit=_PAGE if judged else limit,
                cursor=cursor,
            )
            warnings = list(page.warnings)
            named = [(one.session_id, one.turn_id) for one in page.found]
            turns = [turn for turn in await self._store.sessions.read_turns(named) if turn is not None]
            said = await self._store.judgements.of(list(dict.fromkeys(turn.session_id for turn in turns)))
            for turn in turns:
                own = tuple(one for one in said[turn.session_id] if one.turn_id == turn.id)
                quality = quality_of(own)
                if judged and (quality is None or not (least or 0) <= quality <= (MOST if most is None else most)):
                    continue
                found.append(
                    TraceFound(
                        trace_id=turn.trace_id,
                        turn=turn,
                        judgements=own,
                        quality=quality,
                        link=self._link(turn.trace_id),
                    )
                )
            looked_at += len(page.found)
            cursor = page.cursor
            if not judged or not cursor or len(found) >= limit:
                break
            if looked_at >= _LOOKED_AT:
                warnings.append(f"{looked_at} questions were looked at; the cursor goes on with older ones.")
                break
        # A page that was gone through for judgements is shown whole, so that the cursor leaves nothing out.
        return TracePage(
            found=tuple(found), looked_at=looked_at, cursor=cursor, exported=self._exported, warnings=tuple(warnings)
        )

    async def judge(
        self,
        value: float,
        *,
        id: str | None = None,  # noqa: A002
        session: str | None = None,
        feedback: str = "",
        user: str | None = None,
        by: str = "",
    ) -> JudgementReceipt:
        """Say how good an answer was, 1 to 10: that of a turn or a trace (`id`), else the whole `session`.

        It stays with the session and goes along to where traces go. Who judges again, changes their judgement. Raises
        `InputError`, `UnknownTurn`, `UnknownSession`, `StoreError`.
        """
        if not LEAST <= value <= MOST:
            raise InputError(f"a quality is {LEAST} to {MOST}, not {value:g}")
        if len(admit_text(feedback, "feedback")) > LONGEST_FEEDBACK:
            raise InputError(f"feedback has at most {LONGEST_FEEDBACK} characters")
        if id is None and session is None:
            raise InputError("say what is judged: a turn, a trace or a session")
        by = admit_id(by, "user") if by else user or ""
        turn = await self._turn(id or "last", session, user)
        feedback = self._redacting.text(feedback, self._registry.current().flows.get(turn.flow), turn.user)
        judgement = Judgement(QUALITY, turn.id if id else "", float(value), feedback, by, self._clock())
        if not await self._store.judgements.put(turn.session_id, judgement):
            raise UnknownSession(f"no session {turn.session_id!r}", session_id=turn.session_id)
        if self._tracing is not None:
            self._tracing.judged(turn, judgement)
        return JudgementReceipt(
            judgement=judgement,
            session_id=turn.session_id,
            trace_id=turn.trace_id if id else "",
            link=self._link(turn.trace_id),
            exported=self._exported,
        )

    async def _turn(self, id_: str, session: str | None, user: str | None) -> Turn:
        if id_ == "last" and session is None:
            raise InputError("'last' is the newest turn of a session: name the session as well")
        turn = await find_turn(self._store, self._behind, id_, session=session, user=user)
        if user and turn.user != user:
            sharing = {spec.key: spec.sharing for spec in self._registry.current().flows.values()}
            sight = sight_of(user, session=session or "", sharing=sharing)
            audience = audience_of(turn.question, private=turn.private, own=turn.own)
            if not sees(sight, audience=audience, flow=turn.flow, user=turn.user, session=turn.session_id):
                raise UnknownTurn(f"there is no turn {id_!r} that user {user!r} may see", turn_id=id_)
        return turn

    async def _previous(self, turn: Turn) -> Turn | None:
        if not turn.parent:
            return None
        try:
            (before,) = await self._store.sessions.read_turns([(turn.session_id, turn.parent)])
        except StoreError:
            return None  # the turn itself was read: that is what was asked for
        return before

    def _link(self, trace: str) -> str:
        return self._tracing.place.link_to(trace) if self._tracing is not None else ""

    @property
    def _exported(self) -> str:
        return self._tracing.place.kind if self._tracing is not None else ""


def _name(turn: Turn) -> str:
    words = turn.question.split()
    return f"{turn.intent or turn.flow}: {' '.join(words[:8])}{' ...' if len(words) > 8 else ''}"


def _tokens(turn: Turn, entry: Entry | None) -> dict[str, int]:
    """What the turn's own call used; an answer from memory used nothing."""
    if entry is None or entry.turn_id != turn.id:
        return {}
    return {"tokens_in": entry.tokens_in, "tokens_out": entry.tokens_out}


def _steps(turn: Turn) -> tuple[TraceStep, ...]:
    """The steps that a turn tells of, in their order."""
    hit = turn.outcome in _HITS
    steps = [TraceStep(name=Span.ROUTE, facts={"flow": turn.flow} | ({"intent": turn.intent} if turn.intent else {}))]
    if turn.parent or turn.context:
        steps.append(TraceStep(name=Span.RECALL, facts={"context": list(turn.context), "previous": turn.parent}))
    looked: dict[str, Any] = {"key": turn.entry_key, "cache_hit": hit, "outcome": turn.outcome, "reason": turn.reason}
    steps.append(TraceStep(name=Span.LOOK_UP, facts=looked))
    if turn.similarity is not None:
        alike = {"similarity": turn.similarity, "matched_question": turn.matched_question}
        steps.append(TraceStep(name=Span.COMPARE, facts=alike))
    source: dict[str, Any] = {"response_length": len(turn.answer), "sources": len(turn.sources)}
    if turn.origin_trace_id and turn.origin_trace_id != turn.trace_id:
        source["computed_in"] = turn.origin_trace_id
    if turn.faq:
        source["faq"] = turn.faq
    steps.append(TraceStep(name=Span.ANSWER, facts=source))
    if turn.flow_ms is not None:
        steps.append(TraceStep(name=Span.CALL, facts={"flow": turn.flow}, ms=turn.flow_ms))
    steps.append(TraceStep(name=Span.REMEMBER, facts={"session": turn.session_id, "turn": turn.id}))
    return tuple(steps)

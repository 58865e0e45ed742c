"""What was told of a question, as spans and scores.

Invariant: runs in the sender's thread, on records that nobody changes any more. One question is one trace: its whole
(`afw.ask`) and under it one span for each step that was taken. Text passes through `observe.texts` alone, and that of a
question whose asker wants nothing kept, or wants it private, passes not at all. An answer from memory has neither model
nor usage: what it cost stands in the trace that it is linked to.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from agentic_flywheel.model import Answer, Entry, Outcome
from agentic_flywheel.observe.langfuse import for_langfuse
from agentic_flywheel.observe.names import Attribute, Span
from agentic_flywheel.observe.spans import Link, ScoreRecord, SpanRecord, is_trace_id, outward_id, score_id, span_id
from agentic_flywheel.observe.texts import Shown, masked
from agentic_flywheel.policy.decision import Ask, Serve, ServeStale
from agentic_flywheel.questions import Asked
from agentic_flywheel.steps import Step
from agentic_flywheel.tracing import Answered, AtHand, Called, Failed, Scored, Told

Record = SpanRecord | ScoreRecord

#: Steps whose first beginning and last end count; the others count as they were taken last.
_ROUND_TRIPS = frozenset({Span.RECALL, Span.LOOK_UP})
_ORDER = tuple(value for name, value in vars(Span).items() if name.isupper())
_HITS = frozenset({Outcome.HIT, Outcome.SIMILAR, Outcome.STALE})
_LABEL = re.compile(r"[\w.-]{1,40}")
#: How many words of a question name its trace.
_WORDS = 8
#: Which turns' answers were served lately, so that the next time they are at hand they are linked to as well.
_ORIGINS = 10_000


class Spelling:
    """The records of one tenant's questions. `shown` is None where no text is shown; `langfuse` adds what it reads."""

    def __init__(self, tenant: str, shown: Shown | None, *, langfuse: bool) -> None:
        self._tenant = tenant
        self._shown = shown
        self._langfuse = langfuse
        self._origins: OrderedDict[str, str] = OrderedDict()

    def records(self, told: Told) -> Sequence[Record]:
        """What is handed over of one thing that was told."""
        match told:
            case Answered():
                return self._answered(told)
            case AtHand():
                return self._at_hand(told)
            case Failed():
                return self._failed(told)
            case Called():
                return [self._called(told)]
            case Scored():
                return [self._scored(told)]

    def _answered(self, told: Answered) -> list[Record]:
        step, answer = told.step, told.answer
        shown = self._shown_of(step.asked, step)
        links = [*self._origin(answer, told.origin), *_previous(step)]
        said = self._of_answer(answer) | self._of_step(step, shown)
        if shown is not None:
            said[Attribute.ANSWER] = shown(answer.text)
        for link in links:
            kind = Attribute.ORIGIN_TRACE if link.attributes[Attribute.LINK] == "origin" else Attribute.PREVIOUS_TRACE
            said[kind] = link.trace
        whole = self._whole(step.asked, step, said, links, elapsed=answer.elapsed_ms / 1000)
        return [whole, *self._steps(step.asked, step, answer)]

    def _at_hand(self, told: AtHand) -> list[Record]:
        answer = told.answer
        seconds = answer.elapsed_ms / 1000
        links = self._origin(answer, None)
        said: dict[str, Any] = self._of_answer(answer) | {Attribute.QUESTION_LENGTH: len(answer.question)}
        if self._shown is not None:
            said |= {
                Attribute.QUESTION: self._shown(answer.question),
                Attribute.ANSWER: self._shown(answer.text),
            }
        if links:
            said[Attribute.ORIGIN_TRACE] = answer.origin_trace_id
        root = span_id(answer.turn_id, Span.ASK)
        common = self._common(answer.session_id, told.user)
        said[Attribute.CONVERSATION] = common[Attribute.SESSION]
        begin, end = told.at - seconds, told.at
        found = {Attribute.KEY: answer.key or "", Attribute.FOUND: answer.reason.value, Attribute.NEAR: answer.near}
        return [
            self._span(
                answer.trace_id,
                root,
                told.parent,
                Span.ASK,
                begin,
                end,
                common | said,
                links=links,
                title=_title(answer.flow, said.get(Attribute.QUESTION, "")),
            ),
            self._span(
                answer.trace_id,
                span_id(answer.turn_id, Span.LOOK_UP),
                root,
                Span.LOOK_UP,
                begin,
                end,
                common | found,
            ),
        ]

    def _failed(self, told: Failed) -> list[Record]:
        asked, step = told.asked, told.step
        said: dict[str, Any] = {Attribute.ERROR: told.code, Attribute.CACHE_HIT: False}
        said |= {Attribute.QUESTION_LENGTH: len(asked.text)} if step is None else {}
        shown = self._shown_of(asked, step)
        if step is not None:
            said |= self._of_step(step, shown)
        whole = self._whole(asked, step, said, (), elapsed=told.at - asked.at, error=told.code)
        return [whole, *self._steps(asked, step, None, error=told.code)]

    def _called(self, told: Called) -> SpanRecord:
        step, done = told.step, told.done
        asked, spec = step.asked, step.plan.spec
        shown = self._shown_of(asked, step)
        said = self._who(asked) | self._flow(step)
        said |= {Attribute.OPERATION: "invoke_agent", Attribute.CALL_FOR: told.purpose}
        if spec.kind == "openai":
            said |= {Attribute.PROVIDER: "openai", Attribute.REQUEST_MODEL: spec.id}
        if done is not None:
            said[Attribute.COMPLETE] = done.complete
            said[Attribute.ANSWER_LENGTH] = len(done.text)
            if isinstance(model := done.metadata.get("model"), str):
                said[Attribute.RESPONSE_MODEL] = model
            if done.tokens is not None:
                said[Attribute.TOKENS_IN], said[Attribute.TOKENS_OUT] = done.tokens
            if shown is not None:
                said |= {Attribute.QUESTION: shown(asked.text), Attribute.ANSWER: shown(done.text)}
        if told.code:
            said[Attribute.ERROR] = told.code
        parent = {"answer": Span.ANSWER, "warm": ""}.get(told.purpose, Span.ASK)
        return self._span(
            asked.trace,
            span_id(asked.turn, Span.CALL),
            span_id(asked.turn, parent) if parent else "",
            Span.CALL,
            asked.at + (told.began - asked.started),
            asked.at + (told.ended - asked.started),
            said,
            error=told.code,
        )

    def _scored(self, told: Scored) -> Record:
        why = self._shown(told.why) if told.why and self._shown is not None else ""
        span = span_id(told.turn, Span.ASK) if told.turn else ""
        if self._langfuse:
            session = outward_id(told.session)
            id_ = score_id(told.turn, told.session, told.name, told.by)
            trace = told.trace if told.turn else ""
            return ScoreRecord(id_, trace, span, session, told.name, told.value, why, told.at, told.truth)
        trace = told.trace
        said = self._common(told.session, told.user)
        said |= {Attribute.SCORE_NAME: told.name, Attribute.SCORE_VALUE: told.value}
        if why:
            said[Attribute.SCORE_WHY] = why
        own = span_id(f"{told.turn} {told.name} {told.at!r}", Span.SCORE)
        return self._span(trace, own, span, Span.SCORE, told.at, told.at, said)

    def _whole(
        self,
        asked: Asked,
        step: Step | None,
        said: dict[str, Any],
        links: Sequence[Link],
        *,
        elapsed: float,
        error: str = "",
    ) -> SpanRecord:
        said = self._who(asked) | said
        said |= {
            Attribute.TENANT: self._tenant,
            Attribute.TURN: asked.turn,
            Attribute.CONVERSATION: said[Attribute.SESSION],
        }
        said[Attribute.ELAPSED] = elapsed * 1000
        if words := asked.directives.words():
            said[Attribute.DIRECTIVES] = tuple(words)
        if intent := _intent(asked.intent or "", self._shown_of(asked, step)):
            said[Attribute.INTENT] = intent
        title = _title(intent or said.get(Attribute.FLOW, ""), said.get(Attribute.QUESTION, ""))
        parent = asked.marks.parent if asked.marks else ""
        root = span_id(asked.turn, Span.ASK)
        end = asked.at + elapsed
        return self._span(
            asked.trace, root, parent, Span.ASK, asked.at, end, said, links=tuple(links), title=title, error=error
        )

    def _steps(self, asked: Asked, step: Step | None, answer: Answer | None, *, error: str = "") -> list[SpanRecord]:
        """The steps that were taken, in their order; of a question that failed the last one has the error."""
        times: dict[str, tuple[float, float]] = {}
        for name, began, ended in asked.marks.steps if asked.marks else ():
            first = times[name][0] if name in times and name in _ROUND_TRIPS else began
            times[name] = (first, ended)
        root = span_id(asked.turn, Span.ASK)
        taken = sorted(times, key=_ORDER.index)
        spans = []
        for name in taken:
            began, ended = (asked.at + (moment - asked.started) for moment in times[name])
            said = self._who(asked)
            if step is not None:
                said |= self._of(name, step, answer)
            failed = error if error and name == taken[-1] else ""
            spans.append(
                self._span(asked.trace, span_id(asked.turn, name), root, name, began, ended, said, error=failed)
            )
        return spans

    def _of(self, name: str, step: Step, answer: Answer | None) -> dict[str, Any]:
        """What one step has to say."""
        plan, read, facts = step.plan, step.read, step.facts
        match name:
            case Span.ROUTE:
                return {
                    Attribute.FLOW: plan.spec.key,
                    Attribute.ROUTE_HOW: plan.route.how,
                    Attribute.ROUTE_CONFIDENCE: float(plan.route.confidence),
                }
            case Span.IDENTIFY:
                return {
                    Attribute.SCOPE: plan.scope.value if plan.scope else "none",
                    Attribute.KEY: plan.wanted[0].key if plan.wanted else "",
                    Attribute.CONTEXT: len(plan.enrichment.turns),
                }
            case Span.RECALL:
                return {
                    Attribute.DATABASE: "redis",
                    Attribute.RECALLED: len(read.recalled.turns),
                    Attribute.DAMAGED: read.recalled.damaged,
                }
            case Span.LOOK_UP:
                verdicts = [f"{one.scope}: {one.verdict.value}" for one in step.considered if one.similarity is None]
                said: dict[str, Any] = {
                    Attribute.DATABASE: "redis",
                    Attribute.LOOKED_FOR: tuple(wanted.key for wanted in plan.wanted),
                    Attribute.FOUND: tuple(verdicts),
                }
                return said if read.error is None else said | {Attribute.ERROR: read.error.code}
            case Span.VERIFY:
                return {Attribute.VERIFIED: facts.verified, Attribute.FINGERPRINT: facts.fingerprint}
            case Span.DECIDE:
                decided = "serve" if isinstance(step.decision, Serve | ServeStale) else "ask"
                if not isinstance(step.decision, Serve | ServeStale | Ask):
                    decided = type(step.decision).__name__.lower()
                return {Attribute.DECISION: decided, Attribute.REASON: step.reason.value}
            case Span.COMPARE:
                return self._compared(step)
            case Span.ANSWER if answer is not None:
                return {Attribute.SOURCE: answer.source.value, Attribute.ANSWER_LENGTH: len(answer.text)}
            case Span.REMEMBER if answer is not None:
                return {Attribute.DATABASE: "redis", Attribute.REMEMBERED: answer.remembered}
        return {}

    def _compared(self, step: Step) -> dict[str, Any]:
        match = step.match
        if match is None:
            return {}
        considered = match.choice.considered
        said: dict[str, Any] = {
            Attribute.COMPARED: len(considered),
            Attribute.CACHE_HIT: match.choice.served is not None,
        }
        if match.embedder:
            said[Attribute.EMBEDDER] = match.embedder[:16]
        if considered:
            said[Attribute.NEAREST] = max(float(one.similarity) for one in considered)
        if match.why:
            said[Attribute.WHY_NOT] = match.why
        return said

    def _of_answer(self, answer: Answer) -> dict[str, Any]:
        hit = answer.outcome in _HITS
        said: dict[str, Any] = {
            Attribute.OUTCOME: answer.outcome.value,
            Attribute.REASON: answer.reason.value,
            Attribute.SOURCE: answer.source.value,
            Attribute.CACHE_HIT: hit,
            Attribute.TURN: answer.turn_id,
            Attribute.TENANT: self._tenant,
            Attribute.FLOW: answer.flow,
            Attribute.FLOW_ID: answer.flow_id,
            Attribute.FLOW_NAME: answer.flow_name,
            Attribute.FINGERPRINT: answer.fingerprint,
            Attribute.ELAPSED: answer.elapsed_ms,
            Attribute.ANSWER_LENGTH: len(answer.text),
            Attribute.REMEMBERED: answer.remembered,
        }
        if hit:
            said[Attribute.AGE] = float(answer.age_seconds)
        if answer.scope:
            said[Attribute.SCOPE] = answer.scope
        if answer.key:
            said[Attribute.KEY] = answer.key
        if answer.ttl_seconds is not None:
            said[Attribute.TTL] = float(answer.ttl_seconds)
        if answer.similarity is not None:
            said[Attribute.SIMILARITY] = float(answer.similarity)
        if answer.faq:
            said[Attribute.FAQ] = answer.faq
        if answer.near:
            said[Attribute.NEAR] = True
        if answer.warnings:
            said[Attribute.WARNINGS] = len(answer.warnings)
        return said

    def _of_step(self, step: Step, shown: Shown | None) -> dict[str, Any]:
        """What the whole has to say of a question that was planned."""
        asked, plan = step.asked, step.plan
        said = self._flow(step) | {
            Attribute.QUESTION_LENGTH: len(asked.text),
            Attribute.ROUTE_HOW: plan.route.how,
            Attribute.CONTEXT: len(plan.enrichment.turns),
        }
        if plan.config:
            said[Attribute.CONFIG_NAMES] = tuple(sorted(plan.config))
        if shown is not None:
            said[Attribute.QUESTION] = shown(asked.text)
            if plan.config:
                said[Attribute.CONFIG] = shown(json.dumps(plan.config, ensure_ascii=False))
        return said

    def _flow(self, step: Step) -> dict[str, Any]:
        spec = step.plan.spec
        return {
            Attribute.FLOW: spec.key,
            Attribute.FLOW_ID: spec.id,
            Attribute.FLOW_NAME: spec.name or spec.key,
            Attribute.FLOW_KIND: spec.kind,
            Attribute.FLOW_TYPE: spec.type.value,
        }

    def _who(self, asked: Asked) -> dict[str, Any]:
        """Whose question it was; of one that nothing is to be kept of, that is not said either."""
        return {} if asked.directives.no_store or asked.unkept else self._common(asked.session, asked.user)

    def _common(self, session: str, user: str) -> dict[str, Any]:
        said: dict[str, Any] = {Attribute.SESSION: outward_id(session)}
        if user:
            said[Attribute.USER] = outward_id(user)
        return said

    def _origin(self, answer: Answer, origin: Entry | None) -> tuple[Link, ...]:
        """The call that computed an answer which was served again."""
        trace = answer.origin_trace_id
        if not is_trace_id(trace) or (origin is None and trace == answer.trace_id):
            return ()
        if origin is not None and origin.turn_id:
            self._origins[trace] = origin.turn_id
            self._origins.move_to_end(trace)
            if len(self._origins) > _ORIGINS:
                self._origins.popitem(last=False)
        turn = self._origins.get(trace, "")
        if not turn:
            return ()
        return (Link(trace, span_id(turn, Span.CALL), {Attribute.LINK: "origin"}),)

    def _shown_of(self, asked: Asked, step: Step | None) -> Shown | None:
        """How text of a question is shown: without what may not be kept; masked, where it is private for what is in it
        or was not even planned."""
        shown = self._shown
        if shown is None or asked.directives.no_store or asked.directives.private or asked.unkept:
            return None
        if step is None:
            return masked
        kept = step.plan.kept
        if kept.private:
            shown = masked
        return shown if kept.redactor is None else lambda text: shown(kept.text(text))

    def _span(
        self,
        trace: str,
        span: str,
        parent: str,
        name: str,
        start: float,
        end: float,
        said: dict[str, Any],
        *,
        links: tuple[Link, ...] = (),
        title: str = "",
        error: str = "",
    ) -> SpanRecord:
        if self._langfuse:
            said = said | for_langfuse(name, said, title=title, remote=bool(parent), error=error)
        return SpanRecord(trace, span, parent, name, start, end, said, links, error)


def _previous(step: Step) -> tuple[Link, ...]:
    """The turn before this one in its session."""
    turns = step.read.recalled.turns
    if not turns or not is_trace_id(turns[-1].trace_id):
        return ()
    return (Link(turns[-1].trace_id, span_id(turns[-1].id, Span.ASK), {Attribute.LINK: "previous"}),)


def _intent(intent: str, shown: Shown | None) -> str:
    """An intent as traces carry it: one word is a label, more are somebody's words."""
    return intent if _LABEL.fullmatch(intent) else shown(intent) if shown is not None and intent else ""


def _title(first: str, question: str) -> str:
    """What a trace is called: what it is for, and the first words of the question where they are shown."""
    words = question.split()
    return (
        f"{first}: {' '.join(words[:_WORDS])}{' ...' if len(words) > _WORDS else ''}" if words else first or "question"
    )

"""What a question adds to the counters: its outcome, its times, what it saved, its session, who asked it.

Invariant: pure; and nothing of what was asked gets into a field: fields are words of ours and of the registry. Who
asked is counted, as a digest, only where no session keeps the question to itself (`policy.visibility.counts_asker`).

    outcome:X  reason:X               questions that were answered
    failed  failed:CODE  refused      questions that ended in an error of the flow; only-if-cached without an answer
    hit_us  hN                        time of hits (exact and similar): sum, and counts by bucket (`insight.latency`)
    saved_us  sN                      time that the flow took for an answer that was served again, less the wait
    saved_in  saved_out               tokens of such calls
    calls  flow_us  fN                calls of the flow that were answered
    tokens_in  tokens_out             their tokens, where the flow tells
    warm_calls                        those of them that a warm-up made
    errors  error:CODE                calls of the flow that failed
    session:X                         see `_session_fields`
    intent:X  intent_served:X         questions with a named intent, and those of them that were served from memory
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from agentic_flywheel.flows.words import fold
from agentic_flywheel.insight.latency import bucket_of
from agentic_flywheel.model import Answer, Entry, Outcome, Reason
from agentic_flywheel.policy.visibility import counts_asker
from agentic_flywheel.store.counters import Tier, asker_digest

if TYPE_CHECKING:
    from agentic_flywheel.errors import FlowError
    from agentic_flywheel.flows.protocol import AnswerDone
    from agentic_flywheel.flows.snapshot import RegistrySnapshot
    from agentic_flywheel.questions import Asked, Plan
    from agentic_flywheel.recollection import Read
    from agentic_flywheel.steps import Step

#: Who comes back after so long has resumed the conversation.
PAUSE_SECONDS = 1800.0
#: Intents that no flow of the registry knows.
OTHER_INTENT = "~"

_SERVED = frozenset({Outcome.HIT, Outcome.SIMILAR, Outcome.STALE, Outcome.JOINED})
_HITS = frozenset({Outcome.HIT, Outcome.SIMILAR})


class Counted(NamedTuple):
    """What a question adds for its flow and for its asker; `asker` is a digest, "" where nobody is counted."""

    fields: Mapping[str, int]
    asker: str = ""
    asked: Mapping[str, int] = {}


class IntentLabels:
    """How intents are counted: as the registry writes them (a flow's key, name, keyword), others as `OTHER_INTENT`.

    What askers call an intent may be anything; only what an operator wrote becomes a label.
    """

    def __init__(self) -> None:
        self._snapshot: RegistrySnapshot | None = None
        self._words: dict[str, str] = {}

    def label(self, intent: str, snapshot: RegistrySnapshot) -> str:
        """The label of an intent under a registry."""
        if snapshot is not self._snapshot:
            words = (word for spec in snapshot.flows.values() for word in (*spec.intent_keywords, spec.name, spec.key))
            self._words = {_plain(word): word[:64] for word in words if word}
            self._snapshot = snapshot
        return self._words.get(_plain(intent), OTHER_INTENT)


def _plain(word: str) -> str:
    return " ".join(fold(word).split())


def answered(step: Step, answer: Answer, call: Entry | None, labels: IntentLabels) -> Counted:
    """What an answered question counts as, but for the time that a hit took (`hit_time`). `call` is the answer as it
    was computed, where it is served again."""
    outcome = answer.outcome
    fields = {f"outcome:{outcome.value}": 1, f"reason:{answer.reason.value}": 1}
    saved_us = 0
    if call is not None and outcome in _SERVED and answer.reason is not Reason.FLOW_FAILED:
        if call.flow_ms is not None:
            saved_us = max(0, int((call.flow_ms - answer.elapsed_ms) * 1000))
            fields["saved_us"] = saved_us
            fields[f"s{bucket_of(saved_us)}"] = 1
        if call.tokens_in or call.tokens_out:
            fields["saved_in"], fields["saved_out"] = call.tokens_in, call.tokens_out
    fields |= _session_fields(step.asked, step.read)
    if step.asked.intent:
        label = labels.label(step.asked.intent, step.plan.registry)
        fields[f"intent:{label}"] = 1
        if outcome in _SERVED:
            fields[f"intent_served:{label}"] = 1
    if not (asker := _asker(step.asked, step.plan)):
        return Counted(fields)
    asked = {"asked": 1, "served": int(outcome in _SERVED), "saved_ms": saved_us // 1000}
    return Counted(fields, asker, {name: amount for name, amount in asked.items() if amount})


def hit_time(outcome: Outcome, elapsed_ms: float) -> dict[str, int]:
    """The time of an answer, where it was a hit."""
    if outcome not in _HITS:
        return {}
    microseconds = int(elapsed_ms * 1000)
    return {"hit_us": microseconds, f"h{bucket_of(microseconds)}": 1}


def failed(step: Step, error: FlowError) -> Counted:
    """What a question counts as that ended in an error of its flow."""
    asker = _asker(step.asked, step.plan)
    return Counted({"failed": 1, f"failed:{error.code}": 1}, asker, {"failed": 1} if asker else {})


def called(done: AnswerDone, flow_ms: float) -> dict[str, int]:
    """What a call of a flow counts as that was answered."""
    microseconds = int(flow_ms * 1000)
    fields = {"calls": 1, "flow_us": microseconds, f"f{bucket_of(microseconds)}": 1}
    if done.tokens:
        fields["tokens_in"], fields["tokens_out"] = done.tokens
    return fields


def _asker(asked: Asked, plan: Plan) -> str:
    private = asked.directives.no_store or asked.unkept or plan.private(asked.directives)
    if not asked.user or not counts_asker(plan.spec.sharing, private=private):
        return ""
    return asker_digest(asked.user)


def _session_fields(asked: Asked, read: Read) -> dict[str, int]:
    """How a question stands to its session:

    session:alone       no session was named: it is one of its own
    session:begun       the session that was named began with it
    session:known       the session was there
    session:kept        of those: its turns were read, all sound
    session:paused      of those: after a pause of half an hour or more
    session:unread      a session was named, and nothing could be read of it
    session:active@TIER the session's first question of this hour, of this day
    """
    if asked.directives.no_store or asked.unkept:
        return {}
    if not asked.resumed:
        return {"session:alone": 1, "session:active@hour": 1, "session:active@day": 1}
    recalled = read.recalled
    session = recalled.session
    if session is None and read.error is not None:
        return {"session:unread": 1}
    if session is None or not session.turns:
        return {"session:begun": 1, "session:active@hour": 1, "session:active@day": 1}
    fields = {"session:known": 1}
    if recalled.turns and not recalled.damaged:
        fields["session:kept"] = 1
    if asked.at - session.last_active_at >= PAUSE_SECONDS:
        fields["session:paused"] = 1
    for tier, name in ((Tier.HOUR, "session:active@hour"), (Tier.DAY, "session:active@day")):
        if asked.at // tier != session.last_active_at // tier:
            fields[name] = 1
    return fields

"""Every name that a trace carries: spans, attributes, scores; ours, those of OpenTelemetry, and those of Langfuse.

Invariant: no other module spells one of these names. docs/traces.md lists the same; a test holds the two together, and
another one holds the names of Langfuse to those of its own SDK.

The `gen_ai.*` names are OpenTelemetry's semantic conventions for generative AI (semantic-conventions-genai 0.1.0, still
"Development"); they have none for an answer that comes from a cache, so those are ours.
"""

from __future__ import annotations

from typing import Final

#: What wrote the spans: OpenTelemetry's instrumentation scope, and the service's name where nobody gives one.
SCOPE: Final = "agentic_flywheel"
SERVICE: Final = "agentic-flywheel"


class Span:
    """The steps of a question, in the order in which they are taken; `ASK` is the whole of it."""

    ASK: Final = "afw.ask"
    ROUTE: Final = "afw.route"
    IDENTIFY: Final = "afw.identify"
    RECALL: Final = "afw.recall"
    LOOK_UP: Final = "afw.look_up"
    VERIFY: Final = "afw.verify"
    DECIDE: Final = "afw.decide"
    COMPARE: Final = "afw.compare"
    ANSWER: Final = "afw.answer"
    CALL: Final = "afw.call"
    REMEMBER: Final = "afw.remember"
    #: What was said of an answer afterwards.
    SCORE: Final = "afw.score"


class Attribute:
    """What spans say; where OpenTelemetry has a name for something, it is that one."""

    TENANT: Final = "afw.tenant"
    TURN: Final = "afw.turn.id"
    OUTCOME: Final = "afw.outcome"
    REASON: Final = "afw.reason"
    SOURCE: Final = "afw.source"
    CACHE_HIT: Final = "afw.cache_hit"
    SCOPE: Final = "afw.scope"
    KEY: Final = "afw.key"
    AGE: Final = "afw.age_seconds"
    TTL: Final = "afw.ttl_seconds"
    SIMILARITY: Final = "afw.similarity"
    FAQ: Final = "afw.faq.id"
    NEAR: Final = "afw.near"
    ORIGIN_TRACE: Final = "afw.origin.trace_id"
    PREVIOUS_TRACE: Final = "afw.previous.trace_id"
    ELAPSED: Final = "afw.elapsed_ms"
    QUESTION_LENGTH: Final = "afw.question.characters"
    ANSWER_LENGTH: Final = "afw.answer.characters"
    QUESTION: Final = "afw.question.text"
    ANSWER: Final = "afw.answer.text"
    MATCHED: Final = "afw.matched_question.text"
    REMEMBERED: Final = "afw.remembered"
    WARNINGS: Final = "afw.warnings"
    DIRECTIVES: Final = "afw.directives"
    INTENT: Final = "afw.intent"
    FLOW: Final = "afw.flow.key"
    FLOW_KIND: Final = "afw.flow.kind"
    FLOW_TYPE: Final = "afw.flow.type"
    CONFIG: Final = "afw.flow.config"
    CONFIG_NAMES: Final = "afw.flow.config.names"
    FINGERPRINT: Final = "afw.flow.fingerprint"
    ROUTE_HOW: Final = "afw.route.how"
    ROUTE_CONFIDENCE: Final = "afw.route.confidence"
    CONTEXT: Final = "afw.context.turns"
    RECALLED: Final = "afw.recall.turns"
    DAMAGED: Final = "afw.recall.damaged"
    LOOKED_FOR: Final = "afw.look_up.keys"
    FOUND: Final = "afw.look_up.found"
    VERIFIED: Final = "afw.verify.verified"
    COMPARED: Final = "afw.compare.candidates"
    NEAREST: Final = "afw.compare.nearest"
    WHY_NOT: Final = "afw.compare.why_not"
    EMBEDDER: Final = "afw.compare.embedder"
    DECISION: Final = "afw.decision"
    CALL_FOR: Final = "afw.call.purpose"
    COMPLETE: Final = "afw.call.complete"
    LINK: Final = "afw.link"

    FLOW_ID: Final = "gen_ai.agent.id"
    FLOW_NAME: Final = "gen_ai.agent.name"
    OPERATION: Final = "gen_ai.operation.name"
    CONVERSATION: Final = "gen_ai.conversation.id"
    PROVIDER: Final = "gen_ai.provider.name"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    TOKENS_IN: Final = "gen_ai.usage.input_tokens"
    TOKENS_OUT: Final = "gen_ai.usage.output_tokens"
    SCORE_NAME: Final = "gen_ai.evaluation.name"
    SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
    SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
    SCORE_WHY: Final = "gen_ai.evaluation.explanation"

    DATABASE: Final = "db.system.name"
    ERROR: Final = "error.type"
    SESSION: Final = "session.id"
    USER: Final = "user.id"
    SERVICE_NAME: Final = "service.name"
    SERVICE_VERSION: Final = "service.version"
    ENVIRONMENT: Final = "deployment.environment.name"


class Langfuse:
    """What Langfuse reads beside `session.id` and `user.id`: it files a span by these."""

    TRACE_NAME: Final = "langfuse.trace.name"
    TRACE_TAGS: Final = "langfuse.trace.tags"
    TRACE_METADATA: Final = "langfuse.trace.metadata"
    KIND: Final = "langfuse.observation.type"
    METADATA: Final = "langfuse.observation.metadata"
    LEVEL: Final = "langfuse.observation.level"
    STATUS: Final = "langfuse.observation.status_message"
    INPUT: Final = "langfuse.observation.input"
    OUTPUT: Final = "langfuse.observation.output"
    MODEL: Final = "langfuse.observation.model.name"
    USAGE: Final = "langfuse.observation.usage_details"
    RELEASE: Final = "langfuse.release"
    ENVIRONMENT: Final = "langfuse.environment"
    AS_ROOT: Final = "langfuse.internal.as_root"

    #: How each kind of span is filed; the rest is a plain span.
    KINDS: Final = {
        Span.ASK: "agent",
        Span.ROUTE: "chain",
        Span.RECALL: "retriever",
        Span.LOOK_UP: "retriever",
        Span.COMPARE: "retriever",
        Span.CALL: "generation",
    }


class Score:
    """What answers are judged by: `QUALITY` from 1 to 10, as people gave it; else 1 where it is so, and 0."""

    QUALITY: Final = "quality"
    REPORTED: Final = {kind: f"reported_{kind}" for kind in ("wrong", "outdated", "private")}
    AUDIT: Final = "similar_answer_right"

"""What the tools return, as pydantic models: the output schemas of the MCP surface.

Invariant: these models only rename and describe what the facade gives (they are read from its structs by attribute);
no value is computed here except what the older server's `_mcp_metadata` block repeats. Secrets in a flow's
configuration never leave: `shown_config` masks them, and every model with a `config` goes through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agentic_flywheel.interfaces.secrets import shown_config
from agentic_flywheel.likeness import ReportKind, ReportReceipt
from agentic_flywheel.model import Answer, FlowType, Origin, Outcome, Reason, Session, Sharing, Turn
from agentic_flywheel.threads import Carried, ChangeKind, LinkHow


def shown_settings(config: Mapping[str, Any]) -> str:
    """A configuration in one line, secrets masked.

    >>> shown_settings({"temperature": 0.2, "apiKey": "sk-1"})
    "temperature=0.2, apiKey='***'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in shown_config(config).items())


Config = Annotated[dict[str, Any], BeforeValidator(shown_config)]


class Result(BaseModel):
    """Base of all results: built from the facade's structs by attribute, or from a mapping."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)


def _renamed(struct: msgspec.Struct, **names: str) -> dict[str, Any]:
    """The fields of `struct`, some under another name: `new="old"`."""
    fields = msgspec.structs.asdict(struct)
    return fields | {new: fields.pop(old) for new, old in names.items()}


class SourceResult(Result):
    """A place that an answer rests on."""

    title: str
    uri: str = ""
    excerpt: str = ""
    score: float | None = Field(None, description="Similarity, 0 to 1; null where the flow gives none.")


class RouteScoreResult(Result):
    """How well one flow fits the question."""

    flow: str
    score: float
    matched: list[str] = []


class RouteResult(Result):
    """Which flow was picked and why."""

    flow: str
    how: str = Field(description="explicit, intent, session, keywords, fallback or only.")
    confidence: float = 1.0
    intent: str = ""
    scores: list[RouteScoreResult] = []


class CandidateResult(Result):
    """A stored answer that was looked for, and why it was served or not."""

    key: str
    scope: str
    verdict: Reason
    age_seconds: float | None = None
    question: str = Field("", description="The stored question, where it is another one that is similar.")
    similarity: float | None = Field(None, description="Of that question, 0 to 1; null for the very question.")
    refusals: list[str] = Field([], description="The guards that refused, each with its evidence.")


class ContextTurnResult(Result):
    """An earlier turn that went with a question."""

    turn_id: str
    why: Carried = Field(description="newest, first, or relevant (further back, with words of the question).")
    words: list[str] = Field([], description="Words of the question that a relevant turn has.")


class McpMetadata(Result):
    """The block that clients of the older server read."""

    flow_used: str = Field(description="The flow's name.")
    flow_key: str
    flow_id: str
    session_id: str
    intent_detected: str
    config_used: Config


class AnswerResult(Result):
    """An answer with its whole provenance."""

    text: str
    flow: str = Field(description="Key of the flow that answered.")
    flow_id: str
    flow_name: str
    session_id: str = Field(description="Pass it to the next flowise_query to go on with this conversation.")
    turn_id: str
    trace_id: str
    outcome: Outcome = Field(description="hit, similar, miss, stale, joined or bypass.")
    reason: Reason
    question: str
    key: str | None = Field(None, description="Redis key of the stored answer; null where nothing is stored.")
    scope: str = ""
    age_seconds: float = Field(0.0, description="0 for an answer computed now.")
    ttl_seconds: float | None = Field(None, description="What is left of the stored answer's lifetime.")
    fingerprint: str = Field("", description="Digest of the flow configuration that answered.")
    origin_trace_id: str = Field("", description="Trace of the run that computed the answer.")
    elapsed_ms: float = 0.0
    flow_ms: float | None = None
    sources: list[SourceResult] = []
    context: list[str] = Field([], description="Ids of the earlier turns that enriched the question.")
    enrichment: list[ContextTurnResult] = Field([], description="The same turns, each with why it was chosen.")
    route: RouteResult | None = None
    config: Config = {}
    remembered: bool = False
    source: Origin = Field(
        Origin.FLOW, description="Whose words these are: flow, cache, or faq (a person approved them)."
    )
    faq: str = Field("", description="The FAQ entry that answered, for flowise_faq; empty unless source is faq.")
    similarity: float | None = Field(
        None, description="How like matched_question is, 0 to 1; null unless the outcome is similar."
    )
    matched_question: str = Field("", description="The stored question that this one was taken for.")
    considered: list[CandidateResult] = []
    warnings: list[str] = Field([], description="Sentences for people: degraded operation, what was not kept and why.")
    mcp_metadata: McpMetadata = Field(alias="_mcp_metadata")

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """The result for `answer`."""
        block = McpMetadata(
            flow_used=answer.flow_name or answer.flow,
            flow_key=answer.flow,
            flow_id=answer.flow_id,
            session_id=answer.session_id,
            intent_detected=answer.route.intent if answer.route else "",
            config_used=answer.config,
        )
        fields = {name: getattr(answer, name) for name in cls.model_fields if name != "mcp_metadata"}
        return cls.model_validate(fields | {"mcp_metadata": block})


class FlowResult(Result):
    """One flow as the registry describes it; `ttl_seconds` is the lifetime in force, null while Redis is away."""

    key: str
    id: str
    name: str = ""
    kind: str
    type: FlowType
    description: str = ""
    purpose: str = ""
    active: bool = True
    routable: bool = True
    sharing: Sharing = Sharing.TEAM
    intent_keywords: list[str] = []
    base_url: str = ""
    config: Config = {}
    session_format: str = ""
    ttl_seconds: float | None = None


class FlowListResult(Result):
    """The flows that may be asked, and the registry file they were read from."""

    flows: list[FlowResult]
    default_flow: str | None = Field(None, description="Takes the questions that fit no other flow.")
    registry: str = ""
    warnings: list[str] = []


class ConfigureResult(Result):
    """The configuration in force after the change."""

    flow: str
    config: Config
    session_id: str | None = Field(None, description="The only conversation it holds for; null: everybody.")
    changed: bool = Field(description="False where it said so already.")
    warnings: list[str] = []


class AddFlowResult(Result):
    """The flow that was added; it can be asked at once."""

    flow: FlowResult
    registry: str = Field(description="The file that was written.")


class BrowseResult(Result):
    """Where a person looks at a flow; nothing is opened."""

    flow: str
    address: str
    canvas: bool


class SessionResult(Result):
    """What is known of a conversation. Times are epoch seconds."""

    session_id: str
    owner: str = ""
    title: str = ""
    tags: list[str] = []
    flow: str = Field("", description="Flow of the newest turn: a follow-up stays with it.")
    turns: int = 0
    created_at: float = 0.0
    last_active_at: float = 0.0
    config: Config = Field({}, description="Laid over the flow's configuration for this conversation alone.")
    links: list[str] = Field([], description="Conversations that people tied to this one.")

    @classmethod
    def of(cls, session: Session) -> Self:
        """The result for `session`."""
        return cls.model_validate(_renamed(session, session_id="id"))


class LinkResult(Result):
    """A conversation that belongs to another one."""

    session_id: str
    how: LinkHow = Field(description="set (tied by a person) or found (on the same topic).")
    title: str = ""
    flow: str = ""
    turns: int = 0
    last_active_at: float = 0.0
    words: list[str] = []
    likeness: float | None = Field(None, description="How much both share, 0 to 1; null for one that was set.")


class ChangeResult(Result):
    """A change between two turns."""

    turn_id: str = Field(description="The first turn after it.")
    kind: ChangeKind = Field(description="flow or configuration.")
    flow: str
    old: str
    new: str


class TurnResult(Result):
    """One question with its answer."""

    turn_id: str
    at: float = Field(description="Epoch seconds.")
    question: str
    answer: str
    flow: str
    outcome: Outcome
    reason: Reason
    trace_id: str
    origin_trace_id: str = ""
    fingerprint: str = ""
    key: str = Field("", description="Redis key of the stored answer; empty where there is none.")
    elapsed_ms: float = 0.0
    flow_ms: float | None = None
    parent: str = Field("", description="Id of the turn before it.")
    context: list[str] = []
    private: bool = False
    intent: str = ""
    sources: list[SourceResult] = []
    similarity: float | None = Field(None, description="How like matched_question is; null unless it is similar.")
    matched_question: str = ""
    faq: str = Field("", description="The FAQ entry that answered; empty where none did.")

    @classmethod
    def of(cls, turn: Turn) -> Self:
        """The result for `turn`."""
        return cls.model_validate(_renamed(turn, turn_id="id", key="entry_key"))


class SessionHistoryResult(Result):
    """The newest turns of a session, oldest of them first; `total_turns` counts all there are."""

    session: SessionResult
    turns: list[TurnResult]
    changes: list[ChangeResult] = Field([], description="Where another flow or configuration began to answer.")
    links: list[LinkResult] = []
    total_turns: int
    warnings: list[str] = []


class FlowFiguresResult(Result):
    """What one flow's cache did over a window."""

    flow: str
    questions: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    hit_rate: float = Field(description="0 to 1.")
    miss_rate: float = Field(0.0, description="Answered by the flow and stored, 0 to 1.")
    hit_ms: float | None = Field(description="Mean time of a hit.")
    hit_p50_ms: float | None = Field(None, description="Half of the hits took no longer, within 9.1 %.")
    hit_p95_ms: float | None = None
    hit_p99_ms: float | None = None
    flow_ms: float | None = Field(description="Mean time of a run of the flow.")
    failed: int = Field(0, description="Questions that ended in an error of the flow.")
    saved_seconds: float
    entries: int


class TopQueryResult(Result):
    """A question that is asked often, in its commonest words."""

    question: str
    flow: str
    cluster: str = Field(description="Its name, whatever words it is asked in.")
    asked: int
    served: int = Field(description="How often from memory.")
    hit_rate: float = Field(description="0 to 1.")


class CacheStatsResult(Result):
    """Figures of every flow and their sum, from `since` on up to `until` (epoch seconds)."""

    days: int = Field(description="How many days back that goes, today included.")
    since: float
    until: float
    total: FlowFiguresResult
    flows: list[FlowFiguresResult]
    damaged_values: int = 0
    used_memory_bytes: int | None = None
    top_queries: list[TopQueryResult] = Field([], description="Asked most, of what all may see; by whole days.")


class ReceiptResult(Result):
    """What was removed, or would be (`dry_run`)."""

    action: str
    target: str
    dry_run: bool = Field(description="True: nothing was removed; call again with confirm=true to do it.")
    removed: dict[str, int] = {}
    unreachable: int = Field(0, description="Answers that can no longer be served from this moment on.")
    notes: list[str] = []
    at: float = 0.0


class CutResult(Result):
    """From which similarity on answers are shared, and why."""

    value: float | None = Field(description="0 to 1; null: none are shared.")
    why: str
    right: int = 0
    wrong: int = 0
    bound: float | None = Field(None, description="Largest share of wrong answers that the labels allow for.")


class ReportResult(Result):
    """What a report did, and the fresh answer where one was wanted."""

    report_id: str
    kind: ReportKind
    turn_id: str
    session_id: str
    flow: str
    question: str
    matched_question: str = Field("", description="The stored question whose answer had been given.")
    similarity: float | None = None
    note: str = ""
    by: str = ""
    at: float = Field(description="Epoch seconds.")
    removed: dict[str, int] = Field({}, description="What is gone, counted by what it is.")
    blocked: list[str] = Field([], description="The two questions that are never taken for each other again.")
    cut: CutResult | None = Field(None, description="What holds for the flow's similar questions now.")
    done: list[str] = Field([], description="What was done, in sentences.")
    answer: AnswerResult | None = Field(None, description="The fresh answer; null unless fresh was set.")

    @classmethod
    def of(cls, receipt: ReportReceipt, answer: Answer | None) -> Self:
        """The result for `receipt`, and `answer` where the flow was asked again."""
        done = {name: getattr(receipt, name) for name in ("removed", "cut", "done")}
        fresh = None if answer is None else AnswerResult.of(answer)
        own = _renamed(receipt.report, report_id="id")
        return cls.model_validate({**own, **done, "blocked": receipt.blocked or (), "answer": fresh})


class LifetimeResult(Result):
    """The lifetime in force, and which rule set it."""

    name: str
    kind: str = Field(description="`type` or `flow`.")
    ttl_seconds: float
    origin: str
    sliding: bool = False


class TashResult(Result):
    """What coaia's own server returns for a stored value."""

    success: bool
    message: str


class FetchResult(Result):
    """What coaia's own server returns for a value that was found."""

    success: bool
    value: str


class ErrorResult(Result):
    """What failed and what to do about it; the structured content of every `is_error` result."""

    error: str = Field(description="What happened, to what.")
    error_type: str
    details: dict[str, Any] = Field({}, description="Facts of the attempt: address, flow, session, timeout.")
    suggestions: list[str] = Field([], description="What to do next, likeliest first.")
    retry_after_seconds: float = Field(0.0, description="0: pointless before something is changed.")
    error_id: str = Field("", description="Ties this result to the server's log.")

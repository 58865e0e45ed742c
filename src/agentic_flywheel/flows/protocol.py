"""What a flow is to the rest of the system: something that streams an answer and can say whether it changed.

Invariant: a client maps every foreign failure to the `FlowError` branch of `errors`, ends every successful stream
with exactly one `AnswerDone`, and never raises anything else. The contract suite in tests/integration proves it
for each kind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import msgspec

from agentic_flywheel.likeness import SimilarPolicy
from agentic_flywheel.model import Answer, Decided, Exchange, FlowType, Sharing, Source
from agentic_flywheel.privacy import PrivacyPolicy


class FlowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One flow as the registry describes it, whatever the shape of the file.

    `key` is the name people use, `id` what the service calls it (a Flowise chatflow id, a model name, a folder).
    `config` is what the flow is asked with (Flowise: overrideConfig). `options` are the kind's own settings.
    `check_every` bounds the age of what is known about the flow's own configuration. `context_turns`,
    `context_relevant` and `context_tokens` are None where the global setting holds. `verbatim` allows the word-for-word
    exception (docs/sharing.md). `acts` marks a flow that acts on the world (it books, sends): a similar question is
    never given its answer.
    """

    key: str
    id: str
    kind: str
    name: str = ""
    description: str = ""
    purpose: str = ""
    type: FlowType = FlowType.TECHNICAL
    sharing: Sharing = Sharing.TEAM
    active: bool = True
    routable: bool = True
    intent_keywords: tuple[str, ...] = ()
    base_url: str = ""
    api_key_env: str = ""
    config: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    session_format: str = ""
    ttl: timedelta | None = None
    sliding: bool = False
    verbatim: bool | None = None
    timeout: timedelta | None = None
    check_every: timedelta | None = None
    context_turns: int | None = None
    context_relevant: int | None = None
    context_tokens: int | None = None
    max_concurrency: int | None = None  # calls under way at a time, over all processes
    calls_per_minute: int | None = None  # over all processes
    acts: bool = False
    price_per_call: float | None = None  # in the setting `usage.currency`
    price_per_1000_tokens_in: float | None = None
    price_per_1000_tokens_out: float | None = None
    warm: int | None = None  # popular questions that are asked again after a change; None: the setting
    similar: SimilarPolicy = SimilarPolicy()
    privacy: PrivacyPolicy | None = None  # what is kept of its questions and answers
    origin: str = ""  # "file:line" of the registry, for messages


class Verbatim(msgspec.Struct, gc=False, frozen=True):
    """How somebody who speaks the service's own protocol wants a flow asked: what the service says is kept as it came.

    `streaming` asks for a stream, or for the whole answer at once. `authorization` takes the place of the flow's own
    credential for this call and is kept nowhere; `credential` is what the answer is stored under beside the question:
    a digest of it where it decides who may have the answer, "" where everybody may.
    """

    streaming: bool = False
    authorization: str | None = None
    credential: str = ""
    headers: tuple[tuple[str, str], ...] = ()  # of the request, that the service looks at (`Origin`)


class FlowQuestion(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One question on its way to a flow.

    `text` is what to ask. `history` holds the earlier exchanges, oldest first, for kinds with
    `accepts_history`; for the others the path has put them in front of `text` and `history` is empty.
    `instructions` are the asker's own (a system prompt), for kinds with `accepts_instructions`; for the others they
    stand in front of `text` too. `config` is laid over the flow's own (Flowise: overrideConfig). `conversation` is
    unique to this call, so that the service's own memory never adds turns that are not part of the answer's identity.
    """

    text: str
    history: tuple[Exchange, ...] = ()
    instructions: str = ""
    config: Mapping[str, Any] = {}
    conversation: str = ""
    user: str = ""
    trace_id: str = ""
    verbatim: Verbatim | None = None  # for kinds whose own protocol an interface speaks; others pass it over


class TextPart(msgspec.Struct, gc=False, frozen=True):
    """A piece of the answer's text, to be appended."""

    text: str


class SourcesFound(msgspec.Struct, gc=False, frozen=True):
    """The places that the answer rests on."""

    sources: tuple[Source, ...]


class Progress(msgspec.Struct, gc=False, frozen=True):
    """Something the flow reported on the way (a tool call, an agent's step); never part of the answer."""

    event: str
    payload: Any = None


class Tokens(NamedTuple):
    """Tokens of one call: what the flow's models read, and what they wrote."""

    read: int = 0
    written: int = 0


class Frame(msgspec.Struct, gc=False, frozen=True):
    """A piece of the service's own stream as it came, where that was asked for (`Verbatim`)."""

    data: str


class AnswerDone(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The end of a stream that ended well, with the whole answer.

    `complete` is False where the kind can see that the text was cut off: such an answer is shown, never stored.
    `metadata` keeps the service's own ids and usage figures; `tokens` is None where the service does not tell.
    """

    text: str
    sources: tuple[Source, ...] = ()
    complete: bool = True
    metadata: Mapping[str, Any] = {}
    tokens: Tokens | None = None
    wire: bytes = b""  # what the service said, word for word, where that was asked for; the kind knows its form


FlowEvent = TextPart | SourcesFound | Progress | Frame | AnswerDone
#: What `Flywheel.stream` yields: first what was decided, last the answer, and between them what the flow says.
StreamEvent = Decided | FlowEvent | Answer


class Revision(msgspec.Struct, gc=False, frozen=True):
    """What a service said of a flow's configuration: a digest of all that decides an answer, and its ETag.

    Both are "" where the kind has no configuration beyond the registry's.
    """

    digest: str = ""
    etag: str = ""


class FlowHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check without a question: reachable, known, allowed; `notes` are sentences for people."""

    ok: bool
    notes: tuple[str, ...] = ()
    version: str = ""
    elapsed_ms: float = 0.0


class FlowClient(Protocol):
    """One flow, ready to be asked. Made by `flows.clients.make_client`; closed by whoever made it."""

    spec: FlowSpec
    accepts_history: bool
    accepts_instructions: bool
    #: True where `revision` asks another machine, so that it is asked at most every `check_every`.
    revision_is_remote: bool

    def stream(self, question: FlowQuestion) -> AsyncIterator[FlowEvent]:
        """Ask, and yield what comes back; the last event is `AnswerDone`. Raises `FlowError`."""
        ...

    async def revision(self, known: Revision) -> Revision:
        """What the service says of the flow's configuration now; `known` back if it has not changed.

        Raises `FlowError` when that cannot be said.
        """
        ...

    async def check(self) -> FlowHealth:
        """Look whether the flow could be asked, without asking it. Never raises `FlowError`."""
        ...

    @property
    def address(self) -> str:
        """Where a person looks at the flow (a URL or a folder), "" where there is no such place."""
        ...

    async def aclose(self) -> None:
        """Release connections. Safe to call twice."""
        ...


async def answer_of(events: AsyncIterator[FlowEvent]) -> AnswerDone:
    """Drain a stream to its answer."""
    async for event in events:
        if isinstance(event, AnswerDone):
            return event
    raise RuntimeError("a flow's stream ended without AnswerDone")  # a client broke its contract

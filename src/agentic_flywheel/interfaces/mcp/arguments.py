"""The arguments that several tools share, described once, and what the schemas say about them at the time of listing.

Invariant: names that clients of the older server use (`question`, `intent`, `session_id`, `flow_override`, `flow_id`,
`flow_name`) are kept exactly. The schemas name the flows of the registry as it is when the tools are listed, as
examples and in words, never as a closed list: a flow added a moment later must stay callable, so the facade alone
decides what exists.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.interfaces.mcp.results import ErrorResult
from agentic_flywheel.model import Directives

Question = Annotated[str, Field(description="The question, in the asker's own words.")]
SessionId = Annotated[
    str | None,
    Field(
        description="The conversation that this belongs to: any id of 1 to 256 characters, yours or one from an "
        "earlier answer. Left out: a new conversation, whose id is in the answer."
    ),
]
KnownSessionId = Annotated[str, Field(description="The id of an existing conversation.")]
UserId = Annotated[str | None, Field(description="Who asks; matters where answers are shared per user.")]
Intent = Annotated[str | None, Field(description="A word for what the asker wants, to route by instead of guessing.")]
FlowOverride = Annotated[str | None, Field(description="Ask this flow (its key); left out: the question is routed.")]
FlowFilter = Annotated[str | None, Field(description="Only this flow (its key).")]
Since = Annotated[str | None, Field(description="From then on: a date, or `2 days`.")]
Until = Annotated[str | None, Field(description="Up to then; a whole day is included.")]
NoStore = Annotated[bool, Field(description="Keep nothing of this question: no answer, no turn.")]
NoCache = Annotated[bool, Field(description="Ask the flow afresh, and store the new answer.")]
OnlyIfCached = Annotated[bool, Field(description="Answer from memory or fail with not_cached; never run the flow.")]
Private = Annotated[bool, Field(description="Keep the answer for this conversation alone.")]
Standalone = Annotated[bool, Field(description="The question needs no earlier turn: a shared answer may serve it.")]
MaxAgeSeconds = Annotated[float | None, Field(ge=0, description="Accept no stored answer older than this.")]
MaxStaleSeconds = Annotated[
    float | None, Field(ge=0, description="Accept an answer that is past its lifetime by up to this much.")
]

#: Arguments that take the key of an active flow.
_FLOW_ARGUMENTS = frozenset({"flow_override", "flow"})
#: Tools whose `flow_id` or `flow_name` names a flow that exists already.
_FLOW_TOOLS = {"flowise_configure": "flow_id", "flowise_browse": "flow_name", "flowise_set_ttl": "name"}


class FlowConfig(BaseModel):
    """What a flow is asked with (Flowise: overrideConfig). Other fields are passed on as they are; null removes one."""

    model_config = ConfigDict(extra="allow")

    temperature: Annotated[float | None, Field(ge=0, le=2, description="Randomness of the model, 0 to 2.")] = None
    maxOutputTokens: Annotated[int | None, Field(ge=1, description="Longest answer, in tokens.")] = None  # noqa: N815 -- Flowise's name
    rephrasePrompt: Annotated[str | None, Field(description="How a follow-up is made to stand alone.")] = None  # noqa: N815 -- Flowise's name
    responsePrompt: Annotated[str | None, Field(description="How the answer is to be written.")] = None  # noqa: N815 -- Flowise's name
    returnSourceDocuments: Annotated[bool | None, Field(description="Give the places the answer rests on.")] = None  # noqa: N815 -- Flowise's name

    def changes(self) -> dict[str, Any]:
        """The fields that were given, None for those to remove."""
        return self.model_dump(exclude_unset=True)


def directives(
    *,
    no_store: bool,
    no_cache: bool,
    only_if_cached: bool,
    private: bool,
    standalone: bool,
    max_age_seconds: float | None,
    max_stale_seconds: float | None,
) -> Directives:
    """What the asker wants of the cache, from the arguments of a tool."""
    return Directives(
        no_store=no_store,
        no_cache=no_cache,
        only_if_cached=only_if_cached,
        private=private,
        standalone=standalone,
        max_age=None if max_age_seconds is None else timedelta(seconds=max_age_seconds),
        max_stale=None if max_stale_seconds is None else timedelta(seconds=max_stale_seconds),
    )


def laid_over(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `changes` in place: a value replaces, None removes.

    >>> laid_over({"temperature": 0.7, "topP": 1}, {"temperature": 0.2, "topP": None})
    {'temperature': 0.2}
    """
    return {name: value for name, value in {**config, **changes}.items() if value is not None}


def described_input(
    tool: str, schema: Mapping[str, Any], flows: Sequence[FlowSpec], longest_question: int
) -> dict[str, Any]:
    """`schema` with the flows there are and the limits in force written into it."""
    described = copy.deepcopy(dict(schema))
    names = "; ".join(f"{spec.key} ({spec.type.value}, {spec.kind})" for spec in flows) or "none"
    for name, argument in described.get("properties", {}).items():
        if name == "question":
            argument |= {"minLength": 1, "maxLength": longest_question}
        elif name in _FLOW_ARGUMENTS or _FLOW_TOOLS.get(tool) == name:
            argument["description"] = f"{argument.get('description', '')} Active flows: {names}.".lstrip()
            argument["examples"] = [spec.key for spec in flows]
    return described


def described_output(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` widened to what an `is_error` result holds: either the tool's fields or the error's.

    Some clients check the structured content of errors as well, and would hide the error behind their own.
    """
    described = copy.deepcopy(dict(schema))
    error = ErrorResult.model_json_schema()
    own = described.pop("required", [])
    described["properties"] = described.get("properties", {}) | error["properties"]
    described["anyOf"] = [{"required": own}, {"required": error["required"]}]
    return described

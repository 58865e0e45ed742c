"""What a span says besides, so that Langfuse files it as it should.

Invariant: nothing but what the span says already is said again in Langfuse's names; tokens and models go to calls of
flows alone, so that an answer from memory costs nothing there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agentic_flywheel.observe.names import Attribute, Langfuse, Span

#: What people filter traces by, under the names that they have there.
_METADATA: Final = {
    "session_id": Attribute.SESSION,
    "turn_id": Attribute.TURN,
    "tenant": Attribute.TENANT,
    "intent": Attribute.INTENT,
    "flow_key": Attribute.FLOW,
    "flow_id": Attribute.FLOW_ID,
    "flow_name": Attribute.FLOW_NAME,
    "config_used": Attribute.CONFIG,
    "config_names": Attribute.CONFIG_NAMES,
    "execution_ms": Attribute.ELAPSED,
    "cache_hit": Attribute.CACHE_HIT,
    "outcome": Attribute.OUTCOME,
    "reason": Attribute.REASON,
    "similarity": Attribute.SIMILARITY,
    "age_seconds": Attribute.AGE,
    "source_trace_id": Attribute.ORIGIN_TRACE,
    "previous_trace_id": Attribute.PREVIOUS_TRACE,
    "response_length": Attribute.ANSWER_LENGTH,
}


def for_langfuse(name: str, said: Mapping[str, Any], *, title: str, remote: bool, error: str) -> dict[str, Any]:
    """More attributes for one span. `title` names its trace, where it is the whole of one; `remote` says that it is
    part of somebody else's."""
    more: dict[str, Any] = {Langfuse.KIND: Langfuse.KINDS.get(name, "span")}
    if error:
        more |= {Langfuse.LEVEL: "ERROR", Langfuse.STATUS: error}
    for theirs, ours in ((Langfuse.INPUT, Attribute.QUESTION), (Langfuse.OUTPUT, Attribute.ANSWER)):
        if ours in said:
            more[theirs] = said[ours]
    if name == Span.CALL:
        if model := said.get(Attribute.RESPONSE_MODEL) or said.get(Attribute.REQUEST_MODEL):
            more[Langfuse.MODEL] = model
        if Attribute.TOKENS_IN in said:
            used = {"input": said[Attribute.TOKENS_IN], "output": said[Attribute.TOKENS_OUT]}
            more[Langfuse.USAGE] = json.dumps(used)
    if title:
        hit = "hit" if said.get(Attribute.CACHE_HIT) else "miss"
        tags = [f"cache:{hit}"] + [f"flow:{said[Attribute.FLOW]}"] * (Attribute.FLOW in said)
        more |= {Langfuse.TRACE_NAME: title, Langfuse.TRACE_TAGS: tuple(tags)}
        if Attribute.TENANT in said:  # whoever has traces deleted tells ours by it
            more[f"{Langfuse.METADATA}.tenant"] = said[Attribute.TENANT]
        for key, ours in _METADATA.items():
            if ours in said:
                more[f"{Langfuse.TRACE_METADATA}.{key}"] = _plain(said[ours])
        if remote:
            more[Langfuse.AS_ROOT] = True
    return more


def _plain(value: Any) -> Any:
    """Metadata is text, or JSON as text; truth is spelt as JSON does."""
    return value if isinstance(value, str) else json.dumps(value)

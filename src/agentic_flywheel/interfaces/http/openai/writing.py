"""Answers, streams and errors in the shapes that OpenAI clients read.

Invariant: what OpenAI names has OpenAI's meaning; what is ours stands in `afw` and in headers, where clients that do
not know it pass over it. `usage` counts what this request cost: nothing where the answer came from memory; where a
flow answered, it is left out, since what the flow spent is not known here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentic_flywheel.errors import FlowError, FlowLimited, FlywheelError, NotFound
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.interfaces.http.problems import status_of
from agentic_flywheel.model import Answer, Outcome

_SERVED = frozenset({Outcome.HIT, Outcome.SIMILAR, Outcome.STALE, Outcome.JOINED})
NOTHING_SPENT = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def completion(answer: Answer, created: int) -> dict[str, Any]:
    """A whole answer (`chat.completion`)."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    body: dict[str, Any] = {
        "id": f"chatcmpl-{answer.turn_id}",
        "object": "chat.completion",
        "created": created,
        "model": answer.flow,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "afw": provenance(answer),
    }
    if answer.outcome in _SERVED:
        body["usage"] = NOTHING_SPENT
    return body


def provenance(answer: Answer) -> dict[str, Any]:
    """Where an answer came from, for clients that want to know."""
    facts: dict[str, Any] = msgspec.to_builtins(
        {
            "outcome": answer.outcome,
            "reason": answer.reason,
            "source": answer.source,
            "faq": answer.faq,
            "age_seconds": answer.age_seconds,
            "session_id": answer.session_id,
            "turn_id": answer.turn_id,
            "trace_id": answer.trace_id,
            "origin_trace_id": answer.origin_trace_id,
            "similarity": answer.similarity,
            "matched_question": answer.matched_question,
            "sources": answer.sources,
            "warnings": answer.warnings,
        }
    )
    return facts


class Chunks:
    """The pieces of one streamed answer (`chat.completion.chunk`), as frames of server-sent events."""

    def __init__(self, decided: Answer, created: int, *, include_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{decided.turn_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": decided.flow,
        }
        self._include_usage = include_usage

    def begin(self) -> bytes:
        """The first piece: who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, text: str) -> bytes:
        """Text to append."""
        return self._chunk({"content": text})

    def end(self, answer: Answer) -> bytes:
        """Why it ends, what it cost where that was asked for, and the end."""
        frames = self._chunk({}, "stop", afw=provenance(answer))
        if self._include_usage:
            spent = NOTHING_SPENT if answer.outcome in _SERVED else None
            frames += _frame({**self._head, "choices": [], "usage": spent})
        return frames + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        usage = {"usage": None} if self._include_usage else {}
        return _frame({**self._head, "choices": [choice], **usage, **more})


def failure(error: FlywheelError) -> tuple[int, dict[str, Any]]:
    """Status and body of an error, in OpenAI's shape with our facts beside it."""
    status = status_of(error)
    kind = "invalid_request_error" if status < 500 else "api_error"
    if isinstance(error, FlowLimited):
        kind = "rate_limit_error"
    code = "model_not_found" if isinstance(error, NotFound) and not isinstance(error, FlowError) else error.code
    param = "model" if code == "model_not_found" else error.details.get("param")
    body = {"message": error.message, "type": kind, "param": param, "code": code, "error_id": error.error_id}
    return status, {"error": {**body, "suggestions": list(error.suggestions)}}


def error_frame(error: FlywheelError) -> bytes:
    """An error in a stream that has begun: clients raise on it."""
    return _frame(failure(error)[1])


def model_of(spec: FlowSpec, created: int) -> dict[str, Any]:
    """A flow as a model."""
    return {"id": spec.key, "object": "model", "created": created, "owned_by": spec.kind}


def _frame(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"

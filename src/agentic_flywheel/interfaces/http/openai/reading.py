"""A chat completion request as a question: which flow, what is asked, and what it is asked with.

Invariant: nothing that bears on an answer is dropped in silence. Earlier messages and system prompts are part of what
the answer is stored under; what no flow here can do (tools, several choices, pictures) is refused by name; sampling
parameters go to flows that are models, and are listed as ignored for all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.model import Exchange

#: What a model is asked with besides the messages (https://platform.openai.com/docs/api-reference/chat/create).
SAMPLING: Final = (
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "verbosity",
)
#: What cannot be done here, unless it asks for nothing.
_REFUSED: Final = ("audio", "functions", "logprobs", "tools", "top_logprobs", "web_search_options")


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked. `model` is a flow's key, id or name; `user` and `session` are "" where none is named."""

    model: str
    question: str
    history: tuple[Exchange, ...] = ()
    instructions: str = ""
    sampling: Mapping[str, Any] = {}
    stream: bool = False
    include_usage: bool = False
    user: str = ""
    session: str = ""

    def overrides(self, spec: FlowSpec) -> tuple[dict[str, Any], list[str]]:
        """What is laid over the flow's configuration, and the parameters that mean nothing to this flow."""
        if spec.kind == "openai":
            return dict(self.sampling), []
        return {}, sorted(self.sampling)


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: Any = None


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _Options | None = None
    n: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


def read_chat(raw: bytes) -> ChatRequest:
    """The request in a body of JSON. Raises `InputError` with the name of the parameter in `details["param"]`."""
    try:
        plain = msgspec.json.decode(raw)
        body = msgspec.convert(plain, _Body)
    except RecursionError as error:
        raise InputError("the body is nested too deeply", suggestions=_ADVICE) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the body is not a chat completion request: {error}", suggestions=_ADVICE) from error
    for name in _REFUSED:
        if plain.get(name):
            raise _unfit(name, f"{name!r} cannot be used here: flows answer with text alone")
    if body.n not in (None, 1):
        raise _unfit("n", f"one choice is given, not {body.n}")
    instructions, said = _sorted_out(body.messages)
    if not said or said[-1].role != "user":
        raise _unfit("messages", "the last message must be the user's: it is the question")
    metadata = body.metadata or {}
    return ChatRequest(
        model=body.model,
        question=_text_of(said[-1]),
        history=_exchanges(said[:-1]),
        instructions="\n\n".join(instructions),
        sampling={name: plain[name] for name in SAMPLING if plain.get(name) is not None},
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and body.stream_options.include_usage,
        user=body.user or "",
        session=str(metadata.get("session_id") or ""),
    )


_ADVICE = (
    'Send {"model": "FLOW", "messages": [{"role": "user", "content": "..."}]} as JSON.',
    "List the flows: GET /v1/models.",
    "Compare the request with the documentation of the chat completions API.",
)


def _sorted_out(messages: Sequence[_Message]) -> tuple[list[str], list[_Message]]:
    instructions: list[str] = []
    said: list[_Message] = []
    for message in messages:
        match message.role:
            case "system" | "developer":
                instructions.append(_text_of(message))
            case "user" | "assistant" if not message.tool_calls:
                said.append(message)
            case "user" | "assistant" | "tool" | "function":
                raise _unfit("messages", "calls of tools cannot be part of a conversation with a flow")
            case _:
                raise _unfit("messages", f"there is no role {message.role[:40]!r}")
    return instructions, said


def _exchanges(said: Sequence[_Message]) -> tuple[Exchange, ...]:
    """Messages as pairs of question and answer; what has no counterpart stands alone."""
    pairs: list[Exchange] = []
    waiting: str | None = None
    for message in said:
        text = _text_of(message)
        if message.role == "assistant":
            pairs.append(Exchange(waiting or "", text))
            waiting = None
            continue
        if waiting is not None:
            pairs.append(Exchange(waiting, ""))
        waiting = text
    if waiting is not None:
        pairs.append(Exchange(waiting, ""))
    return tuple(pairs)


def _text_of(message: _Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts: list[str] = []
    for part in message.content:
        text = part.get("text")
        if part.get("type") != "text" or not isinstance(text, str):
            raise _unfit("messages", f"a part of type {str(part.get('type'))[:40]!r} cannot be asked: only text can")
        texts.append(text)
    return "\n".join(texts)


def _unfit(param: str, message: str) -> InputError:
    return InputError(message, suggestions=_ADVICE, param=param)

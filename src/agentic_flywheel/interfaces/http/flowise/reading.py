"""A prediction request as a question, or as something that only Flowise itself can answer.

Invariant: a request is answered from memory only if everything in it is understood: an upload, a form, a step that a
person confirms, or a field that is not known here goes to Flowise as it is. What Flowise would pass on to a model in
silence although it is no question (`{}`, null, a number) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.identifiers import new_uuid
from agentic_flywheel.model import Exchange

#: What a plain question consists of; anything else that is not empty is more than a question.
_PLAIN: Final = frozenset(
    {"question", "overrideConfig", "history", "chatId", "sessionId", "chatflowId", "streaming", "uploads"}
)
#: A larger body is no question that anybody typed, and Flowise's to read.
LONGEST: Final = 1_000_000
#: Fields that take the place of a question.
_INSTEAD: Final = ("form", "action", "humanInput")
_ROLES: Final = {"userMessage": "user", "apiMessage": "api"}
_ADVICE: Final = (
    'Send {"question": "..."} as JSON.',
    "Compare the body with Flowise's prediction API.",
    "Give sessionId and chatId as text.",
)


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A question as a Flowise client asks it; `chat_id` and `session_id` are "" where the client names none."""

    question: str
    config: Mapping[str, Any] = {}
    history: tuple[Exchange, ...] = ()
    chat_id: str = ""
    session_id: str = ""
    streaming: bool = False

    @property
    def session(self) -> str:
        """The conversation that the question belongs to, "" for none."""
        return self.session_id or self.chat_id

    def ids(self) -> tuple[str, str]:
        """`chatId` and `sessionId` as Flowise would give them in its reply."""
        chat = self.chat_id or self.session_id or new_uuid()
        return chat, self.session_id or chat


def read_prediction(media_type: str, raw: bytes) -> Prediction | None:
    """The question in a body, None where Flowise must answer itself. Raises `InputError` where there is none."""
    if len(raw) > LONGEST:
        return None
    match media_type:
        case "application/json" | "":
            try:
                body = msgspec.json.decode(raw)
            except (ValueError, RecursionError):
                return None  # Flowise has words of its own for that
        case "application/x-www-form-urlencoded":
            pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
            body = dict(pairs)
            if len(body) != len(pairs) or body.keys() - {"question", "chatId", "streaming"}:
                return None
        case "multipart/form-data":
            return None
        case _:
            raise _unfit(f"a body of type {media_type[:60]!r} holds no question")
    if not isinstance(body, dict):
        raise _unfit(f"the body is {type(body).__name__}, not an object with a question")
    return _read(body)


def _read(body: dict[str, Any]) -> Prediction | None:
    given = {name: value for name, value in body.items() if value not in (None, "", [], {})}
    if given.keys() - _PLAIN or given.get("uploads"):
        return None
    question = given.get("question")
    if not isinstance(question, str) or not question.strip():
        raise _unfit(f"the question is {_named(body.get('question'))}, not text")
    override = given.get("overrideConfig", {})
    if not isinstance(override, dict):
        raise _unfit("overrideConfig is not an object")
    config = {name: value for name, value in override.items() if name != "sessionId"}
    history = _history(given.get("history", []))
    if history is None:
        return None
    return Prediction(
        question=question,
        config=config,
        history=history,
        chat_id=_id(given, "chatId"),
        session_id=_id(override, "sessionId") or _id(given, "sessionId"),
        streaming=given.get("streaming") in (True, "true"),
    )


def _history(messages: Any) -> tuple[Exchange, ...] | None:
    """Earlier messages as exchanges; None where they are in a form whose text Flowise does not read."""
    if not isinstance(messages, list):
        return None
    pairs: list[Exchange] = []
    asked: str | None = None
    for message in messages:
        if not isinstance(message, dict):
            return None
        role, content = message.get("role"), message.get("content")
        role = _ROLES.get(role) if isinstance(role, str) else None
        if role is None or not isinstance(content, str):
            return None
        if role == "user" and asked is None:
            asked = content
        elif role == "api" and asked is not None:
            pairs.append(Exchange(asked, content))
            asked = None
        else:
            return None  # not a question and an answer in turn: Flowise knows what to make of it
    return tuple(pairs) if asked is None else None


def _id(holder: Mapping[str, Any], name: str) -> str:
    value = holder.get(name)
    if value in (None, ""):
        return ""
    if not isinstance(value, str):
        raise _unfit(f"{name} is {type(value).__name__}, not text")
    return value


def _named(value: Any) -> str:
    return "missing" if value is None else "empty" if isinstance(value, str) else type(value).__name__


def _unfit(message: str) -> InputError:
    return InputError(message, suggestions=_ADVICE)

"""What may be asked at all: questions and ids are checked before anything is touched.

Invariant: whatever passes here can be written to Redis, to a flow and to a terminal without surprises.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from agentic_flywheel.errors import IdError, InputError, QuestionError

LONGEST_ID = 256
#: Configurations nested deeper are a slip, or refer to themselves.
DEEPEST_CONFIG = 32


def admit_question(question: object, *, longest: int) -> str:
    """The question, trimmed. Raises `QuestionError` where it is empty, too long (characters) or not text."""
    if not isinstance(question, str):
        raise QuestionError(f"a question is text, not {type(question).__name__}")
    text = question.strip()
    if text and len(text) <= longest and text.isascii() and text.isprintable():
        return text  # most questions; what follows finds the same in a slower way
    if not any(unicodedata.category(char)[0] not in "CZ" for char in text):
        raise QuestionError("the question is empty")
    if len(text) > longest:
        raise QuestionError(
            f"the question has {len(text)} characters; at most {longest} are accepted",
            characters=len(text),
            limit=longest,
        )
    if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise QuestionError("the question is not valid Unicode (it holds a lone surrogate)")
    return text


def admit_id(value: object, what: str) -> str:
    """A session, user, tenant or turn id, or a tag: 1 to 256 visible characters. Raises `IdError`."""
    what = what if what == "tag" else f"{what} id"
    if not isinstance(value, str):
        raise IdError(f"a {what} is text, not {type(value).__name__}")
    if not value.strip():
        raise IdError(f"the {what} is empty")
    if len(value) > LONGEST_ID:
        raise IdError(f"the {what} has {len(value)} characters; at most {LONGEST_ID} are accepted")
    if value.isprintable():
        return value
    odd = next((char for char in value if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}), None)
    if odd is not None:
        raise IdError(f"the {what} holds the control character U+{ord(odd):04X}")
    return value


def admit_text(value: object, what: str) -> str:
    """A flow's name, an intent or a title: text that can be written anywhere. Raises `InputError`."""
    if not isinstance(value, str):
        raise InputError(f"the {what} is text, not {type(value).__name__}")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InputError(f"the {what} is not valid Unicode (it holds a lone surrogate)")
    return value


def admit_config(value: object) -> dict[str, Any]:
    """Overrides of a flow's configuration, in the form in which they are stored and sent. Raises `InputError`.

    >>> admit_config({"temperature": 0, "stop": ("a", "b")})
    {'temperature': 0, 'stop': ['a', 'b']}
    """
    if not isinstance(value, Mapping):
        raise InputError(f"a configuration is a mapping of names to values, not {type(value).__name__}")
    return {admit_text(name, "name of a setting"): _plain(item, str(name), 1) for name, item in value.items()}


def _plain(value: object, place: str, depth: int) -> Any:
    if depth > DEEPEST_CONFIG:
        raise InputError(f"the configuration is nested more than {DEEPEST_CONFIG} deep", place=place[:LONGEST_ID])
    match value:
        case str():
            return admit_text(value, f"configuration at {place!r}")
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping():
            return {
                admit_text(name, f"name of a setting in {place!r}"): _plain(item, f"{place}.{name}", depth + 1)
                for name, item in value.items()
            }
        case list() | tuple():
            return [_plain(item, f"{place}[{n}]", depth + 1) for n, item in enumerate(value)]
    shown = repr(value) if isinstance(value, int | float) else type(value).__name__
    raise InputError(f"the configuration holds at {place!r} what cannot be written down: {shown}", place=place)

"""What may be asked at all: questions and ids are checked before anything is touched.

Invariant: whatever passes here can be written to Redis, to a flow and to a terminal without surprises.
"""

from __future__ import annotations

import unicodedata

from agentic_flywheel.errors import IdError, QuestionError

LONGEST_ID = 256


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
    """A session, user, tenant or turn id: 1 to 256 visible characters. Raises `IdError`."""
    if not isinstance(value, str):
        raise IdError(f"a {what} id is text, not {type(value).__name__}")
    if not value.strip():
        raise IdError(f"the {what} id is empty")
    if len(value) > LONGEST_ID:
        raise IdError(f"the {what} id has {len(value)} characters; at most {LONGEST_ID} are accepted")
    if value.isprintable():
        return value
    odd = next((char for char in value if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}), None)
    if odd is not None:
        raise IdError(f"the {what} id holds the control character U+{ord(odd):04X}")
    return value

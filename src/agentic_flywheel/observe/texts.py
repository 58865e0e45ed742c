"""What a trace may show of a question and its answer: the one place through which text passes on its way out.

Invariant: no span and no score carries words of a question, an answer, a note or a flow's configuration that did not
come through here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agentic_flywheel.personal_data import ALL_KINDS
from agentic_flywheel.policy.redaction.finding import Redactor
from agentic_flywheel.settings import Settings

#: Longest text that a span carries; the rest is cut off.
MOST_CHARACTERS: Final = 20_000

_ANY: Final = Redactor(ALL_KINDS)
# Beyond what has a meaning: letters and digits together, as ids and keys have them, and six digits and more, however
# they are grouped (numbers of customers, of orders). A placeholder has neither.
_ID: Final = re.compile(r"(?<![\w-])[\w-]{16,}")
_NUMBER: Final = re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){5,}")

Shown = Callable[[str], str]


def shown_by(settings: Settings) -> Shown | None:
    """How text is shown, by the setting `trace.text`; None where none is."""
    kind = settings.text("trace.text")
    return {"off": None, "masked": masked, "on": _whole}[kind]


def masked(text: str) -> str:
    """Text without what looks like somebody's own: what `policy.redaction` finds (names apart), and more.

    >>> masked("Mail ann@example.org or call +33 6 12 34 56 78, password: hunter2")
    'Mail [e-mail] or call [phone], password: [secret]'
    """
    text = _ANY.redact(text[:MOST_CHARACTERS]).text
    return _NUMBER.sub("[number]", _ID.sub(_without_id, text))


def _without_id(match: re.Match[str]) -> str:
    word = match.group()
    return "[key]" if any(map(str.isdigit, word)) and any(map(str.isalpha, word)) else word


def _whole(text: str) -> str:
    return text[:MOST_CHARACTERS]

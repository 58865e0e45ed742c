"""What a trace may show of a question and its answer: the one place through which text passes on its way out.

Invariant: no span and no score carries words of a question, an answer, a note or a flow's configuration that did not
come through here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agentic_flywheel.settings import Settings

#: Longest text that a span carries; the rest is cut off.
MOST_CHARACTERS: Final = 20_000

_MASKED: Final = (
    (re.compile(r"[A-Za-z]{2,}://[^\s/@:]+:[^\s/@]+@"), "[credentials]@"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "[e-mail]"),
    # name=value and name: value, where the name says that the value is a secret
    (
        re.compile(
            r"(?i)\b(pass(?:word|wd)?|mot de passe|secret|token|api[-_ ]?key|cl[ée] api|authorization|bearer)\b"
            r"(\s*[:=]\s*|\s+is\s+|\s+est\s+)\S+"
        ),
        r"\1\2[secret]",
    ),
    # letters and digits together, as keys and tokens and IBANs have them
    (re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}\b"), "[key]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,4})?\b"), "[account]"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "[address]"),
    # six digits and more, however they are grouped: telephones, cards, numbers of customers
    (re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){5,}"), "[number]"),
)

Shown = Callable[[str], str]


def shown_by(settings: Settings) -> Shown | None:
    """How text is shown, by the setting `trace.text`; None where none is."""
    kind = settings.text("trace.text")
    return {"off": None, "masked": masked, "on": _whole}[kind]


def masked(text: str) -> str:
    """Text without what looks like somebody's own: addresses, numbers, keys. Patterns find what has a form, not names.

    >>> masked("Mail ann@example.org or call +33 6 12 34 56 78, password: hunter2")
    'Mail [e-mail] or call [number], password: [secret]'
    """
    text = text[:MOST_CHARACTERS]
    for pattern, instead in _MASKED:
        text = pattern.sub(instead, text)
    return text


def _whole(text: str) -> str:
    return text[:MOST_CHARACTERS]

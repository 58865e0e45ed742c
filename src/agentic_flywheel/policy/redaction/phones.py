"""Telephone numbers, as English and French texts write them.

Invariant: bounded, as all patterns here (`numbers`): what digits stand near each other is looked at, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_flywheel.personal_data import Found, Kind
from agentic_flywheel.policy.redaction.numbers import GAP as _GAP
from agentic_flywheel.policy.redaction.numbers import before, other_number

_FREE: Final = r"(?<![\w+])(?<!\d[.,/\-])(?<!\d\d )"  # nothing before that it could be the end of
_ENDS: Final = r"(?!\w)(?![.,/\-]\d)"
_EXTENSION: Final = r"(?:[ ,]{0,2}(?:ext\.?|extension|poste|x)[ .]?\d{1,5}(?!\w))?"
#: Digits near each other, and as much after them as an extension takes.
_RUN: Final = re.compile(rf"\d(?:(?:{_GAP}|[()]){{0,3}}\d){{5,}}")
_AFTER: Final = 24

_PHONES: Final = tuple(
    re.compile(_FREE + form + _EXTENSION + _ENDS, re.IGNORECASE)
    for form in (
        # +33 6 12 34 56 78, +33 (0)6..., +1 (415) 555-0132, +442079460958
        rf"\+[1-9](?:{_GAP}?\(?\d\)?){{7,14}}",
        # 0033 6 12 34 56 78: of countries that are called from here
        rf"00{_GAP}?(?:1|2[07]|3[0-469]|4[0-9]|352|377|212|213|216)(?:{_GAP}?\(?\d\)?){{7,11}}",
        # 06 12 34 56 78, 06.12.34.56.78, 0612345678: one way of writing throughout
        rf"0[1-9](?P<gap>{_GAP}?)\d\d(?:(?P=gap)\d\d){{3}}(?!{_GAP}\d\d(?!\d))",
        # 0800 123 456, 020 7946 0958, 07700 900123, 079 123 45 67, 0 800 12 34 56
        r"(?:0[1-9]\d{1,3}|0 [89]\d\d)(?:[ \-\u00a0]\d{2,4}){2,3}",
        r"0[1-9]\d{3}[ \-\u00a0]\d{5,6}",
        r"\(0\d{2,4}\) ?\d{3,4}[ \-]?\d{3,4}",
        # (415) 555-0132, 415-555-0132, 415.555.0132, 514 555-0132, 1-800-555-0199
        r"(?:1[ .\-])?(?:\([2-9]\d\d\)[ .\-]?|[2-9]\d\d[.\-])[2-9]\d\d[.\-]\d{4}",
        r"(?:1[ .\-])?\(?[2-9]\d\d\)? [2-9]\d\d-\d{4}",
        r"(?:1[ .\-])?\([2-9]\d\d\) [2-9]\d\d \d{4}",
    )
)
_ANY_NUMBER: Final = re.compile(rf"(?<![\w+.,])\d(?:{_GAP}{{0,2}}[()]?\d){{5,14}}{_EXTENSION}{_ENDS}", re.IGNORECASE)
_DATE: Final = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{4}[./-]\d{1,2}[./-]\d{1,2}")
_PHONE_CUE: Final = re.compile(
    r"\b(?:t[ée]l(?:[ée]phon\w*)?|phone|phoning|cell|mobile|fax|whatsapp|portable|"
    r"(?:call|text|ring|sms)(?: (?:me|us|him|her|them|it|back|at|on|my|our|the))?|"
    r"(?:r?appel\w*)(?:-?moi| \w+)?|joi(?:ndre|gnable)\w*|gsm|sms|natel|reach \w+ (?:at|on))\b[^\d(]{0,24}\(?\Z"
)


def phones(text: str) -> Iterator[Found]:
    """Telephone numbers: international ones, those of France, Belgium, Switzerland, Great Britain and North America,
    and whatever digits somebody calls one."""
    for run in _RUN.finditer(text):
        start, end = max(0, run.start() - 2), min(len(text), run.end() + _AFTER)
        for pattern in _PHONES:
            for match in pattern.finditer(text, start, end):
                if match.start() < run.end() and not _something_else(text, match):
                    yield Found(Kind.PHONE, *match.span())
        for match in _ANY_NUMBER.finditer(text, start, end):
            if match.start() >= run.end() or _DATE.fullmatch(match.group()):
                continue
            if _PHONE_CUE.search(before(text, match.start())) and not other_number(text, match.start(), alone=True):
                yield Found(Kind.PHONE, *match.span())


def _something_else(text: str, match: re.Match[str]) -> bool:
    """Whether a number of a telephone's form is none."""
    written = match.group()
    if written == "0123456789" or written.endswith("000000"):
        return True
    if written[0] in "+(" or written.startswith("00"):
        return False
    return other_number(text, match.start(), alone=written.isdigit())

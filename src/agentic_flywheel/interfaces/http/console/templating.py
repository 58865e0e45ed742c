"""Templates, and what they can do with values: numbers, moments, texts with marks.

Invariant: everything is escaped but what is made here, and that is put together of escaped parts; a name that is not
there is an error, never an empty place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from agentic_flywheel.interfaces.http.console.markdown import rendered
from agentic_flywheel.interfaces.http.console.told import told
from agentic_flywheel.interfaces.http.console.words import LANGUAGES, Words

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
#: Units of durations, longest first: in seconds, their names among the words, and their letters in each language.
_UNITS: Final = (
    (86400.0, "time.days", ("d", "j")),
    (3600.0, "time.hours", ("h", "h")),
    (60.0, "time.minutes", ("min", "min")),
    (1.0, "time.seconds", ("s", "s")),
)
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")


@cache
def environment() -> Environment:
    """The templates of the console."""
    made = Environment(
        loader=PackageLoader("agentic_flywheel.interfaces.http.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "markdown": rendered,
        "marked": marked,
        "differing": differing,
        "moment": moment,
        "percent": _worded(percent),
        "number": _worded(lambda words, value, digits=0: words.number(value, digits)),
        "duration": _worded(duration),
        "span": _worded(span),
        "milliseconds": _worded(milliseconds),
        "size": _worded(size),
        "past": _worded(past),
        "told": _worded(told),
        "told_on": _worded(lambda words, sentence: told(words, sentence, capital=False)),
    }
    return made


def _worded(say: Callable[..., str]) -> Callable[..., str]:
    """A filter that says something in the language of its page; what is not known is a dash."""

    @pass_context
    def filtered(context: Context, value: Any, *more: Any) -> str:
        return "–" if value is None else say(context["words"], value, *more)

    return filtered


def percent(words: Words, share: float, digits: int = 1) -> str:
    """A share as percent.

    >>> percent(Words("en"), 0.934), percent(Words("fr"), 1)
    ('93.4\\xa0%', '100\\xa0%')
    """
    shown = words.number(100 * share, digits)
    return f"{shown.removesuffix('.0').removesuffix(',0')}\N{NO-BREAK SPACE}%"


def duration(words: Words, seconds: float) -> str:
    """How long something takes, in its largest unit.

    >>> duration(Words("en"), 5400), duration(Words("fr"), 2 * 86400)
    ('1.5 hours', '2 jours')
    """
    seconds = max(0.0, seconds)
    for length, name, _ in _UNITS:
        if seconds >= length:
            whole = round(seconds / length, 1 if seconds < 10 * length else 0)
            return words(name, n=int(whole)) if whole == int(whole) else _decimal(words, name, whole)
    return milliseconds(words, seconds * 1000) if seconds else words("time.seconds", n=0)


def _decimal(words: Words, name: str, value: float) -> str:
    return words(name, n=value).replace(words.number(value), words.number(value, 1), 1)


def span(words: Words, seconds: float) -> str:
    """The same in as few letters as can be.

    >>> span(Words("en"), 5400), span(Words("fr"), 2 * 86400), span(Words("en"), 0.0021)
    ('1.5\\xa0h', '2\\xa0j', '2.1\\xa0ms')
    """
    if seconds < 60:
        return milliseconds(words, seconds * 1000)
    length, letter = next((one[0], one[2]) for one in _UNITS if seconds >= one[0])
    value = seconds / length
    digits = 1 if value < 10 and round(value, 1) != int(value) else 0
    return f"{words.number(value, digits)}\N{NO-BREAK SPACE}{letter[LANGUAGES.index(words.language)]}"


def milliseconds(words: Words, value: float) -> str:
    """A time that is short.

    >>> milliseconds(Words("en"), 1.234), milliseconds(Words("en"), 2500)
    ('1.2\\xa0ms', '2.5\\xa0s')
    """
    if value >= 1000:
        return f"{words.number(value / 1000, 1 if value < 100_000 else 0)}\N{NO-BREAK SPACE}s"
    return f"{words.number(value, 0 if value >= 10 else 1)}\N{NO-BREAK SPACE}ms"


def size(words: Words, count: float) -> str:
    """A number of bytes.

    >>> size(Words("en"), 1500), size(Words("en"), 12)
    ('1.5\\xa0kB', '12\\xa0B')
    """
    unit = 0
    while count >= 1000 and unit < len(_SIZES) - 1:
        count, unit = count / 1000, unit + 1
    return f"{words.number(count, 1 if unit and count < 100 else 0)}\N{NO-BREAK SPACE}{_SIZES[unit]}"


def past(words: Words, at: float) -> str:
    """How long ago a moment was.

    >>> past(Words("en"), time.time() - 7200), past(Words("fr"), time.time())
    ('2 hours ago', 'à l’instant')
    >>> past(Words("en"), time.time() - 119), past(Words("fr"), time.time() - 6.4 * 86400)
    ('1 minute ago', 'il y a 6 jours')
    """
    seconds = time.time() - at
    if seconds < 2:
        return words("time.now")
    length = next(length for length, _, _ in _UNITS if seconds >= length)
    return words("time.ago", span=duration(words, seconds // length * length))


def moment(at: float, form: str = "%Y-%m-%d %H:%M UTC") -> str:
    """A moment as it is written everywhere.

    >>> moment(0)
    '1970-01-01 00:00 UTC'
    """
    return datetime.fromtimestamp(at, UTC).strftime(form)


def marked(text: str, marks: Sequence[tuple[int, int]]) -> Markup:
    """A text in which what was looked for is marked.

    >>> str(marked("a <b> c", [(2, 5)]))
    'a <mark>&lt;b&gt;</mark> c'
    """
    parts: list[str] = []
    done = 0
    for start, end in sorted(marks):
        if start < done:
            continue
        parts += [escape(text[done:start]), Markup("<mark>"), escape(text[start:end]), Markup("</mark>")]
        done = end
    return Markup().join([*parts, escape(text[done:])])


def differing(text: str, other: str) -> Markup:
    """A text in which the words are marked that another one does not have at that place.

    >>> str(differing("deploy to staging?", "deploy to production?"))
    'deploy to <ins>staging</ins>?'
    """
    words, others = _WORDS.findall(text), _WORDS.findall(other)
    before, after = ([word.casefold() for word in side] for side in (others, words))
    parts: list[str] = []
    for what, _, _, start, end in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        piece = "".join(words[start:end])
        if piece:
            parts.append(escape(piece) if what == "equal" else Markup("<ins>{}</ins>").format(piece))
    return Markup().join(parts)

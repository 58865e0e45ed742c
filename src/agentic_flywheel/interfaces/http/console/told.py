"""What the flywheel itself says for people (warnings, reasons, receipts), as a page shows it.

Invariant: nothing is left out or guessed: a sentence whose form `words/told` does not know is shown as it is, marked as
English on a page in another language. Commands and names in backquotes become code; everything else is escaped.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.console.words import Words

_CODE: Final = re.compile(r"`([^`\n]+)`")
_COUNTED: Final = re.compile(r"(?<![\w.,])(\d+) ((?:[\w’]+\(s\) ?)+)")
#: A word that a sentence begins with; no name of a setting, a file or an address.
_WORD: Final = re.compile(r"[^\W\d_]+[’']?[^\W\d_]*(?=[ ,;]|\Z)|[^\W\d_]+:(?= )")
#: Longer sentences hold somebody's text, and are not looked up: time grows with the places in which a form may fit.
_LONGEST: Final = 600
#: A sentence in a sentence in a sentence; deeper ones are left as they are.
_DEEPEST: Final = 3


class Form(NamedTuple):
    """A sentence of the flywheel, with what varies as groups, and how it is said."""

    pattern: re.Pattern[str]
    said: str


@cache
def forms(language: str) -> tuple[Form, ...]:
    """The forms that are known in a language; those with more words of their own first."""
    place = files("agentic_flywheel.interfaces.http.console.words") / "told" / f"{language}.toml"
    if not place.is_file():
        return ()
    pairs = tomllib.loads(place.read_text("utf-8"))["sentences"]
    made = [Form(re.compile("(.+?)".join(map(re.escape, one.split("{}"))), re.DOTALL), other) for one, other in pairs]
    return tuple(sorted(made, key=lambda form: -len(form.pattern.pattern.replace("(.+?)", ""))))


def told(words: Words, sentence: str, *, capital: bool = True) -> Markup:
    """A sentence on a page: in the page's language where its form is known, its commands as code. It begins with a
    capital, but where it goes on with something (`capital` False).

    >>> from agentic_flywheel.interfaces.http.console.words import Words
    >>> str(told(Words("fr"), "Only words were compared: the embedder is closed."))
    'Seuls les mots ont été comparés : le vectoriseur est fermé.'
    >>> str(told(Words("en"), "1 turn(s) of this <b>: `afw ask`"))
    '1 turn of this &lt;b&gt;: <code>afw ask</code>'
    """
    short = len(sentence) <= _LONGEST
    said = sentence if words.language == "en" else _said(words.language, sentence, _DEEPEST) if short else None
    shown = _marked_up(said if said is not None else sentence, capital=capital)
    return shown if said is not None else Markup('<span lang="en">{}</span>').format(shown)


def _said(language: str, sentence: str, depth: int) -> str | None:
    """A sentence in another language; None where its form is not known."""
    for form in forms(language):
        found = form.pattern.fullmatch(sentence)
        if found is None:
            continue
        parts = [(_said(language, part, depth - 1) if depth else None) or part for part in found.groups()]
        return form.said.format(*parts)
    parts = sentence.split("; ")
    told_parts = [_said(language, part, depth) for part in parts] if len(parts) > 1 else [None]
    return " ; ".join(filter(None, told_parts)) if None not in told_parts else None


def _marked_up(text: str, *, capital: bool) -> Markup:
    text = _COUNTED.sub(_counted, text)
    if capital and _WORD.match(text):
        text = text[0].upper() + text[1:]
    pieces = _CODE.split(text)
    return Markup().join(
        Markup("<code>{}</code>").format(piece) if number % 2 else escape(piece) for number, piece in enumerate(pieces)
    )


def _counted(found: re.Match[str]) -> str:
    """`1 turn(s)` as one, `2 turn(s)` as several."""
    return f"{found[1]} {found[2].replace('(s)', '' if found[1] == '1' else 's')}"

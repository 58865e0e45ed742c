"""What people type, understood: words, "phrases", -not, and filters such as `flow:docs since:2d`.

Invariant: every text is a query; none is refused and none can break an index, since an index is only ever given stems
(letters and digits) and values that it binds. What was not understood is said in `notes` and taken as words.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta

import msgspec

from agentic_flywheel.durations import parse_duration
from agentic_flywheel.errors import InputError
from agentic_flywheel.findings import HistoryQuery
from agentic_flywheel.model import Outcome
from agentic_flywheel.search.history.subject import subject_of
from agentic_flywheel.search.history.words import Word, is_french, is_stop, stem, words_of

FILTERS = ("flow", "user", "session", "outcome", "tag", "since", "until")
#: Whoever pastes a whole page looks for its first words.
MOST_TERMS = 48
LONGEST = 16_000

_QUOTES = str.maketrans({"“": '"', "”": '"', "«": '"', "»": '"', "„": '"', "\x00": " "})
_PIECE = re.compile(
    r'(?:(?<=\s)|^)(?P<name>[A-Za-z]{2,20}):(?P<value>"[^"]*"|[^\s"]+)(?=\s|$)'
    r'|(?:(?<=\s)|^)-(?:"(?P<not_phrase>[^"]*)"|(?P<not_word>[^\s"-]\S*))'
    r'|"(?P<phrase>[^"]*)"'
    r'|(?P<plain>[^\s"]+|")'
)
_AGO = re.compile(r"\s+ago$")


def parse_query(text: str, *, now: float) -> HistoryQuery:
    """The query that a text stands for; `now` (epoch seconds) is what "2 days" counts from.

    >>> query = parse_query('redis "append only" -slot flow:docs since:2026-11-01', now=0.0)
    >>> query.terms, query.phrases, query.excluded, query.flow
    (('redi', 'append'), ((('append', 'onli'),),), (('slot',),), 'docs')
    """
    cleaned = text[:LONGEST].encode("utf-8", "ignore").decode("utf-8").translate(_QUOTES)
    notes = [] if len(text) <= LONGEST else [f"Only the first {LONGEST} characters were looked for."]
    filters: dict[str, str | float] = {}
    asked: list[str] = []
    phrases: list[str] = []
    excluded: list[str] = []
    for piece in _PIECE.finditer(cleaned):
        if piece["name"] is not None:
            value = piece["value"].strip('"')
            note = _take_filter(filters, piece["name"].lower(), value, now)
            if note:
                notes.append(note)
            if piece["name"].lower() not in FILTERS:
                asked.append(piece[0])
        elif piece["not_phrase"] is not None or piece["not_word"] is not None:
            excluded.append(piece["not_phrase"] or piece["not_word"] or "")
        elif piece["phrase"] is not None:
            phrases.append(piece["phrase"])
            asked.append(piece["phrase"])
        else:
            asked.append(piece["plain"])
    spoken = " ".join(asked)
    query = HistoryQuery(
        text=spoken.strip(),
        terms=terms_of(subject_of(spoken)),
        phrases=tuple(variants for phrase in phrases if (variants := _phrase_of(phrase))),
        excluded=tuple(stems for phrase in excluded for stems in _phrase_of(phrase)),
        notes=tuple(notes),
    )
    return msgspec.structs.replace(query, **filters)


def terms_of(text: str) -> tuple[str, ...]:
    """What to look for of a text: the stems of its words of content, or of all words where there are none.

    Where nothing tells the language, a word is looked for by its stem in either.

    >>> terms_of("How do I enable persistence?"), terms_of("the")
    (('enabl', 'persist'), ('the',))
    """
    words = [word.folded for word in words_of(text)]
    as_french = is_french(text)
    content = [word for word in words if not is_stop(word, as_french=bool(as_french))] or words
    stems = (stem(word, as_french=french) for word in content for french in _languages(as_french))
    return tuple(dict.fromkeys(filter(None, stems)))[:MOST_TERMS]


def _languages(as_french: bool | None) -> tuple[bool, ...]:
    # Texts in French are full of English terms, which their own texts hold by their English stems.
    return (False,) if as_french is False else (False, True)


def _phrase_of(text: str) -> tuple[tuple[str, ...], ...]:
    words: list[Word] = list(words_of(text))[:MOST_TERMS]
    as_french = is_french(text)
    variants = (tuple(stem(word.folded, as_french=french) for word in words) for french in _languages(as_french))
    return tuple(dict.fromkeys(variant for variant in variants if variant and all(variant)))


def _take_filter(filters: dict[str, str | float], name: str, value: str, now: float) -> str:
    """Take a filter in; a sentence for people where it is none."""
    if name not in FILTERS:
        near = difflib.get_close_matches(name, FILTERS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}:?" if near else f"filters are {', '.join(FILTERS)}."
        return "" if value.startswith("//") else f"{name}: is not a filter, it was looked for as a word; {hint}"
    if not value:
        return f"{name}: has no value and was left out."
    try:
        filters[name] = filter_value(name, value, now=now)
    except InputError as error:
        return f"{name}: was left out: {error.message}."
    return ""


def filter_value(name: str, value: str, *, now: float) -> str | float:
    """A filter's value as an index takes it. Raises `InputError`.

    >>> filter_value("since", "2 days", now=200_000.0), filter_value("flow", "docs", now=0.0)
    (27200.0, 'docs')
    """
    if name in {"since", "until"}:
        return moment_of(value, end=name == "until", now=now)
    if name == "outcome":
        if value.lower() in set(Outcome):
            return value.lower()
        near = difflib.get_close_matches(value.lower(), [*Outcome], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(Outcome)}"
        raise InputError(f"there is no outcome {value!r}; {hint}")
    return value


def moment_of(value: str, *, end: bool, now: float) -> float:
    """A moment (epoch seconds): a date or time in ISO 8601 (UTC where it does not say), `today`, `yesterday`, or so
    long ago ("2 days"). A whole day as an `end` includes it. Raises `InputError`."""
    said = value.strip().lower()
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": 0, "yesterday": 1}
    try:
        if said in days:
            day = today - timedelta(days=days[said])
            return (day + timedelta(days=end)).timestamp()
        if re.match(r"\d{4}-", said):
            moment = datetime.fromisoformat(value.strip().upper())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (moment + timedelta(days=end and len(said) == len("2026-11-01"))).timestamp()
        return now - parse_duration(_AGO.sub("", said)).total_seconds()
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{value[:40]!r} is no moment: write 2026-11-01, 2026-11-01T09:30, today, yesterday or 2 days",
            suggestions=(
                "Write a day or a time: 2026-11-01, 2026-11-01T09:30 (UTC), today, yesterday.",
                "Or how long ago: 36h, 2d, '2 days'.",
            ),
        ) from error

"""Durations as people write and read them: `7d`, `36h`, `1h30m` in, `7 days`, `36 h`, `90 min` out.

Invariant: pure, exact for whole units, and every text that is not a duration is refused with what is accepted;
tests/unit/test_durations.py holds both directions together.
"""

from __future__ import annotations

import re
from datetime import timedelta

from agentic_flywheel.errors import InputError

ACCEPTED = "7d, 36h, 90m, 45s, 2w, 1h30m or whole seconds (604800)"
#: A lifetime longer than this is a slip of the keyboard; it also keeps sums with today's date representable.
LONGEST = timedelta(days=36500)

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([wdhms])")
_PARTS = re.compile(rf"(?:{_PART.pattern}\s*)+")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONG_NAMES = (
    (re.compile(r"(?<=[0-9\s])(?:weeks?)\b"), "w"),
    (re.compile(r"(?<=[0-9\s])(?:days?)\b"), "d"),
    (re.compile(r"(?<=[0-9\s])(?:hours?|hrs?)\b"), "h"),
    (re.compile(r"(?<=[0-9\s])(?:minutes?|mins?)\b"), "m"),
    (re.compile(r"(?<=[0-9\s])(?:seconds?|secs?)\b"), "s"),
)


def parse_duration(text: str) -> timedelta:
    """The duration that `text` names; a number alone is seconds. Raises `InputError` that says what is accepted.

    >>> parse_duration("36h"), parse_duration("604800") == parse_duration("1w")
    (datetime.timedelta(days=1, seconds=43200), True)
    """
    written = text.strip().casefold()
    for pattern, unit in _LONG_NAMES:
        written = pattern.sub(unit, written)
    if len(written) > 64:  # no duration is so long, and the conversion of endless digits is slow
        raise _refuse(text)
    if _SECONDS.fullmatch(written):
        seconds = float(written)
    elif _PARTS.fullmatch(written):
        parts = [(float(number), unit) for number, unit in _PART.findall(written)]
        if len({unit for _, unit in parts}) < len(parts):
            raise _refuse(text)
        seconds = sum(number * _UNITS[unit] for number, unit in parts)
    else:
        raise _refuse(text)
    if seconds > LONGEST.total_seconds():
        raise InputError(
            f"{text!r} is longer than {LONGEST.days} days",
            suggestions=("Name a shorter duration, such as 30d or 365d.",),
            given=text,
        )
    return timedelta(seconds=seconds)


def _refuse(text: str) -> InputError:
    return InputError(
        f"{text[:80]!r} is not a duration; accepted: {ACCEPTED}",
        suggestions=(
            "Write a number and a unit: w, d, h, m (minutes) or s.",
            "Write whole seconds without a unit.",
            "Units may be combined, each once: 1d12h.",
        ),
        given=text[:80],
        accepted=ACCEPTED,
    )


def show_duration(duration: timedelta) -> str:
    """`duration` for people: the largest unit that holds it at least twice, with the next one where that matters.

    >>> show_duration(timedelta(days=7)), show_duration(timedelta(hours=36)), show_duration(timedelta(minutes=133))
    ('7 days', '36 h', '2 h 13 min')
    """
    seconds = duration.total_seconds()
    if seconds < 0:
        return f"-{show_duration(-duration)}"
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole == 86400:
        return "1 day"
    for size, name, below, below_name in ((86400, "days", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= 2 * size or whole == size:
            return _two_units(whole, size, name, below, below_name)
    return f"{whole} s"


def _two_units(whole: int, size: int, name: str, below: int, below_name: str) -> str:
    step = size if whole >= 10 * size else below  # past ten of a unit, the next smaller one is noise
    rounded = (whole + step // 2) // step * step
    large, rest = divmod(rounded, size)
    return f"{large} {name} {rest // below} {below_name}" if rest else f"{large} {name}"


def show_age(duration: timedelta) -> str:
    """`duration` as a person says it of the past: one unit, rounded down, never "0".

    >>> show_age(timedelta(hours=2, minutes=50)), show_age(timedelta(milliseconds=3))
    ('2 h', 'just now')
    """
    seconds = duration.total_seconds()
    for size, name in ((2 * 86400, "days"), (2 * 3600, "h"), (120, "min"), (1, "s")):
        if seconds >= size:
            unit = {"days": 86400, "h": 3600, "min": 60, "s": 1}[name]
            return f"{int(seconds // unit)} {name}"
    return "just now"

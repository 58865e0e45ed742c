"""What the values of a registry file may look like: one reader per kind of value.

Invariant: a reader gives the value in its type or raises `Unexpected`, which says what it expects; none guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import msgspec

from agentic_flywheel.durations import ACCEPTED, parse_duration
from agentic_flywheel.errors import InputError
from agentic_flywheel.likeness import Profile, SimilarMode, SimilarPolicy
from agentic_flywheel.privacy import MOST_DAYS, PrivacyPolicy, is_kind


class Unexpected(Exception):
    """A value that is not what its key expects, in words; never leaves this room: it becomes a `RegistryError`.

    Within a mapping, `inner` is the key whose value it is, `slip` a key that is itself what was not expected; both are
    "" where it is the value as a whole.
    """

    def __init__(self, expected: str, choices: tuple[str, ...] = (), *, inner: str = "", slip: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.choices = choices
        self.inner = inner
        self.slip = slip


def as_text(value: Any) -> str:
    """Text, trimmed."""
    if not isinstance(value, str):
        raise Unexpected("text (put it in quotes)")
    return value.strip()


def as_boolean(value: Any) -> bool:
    """Yes or no, in the words of YAML 1.2 and 1.1."""
    words = {"yes": True, "on": True, "true": True, "1": True, "no": False, "off": False, "false": False, "0": False}
    known = words.get(str(value).strip().casefold())
    if known is None:
        raise Unexpected("0, 1, true or false")
    return known


def as_words(value: Any) -> tuple[str, ...]:
    """A list of words or phrases."""
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) for item in value):
        raise Unexpected("a list of words, such as [deploy, release notes]")
    return tuple(text for item in value if (text := str(item).strip()))


def as_mapping(value: Any) -> dict[str, Any]:
    """Names with values of any kind."""
    if not isinstance(value, dict):
        raise Unexpected("a mapping of names to values")
    return value


def as_number(value: Any) -> float:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unexpected("a number")
    return float(value)


def as_positive(value: Any) -> float:
    """Points: 0 or more."""
    number = as_number(value)
    if not 0 <= number < 1e6:
        raise Unexpected("a number, 0 or more")
    return number


def as_price(value: Any) -> float:
    """A price: 0 or more."""
    number = as_number(value)
    if not 0 <= number < 1e6:
        raise Unexpected("a price, 0 or more, without its currency")
    return number


def as_share(value: Any) -> float:
    """A share or a similarity: 0 to 1."""
    number = as_number(value)
    if not 0 <= number <= 1:
        raise Unexpected("a number from 0 to 1")
    return number


def as_rate(value: Any) -> float:
    """A share that is not 0, since no evidence shows that something never happens."""
    number = as_number(value)
    if not 0 < number <= 1:
        raise Unexpected("a number above 0, at most 1")
    return number


def as_whole(value: Any) -> int:
    """A count that may be 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Unexpected("a whole number, 0 or more")
    return value


def as_limit(value: Any) -> int:
    """A count that may not be 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Unexpected("a whole number, 1 or more")
    return value


def as_duration(value: Any) -> timedelta:
    """A duration in words (`36h`) or seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unexpected(f"a duration: {ACCEPTED}")
    try:
        duration = parse_duration(str(value))
    except InputError as error:
        raise Unexpected(f"a duration: {ACCEPTED}") from error
    if not duration:
        raise Unexpected("a duration above zero")
    return duration


def as_seconds(value: Any) -> timedelta:
    """Seconds, more than 0."""
    seconds = as_number(value)
    if not 0 < seconds < 1e9:
        raise Unexpected("a number of seconds above zero")
    return timedelta(seconds=seconds)


def as_age(value: Any) -> timedelta:
    """Seconds that may be 0."""
    seconds = as_number(value)
    if not 0 <= seconds < 1e9:
        raise Unexpected("a number of seconds, 0 or more")
    return timedelta(seconds=seconds)


def one_of(*choices: str) -> Callable[[Any], str]:
    """A reader of one of these words, however they are capitalised."""

    def read(value: Any) -> str:
        if value is False and "off" in choices:  # what YAML 1.1 makes of the word
            return "off"
        if not isinstance(value, str) or value.strip().casefold() not in choices:
            raise Unexpected(f"one of {', '.join(choices)}", choices)
        return value.strip().casefold()

    return read


#: What may stand under `similar` of a flow, and how its values are read.
SIMILAR_FIELDS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "mode": one_of(*SimilarMode),
        "profile": one_of(*Profile),
        "max_error": as_rate,
        "floor": as_share,
        "audit_share": as_share,
    }
)


def as_similar(value: Any) -> SimilarPolicy:
    """What a flow says of similar questions. Nobody else writes there, so a key that means nothing is refused."""
    if isinstance(value, SimilarPolicy):
        value = said_of(value)
    return msgspec.convert(_fields(value, SIMILAR_FIELDS), SimilarPolicy)


def as_days(value: Any) -> float:
    """Days, more than 0."""
    days = as_number(value)
    if not 0 < days <= MOST_DAYS:
        raise Unexpected(f"a number of days above zero, at most {MOST_DAYS}")
    return days


def as_kinds(value: Any) -> frozenset[str]:
    """Kinds of personal data."""
    found = frozenset(word.casefold() for word in as_words(value))
    if not all(map(is_kind, found)):
        raise Unexpected("a list of kinds of personal data, such as [email, iban]")
    return found


#: What may stand under `privacy` of a flow, and how its values are read.
PRIVACY_FIELDS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {"history": as_boolean, "cache": as_boolean, "retention_days": as_days, "redact": as_kinds}
)


def as_privacy(value: Any) -> PrivacyPolicy:
    """What a flow says of privacy. A key that means nothing is refused: whoever wrote it meant something to hold."""
    if isinstance(value, PrivacyPolicy):
        return value
    return PrivacyPolicy(**_fields(value, PRIVACY_FIELDS))


def _fields(value: Any, fields: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The values of a mapping that may hold these fields, each read as its own kind of value."""
    if not isinstance(value, Mapping):
        raise Unexpected(f"a mapping that holds {', '.join(fields)}")
    said = {}
    for name, inner in value.items():
        if name not in fields:
            raise Unexpected(f"a mapping that holds {', '.join(fields)}", tuple(fields), slip=str(name))
        if inner is not None:
            try:
                said[name] = fields[name](inner)
            except Unexpected as problem:
                raise Unexpected(problem.expected, problem.choices, inner=name) from problem
    return said


def said_of(policy: SimilarPolicy) -> dict[str, Any]:
    """What a flow does say of similar questions, as the file writes it.

    >>> said_of(SimilarPolicy(profile=Profile.FAQ, max_error=0.02))
    {'profile': 'faq', 'max_error': 0.02}
    """
    said = msgspec.to_builtins(policy)
    return {name: value for name, value in said.items() if value is not None}

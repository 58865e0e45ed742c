"""Finds what is to be taken out of a text, and takes it out.

Invariant: pure, and one-way: nothing tells what stood where a placeholder stands. What is redacted once stays as it is
when it is redacted again. Where two kinds claim the same characters, the one that says more is named, and all that
either claims goes. A text in which a kind cannot be costs a few searches for fixed words; the patterns of a kind are
made when a text comes that may need them, since making all of them takes 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from agentic_flywheel.personal_data import PLACEHOLDERS, Found, Kind

#: Finds names: where each begins and ends in the text.
Names = Callable[[str], Iterable[tuple[int, int]]]

_RANK: Final = {
    kind: rank
    for rank, kind in enumerate((Kind.SECRET, Kind.IBAN, Kind.CARD, Kind.EMAIL, Kind.IP, Kind.PHONE, Kind.NAME))
}
_DIGIT: Final = re.compile(r"\d")
_ADDRESS: Final = re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:")
# Of what announces a secret, or stands in it.
_SECRET_STEMS: Final = (
    "pass", "token", "key", "code", "secr", "pin", "mdp", "pwd", "jeton", "clé", "cle ", "cles ", "otp", "cvv", "cvc",
    "crypto", "bearer", "basic", "://", "-----begin", " -u ", "redis-cli", "sid=", "sessionid=", "session_id=", "csrf",
)  # fmt: skip
_LONG_WORD: Final = 16
_HIDDEN_EMAIL: Final = ("aroba", "at]", "at)", "at}", "at>", "at ]", "at )", " dot ", "[@", "(@")
_SEVEN_DIGITS: Final = re.compile(r"\d(?:\D{0,3}\d){5}")
_NO_DIGITS: Final = re.compile(r"[^\d]+")


class Redacted(msgspec.Struct, frozen=True, gc=False):
    """A text as it may be kept, and what was found in it, in its order; spans are those of the original."""

    text: str
    found: tuple[Found, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind was found."""
        counts: dict[str, int] = {}
        for one in self.found:
            counts[one.kind.value] = counts.get(one.kind.value, 0) + 1
        return counts


class Redactor:
    """Finds and takes out certain kinds; safe to share.

    `keep` are values that stay, `*` standing for anything in them (`*@example.com`, a telephone number however it is
    written); `names` finds names, without it none are found.

    >>> redactor = Redactor([Kind.EMAIL, Kind.PHONE], keep=["*@example.com"])
    >>> redactor.redact("Ann is ann@example.org or +33 6 12 34 56 78, we are help@example.com").text
    'Ann is [e-mail] or [phone], we are help@example.com'
    """

    def __init__(self, kinds: Iterable[Kind], *, keep: Sequence[str] = (), names: Names | None = None) -> None:
        self.kinds = frozenset(kinds)
        self._keep = tuple(word.strip().lower() for word in keep if word.strip())
        self._kept_numbers = tuple(number for word in self._keep if (number := _number(word)))
        self._names = names if Kind.NAME in self.kinds else None

    def find(self, text: str) -> tuple[Found, ...]:
        """What is in a text, without overlaps, in its order."""
        kinds, found = self.kinds, list[Found]()
        lower = text.lower() if len(text) == len(text.lower()) else text
        if Kind.SECRET in kinds and (
            any(stem in lower for stem in _SECRET_STEMS) or max(map(len, text.split()), default=0) >= _LONG_WORD
        ):
            from agentic_flywheel.policy.redaction.secrets import secrets

            found.extend(secrets(text, lower))
        if Kind.EMAIL in kinds and ("@" in text or any(sign in lower for sign in _HIDDEN_EMAIL)):
            from agentic_flywheel.policy.redaction.emails import emails

            found.extend(emails(text, lower))
        if _DIGIT.search(text) is not None:
            found.extend(_numbers(text, kinds))
        if self._names is not None:
            found.extend(_named(self._names, text))
        return _merged(found, text, self._stays) if found else ()

    def redact(self, text: str) -> Redacted:
        """The text with a placeholder for each thing that was found."""
        found = self.find(text)
        if not found:
            return Redacted(text)
        pieces, place = list[str](), 0
        for one in found:
            pieces += (text[place : one.start], PLACEHOLDERS[one.kind])
            place = one.end
        return Redacted("".join((*pieces, text[place:])), found)

    def _stays(self, kind: Kind, value: str) -> bool:
        if not self._keep:
            return False
        plain = value.strip().lower()
        if any(fnmatchcase(plain, pattern) for pattern in self._keep):
            return True
        number = _number(plain) if kind in (Kind.PHONE, Kind.CARD, Kind.IBAN) else ""
        return bool(number) and any(_same_number(number, kept) for kept in self._kept_numbers)


def _numbers(text: str, kinds: frozenset[Kind]) -> Iterator[Found]:
    address, number = _ADDRESS.search(text) is not None, _SEVEN_DIGITS.search(text) is not None
    if not address and not number:
        return
    from agentic_flywheel.policy.redaction.numbers import addresses, cards, ibans

    if address and Kind.IP in kinds:
        yield from addresses(text)
    if number:
        if Kind.IBAN in kinds:
            yield from ibans(text)
        if Kind.CARD in kinds:
            yield from cards(text)
        if Kind.PHONE in kinds:
            from agentic_flywheel.policy.redaction.phones import phones

            yield from phones(text)


def _named(names: Names, text: str) -> list[Found]:
    return [
        Found(Kind.NAME, max(0, int(start)), min(len(text), int(end)))
        for start, end in names(text)
        if 0 <= int(start) < int(end)
    ]


def _merged(found: list[Found], text: str, stays: Callable[[Kind, str], bool]) -> tuple[Found, ...]:
    """Without what stays and without overlaps: what overlaps becomes one, of the kind that says most."""
    left = sorted(
        (one for one in found if not stays(one.kind, text[one.start : one.end])),
        key=lambda one: (one.start, _RANK[one.kind]),
    )
    merged: list[Found] = []
    for one in left:
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            kind = min(last.kind, one.kind, key=lambda kind: _RANK[kind])
            merged[-1] = Found(kind, last.start, max(last.end, one.end))
        else:
            merged.append(one)
    return tuple(merged)


def _number(text: str) -> str:
    """The digits of a number without what stands for calling from elsewhere; "" for what is no number."""
    digits = _NO_DIGITS.sub("", text.replace("(0)", ""))
    return digits.lstrip("0") if len(digits) >= 6 and not any(c.isalpha() or c in "*@" for c in text) else ""


def _same_number(one: str, other: str) -> bool:
    """Whether two numbers are one, of which one may carry its country."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= 9 and long.endswith(short) and len(long) - len(short) <= 3)

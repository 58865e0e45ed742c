"""The kinds of personal data and secrets that are looked for, and what stands in their place."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What can be found in a text. `SECRET` covers keys, tokens and passwords; `NAME` needs a detector."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    IP = "ip"
    SECRET = "secret"  # noqa: S105
    NAME = "name"


#: What is kept in place of what was found. Each finds nothing in itself: what is redacted stays as it is.
PLACEHOLDERS: Final = {
    Kind.EMAIL: "[e-mail]",
    Kind.PHONE: "[phone]",
    Kind.CARD: "[card]",
    Kind.IBAN: "[IBAN]",
    Kind.IP: "[IP]",
    Kind.SECRET: "[secret]",
    Kind.NAME: "[name]",
}
#: How people are told, with its article.
SPOKEN: Final = {
    Kind.EMAIL: "an e-mail address",
    Kind.PHONE: "a phone number",
    Kind.CARD: "a card number",
    Kind.IBAN: "a bank account (IBAN)",
    Kind.IP: "an IP address",
    Kind.SECRET: "a key, token or password",
    Kind.NAME: "a name",
}
ALL_KINDS: Final = frozenset(Kind)


class Found(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One thing that was found: its kind, and where it stands (`text[start:end]`)."""

    kind: Kind
    start: int
    end: int


def kinds_of(words: str | Iterable[str]) -> frozenset[Kind]:
    """Kinds as people write them: names with commas, `all`, or nothing. Raises `ValueError` for any other word.

    >>> sorted(kinds_of("email, phone")), kinds_of("") == frozenset(), kinds_of("all") == ALL_KINDS
    ([<Kind.EMAIL: 'email'>, <Kind.PHONE: 'phone'>], True, True)
    """
    named = words.split(",") if isinstance(words, str) else words
    kinds: set[Kind] = set()
    for name in (word.strip().lower().replace("-", "") for word in named):
        if name == "all":
            kinds |= ALL_KINDS
        elif name not in ("", "off", "none"):
            try:
                kinds.add(Kind(name))
            except ValueError:
                raise ValueError(f"{name!r} is none of {', '.join(Kind)}, all") from None
    return frozenset(kinds)


def spoken(kinds: Iterable[Kind]) -> str:
    """Kinds in a sentence.

    >>> spoken([Kind.PHONE, Kind.EMAIL, Kind.IP])
    'an e-mail address, a phone number and an IP address'
    """
    told = [SPOKEN[kind] for kind in Kind if kind in frozenset(kinds)]
    return " and ".join(filter(None, (", ".join(told[:-1]), told[-1]))) if told else ""

"""Secrets that are announced: "my password is ...", `API_KEY=...`, "code PIN : ...".

Invariant: only what follows a word that announces a secret is looked at, a bounded stretch of it; so a text in which
no such word stands costs a few searches for fixed words. What is found is the secret alone: the words before it stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_flywheel.personal_data import PLACEHOLDERS, Found, Kind
from agentic_flywheel.policy.redaction.unsecret import says_nothing

_KINDS: Final = (
    "(?:api|access|auth|refresh|client|session|private|secret|account|encryption|signing|webhook|bearer|"
    "licen[cs]e|wpa2?|wi-?fi)"
)
_FRENCH_KEY: Final = (
    r"cl[ée]s? (?:d['’])?(?:api|acc[eè]s|secr[eè]te|priv[ée]e|wi-?fi|wpa2?|de (?:s[ée]curit[ée]|licence|chiffrement))"
)
_CODE_ONWARDS: Final = (
    r"codes? (?:d['’]acc[eè]s|d['’]entr[ée]e|sms|otp|secret|confidentiel|pin|(?:de )?(?:la )?carte|"
    r"de (?:v[ée]rification|s[ée]curit[ée]|confirmation|d[ée]verrouillage))"
)
#: By its stem (small letters), what has to stand before it, if anything, and how the announcing words go on from it.
_CUES: Final = tuple(
    (stem, re.compile(before + r"\Z") if before else None, re.compile(onwards))
    for stem, before, onwards in (
        ("pass", "", r"pass[ _-]?(?:words?|wd|phrases?|codes?)"),
        ("pass", r"(?:^|[^a-z0-9])", r"pass(?![a-z])"),
        ("pass", r"mots? de ", r"passe"),
        ("pwd", r"(?:^|[^a-z0-9])", r"pwd(?![a-z])"),
        ("mdp", r"(?:^|[^a-z0-9])", r"mdp(?![a-z])"),
        ("secret", r"(?:^|[^a-z0-9])(?:\w{1,20}[_-])?", r"secrets?(?:[ _-]?(?:access[ _-]?)?key)?(?![a-z])"),
        ("secret", _KINDS + r"[ _-]?", r"secrets?(?![a-z])"),
        ("secr", r"phrase ", r"secr[eè]te"),
        ("secr", r"phrases ", r"secr[eè]tes"),
        ("token", "", r"tokens?(?![a-z])"),
        ("jeton", "", r"jetons?(?: d['’]\w{2,12})?"),
        ("key", _KINDS + r"[ _-]?", r"keys?(?![a-z])"),
        ("clé", r"(?:^|[^a-z0-9])", _FRENCH_KEY),
        ("cle", r"(?:^|[^a-z0-9])", _FRENCH_KEY),
        ("sshpass -p", "", r"sshpass -p"),
        ("redis-cli", "", r"redis-cli (?:-[^a\s] \S{1,60} ){0,3}-a"),
        (" -u ", r"curl.{0,40}", r" -u \w{1,40}:"),
    )
)
_QUOTED: Final = r"[\"'`“‘«]\s?(?P<quoted>[^\"'`”’»\n]{3,200}?)\s?[\"'`”’»]"
_VALUE: Final = rf"(?:{_QUOTED}|(?P<bare>[^\s\"'`«»“”]{{3,300}}))"
_SPACE: Final = r"[\s\u00a0\u202f]"
# password: X, DB_PASSWORD=X, "api_key": "X", mot de passe : X
_ASSIGNED: Final = re.compile(rf"[\"'`]?{_SPACE}{{0,3}}(?:=>|==|[:=]){_SPACE}{{0,3}}{_VALUE}")
# my password for the portal is X; le mot de passe du wifi, c'est X; token for staging: X
_SAID: Final = re.compile(
    r"(?P<between>(?:[\s,]{1,2}[\w'’.\-]{1,24}){0,4}?)[\s,]{0,2}"
    r"(?:(?<=[\s,])(?P<link>is now|is|was|will be|should be|set to|to|est|c['’]est|[ée]tait|sera|devient|à)|:)"
    rf"[\s:\u00a0]{{1,3}}{_VALUE}",
    re.IGNORECASE,
)
# with password X
_BESIDE: Final = re.compile(rf"[\s(]{{1,2}}{_VALUE}")
_FLAGGED: Final = re.compile(rf"\s?{_VALUE}")
#: How far before its stem an announcement begins.
_FURTHEST: Final = 48
_PROGRAMS: Final = frozenset({"sshpass -p", "redis-cli", " -u "})

_SORTS: Final = r"(?:verification|security|confirmation|one-time|sms|access|unlock|door|gate|pin|otp|2fa)"
#: The same for codes of a few digits.
_CODE_CUES: Final = tuple(
    (stem, re.compile(before + r"\Z") if before else None, re.compile(onwards))
    for stem, before, onwards in (
        ("code", _SORTS + r"[ -](?:pass)?", r"codes?"),
        ("code", r"(?:^|\W)", _CODE_ONWARDS),
        ("code", r"digi", r"code"),
        *((stem, r"(?:^|\W)", rf"{stem}\d?") for stem in ("pin", "cvv", "cvc", "otp", "cryptogramme")),
    )
)
_DIGITS: Final = re.compile(
    r"(?![a-z])(?: [a-zà-ÿ'’]{1,12}){0,3}?\s{0,2}(?:[:=,]|is|est)?\s{0,2}[#\"'`]?"
    r"([A-D]?\d(?:[ \-]?\d){2,7}[A-D]?|\d{1,4}[A-F]\d{1,4})(?![.,]?\d|\w)"
)


def announced(text: str, lower: str) -> Iterator[Found]:
    """What follows words that announce a secret; `lower` is the text in small letters."""
    last = Found(Kind.SECRET, 0, 0)
    for place, end, stem in _cues(lower, _CUES):
        if last.start <= place < last.end:
            continue  # a secret in which announcing words stand is one secret
        for found in _after(text, end, stem):
            last = found
            yield found
    for _, end, _ in _cues(lower, _CODE_CUES):
        if digits := _DIGITS.match(text, end):
            yield Found(Kind.SECRET, *digits.span(1))


def _after(text: str, end: int, stem: str) -> Iterator[Found]:
    """The secrets that are announced by words which end at `end`."""
    if stem in _PROGRAMS:
        if flagged := _FLAGGED.match(text, end):
            yield from _value(text, flagged, linked=True)
        return
    if assigned := _ASSIGNED.match(text, end):
        yield from _value(text, assigned, linked=True)
    if said := _SAID.match(text, end):
        link, between = (said.group("link") or ":").lower(), said.group("between").strip()
        weak = bool(between) and link in ("to", "à", ":")
        yield from _value(text, said, linked=link == ":" and not between, weak=weak)
    if beside := _BESIDE.match(text, end):
        yield from _value(text, beside, linked=False, weak=True)


def _cues(
    lower: str, cues: tuple[tuple[str, re.Pattern[str] | None, re.Pattern[str]], ...]
) -> Iterator[tuple[int, int, str]]:
    """Where announcing words stand: where their stem begins, where they end, and the stem."""
    absent: set[str] = set()
    for stem, before, onwards in cues:
        if stem in absent:
            continue
        place = lower.find(stem)
        if place < 0:
            absent.add(stem)
        while place >= 0:
            told = lower[max(0, place - _FURTHEST) : place]
            if (before is None or before.search(told)) and (match := onwards.match(lower, place)):
                yield place, match.end(), stem
            place = lower.find(stem, place + 1)


def _value(text: str, match: re.Match[str], *, linked: bool, weak: bool = False) -> Iterator[Found]:
    """The secret that was announced, if it is one. `linked`: a colon or an equals sign stands before it; `weak`: hardly
    anything says that it is one."""
    quoted = match.group("quoted") is not None
    start, end = match.span("quoted" if quoted else "bare")
    value = text[start:end]
    if not quoted:
        value = value.rstrip(".,;:)]}>\\*")
        end = start + len(value)
    follows = text[end : end + 2]
    last = quoted or not follows.strip() or follows[0] in ".,;:)\n!?" or "\n" in follows
    if not any(mark in value for mark in PLACEHOLDERS.values()) and not says_nothing(
        value, quoted=quoted, linked=linked, last=last, weak=weak
    ):
        yield Found(Kind.SECRET, start, end)

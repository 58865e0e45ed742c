"""E-mail addresses, also as people write them to hide them from machines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_flywheel.personal_data import Found, Kind

_LOCAL: Final = re.compile(r"(?:[^\s@<>()\[\]{},;:\"`«»“”|/\\=&?]){1,64}\Z")
_ELISION: Final = re.compile(r"^(?:[dlnsjmtc]|qu)?['’]+", re.IGNORECASE)
_LOGIN: Final = re.compile(r"://[^\s/@]{0,100}:\Z")
_DOMAIN: Final = re.compile(r"@(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24})(?![\w\-]|\.\w)")
_ENDING: Final = r"(?:com|org|net|fr|io|eu|de|uk|ch|be|ca|lu|info|dev|app|edu|gov|co|us|it|es|nl|qc|ma|tn)"
_HIDDEN: Final = re.compile(
    r"(?<![\w.+\-])[\w.+\-]{1,64}\s?[\[({<]\s?(?:at|arobase|arobas|@|a)\s?[\])}>]\s?"
    r"[\w\-]{1,63}(?:(?:\.|\s?[\[({<]\s?(?:dot|point)\s?[\])}>]\s?|\s(?:dot|point)\s)[\w\-]{2,63}){1,4}(?!\w)",
    re.IGNORECASE,
)
_SPOKEN: Final = re.compile(
    r"(?<![\w.+\-])[\w.+\-]{1,64}\s(?:at|arobase|arobas)\s[\w\-]{1,63}(?:\s(?:dot|point)\s[\w\-]{2,63}){0,3}"
    rf"\s(?:dot|point)\s{_ENDING}(?!\w)",
    re.IGNORECASE,
)
#: What ends like an address and is a file.
_FILES: Final = frozenset(
    "png jpg jpeg gif svg webp js mjs ts tsx jsx py css scss json md html yaml yml toml lock".split()
)


def emails(text: str, lower: str) -> Iterator[Found]:
    """E-mail addresses (RFC 5321, 4.1.2, unquoted), `ann [at] example (dot) org` included."""
    place = text.find("@")
    while place >= 0:
        domain, local = _DOMAIN.match(text, place), _LOCAL.search(text[max(0, place - 65) : place])
        if domain and local:
            name = _ELISION.sub("", local.group()).lstrip(".*_-")
            if _is_address(name, domain, text) and not _LOGIN.search(
                text[max(0, place - len(name) - 104) : place - len(name)]
            ):
                yield Found(Kind.EMAIL, place - len(name), domain.end())
                place = domain.end() - 1
        place = text.find("@", place + 1)
    if any(sign in lower for sign in ("at]", "at)", "at}", "at>", "aroba", "[@", "(@", "at ]", "at )")):
        yield from (Found(Kind.EMAIL, *match.span()) for match in _HIDDEN.finditer(text))
    if ("arobas" in lower and "point" in lower) or (" at " in lower and " dot " in lower):
        yield from (Found(Kind.EMAIL, *match.span()) for match in _SPOKEN.finditer(text))


def _is_address(local: str, domain: re.Match[str], text: str) -> bool:
    if not local or not any(character.isalnum() for character in local):
        return False
    if domain.group(1).lower() in _FILES:
        return False
    return not (local == "git" and text[domain.end() : domain.end() + 1] in (":", "/"))  # a repository, no mailbox

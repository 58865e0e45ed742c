"""Keys, tokens and passwords: by the form that their makers give them, by what stands before them, by their disorder.

Invariant: as in `numbers`, every pattern is bounded. What is found is the secret alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentic_flywheel.personal_data import Found, Kind
from agentic_flywheel.policy.redaction.announced import announced
from agentic_flywheel.policy.redaction.checks import SHORTEST_TOKEN, is_random
from agentic_flywheel.policy.redaction.unsecret import stands_for_another

# Makers' own marks. The lengths are those that their keys have, or a little less.
_MARKED: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_\w{20,255}|glpat-[\w-]{18,64}"  # GitHub, GitLab
    r"|xox[abeoprs]-[\w-]{10,255}|xapp-[\w-]{10,255}"  # Slack
    r"|(?:sk|rk|pk)_(?:live|test)_\w{10,255}|whsec_[\w+/=]{16,100}"  # Stripe
    r"|(?:sk|pk)-(?:proj-|ant-|lf-|or-|svcacct-)?[A-Za-z0-9][\w-]{15,255}"  # OpenAI, Anthropic, Langfuse, OpenRouter
    r"|AIza[\w-]{30,45}|ya29\.[\w-]{20,255}|GOCSPX-[\w-]{20,40}"  # Google
    r"|SG\.[\w-]{10,40}\.[\w-]{20,60}|npm_[A-Za-z0-9]{30,50}|pypi-[\w-]{30,255}|hf_[A-Za-z0-9]{20,60}"
    r"|do[opr]_v1_[0-9a-f]{40,80}|(?:SK|AC)[0-9a-f]{32}|key-[0-9a-f]{32}|dapi[0-9a-f]{32}|shp(?:at|ss|ca)_[0-9a-f]{32}"
    r"|afw_[A-Za-z0-9]{8,32}_[\w-]{20,100}"
    r"|eyJ[\w-]{8,2000}\.eyJ[\w-]{4,4000}\.[\w-]{10,1000}"  # JWT (RFC 7519)
    r")(?![A-Za-z0-9])"
)
_TOKEN: Final = re.compile(r"(?<![A-Za-z0-9+/=_\-])[A-Za-z0-9+/_\-]{20,4096}={0,2}")
_FILE_ENDS: Final = re.compile(
    r"\.(?:jpe?g|png|gif|webp|svg|ico|pdf|html?|mp[34]|css|js|woff2?|zip|gz|tgz|whl|csv|parquet)(?!\w)", re.IGNORECASE
)
_PART: Final = re.compile(r"[^/]+")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = "-----END "
_IN_URL: Final = re.compile(r"://([^\s/@:]{0,100}:[^\s/@]{1,200})@")
_HEADER: Final = re.compile(r"\b(?:bearer|basic)\s{1,3}([A-Za-z0-9._~+/=\-]{12,2000})", re.IGNORECASE)
_COOKIE: Final = re.compile(
    r"\b(?:session_?id|sid|sessionid|csrftoken|jsessionid|phpsessid)=([\w%.\-]{16,200})", re.IGNORECASE
)


def secrets(text: str, lower: str) -> Iterator[Found]:
    """Keys, tokens and passwords in a text; `lower` is the same in small letters."""
    longest = max(map(len, text.split()), default=0)
    if longest >= SHORTEST_TOKEN - 4:
        yield from _tokens(text)
        if "://" in text:
            yield from (
                Found(Kind.SECRET, *match.span(1)) for match in _IN_URL.finditer(text) if _is_login(match.group(1))
            )
    if "-----BEGIN" in text:
        yield from _private_keys(text)
    if "bearer" in lower or "basic" in lower:
        for match in _HEADER.finditer(text):
            if any(character.isdigit() or character == "=" for character in match.group(1)):
                yield Found(Kind.SECRET, *match.span(1))
    if "sid=" in lower or "sessionid=" in lower or "session_id=" in lower or "csrftoken=" in lower:
        yield from (Found(Kind.SECRET, *match.span(1)) for match in _COOKIE.finditer(text))
    yield from announced(text, lower)


def _tokens(text: str) -> Iterator[Found]:
    yield from (Found(Kind.SECRET, *match.span()) for match in _MARKED.finditer(text) if _has_digit(match.group()))
    for match in _TOKEN.finditer(text):
        token = match.group()
        before = text[max(0, match.start() - 12) : match.start()]
        if not _has_digit(token) or stands_for_another(token, before) or _FILE_ENDS.match(text, match.end()):
            continue
        parts = [part for part in _PART.finditer(text, *match.span()) if is_random(part.group())]
        if parts:
            yield from (Found(Kind.SECRET, *part.span()) for part in parts)
        elif is_random(token) and not (before.endswith(".") and "/" in token):  # the end of a host, and a path
            yield Found(Kind.SECRET, match.start() + len(token) - len(token.lstrip("/-_")), match.end())


def _private_keys(text: str) -> Iterator[Found]:
    place = 0
    while (match := _PEM.search(text, place)) is not None:
        end = text.find(_PEM_END, match.end())
        dashes = text.find("-----", end + len(_PEM_END)) if end >= 0 else -1
        place = dashes + 5 if dashes >= 0 else len(text)  # what is cut off is a key all the same
        yield Found(Kind.SECRET, match.start(), place)


def _is_login(login: str) -> bool:
    password = login.partition(":")[2]
    return not (password[0] in "<{[$*%" or password.strip("xX*.") == "")


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)

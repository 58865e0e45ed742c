"""What services say: whole pages, server-sent events, text in pieces, and which failure their words mean.

Invariant: pure. Nothing here does I/O, and nothing that a service may send makes anything here raise.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agentic_flywheel.errors import FlowError, FlowLimited, FlowMissing, FlowRefused, FlowTimeout, FlowUnavailable
from agentic_flywheel.flows.protocol import Tokens

#: As much of a service's own words as an error message quotes.
QUOTED_CHARACTERS = 300


def tokens_of(usage: Any) -> Tokens | None:
    """Tokens as services report them (`prompt_tokens` or `input_tokens`, and so on); None where they report none.

    >>> tokens_of({"prompt_tokens": 7, "completion_tokens": 2}), tokens_of({"input_tokens": 7})
    (Tokens(read=7, written=2), Tokens(read=7, written=0))
    """
    if not isinstance(usage, dict):
        return None
    read, written = (
        next((usage[name] for name in names if type(usage.get(name)) is int and 0 <= usage[name] < 10**9), 0)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return Tokens(read, written) if read or written else None


class EventReader:
    """Server-sent events out of bytes in pieces of any size: gives the data of each event.

    Comments (heartbeats) and other fields are passed over. Lines are cut at line feeds only: JSON may hold U+2028
    and its like unescaped, where `str.splitlines` (and httpx2's `aiter_lines`) would cut. With `bare_json` a line
    that begins with `{` is an event of its own, as Langflow sends them.

    >>> reader = EventReader()
    >>> list(reader.feed(b':heartbeat\\n\\nmessage:\\ndata:{"event"')), list(reader.feed(b': 1}\\n\\n'))
    ([], ['{"event": 1}'])
    """

    def __init__(self, *, bare_json: bool = False) -> None:
        self._bare_json = bare_json
        self._rest = b""
        self._lines: list[str] = []

    def feed(self, piece: bytes) -> Iterator[str]:
        """The events that end within `piece`."""
        *lines, self._rest = (self._rest + piece).split(b"\n") if b"\n" in piece else (self._rest + piece,)
        for line in lines:
            yield from self._take(line.decode("utf-8", "replace").removeprefix("\ufeff").removesuffix("\r"))

    def end(self) -> Iterator[str]:
        """A last event without the blank line that should end it; whether it is whole, its reader sees."""
        yield from self.feed(b"\n\n")

    def _take(self, line: str) -> Iterator[str]:
        if self._bare_json and line.startswith("{"):
            yield line
        elif line.startswith("data:"):
            self._lines.append(line[5:].removeprefix(" "))
        elif not line and self._lines:
            yield "\n".join(self._lines)
            self._lines.clear()


class Page(msgspec.Struct, frozen=True):
    """A reply that was read whole; header names are in lower case."""

    status: int
    media_type: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, or None where it is none (a body of `null` is no answer either)."""
        return json_or_none(self.body)

    def words(self) -> str:
        """What the service said, for people: the message in a JSON error, a page's title, else the text itself."""
        said = _message_in(self.json())
        if not said:
            text = self.body[:10_000].decode("utf-8", "replace").strip()
            if text.startswith("<"):
                title = re.search(r"<title[^>]*>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
                text = f"a web page titled {' '.join(title[1].split())!r}" if title else "a web page"
            said = text
        said = " ".join(said.split())
        return said if len(said) <= QUOTED_CHARACTERS else said[:QUOTED_CHARACTERS] + "…"

    @property
    def retry_after_seconds(self) -> float | None:
        """The pause that the service asks for."""
        return seconds_of(self.headers.get("retry-after", ""))


class Transcript:
    """The text of an answer as it arrives in pieces, each of which is valid Unicode.

    JavaScript cuts strings between the halves of a surrogate pair; the first half waits here for the second.

    >>> transcript = Transcript()
    >>> transcript.add("done \\ud83d"), transcript.add("\\ude00"), transcript.text
    ('done ', '😀', 'done 😀')
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._half = ""

    def add(self, piece: str) -> str:
        """Append a piece; what of the text may be shown now."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        shown = mended(piece)
        if shown:
            self._pieces.append(shown)
        return shown

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def mended(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced, so that it can be encoded."""
    if re.search("[\ud800-\udfff]", text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def json_or_none(text: str | bytes) -> Any:
    """Parsed JSON, None where `text` is none. The standard parser is used: it accepts halves of surrogate pairs."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def kind_by_words(said: str) -> type[FlowError]:
    """Which failure a service means that puts every failure under one status; numbers are those of its model."""
    words = said.lower()
    if re.search(r"chatflow \S+ not found", words):
        return FlowMissing
    if re.search(r"\b(401|403|unauthori[sz]ed|forbidden|incorrect api key|invalid api key|not allowed)\b", words):
        return FlowRefused
    if re.search(r"\b(429|rate limit|too many requests)\b", words):
        return FlowLimited
    if re.search(r"\b(not found|404)\b", words):
        return FlowMissing
    if re.search(r"\b(timed out|timeout)\b", words):
        return FlowTimeout
    return FlowUnavailable


def seconds_of(retry_after: str) -> float | None:
    """`Retry-After` as seconds from now (RFC 9110, 10.2.3); None where it is absent or says nothing usable."""
    retry_after = retry_after.strip()
    if re.fullmatch(r"\d{1,7}(\.\d+)?", retry_after):
        return float(retry_after)
    from email.utils import parsedate_to_datetime  # brings half of `email` along, which an answer from memory need not

    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _message_in(reply: Any) -> str:
    for _ in range(4):
        if not isinstance(reply, dict):
            break
        reply = next((reply[name] for name in ("message", "error", "detail", "msg") if reply.get(name)), "")
    if isinstance(reply, list):
        return json.dumps(reply)
    return reply if isinstance(reply, str) else ""

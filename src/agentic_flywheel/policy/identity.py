"""What a question *is*: its normal form, and the digests that name it and what it was asked with.

Invariant: two questions get one name only if a careful reader would call them the same words; and names are built
from length-prefixed parts, so no two different lists of parts run together. The name only finds a candidate: a hit
compares the normal form and the identity as well (`policy.decision`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from agentic_flywheel.model import Exchange

# Code keeps its case and spacing: `Set` and `set` are different commands. Fences first, then inline spans.
_CODE = re.compile(r"(```.*?```|`[^`]*`)", re.DOTALL)
# The characters that NFKC makes a backtick: made so first, or folding would open code spans where there were none.
_BACKTICKS = str.maketrans("\uff40\u1fef", "``")
_SPACE = re.compile(r"\s+")
_CLOSING = frozenset(".?…!")


def normalise(question: str) -> str:
    """The question as it is compared: Unicode NFKC, trimmed, white space folded, case-folded, closing .?! dropped.

    Code spans keep their case and spacing, and symbols stay ("C++" is not "C"). Idempotent.

    >>> normalise("  What is   `Set`?! ")
    'what is `Set`'
    >>> normalise("What is C++?") == normalise("what is c")
    False
    """
    if question.isascii() and "`" not in question and "!" not in question:
        # Most questions. ASCII is in NFKC already, its case folds letter by letter, and no closing mark is a factorial.
        plain = " ".join(question.lower().split())
        return plain.rstrip(".? ") or plain
    parts = _CODE.split(question.translate(_BACKTICKS).strip())
    folded = "".join(part if index % 2 else _fold(part) for index, part in enumerate(parts)).strip()
    return _without_closing(folded) or folded


def _without_closing(text: str) -> str:
    """A text that ends in no white space without its closing punctuation, which says nothing. But "5!" is a factorial:
    an exclamation mark right after a digit stays. One step a character, whatever somebody types."""
    end = len(text)
    while end and text[end - 1] in _CLOSING:
        if text[end - 1] == "!" and end > 1 and text[end - 2].isdecimal():
            break
        end -= 1
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]


def _fold(text: str) -> str:
    # Case folding can undo composition and composition can undo folding: repeat until nothing changes (RFC 8264, 7).
    before = ""
    while before != text:
        before, text = text, unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _SPACE.sub(" ", text)


def digest(*parts: str | bytes) -> str:
    """128 bits of BLAKE2b (RFC 7693) over length-prefixed parts, as 32 hexadecimal digits.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    hasher = blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.hexdigest()


def canonical(value: Mapping[str, Any]) -> str:
    """A mapping as JSON that is the same for equal mappings; what JSON lacks is written by its `str`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def context_digest(exchanges: Iterable[Exchange]) -> str:
    """The name of the exact turns that enrich a question, "" for none. Ids play no part: equal paths are equal."""
    sides = [side for exchange in exchanges for side in (exchange.question, exchange.answer)]
    return digest("context", *sides) if sides else ""


def identity_of(*, context: str = "", config: Mapping[str, Any] | None = None, domain: str = "") -> str:
    """Everything besides the words that an answer depends on: context digest, overrides, domain; "" for none."""
    overrides = canonical(config) if config else ""
    return digest("identity", context, overrides, domain) if context or overrides or domain else ""


def question_hash(normal: str, identity: str = "") -> str:
    """The name of a question in its key: its normal form joined with its identity."""
    return digest("question", normal, identity)


@lru_cache(maxsize=1024)
def fingerprint_of(config_digest: str, revision: str) -> str:
    """What decides a flow's answers: the registry's configuration of it, and what its service says of itself."""
    return digest("fingerprint", config_digest, revision)

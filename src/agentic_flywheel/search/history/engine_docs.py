"""A turn as the query engine is given it: the hash's fields, and what is read back of them.

Invariant: a field that is indexed holds nothing but numbers, digests and tokens, all of letters and digits, so the
engine cuts them where we do and no text can mean anything to its parser. This is the one place where words of people
are written into the index: whoever has to hide them does it in `token`.

    q, a        tokens of the question and of the answer's first characters
    s f u o t   digests of session, flow, user, outcome, tags      z   audience: s, u or t
    x           when, epoch seconds                               m   facts of a hit, as they are (`Facts`)
    n, c        number and count of words (the store's)           vE  the vector of embedder E, float16
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import msgspec

from agentic_flywheel.errors import IndexUnusable
from agentic_flywheel.findings import Audience, EngineDoc, HistoryDoc, Hit

#: Stands behind each question: to the engine, an answer's first word follows the question's last, whatever field is
#: named. No token is the same, and it is not counted.
END = "e"
AUDIENCES = {Audience.SESSION: "s", Audience.USER: "u", Audience.TEAM: "t"}
_PLAIN = re.compile(r"[a-z0-9]+")


class Facts(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """What is read of a document that was found: enough to rank it, to count it, and to find its turn."""

    session: str
    turn: str
    place: int
    at: float
    flow: str
    user: str
    outcome: str
    audience: str
    stream: str
    words: int


_facts = msgspec.msgpack.Decoder(Facts)


@lru_cache(maxsize=65536)
def token(stem: str) -> str:
    """A stem as it stands in documents and expressions: it begins with a letter, so that it is no number and no word
    that the engine's parser knows, and holds ASCII letters and digits alone. No two stems have the same.

    >>> token("redi"), token("2026"), token("cl\u00e9"), token("\u8bb0\u5fc6")
    ('wredi', 'w2026', 'umnwmhki', 'u5cxlbzn7qy')
    """
    if _PLAIN.fullmatch(stem):
        return f"w{stem}"
    return "u" + base64.b32encode(stem.encode("utf-8", "surrogatepass")).decode().rstrip("=").lower()


def tokens(stems: str) -> str:
    """A text of stems as a text of tokens."""
    return " ".join(map(token, stems.split(" "))) if stems else ""


@lru_cache(maxsize=4096)
def digest(value: str) -> str:
    """A name as it stands in documents and expressions; it begins with a letter."""
    return "h" + blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def number(value: float) -> str:
    """A number as it stands in documents and expressions."""
    if math.isfinite(value):
        return f"{value:.6f}"
    return "-inf" if value < 0 else "+inf"


def digests(values: Iterable[str]) -> str:
    """Several names of one document."""
    return ",".join(sorted(map(digest, values)))


def engine_doc(doc: HistoryDoc) -> EngineDoc:
    """A turn as the store keeps it."""
    question, answer = tokens(doc.question_words), tokens(doc.answer_words)
    words = len(question.split()) + len(answer.split())
    audience = AUDIENCES[doc.audience]
    facts = Facts(
        doc.session_id, doc.turn_id, doc.place, doc.at, doc.flow, doc.user, doc.outcome, audience, doc.stream_id, words
    )
    return EngineDoc(
        session_id=doc.session_id,
        turn_id=doc.turn_id,
        flow=doc.flow,
        words=words,
        fields={
            "q": f"{question} {END}",
            "a": answer,
            "s": digest(doc.session_id),
            "f": digest(doc.flow),
            "u": digest(doc.user),
            "o": digest(doc.outcome),
            "t": digests(doc.tags),
            "z": audience,
            "x": number(doc.at),
            "m": msgspec.msgpack.encode(facts),
        },
    )


def facts_of(raw: bytes) -> Facts:
    """The facts of a document. Raises `IndexUnusable`, `damaged`, where they are something else."""
    try:
        return _facts.decode(raw)
    except (msgspec.DecodeError, TypeError) as error:
        raise IndexUnusable(f"a document of the index of history is damaged: {error}", damaged=True) from error


def hit_of(name: str, score: float, facts: Facts, holds: int = 0) -> Hit:
    """A document that was found, as everybody knows it."""
    f = facts
    return Hit(name, score, f.session, f.place, f.at, f.flow, f.user, f.outcome, f.words, holds)

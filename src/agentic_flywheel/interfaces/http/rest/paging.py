"""Cursors: where a list goes on, as clients are given it.

Invariant: a cursor continues the list that gave it, for the caller that was given it, and nothing else: it carries a
digest of operation, tenant, user and every filter. One that was altered, or belongs to another list, is refused.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from agentic_flywheel.errors import InputError

_DIGEST: Final = 9
_LONGEST: Final = 1000


def sealed(place: str, about: bytes) -> str:
    """A place in a list as a cursor; `about` is all that tells the list from others.

    >>> opened(sealed("40+2", b"sessions"), b"sessions")
    '40+2'
    """
    raw = place.encode()
    return urlsafe_b64encode(_digest(raw, about) + raw).decode().rstrip("=")


def opened(cursor: str, about: bytes) -> str:
    """The place in the list. Raises `InputError`."""
    try:
        raw = urlsafe_b64decode(cursor[:_LONGEST] + "=" * (-len(cursor) % 4))
        digest, place = raw[:_DIGEST], raw[_DIGEST:]
        if urlsafe_b64encode(raw).decode().rstrip("=") == cursor and digest == _digest(place, about):
            return place.decode()
    except ValueError:
        pass  # said below: whatever it is, it is none of this list's
    raise InputError(
        "this is not a cursor of this list",
        suggestions=(
            "Take next_cursor of the page before, with the same filters.",
            "Start again without a cursor.",
            "Follow the Link header with rel=next: it has all of it.",
        ),
    )


def _digest(place: bytes, about: bytes) -> bytes:
    return blake2b(len(place).to_bytes(4, "big") + place + about, digest_size=_DIGEST, person=b"afw cursor").digest()

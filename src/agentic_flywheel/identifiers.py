"""New ids: random, from the operating system's source, drawn in batches since one system call per id is felt.

Invariant: nobody draws what somebody else draws: taking a list's last piece is atomic between threads, and a forked
child throws its parent's batch away.
"""

from __future__ import annotations

import os

_DIGITS = 32
_BATCH = 128

#: What the digit of a UUID that holds its variant becomes: its upper two bits are 1 and 0.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_pieces: list[str] = []
os.register_at_fork(after_in_child=_pieces.clear)


def new_id() -> str:
    """128 random bits as 32 hexadecimal digits: a turn's or trace's id."""
    try:
        return _pieces.pop()
    except IndexError:
        digits = os.urandom(_BATCH * _DIGITS // 2).hex()
        first, *rest = (digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
        _pieces.extend(rest)
        return first


def new_uuid() -> str:
    """A random UUID (RFC 9562, version 4) in its usual form."""
    digits = new_id()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def new_session_id() -> str:
    """A new session's id; 64 random bits."""
    return "s-" + new_id()[:16]

"""New ids: random, from the operating system's source, drawn in batches since one system call per id is felt.

Invariant: nobody draws what somebody else draws: taking a list's last piece is atomic between threads, and a forked
child throws its parent's batch away.
"""

from __future__ import annotations

import os

_DIGITS = 32
_BATCH = 128

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


def new_session_id() -> str:
    """A new session's id; 64 random bits."""
    return "s-" + new_id()[:16]

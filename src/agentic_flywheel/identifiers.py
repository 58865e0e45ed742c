"""New ids: random, from the operating system's source, drawn in batches since one system call per id is felt.

Invariant: no two processes draw the same: a forked child throws its parent's batch away.
"""

from __future__ import annotations

import os

_BATCH_BYTES = 4096


class _Source:
    """Random hexadecimal digits."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def draw(self, count: int) -> str:
        end = self._at + count
        if end > len(self._digits):
            self._digits, end = os.urandom(_BATCH_BYTES).hex(), count
        self._at = end
        return self._digits[end - count : end]

    def forget(self) -> None:
        self._digits = ""


_source = _Source()
os.register_at_fork(after_in_child=_source.forget)


def new_id() -> str:
    """128 random bits as 32 hexadecimal digits: a turn's or trace's id."""
    return _source.draw(32)


def new_session_id() -> str:
    """A new session's id; 64 random bits."""
    return "s-" + _source.draw(16)

"""When the steps of a question began and ended: all that is written down of them while somebody waits.

Invariant: a mark is a clock reading and an append. What a trace says of a step is made of what the question's own
records hold, afterwards and elsewhere.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from time import perf_counter

#: W3C trace context of whoever asks: version, trace, span, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

#: The `traceparent` of the call that is being served; interfaces set it where traces are made.
CALLER: ContextVar[str] = ContextVar("afw_traceparent", default="")


class Marks:
    """One question's trace while it is answered: whose it is part of, and when its steps were.

    `parent` is the caller's span, "" where nobody said; `wanted` is False where the caller's trace is not recorded.
    """

    __slots__ = ("last", "parent", "steps", "trace", "wanted")

    def __init__(self, trace: str, parent: str = "", *, wanted: bool = True) -> None:
        self.trace = trace
        self.parent = parent
        self.wanted = wanted
        self.steps: list[tuple[str, float, float]] = []
        self.last = perf_counter()

    def begin(self) -> None:
        """What comes next begins now."""
        self.last = perf_counter()

    def end(self, *names: str) -> None:
        """What began after the last mark ends now; with several names they were done in one."""
        now = perf_counter()
        self.steps += [(name, self.last, now) for name in names]
        self.last = now


def context_of(traceparent: str) -> tuple[str, str, bool] | None:
    """Trace, span, and whether it is recorded, of a W3C trace context; None for what is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or traceparent.startswith("ff"):
        return None
    trace, span, flags, _ = match.groups()
    return trace, span, bool(int(flags, 16) & 1)

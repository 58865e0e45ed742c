"""HTTP's own words for what the cache does: directives of a request, provenance of a response (RFC 9111).

Invariant: the words mean here what they mean in `Directives`; what is not understood is passed over, as caches do, but
a number that cannot be read is refused, since who sent it expects something of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from agentic_flywheel.errors import InputError
from agentic_flywheel.model import Answer, Directives

if TYPE_CHECKING:
    from starlette.requests import Request

_FLAGS: Final = frozenset({"no-store", "no-cache", "only-if-cached", "private", "standalone"})
#: `max-stale` without a number accepts whatever is still there: no stored answer outlives this.
_ANY_AGE: Final = timedelta(days=3650)


def directives_of(request: Request) -> Directives:
    """What the `Cache-Control` headers of a request ask for, `standalone` besides the words of HTTP.

    Raises `InputError` for a number of seconds that cannot be read.
    """
    flags: dict[str, bool] = {}
    ages: dict[str, timedelta] = {}
    for line in request.headers.getlist("cache-control"):
        for name, value in _words(line):
            if name in _FLAGS:
                flags[name.replace("-", "_")] = True
            elif name in {"max-age", "max-stale"}:
                ages[name.replace("-", "_")] = (
                    _ANY_AGE if value == "" and name == "max-stale" else _seconds(name, value)
                )
    return Directives(**flags, **ages)  # type: ignore[arg-type]


def provenance_of(answer: Answer) -> dict[str, str]:
    """Where an answer came from, as response headers; their values are ASCII whatever the ids hold."""
    headers = {
        "X-AFW-Outcome": answer.outcome.value,
        "X-AFW-Reason": answer.reason.value,
        "X-AFW-Source": answer.source.value,
        "X-AFW-FAQ": answer.faq,
        "X-AFW-Entry": answer.key or "",
        "X-AFW-Trace": answer.trace_id,
        "X-AFW-Origin-Trace": answer.origin_trace_id,
        "X-AFW-Session": answer.session_id,
        "X-AFW-Turn": answer.turn_id,
        "X-AFW-Similarity": "" if answer.similarity is None else f"{answer.similarity:.4f}",
    }
    if answer.outcome.value in {"hit", "similar", "stale"}:
        headers["Age"] = str(int(answer.age_seconds))
    return {name: _ascii(value) for name, value in headers.items() if value}


def _words(line: str) -> Iterator[tuple[str, str]]:
    for part in line.split(","):
        name, _, value = part.strip().partition("=")
        yield name.strip().casefold(), value.strip().strip('"')


def _seconds(name: str, value: str) -> timedelta:
    if not (value.isascii() and value.isdecimal() and len(value) < 12):
        raise InputError(f"Cache-Control: {name} wants a number of seconds, not {value[:40]!r}")
    return timedelta(seconds=int(value))


def _ascii(value: str) -> str:
    return value if value.isascii() and value.isprintable() else value.encode("ascii", "backslashreplace").decode()

"""A search's whole list, and where a page of it stands.

Invariant: a cursor belongs to one search and to what the index held when that began, so pages never shift and never
mix two searches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from agentic_flywheel.errors import InputError
from agentic_flywheel.findings import HistoryQuery, Hit, SearchMode

_DAY = 86_400


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY, UTC).strftime("%Y-%m-%d")


class Ranked(NamedTuple):
    """A search's whole list."""

    hits: Sequence[Hit]
    total: int
    more: bool
    facets: Mapping[str, Mapping[str, int]]
    mode: SearchMode
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, hits: Sequence[Hit], total: int, more: bool, mode: SearchMode, warnings: Sequence[str] = ()) -> Ranked:
        days = Counter([int(hit.at // _DAY) for hit in hits])
        facets: dict[str, Counter[str]] = {
            "flow": Counter([hit.flow for hit in hits if hit.flow]),
            "user": Counter([hit.user for hit in hits if hit.user]),
            "outcome": Counter([hit.outcome for hit in hits if hit.outcome]),
            "day": Counter({_day(day): count for day, count in days.items()}),
        }
        counted = {name: dict(counts.most_common()) for name, counts in facets.items()}
        return cls(hits, total, more, counted, mode, tuple(warnings))


class Place(NamedTuple):
    """Where a list goes on: what the index held when it began, and how much of it was shown."""

    seen: int | None
    offset: int
    digest: str

    @classmethod
    def read(cls, cursor: str, query: HistoryQuery) -> Place:
        """The cursor as `str` wrote it, for this very search. Raises `InputError`."""
        if not cursor:
            return cls(None, 0, "")
        seen, _, rest = cursor.partition("-")
        offset, _, digest = rest.partition("-")
        if not (seen.isdecimal() and offset.isdecimal() and len(cursor) < 60) or digest != digest_of(query):
            raise InputError(
                f"{cursor[:60]!r} is not a cursor of this search; start again without one",
                suggestions=(
                    "Give the cursor of the page before as it was, with the same words, filters, mode and order.",
                    "Leave it out to see the first page.",
                ),
            )
        return cls(int(seen), int(offset), digest)

    def after(self, query: HistoryQuery, offset: int) -> Place:
        return Place(query.seen, offset, digest_of(query))

    def __str__(self) -> str:
        return f"{self.seen}-{self.offset}-{self.digest}"


def digest_of(query: HistoryQuery) -> str:
    """What tells one search from another, whatever page of it. "2 days" ago is another moment a second later, so times
    are left out."""
    plain = msgspec.structs.replace(query, cursor="", limit=1, seen=None, notes=(), since=None, until=None)
    return blake2b(msgspec.msgpack.encode(plain), digest_size=6).hexdigest()

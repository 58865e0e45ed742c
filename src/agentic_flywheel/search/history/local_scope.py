"""What filters and the caller's sight leave of the local index, once for SQL and once for arrays.

Invariant: both forms are the same rule as `policy.visibility.sees` and the filters of a query; a test holds all three
together. They are applied while an index looks, so no page or count ever holds what is hidden.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from agentic_flywheel.findings import Audience, HistoryQuery

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentic_flywheel.search.history.local_vectors import Facts

AUDIENCES = {Audience.SESSION: 0, Audience.USER: 1, Audience.TEAM: 2}
_NOTHING = -1  # a name that no turn has
_FEW = 12


class Scope(NamedTuple):
    """A query's filters with numbers for names; None: no such filter."""

    session: int | None
    flow: int | None
    user: int | None
    outcome: int | None
    sessions: tuple[int, ...] | None  # those with the tag
    since: float | None
    until: float | None
    seen: int | None
    caller: int | None  # None: the operator
    nobody: int  # the user of turns without one
    named: int
    open_flows: tuple[int, ...]
    closed_flows: tuple[int, ...]

    def conditions(self) -> tuple[str, list[Any]]:
        """The SQL condition on `docs d`, and what it binds."""
        parts, bound = [], list[Any]()
        for name in ("session", "flow", "user", "outcome"):
            if (value := getattr(self, name)) is not None:
                parts.append(f"d.{name} = ?")
                bound.append(value)
        if self.sessions is not None:
            parts.append(f"d.session IN ({_numbers(self.sessions)})")
        for value, condition in ((self.since, "d.at >= ?"), (self.until, "d.at < ?"), (self.seen, "d.id <= ?")):
            if value is not None:
                parts.append(condition)
                bound.append(value)
        sight, more = self._sight()
        return " AND ".join([*parts, sight]), bound + more

    def _sight(self) -> tuple[str, list[Any]]:
        opened, closed = _numbers(self.open_flows), _numbers(self.closed_flows)
        own = "" if self.caller is None else " AND d.user = ?"
        theirs = "" if self.caller is None else " AND d.user IN (?, ?)"
        condition = (
            f"((d.audience = 2 AND d.flow IN ({opened}))"
            f" OR (d.audience >= 1 AND d.flow NOT IN ({closed}){own})"
            f" OR (d.session = ? AND (d.audience = 0 OR d.flow IN ({closed})){theirs}))"
        )
        if self.caller is None:
            return condition, [self.named]
        return condition, [self.caller, self.named, self.caller, self.nobody]

    def mask(self, facts: Facts) -> NDArray[Any]:
        """The same on arrays: which rows are left."""
        import numpy as np

        left: NDArray[np.bool_] = np.ones(len(facts.ids), bool)
        for name in ("session", "flow", "user", "outcome"):
            if (value := getattr(self, name)) is not None:
                left &= getattr(facts, name) == value
        if self.sessions is not None:
            left &= np.isin(facts.session, self.sessions)
        if self.since is not None:
            left &= facts.at >= self.since
        if self.until is not None:
            left &= facts.at < self.until
        if self.seen is not None:
            left &= facts.ids <= self.seen
        closed = _any_of(facts.flow, self.closed_flows)
        own = np.ones(len(left), bool) if self.caller is None else facts.user == self.caller
        theirs = own if self.caller is None else own | (facts.user == self.nobody)
        seen = (facts.audience == 2) & _any_of(facts.flow, self.open_flows)
        seen |= (facts.audience >= 1) & ~closed & own
        seen |= (facts.session == self.named) & ((facts.audience == 0) | closed) & theirs
        left &= seen
        return left


def scope_of(connection: sqlite3.Connection, query: HistoryQuery) -> Scope:
    """The scope of a query in one index."""

    def number(kind: str, name: str) -> int:
        row = connection.execute("SELECT id FROM names WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        return row[0] if row else _NOTHING

    def session(name: str) -> int:
        row = connection.execute("SELECT id FROM sessions WHERE name = ?", (name,)).fetchone()
        return row[0] if row else _NOTHING

    tagged = None
    if query.tag:
        tagged = tuple(row[0] for row in connection.execute("SELECT session FROM tags WHERE tag = ?", (query.tag,)))
    sight = query.sight
    return Scope(
        session=session(query.session) if query.session else None,
        flow=number("flow", query.flow) if query.flow else None,
        user=number("user", query.user) if query.user else None,
        outcome=number("outcome", query.outcome) if query.outcome else None,
        sessions=tagged,
        since=query.since,
        until=query.until,
        seen=query.seen,
        caller=number("user", sight.caller) if sight.caller else None,
        nobody=number("user", ""),
        named=session(sight.session) if sight.session else _NOTHING,
        open_flows=tuple(number("flow", flow) for flow in sight.open_flows),
        closed_flows=tuple(number("flow", flow) for flow in sight.closed_flows),
    )


def _any_of(column: NDArray[Any], numbers: Sequence[int]) -> NDArray[Any]:
    """Which rows hold one of these numbers; few are sooner compared one by one."""
    import numpy as np

    if len(numbers) > _FEW:
        return np.isin(column, numbers)
    found: NDArray[np.bool_] = np.zeros(len(column), bool)
    for number in numbers:
        found |= column == number
    return found


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))

"""Finding by meaning in the local index: every turn compared up to some 20,000, beyond that by one bit per dimension.

Invariant: filters and sight are applied before anything is compared, so the nearest that are returned are the nearest
that may be seen. Up to `EXACT` turns the result is exact; beyond, signs alone choose `RESCORED` candidates, whose
vectors are then read from the file and compared in full (100,000 vectors: 5 MB in memory, .99 of the exact top 10).
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from agentic_flywheel.search.history.local_scope import Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Vector

#: Turns whose vectors are held in full (MiniLM: 31 MB), and candidates whose vectors are read beyond that.
EXACT = 20_000
RESCORED = 500
_PAGE = 2000


class Facts:
    """What is filtered by, as arrays: one row for each turn with a vector."""

    __slots__ = ("at", "audience", "flow", "ids", "outcome", "session", "user")

    def __init__(self, rows: NDArray[np.float64]) -> None:
        import numpy as np

        self.ids, self.session, self.flow, self.user, self.outcome, self.audience = (
            rows[:, column].astype(np.int64) for column in range(6)
        )
        self.at = rows[:, 6]


class VectorRows:
    """The vectors of one embedder as one process holds them; read on from the file before each search."""

    def __init__(self, embedder: str, dimension: int) -> None:
        import numpy as np

        self.embedder = embedder
        self.dimension = dimension
        self._generation = ""
        self._removals = 0
        self._after = 0
        self._rows = np.empty((0, 7), np.float64)
        self._facts = Facts(self._rows)
        self._full = np.empty((0, dimension), np.float32)
        self._codes = np.empty((0, -(-dimension // 64)), np.uint64, order="F")  # one column after the other

    def __len__(self) -> int:
        return len(self._rows)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Read what came in, and forget what was removed."""
        import numpy as np

        meta = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('generation', 'removals')"))
        if meta["generation"] != self._generation:
            self.__init__(self.embedder, self.dimension)  # type: ignore[misc]  # as new
            self._generation, self._removals = meta["generation"], meta["removals"]
        elif meta["removals"] != self._removals:
            there = [row[0] for row in connection.execute("SELECT id FROM docs")]
            self._keep(np.isin(self._rows[:, 0], there))
            self._removals = meta["removals"]
        known = connection.execute("SELECT id FROM embedders WHERE fingerprint = ?", (self.embedder,)).fetchone()
        if known is None:
            return
        # The plus sign keeps SQLite from sorting all vectors of the embedder: they are read as they came in.
        cursor = connection.execute(
            "SELECT v.seq, v.vector, d.id, d.session, d.flow, d.user, d.outcome, d.audience, d.at"
            " FROM vectors v CROSS JOIN docs d ON d.id = v.doc WHERE v.seq > ? AND +v.embedder = ? ORDER BY v.seq",
            (self._after, known[0]),
        )
        rows: list[NDArray[np.float64]] = []
        vectors: list[NDArray[np.float32]] = []
        while found := cursor.fetchmany(_PAGE):
            fitting = [row for row in found if len(row[1]) == 2 * self.dimension]
            if fitting:
                halves = np.frombuffer(b"".join(row[1] for row in fitting), "<f2").reshape(-1, self.dimension)
                rows.append(np.array([row[2:] for row in fitting], np.float64))
                vectors.append(halves.astype(np.float32))
            self._after = found[-1][0]
        if rows:
            self._extend(rows, vectors)

    def nearest(
        self,
        connection: sqlite3.Connection,
        query: Vector,
        scope: Scope,
        *,
        count: int,
        wanted: list[int] | None,
        unwanted: list[int],
    ) -> list[tuple[int, float]]:
        """The `count` nearest that the scope leaves, by number; of `wanted` only (None: all), less `unwanted`."""
        import numpy as np

        facts = self._facts
        left = scope.mask(facts)
        if wanted is not None:
            left &= np.isin(facts.ids, wanted)
        if unwanted:
            left &= ~np.isin(facts.ids, unwanted)
        rows = np.flatnonzero(left)
        if not len(rows):
            return []
        query = np.ascontiguousarray(query, np.float32)
        if len(self._full) == len(self._rows):
            near = self._full[rows] @ query if len(rows) < len(self._full) else self._full @ query
        else:
            rows, near = self._rescored(connection, left, facts.ids, query, max(RESCORED, count))
        best = np.argpartition(-near, count - 1)[:count] if len(near) > count else np.arange(len(near))
        ids = facts.ids[rows[best]].tolist()
        found = zip(ids, near[best].astype(np.float64).round(5).tolist(), strict=True)
        return sorted(found, key=lambda pair: (-pair[1], -pair[0]))

    def _rescored(
        self, connection: sqlite3.Connection, left: NDArray[np.bool_], ids: NDArray[np.int64], query: Vector, count: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Of the rows that are left, those whose signs agree best with the query's, and how near they are in full."""
        import numpy as np

        rows = np.flatnonzero(left)
        if len(rows) > count:
            differing = np.zeros(len(left), np.uint16)
            for column, code in zip(self._codes.T, _codes(query.reshape(1, -1))[0], strict=True):
                differing += np.bitwise_count(column ^ code)
            differing[~left] = np.iinfo(np.uint16).max
            rows = np.argpartition(differing, count - 1)[:count]
        vectors: dict[int, bytes] = {}
        chosen = ids[rows].tolist()
        for start in range(0, len(chosen), 500):
            part = chosen[start : start + 500]
            vectors.update(
                connection.execute(
                    "SELECT v.doc, v.vector FROM vectors v JOIN embedders e ON e.id = v.embedder"
                    f" WHERE e.fingerprint = ? AND v.doc IN ({','.join(map(str, part))})",
                    (self.embedder,),
                )
            )
        there = np.array([id_ in vectors for id_ in chosen], bool)
        halves = np.frombuffer(b"".join(vectors[id_] for id_ in chosen if id_ in vectors), "<f2")
        return rows[there], halves.reshape(-1, self.dimension).astype(np.float32) @ query

    def _extend(self, rows: list[NDArray[np.float64]], vectors: list[NDArray[np.float32]]) -> None:
        import numpy as np

        whole = len(self._full) == len(self._rows)
        self._rows = np.concatenate((self._rows, *rows))
        self._codes = np.asfortranarray(np.concatenate((self._codes, *map(_codes, vectors))))
        if whole and len(self._rows) <= EXACT:
            self._full = np.concatenate((self._full, *vectors))
        else:
            self._full = np.empty((0, self.dimension), np.float32)
        self._facts = Facts(self._rows)

    def _keep(self, left: NDArray[np.bool_]) -> None:
        import numpy as np

        if len(self._full) == len(self._rows):
            self._full = self._full[left]
        self._rows, self._codes = self._rows[left], np.asfortranarray(self._codes[left])
        self._facts = Facts(self._rows)


def _codes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """One bit per dimension: whether it is positive; in words of 64 bits."""
    import numpy as np

    bits = np.packbits(vectors > 0, axis=1)
    padding = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, padding)))).view(np.uint64)

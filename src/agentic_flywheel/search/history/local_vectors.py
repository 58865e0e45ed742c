"""Finding by meaning in the local index: every turn compared up to some 20,000, beyond that by one bit per dimension.

Invariant: filters and sight are applied before anything is compared, so the nearest that are returned are the nearest
that may be seen. Up to `EXACT` turns the result is exact; beyond, signs alone choose `RESCORED` candidates, which are
then compared by a byte for each dimension (cosines within .002; 100,000 vectors: 43 MB in memory, .99 of the exact top
10). Beyond `HELD` these bytes are not kept either, and the candidates' vectors are read from the file.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from agentic_flywheel.search.history.local_scope import Scope
from agentic_flywheel.search.history.local_words import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Vector

#: Turns whose vectors are held in full (MiniLM: 31 MB), those that are held in bytes (77 MB), and candidates that are
#: compared by more than their signs beyond `EXACT`.
EXACT = 20_000
HELD = 200_000
RESCORED = 500
_PAGE = 2000
#: Scopes whose rows are remembered: 100 kB each with 100,000 turns.
_SCOPES = 4
#: Room for turns to come, beside a quarter of those that are there: a search after every turn must not copy them all.
_ROOM = 1024


class Facts(NamedTuple):
    """What is filtered by and shown of hits, and where vectors stand in the file: one row for each turn with a vector,
    by `seq`."""

    ids: NDArray[np.int64]
    seq: NDArray[np.int64]
    session: NDArray[np.int32]
    flow: NDArray[np.int32]
    user: NDArray[np.int32]
    outcome: NDArray[np.int32]
    audience: NDArray[np.int8]
    at: NDArray[np.float64]
    place: NDArray[np.int32]
    size: NDArray[np.int32]


class VectorRows:
    """The vectors of one embedder as one process holds them; read on from the file before each search."""

    def __init__(self, embedder: str, dimension: int) -> None:
        self.embedder = embedder
        self.dimension = dimension
        self._generation = ""
        self._removals = 0
        self._after = 0
        self._empty()

    def _empty(self) -> None:
        import numpy as np

        self._count = 0
        small = (np.int32, np.int32)
        types = (np.int64, np.int64, *small, *small, np.int8, np.float64, *small)
        self._left: OrderedDict[Scope, NDArray[np.bool_]] = OrderedDict()
        self._facts: list[NDArray[Any]] = [np.empty(0, kind) for kind in types]
        self._full = np.empty((0, self.dimension), np.float32)  # none beyond `EXACT`
        self._bytes = np.empty((0, self.dimension), np.int8)  # none beyond `HELD`
        self._steps = np.empty(0, np.float32)  # what a byte of each vector counts
        self._codes = np.empty((0, -(-self.dimension // 64)), np.uint64, order="F")  # one column after the other

    def __len__(self) -> int:
        return self._count

    @property
    def facts(self) -> Facts:
        """Of all turns, as they came in."""
        return Facts(*(column[: self._count] for column in self._facts))

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Read what came in, and forget what was removed."""
        import numpy as np

        meta = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('generation', 'removals')"))
        if meta["generation"] != self._generation:
            self._empty()
            self._after = 0
        elif meta["removals"] != self._removals:
            there = [row[0] for row in connection.execute("SELECT id FROM docs")]
            self._keep(np.isin(self.facts.ids, there))
            self._left.clear()
        self._generation, self._removals = meta["generation"], meta["removals"]
        known = connection.execute("SELECT id FROM embedders WHERE fingerprint = ?", (self.embedder,)).fetchone()
        if known is None:
            return
        # The plus sign keeps SQLite from sorting all vectors of the embedder: they are read as they came in.
        cursor = connection.execute(
            "SELECT v.vector, d.id, v.seq, d.session, d.flow, d.user, d.outcome, d.audience, d.at, d.place, d.size"
            " FROM vectors v CROSS JOIN docs d ON d.id = v.doc WHERE v.seq > ? AND +v.embedder = ? ORDER BY v.seq",
            (self._after, known[0]),
        )
        while found := cursor.fetchmany(_PAGE):
            fitting = [row for row in found if len(row[0]) == 2 * self.dimension]
            if fitting:
                halves = np.frombuffer(b"".join(row[0] for row in fitting), "<f2").reshape(-1, self.dimension)
                self._extend(np.array([row[1:] for row in fitting], np.float64), halves.astype(np.float32))
            self._after = found[-1][2]

    def nearest(
        self,
        connection: sqlite3.Connection,
        query: Vector,
        scope: Scope,
        *,
        count: int,
        wanted: list[int] | None,
        unwanted: list[int],
    ) -> list[Row]:
        """The `count` nearest that the scope leaves; of `wanted` only (None: all), less `unwanted`."""
        import numpy as np

        facts = self.facts
        left = self._seen(scope)
        if wanted is not None:
            left = left & np.isin(facts.ids, wanted)
        if unwanted:
            left = left & ~np.isin(facts.ids, unwanted)
        rows = np.flatnonzero(left)
        if not len(rows):
            return []
        query = np.ascontiguousarray(query, np.float32)
        if len(self._full):
            full = self._full[: self._count]
            # To take rows out costs more than to compare them.
            near = _cosines(full[rows], query) if 4 * len(rows) < len(full) else _cosines(full, query)[rows]
        else:
            wide = max(RESCORED, count)
            if len(rows) > wide:
                rows = self._agreeing(left, _codes(query.reshape(1, -1))[0], wide)
            rows, near = self._compared(connection, rows, query)
        best = np.argpartition(-near, count - 1)[:count] if len(near) > count else np.arange(len(near))
        chosen = rows[best]
        shown = (facts.session, facts.place, facts.at, facts.flow, facts.user, facts.outcome, facts.size)
        scores = near[best].astype(np.float64).round(5).tolist()
        columns = (column[chosen].tolist() for column in shown)
        found = zip(facts.ids[chosen].tolist(), scores, *columns, repeat(0), strict=False)
        return sorted(found, key=lambda row: (-row[1], -row[0]))

    def _seen(self, scope: Scope) -> NDArray[np.bool_]:
        """Which rows a scope leaves; remembered for scopes that nothing was added since, as most searches have the
        same."""
        left = self._left.pop(scope, None)
        if left is None or len(left) != self._count:
            left = scope.mask(self.facts)
        self._left[scope] = left
        if len(self._left) > _SCOPES:
            self._left.popitem(last=False)
        return left

    def _agreeing(self, left: NDArray[np.bool_], code: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
        """The `count` rows that are left whose signs differ least from a code, in order; of equals the newest.

        How many rows differ in how many signs says where to cut, which is sooner than sorting.
        """
        import numpy as np

        differing = np.zeros(len(left), np.uint16)
        mixed, signs = np.empty(len(left), np.uint64), np.empty(len(left), np.uint8)
        for column, word in zip(self._codes[: self._count].T, code, strict=True):
            np.bitwise_xor(column, word, out=mixed)
            differing += np.bitwise_count(mixed, out=signs)
        differing[~left] = 64 * len(code) + 1
        cut = int(np.searchsorted(np.cumsum(np.bincount(differing)), count))
        nearer = np.flatnonzero(differing < cut)
        equals = np.flatnonzero(differing == cut)[len(nearer) - count :]
        return np.sort(np.concatenate((nearer, equals)))

    def _compared(
        self, connection: sqlite3.Connection, rows: NDArray[np.intp], query: Vector
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Those of some rows, in order, whose vectors are still there, and how near they are."""
        import numpy as np

        if len(self._bytes):
            return rows, _cosines(self._bytes[rows].astype(np.float32), query) * self._steps[rows]
        wanted = self.facts.seq[rows]
        found: list[tuple[int, bytes]] = []
        for start in range(0, len(wanted), _PAGE):
            numbers = ",".join(map(str, wanted[start : start + _PAGE].tolist()))
            found += connection.execute(f"SELECT seq, vector FROM vectors WHERE seq IN ({numbers}) ORDER BY seq")
        if len(found) < len(rows):
            rows = rows[np.isin(wanted, [seq for seq, _ in found])]
        halves = np.frombuffer(b"".join(vector for _, vector in found), "<f2").reshape(-1, self.dimension)
        return rows, _cosines(halves.astype(np.float32), query)

    def _extend(self, rows: NDArray[np.float64], vectors: NDArray[np.float32]) -> None:
        import numpy as np

        self._facts = [_put(old, self._count, rows[:, number]) for number, old in enumerate(self._facts)]
        self._codes = _put(self._codes, self._count, _codes(vectors))
        whole = len(self._full) or not self._count
        if whole and self._count + len(rows) <= EXACT:
            self._full = _put(self._full, self._count, vectors)
        else:
            self._full = np.empty((0, self.dimension), np.float32)
        if (len(self._bytes) or not self._count) and self._count + len(rows) <= HELD:
            steps = np.maximum(np.abs(vectors).max(1), np.float32(1e-6)) / np.float32(127)
            self._bytes = _put(self._bytes, self._count, np.rint(vectors / steps[:, None]).astype(np.int8))
            self._steps = _put(self._steps, self._count, steps)
        else:
            self._bytes = np.empty((0, self.dimension), np.int8)
        self._count += len(rows)

    def _keep(self, left: NDArray[np.bool_]) -> None:
        import numpy as np

        if len(self._full):
            self._full = self._full[: self._count][left]
        if len(self._bytes):
            self._bytes, self._steps = self._bytes[: self._count][left], self._steps[: self._count][left]
        self._facts = [column[: self._count][left] for column in self._facts]
        self._codes = np.asfortranarray(self._codes[: self._count][left])
        self._count = len(self._codes)


def _put(old: NDArray[Any], count: int, more: NDArray[Any]) -> NDArray[Any]:
    """An array with `more` behind its first `count` rows: itself where it has room, else a larger one."""
    import numpy as np

    end = count + len(more)
    if end > len(old):
        order: Any = "F" if old.ndim > 1 and old.flags.f_contiguous and not old.flags.c_contiguous else "C"
        larger = np.empty((end + end // 4 + _ROOM, *old.shape[1:]), old.dtype, order=order)
        larger[:count] = old[:count]
        old = larger
    old[count:end] = more
    return old


def _codes(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """One bit per dimension: whether it is positive; in words of 64 bits."""
    import numpy as np

    bits = np.packbits(vectors > 0, axis=1)
    padding = -bits.shape[1] % 8
    return np.ascontiguousarray(np.pad(bits, ((0, 0), (0, padding)))).view(np.uint64)


def _cosines(vectors: NDArray[np.float32], query: Vector) -> NDArray[np.float32]:
    """How near vectors of length 1 are to another, on this thread alone: a product of matrices takes all processors
    from a few thousand rows on, and on a busy machine its threads wait for each other ten times as long as this takes
    (10,000 rows on two processors that others use as well: 12 ms against .7)."""
    import numpy as np

    near: NDArray[np.float32] = np.einsum("ij,j->i", vectors, query)
    return near

"""The vectors of one partition at hand, and the nearest of them: exactly, and fast without an index to keep.

Invariant: `nearest` gives what comparing with every vector would give; test_vectors.py compares it with that under
arbitrary changes. It looks at a short head of each vector first: its coordinates on the `HEAD` axes along which these
vectors differ most, and the length of what is left. With orthonormal axes, and x1 the head, x2 the rest of x,

    <q, x> <= <q1, x1> + |q2| |x2|          (Cauchy and Schwarz)

so one product with a narrow matrix bounds every similarity from above, and only what may reach the floor, or the best
so far, is compared in full. The axes are the principal ones of a sample (about 0.65 of the squared length of MiniLM
vectors lies on 64). Any orthonormal axes are right, these are fast: they are found anew when the set has grown, in a
thread if need be, while the set goes on being used.

All products are cut into pieces so small that BLAS does them in the thread that asked. With a second one it would wait
for a processor that is not free: measured on two busy processors, 12 ms instead of 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from agentic_flywheel.likeness import Likeness, Neighbour

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Matrix, Vector

    Half = NDArray[np.float16]

#: Axes that are looked at first. 48 leave twice as much to compare in full, 96 take half as long again to look at.
HEAD = 64
#: Rows of one piece. A set grows by pieces: nothing larger than one is ever copied (12.6 MB at 384 dimensions).
PIECE = 16_384
#: Heads lie in blocks of so many vectors: a block fits a processor's first cache (8 KB), and OpenBLAS multiplies a
#: vector by a matrix of less than 9,216 numbers in one thread.
_BLOCK = 32
#: OpenBLAS multiplies matrices of m x k and k x n in one thread where m * k * n is at most this.
_ONE_THREAD = 262_144
#: Similarities are given to so many decimals, so that equal vectors are equally near whatever the order of a sum.
DECIMALS = 6
#: What float32 sums and the rounding may be off by, with room to spare (measured: below 1e-6).
_SLACK = 1e-5
#: Vectors that are compared in full at once, to begin with, and how much more each further time.
_BATCH, _WIDER = 64, 4
#: Axes are found for the first time with so many vectors, then whenever there are so many times more.
_FIRST_AXES, _GROWN = 128, 4
#: How many vectors decide on the axes (at most, or `_product` needs a second thread), and how often they are improved.
_SAMPLE, _ROUNDS = 1024, 4
#: Expired vectors are dropped at most so often, in seconds, and so many at once: they are never found anyway.
_SWEEP_SECONDS, _SWEEP_MOST = 10.0, 100
#: What a vector costs besides its arrays, in bytes: its key, and its place in a list and a dict.
_KEY_BYTES = 330


class _Piece:
    """Up to `PIECE` vectors: float16 rows as stored, and their heads as columns of blocks."""

    __slots__ = ("heads", "vectors")

    def __init__(self, room: int, dimension: int, height: int) -> None:
        import numpy as np

        self.vectors: Half = np.empty((room, dimension), "<f2")
        self.heads: Matrix = np.zeros((room // _BLOCK, height, _BLOCK), np.float32)

    def grown(self, room: int) -> _Piece:
        """The same with more room."""
        larger = _Piece(room, self.vectors.shape[1], self.heads.shape[1])
        larger.vectors[: len(self.vectors)] = self.vectors
        larger.heads[: len(self.heads)] = self.heads
        return larger


class Axes:
    """New axes for a set, and every head along them. Made by `VectorSet.new_axes`; `find` may run in a thread."""

    def __init__(self, pieces: Sequence[Half], dimension: int) -> None:
        self._pieces = pieces
        self._dimension = dimension
        self.axes: Matrix | None = None
        self.heads: list[Matrix] = []

    def find(self) -> None:
        """Find them. What changes in the set meanwhile is not in them; `VectorSet.adopt` sees to that."""
        import numpy as np

        if not self._pieces:  # the set was empty when it began: axes along which nothing is known
            self.axes = np.zeros((min(HEAD, self._dimension), self._dimension), np.float32)
            return
        step = max(1, -(-sum(map(len, self._pieces)) // _SAMPLE))
        sample = np.concatenate([rows[::step] for rows in self._pieces])[:_SAMPLE].astype(np.float32)
        # Subspace iteration (Golub and Van Loan, Matrix Computations, 8.2.4), begun with vectors of the sample itself.
        head = min(HEAD, self._dimension)
        begun = sample[:: max(1, len(sample) // head)][:head]
        axes = _orthonormal(np.concatenate((begun, np.zeros((head - len(begun), self._dimension), np.float32))))
        across = np.ascontiguousarray(sample.T)
        for _ in range(_ROUNDS):
            axes = _orthonormal(_product(across, _product(sample, axes.T)).T)
        self.axes = axes
        for rows in self._pieces:
            heads = np.zeros((-(-len(rows) // _BLOCK), len(axes) + 1, _BLOCK), np.float32)
            for start in range(0, len(rows), _SAMPLE):
                _place(heads, np.arange(start, min(start + _SAMPLE, len(rows))), rows[start : start + _SAMPLE], axes)
            self.heads.append(heads)


def _product(left: Matrix, right: Matrix) -> Matrix:
    """`left @ right`, by groups of rows small enough for one thread."""
    import numpy as np

    size = len(left)
    # At least two rows: one alone would be a product of a vector, for which less is allowed.
    group = max(2, min(size, _ONE_THREAD // right.size))
    if size % group:
        left = np.concatenate((left, np.zeros((group - size % group, left.shape[1]), left.dtype)))
    product: Matrix = np.matmul(left.reshape(-1, group, left.shape[1]), right)
    return product.reshape(-1, right.shape[1])[:size]


def _orthonormal(rows: Matrix) -> Matrix:
    """Orthonormal rows that span the same (Gram and Schmidt, twice); zeros for a row that adds nothing."""
    import numpy as np

    made = np.zeros(rows.shape, np.float64)
    for number, row in enumerate(rows.astype(np.float64)):
        length = float(np.sqrt(np.einsum("i,i", row, row)))
        left = row
        for _ in range(2):
            left = left - np.einsum("i,ij->j", np.einsum("ij,j->i", made[:number], left), made[:number])
        rest = float(np.sqrt(np.einsum("i,i", left, left)))
        if rest > 1e-6 * length:
            made[number] = left / rest
    return made.astype(np.float32)


def _heads_of(axes: Matrix, rows: Matrix) -> Matrix:
    """The heads of vectors as rows: coordinates on `axes`, then the length of what is left, rather more than less."""
    import numpy as np

    heads = np.empty((len(rows), len(axes) + 1), np.float32)
    heads[:, :-1] = _product(rows, axes.T)
    left = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", heads[:, :-1], heads[:, :-1])
    heads[:, -1] = np.sqrt(np.maximum(left, 0.0) + 1e-6)
    return heads


def _place(heads: Matrix, places: NDArray[np.int64], rows: Half, axes: Matrix) -> None:
    """Put the heads of `rows` at their places in the blocks of a piece."""
    import numpy as np

    heads[places // _BLOCK, :, places % _BLOCK] = _heads_of(axes, rows.astype(np.float32))


class VectorSet:
    """Vectors by key, each with its end, and the nearest of them. For one thread; blocks for no longer than it takes.

    >>> import numpy as np
    >>> vectors = VectorSet(3)
    >>> vectors.add("north", np.array([0, 1, 0], "float32"), expires_at=100.0)
    >>> vectors.add("east", np.array([1, 0, 0], "float32"), expires_at=200.0)
    >>> vectors.nearest(np.array([0.6, 0.8, 0], "float32"), count=1, floor=0.5, now=50.0)
    [Neighbour(key='north', similarity=0.8)]
    >>> vectors.nearest(np.array([0.6, 0.8, 0], "float32"), count=5, floor=0.5, now=150.0)
    [Neighbour(key='east', similarity=0.6)]
    """

    def __init__(self, dimension: int) -> None:
        import numpy as np

        self.dimension = dimension
        #: How many were not taken because they were no vectors of this length (damaged, or of somebody else).
        self.refused = 0
        self._keys: list[str] = []
        self._rows: dict[str, int] = {}
        self._pieces: list[_Piece] = []
        self._ends = np.empty(0, np.float64)
        self._bounds = np.empty(0, np.float32)
        self._axes: Matrix = np.eye(min(HEAD, dimension), dimension, dtype=np.float32)
        self._axes_size = _FIRST_AXES // _GROWN
        self._changed: set[int] | None = None
        self._swept_at = 0.0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return len(self._keys) * (2 * self.dimension + 4 * (len(self._axes) + 1) + 12 + _KEY_BYTES)

    def add(self, key: str, vector: bytes | Vector, *, expires_at: float) -> None:
        """Take a vector (float16 little-endian, or an array), in place of the one that the key had."""
        import numpy as np

        raw = vector if isinstance(vector, bytes) else np.asarray(vector).astype("<f2").tobytes()
        self.extend((Likeness(key, raw, expires_at),))

    def extend(self, items: Sequence[Likeness]) -> None:
        """Take many, each as `add` would; the last one of a key counts. What is no vector is left out and counted."""
        import numpy as np

        fitting = [item for item in items if len(item.vector) == 2 * self.dimension]
        halves = np.frombuffer(b"".join(item.vector for item in fitting), "<f2").reshape(len(fitting), self.dimension)
        sound = np.isfinite(halves).all(axis=1)
        last = {item.key: number for number, item in enumerate(fitting) if sound[number]}
        self.refused += len(items) - int(sound.sum())
        if not last:
            return
        if len(last) < len(fitting):
            chosen = list(last.values())
            halves = halves[chosen]
        ends = [fitting[number].expires_at for number in last.values()]
        rows = np.fromiter(map(self._row_for, last), np.int64, len(last))
        self._make_room()
        self._ends[rows] = ends
        for number, here in self._by_piece(rows):
            piece, within = self._pieces[number], rows[here] - number * PIECE
            piece.vectors[within] = halves[here]
            _place(piece.heads, within, halves[here], self._axes)
        if self._changed is not None:
            self._changed.update(rows.tolist())

    def remove(self, key: str) -> bool:
        """Forget a vector; whether there was one."""
        row = self._rows.pop(key, None)
        if row is None:
            return False
        last = len(self._keys) - 1
        moved = self._keys.pop()
        if row != last:  # the last one takes its place
            self._keys[row] = moved
            self._rows[moved] = row
            self._ends[row] = self._ends[last]
            piece, within = self._pieces[row // PIECE], row % PIECE
            source, there = self._pieces[last // PIECE], last % PIECE
            piece.vectors[within] = source.vectors[there]
            piece.heads[within // _BLOCK, :, within % _BLOCK] = source.heads[there // _BLOCK, :, there % _BLOCK]
            if self._changed is not None:
                self._changed.add(row)
        if last % PIECE == 0:
            self._pieces.pop()
        return True

    def nearest(self, query: Vector, *, count: int, floor: float, now: float) -> list[Neighbour]:
        """The `count` nearest that have not ended, with at least `floor` similarity; nearest first, then by key."""
        import numpy as np

        self._sweep(now)
        if not self._keys or count < 1:
            return []
        query = np.ascontiguousarray(query, np.float32)
        size = len(self._keys)
        head = _heads_of(self._axes, query.reshape(1, -1))[0]
        for number, piece in enumerate(self._pieces):
            blocks = min(PIECE, size - number * PIECE + _BLOCK - 1) // _BLOCK
            bounded = self._bounds[number * PIECE : number * PIECE + blocks * _BLOCK]
            np.matmul(head, piece.heads[:blocks], out=bounded.reshape(blocks, _BLOCK))
        bounds = self._bounds[:size]
        # At 0 and below nothing is too far away: similarities end there.
        rows = np.flatnonzero(bounds >= (floor - _SLACK if floor > 0 else -np.inf))
        rows = rows[self._ends[rows] > now]
        found: list[tuple[float, str]] = []
        if len(rows) <= _BATCH:
            batches = [rows]
        else:
            rows = rows[np.argsort(-bounds[rows])]
            batches = [rows[start:end] for start, end in _widening(len(rows))]
        for batch in batches:
            if len(found) == count and max(float(bounds[batch[0]]), 0.0) < -found[-1][0] - _SLACK:
                break  # neither these nor any that follow can be nearer
            near = self._similarities(batch, query)
            good = near >= floor
            if len(found) == count:
                good &= near >= -found[-1][0]
            chosen, near = batch[good], near[good]
            if len(near) > count:  # those as near as the last one that counts are kept: their keys decide
                good = near >= np.partition(near, -count)[-count]
                chosen, near = chosen[good], near[good]
            found += [(-value, self._keys[row]) for row, value in zip(chosen.tolist(), near.tolist(), strict=True)]
            found.sort()
            del found[count:]
        return [Neighbour(key, -value) for value, key in found]

    @property
    def wants_axes(self) -> bool:
        """Whether it has grown so much that `new_axes` are worth finding, and none are being found."""
        return self._changed is None and len(self._keys) >= _GROWN * self._axes_size

    def new_axes(self) -> Axes:
        """Begin to find new axes: have `find` run, wherever, and hand them to `adopt`, or give up with `abandon`."""
        self._changed = set()
        size = len(self._keys)
        rows = [piece.vectors[: size - number * PIECE] for number, piece in enumerate(self._pieces)]
        return Axes(rows, self.dimension)

    def adopt(self, found: Axes) -> None:
        """Go on with axes that were found, whatever has changed since."""
        import numpy as np

        assert found.axes is not None
        assert self._changed is not None
        changed, self._changed = self._changed, None
        self._axes = found.axes
        self._axes_size = len(self._keys)
        for piece, heads in zip(self._pieces, found.heads, strict=False):  # either may have more by now
            known = min(len(heads), len(piece.heads))
            piece.heads[:known] = heads[:known]
        size = len(self._keys)
        rows = np.fromiter((row for row in changed if row < size), np.int64)
        for number, here in self._by_piece(rows):
            piece, within = self._pieces[number], rows[here] - number * PIECE
            _place(piece.heads, within, piece.vectors[within], self._axes)

    def abandon(self) -> None:
        """Go on without the axes that were being found."""
        self._changed = None

    def _row_for(self, key: str) -> int:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = len(self._keys)
            self._keys.append(key)
        return row

    def _make_room(self) -> None:
        """Room for as many as there are keys: twice as much, by pieces."""
        import numpy as np

        size = len(self._keys)
        if size > len(self._ends):
            room = -(-max(64, 2 * len(self._ends), size) // _BLOCK) * _BLOCK
            self._ends = np.concatenate((self._ends, np.empty(room - len(self._ends), np.float64)))
            self._bounds = np.empty(room, np.float32)
        for number in range(max(0, len(self._pieces) - 1), -(-size // PIECE)):
            if number == len(self._pieces):
                self._pieces.append(_Piece(0, self.dimension, len(self._axes) + 1))
            wanted, has = min(PIECE, size - number * PIECE), len(self._pieces[number].vectors)
            if has < wanted:
                room = -(-max(64, 2 * has, wanted) // _BLOCK) * _BLOCK
                self._pieces[number] = self._pieces[number].grown(min(PIECE, room))

    def _by_piece(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, slice | NDArray[np.bool_]]]:
        """The pieces that hold these rows, each with which of them."""
        import numpy as np

        if len(self._pieces) == 1:
            yield 0, slice(None)
            return
        numbers = rows // PIECE
        for number in np.unique(numbers).tolist():
            yield number, numbers == number

    def _similarities(self, rows: NDArray[np.intp], query: Vector) -> NDArray[np.float64]:
        """How near vectors are, in full; in float64, so that the order of a sum does not show."""
        import numpy as np

        near: NDArray[np.float64] = np.empty(len(rows), np.float64)
        wide = query.astype(np.float64)
        for number, here in self._by_piece(rows):
            full = self._pieces[number].vectors[rows[here] - number * PIECE].astype(np.float64)
            near[here] = np.einsum("ij,j->i", full, wide)
        np.minimum(np.maximum(near, 0.0, out=near), 1.0, out=near)
        return np.round(near, DECIMALS, out=near)

    def _sweep(self, now: float) -> None:
        if abs(now - self._swept_at) < _SWEEP_SECONDS:
            return
        import numpy as np

        ended = np.flatnonzero(self._ends[: len(self._keys)] <= now)[:_SWEEP_MOST]
        for key in [self._keys[row] for row in ended.tolist()]:
            self.remove(key)
        if len(ended) < _SWEEP_MOST:
            self._swept_at = now


def _widening(size: int) -> list[tuple[int, int]]:
    """Ranges that cover `size`, each wider than the one before."""
    ranges, start, wide = [], 0, _BATCH
    while start < size:
        ranges.append((start, min(size, start + wide)))
        start += wide
        wide *= _WIDER
    return ranges

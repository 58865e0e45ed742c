"""What embedders and recalls are to the rest of the system.

Invariant: vectors are `float32` arrays of unit length; vectors of two embedders are never compared, since every place
where they are kept is named by the embedder's fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from agentic_flywheel.likeness import Likeness, Neighbour, News

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: One vector of unit length, and several as rows. Strings: numpy is only imported where vectors are made.
Vector: TypeAlias = "NDArray[np.float32]"
Matrix: TypeAlias = "NDArray[np.float32]"


class Embedder(Protocol):
    """Gives texts their vectors. Blocking: it is only ever called in a thread of `search.embedding.Embedding`.

    `fingerprint` (32 hexadecimal digits) covers all that decides a vector: weights, build, pooling. `calibration` names
    a set of floors that were measured for this build ("minilm-fp32", "minilm-int8"), "" where none were.
    """

    name: str
    fingerprint: str
    dimension: int
    calibration: str

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text. Raises `EmbedderError`."""
        ...

    def close(self) -> None:
        """Release what it holds. Safe to call twice."""
        ...


class VectorLog(Protocol):
    """Where the vectors of all processes are kept (implemented by `store.vectors`)."""

    async def news(self, embedder: str, partition: str, after: Sequence[str]) -> News:
        """What came in after `after` (empty: from the beginning). Raises `StoreError`."""
        ...


class VectorEngine(Protocol):
    """A server that finds vectors itself (implemented by `store.vectors` where the server has `FT.*`)."""

    async def has_engine(self) -> bool:
        """Whether this server can. Raises `StoreError` where nobody answers."""
        ...

    async def nearest(
        self, embedder: str, partition: str, vector: bytes, *, dimension: int, count: int
    ) -> list[Neighbour]:
        """The `count` nearest stored questions (vector: float16), nearest first; may miss some (approximate).
        Raises `StoreError`."""
        ...


class Recall(Protocol):
    """Finds the nearest stored questions of one partition; one interface for both places."""

    async def refresh(self, partition: str) -> None:
        """Bring a partition up to date, while the question is still being embedded, say. Raises `StoreError`."""
        ...

    async def nearest(self, partition: str, vector: Vector, *, count: int, floor: float, now: float) -> list[Neighbour]:
        """At most `count` neighbours with at least `floor` similarity that have not ended (`now`: epoch seconds),
        nearest first. Raises `StoreError`."""
        ...

    def note(self, partition: str, likeness: Likeness) -> None:
        """This process stored a question: findable from now on."""
        ...

    def drop(self, partition: str, key: str) -> None:
        """An entry turned out to be gone."""
        ...

    async def aclose(self) -> None:
        """End what is going on. Safe to call twice."""
        ...

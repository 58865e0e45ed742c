"""Any Python callable as an embedder: a list of texts in, one row of numbers for each out.

Invariant: whatever the callable gives leaves here as float32 rows of unit length, all of one length, or as
`EmbedderError`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from agentic_flywheel.errors import EmbedderError, EmbedderGarbled, EmbedderUnavailable, ExtraMissing

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Matrix

#: Texts to rows of numbers: lists, arrays, anything that numpy reads as a matrix.
EmbeddingFunction: TypeAlias = Callable[[list[str]], Any]

#: What the fingerprint of a callable without one of its own rests on.
_PROBE = "Where can I see what was decided about the budget?"
#: Digits of the probe's components that count: results differ in the last ones from run to run.
_PROBE_DIGITS = 3


class CallableEmbedder:
    """A callable as an embedder. Its attribute `fingerprint` (text), where it has one, names its version; else its name
    and what it gives for one sentence do, so that a changed model is noticed.

    >>> letters = CallableEmbedder(lambda texts: [[text.count("a"), text.count("b") + 1] for text in texts])
    >>> letters.dimension, letters.embed(["b", "ab"]).astype(float).round(2).tolist()
    (2, [[0.0, 1.0], [0.45, 0.89]])
    """

    calibration = ""

    def __init__(self, function: EmbeddingFunction, *, name: str = "") -> None:
        self.name = name or f"python:{_name_of(function)}"
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            raise EmbedderUnavailable(
                f"{self.name} is a coroutine function: an embedder runs in a thread of its own, and must be plain",
                suggestions=("Give a plain function; it may block, and may run its own event loop.",),
                embedder=self.name,
            )
        self._function = function
        self.dimension = 0
        probe = self.embed([_PROBE])
        self.dimension = probe.shape[1]
        own = getattr(function, "fingerprint", None)
        told = own if isinstance(own, str) and own else f"{self.name} {(probe[0].round(_PROBE_DIGITS) + 0.0).tolist()}"
        seed = f"{told} {self.dimension}"
        self.fingerprint = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text. Raises `EmbedderError`."""
        try:
            rows = self._function(list(texts))
        except EmbedderError:
            raise
        except Exception as error:
            raise EmbedderUnavailable(
                f"{self.name} failed: {type(error).__name__}: {error}", embedder=self.name
            ) from error
        return unit_rows(rows, len(texts), self.dimension, self.name)

    def close(self) -> None:
        """Call the callable's own `close`, where it has one. Safe to call twice."""
        close = getattr(self._function, "close", None)
        if callable(close):
            close()


def named_embedder(path: str) -> CallableEmbedder:
    """The embedder of `python:MODULE:NAME`. Raises `EmbedderUnavailable` where there is none."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs foreign code: anything may come of it
        raise EmbedderUnavailable(
            f"the embedder python:{path} cannot be used: {type(error).__name__}: {error}",
            suggestions=(
                "Write it as python:MODULE:NAME, importable where this process runs.",
                "Install the package that holds it into this environment, or set PYTHONPATH.",
            ),
            embedder=f"python:{path}",
        ) from error
    if not callable(found):
        raise EmbedderUnavailable(f"the embedder python:{path} is a {type(found).__name__}, and cannot be called")
    return CallableEmbedder(found, name=f"python:{path}")


def unit_rows(rows: Any, count: int, dimension: int, name: str) -> Matrix:
    """`rows` as float32 of unit length, checked: `count` of them, of `dimension` numbers (0: any), finite, not zero.

    Raises `EmbedderGarbled`.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise ExtraMissing(f"the embedder {name}", "semantic") from error
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EmbedderGarbled(f"{name} gave no rows of numbers: {error}", embedder=name) from error
    expected = f"{count} row(s)" + (f" of {dimension} numbers" if dimension else "")
    if matrix.ndim != 2 or len(matrix) != count or not matrix.shape[1] or (dimension and matrix.shape[1] != dimension):
        raise EmbedderGarbled(f"{name} gave an array of shape {matrix.shape}, expected {expected}", embedder=name)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise EmbedderGarbled(f"{name} gave a vector of zeros, or one that is not finite", embedder=name)
    unit: Matrix = (matrix / lengths).astype(np.float32)
    return unit


def _name_of(function: Any) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"

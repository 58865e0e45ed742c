"""Whether an embedder gives what it should: looked at once, when it is loaded.

A library that computes differently, a file that was exchanged, or a service behind which another model stands would
give vectors that look like any others. For the builds whose floors were measured, the cosines of four pairs of
sentences are known; of the others at least what every embedder must do is asked.
"""

from __future__ import annotations

from typing import NamedTuple

from agentic_flywheel.errors import EmbedderGarbled
from agentic_flywheel.search.protocols import Embedder

#: How far a cosine may be from the one that is known. Processors differ by 1e-6 in single precision; in eight bits a
#: number next to a rounding edge falls on its other side now and then. A lost layer makes 0.05 and more.
TOLERANCES = {"minilm-fp32": 2e-3, "minilm-int8": 1e-2}
_UNIT_TOLERANCE = 1e-3
#: Services that answer from several machines are not exact; how far the same sentence may be from itself.
_SAME_TOLERANCE = 1e-2


class Pair(NamedTuple):
    """Two sentences, and their cosine by calibration."""

    one: str
    other: str
    cosines: dict[str, float]


PAIRS = (
    Pair(
        "How do I reset my password?",
        "I forgot my password, how can I set a new one?",
        {"minilm-fp32": 0.8646, "minilm-int8": 0.8667},
    ),
    Pair(
        "When does the library open on Sundays?",
        "What are the Sunday opening hours of the library?",
        {"minilm-fp32": 0.9114, "minilm-int8": 0.9081},
    ),
    Pair(
        "Which train goes from Lyon to Geneva in the morning?",
        "How much salt belongs into a litre of pasta water?",
        {"minilm-fp32": 0.1399, "minilm-int8": 0.1222},
    ),
    Pair(
        "Combien de jours de congé me reste-t-il cette année ?",
        "Combien de jours de vacances ai-je encore ?",
        {"minilm-fp32": 0.6324, "minilm-int8": 0.6212},
    ),
)


class Measured(NamedTuple):
    """One pair: its cosine now, and the one that is known (None where none is)."""

    one: str
    other: str
    cosine: float
    known: float | None


def examine(embedder: Embedder) -> list[Measured]:
    """The cosines of all pairs. Raises `EmbedderGarbled` where something is not as it must be."""
    import numpy as np

    texts = [text for pair in PAIRS for text in (pair.one, pair.other)]
    rows = embedder.embed(texts)
    again = embedder.embed(texts[:1])
    lengths = np.linalg.norm(rows, axis=1)
    if rows.shape != (len(texts), embedder.dimension) or not np.abs(lengths - 1).max() < _UNIT_TOLERANCE:
        raise _failed(embedder, f"its vectors are not {embedder.dimension} numbers of unit length")
    if not float(rows[0] @ again[0]) > 1 - _SAME_TOLERANCE:
        raise _failed(embedder, "the same sentence got another vector the second time")
    if not float(rows[0] @ rows[1]) < 1 - _UNIT_TOLERANCE or not float(rows[0] @ rows[5]) < 1 - _UNIT_TOLERANCE:
        raise _failed(embedder, "different sentences got the same vector")
    found = [
        Measured(pair.one, pair.other, float(rows[at] @ rows[at + 1]), pair.cosines.get(embedder.calibration))
        for at, pair in zip(range(0, len(texts), 2), PAIRS, strict=True)
    ]
    for measured in found:
        if measured.known is not None and not abs(measured.cosine - measured.known) < TOLERANCES[embedder.calibration]:
            raise _failed(
                embedder,
                f"the cosine of {measured.one!r} and {measured.other!r} is {measured.cosine:.4f}, "
                f"and must be {measured.known:.4f}",
            )
    return found


def _failed(embedder: Embedder, what: str) -> EmbedderGarbled:
    return EmbedderGarbled(
        f"{embedder.name} failed its self-test: {what}",
        suggestions=("Fetch the model anew: `afw embedder fetch --anew`.",) if embedder.calibration else (),
        embedder=embedder.name,
    )

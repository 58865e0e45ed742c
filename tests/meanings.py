"""An embedder whose similarities tests can foresee: what counts is the words, small ones for little.

"How do I reset it?" and "How can I reset it?" are some .99 alike, and a word that matters more, or less, shows.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

_SMALL = frozenset(
    "a an the of to in on at for with by from how do does did can could i we you my our is are was please what which "
    "le la les un une des de du je tu nous vous est sont comment puis peux s'il plait".split()
)
DIMENSION = 256


class Words:
    """Counts how often it was asked; `name` decides the fingerprint, so that two of them never meet."""

    calibration = ""
    dimension = DIMENSION

    def __init__(self, name: str = "words") -> None:
        self.name = name
        self.fingerprint = blake2b(name.encode(), digest_size=16).hexdigest()
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        import numpy as np

        self.texts += texts
        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"[\w']+|[^\w\s]", text.lower()):
                place = zlib.crc32(word.encode()) % DIMENSION
                row[place] += 0.1 if word in _SMALL or not word[0].isalnum() else 1.0
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    def close(self) -> None:
        """Nothing to release."""

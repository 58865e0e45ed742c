"""Vectors of the product's own embedder, computed once and kept: every policy and every run is given the same ones.

Invariant: to the product this is the embedder itself: same fingerprint, calibration and values. Vectors are kept by the
digest of their text, in one file per fingerprint; no text is written.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agentic_flywheel.settings import load_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Embedder

_CHUNK = 64


class RememberedVectors:
    """An embedder that looks its vectors up in `folder`, and asks the real one for those that it does not have."""

    at_once = 1

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._own = embedder
        self.name = embedder.name
        self.fingerprint = embedder.fingerprint
        self.dimension = embedder.dimension
        self.calibration = embedder.calibration
        self._file = folder / f"{self.fingerprint}.npz"
        self._known: dict[bytes, NDArray[np.float32]] = {}
        if self._file.is_file():
            with np.load(self._file) as kept:
                self._known = {
                    digest.tobytes(): row for digest, row in zip(kept["digests"], kept["vectors"], strict=True)
                }

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row of unit length per text."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> NDArray[np.float32]:
        digest = _digest(text)
        if digest not in self._known:
            self._known[digest] = self._own.embed([text])[0]
        return self._known[digest]

    def learn(self, texts: Iterable[str], jobs: int) -> None:
        """Compute what is missing, in `jobs` processes, and keep it."""
        missing = [text for text in dict.fromkeys(texts) if _digest(text) not in self._known]
        if not missing:
            return
        chunks = [missing[begin : begin + _CHUNK] for begin in range(0, len(missing), _CHUNK)]
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            for number, (chunk, rows) in enumerate(
                zip(chunks, pool.map(_embed, chunks, itertools.repeat(self.name)), strict=True), 1
            ):
                self._known.update(zip(map(_digest, chunk), rows, strict=True))
                if number % 20 == 0 or number == len(chunks):
                    print(f"  vectors: {min(number * _CHUNK, len(missing)):,} of {len(missing):,}", file=sys.stderr)
        self._save()

    def _save(self) -> None:
        digests = np.frombuffer(b"".join(self._known), np.uint8).reshape(len(self._known), -1)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(f".{os.getpid()}.npz")
        np.savez(beside, digests=digests, vectors=np.stack(list(self._known.values())))
        beside.replace(self._file)

    def close(self) -> None:
        self._own.close()


def real_embedder(name: str) -> Embedder:
    """all-MiniLM-L6-v2 as the product runs it, `name` being minilm or minilm-int8; fetched if this machine has none."""
    from agentic_flywheel.errors import WeightsMissing
    from agentic_flywheel.search.embedders.minilm import open_minilm
    from agentic_flywheel.search.embedders.weights import fetch_minilm

    settings, int8 = load_settings(), name == "minilm-int8"
    try:
        return open_minilm(settings, int8=int8)
    except WeightsMissing:
        print("  the weights of all-MiniLM-L6-v2 are fetched once", file=sys.stderr)
        fetch_minilm(settings, int8=int8)
        return open_minilm(settings, int8=int8)


_embedder: Embedder | None = None


def _embed(texts: list[str], name: str) -> NDArray[np.float32]:
    """In a process of its own. One text at a time, as the product does: a batch may change the last digits."""
    global _embedder  # noqa: PLW0603 (one per process)
    if _embedder is None:
        _embedder = real_embedder(name)
    return np.stack([_embedder.embed([text])[0] for text in texts])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()

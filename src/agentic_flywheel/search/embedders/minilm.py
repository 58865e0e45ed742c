"""Embedders built here: all-MiniLM-L6-v2, whole or in eight bits, and other small BERT models from a local folder.

Invariant: one question goes through the graph at a time, so that its vector never depends on others. Of the table of
words only the rows in use are read, from the file; the system keeps them at hand and counts them to no process.
Figures: docs/performance.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentic_flywheel.errors import EmbedderError, ExtraMissing, WeightsDamaged
from agentic_flywheel.search.embedders.builds import (
    TOKENIZER,
    Build,
    Source,
    cache_folder,
    folder_name,
    make_build,
    read_build,
    sha256,
)
from agentic_flywheel.search.embedders.graph import GRAPH, WORD_SCALES, WORDS, read_architecture
from agentic_flywheel.search.embedders.weights import TOKENIZER_SHA256, WEIGHTS_SHA256, files_in, minilm_folder
from agentic_flywheel.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentic_flywheel.search.protocols import Matrix


class BuiltEmbedder:
    """A model on onnxruntime, from a build in `folder`; `close` lets go of it.

    Raises `ExtraMissing`, `WeightsMissing` and `WeightsDamaged` when it is made.
    """

    #: Questions wait for no longer than one text takes.
    at_once = 1

    def __init__(self, folder: Path, *, name: str, threads: int = 1) -> None:
        build = read_build(folder)
        self.name = name
        self.fingerprint = build.fingerprint
        self.dimension = build.model.hidden
        self.calibration = _calibration(build)
        try:
            self._session = _session(folder / GRAPH, threads)
            self._tokenizer = _tokenizer(folder / TOKENIZER, build.model.max_tokens)
        except ImportError as error:
            raise ExtraMissing(f"the embedder {name}", "semantic") from error
        except Exception as error:  # onnxruntime and tokenizers raise what their C++ and Rust parts raise
            raise WeightsDamaged(f"the model in {folder} cannot be loaded: {error}", folder=str(folder)) from error
        self._words = _Words(folder, self.dimension, int8=build.int8)

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One row of unit length per text. Raises `EmbedderError`."""
        import numpy as np

        if not texts:
            return np.empty((0, self.dimension), np.float32)
        return np.concatenate([self._embed(text) for text in texts])

    def close(self) -> None:
        """Release model and files. Safe to call twice."""
        self._words.close()
        self._session = None

    def _embed(self, text: str) -> Matrix:
        # A lone surrogate, as a shell in another encoding passes it on, is no text for the tokenizer.
        tokens = self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        try:
            vector: Matrix = self._session.run(None, {"words": self._words.rows(tokens)})[0]
        except Exception as error:
            if self._session is None:
                raise EmbedderError("the embedder is closed") from error
            raise EmbedderError(f"{self.name} failed on a text of {len(tokens)} tokens: {error}") from error
        return vector


class _Words:
    """The table of words, read row by row."""

    def __init__(self, folder: Path, dimension: int, *, int8: bool) -> None:
        import numpy as np

        self._kind = np.dtype(np.int8 if int8 else np.float32)
        self._width = dimension * self._kind.itemsize
        self._scales = np.fromfile(folder / WORD_SCALES, np.float32) if int8 else None
        self._file: int | None = os.open(folder / WORDS, os.O_RDONLY | os.O_CLOEXEC)

    def rows(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        import numpy as np

        if self._file is None:
            raise EmbedderError("the embedder is closed")
        packed = b"".join([os.pread(self._file, self._width, token * self._width) for token in tokens])
        rows: NDArray[Any] = np.frombuffer(packed, self._kind).reshape(len(tokens), -1)
        return rows if self._scales is None else rows * self._scales[list(tokens), None]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _session(graph: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Questions differ in length: memory kept for the longest so far would never be given back.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])


def _tokenizer(file: Path, longest: int) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.fspath(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def _calibration(build: Build) -> str:
    """The floors that were measured for this build, "" for none: they hold for these weights and this tokenizer."""
    if (build.weights_sha256, build.tokenizer_sha256) != (WEIGHTS_SHA256, TOKENIZER_SHA256):
        return ""
    return "minilm-int8" if build.int8 else "minilm-fp32"


def open_minilm(settings: Settings, *, int8: bool) -> BuiltEmbedder:
    """all-MiniLM-L6-v2 as it was fetched. Raises `WeightsMissing` where it was not."""
    name = "minilm-int8" if int8 else "minilm"
    threads = int(settings["embedder.threads"])
    return BuiltEmbedder(minilm_folder(settings, int8=int8), name=name, threads=threads)


def open_folder(settings: Settings, model: Path) -> BuiltEmbedder:
    """A model of a local folder, built when it is first used, and again when its weights have changed."""
    weights, tokenizer = files_in(model)
    source = Source(weights, tokenizer, sha256(weights), sha256(tokenizer), str(model))
    architecture = read_architecture(weights.parent)
    seed = f"{source.weights_sha256}{source.tokenizer_sha256}{architecture}"
    name = f"local-{hashlib.blake2b(seed.encode(), digest_size=8).hexdigest()}"
    folder = cache_folder(settings) / folder_name(name, int8=False)
    make_build(folder, lambda: source, lambda: architecture, int8=False)
    return BuiltEmbedder(folder, name=str(model), threads=int(settings["embedder.threads"]))

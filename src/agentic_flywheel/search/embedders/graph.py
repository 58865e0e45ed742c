"""The forward pass of a small BERT as an ONNX graph, made from its safetensors file.

Invariant: the graph takes one question at a time, as the rows of its words, so there is no padding and no mask, and a
question's vector does not depend on what else is asked. The table of words stays outside of the graph (`words.bin`):
it is half of the model, and a question needs a dozen of its rows. Standard operators only, but for the one that
multiplies in eight bits. Only building needs `onnx`.

Equal to torch within 3e-7 per component (tests/integration/test_embedders.py has cosines that torch gave).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agentic_flywheel.errors import EmbedderError, ExtraMissing, WeightsDamaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

#: Changes whenever the graph gives other vectors, or its files are laid out otherwise: it is part of fingerprints.
GRAPH_VERSION = 1
GRAPH, GRAPH_WEIGHTS, WORDS, WORD_SCALES = "graph.onnx", "graph.weights", "words.bin", "words.scales"
#: ONNX operator set (`Gelu` came with 20) and file format, as old as the operators allow.
_OPSET, _IR = 20, 9
_LARGEST_HEADER = 10_000_000


class Architecture(msgspec.Struct, frozen=True):
    """What of a model's configuration decides its graph. `pooling` is "mean" or "cls"."""

    layers: int
    heads: int
    hidden: int
    epsilon: float
    max_tokens: int
    pooling: str


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a model folder as sentence-transformers lays it out. Raises `EmbedderError` for others."""
    config = _json(folder / "config.json")
    unfit = [
        f"{name} {config.get(name, default)!r}"
        for name, default, fits in (
            ("model_type", "", {"bert"}),
            ("hidden_act", "gelu", {"gelu"}),
            ("position_embedding_type", "absolute", {"absolute"}),
        )
        if config.get(name, default) not in fits
    ]
    pooling = "mean"
    if (file := folder / "1_Pooling" / "config.json").is_file():
        modes = {name for name, on in _json(file).items() if name.startswith("pooling_mode_") and on}
        pooling = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get("".join(modes), "")
        unfit += [] if pooling else [f"pooling {', '.join(sorted(modes)) or 'unknown'}"]
    if (file := folder / "modules.json").is_file():
        kinds = {str(module.get("type", "")).rpartition(".")[2] for module in _json(file)}
        unfit += [f"module {kind}" for kind in sorted(kinds - {"Transformer", "Pooling", "Normalize"})]
    if unfit:
        raise EmbedderError(
            f"{folder} holds a model that cannot be built here ({'; '.join(unfit)}): supported are BERT models with "
            "gelu, absolute positions, and mean or first-token pooling",
            suggestions=(
                "Give its vectors by a Python callable (python:MODULE:NAME) or by an OpenAI-compatible endpoint.",
            ),
            folder=str(folder),
        )
    longest = int(config["max_position_embeddings"])
    if (file := folder / "sentence_bert_config.json").is_file():
        longest = min(longest, int(_json(file).get("max_seq_length") or longest))
    return Architecture(
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        hidden=int(config["hidden_size"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        max_tokens=longest,
        pooling=pooling,
    )


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsDamaged(f"cannot read {file}: {error}", file=str(file)) from error


def read_tensors(file: Path) -> dict[str, Array]:
    """The tensors of a safetensors file as float32, mapped into memory where they are that already.

    Raises `WeightsDamaged` for anything that is no such file. Format: 8 bytes little-endian length of a JSON header,
    the header, the tensors.
    """
    import numpy as np

    try:
        raw = np.memmap(file, dtype=np.uint8, mode="r")
        (length,) = struct.unpack("<Q", raw[:8].tobytes())
        header = json.loads(raw[8 : 8 + min(length, _LARGEST_HEADER)].tobytes())
        kinds = {"F32": "<f4", "F16": "<f2"}
        return {
            name.removeprefix("bert."): raw[8 + length + begin : 8 + length + end]
            .view(kinds[told["dtype"]])
            .reshape(told["shape"])
            .astype(np.float32, copy=False)
            for name, told in header.items()
            if name != "__metadata__" and told["dtype"] in kinds
            for begin, end in [told["data_offsets"]]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsDamaged(f"{file} is no safetensors file that can be read: {error}", file=str(file)) from error


def build(tensors: Mapping[str, Array], model: Architecture, folder: Path, *, int8: bool) -> None:
    """Write graph, its weights and the table of words into `folder`. Raises `ExtraMissing`, `WeightsDamaged`."""
    try:
        import onnx
    except ImportError as error:
        raise ExtraMissing("building an embedder", "semantic") from error
    try:
        graph = _Graph(tensors, model, int8=int8).made()
        words = tensors["embeddings.word_embeddings.weight"]
        fits = words.shape[1] == model.hidden and model.hidden % model.heads == 0
    except (KeyError, ValueError) as error:
        raise WeightsDamaged(f"the weights are not what their configuration describes: {error}") from error
    if not fits:
        raise WeightsDamaged(
            f"the weights are not what their configuration describes: {words.shape[1]} numbers for each word, and "
            f"{model.heads} heads for {model.hidden}"
        )
    onnx.save(
        graph,
        folder / GRAPH,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=GRAPH_WEIGHTS,
        size_threshold=1024,
    )
    if int8:
        rows, scales = _in_eight_bits(words.T, offset=0)
        (folder / WORDS).write_bytes(rows.T.tobytes())
        (folder / WORD_SCALES).write_bytes(scales.tobytes())
    else:
        (folder / WORDS).write_bytes(words.tobytes())


def _in_eight_bits(matrix: Array, *, offset: int) -> tuple[Array, NDArray[np.float32]]:
    """`matrix` as 8-bit numbers around `offset` (0: signed, 128: unsigned), and the scale of each column."""
    import numpy as np

    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    rounded = np.clip(np.round(matrix / scales), -127, 127) + offset
    return rounded.astype(np.uint8 if offset else np.int8), scales.astype(np.float32)


class _Graph:
    """The graph while it is put together."""

    def __init__(self, tensors: Mapping[str, Array], model: Architecture, *, int8: bool) -> None:
        self._tensors = tensors
        self._model = model
        self._int8 = int8
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}

    def made(self) -> Any:
        """The whole model: rows of words in, one vector of unit length out."""
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        model = self._model
        self._constant("zero", np.array([0]))
        self._constant("one", np.array([1]))
        self._constant("heads", np.array([0, 3, model.heads, model.hidden // model.heads]))
        self._constant("joined", np.array([0, model.hidden]))
        rows = self._embedded()
        for number in range(model.layers):
            rows = self._layer(f"encoder.layer.{number}.", rows)
        if model.pooling == "mean":
            pooled = self._node("ReduceMean", [rows, "zero"], "pooled", keepdims=1)
        else:
            pooled = self._node("Slice", [rows, "zero", "one"], "pooled")
        self._node("LpNormalization", [pooled], "vector", axis=-1, p=2)
        kind = TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "embedder",
            [helper.make_tensor_value_info("words", kind, ["tokens", model.hidden])],
            [helper.make_tensor_value_info("vector", kind, [1, model.hidden])],
            [numpy_helper.from_array(value, name) for name, value in self._constants.items()],
        )
        sets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=sets, ir_version=_IR)

    def _embedded(self) -> str:
        # Questions are one segment, so its embedding can be added to the positions once and for all.
        positions = self._tensors["embeddings.position_embeddings.weight"][: self._model.max_tokens]
        self._constant("positions", positions + self._tensors["embeddings.token_type_embeddings.weight"][0])
        shape = self._node("Shape", ["words"], "shape")
        count = self._node("Slice", [shape, "zero", "one"], "count")
        places = self._node("Slice", ["positions", "zero", count], "places")
        return self._normalised("embeddings.LayerNorm", self._node("Add", ["words", places], "placed"))

    def _layer(self, name: str, rows: str) -> str:
        import numpy as np

        own = f"{name}attention.self."
        weights = [self._tensors[f"{own}{part}.weight"].T for part in ("query", "key", "value")]
        biases = [self._tensors[f"{own}{part}.bias"] for part in ("query", "key", "value")]
        scale = np.float32(1 / np.sqrt(self._model.hidden // self._model.heads))
        weights[0], biases[0] = weights[0] * scale, biases[0] * scale
        both = self._product(f"{name}qkv", rows, np.concatenate(weights, axis=1), np.concatenate(biases))
        apart = self._node("Reshape", [both, "heads"], f"{name}apart")
        turned = self._node("Transpose", [apart], f"{name}turned", perm=[1, 2, 0, 3])
        parts = [f"{name}{part}" for part in ("q", "k", "v")]
        self._node("Split", [turned], *parts, axis=0, num_outputs=3)
        query, key, value = (self._node("Squeeze", [part, "zero"], f"{part}.flat") for part in parts)
        key = self._node("Transpose", [key], f"{name}k.turned", perm=[0, 2, 1])
        scores = self._node("MatMul", [query, key], f"{name}scores")
        shares = self._node("Softmax", [scores], f"{name}shares", axis=-1)
        seen = self._node("MatMul", [shares, value], f"{name}seen")
        seen = self._node("Transpose", [seen], f"{name}seen.turned", perm=[1, 0, 2])
        seen = self._node("Reshape", [seen, "joined"], f"{name}seen.joined")
        rows = self._added(f"{name}attention.output", seen, rows)
        wide = self._dense(f"{name}intermediate.dense", rows)
        return self._added(f"{name}output", self._node("Gelu", [wide], f"{name}gelu"), rows)

    def _added(self, name: str, rows: str, before: str) -> str:
        """A dense layer, what was there before added, normalised."""
        both = self._node("Add", [self._dense(f"{name}.dense", rows), before], f"{name}.added")
        return self._normalised(f"{name}.LayerNorm", both)

    def _dense(self, name: str, rows: str) -> str:
        return self._product(name, rows, self._tensors[f"{name}.weight"].T, self._tensors[f"{name}.bias"])

    def _product(self, name: str, rows: str, weight: Array, bias: Array) -> str:
        self._constant(f"{name}.bias", bias)
        if not self._int8:
            self._constant(f"{name}.weight", weight)
            product = self._node("MatMul", [rows, f"{name}.weight"], f"{name}.product")
            return self._node("Add", [product, f"{name}.bias"], f"{name}.out")
        import numpy as np

        # Unsigned weights: signed ones overflow 16 bits on processors without VNNI, which then give other vectors.
        rounded, scales = _in_eight_bits(weight, offset=128)
        self._constant(f"{name}.weight", rounded)
        self._constant(f"{name}.scales", scales)
        self._constant(f"{name}.middle", np.full(len(scales), 128, np.uint8))
        parts = [rows, *(f"{name}.{part}" for part in ("weight", "scales", "middle", "bias"))]
        return self._node("DynamicQuantizeMatMul", parts, f"{name}.out", domain="com.microsoft")

    def _normalised(self, name: str, rows: str) -> str:
        for part in ("weight", "bias"):
            self._constant(f"{name}.{part}", self._tensors[f"{name}.{part}"])
        parts = [rows, f"{name}.weight", f"{name}.bias"]
        return self._node("LayerNormalization", parts, f"{name}.out", axis=-1, epsilon=self._model.epsilon)

    def _constant(self, name: str, value: Array) -> None:
        import numpy as np

        self._constants[name] = np.ascontiguousarray(value)

    def _node(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

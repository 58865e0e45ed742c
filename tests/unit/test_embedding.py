"""The front of an embedder: who waits, who shares, who is refused, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentic_flywheel.errors import (
    EmbedderBusy,
    EmbedderError,
    EmbedderGarbled,
    EmbedderUnavailable,
    SettingsError,
    WeightsMissing,
)
from agentic_flywheel.search.embedders.named import CallableEmbedder
from agentic_flywheel.search.embedding import Embedding, embedder_of
from agentic_flywheel.search.selftest import PAIRS, examine
from agentic_flywheel.settings import Settings, load_settings

pytestmark = pytest.mark.anyio

LONG = 20.0  # seconds; no test waits so long unless it fails


class Letters:
    """An embedder that counts letters. `gate` holds it up; texts in `spoilt` make it fail."""

    name = "letters"
    fingerprint = "0" * 32
    dimension = 27
    calibration = ""

    def __init__(self, *, at_once: int = 1) -> None:
        self.at_once = at_once
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.asked: list[list[str]] = []
        self.spoilt: dict[str, Exception] = {}
        self.closed = threading.Event()

    def embed(self, texts: Sequence[str]) -> Any:
        own = [text for text in texts if not any(text in pair[:2] for pair in PAIRS)]
        if own:
            self.reached.set()
            assert self.gate.wait(LONG)
            self.asked.append(own)
        for text in texts:
            if text in self.spoilt:
                raise self.spoilt[text]
        rows = np.array([[text.casefold().count(chr(97 + n)) for n in range(26)] + [1] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def close(self) -> None:
        self.closed.set()


def settings(**arguments: Any) -> Settings:
    named = {name.replace("__", "."): value for name, value in arguments.items()}
    return load_settings(named, environ={}, directory=Path("/"))


@pytest.fixture(autouse=True)
def nothing_is_left_unheard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception of a future that nobody asked for is logged when the future goes."""
    yield
    gc.collect()
    assert caplog.text == ""


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LONG)


async def test_a_text_gets_its_vector_and_the_next_time_the_same_one() -> None:
    letters = Letters()
    embedding = Embedding(lambda: letters)
    vector = await embedding.embed("hello")
    assert vector.shape == (27,)
    assert vector.argmax() == 11  # l
    assert await embedding.embed("hello") is vector
    assert letters.asked == [["hello"]]
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1
    assert (embedding.state, embedding.why, embedding.embedder.name) == ("ready", "", "letters")
    await embedding.aclose()
    assert letters.closed.is_set()


async def test_only_so_many_vectors_are_kept_the_latest_used() -> None:
    letters = Letters()
    embedding = Embedding(lambda: letters, kept=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedding.embed(text)
    assert letters.asked == [["a"], ["b"], ["c"], ["b"]]
    await embedding.aclose()


async def test_those_who_want_the_same_vector_share_it_and_one_may_give_up() -> None:
    letters = Letters()
    letters.gate.clear()
    embedding = Embedding(lambda: letters)
    assert await embedding.ready(LONG)
    impatient, patient, other = (asyncio.create_task(embedding.embed(text)) for text in ("same", "same", "other"))
    await reached(letters.reached)
    impatient.cancel()
    letters.gate.set()
    assert (await patient).shape == (27,)
    assert (await other).shape == (27,)
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert letters.asked == [["same"], ["other"]]
    await embedding.aclose()


async def test_a_vector_that_everybody_gave_up_on_is_kept_for_the_next() -> None:
    letters = Letters()
    letters.gate.clear()
    embedding = Embedding(lambda: letters)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await embedding.embed("slow")
    letters.gate.set()
    await embedding.embed("slow")
    assert letters.asked == [["slow"]]
    await embedding.aclose()


async def test_too_many_are_refused_at_once_and_bulk_is_not_counted() -> None:
    letters = Letters()
    letters.gate.clear()
    embedding = Embedding(lambda: letters, most_waiting=2)
    bulk = asyncio.create_task(embedding.embed_many([f"bulk {n}" for n in range(4)]))
    await reached(letters.reached)
    waiting = [asyncio.create_task(embedding.embed(text)) for text in ("one", "two")]
    await asyncio.sleep(0)
    with pytest.raises(EmbedderBusy):
        await embedding.embed("three")
    joined = asyncio.create_task(embedding.embed("one"))  # no further work
    letters.gate.set()
    assert len(await asyncio.gather(*waiting, joined)) == 3
    assert len(await bulk) == 4
    assert (await embedding.embed("three")).shape == (27,)
    await embedding.aclose()


async def test_questions_go_before_bulk() -> None:
    letters = Letters()
    letters.gate.clear()
    embedding = Embedding(lambda: letters)
    bulk = asyncio.create_task(embedding.embed_many(["bulk 0", "bulk 1", "bulk 2"]))
    await reached(letters.reached)
    question = asyncio.create_task(embedding.embed("question"))
    await asyncio.sleep(0)
    letters.gate.set()
    await asyncio.gather(question, bulk)
    assert letters.asked == [["bulk 0"], ["question"], ["bulk 1"], ["bulk 2"]]
    assert [vector.tolist() for vector in await bulk] == [
        (await embedding.embed(f"bulk {n}")).tolist() for n in range(3)
    ]
    await embedding.aclose()


async def test_what_waits_together_is_asked_together_and_one_bad_text_spoils_only_its_own() -> None:
    letters = Letters(at_once=8)
    letters.spoilt["bad"] = EmbedderGarbled("no such text")
    letters.gate.clear()
    embedding = Embedding(lambda: letters)
    first = asyncio.create_task(embedding.embed("first"))
    await reached(letters.reached)
    rest = [asyncio.create_task(embedding.embed(text)) for text in ("x", "bad", "y")]
    await asyncio.sleep(0)
    letters.gate.set()
    await first
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(item).__name__ for item in found] == ["ndarray", "EmbedderGarbled", "ndarray"]
    assert letters.asked == [["first"], ["x", "bad", "y"], ["x"], ["bad"], ["y"]]
    letters.spoilt["down"] = EmbedderUnavailable("the service is away", retry_after_seconds=5)
    found = await asyncio.gather(*(embedding.embed(text) for text in ("p", "down", "q")), return_exceptions=True)
    assert isinstance(found[1], EmbedderUnavailable)
    await embedding.aclose()


async def test_an_error_that_is_not_ours_is_mapped() -> None:
    letters = Letters()
    letters.spoilt["odd"] = ZeroDivisionError("oh")
    embedding = Embedding(lambda: letters)
    with pytest.raises(EmbedderUnavailable, match="ZeroDivisionError: oh"):
        await embedding.embed("odd")
    assert embedding.state == "ready"
    assert (await embedding.embed("even")).shape == (27,)
    await embedding.aclose()


async def test_without_an_embedder_nothing_is_loaded_and_it_says_why() -> None:
    embedding = Embedding.off("there is none")
    assert not await embedding.ready(LONG)
    assert (embedding.state, embedding.why) == ("off", "there is none")
    with pytest.raises(EmbedderUnavailable, match="there is none"):
        await embedding.embed("hello")
    with pytest.raises(EmbedderUnavailable):
        _ = embedding.embedder
    await embedding.aclose()


async def test_patience_with_a_load_ends_and_the_load_goes_on() -> None:
    gate = threading.Event()

    def make() -> Letters:
        assert gate.wait(LONG)
        return Letters()

    embedding = Embedding(make)
    assert embedding.state == "loading"
    assert not await embedding.ready(0.0)
    assert not await embedding.ready(0.01)
    assert (embedding.state, embedding.why) == ("loading", "the embedder is being loaded")
    gate.set()
    assert await embedding.ready(LONG)
    await embedding.aclose()


async def test_a_load_that_failed_is_told_to_all_and_not_repeated() -> None:
    made: list[int] = []

    def make() -> Letters:
        made.append(1)
        raise WeightsMissing("no model in /nowhere")

    embedding = Embedding(make)
    found = await asyncio.gather(*(embedding.embed(text) for text in "ab"), return_exceptions=True)
    assert [type(error) for error in found] == [EmbedderUnavailable] * 2
    assert "Fetch them: `afw embedder fetch`." in found[0].suggestions  # type: ignore[union-attr]
    assert (embedding.state, embedding.why) == ("failed", "no model in /nowhere")
    assert not await embedding.ready(LONG)
    with pytest.raises(EmbedderUnavailable):
        await embedding.embed("c")
    assert made == [1]
    await embedding.aclose()


async def test_a_failure_that_may_pass_is_tried_again_but_not_at_once() -> None:
    made: list[int] = []
    pause = 3600.0

    def make() -> Letters:
        made.append(1)
        if len(made) < 3:
            raise EmbedderUnavailable("the service is away", retry_after_seconds=pause)
        return Letters()

    embedding = Embedding(make)
    assert not await embedding.ready(LONG)
    assert not await embedding.ready(LONG)
    assert made == [1]
    await embedding.aclose()
    pause = 1e-9
    embedding = Embedding(make)
    assert not await embedding.ready(LONG)
    assert await embedding.ready(LONG)
    assert made == [1, 1, 1]
    await embedding.aclose()


async def test_closing_waits_for_no_load_and_the_load_is_put_away() -> None:
    gate, letters = threading.Event(), Letters()

    def make() -> Letters:
        assert gate.wait(LONG)
        return letters

    embedding = Embedding(make)
    waiting = asyncio.create_task(embedding.embed("hello"))
    await asyncio.sleep(0)
    async with asyncio.timeout(LONG / 2):
        await embedding.aclose()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await waiting
    await embedding.aclose()
    with pytest.raises(EmbedderUnavailable, match="closed"):
        await embedding.embed("hello")
    gate.set()
    await reached(letters.closed)
    assert embedding.state == "off"


async def test_closing_waits_for_no_service() -> None:
    letters = Letters()
    letters.gate.clear()
    embedding = Embedding(lambda: letters)
    waiting = asyncio.create_task(embedding.embed("hello"))
    await reached(letters.reached)
    async with asyncio.timeout(LONG / 2):
        await embedding.aclose()
    with pytest.raises(EmbedderError):
        await waiting
    letters.gate.set()
    await reached(letters.closed)


def test_a_loop_that_is_gone_is_told_nothing() -> None:
    letters = Letters()
    letters.gate.clear()

    async def leave() -> None:
        embedding = Embedding(lambda: letters)
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        await embedding.embed("hello")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())
    letters.gate.set()
    assert letters.closed.wait(LONG)


async def test_an_embedder_that_was_given_is_not_closed() -> None:
    letters = Letters()
    embedding = embedder_of(settings(), letters)
    assert embedding.wanted == "letters"
    await embedding.embed("hello")
    assert embedding.embedder is letters
    await embedding.aclose()
    assert not letters.closed.is_set()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows * 2, "unit length"),
        (lambda rows: rows[:, :5], "unit length"),
        (lambda rows: rows * 0 + 27**-0.5, "different sentences"),
    ],
)
async def test_an_embedder_that_fails_its_self_test_is_not_used(spoil: Any, told: str) -> None:
    class Spoilt(Letters):
        def embed(self, texts: Sequence[str]) -> Any:
            return spoil(super().embed(texts))

    spoilt = Spoilt()
    embedding = Embedding(lambda: spoilt)
    assert not await embedding.ready(LONG)
    assert embedding.state == "failed"
    assert "letters failed its self-test" in embedding.why
    assert told in embedding.why
    assert spoilt.closed.is_set()
    await embedding.aclose()


def test_the_self_test_notices_other_vectors_from_time_to_time() -> None:
    class Restless(Letters):
        def embed(self, texts: Sequence[str]) -> Any:
            return np.roll(super().embed(texts), len(texts), axis=1)

    with pytest.raises(EmbedderGarbled, match="the second time"):
        examine(Restless())


def test_the_self_test_notices_another_model_under_a_known_name() -> None:
    class Pretender(Letters):
        calibration = "minilm-fp32"

    with pytest.raises(EmbedderGarbled, match=r"cosine .* must be") as caught:
        examine(Pretender())
    assert "Fetch the model anew: `afw embedder fetch --anew`." in caught.value.suggestions


# Callables


def test_rows_of_a_callable_are_brought_to_unit_length() -> None:
    embedder = CallableEmbedder(lambda texts: [[3.0, 4.0]] * len(texts))
    assert embedder.embed(["a", "b"]).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * 2
    assert embedder.embed(["a"]).dtype == np.float32
    assert embedder.dimension == 2


@pytest.mark.parametrize(
    "rows",
    [
        [[0.0, 0.0]],
        [[float("nan"), 1.0]],
        [[float("inf"), 1.0]],
        [1.0, 2.0],
        [[1.0], [2.0]],
        [[]],
        [["x"]],
        None,
        [[1], []],
    ],
)
def test_what_is_no_vector_is_refused(rows: Any) -> None:
    with pytest.raises(EmbedderGarbled):
        CallableEmbedder(lambda texts: rows)


def test_another_dimension_than_before_is_refused() -> None:
    embedder = CallableEmbedder(lambda texts: [[1.0] * (2 + ("longer" in texts))])
    assert embedder.embed(["short"]).shape == (1, 2)
    with pytest.raises(EmbedderGarbled, match="expected 1 row"):
        embedder.embed(["longer"])


def test_a_callable_that_fails_is_unavailable_and_a_coroutine_function_refused() -> None:
    def failing(texts: list[str]) -> Any:
        raise OSError("no disk")

    async def coroutine(texts: list[str]) -> Any:
        return [[1.0]]

    with pytest.raises(EmbedderUnavailable, match="OSError: no disk"):
        CallableEmbedder(failing)
    with pytest.raises(EmbedderUnavailable, match="coroutine"):
        CallableEmbedder(coroutine)


def test_a_callable_is_known_by_what_it_gives_or_by_its_own_fingerprint() -> None:
    class Model:
        def __init__(self, shift: float, fingerprint: str | None = None) -> None:
            self.shift = shift
            if fingerprint:
                self.fingerprint = fingerprint

        def __call__(self, texts: list[str]) -> Any:
            return [[1.0, self.shift] for _ in texts]

    def fingerprint(*arguments: Any) -> str:
        return CallableEmbedder(Model(*arguments)).fingerprint

    assert fingerprint(1.0) == fingerprint(1.0) == fingerprint(1.0 + 1e-7)
    assert fingerprint(1.0) != fingerprint(2.0)
    assert fingerprint(1.0, "v1") == fingerprint(2.0, "v1") != fingerprint(1.0, "v2")
    assert len(fingerprint(1.0)) == 32


# Names


async def named(model: str) -> Embedding:
    return embedder_of(settings(embedder__model=model))


async def test_a_callable_is_found_by_its_name() -> None:
    embedding = await named("python:tests_no_such_module:embed")
    assert not await embedding.ready(LONG)
    assert "ModuleNotFoundError" in embedding.why
    await embedding.aclose()
    embedding = await named("python:string:digits")
    assert not await embedding.ready(LONG)
    assert "cannot be called" in embedding.why
    await embedding.aclose()


async def test_off_is_off_and_a_name_that_means_nothing_is_refused() -> None:
    assert (await named("off")).state == "off"
    with pytest.raises(SettingsError, match="did you mean 'minilm'"):
        await named("minlm")


async def test_auto_without_a_model_says_how_to_get_it(tmp_path: Path) -> None:
    embedding = embedder_of(settings(embedder__cache_dir=str(tmp_path)))
    assert embedding.state == "off"
    assert "`afw embedder fetch`" in embedding.why
    wanted = embedder_of(settings(embedder__cache_dir=str(tmp_path), embedder__model="minilm"))
    assert not await wanted.ready(LONG)
    assert wanted.state == "failed"
    assert str(tmp_path) in wanted.why
    await wanted.aclose()

"""The embedder as questions use it: loaded when it is first needed, in a thread of its own, never on the event loop.

Invariant: no question waits for an embedder longer than it wants to, and none is kept from its answer by one. Whoever
gives up does not take the vector from others who wait for the same text. At most `most_waiting` questions wait; more
are refused at once. Closing never waits for a load or a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib.util
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agentic_flywheel.errors import (
    EmbedderBusy,
    EmbedderError,
    EmbedderUnavailable,
    ExtraMissing,
    FlywheelError,
    SettingsError,
)
from agentic_flywheel.search.protocols import Embedder
from agentic_flywheel.search.worker import BULK, QUESTION, EmbedderThread, at_once
from agentic_flywheel.settings import Settings

if TYPE_CHECKING:
    from agentic_flywheel.search.protocols import Vector

State: TypeAlias = Literal["off", "loading", "ready", "failed"]

#: Vectors at hand, by text: 3 MB at 384 numbers each.
KEPT = 2000
#: What one processor embeds in half a second.
MOST_WAITING = 64
#: How long a closing waits for the thread to put its things away.
_CLOSE_SECONDS = 1.0


class Embedding:
    """The asynchronous front of one embedder; belongs to one event loop, and is closed by whoever made it.

    `make` loads the embedder, in the thread; it may raise any `FlywheelError`. `missing` says why there is none to load
    ("" if there is); it is asked once, when somebody first wants to know. `wanted` names the embedder for people
    before it is loaded. `closes` says whether it is ours to close, `exit_seconds` how long the end of the process waits
    for a load under way: an interpreter that ends under a library at work in C++ ends with an abort.
    """

    def __init__(
        self,
        make: Callable[[], Embedder],
        *,
        wanted: str = "",
        missing: Callable[[], str] = str,
        closes: bool = True,
        exit_seconds: float = 5.0,
        kept: int = KEPT,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.wanted = wanted
        self._make = make
        self._missing: Callable[[], str] | None = missing
        self._closes = closes
        self._exit_seconds = exit_seconds
        self._most_kept = kept
        self._most_waiting = most_waiting
        self._state: State = "loading"
        self._why = "the embedder is not loaded yet"
        self._failure: FlywheelError | None = None
        self._retry_at = 0.0
        self._embedder: Embedder | None = None
        self._worker: EmbedderThread | None = None
        self._settled = asyncio.Event()
        self._kept: OrderedDict[str, Vector] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Vector]] = {}
        self._questions = 0

    @classmethod
    def off(cls, why: str, *, wanted: str = "off") -> Embedding:
        """No embedder, and why."""

        def nothing() -> Embedder:
            raise EmbedderUnavailable(why)

        return cls(nothing, wanted=wanted, missing=lambda: why)

    @property
    def state(self) -> State:
        """`off`: there is none. `loading`: not there yet, asked for or not. `ready`. `failed`: `why` says what of."""
        self._look()
        return self._state

    @property
    def why(self) -> str:
        """Why there is no embedder now, as a sentence; "" when it is ready."""
        self._look()
        return self._why

    @property
    def failure(self) -> FlywheelError | None:
        """What loading failed with, if it did."""
        return self._failure

    @property
    def embedder(self) -> Embedder:
        """The embedder itself, for its name, fingerprint and dimension. Raises `EmbedderUnavailable` unless ready."""
        if self._embedder is None:
            raise EmbedderUnavailable(self.why)
        return self._embedder

    def load_now(self) -> Embedder:
        """The embedder, loaded while the caller waits; whoever asks closes it. Raises `FlywheelError`."""
        if self.state == "off":
            raise EmbedderUnavailable(self.why)
        return self._make()

    def start(self) -> None:
        """Begin to load, unless that has begun. After a failure that may pass, and not too soon, try it again."""
        self._look()
        if self._state == "failed" and self._failure is not None and self._failure.retry_after_seconds:
            if time.monotonic() < self._retry_at:
                return
            self._state, self._worker, self._failure = "loading", None, None
            self._settled.clear()
        if self._state != "loading" or self._worker is not None:
            return
        self._why = "the embedder is being loaded"
        self._worker = EmbedderThread(self, asyncio.get_running_loop(), self._make, self._closes, self._exit_seconds)
        self._worker.start()

    async def ready(self, patience: float) -> bool:
        """Whether the embedder is there, waited for at most `patience` seconds; begins to load it if need be."""
        self.start()
        if self._state == "loading" and patience > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._settled.wait()
        return self._state == "ready"

    async def embed(self, text: str) -> Vector:
        """The text's vector, from memory if it was asked for lately; not to be written to.

        Waits for a load under way. Raises `EmbedderError`: `EmbedderBusy` where too many questions wait.
        """
        return await self._vector(text, QUESTION)

    async def embed_many(self, texts: Sequence[str]) -> list[Vector]:
        """The vectors of many texts, in their order; questions that are asked meanwhile go first.

        Raises `EmbedderError`.
        """
        vectors: list[Vector] = []
        count = 2 * at_once(self._embedder)  # one part is computed while the next one waits
        for start in range(0, len(texts), count):
            part = [self._vector(text, BULK) for text in texts[start : start + count]]
            vectors += await asyncio.gather(*part)
        return vectors

    async def aclose(self) -> None:
        """Give up what waits, and close the embedder. Safe to call twice."""
        self._missing = None
        was_ready = self._state == "ready"
        self._state, self._why, self._embedder = "off", "the embedder is closed", None
        self._kept.clear()
        self._settled.set()
        self._fail_waiting(EmbedderUnavailable(self._why))
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
            if was_ready:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await worker.ended.wait()

    async def _vector(self, text: str, rank: int) -> Vector:
        self.start()
        if (kept := self._kept.get(text)) is not None:
            self._kept.move_to_end(text)
            return kept
        if self._worker is None or self._state in {"off", "failed"}:
            raise self._refusal()
        future = self._waiting.get(text)
        if future is None:
            if rank == QUESTION and self._questions >= self._most_waiting:
                raise EmbedderBusy(f"{self._questions} questions wait for their vectors already")
            self._questions += rank == QUESTION
            future = self._waiting[text] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_retrieve)
            self._worker.put(rank, text)
        return await asyncio.shield(future)

    def _look(self) -> None:
        if self._missing is not None:
            missing, self._missing = self._missing, None
            if why := missing():
                self._state, self._why = "off", why
                self._settled.set()

    def _refusal(self) -> EmbedderError:
        failure = self._failure
        if failure is None:
            return EmbedderUnavailable(self._why)
        return EmbedderUnavailable(self._why, suggestions=failure.suggestions, **failure.details)

    # What the thread says, on the event loop.

    def loaded(self, worker: EmbedderThread, embedder: Embedder) -> None:
        """The thread has an embedder that passed its self-test."""
        if worker is self._worker:
            self._state, self._why, self._embedder = "ready", "", embedder
            self._settled.set()

    def failed(self, worker: EmbedderThread, error: FlywheelError) -> None:
        """The thread could not load the embedder, and has ended."""
        if worker is self._worker:
            self._state, self._why, self._failure = "failed", error.message, error
            self._retry_at = time.monotonic() + error.retry_after_seconds
            self._settled.set()
            self._fail_waiting(self._refusal())

    def embedded(self, worker: EmbedderThread, rank: int, text: str, outcome: Vector | EmbedderError) -> None:
        """The thread has a text's vector, or failed to get it."""
        if worker is not self._worker:
            return
        self._questions -= rank == QUESTION
        future = self._waiting.pop(text)
        if isinstance(outcome, EmbedderError):
            _fail(future, outcome)
            return
        self._kept[text] = outcome
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        future.set_result(outcome)

    def _fail_waiting(self, error: EmbedderError) -> None:
        waiting, self._waiting, self._questions = self._waiting, {}, 0
        for future in waiting.values():
            _fail(future, error)


def _fail(future: asyncio.Future[Vector], error: EmbedderError) -> None:
    """One error for each who waits: a raised one collects the traces of all."""
    copy = type(error)(
        error.message, suggestions=error.suggestions, retry_after_seconds=error.retry_after_seconds, **error.details
    )
    copy.__cause__ = error
    future.set_exception(copy)


def _retrieve(future: asyncio.Future[Vector]) -> None:
    """Whoever asked may have given up: an error that nobody waits for any more is no news."""
    if not future.cancelled():
        future.exception()


def embedder_of(settings: Settings, given: Embedder | Callable[..., Any] | None = None) -> Embedding:
    """The embedder that `given` or the setting `embedder.model` names; nothing is loaded or looked at yet.

    Raises `SettingsError` for a name that means nothing.
    """
    if given is not None:
        return _given(given)
    named = settings.text("embedder.model").strip()
    kind, _, rest = named.partition(":")
    if named == "off":
        return Embedding.off("the embedder is switched off (embedder.model)")
    if named in {"auto", "minilm", "minilm-int8"}:
        return _minilm(settings, named)
    if kind == "openai" and rest:
        return Embedding(lambda: _endpoint(settings, rest), wanted=named, exit_seconds=0.0)
    if kind == "python" and rest:
        return Embedding(lambda: _named(rest), wanted=named)
    folder = (settings.directory / Path(named).expanduser()).resolve()
    if os.sep in named or folder.is_dir():
        return Embedding(lambda: _folder(settings, folder), wanted=named)
    known = ("auto", "off", "minilm", "minilm-int8", "openai:MODEL", "python:MODULE:NAME")
    near = difflib.get_close_matches(named, known, n=1, cutoff=0.5)
    raise SettingsError(
        f"setting 'embedder.model' ({settings.origin('embedder.model')}): {named!r} is none of {', '.join(known)}, "
        "nor a folder" + (f"; did you mean {near[0]!r}?" if near else ""),
        setting="embedder.model",
        found=named,
    )


def extra_missing() -> str:
    """What of the extra `semantic` cannot be imported here, "" if nothing is missing."""
    needed = ("numpy", "onnxruntime", "tokenizers")
    return ", ".join(name for name in needed if importlib.util.find_spec(name) is None)


def _given(given: Any) -> Embedding:
    if hasattr(given, "embed") and hasattr(given, "fingerprint"):
        embedder: Embedder = given
        return Embedding(lambda: embedder, wanted=embedder.name, closes=False)

    def make() -> Embedder:
        from agentic_flywheel.search.embedders.named import CallableEmbedder

        return CallableEmbedder(given)

    return Embedding(make, wanted="a callable", closes=False)


def _minilm(settings: Settings, named: str) -> Embedding:
    int8 = named == "minilm-int8"

    def make() -> Embedder:
        if extra_missing():
            raise ExtraMissing(f"the embedder {named}", "semantic")
        from agentic_flywheel.search.embedders.minilm import open_minilm

        return open_minilm(settings, int8=int8)

    def missing() -> str:
        """Only `auto` does without: whoever names an embedder wants to know that it does not work."""
        if lacking := extra_missing():
            return (
                f"there is no embedder: {lacking} is not installed; `pip install 'agentic-flywheel[semantic]'`, then "
                "`afw embedder fetch`"
            )
        from agentic_flywheel.search.embedders.builds import is_there
        from agentic_flywheel.search.embedders.weights import minilm_folder

        if not is_there(minilm_folder(settings, int8=int8)):
            return "there is no embedder: its model has not been fetched; `afw embedder fetch`"
        return ""

    return Embedding(make, wanted=named, missing=missing if named == "auto" else str)


def _endpoint(settings: Settings, model: str) -> Embedder:
    from agentic_flywheel.search.embedders.endpoint import EndpointEmbedder

    key = settings.environ.get(settings.text("embedder.api_key_env"), "")
    return EndpointEmbedder(model, base_url=settings.text("embedder.base_url"), key=key)


def _named(path: str) -> Embedder:
    from agentic_flywheel.search.embedders.named import named_embedder

    return named_embedder(path)


def _folder(settings: Settings, folder: Path) -> Embedder:
    if extra_missing():
        raise ExtraMissing(f"the embedder {folder}", "semantic")
    from agentic_flywheel.search.embedders.minilm import open_folder

    return open_folder(settings, folder)

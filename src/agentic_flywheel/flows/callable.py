"""Flow kind `python`: a function of your own that answers.

Invariant: what the function raises reaches nobody but as the cause of a `FlowUnavailable` that names it; an answer that
is empty or no text is refused; a function whose code (or `options.version`) changed is a changed flow.

The function takes the question, or the question and the history, or one `FlowQuestion` (by annotation). It may be
plain (it runs in a thread), a coroutine function, or a generator of pieces of text, plain or asynchronous.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from types import CodeType
from typing import Any

from agentic_flywheel.errors import FlowError, FlowGarbled, FlowMissing, FlowTimeout, FlowUnavailable
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowHealth,
    FlowQuestion,
    FlowSpec,
    Revision,
    TextPart,
)
from agentic_flywheel.flows.replies import mended

_END = object()


class PythonClient:
    """A Python callable as a flow. `options`: `callable` ("module:function", or the object), `version`.

    >>> from agentic_flywheel.flows.protocol import answer_of
    >>> spec = FlowSpec(key="shout", id="shout", kind="python", options={"callable": str.upper})
    >>> asyncio.run(answer_of(PythonClient(spec).stream(FlowQuestion(text="hello")))).text
    'HELLO'
    """

    revision_is_remote = False

    def __init__(
        self,
        spec: FlowSpec,
        *,
        environ: Mapping[str, str] | None = None,  # noqa: ARG002 (every kind is made with the same arguments)
        timeout: timedelta = timedelta(seconds=120),
        check_timeout: timedelta = timedelta(seconds=10),  # noqa: ARG002 (nothing is asked over a network)
    ) -> None:
        self.spec = spec
        self._named = spec.options.get("callable") or spec.id
        self._timeout = timeout
        self._function: Callable[..., Any] | None = None
        self._digested: tuple[tuple[object, ...], str] | None = None
        self._takes = ""
        #: Whether the callable takes the earlier exchanges itself.
        self.accepts_history = False
        self.accepts_instructions = False
        self._look_up()

    @property
    def address(self) -> str:
        """Nowhere to look at: the callable lives in this process."""
        return ""

    @property
    def name(self) -> str:
        """The callable as people name it."""
        return self._named if isinstance(self._named, str) else _name_of(self._named)

    async def stream(self, question: FlowQuestion) -> AsyncIterator[FlowEvent]:
        """Call it, and pass on what it gives."""
        pieces = self._pieces(self._called(), question)
        given: list[str] = []
        remaining = self._timeout.total_seconds()
        clock = asyncio.get_running_loop().time
        try:
            while True:
                start = clock()  # only what the callable takes counts, not what the reader does between pieces
                try:
                    async with asyncio.timeout(max(remaining, 0.0)):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    break
                except TimeoutError as error:
                    raise self._late() from error
                remaining -= clock() - start
                given.append(piece)
                if piece:
                    yield TextPart(mended(piece))
        finally:
            await pieces.aclose()
        text = mended("".join(given))
        if not text.strip():
            raise FlowGarbled(f"{self.name} gave an empty answer", flow=self.spec.key, callable=self.name)
        yield AnswerDone(text=text)

    async def revision(self, known: Revision) -> Revision:
        """Digest of `options.version`, else of the callable's code."""
        version = self.spec.options.get("version")
        called = None if version is not None else self._called()
        # On the way of every question: a plain function with the same code and defaults has the same digest.
        same = (version, called, getattr(called, "__code__", None), getattr(called, "__defaults__", None))
        plain = called is None or (same[2] is not None and not hasattr(called, "__wrapped__"))
        if not plain or self._digested is None or any(a is not b for a, b in zip(self._digested[0], same, strict=True)):
            seed = repr(("version", str(version))) if called is None else code_digest(called)
            self._digested = (same, hashlib.blake2b(seed.encode(), digest_size=16).hexdigest())
        digest = self._digested[1]
        return known if known.digest == digest else Revision(digest=digest)

    async def check(self) -> FlowHealth:
        """Whether the callable can be imported and called with a question."""
        try:
            self._called()
        except FlowError as error:
            return FlowHealth(ok=False, notes=(error.message,))
        return FlowHealth(ok=True, notes=(f"{self.name} is importable",))

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _called(self) -> Callable[..., Any]:
        if self._function is None:
            problem = self._look_up()
            if self._function is None:
                raise FlowMissing(
                    f"the callable {self.name!r} of flow {self.spec.key!r} cannot be used: {problem}",
                    suggestions=(
                        "Write `callable` as module:function, importable where this process runs.",
                        "Install the package that holds it into this environment, or set PYTHONPATH.",
                        "Let it take (question), (question, history) or one FlowQuestion.",
                    ),
                    flow=self.spec.key,
                    callable=self.name,
                ) from (problem if isinstance(problem, Exception) else None)
        return self._function

    def _look_up(self) -> Exception | str:
        """Find the callable and how to call it; what is wrong otherwise, told when it is needed."""
        found: Any = self._named
        if isinstance(found, str):
            module, colon, path = found.partition(":")
            if not (module and colon and path):
                return "expected module:function"
            try:
                found = importlib.import_module(module)
                for part in path.split("."):
                    found = getattr(found, part)
            except Exception as error:  # noqa: BLE001 (importing runs foreign code: anything may come of it)
                return error
        if not callable(found):
            return f"it is a {type(found).__name__}"
        takes = _takes(found)
        if not takes:
            return "it does not take a question"
        self._function, self._takes = found, takes
        self.accepts_history = takes != "text"
        self.accepts_instructions = takes == "question"
        return ""

    async def _pieces(self, function: Callable[..., Any], question: FlowQuestion) -> AsyncGenerator[str, None]:
        arguments: tuple[Any, ...] = {
            "question": (question,),
            "history": (question.text, question.history),
            "text": (question.text,),
        }[self._takes]
        try:
            if _is_asynchronous(function) or inspect.isgeneratorfunction(function):
                result = function(*arguments)
            else:
                result = await asyncio.to_thread(function, *arguments)
            if inspect.isawaitable(result):
                result = await result
        except FlowError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        if isinstance(result, str):
            yield result
        elif hasattr(result, "__aiter__"):
            async with aclosing(self._each(aiter(result))) as pieces:
                async for piece in pieces:
                    yield piece
        elif isinstance(result, Iterator):
            async with aclosing(self._each(_in_thread(result))) as pieces:
                async for piece in pieces:
                    yield piece
        else:
            raise self._no_text(result)

    async def _each(self, pieces: AsyncIterator[Any]) -> AsyncGenerator[str, None]:
        try:
            while True:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except FlowError:
                    raise
                except Exception as error:
                    raise self._failed(error) from error
                if not isinstance(piece, str):
                    raise self._no_text(piece)
                yield piece
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def _late(self) -> FlowTimeout:
        seconds = self._timeout.total_seconds()
        return FlowTimeout(f"{self.name} gave no answer in {seconds:g} s", flow=self.spec.key, timeout_seconds=seconds)

    def _failed(self, error: Exception) -> FlowUnavailable:
        return FlowUnavailable(
            f"{self.name} raised {type(error).__name__}: {error}",
            suggestions=(
                "Look at the error that this one came from: it is chained to it.",
                "Call the function by itself with the same question.",
                "Raise one of the FlowError exceptions in it to say more precisely what went wrong.",
            ),
            flow=self.spec.key,
            callable=self.name,
        )

    def _no_text(self, result: object) -> FlowGarbled:
        return FlowGarbled(
            f"{self.name} gave a {type(result).__name__}, expected text", flow=self.spec.key, callable=self.name
        )


async def _in_thread(pieces: Iterator[Any]) -> AsyncIterator[Any]:
    """A plain generator, each step in a thread."""
    try:
        while (piece := await asyncio.to_thread(next, pieces, _END)) is not _END:
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    called = function if inspect.isroutine(function) else type(function).__call__
    return any(test(function) or test(called) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction))


def _takes(function: Callable[..., Any]) -> str:
    """What a callable wants: `question` (a FlowQuestion), `history`, `text`, or "" where it cannot be called so."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return "text"
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    required = [p for p in positional if p.default is p.empty]
    needs_more = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    if needs_more or len(required) > 2 or not (positional or open_ended):
        return ""
    if positional and _is_flow_question(positional[0].annotation):
        return "question" if len(required) < 2 else ""
    wants_history = len(required) == 2 or (len(positional) >= 2 and positional[1].name == "history")
    return "history" if wants_history else "text"


def _is_flow_question(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.strip("'\" ").rpartition(".")[2] == FlowQuestion.__name__
    return annotation is FlowQuestion


def code_digest(function: Callable[..., Any]) -> str:
    """Digest of what a function does: its byte code, constants, names and defaults, those of inner functions included.

    The code of other functions that it calls is not part of it; give such a flow a `version`.
    """
    inner = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # functools.partial
    code = getattr(inner, "__code__", None)
    if code is None:  # an object that can be called
        code = getattr(type(inner).__call__, "__code__", None)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_name_of(inner).encode())
    if isinstance(code, CodeType):
        _add_code(digest, code)
        digest.update(_stable(getattr(inner, "__defaults__", None)).encode())
    return digest.hexdigest()


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def _add_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            digest.update(_stable(constant).encode())


def _stable(value: object) -> str:
    """A constant as text that is the same in every process: sets have no order of their own, objects no address."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_stable, value))})"
    if isinstance(value, tuple):
        return f"({','.join(map(_stable, value))})"
    return repr(value) if isinstance(value, str | bytes | int | float | complex | None) else type(value).__name__

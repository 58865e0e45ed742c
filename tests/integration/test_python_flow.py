"""Flow kind `python`, the choice of client by kind, and the pool that keeps clients open."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from agentic_flywheel.errors import FlowGarbled, FlowLimited, FlowMissing, FlowTimeout, FlowUnavailable, RegistryError
from agentic_flywheel.flows.callable import PythonClient, code_digest
from agentic_flywheel.flows.clients import ClientPool, make_client
from agentic_flywheel.flows.protocol import AnswerDone, FlowQuestion, FlowSpec, Revision, TextPart, answer_of
from agentic_flywheel.model import Exchange
from agentic_flywheel.settings import load_settings

pytestmark = pytest.mark.anyio

HISTORY = (Exchange("q", "a"),)


def client_of(answer: object, seconds: float = 30, **options: object) -> PythonClient:
    spec = FlowSpec(key="f", id="f", kind="python", options={"callable": answer, **options})
    return PythonClient(spec, timeout=timedelta(seconds=seconds))


def plain(question):
    return f"{question}!"


def with_history(question: str, history: tuple[Exchange, ...]) -> str:
    return f"{question} after {len(history)}"


def with_everything(question: FlowQuestion) -> str:
    return f"{question.text} by {question.user}"


def with_default(question: str, punctuation: str = "?") -> str:
    return question + punctuation


async def coroutine(question: str) -> str:
    await asyncio.sleep(0)
    return f"{question}~"


def pieces(question: str) -> Iterator[str]:
    yield question
    yield ""
    yield "."


async def async_pieces(question: str) -> AsyncIterator[str]:
    yield question
    yield ";"


class Answerer:
    async def __call__(self, question: str) -> str:
        return f"{question}:"

    def method(self, question: str, history: object) -> str:
        return f"{question} {history == HISTORY}"


@pytest.mark.parametrize(
    ("answer", "text", "accepts_history"),
    [
        (plain, "hi!", False),
        (with_history, "hi after 1", True),
        (with_everything, "hi by ann", True),
        (with_default, "hi?", False),
        (coroutine, "hi~", False),
        (pieces, "hi.", False),
        (async_pieces, "hi;", False),
        (Answerer(), "hi:", False),
        (Answerer().method, "hi True", True),
        (functools.partial(with_default, punctuation="/"), "hi/", False),
        ("textwrap:dedent", "hi", False),
        (str.upper, "HI", False),
    ],
)
async def test_every_form_of_callable(answer: object, text: str, accepts_history: bool):
    client = client_of(answer)
    assert client.accepts_history is accepts_history
    done = await answer_of(client.stream(FlowQuestion(text="hi", history=HISTORY, user="ann")))
    assert (done.text, done.complete) == (text, True)


async def test_pieces_are_passed_on_as_they_come():
    events = [event async for event in client_of(pieces).stream(FlowQuestion(text="hi"))]
    assert events == [TextPart("hi"), TextPart("."), AnswerDone(text="hi.")]


async def test_a_plain_function_does_not_hold_up_the_loop():
    go = threading.Event()
    client = client_of(lambda question: question if go.wait(30) else "")
    asked = asyncio.create_task(answer_of(client.stream(FlowQuestion(text="hi"))))
    await asyncio.sleep(0)
    go.set()  # reached only if the loop runs on
    assert (await asked).text == "hi"


def fails(question: str) -> str:
    raise KeyError("inner")


def fails_midway(question: str) -> Iterator[str]:
    yield "a"
    raise ValueError("midway")


async def fails_slowly(question: str) -> AsyncIterator[str]:
    yield "a"
    raise TimeoutError("its own")


def limited(question: str) -> str:
    raise FlowLimited("too often")


@pytest.mark.parametrize(
    ("answer", "cause"), [(fails, KeyError), (fails_midway, ValueError), (fails_slowly, TimeoutError)]
)
async def test_what_it_raises_is_chained_and_named(answer: object, cause: type[Exception]):
    with pytest.raises(FlowUnavailable) as caught:
        await answer_of(client_of(answer).stream(FlowQuestion(text="hi")))
    assert isinstance(caught.value.__cause__, cause)
    assert answer.__name__ in caught.value.message  # type: ignore[attr-defined]
    assert not isinstance(caught.value, FlowTimeout)


async def test_our_own_errors_pass_as_they_are():
    with pytest.raises(FlowLimited):
        await answer_of(client_of(limited).stream(FlowQuestion(text="hi")))


@pytest.mark.parametrize("answer", [lambda q: "", lambda q: " \n", lambda q: None, lambda q: 3, lambda q: iter([1])])
async def test_what_is_no_answer_is_refused(answer: object):
    with pytest.raises(FlowGarbled):
        await answer_of(client_of(answer).stream(FlowQuestion(text="hi")))


async def endless(question: str) -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


async def test_the_time_allowed_is_kept():
    stream = client_of(endless, seconds=0.05).stream(FlowQuestion(text="hi"))
    assert await anext(stream) == TextPart("a")
    with pytest.raises(FlowTimeout) as caught:
        await anext(stream)
    assert caught.value.details["timeout_seconds"] == 0.05


async def test_a_stream_left_early_closes_the_generator():
    closed = []

    async def answer(question: str) -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    stream = client_of(answer).stream(FlowQuestion(text="hi"))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed == [True]


@pytest.mark.parametrize(
    "named", ["no_such_module:f", "textwrap:no_such", "textwrap", "sys:version", lambda: "x", lambda a, b, c: a]
)
async def test_a_callable_that_cannot_be_used(named: object):
    client = client_of(named)
    assert not (await client.check()).ok
    with pytest.raises(FlowMissing):
        await answer_of(client.stream(FlowQuestion(text="hi")))


async def test_revision_follows_the_code_or_the_version():
    def variant(body: str) -> object:
        scope: dict[str, object] = {}
        exec(f"def answer(question):\n    {body}\n", scope)
        return scope["answer"]

    bodies = ["return question + 'a'", "return question + 'b'", "return question.upper()", "return (lambda: 'a')()"]
    digests = {(await client_of(variant(body)).revision(Revision())).digest for body in bodies}
    assert len(digests) == len(bodies)
    again = await client_of(variant(bodies[0])).revision(Revision())
    assert again.digest in digests
    assert await client_of(variant(bodies[0])).revision(again) is again
    first = await client_of(variant(bodies[0]), version=1).revision(Revision())
    assert (await client_of(variant(bodies[1]), version=1).revision(Revision())) == first
    assert (await client_of(variant(bodies[1]), version=2).revision(Revision())) != first


def test_the_digest_of_code_is_the_same_in_every_process():
    source = (
        "from agentic_flywheel.flows.callable import code_digest\n"
        "def f(q, s=frozenset('abc')):\n    return q if q in {'a', 'b', 'c', 'd'} else [x for x in q]\n"
        "print(code_digest(f))"
    )
    seen = set()
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", source], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        seen.add(run.stdout)
    assert len(seen) == 1
    assert code_digest(plain) != code_digest(with_default)


async def test_unknown_kinds_name_the_nearest():
    spec = FlowSpec(key="f", id="f", kind="documants")
    with pytest.raises(RegistryError, match="did you mean 'documents'"):
        make_client(spec, environ={}, timeout=timedelta(1), check_timeout=timedelta(1))


@pytest.mark.parametrize("kind", ["flowise", "openai", "langflow", "documents", "python"])
async def test_a_client_for_every_kind(kind: str):
    spec = FlowSpec(key="f", id="os:getcwd", kind=kind, base_url="http://127.0.0.1:9")
    client = make_client(spec, environ={}, timeout=timedelta(seconds=1), check_timeout=timedelta(seconds=1))
    assert client.spec is spec
    await client.aclose()
    await client.aclose()


class Watched(PythonClient):
    """A client that counts how often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_the_pool_keeps_one_client_and_closes_it_after_its_last_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("agentic_flywheel.flows.callable.PythonClient", Watched)
    pool = ClientPool(load_settings(environ={"AFW_CONFIG_DIR": str(tmp_path)}, directory=tmp_path))
    spec = FlowSpec(key="f", id="f", kind="python", options={"callable": plain})
    changed = msgspec.structs.replace(spec, name="another")
    async with pool.use(spec) as first, pool.use(spec) as same:
        assert first is same
        assert isinstance(first, Watched)
        async with pool.use(changed) as second:
            assert isinstance(second, Watched)
            assert second is not first
            assert first.closed == 0  # still in use
    assert (first.closed, second.closed) == (1, 0)
    async with pool.use(changed) as again:
        assert again is second
        await pool.aclose()
        assert second.closed == 0
    assert second.closed == 1
    await pool.aclose()
    assert second.closed == 1
    with pytest.raises(RuntimeError, match="closed"):
        async with pool.use(spec):
            pass

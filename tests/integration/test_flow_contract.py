"""What every kind that is asked over HTTP must do, whatever its service does. See `flows.protocol`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from agentic_flywheel.errors import (
    FlowError,
    FlowGarbled,
    FlowLimited,
    FlowMissing,
    FlowRefused,
    FlowTimeout,
    FlowUnavailable,
)
from agentic_flywheel.flows.flowise import FlowiseClient
from agentic_flywheel.flows.langflow import LangflowClient
from agentic_flywheel.flows.openai import OpenAIClient
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowClient,
    FlowHealth,
    FlowQuestion,
    FlowSpec,
    Revision,
    TextPart,
    answer_of,
)
from agentic_flywheel.model import Exchange
from flowise_replay import DROPPED, FLOWS, KEY, SILENCE, LoopbackServer, ReplayFlowise, Reply
from model_stubs import KEY as STUB_KEY
from model_stubs import StubLangflow, StubOpenAI

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
QUESTION = FlowQuestion(text="What is new?", conversation="c1")


@dataclass
class Kind:
    """A kind with its service: how to make a client, script a reply, count questions."""

    name: str
    server: LoopbackServer
    client_class: Callable[..., FlowClient]
    flow_id: str
    key_variable: str
    key: str

    def client(
        self,
        *,
        flow_id: str = "",
        key: str = "",
        base_url: str = "",
        timeout: timedelta = 20 * SECOND,
        **spec: Any,
    ) -> FlowClient:
        return self.client_class(
            FlowSpec(
                key="flow", id=flow_id or self.flow_id, kind=self.name, base_url=base_url or self.server.url, **spec
            ),
            environ={self.key_variable: key or self.key},
            timeout=timeout,
            check_timeout=min(timeout, 20 * SECOND),
            pause=timedelta,
        )

    def script(self, *replies: Reply) -> None:
        if isinstance(self.server, ReplayFlowise):
            self.server.queue(self.flow_id, *replies)
        else:
            assert isinstance(self.server, StubOpenAI | StubLangflow)
            self.server.script.extend(replies)

    @property
    def asked(self) -> int:
        return sum(request.method == "POST" for request in self.server.requests)


KINDS = ("flowise", "openai", "langflow")


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Kind]:
    if request.param == "flowise":
        async with ReplayFlowise() as flowise:
            yield Kind("flowise", flowise, FlowiseClient, FLOWS["keyed"], "FLOWISE_API_KEY", KEY)
    elif request.param == "openai":
        async with StubOpenAI(keyed=True) as openai:
            yield Kind("openai", openai, OpenAIClient, "stub", "OPENAI_API_KEY", STUB_KEY)
    else:
        async with StubLangflow(keyed=True) as langflow:
            yield Kind("langflow", langflow, LangflowClient, StubLangflow.FLOW_ID, "LANGFLOW_API_KEY", STUB_KEY)


async def ask(client: FlowClient, question: FlowQuestion = QUESTION) -> AnswerDone:
    """The answer, with the form of the stream checked on the way."""
    try:
        events = [event async for event in client.stream(question)]
    finally:
        await client.aclose()
    assert [type(event) for event in events].count(AnswerDone) == 1
    done = events[-1]
    assert isinstance(done, AnswerDone)
    assert "".join(event.text for event in events if isinstance(event, TextPart)) == done.text
    return done


async def checked(client: FlowClient) -> FlowHealth:
    try:
        return await client.check()
    finally:
        await client.aclose()


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_stream_ends_with_exactly_one_answer(kind: Kind, streaming: bool) -> None:
    done = await ask(kind.client(options={"streaming": streaming}))
    assert "What is new?" in done.text
    assert done.complete
    assert kind.asked == 1


async def test_history_reaches_the_service_where_the_kind_takes_it(kind: Kind) -> None:
    client = kind.client()
    history = (Exchange("First question", "First answer"), Exchange("Second question", "Second answer"))
    await ask(
        client, FlowQuestion(text="And then?", history=history if client.accepts_history else (), conversation="c")
    )
    sent = json.loads(next(request for request in kind.server.requests if request.method == "POST").body)
    if not client.accepts_history:
        assert sent["input_value"] == "And then?"
        return
    messages = sent.get("messages") or [*sent["history"], {"content": sent["question"]}]
    assert [message["content"] for message in messages] == [
        "First question",
        "First answer",
        "Second question",
        "Second answer",
        "And then?",
    ]


async def test_configuration_of_the_question_goes_over_that_of_the_flow(kind: Kind) -> None:
    own, over = {"Model-1": {"temperature": 0.1, "top_p": 0.5}}, {"Model-1": {"temperature": 0.9}}
    if kind.name != "langflow":
        own, over = own["Model-1"], over["Model-1"]  # type: ignore[assignment]
    await ask(kind.client(config=own), FlowQuestion(text="?", config=over))
    sent = json.loads(next(request for request in kind.server.requests if request.method == "POST").body)
    sent = {"flowise": sent.get("overrideConfig"), "openai": sent, "langflow": sent.get("tweaks", {}).get("Model-1")}[
        kind.name
    ]
    assert (sent["temperature"], sent["top_p"]) == (0.9, 0.5)


@pytest.mark.parametrize("flow_id", ["11111111-1111-4111-8111-111111111111", "no such/../flow?x=1#y"])
async def test_an_unknown_flow(kind: Kind, flow_id: str) -> None:
    with pytest.raises(FlowMissing):
        await ask(kind.client(flow_id=flow_id))


async def test_a_refused_key_is_never_shown(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = kind.client(key="wrong-key-0123456789")
    assert "wrong-key" not in repr(client)
    with pytest.raises(FlowRefused) as caught:
        await ask(client)
    assert "wrong-key" not in json.dumps(caught.value.as_dict()) + repr(caught.value)
    assert "wrong-key" not in caplog.text
    health = await checked(kind.client(key="wrong-key-0123456789"))
    assert not health.ok or kind.name == "langflow"  # Langflow tells its version to everybody
    assert "wrong-key" not in " ".join(health.notes)


async def test_a_key_that_cannot_be_one(kind: Kind) -> None:
    with pytest.raises(FlowRefused):
        await ask(kind.client(key="clé-✓"))


async def test_the_variable_of_the_key_can_be_named(kind: Kind) -> None:
    kind.key_variable = "KEY_OF_THIS_FLOW"
    assert (await ask(kind.client(api_key_env="KEY_OF_THIS_FLOW"))).text


STATUSES: list[tuple[Reply, type[FlowError]]] = [
    (Reply(400, "application/json", (b'{"message":"context too long"}',)), FlowError),
    (Reply(401, "application/json", (b'{"error":"Unauthorized Access"}',)), FlowRefused),
    (Reply(403, "text/html", (b"origin not allowed here",)), FlowRefused),
    (Reply(404, "text/html", (b"<html><title>404 Not Found</title>",)), FlowMissing),
    (Reply(408, "text/plain", (b"",)), FlowTimeout),
    (Reply(429, "text/html", (b"slow down",), {"retry-after": "7"}), FlowLimited),
    (Reply(500, "application/json", (b'{"message":"boom"}',)), FlowUnavailable),
    (Reply(504, "text/html", (b"<html>",)), FlowTimeout),
    (Reply(599, "text/html", (b"",)), FlowUnavailable),
    (Reply(307, "text/html", (b"",), {"location": "https://user:password@login.example/"}), FlowGarbled),
    (Reply(200, "text/html", (b"<!DOCTYPE html><title>Sign in</title>",)), FlowGarbled),
    (Reply(200, "application/json", (b"",)), FlowGarbled),
    (Reply(200, "application/json", (b"{}",)), FlowGarbled),
    (Reply(200, "application/json", (b"null",)), FlowGarbled),
    (Reply(200, "application/json", (b'[{"text": "x"}]',)), FlowGarbled),
    (Reply(200, "application/json", (b"[" * 100_000,)), FlowGarbled),
    (Reply(200, "application/json", (b'{"choices": 5, "outputs": {"a": []}, "text": null}',)), FlowGarbled),
    (Reply(200, "application/json", (b'{"choices": ["x"], "outputs": ["x"], "text": ""}',)), FlowGarbled),
    (Reply(200, "text/event-stream", ()), FlowGarbled),
    (Reply(200, "text/event-stream", (b"data: 5\n\n",)), FlowGarbled),
    (Reply(200, "text/event-stream", (b"data: {}\n\n",)), FlowGarbled),
    (Reply(200, "text/event-stream", (b":heartbeat\n\n" * 3,)), FlowGarbled),
    (Reply(200, "application/json", (b"not gzip",), {"content-encoding": "gzip"}), FlowGarbled),
    (DROPPED, FlowUnavailable),
    (Reply(200, "application/json", (b'{"text": "cut',), ending="cut"), FlowUnavailable),
    (Reply(200, "text/event-stream", (b"data: {",), ending="cut"), FlowUnavailable),
]


@pytest.mark.parametrize("number", range(len(STATUSES)))
async def test_every_failure_is_mapped_and_asked_once(kind: Kind, number: int) -> None:
    reply, expected = STATUSES[number]
    # An OpenAI-compatible service is asked again without an option that it may have refused.
    times = 2 if kind.name == "openai" and reply.status == 400 else 1
    kind.script(*[reply] * times)
    with pytest.raises(FlowError) as caught:
        await ask(kind.client())
    error = caught.value
    assert type(error) is expected, error.message
    assert kind.asked == times
    assert "password" not in error.message
    assert error.details["flow"] == "flow"
    assert len(error.suggestions) >= 3
    if reply.status == 429:
        assert error.retry_after_seconds == 7


async def test_nobody_there(kind: Kind) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(FlowUnavailable, match="cannot connect"):
            await ask(kind.client(base_url=url))
        health = await checked(kind.client(base_url=url))
    assert not health.ok
    assert "cannot connect" in " ".join(health.notes)


@pytest.mark.parametrize(
    "url", ["localhost:3000", "ftp://127.0.0.1", "http://", "http://[", "http://127.0.0.1:99999999"]
)
async def test_an_address_that_is_none(kind: Kind, url: str) -> None:
    with pytest.raises(FlowError):
        await ask(kind.client(base_url=url))


@pytest.mark.parametrize("reply", [SILENCE, Reply(200, "text/event-stream", (b":heartbeat\n\n",), ending="hang")])
async def test_silence_ends_with_the_time_allowed(kind: Kind, reply: Reply) -> None:
    kind.script(reply)
    with pytest.raises(FlowTimeout) as caught:
        await ask(kind.client(timeout=timedelta(seconds=0.4)))
    assert caught.value.details["timeout_seconds"] == 0.4
    assert kind.asked == 1


async def test_a_slow_asker_is_not_cancelled(kind: Kind) -> None:
    """The deadline bounds the waiting for the service; it never fires into the code of whoever reads."""
    client = kind.client(timeout=timedelta(seconds=0.3), options={"streaming": True})
    seen = []
    async with asyncio.timeout(20):
        with contextlib.suppress(FlowTimeout):
            async for event in client.stream(QUESTION):
                seen.append(event)
                loop = asyncio.get_running_loop()
                past_the_deadline = loop.create_future()
                loop.call_later(0.4, past_the_deadline.set_result, None)
                await past_the_deadline
    assert seen
    await client.aclose()


@pytest.mark.parametrize("status", [502, 503])
async def test_a_gateway_without_its_service_is_asked_once_more(kind: Kind, status: int) -> None:
    away = Reply(status, "text/html", (b"<html><title>Bad Gateway</title>",))
    kind.script(away)
    assert (await ask(kind.client())).text
    assert kind.asked == 2
    kind.script(away, away)
    with pytest.raises(FlowUnavailable):
        await ask(kind.client())
    assert kind.asked == 4


async def test_a_gateway_that_asks_for_a_long_pause_is_not_pressed(kind: Kind) -> None:
    kind.script(Reply(503, "text/plain", (b"maintenance",), {"retry-after": "60"}))
    with pytest.raises(FlowUnavailable) as caught:
        await ask(kind.client())
    assert caught.value.retry_after_seconds == 60
    assert kind.asked == 1


async def test_a_service_that_comes_up_meanwhile_is_reached(kind: Kind) -> None:
    """A refused connection is tried once more: nothing was sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = kind.client(base_url=f"http://127.0.0.1:{port}")
    wire = client._wire  # type: ignore[attr-defined]
    servers: list[asyncio.Server] = []
    tasks: list[asyncio.Task[asyncio.Server]] = []

    def come_up() -> timedelta:
        async def start() -> asyncio.Server:
            server = await asyncio.start_server(kind.server._meet, "127.0.0.1", port)
            servers.append(server)
            return server

        tasks.append(asyncio.get_running_loop().create_task(start()))
        return timedelta(seconds=0.3)

    wire._pause = come_up
    try:
        assert (await ask(client)).text
        assert len(tasks) == 1
    finally:
        for server in servers:
            server.close()


async def test_an_asker_that_leaves_takes_the_connection_along(kind: Kind) -> None:
    client = kind.client(options={"streaming": True})
    stream = client.stream(QUESTION)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert (await ask(client)).text


async def test_a_cancelled_question_leaves_the_client_usable(kind: Kind) -> None:
    kind.script(SILENCE)
    client = kind.client()
    task = asyncio.create_task(answer_of(client.stream(QUESTION)))
    async with asyncio.timeout(20):
        await kind.server.reached("POST")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ask(client)).text


async def test_many_at_once_do_not_mix(kind: Kind) -> None:
    client = kind.client()

    async def one(number: int) -> bool:
        done = await answer_of(client.stream(FlowQuestion(text=f"question-{number}-", conversation=f"c{number}")))
        return f"question-{number}-" in done.text

    assert all(await asyncio.gather(*(one(number) for number in range(30))))
    await client.aclose()


async def test_closing_twice_and_asking_afterwards(kind: Kind) -> None:
    client = kind.client()
    await client.aclose()
    await client.aclose()
    with pytest.raises(FlowUnavailable, match="closed"):
        await answer_of(client.stream(QUESTION))


async def test_a_question_that_utf8_cannot_hold_is_asked_all_the_same(kind: Kind) -> None:
    assert (await ask(kind.client(), FlowQuestion(text="what \udcff is", conversation="c"))).text


async def test_a_login_in_the_address_is_not_shown(kind: Kind) -> None:
    url = kind.server.url.replace("http://", "http://me:my-password@")
    client = kind.client(base_url=url)
    assert "my-password" not in client.address
    kind.script(Reply(404, "text/plain", (b"no",)))
    with pytest.raises(FlowMissing) as caught:
        await ask(client)
    assert "my-password" not in json.dumps(caught.value.as_dict())


async def test_a_healthy_flow_is_called_so(kind: Kind) -> None:
    health = await checked(kind.client())
    assert health.ok, health.notes
    assert health.notes
    assert kind.asked == 0


async def test_the_revision_is_stable_and_known_is_given_back_or_equal(kind: Kind) -> None:
    client = kind.client()
    first = await client.revision(Revision())
    assert await client.revision(first) == first
    assert bool(first.digest) is client.revision_is_remote
    await client.aclose()

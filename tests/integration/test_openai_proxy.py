"""The real `openai` client against `afw serve`: plain and streamed, what is context, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from afw_command import Afw
from http_process import HttpServer, served
from model_stubs import StubOpenAI
from servers import Server, Servers

pytestmark = pytest.mark.xdist_group("openai_proxy")

ASKED = [{"role": "user", "content": "How long are answers kept?"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Afw:
    return Afw(tmp_path_factory.mktemp("openai"), servers.get("valkey9").url)


@pytest.fixture(scope="module")
def model() -> Iterator[StubOpenAI]:
    with StubOpenAI() as stub:
        stub.answer = lambda messages: "|".join(f"{m['role']}={m['content']}" for m in messages)
        yield stub


@pytest.fixture(scope="module")
def running(home: Afw, model: StubOpenAI) -> Iterator[HttpServer]:
    """One server for all tests here: starting one takes longer than any of them."""
    flow = f"  model:\n    kind: openai\n    id: stub\n    base_url: {model.url}\n    type: technical\n"
    home.registry.write_text(home.registry.read_text() + flow)
    with served(home) as server:
        yield server


@pytest.fixture
def server(running: HttpServer, valkey: Server) -> HttpServer:
    """With an empty Redis for every test."""
    return running


@pytest.fixture
def afw(home: Afw) -> Afw:
    (home.home / "asked.txt").unlink(missing_ok=True)
    return home


@pytest.fixture
def stub(model: StubOpenAI) -> StubOpenAI:
    model.asked.clear()
    return model


@pytest.fixture
def client(server: HttpServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none-needed-here", max_retries=0) as client:
        yield client


def ask(client: OpenAI, messages: list[dict[str, str]], **more: Any) -> Any:
    return client.chat.completions.create(model=more.pop("model", "echo"), messages=messages, **more)  # type: ignore[call-overload]


def test_flows_are_models_and_answers_come_back(client: OpenAI, afw: Afw) -> None:
    assert {model.id for model in client.models.list()} == {"documents", "echo", "model"}
    assert client.models.retrieve("echo").owned_by == "python"
    first = ask(client, ASKED)
    assert first.choices[0].message.content == "You said: How long are answers kept?"
    assert (first.choices[0].finish_reason, first.model, first.usage) == ("stop", "echo", None)
    assert first.afw["outcome"] == "miss"
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=[{"role": "user", "content": "how long are ANSWERS kept"}]
    )
    again = raw.parse()
    assert again.choices[0].message.content == first.choices[0].message.content
    assert again.id != first.id
    assert again.usage is not None
    assert again.usage.total_tokens == 0
    assert raw.headers["x-afw-outcome"] == "hit"
    assert raw.headers["x-afw-reason"] == "exact"
    assert raw.headers["age"].isdigit()
    assert raw.headers["x-afw-entry"].startswith("afw:v1:")
    assert len(afw.asked()) == 1


def test_a_stream_from_the_flow_and_one_from_memory_read_alike(client: OpenAI, afw: Afw) -> None:
    def streamed() -> tuple[str, list[Any]]:
        chunks = list(ask(client, ASKED, stream=True, stream_options={"include_usage": True}))
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks

    text, chunks = streamed()
    assert text == "You said: How long are answers kept?"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], None)
    again, replayed = streamed()
    assert again == text
    assert len(replayed) > 5  # word by word
    assert replayed[-1].usage.total_tokens == 0
    assert replayed[-2].afw["outcome"] == "hit"
    assert len({chunk.id for chunk in replayed}) == 1
    assert len(afw.asked()) == 1


def test_earlier_messages_and_instructions_are_part_of_what_is_asked(client: OpenAI, stub: StubOpenAI) -> None:
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I log in?"},
        {"role": "assistant", "content": "With a token."},
        {"role": "user", "content": "And on mobile?"},
    ]
    first = ask(client, history, model="model")
    said = "system=Be brief.|user=How do I log in?|assistant=With a token.|user=And on mobile?"
    assert first.choices[0].message.content == said
    assert ask(client, history, model="model").afw["outcome"] == "hit"
    for place, other in ((0, "Be long."), (1, "How do I log out?"), (2, "With a password.")):
        changed = [dict(m, content=other) if n == place else m for n, m in enumerate(history)]
        assert ask(client, changed, model="model").afw["outcome"] == "miss", place
    assert ask(client, history[-1:], model="model").afw["outcome"] == "miss"
    assert ask(client, history[1:], model="model").afw["outcome"] == "miss"
    assert len(stub.asked) == 6


def test_a_flow_without_a_system_prompt_of_its_own_gets_it_in_front(client: OpenAI) -> None:
    told = ask(client, [{"role": "developer", "content": "Speak plainly."}, *ASKED])
    assert told.choices[0].message.content == (
        "You said: Instructions:\nSpeak plainly.\n\nQuestion: How long are answers kept?"
    )


def test_sampling_goes_to_models_and_is_named_where_it_means_nothing(client: OpenAI, stub: StubOpenAI) -> None:
    ask(client, ASKED, model="model", temperature=0.2, seed=7)
    assert (stub.asked[-1]["temperature"], stub.asked[-1]["seed"]) == (0.2, 7)
    assert ask(client, ASKED, model="model", temperature=0.9).afw["outcome"] == "miss"
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=[{"role": "user", "content": "q?"}], temperature=0.2
    )
    assert raw.headers["x-afw-ignored"] == "temperature"


def test_a_named_session_goes_on_for_clients_that_send_the_last_message_alone(client: OpenAI) -> None:
    for question in ("How do I log in?", "And on mobile?"):
        answer = ask(client, [{"role": "user", "content": question}], model="model", metadata={"session_id": "monday"})
    assert answer.afw["session_id"] == "monday"
    assert answer.choices[0].message.content.startswith("user=How do I log in?|assistant=")


def test_directives_of_http_hold(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, ASKED, extra_headers={"Cache-Control": "only-if-cached"})
    assert caught.value.status_code == 504
    ask(client, ASKED)
    assert ask(client, ASKED, extra_headers={"Cache-Control": "no-cache"}).afw["outcome"] == "miss"
    kept_for_nobody = ask(client, ASKED, extra_headers={"Cache-Control": "no-store, no-cache"})
    assert (kept_for_nobody.afw["outcome"], kept_for_nobody.afw["reason"]) == ("bypass", "no_store")
    with pytest.raises(openai.BadRequestError, match="max-age wants a number"):
        ask(client, ASKED, extra_headers={"Cache-Control": "max-age=soon"})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: OpenAI, more: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, more.pop("messages", ASKED), **more)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_errors_are_openais(client: OpenAI, server: HttpServer) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, ASKED, model="nothing-like-it")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.InternalServerError) as failed:
        ask(client, [{"role": "user", "content": "please fail"}])
    assert failed.value.type == "api_error"
    with pytest.raises(openai.APIError, match="fell over"):
        list(ask(client, [{"role": "user", "content": "please fail"}], stream=True))
    with server.client() as plain:
        for body in (b"", b"{", b"[]", b'{"model": 1}', b'{"model": "echo", "messages": "x"}'):
            refused = plain.post("/v1/chat/completions", content=body)
            assert refused.status_code == 400
            assert refused.json()["error"]["type"] == "invalid_request_error"

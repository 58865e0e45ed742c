"""What is particular to OpenAI-compatible endpoints and to Langflow."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from agentic_flywheel.errors import FlowError, FlowGarbled, FlowLimited, FlowMissing, FlowUnavailable
from agentic_flywheel.flows.langflow import LangflowClient
from agentic_flywheel.flows.openai import OpenAIClient
from agentic_flywheel.flows.protocol import AnswerDone, FlowClient, FlowQuestion, FlowSpec, Revision, answer_of
from flowise_replay import Reply
from model_stubs import KEY, StubLangflow, StubOpenAI

pytestmark = pytest.mark.anyio


def openai(server: StubOpenAI, path: str = "/v1", model: str = "stub", **spec: Any) -> OpenAIClient:
    return OpenAIClient(
        FlowSpec(key="model", id=model, kind="openai", base_url=server.url + path, **spec),
        environ={"OPENAI_API_KEY": KEY},
        timeout=timedelta(seconds=20),
        check_timeout=timedelta(seconds=20),
    )


def langflow(server: StubLangflow, flow_id: str = StubLangflow.FLOW_ID, key: str = KEY, **spec: Any) -> LangflowClient:
    return LangflowClient(
        FlowSpec(key="faq", id=flow_id, kind="langflow", base_url=server.url, **spec),
        environ={"LANGFLOW_API_KEY": key},
        timeout=timedelta(seconds=20),
        check_timeout=timedelta(seconds=20),
    )


async def ask(client: FlowClient, text: str = "Hello there") -> AnswerDone:
    try:
        return await answer_of(client.stream(FlowQuestion(text=text, conversation="c1")))
    finally:
        await client.aclose()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
async def test_the_endpoint_is_found(path: str) -> None:
    async with StubOpenAI() as server:
        assert (await ask(openai(server, path))).text == "You said: Hello there"


async def test_system_prompt_configuration_and_usage() -> None:
    async with StubOpenAI() as server:
        done = await ask(openai(server, config={"temperature": 0.2}, options={"system": "Be terse."}))
        (asked,) = server.asked
    assert asked["messages"][0] == {"role": "system", "content": "Be terse."}
    assert asked["temperature"] == 0.2
    assert done.metadata["usage"]["total_tokens"] == 7
    assert done.tokens == (3, 4)
    assert done.metadata["model"] == "stub"


async def test_a_server_without_stream_options_is_asked_without_them_from_then_on() -> None:
    async with StubOpenAI(takes_stream_options=False) as server:
        client = openai(server)
        for _ in range(2):
            assert (await answer_of(client.stream(FlowQuestion(text="?")))).text
        await client.aclose()
        assert ["stream_options" in asked for asked in server.asked] == [True, False, False]


async def test_a_request_refused_for_another_reason_keeps_the_option() -> None:
    async with StubOpenAI() as server:
        client = openai(server)
        refusal = Reply.json({"error": {"message": "maximum context length exceeded"}}, status=400)
        server.script.extend([refusal, refusal])
        with pytest.raises(FlowError, match="maximum context length") as caught:
            await answer_of(client.stream(FlowQuestion(text="?")))
        assert caught.value.retry_after_seconds == 0
        assert (await ask(client)).text
        assert ["stream_options" in asked for asked in server.asked] == [True, False, True]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_the_model_had_to_stop_is_incomplete(reason: str, streaming: bool) -> None:
    async with StubOpenAI() as server:
        server.finish_reason = reason
        done = await ask(openai(server, options={"streaming": streaming}))
    assert not done.complete
    assert done.metadata["finish_reason"] == reason


async def test_an_answer_filtered_away_is_none() -> None:
    async with StubOpenAI() as server:
        server.finish_reason = "content_filter"
        server.answer = lambda messages: ""
        with pytest.raises(FlowGarbled, match="content_filter"):
            await ask(openai(server))


async def test_a_stream_cut_anywhere_before_its_end_is_no_answer() -> None:
    async with StubOpenAI() as server:
        whole = server.completion("one two", {"stream": True})
        body = b"".join(whole.pieces)
        for size in range(0, body.index(b'"finish_reason": "stop"'), 37):
            server.script.append(whole.cut_after(size, "close"))
            with pytest.raises(FlowGarbled):
                await ask(openai(server))
        server.script.append(whole.in_pieces_of(1))
        assert (await ask(openai(server))).text == "one two"


async def test_an_error_in_the_middle_of_a_stream() -> None:
    async with StubOpenAI() as server:
        frames = (
            b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n',
            b'data: {"error": {"message": "Rate limit reached for stub"}}\n\n',
        )
        server.script.append(Reply(200, "text/event-stream", frames))
        with pytest.raises(FlowLimited, match="Rate limit reached"):
            await ask(openai(server))


async def test_check_misses_a_model_that_is_not_listed() -> None:
    async with StubOpenAI() as server:
        client = openai(server, model="other")
        health = await client.check()
        await client.aclose()
    assert not health.ok
    assert "does not list the model 'other'" in health.notes[0]


async def test_langflow_streams_bare_json_and_what_has_a_prefix() -> None:
    async with StubLangflow() as server:
        client = langflow(server, options={"streaming": True})
        assert (await ask(client)).text == "You said: Hello there"
        assert server.requests[-1].query == {"stream": "true"}
        result = {"session_id": "c1", "outputs": [{"outputs": [{"results": {"message": {"text": "é"}}}]}]}
        events: list[dict[str, Any]] = [
            {"event": "token", "data": {"chunk": "é"}},
            {"event": "end", "data": {"result": result}},
        ]
        frames = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        server.script.append(Reply(200, "text/event-stream", (frames,)).in_pieces_of(1))
        assert (await ask(langflow(server))).text == "é"


async def test_langflow_stream_without_its_end_is_no_answer() -> None:
    async with StubLangflow() as server:
        frames = (b'{"event": "token", "data": {"chunk": "half an"}}\n\n',)
        server.script.append(Reply(200, "text/event-stream", frames))
        with pytest.raises(FlowGarbled, match="cut off after 7"):
            await ask(langflow(server))


async def test_langflow_error_event() -> None:
    async with StubLangflow() as server:
        frames = (b'{"event": "error", "data": {"error": "Component Model-1 failed"}}\n\n',)
        server.script.append(Reply(200, "text/event-stream", frames))
        with pytest.raises(FlowUnavailable, match="Component Model-1 failed"):
            await ask(langflow(server))


async def test_langflow_session_is_the_conversation() -> None:
    async with StubLangflow() as server:
        done = await ask(langflow(server))
        assert server.asked[0]["session_id"] == "c1"
    assert done.metadata["session_id"] == "c1"


async def test_langflow_revision_ignores_looks_and_sees_changes() -> None:
    async with StubLangflow() as server:
        client = langflow(server)
        first = await client.revision(Revision())
        server.graph["nodes"][0]["position"]["x"] = 500
        server.graph["nodes"].reverse()
        server.graph["viewport"]["zoom"] = 2
        server.graph["edges"][0]["selected"] = True
        assert await client.revision(first) == first
        server.graph["nodes"][0]["data"] = {"template": {"temperature": {"value": 0.9}}}
        assert (await client.revision(first)).digest != first.digest
        await client.aclose()


async def test_langflow_revision_is_nothing_where_the_flow_cannot_be_read() -> None:
    async with StubLangflow(keyed=True) as server:
        for client in (langflow(server, key=""), langflow(server, key="wrong"), langflow(server, "faq")):
            assert await client.revision(Revision()) == Revision()
            await client.aclose()
        gone = langflow(server, "22222222-2222-4222-8222-222222222222")
        with pytest.raises(FlowMissing):
            await gone.revision(Revision())
        await gone.aclose()

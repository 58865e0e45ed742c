"""The Flowise client against recordings of a real Flowise: every recorded reply, every way it can be cut up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
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
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowQuestion,
    FlowSpec,
    Progress,
    Revision,
    SourcesFound,
    TextPart,
)
from agentic_flywheel.model import Exchange
from flowise_replay import FLOWS, KEY, RECORDINGS, SILENCE, Recording, ReplayFlowise, Reply, recorded

pytestmark = pytest.mark.anyio

#: Recorded predictions that are failures; all others are answers.
FAILURES: dict[str, type[FlowError]] = {
    "err_bad_id_not_uuid": FlowMissing,
    "err_invalid_json": FlowError,
    "err_keyed_bad_key": FlowRefused,
    "err_keyed_bad_key_streaming": FlowRefused,
    "err_keyed_no_key": FlowRefused,
    "err_no_id": FlowMissing,
    "err_sessionid_number": FlowUnavailable,
    "err_unknown_id": FlowMissing,
    "err_unknown_id_streaming": FlowTimeout,
    "origin_bad": FlowRefused,
    "origin_bad_stream": FlowRefused,
    "pred_followup": FlowUnavailable,
    "pred_model_err401": FlowRefused,
    "pred_model_err429": FlowLimited,
    "pred_model_err500": FlowUnavailable,
    "pred_model_timeout": FlowTimeout,
    "pred_upload_bad_mime": FlowUnavailable,
    "ratelimit_3": FlowLimited,
    "ratelimit_4": FlowLimited,
    "ratelimit_stream": FlowLimited,
    "stream_followup": FlowUnavailable,
    "stream_model_err401": FlowRefused,
    "stream_model_err429": FlowLimited,
    "stream_model_err500": FlowUnavailable,
}
PREDICTIONS = [name for name, recording in RECORDINGS.items() if "/prediction" in recording.request["path"]]
STREAMS = [name for name in PREDICTIONS if RECORDINGS[name].streamed]


@pytest.fixture
async def server() -> AsyncIterator[ReplayFlowise]:
    async with ReplayFlowise() as replaying:
        yield replaying


def client_of(server: ReplayFlowise, flow_id: str = FLOWS["llm"], key: str = "", **spec: Any) -> FlowiseClient:
    return FlowiseClient(
        FlowSpec(key="flow", id=flow_id, kind="flowise", base_url=server.url, **spec),
        environ={"FLOWISE_API_KEY": key},
        timeout=timedelta(seconds=20),
        check_timeout=timedelta(seconds=20),
        pause=timedelta,
    )


async def events_of(client: FlowiseClient, question: FlowQuestion) -> list[FlowEvent]:
    try:
        return [event async for event in client.stream(question)]
    finally:
        await client.aclose()


async def answer(server: ReplayFlowise, reply: Reply, text: str = "?") -> tuple[list[FlowEvent], AnswerDone]:
    server.queue(FLOWS["llm"], reply)
    events = await events_of(client_of(server), FlowQuestion(text=text, conversation="c1"))
    done = [event for event in events if isinstance(event, AnswerDone)]
    assert len(done) == 1
    assert events[-1] is done[0]
    return events, done[0]


def recorded_text(recording: Recording) -> str:
    """The text of a recorded answer, read the simplest possible way."""
    if recording.streamed:
        return "".join(event["data"] for event in recording.events if event["event"] == "token")
    body = recording.response.get("body") or json.loads(recording.response["body_text"])
    return str(body["text"])


@pytest.mark.parametrize("name", [name for name in PREDICTIONS if name not in FAILURES])
async def test_every_recorded_answer(server: ReplayFlowise, name: str) -> None:
    recording = RECORDINGS[name]
    events, done = await answer(server, recording.reply, recording.question)
    assert done.text == recorded_text(recording) != ""
    assert "".join(event.text for event in events if isinstance(event, TextPart)) == done.text
    assert done.complete
    assert done.metadata["chatMessageId"]


@pytest.mark.parametrize("name", FAILURES)
async def test_every_recorded_failure(server: ReplayFlowise, name: str) -> None:
    recording = RECORDINGS[name]
    server.queue(FLOWS["llm"], recording.reply)
    client = client_of(server)
    if recording.response["status"] is None:
        client._wire._timeout = timedelta(seconds=0.3)
    with pytest.raises(FlowError) as caught:
        await events_of(client, FlowQuestion(text=recording.question, conversation="c1"))
    assert type(caught.value) is FAILURES[name]
    assert caught.value.details["flow"] == "flow"
    assert caught.value.details["address"] == server.url
    assert len(caught.value.suggestions) >= 3
    assert len(server.calls) == 1


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
async def test_a_stream_reads_the_same_however_it_is_cut_up(server: ReplayFlowise, name: str, size: int) -> None:
    outcomes = []
    for reply in (recorded(name), recorded(name).in_pieces_of(size)):
        try:
            outcomes.append(await answer(server, reply))
        except FlowError as error:
            outcomes.append((type(error), error.message))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("plain", "stream"),
    [("pred_toolagent", "stream_toolagent"), ("pred_model_breaks", "stream_model_breaks"), ("pred_rag", "stream_rag")],
)
async def test_stream_and_plain_reply_mean_the_same(server: ReplayFlowise, plain: str, stream: str) -> None:
    assert RECORDINGS[plain].question == RECORDINGS[stream].question
    _, first = await answer(server, recorded(plain))
    _, second = await answer(server, recorded(stream))
    assert first.text == second.text
    assert first.sources == second.sources
    assert first.metadata.get("usedTools") == second.metadata.get("usedTools")


async def test_sources_of_a_retrieval_flow(server: ReplayFlowise) -> None:
    events, done = await answer(server, recorded("stream_rag"))
    (source,) = done.sources
    assert (source.title, source.uri) == ("kb.txt", "kb.txt")
    assert source.excerpt.startswith("Flowise listens on port 3000")
    assert [event.sources for event in events if isinstance(event, SourcesFound)] == [done.sources]


async def test_tools_and_steps_are_progress_and_stay_small(server: ReplayFlowise) -> None:
    events, done = await answer(server, recorded("stream_toolagent"))
    assert [event.event for event in events if isinstance(event, Progress)] == ["usedTools"]
    assert done.metadata["usedTools"][0]["tool"] == "calculator"
    for name in ("stream_agentflow", "pred_agentflow"):
        _, done = await answer(server, recorded(name))
        assert [step["nodeLabel"] for step in done.metadata["steps"]] == ["Start", "LLM"]
        assert done.tokens == (10, 6)
        assert "basepath" not in repr(done)


async def test_an_agentflow_that_shows_a_model_cut_off_is_incomplete(server: ReplayFlowise) -> None:
    for name in ("stream_agentflow", "pred_agentflow"):
        reply = recorded(name)
        body = b"".join(reply.pieces)
        shown = b'"finish_reason":"stop"' if b'"finish_reason":"stop"' in body else b'"finish_reason": "stop"'
        assert shown in body
        cut = Reply(200, reply.content_type, (body.replace(shown, b'"finish_reason":"length"'),))
        _, done = await answer(server, cut)
        assert not done.complete


def event(name: str, payload: Any) -> bytes:
    return b"message:\ndata:%s\n\n" % json.dumps({"event": name, "data": payload}).encode()


def stream(*events: bytes, ending: str = "close") -> Reply:
    return Reply(200, "text/event-stream", events, ending=ending)


async def test_an_answer_that_came_only_with_the_start_is_shown(server: ReplayFlowise) -> None:
    events, done = await answer(
        server, stream(event("start", "all of it"), event("metadata", {}), event("end", "[DONE]"))
    )
    assert done.text == "all of it"
    assert events[0] == TextPart("all of it")


async def test_halves_of_a_character_in_two_tokens(server: ReplayFlowise) -> None:
    reply = stream(event("token", "a\ud83d"), event("token", "\ude00b"), event("end", "[DONE]"))
    _, done = await answer(server, reply)
    assert done.text == "a😀b"


async def test_a_question_of_a_person_is_not_an_answer(server: ReplayFlowise) -> None:
    _, done = await answer(server, Reply.json({"text": "May I?", "action": {"id": "1", "mapping": {"approve": "Yes"}}}))
    assert not done.complete


async def test_structured_output_is_the_text(server: ReplayFlowise) -> None:
    _, done = await answer(server, Reply.json({"json": {"name": "é"}, "chatId": "c"}))
    assert done.text == '{"name": "é"}'


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json({"text": ""}),
        Reply.json({"text": "  \n"}),
        Reply.json({}),
        Reply.json(None),
        Reply.json([1]),
        Reply.json(""),
        Reply(200, "application/json", (b'{"text": "cut o',)),
        Reply(200, "text/html; charset=utf-8", (b"<!DOCTYPE html><title>Sign in</title>",)),
        Reply(302, "text/html", (b"",), {"location": "/login"}),
        stream(event("start", ""), event("end", "[DONE]")),
        stream(event("start", "x"), event("token", "x")),
        stream(event("token", "x"), b"data: not json\n\n"),
        stream(event("token", "x"), event("abort", "[DONE]")),
        stream(),
        stream(event("token", "x"), b'message:\ndata:{"event":"tok'),
    ],
)
async def test_what_is_no_answer_is_garbled(server: ReplayFlowise, reply: Reply) -> None:
    with pytest.raises(FlowGarbled):
        await answer(server, reply)


async def test_every_prefix_of_a_stream_is_refused(server: ReplayFlowise) -> None:
    whole = recorded("stream_toolagent")
    body = b"".join(whole.pieces)
    for size in range(0, body.index(b'{"event":"metadata"'), 23):
        for ending in ("close", "cut"):
            with pytest.raises((FlowGarbled, FlowUnavailable)):
                await answer(server, whole.cut_after(size, ending))


async def test_a_stream_that_falls_silent_ends_in_time_and_shows_what_came(server: ReplayFlowise) -> None:
    server.queue(FLOWS["llm"], recorded("stream_llm").cut_after(200, "hang"))
    client = client_of(server)
    await client._is_streamable(client._wire.deadline())
    client._wire._timeout = timedelta(seconds=0.3)
    shown: list[FlowEvent] = []

    async def show() -> None:
        async for event in client.stream(FlowQuestion(text="?")):
            shown.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(FlowTimeout) as caught:
        await show()
    assert shown
    assert all(isinstance(event, TextPart) for event in shown)
    assert caught.value.details["timeout_seconds"] == 0.3
    assert len(server.calls) == 1
    await client.aclose()


async def test_what_is_sent(server: ReplayFlowise) -> None:
    client = client_of(server, key=KEY, config={"temperature": 0.2, "sessionId": "fixed", "vars": {"tone": "dry"}})
    question = FlowQuestion(
        text="What about mobile?",
        history=(Exchange("What is CCS?", "A school."), Exchange("Where?", "Here.")),
        config={"temperature": 0.9},
        conversation="conv-1",
    )
    await events_of(client, question)
    (asked,) = server.calls
    assert asked.body == {
        "question": "What about mobile?",
        "overrideConfig": {"temperature": 0.9, "vars": {"tone": "dry"}, "sessionId": "conv-1"},
        "chatId": "conv-1",
        "history": [
            {"role": "userMessage", "content": "What is CCS?"},
            {"role": "apiMessage", "content": "A school."},
            {"role": "userMessage", "content": "Where?"},
            {"role": "apiMessage", "content": "Here."},
        ],
        "streaming": True,
    }
    assert asked.headers["authorization"] == f"Bearer {KEY}"


async def test_calls_without_a_conversation_never_meet(server: ReplayFlowise) -> None:
    for _ in range(2):
        await events_of(client_of(server), FlowQuestion(text="?"))
    first, second = (call.body["chatId"] for call in server.calls)
    assert first != second


async def test_a_flow_that_does_not_stream_is_asked_plainly(server: ReplayFlowise) -> None:
    await events_of(client_of(server, FLOWS["nostream"]), FlowQuestion(text="?"))
    await events_of(client_of(server, options={"streaming": False}), FlowQuestion(text="?"))
    assert [call.streaming for call in server.calls] == [False, False]


async def test_whether_a_flow_streams_is_asked_once(server: ReplayFlowise) -> None:
    client = client_of(server)
    for _ in range(3):
        assert [event async for event in client.stream(FlowQuestion(text="?"))]
    await client.aclose()
    assert [request.path for request in server.requests].count(f"/api/v1/chatflows-streaming/{FLOWS['llm']}") == 1


async def test_an_unknown_flow_is_not_asked_to_stream(server: ReplayFlowise) -> None:
    client = client_of(server, "11111111-1111-4111-8111-111111111111")
    with pytest.raises(FlowMissing):
        await events_of(client, FlowQuestion(text="?"))
    assert server.calls == []


async def test_a_flow_deleted_meanwhile_is_noticed(server: ReplayFlowise) -> None:
    client = client_of(server)
    assert [event async for event in client.stream(FlowQuestion(text="?"))]
    server.delete(FLOWS["llm"])
    with pytest.raises(FlowMissing):
        await client.revision(Revision())
    with pytest.raises(FlowMissing):  # the stale knowledge that it streams would make it hang
        await events_of(client, FlowQuestion(text="?"))


async def test_a_key_bound_flow(server: ReplayFlowise) -> None:
    with pytest.raises(FlowRefused) as caught:
        await events_of(client_of(server, FLOWS["keyed"], key="wrong-key-123"), FlowQuestion(text="?"))
    assert "wrong-key-123" not in str(caught.value.as_dict())
    assert (await events_of(client_of(server, FLOWS["keyed"], key=KEY), FlowQuestion(text="?")))[-1]


async def test_a_model_that_refused_is_told_from_a_key_that_was_refused(server: ReplayFlowise) -> None:
    with pytest.raises(FlowRefused) as model:
        await answer(server, recorded("stream_model_err401"))
    with pytest.raises(FlowRefused) as key:
        await answer(server, recorded("err_keyed_no_key"))
    assert "credential that the flow uses in Flowise" in model.value.suggestions[0]
    assert "credential that the flow uses in Flowise" not in str(key.value.suggestions)


async def test_a_rate_limit_says_how_long_to_wait_in_its_own_words(server: ReplayFlowise) -> None:
    with pytest.raises(FlowLimited) as caught:
        await answer(server, recorded("ratelimit_stream"))
    assert caught.value.retry_after_seconds == 8
    assert "Too many requests, slow down" in caught.value.message


@pytest.mark.parametrize("key", ["", KEY, "wrong"])
async def test_the_revision_follows_the_configuration(server: ReplayFlowise, key: str) -> None:
    client = client_of(server, key=key)
    first = await client.revision(Revision())
    assert first.digest
    asked = len(server.requests)
    assert await client.revision(first) is first
    assert all(
        request.headers.get("if-none-match") for request in server.requests[asked:] if request.path[8:11] == "pub"
    )
    server.move(FLOWS["llm"])
    moved = await client.revision(first)
    assert (moved.digest, moved.etag == first.etag) == (first.digest, False)
    server.edit(FLOWS["llm"], temperature=0.1)
    edited = await client.revision(moved)
    assert edited.digest != first.digest
    server.edit(FLOWS["llm"], temperature=0.5)
    assert (await client.revision(edited)).digest == first.digest
    await client.aclose()


async def test_without_a_key_the_public_configuration_is_read(server: ReplayFlowise) -> None:
    client = client_of(server)
    await client.revision(Revision())
    await client.aclose()
    assert [request.path.split("/")[3] for request in server.requests] == ["version", "public-chatbotConfig"]


async def test_another_version_of_flowise_is_another_revision_though_the_flow_is_not_modified(
    server: ReplayFlowise,
) -> None:
    old, new = client_of(server), client_of(server)
    first = await old.revision(Revision())
    server.version = "3.2.0"
    assert (await new.revision(first)).digest != first.digest
    await old.aclose()
    await new.aclose()


@pytest.mark.parametrize("route", ["/api/v1/version", "/api/v1/public-chatbotConfig"])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.json({"message": "boom"}, status=500), FlowUnavailable),
        (recorded("ratelimit_3"), FlowLimited),
        (SILENCE, FlowTimeout),
    ],
)
async def test_a_revision_that_cannot_be_told_is_an_error_not_a_change(
    server: ReplayFlowise, route: str, reply: Reply, kind: type[FlowError]
) -> None:
    client = client_of(server)
    if reply is SILENCE:
        client._wire._check_timeout = timedelta(seconds=0.3)
    server.queue_route(route, reply)
    with pytest.raises(kind):
        await client.revision(Revision("digest", "etag"))
    await client.aclose()


async def test_a_login_page_is_no_revision(server: ReplayFlowise) -> None:
    client = client_of(server)
    server.queue_route("/api/v1/public-chatbotConfig", recorded("spa_fallback"))
    with pytest.raises(FlowGarbled):
        await client.revision(Revision())
    await client.aclose()


async def test_check_says_what_is_there(server: ReplayFlowise) -> None:
    async def checked(client: FlowiseClient) -> tuple[bool, str]:
        health = await client.check()
        await client.aclose()
        return health.ok, " ".join(health.notes)

    ok, notes = await checked(client_of(server, key=KEY))
    assert ok
    assert "Flowise 3.1.4" in notes
    assert "is accepted" in notes
    ok, notes = await checked(client_of(server))
    assert ok
    assert "FLOWISE_API_KEY is not set" in notes
    ok, notes = await checked(client_of(server, key="wrong-key"))
    assert not ok
    assert "not accepted" in notes
    assert "wrong-key" not in notes
    ok, notes = await checked(client_of(server, "11111111-1111-4111-8111-111111111111"))
    assert not ok
    assert "not found" in notes
    server.queue_route("/api/v1/ping", recorded("spa_fallback"))
    ok, notes = await checked(client_of(server))
    assert not ok
    assert "not as Flowise does" in notes


async def test_the_address_of_an_agentflow_is_its_own_canvas(server: ReplayFlowise) -> None:
    client = client_of(server, FLOWS["agentflow"], key=KEY)
    assert client.address == f"{server.url}/canvas/{FLOWS['agentflow']}"
    await client.revision(Revision())
    assert client.address == f"{server.url}/v2/agentcanvas/{FLOWS['agentflow']}"
    await client.aclose()

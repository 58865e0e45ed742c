"""Flowise's clients in front of `afw serve`, a Flowise as recorded behind it: the same bytes, and then from memory."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from flowise import Flowise, PredictionData

from afw_command import Afw
from agentic_flywheel.interfaces.http.flowise import routes
from flowise_replay import FLOWS, KEY, RECORDINGS, ReplayFlowise, Reply
from flowise_replay.recorded import Recording
from http_app import app_on, client_of
from http_process import HttpServer, served
from servers import Server, Servers, wait_until

pytestmark = pytest.mark.xdist_group("flowise_proxy")

_IDS = re.compile(rb'"(chatId|sessionId|chatMessageId|executionId)":"[^"]*"')
#: What was sent as no question: refused here, where Flowise asks its model "undefined".
NO_QUESTION = {
    "err_empty_body", "err_question_array", "err_question_empty", "err_question_null", "err_question_number",
    "err_text_body", "err_sessionid_number",
}  # fmt: skip
PREDICTIONS = [
    r
    for r in RECORDINGS.values()
    if r.request["method"] == "POST" and "/prediction/" in r.request["path"] and isinstance(r.request.get("body"), dict)
    and r.response["status"] is not None and r.name not in NO_QUESTION and "multipart" not in r.request["body"]
]  # fmt: skip

#: Pages that the service lets in; whether a flow does is Flowise's to say.
ORIGINS = {"https://page.example", "https://good.example.com", "https://evil.example.com"} | {
    r.request["headers"]["origin"] for r in PREDICTIONS if "origin" in r.request.get("headers", {})
}


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


@pytest.fixture(scope="module")
def running(flowise: ReplayFlowise, tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[HttpServer]:
    home = Afw(tmp_path_factory.mktemp("flowise"), servers.get("valkey9").url)
    home.environ |= {"AFW_SERVE_FLOWISE_URL": flowise.url, "AFW_SERVE_ORIGINS": ",".join(ORIGINS)}
    with served(home) as server:
        yield server


@pytest.fixture
def client(running: HttpServer, flowise: ReplayFlowise, valkey: Server) -> Iterator[httpx2.Client]:
    """With an empty Redis, and nothing asked of Flowise yet."""
    flowise.calls.clear()
    flowise.requests.clear()
    with running.client() as client:
        yield client


def predict(client: httpx2.Client, flow: str, question: Any, **body: Any) -> httpx2.Response:
    headers = body.pop("headers", {})
    return client.post(f"/api/v1/prediction/{FLOWS[flow]}", json={"question": question, **body}, headers=headers)


def without_ids(body: bytes) -> bytes:
    return _IDS.sub(rb'"\1":"*"', body)


def events_of(body: bytes) -> list[dict[str, Any]]:
    assert all(line in {"", "message:"} or line.startswith("data:") for line in body.decode().split("\n"))
    return [json.loads(line[5:]) for line in body.decode().split("\n") if line.startswith("data:")]


@pytest.mark.parametrize("recording", PREDICTIONS, ids=lambda r: r.name)
def test_every_recorded_prediction_comes_through_and_then_from_memory(
    recording: Recording, client: httpx2.Client, flowise: ReplayFlowise
) -> None:
    if recording.flow_id not in flowise.flows and recording.response["status"] != 404:
        flowise.add(recording.flow_id)
    flow = flowise.flows.get(recording.flow_id)
    if flow is not None:
        flow.streamable = streams(recording.flow_id)
    reply = compact(recording)
    flowise.queue(recording.flow_id, reply)
    path, headers = recording.request["path"], recording.request.get("headers", {})
    first = client.post(path, json=recording.request["body"], headers=headers)
    expected = b"".join(reply.pieces)
    flowise._scripts[recording.flow_id].clear()
    assert first.status_code == recording.response["status"]
    if first.headers.get("x-afw-outcome") == "passed":  # the recorded words, from a server that sets its own spaces
        assert first.json() == json.loads(expected)
        return
    assert without_ids(first.content) == without_ids(expected)
    assert first.headers["content-type"] == recording.response["headers"]["content-type"]
    if first.headers.get("x-afw-outcome") != "miss" or not first.is_success or ended_badly(recording):
        return
    body = recording.request["body"]
    if (
        body.get("chatId")
        or "sessionId" in body.get("overrideConfig", {})
        or "my" in body["question"].casefold().split()
    ):
        return  # the next question would be a follow-up of this one; words about oneself are kept for the session
    calls = len(flowise.calls)
    kept = client.post(path, json=recording.request["body"], headers={**headers, "Cache-Control": "only-if-cached"})
    assert kept.headers["x-afw-outcome"] == "hit"
    assert without_ids(kept.content) == without_ids(expected)
    assert len(flowise.calls) == calls


def compact(recording: Recording) -> Reply:
    """The reply as it went over the wire: recordings hold bodies of JSON as what they say."""
    reply = recording.reply
    if recording.streamed:  # heartbeats come by the clock, to whoever listens then
        pieces = b"".join(reply.pieces).replace(b":heartbeat\n\n", b"")
        return Reply(reply.status, reply.content_type, (pieces,), reply.headers)
    if "body" not in recording.response:
        return reply
    body = json.dumps(recording.response["body"], ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(reply.status, reply.content_type, (body,), reply.headers)


def streams(flow_id: str) -> bool:
    """Whether Flowise streams the flow, as far as it was recorded."""
    asked = [r for r in PREDICTIONS if r.flow_id == flow_id and r.request["body"].get("streaming")]
    return not asked or any(r.streamed for r in asked)


def ended_badly(recording: Recording) -> bool:
    return recording.streamed and any(event["event"] == "error" for event in recording.events)


def test_the_same_question_is_asked_once_and_ids_are_of_the_call(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    first = predict(client, "llm", "How long are answers kept?", chatId="mine").json()
    again = predict(client, "llm", "how long are ANSWERS kept")
    other = again.json()
    assert len(flowise.calls) == 1
    assert (first["chatId"], first["sessionId"]) == ("mine", "mine")
    assert other["text"] == first["text"]
    assert other["question"] == "how long are ANSWERS kept"
    assert other["chatId"] == other["sessionId"] != first["chatId"]
    assert other["chatMessageId"] != first["chatMessageId"]
    assert list(other) == list(first)
    assert again.headers["x-afw-outcome"] == "hit"
    assert again.headers["age"].isdigit()
    assert "afw-" not in again.text
    assert flowise.calls[0].body["chatId"] != "mine"  # two calls never share a conversation at Flowise


@pytest.mark.anyio
async def test_who_waits_for_a_model_hears_that_somebody_is_there(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.05)
    sent: list[bytes] = []
    asked = json.dumps({"question": "Are you there?", "streaming": True}).encode()
    with ReplayFlowise() as flowise:
        async with app_on(valkey, tmp_path, serve_flowise_url=flowise.url) as app:
            request = iter([{"type": "http.request", "body": asked, "more_body": False}])
            gone = asyncio.Event()

            async def receive() -> Any:
                for message in request:
                    return message
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message.get("body", b""))
                if sent.count(b":heartbeat\n\n") == 2:
                    flowise.release()

            path = f"/api/v1/prediction/{FLOWS['llm']}"
            headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
            flowise.hold()
            async with asyncio.timeout(60):
                await app(scope | {"headers": headers, "http_version": "1.1", "scheme": "http"}, receive, send)
    told = b"".join(sent)
    assert told.count(b":heartbeat\n\n") >= 2
    assert told.replace(b":heartbeat\n\n", b"").startswith(b'message:\ndata:{"event":"start"')
    assert told.endswith(b'message:\ndata:{"event":"end","data":"[DONE]"}\n\n')


def test_a_stream_is_replayed_event_by_event(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    for flow in ("llm", "toolagent", "rag"):
        first = predict(client, flow, "Tell me", streaming=True)
        again = predict(client, flow, "tell me", streaming=True, overrideConfig={"sessionId": f"here-{flow}"})
        assert first.headers["content-type"] == again.headers["content-type"] == "text/event-stream"
        told, replayed = events_of(first.content), events_of(again.content)
        assert [event["event"] for event in told] == [event["event"] for event in replayed]
        metadata = next(event["data"] for event in replayed if event["event"] == "metadata")
        assert (metadata["sessionId"], metadata["chatId"], metadata["question"]) == (f"here-{flow}",) * 2 + ("tell me",)
        assert [e for e in told if e["event"] != "metadata"] == [e for e in replayed if e["event"] != "metadata"]
        assert b"afw-" not in first.content + again.content
    assert len(flowise.calls) == 3


def test_a_plain_answer_streams_and_a_streamed_one_comes_whole(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    whole = predict(client, "rag", "In one piece").json()
    told = events_of(predict(client, "rag", "in one piece", streaming=True).content)
    assert "".join(event["data"] for event in told if event["event"] == "token") == whole["text"]
    assert [e["event"] for e in told if e["event"] != "token"] == ["start", "sourceDocuments", "metadata", "end"]
    streamed = events_of(predict(client, "rag", "In pieces", streaming=True).content)
    text = "".join(event["data"] for event in streamed if event["event"] == "token")
    again = predict(client, "rag", "in pieces").json()
    assert text.endswith(again["text"][-20:])
    assert again["sourceDocuments"] == whole["sourceDocuments"]
    assert {"question", "chatId", "chatMessageId", "sessionId"} <= set(again)
    assert len(flowise.calls) == 2


def test_follow_ups_carry_their_conversation(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    for question in ("How do I log in?", "And on mobile?"):
        predict(client, "conv", question, chatId="widget-1")
    assert flowise.calls[0].history == []
    assert [m["content"] for m in flowise.calls[1].history][:1] == ["How do I log in?"]
    assert predict(client, "conv", "And on mobile?", chatId="widget-2").headers["x-afw-outcome"] == "miss"


def test_streams_of_one_chat_id_do_not_meet(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    flowise.hold()
    answers: dict[str, str] = {}

    def ask(question: str) -> None:
        told = events_of(predict(client, "llm", question, chatId="same", streaming=True).content)
        answers[question] = "".join(event["data"] for event in told if event["event"] == "token")

    asking = [threading.Thread(target=ask, args=(question,)) for question in ("First?", "Second?")]
    for thread in asking:
        thread.start()
    wait_until(lambda: flowise.waiting == 2, "both to be asked")
    flowise.release()
    for thread in asking:
        thread.join(60)
    assert all(answers[question].endswith(question) for question in ("First?", "Second?"))
    assert len({call.body["chatId"] for call in flowise.calls}) == 2


def test_a_key_that_decides_is_part_of_what_is_kept(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    with_key = {"Authorization": f"Bearer {KEY}"}
    refused = predict(client, "keyed", "The secret?")
    assert refused.status_code == 500
    assert "Unauthorized" in refused.json()["message"]
    assert predict(client, "keyed", "The secret?", headers=with_key).headers["x-afw-outcome"] == "miss"
    assert predict(client, "keyed", "the secret", headers=with_key).headers["x-afw-outcome"] == "hit"
    assert predict(client, "keyed", "The secret?").status_code == 500
    assert predict(client, "keyed", "The secret?", headers={"Authorization": "Bearer other"}).status_code == 500
    told = events_of(predict(client, "keyed", "The secret?", streaming=True).content)
    assert [event["event"] for event in told] == ["error", "end"]


def test_no_key_is_kept_anywhere(client: httpx2.Client, valkey: Server) -> None:
    assert predict(client, "keyed", "Where is it?", headers={"Authorization": f"Bearer {KEY}"}).is_success
    with valkey.client() as redis:
        for key in redis.keys("*"):
            assert KEY.encode() not in key + (redis.dump(key) or b"")


def test_pages_that_a_flow_does_not_name_are_flowises_to_refuse(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    flow = flowise.add("e313acf0-0000-4234-80bd-c4f4be0405d1")
    flow.chatflow["chatbotConfig"] = json.dumps({"allowedOrigins": ["good.example.com"]})
    body = {"question": "What is the capital?"}
    path = "/api/v1/prediction/e313acf0-0000-4234-80bd-c4f4be0405d1"
    good = client.post(path, json=body, headers={"Origin": "https://good.example.com"})
    assert good.headers["x-afw-outcome"] == "miss"
    flowise.queue("e313acf0-0000-4234-80bd-c4f4be0405d1", RECORDINGS["origin_bad"].reply)
    bad = client.post(path, json=body, headers={"Origin": "https://evil.example.com"})
    assert (bad.status_code, bad.headers["x-afw-outcome"]) == (403, "passed")
    assert flowise.requests[-1].headers["origin"] == "https://evil.example.com"


@pytest.mark.parametrize(
    "more",
    [
        {"uploads": [{"type": "url", "name": "n", "data": "https://x"}]},
        {"form": {"name": "ann"}},
        {"action": {"id": "1"}},
        {"humanInput": {"type": "proceed"}},
        {"leadEmail": "a@example.com"},
        {"history": [{"message": "hi", "type": "apiMessage"}]},
        {"history": [{"role": ["userMessage"], "content": "hi"}]},
        {"history": [{"role": {}, "content": "hi"}]},
        {"overrideConfig": {"systemMessage": "Be brief. " * 100_000}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_more_than_a_question_goes_to_flowise_as_it_is(
    client: httpx2.Client, flowise: ReplayFlowise, more: dict[str, Any]
) -> None:
    for _ in range(2):
        reply = predict(client, "llm", "What is it?", **more)
        assert reply.headers["x-afw-outcome"] == "passed"
    assert [dict(call.body) for call in flowise.calls] == [{"question": "What is it?", **more}] * 2


def test_files_go_through_untouched(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    path = f"/api/v1/prediction/{FLOWS['llm']}"
    flowise.queue_route(path, RECORDINGS["pred_multipart_file"].reply)
    reply = client.post(path, data={"question": "What is in it?"}, files={"files": ("note.txt", b"some text " * 9000)})
    assert reply.status_code == 200
    sent = flowise.requests[-1]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.body.count(b"some text ") == 9000


#: Predictions that were recorded and do not come through as they are, and what comes instead. The one with a file has a
#: test of its own.
OTHERWISE = dict.fromkeys(NO_QUESTION, "refused") | {
    "err_invalid_json": "passed",
    "err_unknown_id_streaming": "refused",  # Flowise never answers that one
    "pred_form_urlencoded": "replayed",
    "pred_multipart_file": "passed",
}


def test_every_recorded_prediction_is_accounted_for() -> None:
    recorded = {r.name for r in RECORDINGS.values() if "/prediction/" in r.request["path"]}
    replayed = {r.name for r in PREDICTIONS}
    assert recorded == replayed | set(OTHERWISE)
    assert not replayed & set(OTHERWISE)
    assert (len(recorded), len(replayed), sum(r.streamed for r in PREDICTIONS)) == (76, 65, 15)


@pytest.mark.parametrize("name", sorted(set(OTHERWISE) - {"pred_multipart_file"}))
def test_what_does_not_come_through_as_it_is_comes_as_said(
    client: httpx2.Client, flowise: ReplayFlowise, name: str
) -> None:
    recording, what = RECORDINGS[name], OTHERWISE[name]
    request = recording.request
    path, text = request["path"], request.get("body_text")
    kind = {"pred_form_urlencoded": "application/x-www-form-urlencoded", "err_text_body": "text/plain"}.get(name)
    content = json.dumps(request["body"]) if text is None else text
    if what != "refused":
        flowise.queue(recording.flow_id, recording.reply)
    reply = client.post(path, content=content, headers={"Content-Type": kind or "application/json"})
    flowise._scripts.get(recording.flow_id, deque()).clear()
    if what == "refused":
        assert reply.status_code in {400, 404}
        assert flowise.calls == []
        return
    assert reply.status_code == recording.response["status"]
    assert reply.headers["content-type"] == recording.response["headers"]["content-type"]
    assert without_ids(reply.content) == without_ids(recording.response["body_text"].encode())
    if what == "replayed":
        again = client.post(path, content=content, headers={"Content-Type": kind or ""})
        assert again.headers["x-afw-outcome"] == "hit"
        assert without_ids(again.content) == without_ids(reply.content)


@pytest.mark.parametrize("name", sorted(n for n, r in RECORDINGS.items() if "/prediction/" not in r.request["path"]))
def test_what_was_recorded_beside_predictions_is_passed_on_as_it_is(
    client: httpx2.Client, flowise: ReplayFlowise, name: str
) -> None:
    recording = RECORDINGS[name]
    path = recording.request["path"]
    if not path.startswith("/api/v1/"):  # Flowise's own pages are not served here
        assert client.get(path).status_code == 404
        return
    reply = recording.reply
    flowise.queue_route(path, reply)
    answer = client.get(path, headers=recording.request.get("headers", {}))
    assert answer.status_code == recording.response["status"]
    assert answer.headers["content-type"] == recording.response["headers"]["content-type"]
    assert answer.content == b"".join(reply.pieces)
    assert answer.headers["x-afw-outcome"] == "passed"


@pytest.mark.parametrize("body", [b"{}", b"[]", b'"text"', b"1", b"null", b'{"question": null}', b'{"question": 5}',
                                  b'{"question": " "}', b'{"question": "q", "chatId": 5}',
                                  b'{"question": "q", "overrideConfig": []}x'])  # fmt: skip
def test_what_is_no_question_never_reaches_a_model(client: httpx2.Client, flowise: ReplayFlowise, body: bytes) -> None:
    reply = client.post(
        f"/api/v1/prediction/{FLOWS['llm']}", content=body, headers={"content-type": "application/json"}
    )
    if body.endswith(b"x"):  # not JSON at all: Flowise says so itself
        assert reply.headers["x-afw-outcome"] == "passed"
        return
    assert reply.status_code == 400
    assert reply.json()["success"] is False
    assert reply.json()["message"]
    assert flowise.calls == []


def test_everything_else_is_passed_on(client: httpx2.Client, flowise: ReplayFlowise) -> None:
    assert client.get("/api/v1/ping").text == "pong"
    streams = client.get(f"/api/v1/chatflows-streaming/{FLOWS['llm']}")
    assert streams.json() == {"isStreaming": True}
    assert client.get(f"/api/v1/chatflows/{FLOWS['llm']}").status_code == 401
    shown = client.get(f"/api/v1/chatflows/{FLOWS['llm']}", headers={"Authorization": f"Bearer {KEY}"})
    assert shown.json()["id"] == FLOWS["llm"]
    tag = {"If-None-Match": shown.headers["etag"], "Authorization": f"Bearer {KEY}"}
    assert client.get(f"/api/v1/chatflows/{FLOWS['llm']}", headers=tag).status_code == 304
    put = client.put("/api/v1/feedback/1?x=%C3%A9&y=1", content=b"{}", headers={"Cookie": "afw_key=x; theirs=y"})
    assert put.status_code == 200
    seen = flowise.requests[-1]
    assert (seen.method, seen.path, dict(seen.query)) == ("PUT", "/api/v1/feedback/1", {"x": "é", "y": "1"})
    assert "cookie" not in seen.headers
    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    allowed = client.request("OPTIONS", f"/api/v1/prediction/{FLOWS['llm']}", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"


@pytest.mark.parametrize("path", ["/api/v1/../admin", "/api/v1/%2e%2e/admin", "/api/v1/a/..%2f..%2fb", "/api/v1//x"])
def test_a_path_cannot_leave_the_interface(
    running: HttpServer, flowise: ReplayFlowise, valkey: Server, path: str
) -> None:

    before = len(flowise.requests)
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc)
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()
    assert len(flowise.requests) == before


def test_a_flow_that_flowise_does_not_know_is_said_at_once(client: httpx2.Client) -> None:
    path = "/api/v1/prediction/00000000-0000-4000-8000-000000000000"
    plain = client.post(path, json={"question": "Is there anybody?"})
    assert plain.status_code == 404, plain.text
    assert "not found" in plain.json()["message"]
    streamed = client.post(path, json={"question": "Is there anybody?", "streaming": True})  # Flowise would hang
    assert streamed.status_code == 404


def test_a_changed_flow_is_asked_again(client: httpx2.Client, flowise: ReplayFlowise, running: HttpServer) -> None:
    flow = flowise.add("11111111-2222-4333-8444-555555555555")
    path = "/api/v1/prediction/11111111-2222-4333-8444-555555555555"
    assert client.post(path, json={"question": "How warm?"}).headers["x-afw-outcome"] == "miss"
    assert client.post(path, json={"question": "How warm?"}).headers["x-afw-outcome"] == "hit"
    flowise.edit("11111111-2222-4333-8444-555555555555", temperature=0.9)
    asked = {"question": "How warm?"}
    # Within `check_every` (5 s) at the latest.
    wait_until(lambda: client.post(path, json=asked).headers["x-afw-outcome"] != "hit", "the change to be seen")
    assert flow.input("temperature") == 0.9
    assert len([call for call in flowise.calls if call.question == "How warm?"]) == 2


def test_the_python_client_of_flowise_runs_unchanged(
    client: httpx2.Client, flowise: ReplayFlowise, running: HttpServer
) -> None:
    sdk = Flowise(base_url=running.url, api_key=KEY)
    for question in ("Who are you?", "who are you"):
        (plain,) = sdk.create_prediction(PredictionData(chatflowId=FLOWS["llm"], question=question, streaming=False))
        assert plain["text"].endswith("Who are you?")
        told = sdk.create_prediction(PredictionData(chatflowId=FLOWS["llm"], question=question, streaming=True))
        events = [json.loads(event) for event in told]
        assert "".join(e["data"] for e in events if e["event"] == "token").endswith("Who are you?")
        assert events[-1]["event"] == "end"
    assert len(flowise.calls) == 1


def test_who_tries_ids_leaves_no_client_open(flowise: ReplayFlowise, valkey: Server, tmp_path: Path) -> None:
    async def tried() -> int:
        async with app_on(valkey, tmp_path, serve_flowise_url=flowise.url) as app, client_of(app) as client:
            for number in range(5):
                path = f"/api/v1/prediction/99999999-2222-4333-8444-{number:012d}"
                missing = await client.post(path, json={"question": "Is there anybody?"})
                assert "not found" in missing.json()["message"]
            assert (await client.post(f"/api/v1/prediction/{FLOWS['llm']}", json={"question": "You?"})).is_success
            return len(app.service.home._clients._kept)

    assert asyncio.run(tried()) == 1

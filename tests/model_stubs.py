"""Small services for the other kinds that are asked over HTTP: an OpenAI-compatible endpoint, and a Langflow."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from flowise_replay import LoopbackServer, Reply, Request

KEY = "stub-service-key"


class StubOpenAI(LoopbackServer):
    """`/v1/chat/completions` and `/v1/models` with one model, `stub`. `keyed` makes it refuse other keys than `KEY`."""

    def __init__(self, *, keyed: bool = False, takes_stream_options: bool = True) -> None:
        super().__init__()
        self.keyed = keyed
        self.takes_stream_options = takes_stream_options
        self.answer: Callable[[list[dict[str, str]]], str] = lambda messages: f"You said: {messages[-1]['content']}"
        self.finish_reason = "stop"
        self.asked: list[dict[str, Any]] = []
        self.script: deque[Reply] = deque()

    async def respond(self, request: Request) -> Reply:
        if self.keyed and request.headers.get("authorization") != f"Bearer {KEY}":
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            return _openai_error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        if request.path == "/v1/models":
            return Reply.json({"object": "list", "data": [{"id": "stub", "object": "model"}]})
        if request.path != "/v1/chat/completions":
            return _openai_error(404, f"Unknown request URL: {request.method} {request.path}", "unknown_url")
        body = request.json()
        self.asked.append(body)
        if self.script:
            return self.script.popleft()
        if body["model"] != "stub":
            return _openai_error(404, f"The model `{body['model']}` does not exist", "model_not_found")
        if "stream_options" in body and not self.takes_stream_options:
            return _openai_error(400, "Unrecognized request argument supplied: stream_options", "unknown_parameter")
        return self.completion(self.answer(body["messages"]), body)

    def completion(self, text: str, body: dict[str, Any]) -> Reply:
        head = {"id": "chatcmpl-1", "model": "stub", "object": "chat.completion"}
        usage = {"prompt_tokens": 3, "completion_tokens": len(text.split()), "total_tokens": 3 + len(text.split())}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
            return Reply.json(head | {"choices": [choice], "usage": usage})
        head["object"] += ".chunk"
        chunks: list[dict[str, Any]] = [head | {"choices": [_delta({"role": "assistant", "content": ""})]}]
        chunks += [head | {"choices": [_delta({"content": word})]} for word in _words(text)]
        chunks.append(head | {"choices": [_delta({}, self.finish_reason)]})
        if "stream_options" in body:
            chunks.append(head | {"choices": [], "usage": usage})
        frames = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
        return Reply(200, "text/event-stream; charset=utf-8", (*frames, b"data: [DONE]\n\n"))


class StubLangflow(LoopbackServer):
    """`/api/v1/run/{id}`, `/api/v1/flows/{id}` and `/api/v1/version` with one flow, `FLOW_ID`, also called `faq`."""

    FLOW_ID = "0c1f3f0e-5a5e-4b0e-9d5c-0d8f0a7c2b11"

    def __init__(self, *, keyed: bool = False) -> None:
        super().__init__()
        self.keyed = keyed
        self.answer: Callable[[dict[str, Any]], str] = lambda body: f"You said: {body['input_value']}"
        self.asked: list[dict[str, Any]] = []
        self.script: deque[Reply] = deque()
        self.graph: dict[str, Any] = {
            "nodes": [
                {"id": "ChatInput-1", "position": {"x": 0, "y": 0}, "data": {"type": "ChatInput"}},
                {"id": "Model-1", "position": {"x": 9, "y": 0}, "data": {"template": {"temperature": {"value": 0.5}}}},
            ],
            "edges": [{"source": "ChatInput-1", "target": "Model-1", "selected": False}],
            "viewport": {"x": 0, "y": 0, "zoom": 1},
        }

    async def respond(self, request: Request) -> Reply:
        if request.path == "/api/v1/version":
            return Reply.json({"version": "1.7.0", "package": "Langflow"})
        if self.keyed and request.headers.get("x-api-key") != KEY:
            return Reply.json({"detail": "Invalid or missing API key"}, status=403)
        route, _, name = request.path.removeprefix("/api/v1/").partition("/")
        if name not in {self.FLOW_ID, "faq"} or (route == "flows" and name == "faq"):
            return Reply.json({"detail": f"Flow identifier {name} not found"}, status=404)
        if route == "flows":
            return Reply.json({"id": self.FLOW_ID, "name": "FAQ", "data": self.graph})
        body = request.json()
        self.asked.append(body)
        if self.script:
            return self.script.popleft()
        text = self.answer(body)
        message = {"text": text, "sender": "Machine", "session_id": body["session_id"]}
        inner = {"results": {"message": message}, "component_id": "ChatOutput-1"}
        result = {
            "session_id": body["session_id"],
            "outputs": [{"inputs": {"input_value": body["input_value"]}, "outputs": [inner]}],
        }
        if request.query.get("stream") != "true":
            return Reply.json(result)
        events = [{"event": "add_message", "data": {"text": body["input_value"], "sender": "User"}}]
        events += [{"event": "token", "data": {"chunk": word, "id": "m1"}} for word in _words(text)]
        events.append({"event": "end", "data": {"result": result}})
        return Reply(200, "text/event-stream", tuple(f"{json.dumps(event)}\n\n".encode() for event in events))


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + words[-1:]


def _openai_error(status: int, message: str, code: str) -> Reply:
    return Reply.json({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status=status)

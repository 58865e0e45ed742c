"""The replaying server: Flowise's routes, errors and streams over flows that tests can edit."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import re
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .loopback import SILENCE, LoopbackServer, Reply, Request
from .recorded import RECORDINGS, recorded

#: The API key that may read chatflows and ask keyed flows.
KEY = "replay-flowise-key"
#: Flows by what is special about them, with the ids that they have in the recordings.
FLOWS = {
    "llm": "d19a68c8-f2ef-4772-aacf-4cb45cc855c0",
    "conv": "3115d8d7-bd58-4129-bcef-529b8a13cb39",
    "nostream": "aac9434a-9f94-4a02-a5c5-4af5344420a4",
    "toolagent": "94300400-2ab5-49b4-bd2b-b0dbe4245288",
    "agentflow": "6d2ab953-5c08-47e3-9c7f-bed9d325883d",
    "rag": "95038cd9-b6af-4f35-a89c-83d8fca964d4",
    "keyed": "9385e5ec-c3e0-46b8-af23-b9f190b251ee",
}


@dataclass(frozen=True)
class Asked:
    """One prediction as it arrived. `call` counts the predictions of this flow, from 1."""

    flow_id: str
    question: str
    history: list[dict[str, Any]]
    config: Mapping[str, Any]
    call: int
    temperature: Any
    streaming: bool
    body: Mapping[str, Any]
    headers: Mapping[str, str]


def default_answer(asked: Asked) -> str:
    """Says what the answer depends on, so that a wrong one shows."""
    return (
        f"Answer {asked.call} at temperature {asked.temperature} after {len(asked.history)} messages: {asked.question}"
    )


@dataclass
class Flow:
    """A chatflow as Flowise keeps it; `chatflow` is what `GET /chatflows/{id}` gives."""

    chatflow: dict[str, Any]
    streamable: bool = True
    keyed: bool = False
    sources: list[dict[str, Any]] = field(default_factory=list)
    used_tools: list[dict[str, Any]] = field(default_factory=list)

    @property
    def graph(self) -> dict[str, Any]:
        return dict(json.loads(self.chatflow["flowData"]))

    @graph.setter
    def graph(self, graph: dict[str, Any]) -> None:
        self.chatflow["flowData"] = json.dumps(graph)

    def input(self, name: str) -> Any:
        return next((n["data"]["inputs"][name] for n in self.graph["nodes"] if name in n["data"]["inputs"]), None)

    def public(self) -> dict[str, Any]:
        """What Flowise shows of the flow to everybody."""
        graph = self.graph
        for node in graph["nodes"]:
            node["data"].pop("credential", None)
        shown = copy.deepcopy(RECORDINGS["public_chatbotconfig_private"].response["body"])
        return {**json.loads(self.chatflow["chatbotConfig"] or "{}"), **shown, "flowData": json.dumps(graph)}


class ReplayFlowise(LoopbackServer):
    """See the package. Every control acts from the next request on."""

    def __init__(self, *, port: int = 0, answer: Callable[[Asked], str] = default_answer) -> None:
        super().__init__(port=port)
        self.answer = answer
        self.version = "3.1.4"
        self.flows: dict[str, Flow] = {}
        self.calls: list[Asked] = []
        self.waiting = 0
        self._scripts: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._route_scripts: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._gate = asyncio.Event()
        self._gate.set()
        for name, flow_id in FLOWS.items():
            self.add(flow_id, streamable=name != "nostream", keyed=name == "keyed")
        self.flows[FLOWS["agentflow"]].chatflow["type"] = "AGENTFLOW"
        self.flows[FLOWS["rag"]].sources = RECORDINGS["pred_rag"].response["body"]["sourceDocuments"]
        self.flows[FLOWS["toolagent"]].used_tools = RECORDINGS["pred_toolagent"].response["body"]["usedTools"]

    def add(self, flow_id: str, *, streamable: bool = True, keyed: bool = False) -> Flow:
        """Make a flow known, a copy of the recorded LLM chain."""
        chatflow = copy.deepcopy(RECORDINGS["chatflow_get"].response["body"]) | {"id": flow_id}
        self.flows[flow_id] = Flow(chatflow, streamable, keyed)
        return self.flows[flow_id]

    def edit(self, flow_id: str, **inputs: Any) -> None:
        """Change inputs of nodes, such as `temperature` or `template` (the prompt)."""
        flow = self.flows[flow_id]
        graph = flow.graph
        for name, value in inputs.items():
            nodes = [node for node in graph["nodes"] if name in node["data"]["inputs"]]
            if not nodes:
                raise KeyError(f"no node has the input {name!r}")
            for node in nodes:
                node["data"]["inputs"][name] = value
        flow.graph = graph

    def move(self, flow_id: str) -> None:
        """Move, select and reorder nodes: only looks."""
        flow = self.flows[flow_id]
        graph = flow.graph
        for node in graph["nodes"]:
            node["position"]["x"] += 100
            node["selected"] = not node["selected"]
        graph["nodes"].reverse()
        graph["viewport"] = {"x": 7, "y": 7, "zoom": 2}
        flow.graph = graph

    def delete(self, flow_id: str) -> None:
        del self.flows[flow_id]

    def queue(self, flow_id: str, *replies: Reply) -> None:
        """Replies of the next predictions of the flow, instead of an answer."""
        self._scripts[flow_id].extend(replies)

    def queue_route(self, path_prefix: str, *replies: Reply) -> None:
        """Replies of the next requests whose path begins so, whatever they ask."""
        self._route_scripts[path_prefix].extend(replies)

    def hold(self) -> None:
        """Let predictions wait (counted by `waiting`) until `release`."""
        self._gate.clear()

    def release(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._gate.set)

    async def respond(self, request: Request) -> Reply:
        for prefix, replies in self._route_scripts.items():
            if request.path.startswith(prefix) and replies:
                return replies.popleft()
        if request.path.startswith("/replay/"):
            return self._control(request)
        if request.path in {"/api/v1/prediction", "/api/v1/prediction/"}:
            return recorded("err_no_id")
        route, _, flow_id = request.path.removeprefix("/api/v1/").partition("/")
        match request.method, route:
            case "POST", "prediction":
                return await self._predict(flow_id, request)
            case "GET", "chatflows-streaming":
                flow = self.flows.get(flow_id)
                return (
                    Reply.json({"isStreaming": flow.streamable})
                    if flow
                    else _renamed("chatflows_streaming_unknown", flow_id)
                )
            case "GET", "chatflows":
                if not _has_key(request):
                    return recorded("chatflow_get_noauth")
                flow = self.flows.get(flow_id)
                return _tagged(flow.chatflow, request) if flow else _renamed("chatflow_get_unknown", flow_id)
            case "GET", "public-chatbotConfig":
                flow = self.flows.get(flow_id)
                return _tagged(flow.public(), request) if flow else _renamed("public_chatbotconfig_unknown", flow_id)
            case "GET", "version":
                return Reply.json({"version": self.version})
            case "GET", "ping":
                return recorded("ping")
        return recorded("spa_fallback")

    async def _predict(self, flow_id: str, request: Request) -> Reply:
        try:
            body = request.json() or {}
        except ValueError:
            return recorded("err_invalid_json")
        body = body if isinstance(body, dict) else {}
        streaming = body.get("streaming") in {True, "true"}
        flow = self.flows.get(flow_id)
        asked = Asked(
            flow_id=flow_id,
            question=str(body.get("question", "undefined")),
            history=body.get("history") or [],
            config=body.get("overrideConfig") or {},
            call=1 + sum(call.flow_id == flow_id for call in self.calls),
            temperature=flow.input("temperature") if flow else None,
            streaming=streaming,
            body=body,
            headers=request.headers,
        )
        self.calls.append(asked)
        self.waiting += 1
        try:
            await self._gate.wait()
        finally:
            self.waiting -= 1
        if self._scripts[flow_id]:
            return self._scripts[flow_id].popleft()
        if flow is None:
            if not _is_uuid(flow_id):
                return recorded("err_bad_id_not_uuid")
            return SILENCE if streaming else _renamed("err_unknown_id", flow_id)
        if flow.keyed and not _has_key(request):
            return recorded("err_keyed_bad_key_streaming" if streaming else "err_keyed_no_key")
        answer = self.answer(asked)
        if streaming and flow.streamable:
            return Reply(200, "text/event-stream", tuple(_frames(flow, asked, answer)), {"cache-control": "no-cache"})
        whole: dict[str, Any] = {"text": answer}
        if flow.used_tools:
            whole["usedTools"] = flow.used_tools
        if flow.sources:
            whole["sourceDocuments"] = flow.sources
        return Reply.json(whole | _ids(asked) | {"isStreamValid": False})

    def _control(self, request: Request) -> Reply:
        """The controls that tests of whole processes need: `/replay/calls`, `/replay/edit`, `/replay/delete`."""
        body = request.json() or {}
        match request.path.removeprefix("/replay/"):
            case "calls":
                return Reply.json([{"flow_id": call.flow_id, "body": call.body} for call in self.calls])
            case "edit":
                self.edit(body["flow_id"], **body["inputs"])
            case "delete":
                self.delete(body["flow_id"])
            case unknown:
                return Reply.json({"message": f"no control {unknown!r}"}, status=404)
        return Reply.json({"done": True})


def _frames(flow: Flow, asked: Asked, answer: str) -> Iterator[bytes]:
    words = answer.split(" ")
    tokens = [word + " " for word in words[:-1]] + words[-1:]
    # Retrieval flows send their first token twice: once with the start.
    yield _frame("start", tokens[0] if flow.sources else "")
    yield from (_frame("token", token) for token in tokens)
    if flow.used_tools:
        yield _frame("usedTools", flow.used_tools)
    if flow.sources:
        yield _frame("sourceDocuments", flow.sources)
    yield _frame("metadata", _ids(asked))
    yield _frame("end", "[DONE]")


def _frame(event: str, payload: Any) -> bytes:
    data = json.dumps({"event": event, "data": payload}, ensure_ascii=False, separators=(",", ":"))
    data = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", data)  # as JSON.stringify does
    return f"message:\ndata:{data}\n\n".encode()


def _ids(asked: Asked) -> dict[str, Any]:
    session = asked.config.get("sessionId") or asked.body.get("chatId") or str(uuid.uuid4())
    chat = asked.body.get("chatId") or session
    return {"question": asked.question, "chatId": chat, "chatMessageId": str(uuid.uuid4()), "sessionId": session}


def _tagged(payload: Mapping[str, Any], request: Request) -> Reply:
    """JSON with the weak ETag that Express gives; not modified where the asker has it."""
    body = json.dumps(payload).encode()
    etag = f'W/"{len(body):x}-{hashlib.sha1(body).hexdigest()[:27]}"'
    if request.headers.get("if-none-match") == etag:
        return Reply(304, headers={"etag": etag})
    return Reply(200, pieces=(body,), headers={"etag": etag})


def _renamed(name: str, flow_id: str) -> Reply:
    """A recorded error, about this flow."""
    reply = recorded(name)
    body = b"".join(reply.pieces).replace(b"00000000-0000-4000-8000-000000000000", flow_id.encode())
    return Reply(reply.status, reply.content_type, (body,), reply.headers)


def _has_key(request: Request) -> bool:
    return request.headers.get("authorization") == f"Bearer {KEY}"


def _is_uuid(flow_id: str) -> bool:
    try:
        uuid.UUID(flow_id)
    except ValueError:
        return False
    return True

"""Langflow flows, asked over its run API.

Invariant: see `flows.protocol`; proved against a server on real sockets in tests/integration/test_flow_contract.py.
Built on Langflow's documentation and source (1.7); not yet run against a real one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from agentic_flywheel.errors import FlowError, FlowGarbled
from agentic_flywheel.flows.flowise_revision import digest_of
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowHealth,
    FlowQuestion,
    FlowSpec,
    Progress,
    Revision,
    TextPart,
)
from agentic_flywheel.flows.remote import RemoteClient
from agentic_flywheel.flows.replies import Transcript, json_or_none, kind_by_words, mended
from agentic_flywheel.flows.wire import Reply, Wire

#: Parts of a node that are only looks, or change when somebody opens the flow.
_LOOKS = frozenset({"position", "positionAbsolute", "width", "height", "measured", "selected", "dragging"})
_EDGE_PARTS = ("source", "sourceHandle", "target", "targetHandle")


class LangflowClient(RemoteClient):
    """One flow of a Langflow server, ready to be asked; the flow's `id` is its UUID or endpoint name.

    The API key is usually `LANGFLOW_API_KEY`. `config` goes into the request as `tweaks` (component, then parameter).
    `options: {streaming: true}` asks for a stream. Langflow takes no history, so earlier turns are put in front of the
    question by the caller.

    >>> from datetime import timedelta
    >>> spec = FlowSpec(key="faq", id="support", kind="langflow", base_url="http://localhost:7860")
    >>> client = LangflowClient(spec, environ={}, timeout=timedelta(seconds=60), check_timeout=timedelta(seconds=2))
    >>> client.address
    'http://localhost:7860/flow/support'
    """

    accepts_history = False
    accepts_instructions = False
    revision_is_remote = True
    usual_key_variable = "LANGFLOW_API_KEY"

    @staticmethod
    def _service(spec: FlowSpec) -> str:
        return spec.base_url.rstrip("/").removesuffix("/api/v1")

    @staticmethod
    def _shown(key: str) -> dict[str, str]:
        return {"x-api-key": key}

    @property
    def address(self) -> str:
        """The flow's canvas in Langflow."""
        return f"{self._wire.base_url}/flow/{self._id}"

    async def stream(self, question: FlowQuestion) -> AsyncGenerator[FlowEvent]:
        """Ask the flow; see `FlowClient.stream`."""
        body = {
            "input_value": question.text,
            "input_type": "chat",
            "output_type": "chat",
            "tweaks": _overlaid(self.spec.config, question.config),
            "session_id": question.conversation or uuid.uuid4().hex,
        }
        params = {"stream": "true" if self.spec.options.get("streaming") is True else "false"}
        path = f"/api/v1/run/{self._id}"
        reading = _Reading(self._wire)
        async with self._wire.open("POST", path, self._wire.deadline(), body=body, params=params) as reply:
            if reply.status != 200:
                raise self._wire.refusal(await reply.page())
            async with aclosing(reading.events(reply)) as events:
                async for event in events:
                    yield event
        yield reading.done()

    async def revision(self, known: Revision) -> Revision:
        """A digest of the flow's nodes and edges, nothing where the key may not read them (or there is none)."""
        if not self._has_key:
            return Revision()
        etag = {"if-none-match": known.etag} if known.digest and known.etag else None
        page = await self._wire.fetch("GET", f"/api/v1/flows/{self._id}", self._wire.check_deadline(), headers=etag)
        if page.status == 304 and etag:
            return known
        if page.status in {401, 403} or (page.status in {404, 422} and not _is_uuid(self.spec.id)):
            return Revision()  # an endpoint name can be run, but not read
        if page.status != 200:
            raise self._wire.refusal(page)
        flow = page.json()
        graph = flow.get("data") if isinstance(flow, dict) else None
        if not isinstance(graph, dict) or not isinstance(graph.get("nodes"), list):
            raise self._wire.not_an_answer(page)
        return Revision(digest_of(_decisive(graph)), page.headers.get("etag", ""))

    async def check(self) -> FlowHealth:
        """Look whether Langflow is there and, with a key, whether it knows the flow; see `FlowClient.check`."""
        began = time.perf_counter()
        notes: list[str] = []
        version, ok = "", False
        try:
            page = await self._wire.fetch("GET", "/api/v1/version", self._wire.check_deadline())
            answer = page.json()
            if page.status == 200 and isinstance(answer, dict):
                version = str(answer.get("version") or "")
                ok = True
                notes.append(f"Langflow {version or 'of unknown version'} answers at {self._wire.base_url}.")
                revision = await self.revision(Revision())
                if revision.digest:
                    notes.append(f"It knows the flow {self.spec.id}; its configuration is watched for changes.")
                else:
                    notes.append(
                        f"The flow cannot be read with the API key in {self._key_variable} (none, no right to, or an "
                        "endpoint name instead of an id): its changes are not seen, only the lifetime ends its answers."
                    )
            else:
                notes.append(f"{self._wire.base_url} answers, but not as Langflow does; check base_url.")
        except FlowError as error:
            ok = False
            notes.append(error.message)
        return FlowHealth(ok=ok, notes=tuple(notes), version=version, elapsed_ms=(time.perf_counter() - began) * 1000.0)


class _Reading:
    """One run as it comes in, streamed or whole."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transcript = Transcript()
        self._text = ""
        self._metadata: dict[str, Any] = {}
        self._ended = False

    async def events(self, reply: Reply) -> AsyncGenerator[FlowEvent]:
        if reply.media_type != "text/event-stream":
            page = await reply.page()
            answer = page.json()
            if not isinstance(answer, dict):
                raise self._wire.not_an_answer(page)
            for event in self._take_result(answer):
                yield event
            return
        async with aclosing(reply.events(bare_json=True)) as frames:
            async for frame in frames:
                for event in self._take(frame):
                    yield event
                if self._ended:
                    return

    def done(self) -> AnswerDone:
        # The result is the answer; the tokens may come from several components on the way to it.
        text = self._text or self._transcript.text
        if not self._ended:
            raise self._wire.failure(FlowGarbled, f"the stream was cut off after {len(text)} characters")
        if not text.strip():
            raise self._wire.failure(FlowGarbled, "Langflow answered without a text")
        return AnswerDone(text=text, metadata=self._metadata)

    def _take(self, frame: str) -> Iterator[FlowEvent]:
        event = json_or_none(frame)
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self._wire.failure(FlowGarbled, f"an event of the stream cannot be read: {frame[:80]!r}")
        name, payload = event["event"], event.get("data")
        payload = payload if isinstance(payload, dict) else {}
        if name == "token":
            chunk = payload.get("chunk")
            if isinstance(chunk, str) and (shown := self._transcript.add(chunk)):
                yield TextPart(shown)
        elif name == "error":
            said = str(payload.get("error") or payload.get("text") or event.get("data"))
            raise self._wire.failure(kind_by_words(said), f"Langflow reports: {said}")
        elif name == "end":
            result = payload.get("result")
            yield from self._take_result(result if isinstance(result, dict) else {})
        else:
            yield Progress(name)

    def _take_result(self, result: dict[str, Any]) -> Iterator[FlowEvent]:
        self._ended = True
        if isinstance(session := result.get("session_id"), str):
            self._metadata["session_id"] = session
        self._text = mended(_text_in(result))
        rest = self._text.removeprefix(self._transcript.text)
        if rest and self._text.startswith(self._transcript.text):
            yield TextPart(rest)


def _text_in(result: dict[str, Any]) -> str:
    """The first text among the outputs of a run."""
    for output in _dicts(result.get("outputs")):
        for inner in _dicts(output.get("outputs")):
            results = inner.get("results")
            message = results.get("message") if isinstance(results, dict) else None
            text = message.get("text") if isinstance(message, dict) else message
            if isinstance(text, str) and text.strip():
                return text
    return ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _overlaid(config: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Tweaks laid over tweaks, parameter by parameter."""
    merged = dict(config)
    for component, tweak in overlay.items():
        below = merged.get(component)
        merged[component] = {**below, **tweak} if isinstance(below, Mapping) and isinstance(tweak, Mapping) else tweak
    return merged


def _decisive(graph: dict[str, Any]) -> dict[str, Any]:
    nodes = [{name: part for name, part in node.items() if name not in _LOOKS} for node in _dicts(graph.get("nodes"))]
    edges = [[edge.get(part) for part in _EDGE_PARTS] for edge in _dicts(graph.get("edges"))]
    return {"nodes": sorted(nodes, key=lambda node: str(node.get("id"))), "edges": sorted(edges, key=str)}


def _is_uuid(flow_id: str) -> bool:
    try:
        uuid.UUID(flow_id)
    except ValueError:
        return False
    return True

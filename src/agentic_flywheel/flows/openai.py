"""Models behind an OpenAI-compatible chat endpoint: OpenAI itself, and the many servers that speak like it.

Invariant: see `flows.protocol`; proved against a server on real sockets in tests/integration/test_flow_contract.py.
An answer that the model had to stop (length, content filter) is never taken for a whole one.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from agentic_flywheel.errors import FlowError, FlowGarbled
from agentic_flywheel.flows.protocol import (
    AnswerDone,
    FlowEvent,
    FlowHealth,
    FlowQuestion,
    FlowSpec,
    Revision,
    TextPart,
)
from agentic_flywheel.flows.remote import RemoteClient
from agentic_flywheel.flows.replies import Page, Transcript, json_or_none, kind_by_words, tokens_of
from agentic_flywheel.flows.wire import Reply, Wire

_DEFAULT_URL = "https://api.openai.com/v1"


class OpenAIClient(RemoteClient):
    """One model of an OpenAI-compatible service, ready to be asked; the flow's `id` is the model's name.

    `base_url` may leave the `/v1` out. The API key is usually `OPENAI_API_KEY` (local servers want
    none). `config` goes into the request as it is (`temperature`,
    `max_tokens`, ...); `options: {system: "..."}` is the system prompt, `{streaming: false}` asks for the whole
    answer at once. The service says nothing about changes of a model, so there is no revision.

    >>> from datetime import timedelta
    >>> spec = FlowSpec(key="local", id="llama", kind="openai", base_url="http://localhost:11434")
    >>> client = OpenAIClient(spec, environ={}, timeout=timedelta(seconds=60), check_timeout=timedelta(seconds=2))
    >>> client.address
    'http://localhost:11434/v1'
    """

    accepts_history = True
    accepts_instructions = True
    revision_is_remote = False
    usual_key_variable = "OPENAI_API_KEY"
    #: Until the service refuses them; older servers do.
    _takes_stream_options = True

    @staticmethod
    def _service(spec: FlowSpec) -> str:
        return _endpoint(spec.base_url or _DEFAULT_URL)

    @property
    def address(self) -> str:
        """The endpoint; there is no page for people to look at."""
        return self._wire.base_url

    async def stream(self, question: FlowQuestion) -> AsyncGenerator[FlowEvent]:
        """Ask the model; see `FlowClient.stream`."""
        deadline = self._wire.deadline()
        reading = _Reading(self._wire)
        body = self._body(question)
        refused = False
        async with self._wire.open("POST", "/chat/completions", deadline, body=body) as reply:
            # Older servers refuse the option; asked without it, they say what is really wrong, if anything.
            refused = reply.status == 400 and body.pop("stream_options", None) is not None
            if not refused:
                async with aclosing(reading.events(reply)) as events:
                    async for event in events:
                        yield event
        if refused:
            async with self._wire.open("POST", "/chat/completions", deadline, body=body) as reply:
                self._takes_stream_options = reply.status != 200
                async with aclosing(reading.events(reply)) as events:
                    async for event in events:
                        yield event
        yield reading.done()

    async def revision(self, known: Revision) -> Revision:  # noqa: ARG002 - the protocol's argument
        """Nothing: the service does not say how a model is configured."""
        return Revision()

    async def check(self) -> FlowHealth:
        """Look whether the service is there, accepts the key and lists the model; see `FlowClient.check`."""
        began = time.perf_counter()
        notes: list[str] = []
        ok = False
        try:
            page = await self._wire.fetch("GET", "/models", self._wire.check_deadline())
            if page.status == 200 and isinstance(page.json(), dict):
                ok = self._check_model(page, notes)
            elif page.status in {404, 405}:
                ok = True
                notes.append(f"{self._wire.base_url} answers, but lists no models; the flow may work all the same.")
            else:
                error = self._wire.not_an_answer(page) if page.status == 200 else self._wire.refusal(page)
                notes.append(error.message)
        except FlowError as error:
            notes.append(error.message)
        return FlowHealth(ok=ok, notes=tuple(notes), elapsed_ms=(time.perf_counter() - began) * 1000.0)

    def _body(self, question: FlowQuestion) -> dict[str, Any]:
        messages: list[dict[str, str]] = []
        if system := self.spec.options.get("system"):
            messages.append({"role": "system", "content": str(system)})
        if question.instructions:
            messages.append({"role": "system", "content": question.instructions})
        for exchange in question.history:
            messages.append({"role": "user", "content": exchange.question})
            messages.append({"role": "assistant", "content": exchange.answer})
        messages.append({"role": "user", "content": question.text})
        body = {**self.spec.config, **question.config, "model": self.spec.id, "messages": messages}
        if self.spec.options.get("streaming") is False:
            return body | {"stream": False}
        return (
            body
            | {"stream": True}
            | ({"stream_options": {"include_usage": True}} if self._takes_stream_options else {})
        )

    def _check_model(self, page: Page, notes: list[str]) -> bool:
        models = page.json().get("data")
        names = {model.get("id") for model in models if isinstance(model, dict)} if isinstance(models, list) else set()
        # Ollama lists "llama3:latest" and answers to "llama3".
        if names and not names & {self.spec.id, f"{self.spec.id}:latest"}:
            notes.append(f"{self._wire.base_url} does not list the model {self.spec.id!r}.")
            return False
        notes.append(f"{self._wire.base_url} answers and knows the model {self.spec.id!r}.")
        return True


class _Reading:
    """One completion as it comes in, streamed or whole."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transcript = Transcript()
        self._metadata: dict[str, Any] = {}
        self._finish_reason = ""
        self._ended = False

    async def events(self, reply: Reply) -> AsyncGenerator[FlowEvent]:
        if reply.status != 200:
            raise self._wire.refusal(await reply.page())
        if reply.media_type != "text/event-stream":
            page = await reply.page()
            answer = page.json()
            if not isinstance(answer, dict):
                raise self._wire.not_an_answer(page)
            for event in self._take(answer, "message"):
                yield event
            self._ended = True
            return
        async with aclosing(reply.events()) as frames:
            async for frame in frames:
                if frame.strip() == "[DONE]":
                    self._ended = True
                    return
                chunk = json_or_none(frame)
                if not isinstance(chunk, dict):
                    raise self._wire.failure(FlowGarbled, f"an event of the stream cannot be read: {frame[:80]!r}")
                for event in self._take(chunk, "delta"):
                    yield event

    def done(self) -> AnswerDone:
        text = self._transcript.text
        # Some servers close without "[DONE]", but none without the reason why the model stopped.
        if not self._ended and not self._finish_reason:
            raise self._wire.failure(FlowGarbled, f"the stream was cut off after {len(text)} characters")
        if not text.strip():
            because = f" (finish_reason {self._finish_reason})" if self._finish_reason else ""
            raise self._wire.failure(FlowGarbled, f"the model answered with an empty text{because}")
        return AnswerDone(
            text=text,
            complete=self._finish_reason not in {"length", "content_filter"},
            metadata=self._metadata,
            tokens=tokens_of(self._metadata.get("usage")),
        )

    def _take(self, chunk: dict[str, Any], part: str) -> Iterator[FlowEvent]:
        if chunk.get("error"):
            error = chunk["error"]
            said = str(error.get("message") or error) if isinstance(error, dict) else str(error)
            raise self._wire.failure(kind_by_words(said), f"{self._wire.base_url} reports: {said}")
        for name in ("id", "model", "system_fingerprint", "usage"):
            if chunk.get(name):
                self._metadata[name] = chunk[name]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        if not isinstance(choice, dict):
            raise self._wire.failure(FlowGarbled, "the reply holds no completion")
        message = choice.get(part)
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str) and (shown := self._transcript.add(content)):
            yield TextPart(shown)
        if isinstance(reason := choice.get("finish_reason"), str):
            self._finish_reason = self._metadata["finish_reason"] = reason


def _endpoint(base_url: str) -> str:
    """Where `/chat/completions` hangs: a bare host gets the customary `/v1`."""
    base_url = base_url.rstrip("/").removesuffix("/chat/completions")
    return base_url if re.search(r"[^:/]/", base_url) else f"{base_url}/v1"

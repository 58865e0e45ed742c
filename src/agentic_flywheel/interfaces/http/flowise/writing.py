"""Answers in Flowise's own shapes: the plain reply, and the stream with its framing, events and ids.

Invariant: what Flowise said when the answer was computed is said again, event by event and field by field; what is of
the one call alone is new each time, as Flowise gives it: `chatId`, `sessionId`, `chatMessageId`, `executionId`, and the
question as it was asked now. An answer that came another way is told in the form of a plain chatflow.

The shapes were measured on Flowise 3.1.4 (frames are `message:` and `data:` lines, which are no SSE event names).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

from agentic_flywheel.errors import FlowMissing, FlywheelError, StoreError
from agentic_flywheel.flows.flowise_reading import Said, said_in
from agentic_flywheel.interfaces.http.problems import status_of
from agentic_flywheel.model import Answer, Source, VerbatimAnswer

END: Final = '{"event":"end","data":"[DONE]"}'
#: The conversation that a call ran in at Flowise's side: it is nobody's (see `Calling`).
_OWN: Final = re.compile(r"afw-[0-9a-f]{16,40}")
_PIECES: Final = re.compile(r"\s*\S+\s*|\s+")
#: Ids that Flowise makes anew for every call.
_FRESH: Final = re.compile(r'("(?:chatMessageId|executionId)":\s*)"([^"\\]*)"')
_CHAT: Final = re.compile(r'("chatId":\s*)"afw-[0-9a-f]{16,40}"')


def frame(event: str) -> bytes:
    """One event of a stream, as Flowise frames it."""
    return b"message:\ndata:" + event.encode() + b"\n\n"


class Telling:
    """How one call is answered: its ids, and the question in its asker's words."""

    def __init__(self, question: str, chat_id: str, session_id: str) -> None:
        self.question = question
        self.chat_id = chat_id
        self.session_id = session_id
        self._made: dict[str, str] = {}

    def live(self, text: str) -> str:
        """What Flowise says just now: the conversation's ids are those of the client."""
        text = _CHAT.sub(lambda match: match[1] + _text(self.chat_id), text)
        return _OWN.sub(lambda _: _text(self.session_id)[1:-1], text)

    def body(self, answer: Answer) -> bytes:
        """The plain reply."""
        said = said_by(answer)
        if said.body:
            return self._again(said.body).encode()
        reply: dict[str, Any] = {"text": answer.text, "question": self.question, "chatId": self.chat_id}
        reply |= {"chatMessageId": str(uuid.uuid4()), "isStreamValid": False, "sessionId": self.session_id}
        for name, payload in _payloads(said.frames):
            if name == "metadata":
                told = ("followUpPrompts", "memoryType")
                reply |= {field: payload[field] for field in told if field in payload}
            elif name in {"sourceDocuments", "usedTools", "agentFlowExecutedData", "artifacts"}:
                reply[name] = payload
        if answer.sources and "sourceDocuments" not in reply:
            reply["sourceDocuments"] = _documents(answer.sources)
        return _json(reply).encode()

    def frames(self, answer: Answer) -> Iterator[bytes]:
        """The whole stream of an answer that is known already."""
        said = said_by(answer)
        if said.frames:
            for told in said.frames:
                yield frame(self._again(told))
            return
        yield from self.begin()
        yield from (self.token(piece) for piece in _PIECES.findall(answer.text))
        yield from self.rest(answer)

    def begin(self) -> Iterator[bytes]:
        """How a plain chatflow begins a stream."""
        yield frame(_event("start", ""))

    def token(self, text: str) -> bytes:
        """A piece of text."""
        return frame(_event("token", text))

    def rest(self, answer: Answer) -> Iterator[bytes]:
        """What follows the text where Flowise's own events are not at hand."""
        whole = said_by(answer).body
        reply = json.loads(whole) if whole else {}
        reply = reply if isinstance(reply, dict) else {}
        if used := reply.get("usedTools"):
            yield frame(_event("usedTools", used))
        if documents := reply.get("sourceDocuments") or _documents(answer.sources):
            yield frame(_event("sourceDocuments", documents))
        about = {"chatId": self.chat_id, "chatMessageId": str(uuid.uuid4()), "question": self.question}
        about["sessionId"] = self.session_id
        yield frame(_event("metadata", about | ({"memoryType": m} if (m := reply.get("memoryType")) else {})))
        yield frame(END)

    def _again(self, text: str) -> str:
        """What Flowise said once, with the ids of this call."""
        text = _FRESH.sub(lambda match: f'{match[1]}"{self._fresh(match[2])}"', self.live(text))
        if '"question":' not in text:
            return text
        told = json.loads(text)
        holder = told.get("data") if isinstance(told, dict) and told.get("event") == "metadata" else told
        if not isinstance(holder, dict) or "question" not in holder:
            return text
        holder["question"] = self.question
        return _json(told)

    def _fresh(self, old: str) -> str:
        return self._made.setdefault(old, str(uuid.uuid4())) if old else old


def said_by(answer: Answer) -> Said:
    """What Flowise said when an answer was computed; empty where it came another way."""
    return said_in(answer.wire) if isinstance(answer, VerbatimAnswer) else Said()


def failure(error: FlywheelError) -> tuple[int, bytes]:
    """Status and body of an error of ours, in the shape of Flowise's."""
    status = status_of(error)
    if isinstance(error, FlowMissing):
        status = 404  # the flow is what was asked for here, not something behind
    elif status == 502 or isinstance(error, StoreError):
        status = 500
    said = {"statusCode": status, "success": False, "message": error.message, "stack": {}, "error_id": error.error_id}
    return status, _json(said).encode()


def error_frames(error: FlywheelError) -> Iterator[bytes]:
    """An error in a stream, and its end."""
    yield frame(_event("error", error.message))
    yield frame(END)


def _payloads(frames: list[str]) -> Iterator[tuple[str, Any]]:
    for told in frames:
        event = json.loads(told)
        if isinstance(event, dict):
            yield str(event.get("event")), event.get("data")


def _documents(sources: tuple[Source, ...]) -> list[dict[str, Any]]:
    return [{"pageContent": one.excerpt, "metadata": {"source": one.uri, "title": one.title}} for one in sources]


def _event(name: str, payload: Any) -> str:
    return _json({"event": name, "data": payload})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)

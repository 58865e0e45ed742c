"""Answers in Flowise's own shapes: the plain reply, and the stream with its framing, events and ids.

Invariant: what Flowise said when the answer was computed is said again, event by event and field by field; what is of
the one call alone is new each time, as Flowise gives it: `chatId`, `sessionId`, `chatMessageId`, `executionId`, and the
question as it was asked now. An answer that came another way is told in the form of a plain chatflow.

The shapes were measured on Flowise 3.1.4 (frames are `message:` and `data:` lines, which are no SSE event names).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from agentic_flywheel.errors import FlowMissing, FlywheelError, StoreError
from agentic_flywheel.flows.flowise_reading import Said, said_in
from agentic_flywheel.identifiers import new_uuid
from agentic_flywheel.interfaces.http.problems import status_of
from agentic_flywheel.model import Answer, Source, VerbatimAnswer

END: Final = '{"event":"end","data":"[DONE]"}'
#: The conversation that a call ran in at Flowise's side: it is nobody's (see `Calling`).
_OWN: Final = re.compile(r"afw-[0-9a-f]{16,40}")
_PIECES: Final = re.compile(r"\s*\S+\s*|\s+")
#: Ids that Flowise makes anew for every call.
_FRESH: Final = re.compile(r'("(?:chatMessageId|executionId)":\s*)"([^"\\]*)"')
#: Where a stored reply is cut for what is of each call alone; nobody who wrote a question or an answer knows it.
_MARK: Final = f"<{secrets.token_hex(16)}>"
_GAP_CHAT, _GAP_SESSION, _GAP_QUESTION = "chat", "session", "question"
#: Replies that are kept cut, for answers that are given again and again, and the longest of them in bytes.
_KEPT: Final = 512
_LONGEST_KEPT: Final = 16_384
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
        return _of_call(text, _text(self.chat_id), _text(self.session_id)[1:-1])

    def body(self, answer: Answer) -> bytes:
        """The plain reply."""
        wire = answer.wire if isinstance(answer, VerbatimAnswer) else b""
        written = _written(wire) if len(wire) <= _LONGEST_KEPT else _written.__wrapped__(wire)
        if written:
            return self._filled(written).encode()
        said = said_in(wire)
        reply: dict[str, Any] = {"text": answer.text, "question": self.question, "chatId": self.chat_id}
        reply |= {"chatMessageId": new_uuid(), "isStreamValid": False, "sessionId": self.session_id}
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
                yield frame(self._filled(_with_gaps(told)))
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
        about = {"chatId": self.chat_id, "chatMessageId": new_uuid(), "question": self.question}
        about["sessionId"] = self.session_id
        yield frame(_event("metadata", about | ({"memoryType": m} if (m := reply.get("memoryType")) else {})))
        yield frame(END)

    def _filled(self, written: tuple[str, ...]) -> str:
        """What Flowise said once, with the ids and the question of this call in its gaps."""
        parts = list(written)
        for place in range(1, len(parts), 2):
            gap = parts[place]
            if gap == _GAP_CHAT:
                parts[place] = _text(self.chat_id)
            elif gap == _GAP_SESSION:
                parts[place] = _text(self.session_id)[1:-1]
            elif gap == _GAP_QUESTION:
                parts[place] = _text(self.question)
            else:
                parts[place] = self._made.get(gap) or self._made.setdefault(gap, new_uuid())
        return "".join(parts)


@lru_cache(maxsize=_KEPT)
def _written(wire: bytes) -> tuple[str, ...]:
    """The plain reply that an answer was computed with, with gaps; empty where there is none."""
    body = said_in(wire).body
    return _with_gaps(body) if body else ()


def _with_gaps(text: str) -> tuple[str, ...]:
    """What Flowise said, cut where each call says something of its own: pieces and the names of gaps in turn.

    A gap for an id that Flowise makes anew is called by the id that it made, so that equal ones stay equal.
    """
    text = _of_call(text, f'"{_MARK}{_GAP_CHAT}{_MARK}"', _MARK + _GAP_SESSION + _MARK)
    text = _FRESH.sub(lambda match: f'{match[1]}"{_MARK}id {match[2]}{_MARK}"' if match[2] else match[0], text)
    if '"question":' in text:
        told = json.loads(text)
        holder = told.get("data") if isinstance(told, dict) and told.get("event") == "metadata" else told
        if isinstance(holder, dict) and "question" in holder:
            holder["question"] = f"{_MARK}{_GAP_QUESTION}{_MARK}"
            text = _json(told)
    for gap in (_GAP_CHAT, _GAP_QUESTION):  # these are whole texts, written with their quotation marks
        text = text.replace(f'"{_MARK}{gap}{_MARK}"', _MARK + gap + _MARK)
    return tuple(text.split(_MARK))


def _of_call(text: str, chat: str, session: str) -> str:
    """A text with the ids of the conversation that the call ran in replaced: `chat` is written as JSON, `session` as
    the inside of a text of JSON."""
    text = _CHAT.sub(lambda match: match[1] + chat, text)
    return _OWN.sub(lambda _: session, text)


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
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return json.dumps(value, ensure_ascii=False)

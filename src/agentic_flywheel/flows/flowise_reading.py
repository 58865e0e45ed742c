"""What Flowise answers, read as events: the stream and the plain reply of one prediction mean the same.

Invariant: for the same answer of a flow, both ways end in the same text and sources; a stream is an answer only if
Flowise said that it was over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from agentic_flywheel.errors import FlowError, FlowGarbled
from agentic_flywheel.flows.protocol import AnswerDone, FlowEvent, Frame, Progress, SourcesFound, TextPart, Tokens
from agentic_flywheel.flows.replies import Page, Transcript, json_or_none, kind_by_words, mended, tokens_of
from agentic_flywheel.model import Source

#: Ids and figures of a reply that are kept as they are; the text has its own place.
_KEPT = ("chatId", "chatMessageId", "sessionId", "executionId", "memoryType", "followUpPrompts", "flowVariables")
#: What the flow did on the way: shown as progress, kept in the metadata.
_STEPS = ("usedTools", "calledTools", "agentReasoning", "artifacts", "fileAnnotations", "action", "usageMetadata")
#: Larger steps are named in the metadata, not kept: they would weigh more than the answer.
_MOST_CHARACTERS = 8_000
_CUT_OFF = frozenset({"length", "max_tokens", "content_filter", "MAX_TOKENS", "SAFETY"})
_EXCERPT_CHARACTERS = 2_000


class Reading:
    """One prediction as it comes in; `failure` makes the errors that it raises, `verbatim` keeps what Flowise says."""

    def __init__(self, failure: Callable[..., FlowError], *, verbatim: bool = False) -> None:
        self._failure = failure
        self._verbatim = verbatim
        self._frames: list[str] = []
        self._page: Page | None = None
        self._transcript = Transcript()
        self._start = ""
        self._sources: tuple[Source, ...] = ()
        self._metadata: dict[str, Any] = {}
        self._executed: list[Any] = []
        self._seen_metadata = False
        self.ended = False

    def take(self, frame: str) -> Iterator[FlowEvent]:
        """The data of one server-sent event. Raises `FlowError` where Flowise reports a failure."""
        if self._verbatim:
            self._frames.append(frame)
            yield Frame(frame)
        event = json_or_none(frame)
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self._failure(FlowGarbled, f"an event of the stream cannot be read: {frame[:80]!r}")
        name, payload = event["event"], event.get("data")
        match name:
            case "start":
                # Some flows send the first token here and again as a token; nothing is shown before that is known.
                self._start = payload if isinstance(payload, str) else ""
            case "token":
                yield from self._take_text(payload)
            case "sourceDocuments":
                yield from self._take_sources(payload)
            case "metadata":
                self._seen_metadata = True
                self._keep(payload, _KEPT)
            case "error":
                said = payload if isinstance(payload, str) else json.dumps(payload)
                raise failure_of(said, self._failure)
            case "abort":
                raise self._failure(FlowGarbled, "the answer was aborted in Flowise")
            case "end":
                self.ended = True
            case "agentFlowExecutedData":
                self._executed = payload if isinstance(payload, list) else []
                yield Progress(name, steps_of(self._executed))
            case _:
                if name in _STEPS and payload:
                    self._keep({name: payload}, _STEPS)
                yield Progress(name, payload if _is_small(payload) else None)

    def take_whole(self, reply: Any, page: Page | None = None) -> Iterator[FlowEvent]:
        """The plain reply: a JSON object (or, from custom output parsers, a bare text), and the page that held it."""
        self._page = page
        if isinstance(reply, str):
            reply = {"text": reply}
        if not isinstance(reply, dict):
            raise self._failure(FlowGarbled, f"the reply is {type(reply).__name__}, not an answer")
        executed = reply.get("agentFlowExecutedData")
        self._executed = executed if isinstance(executed, list) else []
        for name in _STEPS:
            if reply.get(name):
                self._keep(reply, (name,))
                yield Progress(name, reply[name] if _is_small(reply[name]) else None)
        if self._executed:
            yield Progress("agentFlowExecutedData", steps_of(self._executed))
        text = reply.get("text")
        if not isinstance(text, str) and text is not None:
            text = json.dumps(text, ensure_ascii=False)
        if not text and reply.get("json") is not None:
            text = json.dumps(reply["json"], ensure_ascii=False)
        yield from self._take_text(text)
        yield from self._take_sources(reply.get("sourceDocuments"))
        self._keep(reply, _KEPT)
        self._seen_metadata = self.ended = True

    def rest(self) -> Iterator[FlowEvent]:
        """What the stream held back: an answer that came as `start` alone, or only as the last node's output."""
        if self._is_over() and not self._transcript.text:
            yield from self._take_text(self._start or _output_of(self._executed))

    def done(self) -> AnswerDone:
        """The answer. Raises `FlowGarbled` if there is none, or the stream stopped before Flowise had ended it."""
        text = self._transcript.text
        if not self._is_over():
            raise self._failure(FlowGarbled, f"the stream was cut off after {len(text)} characters")
        if not text.strip() and not self._metadata.get("artifacts"):
            error = self._failure(FlowGarbled, "Flowise answered with an empty text")
            error.reply = self._page
            raise error
        if self._executed:
            self._metadata["steps"] = steps_of(self._executed)
        complete = bool(text.strip()) and not self._metadata.get("action") and not _was_cut_off(self._executed)
        return AnswerDone(
            text=text,
            sources=self._sources,
            complete=complete,
            metadata=self._metadata,
            tokens=_tokens_of(self._executed) or tokens_of(self._metadata.get("usageMetadata")),
            wire=self._said() if self._verbatim else b"",
        )

    def _said(self) -> bytes:
        body = self._page.body.decode("utf-8", "replace") if self._page is not None else ""
        return msgspec.msgpack.encode(Said(body, self._frames))

    def _is_over(self) -> bool:
        return self.ended or self._seen_metadata

    def _take_text(self, piece: Any) -> Iterator[FlowEvent]:
        if isinstance(piece, str) and (shown := self._transcript.add(piece)):
            yield TextPart(shown)

    def _take_sources(self, payload: Any) -> Iterator[FlowEvent]:
        found = sources_of(payload)
        if found:
            self._sources = found
            yield SourcesFound(found)

    def _keep(self, reply: Any, names: tuple[str, ...]) -> None:
        for name in names if isinstance(reply, dict) else ():
            value = reply.get(name)
            if name == "followUpPrompts" and isinstance(value, str):
                value = json_or_none(value)  # a text in the plain reply, a list in the stream
            if value is None:
                continue
            if _is_small(value):
                self._metadata[name] = value
            else:
                self._metadata.setdefault("left_out", []).append(name)


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What Flowise said, word for word: the plain reply's body, or the data of each event of its stream."""

    body: str = ""
    frames: list[str] = []


def said_in(wire: bytes) -> Said:
    """What Flowise said when an answer was computed; empty for one that came another way."""
    return msgspec.msgpack.decode(wire, type=Said) if wire else Said()


def failure_of(said: str, failure: Callable[..., FlowError]) -> FlowError:
    """The error that Flowise's own words stand for: it reports most failures with one status."""
    kind = kind_by_words(said)
    suggestions: tuple[str, ...] = ()
    if kind.code == "flow_refused" and "- Unauthorized" not in said:
        suggestions = ("The model behind the flow refused: check the credential that the flow uses in Flowise.",)
    return failure(kind, f"Flowise reports: {said}", suggestions=suggestions)


def sources_of(documents: Any) -> tuple[Source, ...]:
    """`sourceDocuments` as sources; vector stores name the place and the score in different ways."""
    found: list[Source] = []
    for document in documents if isinstance(documents, list) else []:
        if not isinstance(document, dict):
            continue
        about = document.get("metadata")
        about = about if isinstance(about, dict) else {}
        uri = next((about[name] for name in ("source", "url", "loc") if isinstance(about.get(name), str)), "")
        title = next((about[name] for name in ("title", "fileName", "name") if isinstance(about.get(name), str)), "")
        score = about.get("score")
        found.append(
            Source(
                title=mended(title or uri.rstrip("/").rpartition("/")[2] or f"document {len(found) + 1}"),
                uri=mended(uri),
                excerpt=mended(str(document.get("pageContent") or "")[:_EXCERPT_CHARACTERS]),
                score=float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None,
            )
        )
    return tuple(found)


def steps_of(executed: list[Any]) -> list[dict[str, Any]]:
    """Which nodes of an agentflow ran and how they ended; their inputs hold model settings and stay out."""
    return [
        {name: step[name] for name in ("nodeId", "nodeLabel", "status") if name in step}
        for step in executed[-50:]
        if isinstance(step, dict)
    ]


def _outputs(executed: list[Any]) -> Iterator[dict[str, Any]]:
    for step in executed:
        inner = step.get("data") if isinstance(step, dict) else None
        output = inner.get("output") if isinstance(inner, dict) else None
        if isinstance(output, dict):
            yield output


def _output_of(executed: list[Any]) -> str:
    texts = [output["content"] for output in _outputs(executed) if isinstance(output.get("content"), str)]
    return texts[-1] if texts else ""


def _tokens_of(executed: list[Any]) -> Tokens | None:
    """The tokens of all models that an agentflow asked; chatflows report none."""
    told = [tokens for output in _outputs(executed) if (tokens := tokens_of(output.get("usageMetadata")))]
    return Tokens(sum(each.read for each in told), sum(each.written for each in told)) if told else None


def _was_cut_off(executed: list[Any]) -> bool:
    """Whether a node of an agentflow says that its model stopped early, or ended otherwise than finished."""
    if any(isinstance(step, dict) and step.get("status") not in {None, "FINISHED"} for step in executed):
        return True
    reports = (output.get("responseMetadata") for output in _outputs(executed))
    return any(
        isinstance(report, dict) and _CUT_OFF & {str(report.get("finish_reason")), str(report.get("stop_reason"))}
        for report in reports
    )


def _is_small(payload: Any) -> bool:
    return len(json.dumps(payload)) <= _MOST_CHARACTERS

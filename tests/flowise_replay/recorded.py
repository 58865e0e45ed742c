"""The recordings: real exchanges with Flowise 3.1.4, and their replies as they went over the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .loopback import SILENCE, Reply


@dataclass(frozen=True)
class Recording:
    """One exchange; `request` has method, path, headers and body, `response` status, headers and one kind of body."""

    name: str
    request: dict[str, Any]
    response: dict[str, Any]

    @property
    def flow_id(self) -> str:
        return str(self.request["path"]).rsplit("/", 1)[-1]

    @property
    def question(self) -> str:
        body = self.request.get("body")
        question = body.get("question") if isinstance(body, dict) else None
        return question if isinstance(question, str) else str(question)

    @property
    def streamed(self) -> bool:
        return "sse_lines" in self.response

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a recorded stream, parsed."""
        return [json.loads(line[5:]) for line in self.response["sse_lines"] if line.startswith("data:")]

    @property
    def reply(self) -> Reply:
        """The reply, with the chunk boundaries that Flowise had; one that never came is silence."""
        response = self.response
        if response["status"] is None:
            return SILENCE
        headers = dict(response.get("headers", {}))
        content_type = headers.pop("content-type")
        if self.streamed:
            body, pieces, at = "\n".join(response["sse_lines"]).encode(), [], 0
            for size in response["chunk_sizes"]:
                pieces.append(body[at : at + size])
                at += size
            return Reply(response["status"], content_type, tuple(pieces), headers)
        text = response.get("body_text")
        body = text.encode() if text is not None else json.dumps(response["body"], ensure_ascii=False).encode()
        return Reply(response["status"], content_type, (body,), headers)


def _load() -> dict[str, Recording]:
    found = {}
    for file in sorted((Path(__file__).parent / "recordings").glob("*.json")):
        for name, exchange in json.loads(file.read_text("utf-8")).items():
            found[name] = Recording(name, exchange["request"], exchange["response"])
    return found


RECORDINGS = _load()


def recorded(name: str) -> Reply:
    """The reply of a recording."""
    return RECORDINGS[name].reply

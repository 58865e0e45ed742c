"""What stands behind the service in benchmarks: a Flowise, an OpenAI-compatible model, and a bare endpoint.

    python bench/stand_in.py

Prints its address and serves until SIGTERM. Every answer follows from its question (`answer_of`), so whoever asks can
tell a wrong one. `/bare` answers with as many bytes as a prediction and does nothing else: the limit of what a handler
on the same server can do. `/calls` says how many questions came this far.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import socket
import time
import uuid
from collections import Counter
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

FLOW_ID: Final = "6f0e1a52-8b7c-4d1e-9a53-2f4b6c8d0e1f"
ANSWER_BYTES: Final = 2048
_CHATFLOW: Final = {
    "id": FLOW_ID,
    "name": "bench",
    "type": "CHATFLOW",
    "apikeyid": None,
    "flowData": json.dumps({"nodes": [{"id": "llm_0", "data": {"name": "llm", "inputs": {}}}], "edges": []}),
}


@functools.cache
def _words() -> list[str]:
    draw = random.Random(3)
    letters, weights = "etaoinshrdlucmfwyp", range(18, 0, -1)
    return ["".join(draw.choices(letters, weights=weights, k=draw.randint(2, 9))) for _ in range(2000)]


def answer_of(question: str, size: int = ANSWER_BYTES) -> str:
    """The answer to a question: of `size` characters, different for each, and compressing like prose.

    >>> answer_of("one") == answer_of("one") != answer_of("two"), len(answer_of("one"))
    (True, 2048)
    """
    draw = random.Random(hashlib.sha256(question.encode()).digest())
    return " ".join(draw.choices(_words(), k=size // 3))[:size]


def prediction_of(question: str, chat_id: str = "") -> bytes:
    """What Flowise says to a question."""
    chat = chat_id or str(uuid.uuid4())
    said = {"text": answer_of(question), "question": question, "chatId": chat, "chatMessageId": str(uuid.uuid4())}
    return json.dumps(said | {"isStreamValid": False, "sessionId": chat}, separators=(",", ":")).encode()


_BARE: Final = prediction_of("How does part 100 of the system work?")
_calls = Counter[str]()


async def bare(_request: Request) -> Response:
    """Nothing but a response."""
    return Response(_BARE, media_type="application/json")


async def predict(request: Request) -> Response:
    """Flowise's prediction."""
    _calls["answered"] += 1
    body = await request.json()
    override = body.get("overrideConfig") or {}
    said = prediction_of(body["question"], override.get("sessionId") or body.get("chatId") or "")
    return Response(said, media_type="application/json")


async def complete(request: Request) -> Response:
    """A chat completion."""
    _calls["answered"] += 1
    asked = (await request.json())["messages"][-1]["content"]
    choice = {"index": 0, "message": {"role": "assistant", "content": answer_of(asked)}, "finish_reason": "stop"}
    reply = {"id": f"chatcmpl-{uuid.uuid4()}", "object": "chat.completion", "created": int(time.time())}
    usage = {"prompt_tokens": 10, "completion_tokens": 500, "total_tokens": 510}
    return _json(reply | {"model": "bench", "choices": [choice], "usage": usage})


async def _known(request: Request) -> Response:
    """What Flowise says of the flow and of itself."""
    path = request.url.path
    if "streaming" in path:
        return _json({"isStreaming": False})
    if path.endswith("/version"):
        return _json({"version": "3.1.4"})
    if path.endswith("/ping"):
        return PlainTextResponse("pong")
    return _json(_CHATFLOW)


async def calls(_request: Request) -> Response:
    """How often a flow or model was asked."""
    return _json(_calls["answered"])


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json")


def main() -> None:
    routes = [
        Route("/bare", bare, methods=["POST"]),
        Route("/calls", calls),
        Route("/api/v1/prediction/{id}", predict, methods=["POST"]),
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/api/v1/{path:path}", _known),
    ]
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False, ws="none")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()

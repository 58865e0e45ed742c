"""Requests that came before are answered as the whole way answers them: the same bytes, the same traces in Redis.

The service runs in this process on a real port, over the protocol that `afw serve` gives uvicorn, so that a test can
tell which way a request took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import uvicorn

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http import again as again_module
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.serving import _protocol
from agentic_flywheel.model import Turn
from agentic_flywheel.store.codec import decode
from flowise_replay import FLOWS, RECORDINGS, ReplayFlowise
from flywheels import until
from http_app import app_on, key_for
from servers import Server

pytestmark = pytest.mark.anyio

#: No proof of the near cache runs out, and no restriction of Flowise is asked for anew, while a test runs.
STEADY: dict[str, Any] = {"near_max_staleness_seconds": 600.0, "flow_check_every_seconds": 600.0}
NEAR = pytest.mark.parametrize("near", [False, True], ids=["redis", "near"])
PATH = f"/api/v1/prediction/{FLOWS['llm']}"
QUESTION = {"question": "How long are answers kept?"}
#: A request that says who it is is looked at anew each time.
WHOLE = {"X-Request-ID": "whole"}
_OWN = re.compile(
    rb'("(?:chatId|sessionId|chatMessageId|executionId|session_id|turn_id|trace_id|id)":\s*")[^"]*"'
    rb"|((?:date|age|x-request-id|x-afw-trace|x-afw-session|x-afw-turn): )[^\r]*"
    rb'|("(?:age_seconds|elapsed_ms|ttl_seconds|created)":\s*)[-0-9.e]+'
)


class Answered(NamedTuple):
    """A response as it came over the wire."""

    raw: bytes

    @property
    def alike(self) -> bytes:
        """Without what is of the one response alone; its length as well, where figures are in it."""
        plain = _OWN.sub(lambda m: (m[1] or m[2] or m[3]) + b"*", self.raw)
        return re.sub(rb"content-length: \d+", b"content-length: *", plain) if b"age_seconds" in self.raw else plain

    def header(self, name: str) -> str:
        found = re.search(rb"\r\n" + name.encode() + rb": ([^\r]*)", self.raw)
        return found[1].decode() if found else ""

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]


class Client:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, app: App) -> None:
        self.reader, self.writer, self.app = reader, writer, app

    @property
    def repeated(self) -> int:
        """How many requests were answered without the whole way so far."""
        return self.app.service.repeats.answered

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
        self.writer.write(request(path, body, headers))
        return await self.response()

    async def response(self) -> Answered:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        found = re.search(rb"content-length: (\d+)", head)
        assert found, head
        return Answered(head + await asyncio.wait_for(self.reader.readexactly(int(found[1])), 20))

    async def again(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
        """Ask until it is answered without the whole way."""
        for _ in range(200):
            before = self.repeated
            response = await self.post(path, body, headers)
            if self.repeated > before:
                return response
            await asyncio.sleep(0.005)  # a channel of the near cache is being opened
        pytest.fail("the request goes the whole way each time")


def request(path: str, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(raw))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (named | dict(headers or {})).items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + raw


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def asked(
    valkey: Server, folder: Path, flowise: ReplayFlowise, *, near: bool, **more: Any
) -> AsyncIterator[Client]:
    """The service on a port, and a connection to it."""
    settings = STEADY | {"near_enabled": near, "serve_flowise_url": flowise.url} | more
    async with app_on(valkey, folder, **settings) as app:
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            http=_protocol(60.0, app.service.repeats),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
        )
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started, "the server to listen")
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Client(reader, writer, app)
        finally:
            writer.close()
            server.should_exit = True
            await serving


@NEAR
async def test_every_recorded_question_is_answered_alike(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near) as client:
        seen = 0
        for recording in RECORDINGS.values():
            body = recording.request.get("body")
            if recording.flow_id not in flowise.flows or not isinstance(body, dict) or "question" not in body:
                continue
            if recording.request["method"] != "POST" or set(body) - {"question", "streaming"} or body.get("streaming"):
                continue
            path = recording.request["path"]
            first = await client.post(path, body)
            whole = await client.post(path, body, WHOLE)
            if whole.header("x-afw-outcome") != "hit":
                assert first.header("x-afw-outcome") != "hit"
                continue
            once_more = await client.again(path, body)
            assert once_more.alike == whole.alike.replace(b"\r\nx-request-id: whole", b"\r\nx-request-id: *")
            assert once_more.header("x-request-id") not in ("", "whole")
            told = [json.loads(one.body) for one in (whole, once_more)]
            for name in ("chatId", "chatMessageId"):
                assert told[0][name] != told[1][name]
            seen += 1
        assert seen >= 3, "no recorded question came from memory"


@NEAR
@pytest.mark.parametrize("way", ["flowise", "openai", "rest"])
async def test_each_way_in_answers_alike(
    near: bool, way: str, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near) as client:
        await client.post(PATH, QUESTION)  # the flow is known from now on
        flow = FLOWS["llm"]
        path, body = {
            "flowise": (PATH, QUESTION),
            "openai": ("/v1/chat/completions", {"model": flow, "messages": [{"role": "user", "content": "Why?"}]}),
            "rest": ("/api/v2/ask", {"question": "Why so?", "flow": flow}),
        }[way]
        await client.post(path, body)
        await client.again(path, body)
        whole = await client.post(path, body, WHOLE)
        assert whole.header("x-afw-outcome") == "hit"
        assert (b'"near":true' in whole.raw) == (near and way == "rest")
        assert (await client.again(path, body)).alike == whole.alike


@NEAR
async def test_both_ways_leave_the_same_in_redis(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near) as client:
        await client.post(PATH, QUESTION)
        await client.again(PATH, QUESTION)
        home = client.app.service.home
        left: list[tuple[Turn, dict[bytes, int]]] = []
        for headers in (WHOLE, {}):
            await home.flush()
            before, told = counts(valkey), client.repeated
            response = await client.post(PATH, QUESTION, headers)
            assert response.header("x-afw-outcome") == "hit"
            assert client.repeated == told + (0 if headers else 1)
            await home.flush()
            with valkey.client() as redis:
                session = response.header("x-afw-session")
                (turn,) = redis.xrange(f"afw:v1:default:session:{{{session}}}:turns")
                header = redis.hgetall(f"afw:v1:default:session:{{{session}}}")
            stored = decode(turn[1][b"t"], Turn)
            assert (stored.id, stored.session_id) == (response.header("x-afw-turn"), session)
            assert stored.trace_id == response.header("x-afw-trace")
            assert header[b"turns"] == b"1"
            added = {name: value - before.get(name, 0) for name, value in counts(valkey).items()}
            left.append((stored, {name: value for name, value in added.items() if value}))
        (whole, counted), (repeated, counted_again) = left
        own = {"id": "", "session_id": "", "trace_id": "", "at": 0.0, "elapsed_ms": 0.0}
        assert as_fields(whole) | own == as_fields(repeated) | own
        assert counted == counted_again
        assert counted


def as_fields(turn: Turn) -> dict[str, Any]:
    return {name: getattr(turn, name) for name in turn.__struct_fields__}


def counts(valkey: Server) -> dict[bytes, int]:
    """All counters of the tenant but times, by key and field."""
    found: dict[bytes, int] = {}
    with valkey.client() as redis:
        for key in redis.scan_iter("afw:v1:default:count:*"):
            for field, value in redis.hgetall(key).items():
                if not re.fullmatch(rb"(hit_us|h\d+|saved_us|s\d+|near)", field):
                    found[key + b" " + field] = int(value)
    return found


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"X-Request-ID": "r"}},
        {"headers": {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}},
        {"headers": {"Origin": "http://127.0.0.1"}},
        {"headers": {"Authorization": "Bearer other"}},
        {"headers": {"Cache-Control": "no-cache"}},
        {"headers": {"Cache-Control": "private"}},
        {"body": {"sessionId": "s1"}},
        {"body": {"chatId": "c1"}},
        {"body": {"overrideConfig": {"temperature": 0}}},
        {"body": {"history": [{"role": "userMessage", "content": "a"}, {"role": "apiMessage", "content": "b"}]}},
        {"body": {"streaming": True}},
    ],
    ids=str,
)
async def test_what_is_more_than_a_question_goes_the_whole_way(
    more: dict[str, Any], valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=False, serve_origins="http://127.0.0.1") as client:
        await client.post(PATH, QUESTION)
        await client.again(PATH, QUESTION)
        before = client.repeated
        body, headers = QUESTION | more.get("body", {}), more.get("headers")
        for _ in range(3):
            client.writer.write(request(PATH, body, {**(headers or {}), "Connection": "keep-alive"}))
            head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 20)
            if b"transfer-encoding" in head:
                await asyncio.wait_for(client.reader.readuntil(b"\r\n0\r\n\r\n"), 20)
            elif found := re.search(rb"content-length: (\d+)", head):
                await client.reader.readexactly(int(found[1]))
        assert client.repeated == before


@NEAR
async def test_what_changed_is_asked_anew_at_once(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=near) as client:
        await client.post(PATH, QUESTION)
        await client.again(PATH, QUESTION)
        home = client.app.service.home
        await home.cache.clear(flow=FLOWS["llm"], dry_run=False)
        cleared = await client.post(PATH, QUESTION)
        assert cleared.header("x-afw-outcome") == "miss"
        await client.again(PATH, QUESTION)
        home.registry.adopt(home.registry.current().get(FLOWS["llm"]))  # as an edit of the file
        before = client.repeated
        assert (await client.post(PATH, QUESTION)).header("x-afw-outcome") == "hit"
        assert client.repeated == before


async def test_an_id_that_is_another_flow_s_now_asks_that_one(
    valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    async with asked(valkey, tmp_path, flowise, near=False) as client:
        await client.post(PATH, QUESTION)
        await client.again(PATH, QUESTION)
        registry = client.app.service.home.registry
        was = registry.current().get(FLOWS["llm"])
        registry.adopt(msgspec.structs.replace(was, id=FLOWS["conv"]))
        registry.adopt(msgspec.structs.replace(was, key="other"))
        body = QUESTION | {"flow": was.key}
        await client.post("/api/v2/ask", body)
        await client.again("/api/v2/ask", body)  # the flow that it was before is at hand again
        assert (await client.post(PATH, QUESTION)).header("x-afw-outcome") == "miss"


async def test_keys_are_looked_up_for_every_request(valkey: Server, tmp_path: Path, flowise: ReplayFlowise) -> None:
    async with asked(valkey, tmp_path, flowise, near=False, serve_credentials="always") as client:
        key = {"X-API-Key": await key_for(client.app, Scope.ASK)}
        outcomes = [(await client.post(PATH, QUESTION, key)).header("x-afw-outcome") for _ in range(4)]
        assert outcomes == ["miss", "hit", "hit", "hit"]
        assert (await client.post(PATH, QUESTION)).raw.startswith(b"HTTP/1.1 401")
        assert client.repeated == 0


@NEAR
async def test_requests_that_come_together_are_answered_in_their_order(
    near: bool, valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    other = {"question": "What is a generation?"}
    async with asked(valkey, tmp_path, flowise, near=near) as client:
        for body in (QUESTION, other):
            await client.post(PATH, body)
            await client.again(PATH, body)
        unknown = {"question": "Is this one new?"}
        bodies = [QUESTION, other, unknown, QUESTION, QUESTION, other]
        client.writer.write(b"".join(request(PATH, body) for body in bodies))
        for body in bodies:
            assert json.loads((await client.response()).body)["question"] == body["question"]
        before = client.repeated
        whole = request(PATH, other)
        client.writer.write(whole[:-20])  # its end comes later: there is no hurry about it
        await asyncio.sleep(0.02)
        client.writer.write(whole[-20:])
        assert json.loads((await client.response()).body)["question"] == other["question"]
        assert client.repeated == before
        client.writer.write(request(PATH, QUESTION, {"Connection": "close"}))
        assert (await client.response()).header("connection") == "close"
        assert await client.reader.read() == b""


async def test_no_more_requests_are_known_than_may_be(
    valkey: Server, tmp_path: Path, flowise: ReplayFlowise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again_module, "MOST", 2)
    async with asked(valkey, tmp_path, flowise, near=False) as client:
        for number in range(4):
            body = {"question": f"What is part {number}?"}
            await client.post(PATH, body)
            await client.again(PATH, body)
        assert len(client.app.service.repeats._known) == 2
        long = {"question": "Why? " * 2000}
        for _ in range(3):
            await client.post(PATH, long)
        assert len(client.app.service.repeats._known) == 2

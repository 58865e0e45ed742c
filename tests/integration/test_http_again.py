"""Requests that came before are answered as the whole way answers them: the same bytes, the same traces in Redis."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentic_flywheel.interfaces.http import again as again_module
from agentic_flywheel.model import Turn
from agentic_flywheel.store.codec import decode
from flowise_replay import FLOWS, RECORDINGS, ReplayFlowise
from http_repeats import NEAR, PATH, QUESTION, WHOLE, asked, request
from servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


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


async def test_a_request_in_one_piece_is_not_parsed_again(
    valkey: Server, tmp_path: Path, flowise: ReplayFlowise, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked(valkey, tmp_path, flowise, near=True) as client:
        await client.post(PATH, QUESTION)
        parsed = await client.again(PATH, QUESTION)
        repeats = client.app.service.repeats
        monkeypatch.setattr(repeats, "known", lambda _sent: None)  # what was parsed is not recognised any more
        at_once = await client.again(PATH, QUESTION)
        assert at_once.alike == parsed.alike
        assert at_once.header("x-request-id") != parsed.header("x-request-id")
        before = client.repeated
        for different in ({"question": "How long are answers kept"}, b'{"question":"How long are answers kept?"}'):
            await client.post(PATH, different)
        await client.post(PATH, QUESTION, {"Accept": "*/*"})
        assert client.repeated == before, "another piece is another request"
        home = client.app.service.home
        await home.cache.clear(flow=FLOWS["llm"], dry_run=False)
        assert (await client.post(PATH, QUESTION)).header("x-afw-outcome") == "miss"
        monkeypatch.undo()
        await client.again(PATH, QUESTION)
        assert repeats._whole
        home.registry.adopt(home.registry.current().get(FLOWS["llm"]))  # as an edit of the file
        await client.post(PATH, QUESTION)
        assert not repeats._whole


async def test_only_a_request_alone_and_in_its_turn_is_known_by_its_piece(
    valkey: Server, tmp_path: Path, flowise: ReplayFlowise
) -> None:
    other = {"question": "What is a generation?"}
    async with asked(valkey, tmp_path, flowise, near=True) as client:
        for body in (QUESTION, other):
            await client.post(PATH, body)
            await client.again(PATH, body)

        async def told(*pieces: bytes) -> None:
            """Write pieces, each of which is read by itself where it is whole."""
            for piece in pieces:
                client.writer.write(piece)
                await client.writer.drain()
                await asyncio.sleep(0.005)

        async def answered(*bodies: dict[str, str]) -> None:
            for body in bodies:
                assert json.loads((await client.response()).body)["question"] == body["question"]

        one, two = request(PATH, QUESTION), request(PATH, other)
        for _ in range(3):
            await told(one + two)
            await answered(QUESTION, other)
            await told(one + two[:40], two[40:])
            await answered(QUESTION, other)
            await told(two[:40], two[40:] + one)
            await answered(other, QUESTION)
            await told(one)
            await answered(QUESTION)
        flowise.hold()
        unknown = {"question": "Who is asked while another one waits?"}
        await told(request(PATH, unknown), one, two)
        flowise.release()
        await answered(unknown, QUESTION, other)
        # The same bytes are no request of their own in the head of another one.
        await told(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Part: ", one)
        assert (await client.response()).raw.startswith(b"HTTP/1.1 400")
        await told(one)
        await answered(QUESTION)
        await told(two[40:] + one)  # as came before, when it was the rest of one and another
        assert (await client.response()).raw.startswith(b"HTTP/1.1 400")
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

"""`Idempotency-Key`: done once however often it is sent; bound to its caller and its request; sealed, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.interfaces.http.app import App
from flywheels import Oracle, text_anywhere
from http_app import app_on, client_of, key_for
from servers import Server

pytestmark = pytest.mark.anyio

ASK = "/api/v2/ask"
KEY = "0c5d6a1e-8b4f-4e0a-9d0b-6f0a2f1c7e55"


class Waiting(Oracle):
    """An oracle that answers once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()
        self.may = asyncio.Event()
        self.may.set()

    async def answer(self, question: FlowQuestion) -> str:
        said = self(question)
        self.heard.set()
        await self.may.wait()
        if "fail" in question.text:
            raise ValueError("no")
        return said


@pytest.fixture
def oracle() -> Waiting:
    return Waiting()


@pytest.fixture
async def app(valkey: Server, tmp_path: Path, oracle: Waiting) -> AsyncIterator[App]:
    async with app_on(valkey, tmp_path) as made:
        made.service.registry.register("oracle", oracle.answer)
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as made:
        yield made


async def ask(client: httpx2.AsyncClient, question: str, key: str = KEY, **more: Any) -> httpx2.Response:
    return await client.post(ASK, json={"question": question, **more}, headers={"Idempotency-Key": key})


async def test_a_request_is_done_once_and_its_response_given_again(client: httpx2.AsyncClient, oracle: Waiting) -> None:
    first = await ask(client, "What is done once?", no_cache=True, session_id="s")
    again = await ask(client, "What is done once?", no_cache=True, session_id="s")
    assert (first.status_code, again.status_code, oracle.calls) == (200, 200, 1)
    assert again.content == first.content
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert again.headers["x-afw-turn"] == first.headers["x-afw-turn"]
    assert len((await client.get("/api/v2/sessions/s/turns")).json()["items"]) == 1
    other = await ask(client, "What else?", no_cache=True, session_id="s")
    assert (other.status_code, other.json()["code"], oracle.calls) == (422, "repeat_mismatch", 1)


async def test_one_that_comes_meanwhile_is_told_to_wait(client: httpx2.AsyncClient, oracle: Waiting) -> None:
    oracle.may.clear()
    first = asyncio.create_task(ask(client, "What takes long?"))
    await asyncio.wait_for(oracle.heard.wait(), 120)
    meanwhile = await ask(client, "What takes long?")
    assert (meanwhile.status_code, meanwhile.json()["code"]) == (409, "repeat_in_progress")
    assert int(meanwhile.headers["retry-after"]) >= 1
    oracle.may.set()
    assert (await first).content == (await ask(client, "What takes long?")).content


async def test_after_a_failure_the_key_is_free(client: httpx2.AsyncClient, oracle: Waiting) -> None:
    assert (await ask(client, "Will it fail?")).status_code == 502
    assert (await ask(client, "Will it not?")).status_code == 200
    for key in ("short", "with a space in it", "é" * 20):
        refused = await client.post(ASK, json={"question": "What?"}, headers={"Idempotency-Key": key.encode()})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input"), key
    for path, body in (("/ask/stream", {"question": "What?"}), ("/keys", {"name": "k", "scopes": ["ask"]})):
        refused = await client.post(f"/api/v2{path}", json=body, headers={"Idempotency-Key": KEY})
        assert (refused.status_code, refused.json()["details"]["param"]) == (400, "Idempotency-Key")


async def test_what_leaves_no_turn_leaves_no_response_either(
    client: httpx2.AsyncClient, oracle: Waiting, valkey: Server
) -> None:
    for times in (1, 2):
        answer = await ask(client, "What is kept of this?", no_store=True)
        assert (answer.status_code, answer.json()["reason"], oracle.calls) == (200, "no_store", times)
        assert "idempotent-replayed" not in answer.headers
        with valkey.client() as redis:
            assert redis.keys("*:repeat:*") == []


async def test_a_key_is_its_callers_alone(app: App, client: httpx2.AsyncClient, oracle: Waiting) -> None:
    await ask(client, "Whose is it?", no_cache=True)
    async with client_of(app, await key_for(app, Scope.ASK, user="ann")) as ann:
        assert "idempotent-replayed" not in (await ask(ann, "Whose is it?", no_cache=True)).headers
    assert oracle.calls == 2


async def test_what_is_kept_is_sealed_and_what_is_forgotten_is_not_said_again(
    client: httpx2.AsyncClient, valkey: Server
) -> None:
    await ask(client, "What is a zebra?", session_id="s")
    assert any(b":session:" in key for key in text_anywhere(valkey, "zebra"))
    assert not any(b":repeat:" in key for key in text_anywhere(valkey, "zebra"))
    with valkey.client() as redis:
        (kept,) = redis.keys("*:repeat:*")
        assert 0 < redis.pttl(kept) <= 86_400_000
        assert KEY.encode() not in kept
    await client.post("/api/v2/forget", json={"session_id": "s"})
    gone = await ask(client, "What is a zebra?", session_id="s")
    assert (gone.status_code, gone.json()["code"]) == (404, "unknown_session")
    with valkey.client() as redis:
        redis.setrange(kept, 40, b"damage")
    assert (await ask(client, "What is a zebra?", session_id="s")).json()["code"] == "store_damaged"


async def test_receipts_are_given_again_too(client: httpx2.AsyncClient) -> None:
    await client.post(ASK, json={"question": "What is swept?", "session_id": "s"})
    headers = {"Idempotency-Key": KEY}
    for number in range(2):
        forgot = await client.post("/api/v2/forget", json={"session_id": "s"}, headers=headers)
        assert (forgot.json()["removed"]["turns"], "idempotent-replayed" in forgot.headers) == (1, number == 1)

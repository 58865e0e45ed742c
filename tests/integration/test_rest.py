"""The REST interface: questions and sessions, cursors, parts of paths, what is whose, how it is described."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.interfaces.http.app import App
from flywheels import Oracle
from http_app import app_on, client_of, key_for
from servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
async def app(valkey: Server, tmp_path: Path, oracle: Oracle) -> AsyncIterator[App]:
    async with app_on(valkey, tmp_path) as made:
        made.service.registry.register("oracle", oracle)
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as made:
        yield made


async def ask(client: httpx2.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/api/v2/ask", json={"question": question, **more})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream, by name."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_question_is_answered_from_memory_the_second_time_and_says_so(
    client: httpx2.AsyncClient, oracle: Oracle
) -> None:
    first = await ask(client, "How long are answers kept?", session_id="monday")
    assert (first["outcome"], first["session_id"], first["remembered"]) == ("miss", "monday", True)
    again = await client.post("/api/v2/ask", json={"question": "how long are answers kept"})
    assert (again.json()["text"], again.json()["outcome"], oracle.calls) == (first["text"], "hit", 1)
    assert again.headers["x-afw-outcome"] == "hit"
    assert "age" in again.headers
    fresh = await client.post(
        "/api/v2/ask", json={"question": "how long are answers kept"}, headers={"Cache-Control": "no-cache"}
    )
    assert (fresh.json()["reason"], oracle.calls) == ("no_cache", 2)
    missing = await client.post("/api/v2/ask", json={"question": "Something else?", "only_if_cached": True})
    assert (missing.status_code, missing.json()["code"]) == (504, "not_cached")


async def test_an_answer_is_streamed_in_events(client: httpx2.AsyncClient) -> None:
    response = await client.post("/api/v2/ask/stream", json={"question": "What is streamed?"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert (events[0][0], events[-1][0]) == ("decided", "answer")
    assert "".join(data["text"] for name, data in events if name == "text") == events[-1][1]["text"]
    refused = await client.post("/api/v2/ask/stream", json={"question": "What?", "flow": "none"})
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_flow")


async def test_sessions_are_listed_page_by_page_and_a_cursor_belongs_to_its_list(client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await ask(client, f"Question {number}?", session_id=f"s{number}", user_id="ann")
    seen, address = [], "/api/v2/sessions?limit=2&user_id=ann"
    while address:
        page = await client.get(address)
        seen += [session["id"] for session in page.json()["items"]]
        link = page.headers.get("link", "")
        assert bool(link) is (page.json()["next_cursor"] is not None)
        address = link.partition(">")[0].removeprefix("<")
    assert seen == ["s4", "s3", "s2", "s1", "s0"]
    cursor = (await client.get("/api/v2/sessions?limit=2&user_id=ann")).json()["next_cursor"]
    changed = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for other in (f"limit=2&user_id=bob&cursor={cursor}", f"user_id=ann&cursor={changed}", "cursor=2", "cursor=é"):
        refused = await client.get(f"/api/v2/sessions?{other}")
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input"), other


async def test_turns_are_listed_and_shown_and_what_changed_meanwhile_is_told(client: httpx2.AsyncClient) -> None:
    turns = [(await ask(client, f"And what of {word}?", session_id="long"))["turn_id"] for word in ("a", "b", "c")]
    page = (await client.get("/api/v2/sessions/long/turns?limit=2")).json()
    assert [turn["id"] for turn in page["items"]] == turns[:0:-1]
    rest = (await client.get(f"/api/v2/sessions/long/turns?limit=2&cursor={page['next_cursor']}")).json()
    assert ([turn["id"] for turn in rest["items"]], rest["next_cursor"]) == (turns[:1], None)
    assert (await client.get(f"/api/v2/sessions/long/turns/{turns[1]}")).json()["question"] == "And what of b?"
    gone = await client.delete(f"/api/v2/sessions/long/turns/{turns[1]}")
    assert gone.json()["removed"]["turns"] == 1
    stale = await client.get(f"/api/v2/sessions/long/turns?limit=2&cursor={page['next_cursor']}")
    assert (stale.status_code, stale.json()["code"]) == (404, "unknown_turn")


async def test_sessions_are_named_tagged_linked_exported_and_deleted(client: httpx2.AsyncClient) -> None:
    for session in ("one", "two"):
        await ask(client, f"What is {session}?", session_id=session)
    changed = await client.patch("/api/v2/sessions/one", json={"title": "Numbers", "add_tags": ["a", "b"]})
    assert (changed.json()["title"], changed.json()["tags"]) == ("Numbers", ["a", "b"])
    changed = await client.patch("/api/v2/sessions/one", json={"title": None, "remove_tags": ["a"]})
    assert (changed.json()["title"], changed.json()["tags"]) == ("What is one?", ["b"])
    linked = await client.put("/api/v2/sessions/one/links/two")
    assert [link["session_id"] for link in linked.json()["links"]] == ["two"]
    assert (await client.get("/api/v2/sessions/two/links?limit=0")).json()["links"][0]["session_id"] == "one"
    assert (await client.delete("/api/v2/sessions/two/links/one")).json()["links"] == []
    document = await client.get("/api/v2/sessions/one/export")
    assert document.headers["content-type"].startswith("text/markdown")
    assert document.text.startswith("# What is one?")
    assert (await client.get("/api/v2/sessions/one/export?form=json")).json()["session"]["id"] == "one"
    would = await client.delete("/api/v2/sessions/one?dry_run=true")
    assert (would.json()["dry_run"], would.json()["removed"]["turns"]) == (True, 1)
    assert (await client.get("/api/v2/sessions/one")).status_code == 200
    assert (await client.delete("/api/v2/sessions/one?why=old")).json()["dry_run"] is False
    assert (await client.get("/api/v2/sessions/one")).json()["code"] == "unknown_session"


async def test_forgetting_is_in_the_audit_log_and_what_cannot_be_done_is_not(
    app: App, client: httpx2.AsyncClient
) -> None:
    await ask(client, "What is Ann's question?", session_id="hers", user_id="ann")
    would = await client.post("/api/v2/forget", json={"user_id": "ann", "dry_run": True})
    assert would.json()["removed"]["turns"] == 1
    assert (await client.post("/api/v2/forget", json={"session_id": "nothing"})).status_code == 404
    assert (await client.post("/api/v2/forget", json={})).json()["code"] == "invalid_input"
    assert (await client.post("/api/v2/forget", json={"user_id": "ann", "why": "asked to"})).status_code == 200
    assert (await client.get("/api/v2/sessions/hers")).status_code == 404
    log, _ = await app.service.home.audit.list()
    assert [(entry.action, entry.target, entry.by, entry.why) for entry in log] == [
        ("user.forget", "ann", "anybody here", "asked to")
    ]


async def test_ids_may_hold_what_separates_parts_of_a_path(client: httpx2.AsyncClient) -> None:
    await ask(client, "What is a slash?", session_id="a/b c%é")
    shown = await client.get("/api/v2/sessions/a%2Fb%20c%25%C3%A9")
    assert (shown.status_code, shown.json()["session"]["id"]) == (200, "a/b c%é")
    assert (await client.get("/api/v2/sessions/a%2Fb%20c%25%C3%A9/turns")).json()["items"][0]["session_id"] == "a/b c%é"
    assert (await client.get("/api/v2/sessions/%ff")).status_code == 404


async def test_what_cannot_be_read_is_refused_by_name(client: httpx2.AsyncClient) -> None:
    for path, body, word in (
        ("/api/v2/ask", b"{", "body"),
        ("/api/v2/ask", b"", "question"),
        ("/api/v2/ask", b'{"question": "\\ud800"}', "body"),
        ("/api/v2/ask", b'{"question": "a", "quesion": "b"}', "quesion"),
        ("/api/v2/ask", b'{"question": "a", "max_age_seconds": -1}', "max_age_seconds"),
        ("/api/v2/ask?flow=a", b'{"question": " "}', "question"),
    ):
        response = await client.post(path, content=body)
        assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json"), body
        assert word in response.json()["detail"], response.text
    for query, word in (("limit=0", "limit"), ("limit=a", "limit"), ("limt=2", "limt"), ("tag=a&tag=b", "tag")):
        response = await client.get(f"/api/v2/sessions?{query}")
        assert (response.status_code, word in response.json()["detail"]) == (400, True), response.text
    for query, choices in (("mode=fast", "words, meaning, both"), ("sort=best", "relevance, time")):
        problem = (await client.get(f"/api/v2/search?{query}")).json()
        assert problem["suggestions"][0] == f"Choose one of {choices}.", problem
    wrong = await client.request("PURGE", "/api/v2/sessions/a")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET, PATCH")


async def test_a_key_of_one_user_reaches_nothing_of_another(app: App, client: httpx2.AsyncClient) -> None:
    turn = (await ask(client, "What is Bob's question?", session_id="bobs", user_id="bob"))["turn_id"]
    await ask(client, "What is Ann's question?", session_id="anns", user_id="ann")
    async with client_of(app, await key_for(app, Scope.ASK, user="ann")) as ann:
        assert [one["id"] for one in (await ann.get("/api/v2/sessions")).json()["items"]] == ["anns"]
        assert (await ann.get("/api/v2/sessions?user_id=bob")).status_code == 403
        for method, path, body in (
            ("GET", "/api/v2/sessions/bobs", None),
            ("GET", "/api/v2/sessions/bobs/turns", None),
            ("GET", f"/api/v2/sessions/bobs/turns/{turn}", None),
            ("DELETE", f"/api/v2/sessions/bobs/turns/{turn}", None),
            ("GET", "/api/v2/sessions/bobs/export", None),
            ("GET", "/api/v2/sessions/bobs/links", None),
            ("PUT", "/api/v2/sessions/anns/links/bobs", None),
            ("DELETE", "/api/v2/sessions/bobs/links/anns", None),
            ("PATCH", "/api/v2/sessions/bobs", {"title": "mine"}),
            ("DELETE", "/api/v2/sessions/bobs", None),
            ("POST", "/api/v2/forget", {"session_id": "bobs"}),
            ("POST", "/api/v2/ask", {"question": "What?", "session_id": "bobs"}),
            ("POST", "/api/v2/ask/stream", {"question": "What?", "session_id": "bobs"}),
            ("POST", "/api/v2/explain", {"question": "What?", "session_id": "bobs"}),
            ("POST", "/api/v2/key", {"question": "What?", "session_id": "bobs"}),
            ("POST", "/api/v2/reports", {"turn_id": "last", "session_id": "bobs", "kind": "wrong"}),
        ):
            refused = await ann.request(method, path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (404, "unknown_session"), (method, path)
        assert (await ann.post("/api/v2/forget", json={"user_id": "bob"})).status_code == 403
        assert (await ann.post("/api/v2/ask", json={"question": "Who?", "user_id": "bob"})).status_code == 403
        assert (await ann.delete("/api/v2/sessions/anns?dry_run=true")).status_code == 200
        assert (await ann.post("/api/v2/forget", json={"user_id": "ann"})).json()["removed"]["sessions"] == 1
    key = (await app.service.home.api_keys.create("widget", {Scope.ASK}, by="test")).secret
    async with client_of(app, key) as widget:
        assert (await widget.get("/api/v2/sessions")).json()["code"] == "not_allowed"
        assert (await widget.get("/api/v2/sessions?user_id=bob")).json()["items"][0]["id"] == "bobs"
        assert (await widget.delete("/api/v2/sessions/bobs")).json()["code"] == "not_allowed"


async def test_what_would_become_of_a_question_its_key_and_a_report(client: httpx2.AsyncClient) -> None:
    answer = await ask(client, "Is this right?", session_id="s")
    told = (await client.post("/api/v2/explain", json={"question": "is this right"})).json()
    assert (told["outcome"], told["key"], told["flow"]) == ("hit", answer["key"], "oracle")
    assert (await client.post("/api/v2/key", json={"question": "is this right"})).json() == {"key": answer["key"]}
    reported = await client.post(
        "/api/v2/reports", json={"turn_id": "last", "session_id": "s", "kind": "wrong", "note": "no", "fresh": True}
    )
    assert (reported.status_code, reported.json()["receipt"]["report"]["turn_id"]) == (201, answer["turn_id"])
    assert reported.json()["answer"]["text"] != answer["text"]


async def test_what_a_function_raised_is_told_to_administrators_alone(app: App) -> None:
    def broken(question: str) -> str:
        raise OSError(f"db://user:word@10.0.0.7 refused {question}")

    app.service.registry.register("broken", broken)
    for scope, told in ((Scope.ASK, False), (Scope.ADMIN, True)):
        scopes = {Scope.ASK, scope}
        async with client_of(app, await key_for(app, *scopes)) as client:
            for path, body in (
                ("/api/v2/ask", {"question": "Who is there?", "flow": "broken"}),
                (
                    "/v1/chat/completions",
                    {"model": "broken", "messages": [{"role": "user", "content": "Who is there?"}]},
                ),
            ):
                failed = await client.post(path, json=body)
                assert failed.status_code == 502
                assert ("10.0.0.7" in failed.text) is told

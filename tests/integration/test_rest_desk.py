"""The REST interface for those who look after it: answers, policies, the FAQ, warm-ups, flows, keys, backups."""

from __future__ import annotations

import asyncio
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

API = "/api/v2"


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
async def app(valkey: Server, tmp_path: Path, oracle: Oracle) -> AsyncIterator[App]:
    (tmp_path / "flows.yaml").write_text("flows:\n  chat:\n    id: c1\n    base_url: http://127.0.0.1:9\n")
    async with app_on(valkey, tmp_path) as made:
        made.service.registry.register("oracle", oracle)
        yield made


@pytest.fixture
async def client(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as made:
        yield made


async def done(client: httpx2.AsyncClient, method: str, path: str, body: Any = None, **more: Any) -> Any:
    """What a request that must go well comes to."""
    response = await client.request(method, API + path, json=body, **more)
    assert response.is_success, (path, response.text)
    return response.json()


async def ask(client: httpx2.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = await done(client, "POST", "/ask", {"question": question, "flow": "oracle", **more})
    return found


async def audited(client: httpx2.AsyncClient) -> list[str]:
    """What was administered, oldest first."""
    return [entry["action"] for entry in (await done(client, "GET", "/audit"))["items"]][::-1]


async def test_history_is_searched_page_by_page_with_marks_and_facets(client: httpx2.AsyncClient) -> None:
    for word in ("seven", "eight", "nine"):
        await ask(client, f"How are {word} apples counted?", session_id="s", user_id="ann")
    page = await done(client, "GET", "/search?query=apples&limit=2")
    assert (page["total"], len(page["items"]), page["facets"]["user"]) == (3, 2, {"ann": 3})
    start, end = page["items"][0]["question_marks"][0]
    assert page["items"][0]["question"][start:end] == "apples"
    rest = await done(client, "GET", f"/search?query=apples&limit=2&cursor={page['next_cursor']}")
    assert (len(rest["items"]), rest["next_cursor"]) == (1, None)
    other = await client.get(f"{API}/search?query=pears&limit=2&cursor={page['next_cursor']}")
    assert other.json()["code"] == "invalid_input"
    assert (await done(client, "GET", "/search?query=apples&tag=none"))["items"] == []
    await ask(client, "What is asked by all?", user_id="ann")
    await ask(client, "what is asked by all", user_id="bob")
    assert (await done(client, "GET", "/popular"))["items"][0]["asked"] == 2
    assert (await done(client, "GET", "/paths", params={"question": "What is asked by all?"}))["items"] == []
    assert (await done(client, "GET", "/index"))["turns"] == 5
    rebuilt = await client.post(f"{API}/index/rebuild")
    assert rebuilt.text.rstrip().split("\n\n")[-1].startswith("event: index\n")
    assert (await done(client, "DELETE", "/index?dry_run=true"))["removed"] == {"indexed turns": 5}


async def test_stored_answers_are_shown_with_why_and_cleared(client: httpx2.AsyncClient, app: App) -> None:
    shared = await ask(client, "What is shared?")
    kept = await ask(client, "What is kept?", session_id="s", private=True)
    listed = (await done(client, "GET", "/entries"))["items"]
    assert {(one["scope"], one["servable"]) for one in listed} == {("team", True), ("session", True)}
    shown = await done(client, "GET", "/entries/" + shared["key"].replace("{", "%7B"))
    assert (shown["entry"]["answer"], shown["verdict"]) == (shared["text"], "exact")
    async with client_of(app, await key_for(app, Scope.READ)) as reader:
        assert [one["scope"] for one in (await done(reader, "GET", "/entries"))["items"]] == ["team"]
        assert (await reader.get(f"{API}/entries/{kept['key']}")).json()["code"] == "unknown_key"
        assert (await reader.post(f"{API}/entries/clear", json={"everything": True})).status_code == 403
    would = await done(client, "POST", "/entries/clear", {"flow": "oracle", "dry_run": True})
    assert (would["dry_run"], would["unreachable"]) == (True, 2)
    await done(client, "POST", "/entries/clear", {"key": shared["key"], "why": "wrong"})
    assert (await ask(client, "What is shared?"))["outcome"] == "miss"
    assert (await client.post(f"{API}/entries/clear", json={})).json()["code"] == "invalid_input"
    assert await audited(client) == ["key.create", "entries.clear"]


async def test_lifetimes_and_policies_are_set_and_taken_back(client: httpx2.AsyncClient) -> None:
    assert (await done(client, "PUT", "/lifetimes/technical", {"ttl": "36h"}))["ttl_seconds"] == 129_600
    assert (await done(client, "PUT", "/lifetimes/oracle", {"ttl_seconds": 60}))["origin"] == "set at run time"
    rows = {row["name"]: row["ttl_seconds"] for row in (await done(client, "GET", "/lifetimes"))["items"]}
    assert (rows["technical"], rows["oracle"]) == (129_600, 60)
    assert (await done(client, "DELETE", "/lifetimes/oracle"))["ttl_seconds"] == 129_600
    assert (await client.put(f"{API}/lifetimes/none", json={"ttl": "1d"})).json()["code"] == "unknown_flow"
    status = await done(client, "PATCH", "/similar/oracle", {"profile": "faq", "mode": "off", "max_error": 0.02})
    assert (status["terms"]["profile"], status["terms"]["mode"], status["terms"]["max_error"]) == ("faq", "off", 0.02)
    assert (await done(client, "DELETE", "/similar/oracle"))["terms"]["profile"] == "strict"
    assert (await done(client, "GET", "/similar"))["items"][0]["flow"] == "chat"
    assert (await done(client, "GET", "/similar/oracle/changes"))["items"] == []
    turn = (await ask(client, "Is this so?"))["turn_id"]
    await done(client, "POST", "/reports", {"turn_id": turn, "kind": "wrong", "note": "no"})
    assert [report["note"] for report in (await done(client, "GET", "/reports?flow=oracle"))["items"]] == ["no"]
    assert (await done(client, "GET", "/proposals?all=true"))["items"] == []
    assert (await client.post(f"{API}/proposals/p/accept", json={})).json()["code"] == "unknown_proposal"
    changes = ["lifetime.set", "lifetime.set", "lifetime.reset", "similar.set", "similar.reset"]
    assert await audited(client) == changes


async def test_of_two_who_edit_the_faq_the_second_is_told(client: httpx2.AsyncClient, app: App) -> None:
    made = await client.post(
        f"{API}/faq/entries", json={"question": "How long?", "answer": "A week.", "flow": "oracle", "user_id": "ann"}
    )
    assert made.status_code == 201
    place, tag = f"{API}/faq/entries/{made.json()['entry']['id']}", made.headers["etag"]
    edited = await client.patch(place, json={"answer": "Seven days."}, headers={"If-Match": tag})
    assert (edited.json()["entry"]["answer"], edited.headers["etag"] != tag) == ("Seven days.", True)
    late = await client.patch(place, json={"answer": "A month."}, headers={"If-Match": tag})
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    late = await client.patch(place, json={"answer": "A month.", "revision": 1})
    assert (late.status_code, late.json()["code"]) == (409, "edit_conflict")
    joined = await done(
        client, "POST", f"{place.removeprefix(API)}/join", {"wordings": ["For how long?", "Since when?"]}
    )
    assert joined["view"]["entry"]["wordings"] == ["For how long?", "Since when?"]
    split = await done(client, "POST", f"{place.removeprefix(API)}/split", {"wordings": ["Since when?"]})
    assert split["view"]["entry"]["wordings"] == ["For how long?"]
    edited = await client.get(place)
    approved = await client.post(
        f"{place}/approve", json={"owner": "ann"}, headers={"If-Match": edited.headers["etag"]}
    )
    assert approved.json()["state"] == "published"
    assert (await ask(client, "how long"))["source"] == "faq"
    shown = await client.get(place)
    assert (shown.headers["etag"], [change["what"] for change in shown.json()["history"]]) == (
        approved.headers["etag"],
        ["added", "edited", "edited", "edited", "approved"],
    )
    async with client_of(app, await key_for(app, Scope.READ)) as reader:
        assert [view["entry"]["answer"] for view in (await done(reader, "GET", "/faq?query=long"))["items"]] == [
            "Seven days."
        ]
        assert (await reader.get(f"{API}/faq/export")).text.count("Seven days.") == 1
        assert (await reader.get(place)).status_code == 403
        assert (await reader.get(place.replace("/entries", ""))).json()["state"] == "published"
    assert (await done(client, "POST", place.removeprefix(API) + "/retire", {"reason": "old"}))["unreachable"] == 1
    assert (await done(client, "GET", "/faq"))["items"] == []
    assert (await done(client, "GET", "/faq/entries?retired=true"))["entries"][0]["state"] == "retired"


async def test_a_warm_up_is_previewed_begun_followed_and_gone_on_with(
    client: httpx2.AsyncClient, app: App, oracle: Oracle
) -> None:
    wanted = {"questions": [{"question": f"What is {word}?", "flow": "oracle"} for word in ("red", "green")]}
    preview = await done(client, "POST", "/warm-ups/preview", wanted)
    assert (preview["state"], preview["due"], oracle.calls) == ("dry", 2, 0)
    begun = await client.post(f"{API}/warm-ups", json=wanted | {"budget": {"calls": 1}, "concurrency": 1})
    assert begun.status_code == 202, begun.text
    job = begun.json()["job"]
    events = (await client.get(f"{API}/warm-ups/{job}/events")).text.rstrip().split("\n\n")
    last = json.loads(events[-1].partition("data: ")[2])
    assert (last["state"], last["bound"], last["stored"]) == ("left", "calls", 1)
    await done(client, "POST", f"/warm-ups/{job}/resume", {"budget": {"calls": 5}})
    await asyncio.wait_for(app.service.warm_ups.settled(), 60)
    shown = await done(client, "GET", "/warm-ups/last?items=true")
    assert (shown["state"], {item["outcome"] for item in shown["items"]}) == ("done", {"stored"})
    assert [report["job"] for report in (await done(client, "GET", "/warm-ups"))["items"]] == [job]
    assert (await ask(client, "what is red"))["outcome"] == "hit"
    assert (await done(client, "POST", f"/warm-ups/{job}/stop", {}))["state"] == "done"
    assert (await client.post(f"{API}/warm-ups", json={})).json()["code"] == "invalid_input"


async def test_figures_are_told_in_all_over_time_and_in_rows(client: httpx2.AsyncClient) -> None:
    for question in ("What is one?", "what is one", "What is two?"):
        await ask(client, question, user_id="ann")
    assert (await done(client, "GET", "/stats"))["total"]["questions"] == 3
    assert sum((await done(client, "GET", "/stats/series?step=1h&since=2%20days"))["questions"]) == 3
    rows = (await done(client, "GET", "/stats/rows?by=reason"))["rows"]
    assert {row["name"]: row["questions"] for row in rows} == {"not_stored": 2, "exact": 1}
    assert (await done(client, "GET", "/stats/cache?flow=oracle"))["total"]["entries"] == 2
    health = {flow["flow"]: flow["state"] for flow in (await done(client, "GET", "/stats/flows?check=false"))["flows"]}
    assert health["oracle"] == "ok"
    assert (await client.get(f"{API}/stats?since=whenever")).json()["code"] == "invalid_input"


async def test_flows_are_added_where_one_is_already_changed_and_removed(
    client: httpx2.AsyncClient, app: App, tmp_path: Path
) -> None:
    elsewhere = {"key": "new", "id": "n1", "base_url": "http://flowise.example.com"}
    assert (await client.post(f"{API}/flows", json=elsewhere)).json()["code"] == "invalid_input"
    for more in ({"kind": "python"}, {"api_key_env": "HOME"}, {"callable": "os:system"}):
        refused = await client.post(f"{API}/flows", json={"key": "new", "id": "n1", **more})
        assert refused.status_code == 400, more
    made = await client.post(
        f"{API}/flows",
        json={
            "key": "new",
            "id": "n1",
            "base_url": "http://127.0.0.1:9",
            "config": {"temperature": 0.1, "apiKey": "s3"},
        },
    )
    assert made.status_code == 201, made.text
    assert "s3" not in made.text
    changed = await done(client, "PATCH", "/flows/new", {"ttl_seconds": 60, "config": {"apiKey": None, "topP": 1}})
    assert changed["flow"]["config"] == {"temperature": 0.1, "topP": 1}
    shown = await done(client, "GET", "/flows/new")
    assert (shown["flow"]["ttl_seconds"], shown["flow"]["base_url"]) == (60, "http://127.0.0.1:9")
    assert {flow["key"] for flow in (await done(client, "GET", "/flows"))["items"]} == {"chat", "new", "oracle"}
    assert (await done(client, "POST", "/flows/oracle/check"))["ok"] is True
    assert (await done(client, "POST", "/flows/oracle/test", {"question": "Try?"}))["remembered"] is False
    assert (await done(client, "DELETE", "/flows/new?dry_run=true"))["removed"]["flows"] == 1
    await done(client, "DELETE", "/flows/new")
    assert "new" not in (tmp_path / "flows.yaml").read_text()
    assert await audited(client) == ["flow.add", "flow.edit", "flow.remove"]
    other = app.service.tenants.lend("other")
    key = (await other.api_keys.create("admin", {Scope.ADMIN}, by="test")).secret
    app.service.tenants.take_back(other)
    async with client_of(app, key) as stranger:
        for method, path, body in (
            ("POST", "/flows", {"key": "x", "id": "x"}),
            ("PATCH", "/flows/oracle", {"name": "mine"}),
            ("DELETE", "/flows/oracle", None),
            ("GET", "/config", None),
            ("GET", "/outbox", None),
            ("POST", "/outbox/deliver", {}),
            ("GET", "/values/note", None),
            ("GET", "/keys?all_tenants=true", None),
        ):
            assert (await stranger.request(method, API + path, json=body)).json()["code"] == "not_allowed", path
        shown = (await done(stranger, "GET", "/flows/chat"))["flow"]
        assert (shown["origin"], shown["options"]) == ("", {})


async def test_keys_are_made_listed_and_revoked(client: httpx2.AsyncClient, app: App) -> None:
    made = await client.post(f"{API}/keys", json={"name": "widget", "scopes": ["ask"], "user_id": "ann", "why": "site"})
    assert made.status_code == 201
    async with client_of(app, made.json()["secret"]) as widget:
        assert (await widget.get(f"{API}/sessions")).status_code == 200
        listed = (await done(client, "GET", "/keys"))["items"]
        assert [(key["name"], key["state"], key["user"]) for key in listed] == [("widget", "active", "ann")]
        assert made.json()["secret"] not in json.dumps(listed)
        assert (await done(client, "DELETE", "/keys/widget?dry_run=true"))["dry_run"] is True
        await done(client, "DELETE", "/keys/widget?why=gone")
        assert (await widget.get(f"{API}/sessions")).status_code == 401
    page = await done(client, "GET", "/audit?limit=1")
    assert (page["items"][0]["action"], page["items"][0]["why"]) == ("key.revoke", "gone")
    rest = await done(client, "GET", f"/audit?limit=1&cursor={page['next_cursor']}")
    assert (rest["items"][0]["action"], rest["next_cursor"]) == ("key.create", None)


async def test_a_backup_goes_out_and_comes_back(client: httpx2.AsyncClient, app: App) -> None:
    await ask(client, "What is kept for ever?", session_id="s")
    sent = await client.get(f"{API}/backup")
    assert "session=1" in sent.headers["x-afw-records"]
    assert len(sent.content) == int(sent.headers["content-length"])
    await done(client, "POST", "/forget", {"session_id": "s"})
    for dry in ("true", "false"):
        receipt = await done(client, "POST", f"/backup?dry_run={dry}", content=sent.content)
        assert (receipt["records"]["turn"], receipt["file"]) == (1, "sent")
    assert (await done(client, "GET", "/sessions/s"))["turns"][0]["question"] == "What is kept for ever?"
    broken = await client.post(f"{API}/backup", content=sent.content[:-40])
    assert (broken.status_code, "/afw-import" in broken.text) == (400, False)
    assert (await client.get(f"{API}/backup?section=sessions&section=none")).status_code == 400
    large = await client.post(f"{API}/backup", content=b"x", headers={"Content-Length": "99999999999"})
    assert large.json()["code"] == "request_too_large"


async def test_what_is_set_what_is_fine_what_waits_and_values_beside(
    client: httpx2.AsyncClient, valkey: Server
) -> None:
    settings = {one["name"]: one["value"] for one in (await done(client, "GET", "/config"))["settings"]}
    assert settings["tenant"] == "default"
    assert {check["state"] for check in (await done(client, "GET", "/doctor"))["checks"]} <= {"ok", "warn", "fail"}
    assert (await done(client, "GET", "/outbox"))["waiting"] == 0
    assert await done(client, "GET", "/outbox/turns") == {"waiting": [], "rejected": []}
    assert (await done(client, "POST", "/outbox/deliver", {}))["delivered"] == 0
    kept = await done(client, "PUT", "/values/a%2Fnote?minutes=5", content=b"\x00remember")
    assert kept == {"key": "a/note", "size_bytes": 9, "ttl_seconds": 300}
    assert (await client.get(f"{API}/values/a%2Fnote")).content == b"\x00remember"
    assert (await client.get(f"{API}/values/none")).json()["code"] == "unknown_key"
    assert (await client.put(f"{API}/values/afw:v1:default:x", content=b"x")).json()["code"] == "invalid_input"

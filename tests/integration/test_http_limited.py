"""Keys that are limited to flows: to such a key there are no others, whatever way it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from afw_command import Afw, assert_error
from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.errors import InputError, UnknownFlow, UnknownSession, UnknownTurn
from agentic_flywheel.interfaces.mcp import access
from flowise_replay import FLOWS, ReplayFlowise
from flywheels import opened
from http_app import app_on, client_of, key_for
from http_process import HttpServer, assert_problem, served
from http_routes import BY_FLOW
from mcp_process import called, refused
from servers import Server, Servers

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("http_limited")]

#: What only the other flow's askers say; it must come back to no limited key.
SECRET = "zanzibar"
#: What has a stream of events end at once, which goes on for minutes otherwise.
ENDS = {"/api/v2/events": "?seconds=0"}


@pytest.fixture(scope="module")
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replay:
        yield replay


class Team(NamedTuple):
    """A service with two flows that were asked, and a key that is limited to `echo`."""

    server: HttpServer
    afw: Afw
    key: str
    admin: str
    session: str  # of the other flow
    turn: str
    entry: str
    own: str  # a session of echo's


@pytest.fixture(scope="module")
def team(flowise: ReplayFlowise, tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Team]:
    afw = Afw(tmp_path_factory.mktemp("limited"), servers.get("valkey9").url)
    other = "  other:\n    kind: python\n    callable: afw_test_flow:answer\n    intent_keywords: [zanzibar]\n"
    afw.registry.write_text(afw.registry.read_text() + other)
    afw.environ |= {"AFW_SERVE_FLOWISE_URL": flowise.url, "AFW_SERVE_CREDENTIALS": "always"}
    admin = afw.ok("key", "create", "all", "--scope", "admin").out.strip()
    made = afw.ok("key", "create", "few", "--scope", "ask", "--scope", "read", "--flow", "Echo")
    assert "of echo alone" in made.err
    with served(afw) as server, server.client(made.out.strip()) as client:
        theirs = afw.json("ask", f"What about {SECRET}?", "--flow", "other", "--session", f"s-{SECRET}")
        own = client.post("/api/v2/ask", json={"question": "How long?", "flow": "echo", "session_id": "mine"}).json()
        assert own["flow"] == "echo"
        yield Team(server, afw, made.out.strip(), admin, theirs["session_id"], theirs["turn_id"], theirs["key"], "mine")


async def test_a_limited_key_can_neither_administer_nor_measure(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as flywheel:
        for scopes in ({Scope.ADMIN}, {Scope.ASK, Scope.METRICS}):
            with pytest.raises(InputError, match="cannot be limited"):
                await flywheel.api_keys.create("k", scopes, by="test", flows=["echo"])
        for flows in ([], "echo", [""], ["x" * 257], [str(n) for n in range(101)]):
            with pytest.raises(InputError):
                await flywheel.api_keys.create("k", {Scope.ASK}, by="test", flows=flows)
        made = await flywheel.api_keys.create("k", {Scope.ASK}, by="test", flows=["b", "a"])
        caller, _ = await flywheel.api_keys.admit(made.secret)
        assert caller.flows == frozenset({"a", "b"})
        assert (await flywheel.api_keys.list())[0].flows == caller.flows
        entries, _ = await flywheel.audit.list()
        assert entries[0].facts["flows"] == "a b"


async def test_flows_that_do_not_exist_are_refused_but_for_ids_of_flowise(team: Team) -> None:
    assert_error(team.afw.json("key", "create", "k", "--scope", "ask", "--flow", "ecko", code=1), "unknown_flow")
    id_ = FLOWS["llm"]
    made = team.afw.json("key", "create", "by-id", "--scope", "ask", "--flow", id_)
    assert made["key"]["flows"] == [id_]
    listed = team.afw.ok("key", "list").out
    assert "echo" in listed


def texts_of(responses: list[httpx2.Response]) -> str:
    return "\n".join(f"{one.request.method} {one.request.url} {one.status_code} {one.text}" for one in responses)


async def test_nothing_of_another_flow_reaches_a_limited_key_by_any_route(team: Team) -> None:
    """Every route that is open to such a key, given every name that the other flow's things have."""
    places = {"session_id": team.session, "turn_id": team.turn, "key": quote(team.entry, safe=""), "flow": "other"}
    places |= {"model:path": "other", "id": "other", "path:path": "flow-config/other"}
    bodies: list[dict[str, Any]] = [
        {"question": f"What about {SECRET}?", "flow": "other"},
        {"question": f"What about {SECRET}?", "only_if_cached": True},
        {"question": "And now?", "session_id": team.session},
        {"question": "And now?", "session_id": team.session, "flow": "echo"},
        {"turn_id": team.turn, "kind": "wrong"},
        {"turn_id": "last", "kind": "private", "session_id": team.session},
        {"model": "other", "messages": [{"role": "user", "content": f"What about {SECRET}?"}]},
        {"title": "taken over"},
        {"question": "And now?", "sessionId": team.session},
    ]
    queries = [
        "",
        f"?flow=other&query={SECRET}",
        f"?query={SECRET}",
        "?query=flow:other",
        f"?session_id={team.session}",
    ]
    with team.server.client(team.key) as client:
        for name in sorted(BY_FLOW - {"POST /mcp"}):
            method, pattern = name.split(" ")
            path = pattern
            for place, value in places.items():
                path = path.replace(f"{{{place}}}", value)
            assert "{" not in path
            asked = [query or ENDS.get(path, "") for query in queries]
            for one in ["GET", "POST"] if method == "*" else [method]:
                answers = [client.request(one, path + query) for query in asked if one == "GET"]
                answers += [client.request(one, path, json=body) for body in bodies if one != "GET"]
                for answer in answers:
                    said = answer.text.replace(team.session, "").replace(quote(team.session), "")
                    # What was sent comes back where the limited flow itself answers it, and in errors that name it.
                    own = answer.status_code == 200 and '"flow":"echo"' in said
                    assert SECRET not in said or own or answer.status_code in {400, 404, 422}, texts_of([answer])
                    assert "You said: What about" not in said or own, texts_of([answer])
                    assert answer.status_code < 500 or answer.status_code == 504, texts_of([answer])
    thread = team.afw.json("session", "show", team.session)
    assert len(thread["turns"]) == 1
    assert thread["session"]["title"] != "taken over"
    with team.server.client(team.admin) as client:
        assert client.get("/api/v2/reports").json()["items"] == []


async def test_its_own_flow_answers_it_everywhere(team: Team) -> None:
    with team.server.client(team.key) as client:
        assert client.get("/whoami").json()["flows"] == ["echo"]
        assert client.post("/api/v2/ask", json={"question": f"Is {SECRET} far?"}).json()["flow"] == "echo"
        stream = client.post("/api/v2/ask/stream", json={"question": f"Is {SECRET} near?"}).text
        assert '"flow":"echo"' in stream
        assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["echo"]
        chat = {"model": "echo", "messages": [{"role": "user", "content": "Chat?"}]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        assert [one["key"] for one in client.get("/api/v2/flows").json()["items"]] == ["echo"]
        found = client.get("/api/v2/search").json()
        assert found["items"]
        assert set(found["facets"]["flow"]) == {"echo"}
        assert set(client.get("/api/v2/stats").json()["flows"][0]) >= {"flow"}
        sessions = [one["id"] for one in client.get("/api/v2/sessions").json()["items"]]
        assert team.own in sessions
        assert team.session not in sessions
        assert client.get(f"/api/v2/sessions/{team.own}").status_code == 200
        refused = client.get("/api/v2/flows/other")
        assert_problem(refused, 404, "unknown_flow")
        assert "documents" not in refused.text


async def test_a_conversation_that_another_flow_joined_is_gone_for_a_limited_key(team: Team) -> None:
    with team.server.client(team.key) as client:
        asked = {"question": "How?", "flow": "echo", "session_id": "mixed"}
        assert client.post("/api/v2/ask", json=asked).status_code == 200
        team.afw.ok("ask", f"And {SECRET}?", "--flow", "other", "--session", "mixed")
        team.afw.ok("ask", "And again?", "--flow", "echo", "--session", "mixed")
        for response in (
            client.post("/api/v2/ask", json=asked | {"question": "What did I say?"}),
            client.get("/api/v2/sessions/mixed"),
            client.post(
                "/v1/chat/completions",
                json={"model": "echo", "messages": [{"role": "user", "content": "And?"}]},
                headers={"X-AFW-Session": "mixed"},
            ),
        ):
            assert response.status_code == 404, response.text
            assert SECRET not in response.text


async def test_flowise_clients_with_a_limited_key(team: Team, flowise: ReplayFlowise) -> None:
    one, other = FLOWS["llm"], FLOWS["conv"]
    key = team.afw.ok("key", "create", "widget", "--scope", "ask", "--flow", one).out.strip()
    flowise.requests.clear()
    with team.server.client(key) as client:
        for path in (
            f"prediction/{other}",
            f"flow-config/{other}",
            f"public-chatbotConfig/{other}",
            "chatflows",
            f"chatflows/{one}",
            f"chatmessage/{one}",
            f"flow-config/{one}/../{other}",
            "apikey",
            "",
        ):
            for method in ("GET", "POST"):
                response = client.request(method, f"/api/v1/{path}", json={"question": "How?"})
                assert response.status_code in {403, 404}, (path, response.text)
        form = client.post(f"/api/v1/prediction/{other}", files={"question": (None, "How?")})
        assert form.status_code == 404, form.text
        assert flowise.requests == []
        assert client.get("/api/v1/ping").status_code == 200
        assert client.get(f"/api/v1/public-chatbotConfig/{one}").status_code == 200
        for question in ("How?", "How?"):
            answer = client.post(f"/api/v1/prediction/{one}", json={"question": question})
            assert answer.status_code == 200, answer.text
        assert answer.headers["x-afw-outcome"] == "hit"


async def test_tools_over_http_with_a_limited_key(team: Team) -> None:
    http = httpx2.AsyncClient(headers={"X-API-Key": team.key})
    async with http, Client(streamable_http_client(f"{team.server.url}/mcp", http_client=http)) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == access.BY_FLOW
        assert "other (technical" not in json.dumps([tool.input_schema for tool in tools])
        assert {str(one.uri) for one in (await client.list_resources()).resources} == access.RESOURCES_BY_FLOW
        answer = await called(client, "flowise_query", question=f"Where is {SECRET}?")
        assert answer["flow"] == "echo"
        assert [flow["key"] for flow in (await called(client, "flowise_list_flows"))["flows"]] == ["echo"]
        found = await called(client, "flowise_search_history", query="")
        assert set(found["facets"]["flow"]) == {"echo"}
        for tool, arguments in (
            ("flowise_query", {"question": "How?", "flow_override": "other"}),
            ("flowise_query", {"question": "How?", "session_id": team.session}),
            ("flowise_search_history", {"query": SECRET, "flow": "other"}),
            ("flowise_search_history", {"query": "", "session_id": team.session}),
            ("flowise_report_answer", {"turn_id": team.turn, "kind": "wrong"}),
        ):
            error = await refused(client, tool, **arguments)
            assert error["error_type"] in {"unknown_flow", "unknown_session", "unknown_turn"}, error
        for name in sorted(set(access.TOOLS) - access.BY_FLOW):
            arguments = {"session_id": team.own} if name in access.OWN_SESSION else {}
            assert (await refused(client, name, **arguments))["error_type"] == "not_allowed", name


def test_the_console_says_at_its_door_that_it_is_closed_to_such_a_key(team: Team) -> None:
    with team.server.client() as client:
        page = client.get("/signin", headers={"Accept": "text/html"})
        token = page.text.partition('name="token" value="')[2].partition('"')[0]
        headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        refused = client.post("/signin", data={"token": token, "key": team.key}, headers=headers)
        assert refused.status_code == 403
        assert "limited to echo" in refused.text
        assert "afw_key" not in refused.headers.get("set-cookie", "")
        assert client.post("/signin", data={"token": token, "key": team.admin}, headers=headers).status_code == 303


async def test_several_flows_and_the_facade(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path) as app:
        for name in ("a", "b", "c"):
            app.service.registry.register(name, lambda question: f"{question}!", intent_keywords=[f"word{name}"])
        secret = await key_for(app, Scope.ASK, Scope.READ, flows=["a", "b"])
        async with client_of(app, secret) as client:
            routed = [
                (await client.post("/api/v2/ask", json={"question": f"What of word{name}?"})).json()["flow"]
                for name in ("a", "b", "c")
            ]
            assert routed[:2] == ["a", "b"]
            assert routed[2] in {"a", "b"}
            assert_problem(await client.get("/api/v2/search"), 400, "invalid_input")
            assert (await client.get("/api/v2/search", params={"flow": "b"})).json()["facets"]["flow"] == {"b": 1}
        flywheel = app.service.home
        answer = await flywheel.ask("Which?", flow="c", session="s")
        with pytest.raises(UnknownFlow):
            await flywheel.ask("Which?", flow="c", among={"a"})
        with pytest.raises(UnknownSession):
            await flywheel.ask("Which?", flow="a", session="s", among={"a"})
        with pytest.raises(UnknownFlow):
            async for _ in flywheel.stream("Which?", flow="c", among={"a"}):
                pass
        with pytest.raises(UnknownTurn):
            await flywheel.similar.report(answer.turn_id, "wrong", among={"a"})
        await flywheel.flush()
        warm = await flywheel.ask("Which?", flow="c")
        assert warm.flow == "c"
        assert (await flywheel.ask("Which?", among={"a"})).flow == "a"


async def test_a_limited_key_stays_limited_while_redis_is_away(valkey: Server, tmp_path: Path) -> None:
    given = {"serve_credentials": "always", "redis_command_timeout_seconds": 0.2}
    async with app_on(valkey, tmp_path, **given) as app:
        secret = await key_for(app, Scope.ASK, flows=["documents"])
        async with client_of(app, secret) as client:
            assert (await client.get("/whoami")).json()["flows"] == ["documents"]
            valkey.pause()
            try:
                assert (await client.get("/whoami")).json()["flows"] == ["documents"]
            finally:
                valkey.resume()


def test_a_caller_without_flows_knows_all() -> None:
    caller = Caller(tenant="t", scopes=frozenset({Scope.ASK}), name="n", proof="key")
    assert caller.flows is None

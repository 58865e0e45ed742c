"""MCP over HTTP, and the bridge to it: the official client in both eras, and what callers may use."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from afw_command import Afw
from agentic_flywheel.callers import Caller, Scope
from agentic_flywheel.interfaces.http.app import App
from agentic_flywheel.interfaces.http.call import Call
from agentic_flywheel.interfaces.http.service import Service
from agentic_flywheel.interfaces.mcp import access
from flywheels import settings_for
from http_process import HttpServer, served
from mcp_process import ERAS, RESOURCES, TOOLS, RawServer, called, refused, resource
from servers import Server, Servers, free_port, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("mcp_http")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Afw:
    return Afw(tmp_path_factory.mktemp("mcp"), servers.get("valkey9").url)


@pytest.fixture(scope="module")
def running(home: Afw) -> Iterator[HttpServer]:
    with served(home) as server:
        yield server


@pytest.fixture
def afw(home: Afw) -> Afw:
    (home.home / "asked.txt").unlink(missing_ok=True)
    return home


@pytest.fixture
def server(running: HttpServer, valkey: Server) -> HttpServer:
    return running


@asynccontextmanager
async def bridged(afw: Afw, url: str, mode: str = "auto", **environ: str) -> AsyncIterator[Client]:
    command, *arguments = afw.command("mcp", "--connect", url)
    parameters = StdioServerParameters(command=command, args=arguments, env={**afw.environ, **environ}, cwd=afw.work)
    with (afw.home / "bridge.log").open("a") as log:
        async with Client(stdio_client(parameters, errlog=log), mode=mode) as client:
            yield client


@contextmanager
def started(afw: Afw, url: str) -> Iterator[RawServer]:
    """A bridge spoken to line by line."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with afw.start("mcp", "--connect", url, **options) as process:
        try:
            yield RawServer(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("mode", ERAS)
async def test_the_same_tools_and_answers_as_over_stdio(server: HttpServer, afw: Afw, mode: str) -> None:
    async with Client(f"{server.url}/mcp", mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        assert {str(one.uri) for one in (await client.list_resources()).resources} == RESOURCES
        first = await called(client, "flowise_query", question="How long?", flow_override="echo", session_id="s")
        again = await called(client, "flowise_query", question="how long", flow_override="echo")
        assert (first["outcome"], again["outcome"]) == ("miss", "hit")
        history = await called(client, "flowise_session_history", session_id="s")
        assert [turn["question"] for turn in history["turns"]] == ["How long?"]
        assert {flow["key"] for flow in (await resource(client, "flowise://flows"))["flows"]} == {"documents", "echo"}
        assert (await refused(client, "flowise_query", question=""))["error_type"] == "invalid_question"
    assert afw.asked() == ["How long?"]


@pytest.mark.parametrize("mode", ERAS)
async def test_the_bridge_is_the_service_to_clients_of_stdio(server: HttpServer, afw: Afw, mode: str) -> None:
    async def progress(done: float, total: float | None, message: str | None) -> None:
        """Asked for, so that the answer comes as a stream."""

    async with bridged(afw, server.url, mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        asked = {"question": "Über alles?", "flow_override": "echo"}
        result = await client.call_tool("flowise_query", asked, progress_callback=progress)
        assert not result.is_error
        assert result.structured_content is not None
        assert result.structured_content["text"] == "You said: Über alles?"
        assert await resource(client, "flowise://flows")
        assert (await refused(client, "flowise_browse", flow_name="none"))["error_type"] == "unknown_flow"


async def test_a_bridge_to_nobody_says_so_and_stays(afw: Afw, valkey: Server) -> None:
    port = free_port()
    with started(afw, f"http://127.0.0.1:{port}") as bridge:
        for number in (1, 2):
            bridge.send("tools/list", {}, number)
            told = bridge.receive()
            assert told["id"] == number
            assert "cannot be asked" in told["error"]["message"]
            assert len(told["error"]["data"]["suggestions"]) == 3
        assert bridge.process.stdin is not None
        bridge.process.stdin.write(b"no json\n")
        bridge.process.stdin.flush()
        assert bridge.receive()["error"]["code"] == -32700
        bridge.process.stdin.close()
        assert bridge.ended() == 0


async def test_what_is_no_address_is_refused(afw: Afw) -> None:
    done = afw.run("mcp", "--connect", "ftp://x")
    assert done.code == 2
    assert "is not the address of a service" in done.err


async def test_a_call_that_is_given_up_ends_at_the_service(server: HttpServer, afw: Afw) -> None:
    with started(afw, server.url) as bridge:
        bridge.greet()
        bridge.call(5, "flowise_query", question="please hang", flow_override="echo", session_id="h")
        try:
            wait_until((afw.home / "hanging").exists, "the flow to be asked")
            bridge.send("notifications/cancelled", {"requestId": 5})
            bridge.call(6, "flowise_query", question="And now?", flow_override="echo")
            answers = [bridge.receive()]
            while "result" not in answers[-1]:
                answers.append(bridge.receive())
            assert answers[-1]["id"] == 6
        finally:
            (afw.home / "release").touch()
        assert bridge.process.stdin is not None
        bridge.process.stdin.close()
        assert bridge.ended() == 0


class Told(Service):
    """A service to which a header says who calls."""

    def __init__(self, valkey: Server, home: Path, callers: Mapping[str, Caller]) -> None:
        super().__init__(settings_for(valkey, home))
        self.callers = callers

    async def admit(self, call: Call, headers: Mapping[bytes, bytes]) -> Caller | None:
        return self.callers.get(headers.get(b"x-as", b"").decode())


def caller(tenant: str = "default", user: str | None = None, *scopes: Scope) -> Caller:
    return Caller(tenant=tenant, scopes=frozenset(scopes), name="test", proof="key", user=user)


CALLERS = {
    "ask": caller("default", None, Scope.ASK),
    "ann": caller("default", "ann", Scope.ASK, Scope.READ),
    "bob": caller("default", "bob", Scope.ASK, Scope.READ),
    "read": caller("default", None, Scope.READ),
    "metrics": caller("default", None, Scope.METRICS),
    "admin": caller("default", None, Scope.ADMIN),
    "other": caller("other", None, Scope.ADMIN),
}


@asynccontextmanager
async def opened(valkey: Server, tmp_path: Path) -> AsyncIterator[App]:
    """The application in this process, with a flow that answers."""
    service = Told(valkey, tmp_path, CALLERS)
    service.registry.register("oracle", lambda question: f"It is so: {question}")
    app = App(service)
    async with app.running():
        yield app


@asynccontextmanager
async def client_of(app: Any, who: str) -> AsyncIterator[Client]:
    transport = httpx2.ASGITransport(app=app)
    async with (
        httpx2.AsyncClient(transport=transport, headers={"x-as": who}, base_url="http://127.0.0.1") as http,
        Client(streamable_http_client("http://127.0.0.1/mcp", http_client=http)) as client,
    ):
        yield client


async def test_the_table_of_needs_has_every_tool_and_resource() -> None:
    assert set(access.TOOLS) == TOOLS
    assert set(access.RESOURCES) == RESOURCES


async def test_callers_see_and_use_what_they_may(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as app:
        for who in ("ask", "ann", "read", "metrics", "admin"):
            need = CALLERS[who].scopes
            async with client_of(app, who) as client:
                tools = {tool.name for tool in (await client.list_tools()).tools}
                wholly = {name for name, wanted in access.TOOLS.items() if wanted in need or who == "admin"}
                own = {name for name, wanted in access.OWN_SESSION.items() if wanted in need or who == "admin"}
                assert tools == wholly | own, who
                for name in TOOLS - wholly:
                    error = await refused(client, name)
                    assert error["error_type"] == "not_allowed", (who, name)
                for name in set(access.OWN_SESSION) - own - wholly:
                    error = await refused(client, name, session_id="nowhere")
                    assert error["error_type"] == "not_allowed", (who, name)
                listed = {str(one.uri) for one in (await client.list_resources()).resources}
                assert listed == {uri for uri, wanted in access.RESOURCES.items() if wanted in need or who == "admin"}
                for uri in RESOURCES - listed:
                    with pytest.raises(Exception, match=r"scope|administrators"):
                        await client.read_resource(uri)
        async with client_of(app, "other") as client:  # an administrator, but of another tenant than the service's own
            for tool in ("coaia_fetch", "coaia_tash", "flowise_add_flow"):
                assert (await refused(client, tool))["error_type"] == "not_allowed"


async def test_tenants_and_users_do_not_meet(valkey: Server, tmp_path: Path) -> None:
    async with opened(valkey, tmp_path) as app:
        async with client_of(app, "ann") as ann:
            mine = await called(ann, "flowise_query", question="How do I resume a session?", session_id="anns")
            assert mine["session_id"] == "anns"
            listed = await resource(ann, "flowise://sessions")
            assert [one["session_id"] for one in listed["sessions"]] == ["anns"]
            assert (await called(ann, "flowise_trace_view", trace_id=mine["trace_id"]))["cache_hit"] is False
            scored = await called(ann, "flowise_quality_score", score=9, session_id="anns")
            assert scored["judgement"]["by"] == "ann"
            taken = await refused(ann, "flowise_query", question="How?", user_id="bob")
            assert taken["error_type"] == "not_allowed"
        async with client_of(app, "bob") as bob:
            for tool, more in (
                ("flowise_session_history", {}),
                ("flowise_session_info", {}),
                ("flowise_trace_view", {}),
                ("flowise_quality_score", {"score": 1}),
                ("flowise_query", {"question": "And then?"}),
                ("flowise_configure", {"flow_id": "oracle", "config": {"temperature": 0.1}}),
            ):
                error = await refused(bob, tool, session_id="anns", **more)
                assert error["error_type"] == "unknown_session", tool
            assert (await resource(bob, "flowise://sessions"))["sessions"] == []
            report = await refused(bob, "flowise_report_answer", turn_id=mine["turn_id"], kind="wrong")
            assert report["error_type"] == "unknown_session"
            seen = await refused(bob, "flowise_trace_view", trace_id=mine["trace_id"])
            assert seen["error_type"] == "unknown_session"
        async with client_of(app, "ask") as asks:  # without a conversation, that takes the scope read
            seen = await refused(asks, "flowise_trace_view", trace_id=mine["trace_id"])
            assert seen["error_type"] == "not_allowed"
            assert await called(asks, "flowise_trace_view", trace_id=mine["trace_id"], session_id="anns")
        async with client_of(app, "other") as other:
            assert (await refused(other, "flowise_session_history", session_id="anns"))[
                "error_type"
            ] == "unknown_session"
            fresh = await called(other, "flowise_query", question="How do I resume a session?")
            assert fresh["outcome"] == "miss"

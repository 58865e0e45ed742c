"""Every tool and resource of the MCP server, called by the official client over stdio in both protocol eras."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from mcp import Client, stdio_client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged

from afw_command import Afw
from flowise_replay import FLOWS, ReplayFlowise
from mcp_process import ERAS, RESOURCES, TOOLS, called, connected, parameters, refused, resource
from servers import Server

pytestmark = pytest.mark.anyio

QUESTION = "How do I rotate the signing keys of the gateway?"


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


@pytest.fixture
def flowise() -> Iterator[ReplayFlowise]:
    with ReplayFlowise() as replaying:
        yield replaying


@pytest.mark.parametrize("era", ERAS)
async def test_every_tool_and_resource(afw: Afw, flowise: ReplayFlowise, era: str) -> None:
    done: set[str] = set()

    async with connected(afw, era) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            done.add(tool)
            return await called(client, tool, **arguments)

        assert client.protocol_version == ("2025-11-25" if era == "legacy" else "2026-07-28")
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS

        answer = await call("flowise_query", question=QUESTION, flow_override="echo", session_id="monday")
        assert (answer["outcome"], answer["session_id"], answer["remembered"]) == ("miss", "monday", True)
        again = await call("flowise_query", question=QUESTION, flow_override="echo")
        assert (again["outcome"], again["text"]) == ("hit", answer["text"])
        assert again["origin_trace_id"] == answer["trace_id"] != again["trace_id"]
        domain = await call("flowise_domain_query", question=QUESTION, domain_name="Security", flow_override="echo")
        assert domain["outcome"] == "miss"
        assert {flow["key"] for flow in (await call("flowise_list_flows"))["flows"]} == {"documents", "echo"}
        added = await call(
            "flowise_add_flow", flow_id=FLOWS["llm"], flow_name="Team Support", base_url=flowise.url, temperature=0.2
        )
        assert (added["flow"]["key"], added["flow"]["config"]) == ("team-support", {"temperature": 0.2})
        configured = await call("flowise_configure", flow_id="team-support", config={"maxOutputTokens": 99})
        assert configured["config"] == {"temperature": 0.2, "maxOutputTokens": 99}
        browsed = await call("flowise_browse", flow_name="Team Support", canvas=True)
        assert browsed["address"] == f"{flowise.url}/canvas/{FLOWS['llm']}"
        info = await call("flowise_session_info", session_id="monday")
        assert (info["turns"], info["flow"]) == (1, "echo")
        history = await call("flowise_session_history", session_id="monday")
        assert [(turn["turn_id"], turn["question"]) for turn in history["turns"]] == [(answer["turn_id"], QUESTION)]
        searched = await call("flowise_search_history", query=QUESTION, flow="echo")
        assert answer["turn_id"] in {found["turn_id"] for found in searched["found"]}
        assert (await call("flowise_popular_questions"))["questions"]
        assert await call("flowise_faq") == {"entries": [], "candidates": []}
        stats = await call("flowise_cache_stats", flow="echo", days=1)
        assert (stats["total"]["outcomes"]["hit"], stats["total"]["outcomes"]["miss"]) == (1, 2)
        usage = await call("flowise_usage_analytics", by="reason", since="1 hour")
        assert {row["name"]: row["questions"] for row in usage["rows"]} == {"exact": 1, "not_stored": 2}
        assert (usage["total"]["questions"], usage["total"]["hits"]["count"], usage["by"]) == (3, 1, "reason")
        hourly = await client.call_tool("flowise_usage_analytics", {"by": "hour"})
        first = datetime.fromtimestamp((hourly.structured_content or {})["rows"][0]["at"], UTC)
        assert getattr(hourly.content[0], "text", "").startswith(f"{first:%Y-%m-%d %H:%M} UTC to "), (
            "what is told in all is of the same time"
        )
        health = await call("flowise_flow_health", flow="echo")
        (condition,) = health["flows"]
        assert (condition["flow"], condition["state"], condition["calls"]) == ("echo", "ok", 2)
        assert condition["reachable"]
        warmed = await call("flowise_warm_cache", questions=[{"question": QUESTION}], flow="echo")
        assert (warmed["warm"], warmed["asked"]) == (1, 0)
        ttl = await call("flowise_set_ttl", name="echo", ttl="36h")
        assert (ttl["kind"], ttl["ttl_seconds"]) == ("flow", 36 * 3600)
        reported = await call("flowise_report_answer", turn_id=domain["turn_id"], kind="outdated", note="of last year")
        assert (reported["removed"]["entries"], reported["flow"], reported["answer"]) == (1, "echo", None)
        viewed = await call("flowise_trace_view", trace_id=answer["trace_id"])
        assert (viewed["turn"]["turn_id"], viewed["cache_hit"], viewed["exported"]) == (answer["turn_id"], False, "")
        judged = await call("flowise_quality_score", score=8, trace_id=answer["trace_id"], feedback="to the point")
        assert judged["trace_id"] == answer["trace_id"]
        traced = await call("flowise_trace_search", min_score=8)
        assert [found["turn_id"] for found in traced["found"]] == [answer["turn_id"]]
        preview = await call("flowise_clear_cache", flow="echo")
        assert preview["dry_run"]
        assert (await call("flowise_query", question=QUESTION, flow_override="echo"))["outcome"] == "hit"
        assert not (await call("flowise_clear_cache", flow="echo", confirm=True))["dry_run"]
        assert (await call("flowise_query", question=QUESTION, flow_override="echo"))["outcome"] == "miss"
        stored = await call("coaia_tash", key="note", value="élan", ttl_minutes=3)
        assert stored == {"success": True, "message": "Stored 'note' in Redis"}
        assert await call("coaia_fetch", key="note") == {"success": True, "value": "élan"}
        assert done == TOOLS

        assert {str(known.uri) for known in (await client.list_resources()).resources} == RESOURCES
        assert "team-support" in {flow["key"] for flow in (await resource(client, "flowise://flows"))["flows"]}
        assert "monday" in {known["session_id"] for known in (await resource(client, "flowise://sessions"))["sessions"]}
        schema = await resource(client, "flowise://config-schema")
        assert {"temperature", "returnSourceDocuments"} <= set(schema["config"]["properties"])
        assert (await resource(client, "flowise://cache-metrics"))["total"]["questions"] == 5
        conditions = {flow["flow"]: flow for flow in (await resource(client, "flowise://flow-health"))["flows"]}
        assert (conditions["echo"]["questions"], conditions["echo"]["reports"]) == (5, {"outdated": 1})
        assert conditions["documents"]["state"] == "unused"
        assert answer["turn_id"] in {
            found["turn_id"] for found in (await resource(client, "flowise://traces"))["found"]
        }


@pytest.mark.parametrize("era", ERAS)
async def test_failures_say_what_to_do_and_fit_the_output_schema(afw: Afw, era: str) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("flowise_query", {"question": "   "}, "invalid_question"),
        ("flowise_query", {"question": "x" * 16001}, "invalid_question"),
        ("flowise_query", {"question": 7}, "invalid_input"),
        ("flowise_query", {}, "invalid_input"),
        ("flowise_query", {"question": "hi", "session_id": "a\nb"}, "invalid_id"),
        ("flowise_query", {"question": "hi", "flow_override": "ecoh"}, "unknown_flow"),
        ("flowise_query", {"question": "hi there", "only_if_cached": True}, "not_cached"),
        ("flowise_query", {"question": "please fail", "flow_override": "echo"}, "flow_unavailable"),
        ("flowise_domain_query", {"question": "hi", "domain_name": "x", "context_type": "odd"}, "invalid_input"),
        ("flowise_configure", {"flow_id": "echo", "config": {"temperature": 3}}, "invalid_input"),
        ("flowise_configure", {"flow_id": "nobody", "config": {}}, "unknown_flow"),
        ("flowise_add_flow", {"flow_id": "x", "flow_name": "Echo"}, "invalid_registry"),
        ("flowise_add_flow", {"flow_id": "os:system", "flow_name": "E", "kind": "python"}, "invalid_input"),
        ("flowise_add_flow", {"flow_id": "x", "flow_name": "火"}, "invalid_input"),
        ("flowise_add_flow", {"flow_id": "x", "flow_name": "N", "base_url": "https://a.example"}, "invalid_input"),
        ("flowise_add_flow", {"flow_id": "x", "flow_name": "N", "base_url": "file:///etc"}, "invalid_input"),
        ("flowise_browse", {"flow_name": "echo"}, "invalid_input"),
        ("flowise_session_info", {}, "unknown_session"),
        ("flowise_session_history", {"session_id": "nobody"}, "unknown_session"),
        ("flowise_cache_stats", {"days": 91}, "invalid_input"),
        ("flowise_cache_stats", {"since": "some day"}, "invalid_input"),
        ("flowise_usage_analytics", {"by": "weather"}, "invalid_input"),
        ("flowise_usage_analytics", {"by": "user", "flow": "echo"}, "invalid_input"),
        ("flowise_usage_analytics", {"since": "2 days", "until": "3 days"}, "invalid_input"),
        ("flowise_flow_health", {"flow": "ecoh"}, "unknown_flow"),
        ("flowise_clear_cache", {}, "invalid_input"),
        ("flowise_clear_cache", {"flow": "echo", "everything": True}, "invalid_input"),
        ("flowise_set_ttl", {"name": "technical", "ttl": "soon"}, "invalid_input"),
        ("flowise_report_answer", {"turn_id": "nothing", "kind": "wrong"}, "unknown_turn"),
        ("flowise_report_answer", {"turn_id": "nothing", "kind": "ugly"}, "invalid_input"),
        ("coaia_tash", {"key": "afw:v1:x", "value": "v"}, "invalid_input"),
        ("coaia_fetch", {"key": "nothing"}, "not_found"),
        ("flowise_qeury", {"question": "hi"}, "invalid_input"),
    ]
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for tool, arguments, kind in cases:
            error = await refused(client, tool, **arguments)
            assert error["error_type"] == kind, (tool, arguments, error)
            if tool in schemas:  # clients that check errors too must not hide ours behind their own
                Draft202012Validator(schemas[tool]).validate(error)
        assert (
            "did you mean 'echo'"
            in (await refused(client, "flowise_query", question="a", flow_override="ecoh"))["error"]
        )
        with pytest.raises(MCPError) as caught:
            await client.read_resource("flowise://nothing")
        assert caught.value.error.data["error_type"] == "invalid_input"
        assert "flowise://flows" in str(caught.value.error.data["suggestions"])


async def test_an_answer_carries_its_whole_provenance(afw: Afw) -> None:
    async with connected(afw) as client:
        answer = await called(client, "flowise_query", question=QUESTION, intent="repeat", user_id="ana")
        assert {
            "text", "flow", "flow_id", "flow_name", "session_id", "turn_id", "trace_id", "outcome", "reason", "key",
            "age_seconds", "ttl_seconds", "fingerprint", "origin_trace_id", "elapsed_ms", "flow_ms", "sources",
            "context", "route", "config", "remembered", "considered", "warnings",
        } <= set(answer)  # fmt: skip
        assert len(answer["trace_id"]) == 32
        assert answer["route"]["how"] == "intent"
        assert answer["_mcp_metadata"] == {
            "flow_used": "Echo",
            "flow_key": "echo",
            "flow_id": "afw_test_flow:answer",
            "session_id": answer["session_id"],
            "intent_detected": answer["route"]["intent"],
            "config_used": {},
        }
        result = await client.call_tool("flowise_query", {"question": QUESTION, "flow_override": "echo"})
        text, provenance = (block.text for block in result.content if block.type == "text")
        assert text == f"You said: {QUESTION}"
        assert "From memory (hit, exact), age:" in provenance
        assert str((result.structured_content or {})["turn_id"]) in provenance


async def test_directives_are_obeyed(afw: Afw) -> None:
    async with connected(afw) as client:

        async def ask(**directives: Any) -> tuple[str, str]:
            answer = await called(client, "flowise_query", question=QUESTION, flow_override="echo", **directives)
            return answer["outcome"], answer["reason"]

        assert await ask(no_store=True) == ("bypass", "no_store")
        assert await ask() == ("miss", "not_stored")
        assert await ask(only_if_cached=True) == ("hit", "exact")
        assert await ask(no_cache=True) == ("miss", "no_cache")
        assert await ask(max_age_seconds=0) == ("miss", "too_old")
        assert await ask(private=True) == ("miss", "not_stored")
        assert await ask(max_age_seconds=3600, max_stale_seconds=60) == ("hit", "exact")
        first = await called(client, "flowise_query", question="Name the ports", flow_override="echo", session_id="s")
        assert first["outcome"] == "miss"
        assert await ask(session_id="s", standalone=True) == ("hit", "exact")


async def test_a_domain_is_part_of_what_is_remembered(afw: Afw) -> None:
    async with connected(afw) as client:

        async def ask(**domain: Any) -> dict[str, Any]:
            return await called(client, "flowise_domain_query", question=QUESTION, flow_override="echo", **domain)

        gateway = {"domain_name": "Gateways", "context_type": "technical", "stack_info": "Envoy"}
        first = await ask(**gateway)
        assert (first["outcome"], "Envoy" in first["text"]) == ("miss", True)
        assert (await ask(**gateway))["outcome"] == "hit"
        assert (await ask(**{**gateway, "stack_info": "nginx"}))["outcome"] == "miss"
        plain = await called(client, "flowise_query", question=QUESTION, flow_override="echo")
        assert (plain["outcome"], "Envoy" in plain["text"]) == ("miss", False)


@pytest.mark.parametrize("era", ERAS)
async def test_a_conversation_goes_on_in_another_process(afw: Afw, era: str) -> None:
    async with connected(afw, era) as client:
        first = await called(client, "flowise_query", question=QUESTION, flow_override="echo", session_id="monday")
    async with connected(afw, era) as client:
        follow = await called(client, "flowise_query", question="And on mobile?", session_id="monday")
        assert (follow["flow"], follow["context"]) == ("echo", [first["turn_id"]])
        assert follow["route"]["how"] == "session"
        other = await called(client, "flowise_query", question="And on mobile?", flow_override="echo")
        assert (other["outcome"], other["context"]) == ("miss", [])
        history = await called(client, "flowise_session_history", session_id="monday", limit=1)
        assert (history["total_turns"], [turn["turn_id"] for turn in history["turns"]]) == (2, [follow["turn_id"]])


async def test_what_changed_in_a_conversation_and_what_belongs_to_it_is_told(afw: Afw) -> None:
    async with connected(afw) as client:
        first = await called(client, "flowise_query", question=QUESTION, flow_override="echo", session_id="monday")
        second = await called(
            client, "flowise_query", question="And the cache?", flow_override="documents", session_id="monday"
        )
        await called(client, "flowise_query", question=QUESTION, flow_override="echo", session_id="tuesday")
        afw.ok("session", "link", "monday", "tuesday")  # people do it, in another process
        history = await called(client, "flowise_session_history", session_id="monday")
        assert [turn["turn_id"] for turn in history["turns"]] == [first["turn_id"], second["turn_id"]]
        (change,) = history["changes"]
        assert (change["kind"], change["turn_id"]) == ("flow", second["turn_id"])
        assert (change["old"], change["new"]) == ("echo", "documents")
        (link,) = history["links"]
        assert (link["session_id"], link["how"], link["title"], link["turns"]) == ("tuesday", "set", QUESTION, 1)
        for one, other in (("monday", "tuesday"), ("tuesday", "monday")):
            assert (await called(client, "flowise_session_info", session_id=one))["links"] == [other]
        newest = await called(client, "flowise_session_history", session_id="monday", limit=1)
        assert [change["turn_id"] for change in newest["changes"]] == [second["turn_id"]], "it came with this turn"
        afw.ok("session", "unlink", "tuesday", "monday")
        assert (await called(client, "flowise_session_history", session_id="monday"))["links"] == []


async def test_a_session_keeps_its_configuration_in_another_process(afw: Afw) -> None:
    async with connected(afw) as client:
        configured = await called(
            client, "flowise_configure", flow_id="echo", config={"temperature": 0.1}, session_id="monday"
        )
        assert (configured["config"], configured["changed"]) == ({"temperature": 0.1}, True)
    async with connected(afw) as client:
        same = await called(
            client, "flowise_configure", flow_id="echo", config={"temperature": 0.1}, session_id="monday"
        )
        assert not same["changed"]
        more = await called(client, "flowise_configure", flow_id="echo", config={"topP": 1}, session_id="monday")
        assert more["config"] == {"temperature": 0.1, "topP": 1}
        answer = await called(client, "flowise_query", question=QUESTION, flow_override="echo", session_id="monday")
        assert answer["_mcp_metadata"]["config_used"] == {"temperature": 0.1, "topP": 1}
        others = await called(client, "flowise_query", question=QUESTION, flow_override="echo")
        assert (others["outcome"], others["config"]) == ("miss", {})
        assert (await called(client, "flowise_session_info", session_id="monday"))["config"] == more["config"]
        none = {"temperature": None, "topP": None}
        gone = await called(client, "flowise_configure", flow_id="echo", config=none, session_id="monday")
        assert gone["config"] == {}


async def test_a_flow_configured_for_everybody_serves_no_old_answer(afw: Afw, flowise: ReplayFlowise) -> None:
    async with connected(afw) as client:
        await called(client, "flowise_add_flow", flow_id=FLOWS["llm"], flow_name="Support", base_url=flowise.url)
        first = await called(client, "flowise_query", question=QUESTION, flow_override="support")
        assert (await called(client, "flowise_query", question=QUESTION, flow_override="support"))["outcome"] == "hit"
        await called(client, "flowise_configure", flow_id=FLOWS["llm"], config={"temperature": 0.1})
        changed = await called(client, "flowise_query", question=QUESTION, flow_override="support")
        assert (changed["outcome"], changed["reason"]) == ("miss", "flow_changed")
        assert changed["fingerprint"] != first["fingerprint"]
        assert flowise.calls[-1].config["temperature"] == 0.1
    assert "# Kept by people" in afw.registry.read_text()


async def test_flows_are_added_where_flows_are_already(afw: Afw) -> None:
    flow = "\n    kind: flowise\n    id: abc\n    base_url: https://flows.example:8443/\n"
    afw.registry.write_text(f"{afw.registry.read_text()}  far:{flow}")
    there, elsewhere = "https://flows.example:8443", "https://flows.example.evil.example:8443"
    async with connected(afw) as client:
        error = await refused(client, "flowise_add_flow", flow_id="d", flow_name="Near", base_url=elsewhere)
        assert "a person" in error["error"]
        error = await refused(
            client, "flowise_add_flow", flow_id="d", flow_name="Near", base_url="https://flows.example"
        )
        assert "a person" in error["error"]
        added = await called(client, "flowise_add_flow", flow_id="d", flow_name="Near", base_url=there)
        assert added["flow"]["base_url"] == there


async def test_a_flow_added_elsewhere_is_named_and_callable_at_once(afw: Afw) -> None:
    async with connected(afw) as client:

        async def described(tool: str, argument: str) -> dict[str, Any]:
            listed = {known.name: known for known in (await client.list_tools(cache_mode="bypass")).tools}
            return dict(listed[tool].input_schema["properties"][argument])

        assert (await described("flowise_query", "question"))["maxLength"] == 16000
        assert (await described("flowise_query", "flow_override"))["examples"] == ["documents", "echo"]
        afw.registry.write_text(
            afw.registry.read_text() + "  parrot:\n    kind: python\n    callable: afw_test_flow:answer\n"
        )
        answer = await called(client, "flowise_query", question=QUESTION, flow_override="parrot")
        assert (answer["flow"], answer["outcome"]) == ("parrot", "miss")
        for tool, argument in (
            ("flowise_query", "flow_override"),
            ("flowise_configure", "flow_id"),
            ("flowise_browse", "flow_name"),
            ("flowise_cache_stats", "flow"),
            ("flowise_set_ttl", "name"),
        ):
            assert "parrot (technical, python)" in (await described(tool, argument))["description"]


async def test_progress_is_reported_while_the_flow_works(afw: Afw) -> None:
    reports: list[tuple[float, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, message))
        (afw.home / "release").touch()

    async with connected(afw) as client:
        arguments = {"question": "please hang", "flow_override": "echo"}
        with anyio.fail_after(30):
            result = await client.call_tool("flowise_query", arguments, progress_callback=report)
        assert not result.is_error
    assert reports
    assert [progress for progress, _ in reports] == sorted({progress for progress, _ in reports})


@pytest.mark.parametrize("era", ERAS)
async def test_without_redis_questions_are_answered(tmp_path: Path, era: str) -> None:
    afw = Afw(tmp_path, "redis://127.0.0.1:1")
    async with connected(afw, era) as client:
        answer = await called(client, "flowise_query", question=QUESTION, flow_override="echo", session_id="s")
        assert (answer["outcome"], answer["reason"]) == ("bypass", "store_unavailable")
        assert answer["text"] == f"You said: {QUESTION}"
        assert answer["remembered"]
        assert "This turn waits in the local outbox until Redis is back." in answer["warnings"]
        history = await called(client, "flowise_session_history", session_id="s")
        assert [turn["turn_id"] for turn in history["turns"]] == [answer["turn_id"]]
        assert "outbox" in history["warnings"][0]
        listed = await resource(client, "flowise://sessions")
        assert [session["session_id"] for session in listed["sessions"]] == ["s"]
        assert "outbox" in listed["warnings"][0]
        flows = await called(client, "flowise_list_flows")
        assert len(flows["flows"]) == 2
        assert any("Lifetimes are not known" in warning for warning in flows["warnings"])
        for tool, arguments in (
            ("flowise_session_history", {"session_id": "unheard of"}),
            ("flowise_configure", {"flow_id": "echo", "config": {"temperature": 1}, "session_id": "s"}),
            ("coaia_tash", {"key": "k", "value": "v"}),
        ):
            error = await refused(client, tool, **arguments)
            assert (error["error_type"], error["retry_after_seconds"] > 0) == ("store_unavailable", True)
        assert len((await resource(client, "flowise://flows"))["flows"]) == 2


async def test_tools_say_when_to_use_them_and_what_they_may_do(afw: Afw) -> None:
    async with connected(afw) as client:
        tools = (await client.list_tools()).tools
    for tool in tools:
        assert tool.description is not None
        assert "Use it" in tool.description, tool.name
        assert "Do not use it" in tool.description, tool.name
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not None, tool.name
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        for name, argument in tool.input_schema["properties"].items():
            assert argument.get("description"), (tool.name, name)
    named = {tool.name: tool.annotations for tool in tools}
    assert {name for name, a in named.items() if a and a.destructive_hint} == {
        "flowise_clear_cache",
        "flowise_report_answer",
        "coaia_tash",
    }
    assert {name for name, a in named.items() if a and a.read_only_hint} == {
        "flowise_list_flows",
        "flowise_browse",
        "flowise_session_info",
        "flowise_session_history",
        "flowise_search_history",
        "flowise_popular_questions",
        "flowise_faq",
        "flowise_cache_stats",
        "flowise_usage_analytics",
        "flowise_flow_health",
        "flowise_trace_view",
        "flowise_trace_search",
        "coaia_fetch",
    }


async def test_a_client_with_a_handshake_hears_of_new_flows(afw: Afw) -> None:
    heard = anyio.Event()

    async def hear(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            heard.set()

    with (afw.home / "mcp.log").open("a") as log:
        transport = stdio_client(parameters(afw), errlog=log)
        async with Client(transport, mode="legacy", message_handler=hear) as client:
            await called(client, "flowise_add_flow", flow_id="x", flow_name="New", base_url="http://127.0.0.1:1")
            with anyio.fail_after(20):
                await heard.wait()


async def test_a_client_that_listens_hears_of_new_flows(afw: Afw) -> None:
    async with connected(afw) as client, client.listen(tools_list_changed=True) as changes:
        await called(client, "flowise_add_flow", flow_id="x", flow_name="New", base_url="http://127.0.0.1:1")
        with anyio.fail_after(20):
            assert isinstance(await anext(aiter(changes)), ToolsListChanged)

"""`afw popular`, `afw paths` and `flowise_popular_questions`: the same counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from afw_command import Afw, assert_error
from mcp_process import ERAS, called, connected, refused, resource
from servers import Server

ECHO = ("--flow", "echo")
KEYS = "echo how the keys are rotated"
NEXT = "And what does that cost?"


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_what_was_asked_is_counted_over_commands(afw: Afw) -> None:
    assert "Nothing that all may see was asked over the last 30 days." in afw.ok("popular").err
    assert afw.json("popular") == {"days": 30, "questions": []}
    for user in ("ann", "bob"):
        afw.ok("ask", KEYS, *ECHO, "--session", user, "--user", user)
        afw.ok("ask", NEXT, *ECHO, "--session", user, "--user", user)
    afw.ok("ask", "echo my \x1b[31mred secret", *ECHO)
    afw.ok("ask", "echo \x1b[31mred alarms", *ECHO)
    found, other = afw.json("popular", "--days", "7", *ECHO)["questions"]
    assert (found["question"], found["asked"], found["askers"], found["served"]) == (KEYS, 2, 2, 1)
    assert found["cluster"] in found["entry_key"]
    assert other["asked"] == 1
    shown = afw.ok("popular")
    assert KEYS in shown.out
    assert "\x1b" not in shown.out
    assert "secret" not in shown.out
    assert len(afw.json("popular", "--limit", "1")["questions"]) == 1

    told = afw.json("paths", KEYS)
    assert [(step["question"], step["count"], step["askers"]) for step in told["next"]] == [(NEXT, 2, 2)]
    assert NEXT in afw.ok("paths", found["cluster"]).out
    assert afw.json("paths", KEYS, NEXT, code=1)["next"] == []
    assert "No two people" in afw.run("paths", "echo red alarms").err
    assert afw.run("paths", "echo red alarms").code == 1


def test_what_cannot_be_asked_for_is_said(afw: Afw) -> None:
    assert_error(afw.json("popular", "--flow", "nobody", code=1), "unknown_flow")
    assert_error(afw.json("paths", "a", "b", "c", "d", code=2), "invalid_input")
    assert afw.run("popular", "--days", "91").code == 2


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_reads_what_is_asked_often(afw: Afw, era: str) -> None:
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        empty = await called(client, "flowise_popular_questions")
        assert empty == {"days": 30, "questions": []}
        for session in ("a", "b"):
            for question in (KEYS, NEXT):
                await called(client, "flowise_query", question=question, session_id=session, flow_override="echo")
        result = await client.call_tool("flowise_popular_questions", {"days": 7, "flow": "echo"})
        told = result.structured_content or {}
        Draft202012Validator(schemas["flowise_popular_questions"] or {}).validate(told)
        (found,) = told["questions"]
        assert (found["question"], found["asked"], found["hit_rate"]) == (KEYS, 2, 0.5)
        assert found["wordings"] == [{"text": KEYS, "count": 2}]
        assert found["next_questions"] == [{"question": NEXT, "count": 2, "share": 1.0, "askers": 2}]
        text = "\n".join(block.text for block in result.content if block.type == "text")
        assert "2 times by 2 askers, 50% from memory, flow echo" in text
        assert f"then: {NEXT} (2)" in text
        stats = await called(client, "flowise_cache_stats", flow="echo")
        assert [(top["question"], top["asked"], top["served"]) for top in stats["top_queries"]] == [(KEYS, 2, 1)]
        assert (await resource(client, "flowise://cache-metrics"))["top_queries"] == stats["top_queries"]
        assert (await called(client, "flowise_cache_stats", since="3d", until="2d"))["top_queries"] == []
        error = await refused(client, "flowise_popular_questions", flow="nobody")
        assert error["error_type"] == "unknown_flow"

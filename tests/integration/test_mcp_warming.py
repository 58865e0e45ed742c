"""Warming over MCP, with the official client in both protocol eras."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from afw_command import Afw
from mcp_process import ERAS, called, connected, refused
from servers import Server

pytestmark = pytest.mark.anyio

QUESTIONS = [
    {"question": "echo the first thing", "then": ["And what comes after it?"], "flow": "echo"},
    {"question": "What about mobile?"},
]


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


@pytest.mark.parametrize("era", ERAS)
async def test_questions_are_warmed_and_gone_on_with(afw: Afw, era: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def report(done: float, total: float | None, message: str | None) -> None:
        told.append((done, total, message))

    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        dry = await called(client, "flowise_warm_cache", questions=QUESTIONS, dry_run=True)
        assert (dry["state"], dry["due"], dry["refused"], afw.asked()) == ("dry", 2, 1, [])
        arguments = {"questions": QUESTIONS, "max_calls": 1}
        result = await client.call_tool("flowise_warm_cache", arguments, progress_callback=report)
        assert not result.is_error
        warmed = result.structured_content or {}
        Draft202012Validator(schemas["flowise_warm_cache"] or {}).validate(warmed)
        assert (warmed["state"], warmed["bound"], warmed["stored"], warmed["left"]) == ("left", "calls", 1, 1)
        assert warmed["refusals"] == {"follow_up": 1}
        assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
        done = await called(client, "flowise_warm_cache", resume=warmed["job"], max_calls=5)
        assert (done["state"], done["stored"], done["asked"]) == ("done", 2, 2)
        assert {item["outcome"] for item in done["items"]} == {"stored", "refused"}
        asked = {"flow_override": "echo", "session_id": "s"}
        first = await called(client, "flowise_query", question="echo the first thing", **asked)
        then = await called(client, "flowise_query", question="And what comes after it?", session_id="s")
        assert (first["outcome"], then["outcome"], len(afw.asked())) == ("hit", "hit", 2)


@pytest.mark.parametrize("era", ERAS)
async def test_what_makes_no_sense_is_refused(afw: Afw, era: str) -> None:
    async with connected(afw, era) as client:
        assert (await refused(client, "flowise_warm_cache"))["error_type"] == "invalid_input"
        assert (await refused(client, "flowise_warm_cache", resume="w-nothing"))["error_type"] == "unknown_warm_up"
        many = await refused(client, "flowise_warm_cache", questions=[QUESTIONS[1]] * 51)
        assert many["error_type"] == "invalid_input"
        assert afw.asked() == []

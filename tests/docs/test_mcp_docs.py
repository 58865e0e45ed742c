"""docs/mcp.md names every tool, argument, resource and field of the MCP server, and its snippets are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.callers import Scope
from agentic_flywheel.flywheel import Flywheel
from agentic_flywheel.interfaces.mcp.access import RESOURCES, TOOLS, Need
from agentic_flywheel.interfaces.mcp.server import build_server

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()


@pytest.fixture
def flywheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flywheel:
    monkeypatch.setenv("AFW_CONFIG_DIR", str(tmp_path))
    return Flywheel.open(redis_url="redis://127.0.0.1:1")


def section(tool: str) -> str:
    """What the page says about one tool."""
    found = re.search(rf"^### {tool}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/mcp.md has no section about {tool}"
    return found[1]


async def test_every_tool_and_argument_is_described_and_no_other(flywheel: Flywheel) -> None:
    tools = await build_server(flywheel).list_tools()
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == {tool.name for tool in tools}
    for tool in tools:
        assert f"[`{tool.name}`](#{tool.name})" in PAGE
        rows = re.findall(r"^\| (`.*?) \|", section(tool.name), re.MULTILINE)
        described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert described == set(tool.input_schema["properties"]), tool.name
        for name in tool.input_schema.get("required", ()):
            assert re.search(rf"^\| `{name}` \|.*\(required\)", section(tool.name), re.MULTILINE), (tool.name, name)
        hints = tool.annotations
        assert hints is not None
        assert bool(hints.read_only_hint) == section(tool.name).lstrip().startswith("Read-only."), tool.name


async def test_every_field_of_an_answer_and_of_a_configuration_is_named(flywheel: Flywheel) -> None:
    tools = {tool.name: tool for tool in await build_server(flywheel).list_tools()}
    answer: dict[str, Any] = tools["flowise_query"].output_schema or {}
    for field in answer["anyOf"][0]["required"] + list(answer["$defs"]["McpMetadata"]["properties"]):
        assert f"`{field}`" in section("flowise_query"), field
    for field in answer["properties"]:
        assert f"`{field}`" in section("flowise_query") or f'"{field}"' in PAGE, field
    for field in tools["flowise_configure"].input_schema["$defs"]["FlowConfig"]["properties"]:
        assert f"`{field}`" in section("flowise_configure"), field


async def test_every_resource_is_named_and_no_other(flywheel: Flywheel) -> None:
    resources = {str(resource.uri) for resource in await build_server(flywheel).list_resources()}
    assert set(re.findall(r"flowise://[\w-]+", PAGE)) == resources


def test_what_each_scope_may_use_is_the_table_of_the_code() -> None:
    section = PAGE.split("| Scope of the key |")[1].split("\n\n")[0]
    rows = {line.split("|")[1].strip(): line for line in section.splitlines() if line.startswith("| `")}
    ask, read, admin, operator = (rows[name] for name in rows)
    for name, need in {**TOOLS, **RESOURCES}.items():
        row = {Scope.ASK: ask, Scope.READ: read, Scope.ADMIN: admin, Need.OPERATOR: operator}[need]
        assert f"`{name}`" in row, name


def test_the_snippets_for_clients_are_json_that_starts_the_server() -> None:
    snippets = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    servers = [snippet.get("mcpServers") or snippet.get("servers") for snippet in snippets]
    named = [server["agentic-flywheel"] for server in servers if server]
    started = [(server["command"], server["args"]) for server in named if "command" in server]
    bridge = ("afw", ["mcp", "--connect", "https://flywheel.example/mcp"])
    assert sorted(started) == [("afw", ["mcp"])] * 2 + [bridge]
    assert [server["url"] for server in named if "url" in server] == ["http://127.0.0.1:8765/mcp"]
    for client in ("Claude Desktop", "Claude Code", "VS Code", "Cursor", "Any other client"):
        assert f"**{client}**" in PAGE

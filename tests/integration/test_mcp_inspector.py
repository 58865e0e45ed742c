"""The MCP inspector, another implementation of the protocol, lists and calls everything there is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import fetch_inspector
import npm_packages
from afw_command import Afw
from mcp_process import RESOURCES, TOOLS
from servers import Server

#: One call of each tool, in an order in which each succeeds.
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("flowise_query", {"question": "How do I rotate the keys?", "session_id": "monday", "flow_override": "echo"}),
    ("flowise_domain_query", {"question": "Which port?", "domain_name": "Gateways", "flow_override": "echo"}),
    ("flowise_list_flows", {"include_inactive": True}),
    ("flowise_add_flow", {"flow_id": "abc", "flow_name": "Support", "intent_keywords": ["install", "error"]}),
    ("flowise_configure", {"flow_id": "support", "config": {"temperature": 0.2, "returnSourceDocuments": True}}),
    ("flowise_browse", {"flow_name": "Support", "canvas": True}),
    ("flowise_session_info", {"session_id": "monday"}),
    ("flowise_session_history", {"session_id": "monday", "limit": 1}),
    ("flowise_search_history", {"query": "rotating keys", "limit": 1}),
    ("flowise_cache_stats", {"days": 1}),
    ("flowise_usage_analytics", {"by": "day"}),
    ("flowise_flow_health", {"flow": "echo"}),
    ("flowise_popular_questions", {"days": 1}),
    ("flowise_faq", {"action": "candidates"}),
    ("flowise_warm_cache", {"popular": 3, "dry_run": True}),
    ("flowise_set_ttl", {"name": "technical", "ttl": "36h"}),
    ("flowise_report_answer", {"turn_id": "last", "kind": "outdated", "session_id": "monday"}),
    ("flowise_trace_view", {"session_id": "monday"}),
    ("flowise_trace_search", {"query": "keys", "limit": 1}),
    ("flowise_quality_score", {"score": 7, "session_id": "monday"}),
    ("flowise_clear_cache", {"flow": "echo", "confirm": True}),
    ("coaia_tash", {"key": "note", "value": "kept"}),
    ("coaia_fetch", {"key": "note"}),
)


class Inspector:
    """The inspector's command line, pointed at `afw mcp`."""

    def __init__(self, command: list[str], afw: Afw) -> None:
        self._command = command
        self._afw = afw
        self.seen: list[str] = []

    def run(self, *arguments: str, code: int = 0) -> Any:
        """One request; the JSON that the inspector prints."""
        server = self._afw.command("mcp")
        passed = [f"{name}={value}" for name, value in self._afw.environ.items() if name != "PATH"]
        variables = [word for variable in passed for word in ("-e", variable)]
        done = subprocess.run(
            [*self._command, *variables, *server, *arguments],
            cwd=self._afw.work,
            env={**self._afw.environ, "PYTHONWARNINGS": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def call(self, tool: str, arguments: dict[str, Any], code: int = 0) -> Any:
        self.seen.append(tool)
        pairs = [
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()
        ]
        words = [word for pair in pairs for word in ("--tool-arg", pair)]
        return self.run("--method", "tools/call", "--tool-name", tool, *words, code=code)


@pytest.fixture
def inspector(tmp_path: Path, valkey: Server) -> Inspector:
    try:
        command = fetch_inspector.command()
    except npm_packages.NotFetched as error:
        if os.environ.get("CI") == "true" and not error.npm_missing:
            raise
        pytest.skip(f"no MCP inspector: {error}")
    afw = Afw(tmp_path, valkey.url)
    # Flows of Flowise that the registry gives no address are asked there.
    afw.registry.write_text(f"environment:\n  base_url: http://127.0.0.1:1\n{afw.registry.read_text()}")
    return Inspector(command, afw)


def test_the_inspector_calls_every_tool(inspector: Inspector) -> None:
    for tool, arguments in CALLS:
        result = inspector.call(tool, arguments)
        assert not result.get("isError"), result
        assert result["content"][0]["text"], tool
        assert result["structuredContent"], tool
    assert set(inspector.seen) == TOOLS
    assert result["structuredContent"] == {"success": True, "value": "kept"}


def test_the_inspector_finds_no_fault_in_the_schemas(inspector: Inspector) -> None:
    listed = inspector.run("--method", "tools/list", "--strict")
    assert {tool["name"] for tool in listed["tools"]} == TOOLS


def test_the_inspector_reads_every_resource(inspector: Inspector) -> None:
    listed = inspector.run("--method", "resources/list")
    assert {known["uri"] for known in listed["resources"]} == RESOURCES
    for uri in sorted(RESOURCES):
        (content,) = inspector.run("--method", "resources/read", "--uri", uri)["contents"]
        assert isinstance(json.loads(content["text"]), dict)

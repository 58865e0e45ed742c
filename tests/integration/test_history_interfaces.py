"""`afw search`, `afw index`, `flowise_search_history` and the facade without an event loop: the same search."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from afw_command import Afw, assert_error
from agentic_flywheel.sync import FlywheelSync
from mcp_process import ERAS, called, connected, refused
from servers import Server

ECHO = ("--flow", "echo")


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_what_was_asked_is_found_by_another_command(afw: Afw) -> None:
    afw.ok("ask", "echo persistence of keys", *ECHO, "--session", "one", "--user", "ann")
    afw.ok("ask", "echo colours of logos", *ECHO, "--session", "two")
    page = afw.json("search", "persisting")
    (found,) = page["found"]
    assert (found["session_id"], found["user"], found["flow"]) == ("one", "ann", "echo")
    (start, end), *_ = found["question_marks"]
    assert found["question"][start:end] == "persistence"
    shown = afw.ok("search", "persisting")
    assert "echo persistence of keys" in shown.out
    assert "session one" in shown.out
    assert "1 turn, by words, in" in shown.err
    assert "\n  flow: echo 1\n  user: ann 1\n  outcome: miss 1\n  day: 20" in shown.err
    assert "2 turns, newest first, in" in afw.ok("search").err
    assert afw.json("search", "persisting", "--flow", "Echo")["total"] == 1, "a flow's name is as good as its key"
    assert "no flow 'ehco'; did you mean 'echo'?" in afw.run("search", "persisting flow:ehco").err
    assert "no flow" not in afw.run("search", "zebra flow:echo").err
    assert "ends before it begins" in afw.run("search", "--since", "2026-11-02", "--until", "2026-11-01").err
    assert afw.json("search", "persisting", "session:two", code=1)["found"] == []
    assert "Nothing found." in afw.run("search", "zebra").err
    assert [found["session_id"] for found in afw.json("search")["found"]] == ["two", "one"]
    assert afw.json("search", "echo", "--limit", "1")["cursor"]
    assert_error(afw.json("search", "x", "--cursor", "nonsense", code=2), "invalid_input")
    assert_error(afw.json("search", "x", "--since", "tomato", code=2), "invalid_input")
    told = afw.run("search", "x", "--since", "tomato").err
    assert "- Write a day or a time: 2026-11-01" in told
    assert "`afw search --help`" in told
    assert "afw doctor" not in told
    assert "there are hit, similar" in afw.run("search", "--outcome", "sour").err
    assert "did you mean flow:?" in afw.ok("search", "flw:echo persistence").err


def test_what_a_terminal_would_act_on_is_not_shown(afw: Afw) -> None:
    afw.ok("ask", "echo \x1b[31mred\x1b[0m alarm", *ECHO)
    assert "\x1b" not in afw.ok("search", "alarm").out


def test_the_index_is_shown_and_made_anew(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO)
    state = afw.json("index", "show")
    assert (state["kind"], state["turns"], state["sessions"]) == ("local", 1, 1)
    assert Path(state["where"]).is_dir()
    rebuilt = afw.json("index", "rebuild")
    assert (rebuilt["turns"], rebuilt["behind"]) == (1, 0)
    assert "none: there is no embedder" in afw.ok("index", "rebuild").out


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_a_client_searches_and_pages(afw: Afw, era: str) -> None:
    async with connected(afw, era) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for number in range(3):
            await called(client, "flowise_query", question=f"echo persistence {number}", flow_override="echo")
        result = await client.call_tool("flowise_search_history", {"query": "persisting flow:echo", "limit": 2})
        page = result.structured_content or {}
        Draft202012Validator(schemas["flowise_search_history"] or {}).validate(page)
        assert (len(page["found"]), page["total"], page["facets"]["flow"]) == (2, 3, {"echo": 3})
        rest = await called(
            client, "flowise_search_history", query="persisting flow:echo", limit=2, cursor=page["cursor"]
        )
        assert len(rest["found"]) == 1
        error = await refused(client, "flowise_search_history", query="x", since="tomato")
        assert error["error_type"] == "invalid_input"


def test_without_an_event_loop_the_search_is_the_same(valkey: Server, tmp_path: Path) -> None:
    with FlywheelSync.open(redis_url=valkey.url, data_dir=str(tmp_path), embedder_model="off") as flywheel:
        flywheel.registry.register("here", lambda question: f"about {question}")
        flywheel.ask("persistence of keys", flow="here")
        assert flywheel.history.search("persisting").total == 1
        assert flywheel.history.state().turns == 1

"""`afw flow`, `config`, `doctor`, `redis` and `mcp`: what is configured, and what runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server, free_port, wait_until


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Afw]:
    """Without a Redis, so that the embedded server is used; it is stopped at the end."""
    command = Afw(tmp_path)
    yield command
    command.run("redis", "stop")


def test_flows_are_listed_and_shown(afw: Afw) -> None:
    listed = afw.json("flow", "list")
    assert {flow["key"]: flow["kind"] for flow in listed["flows"]} == {"documents": "documents", "echo": "python"}
    assert listed["registry"] == str(afw.registry)
    human = afw.ok("flow", "list")
    assert "echo       python     technical  team         by type   Says it again." in human.out
    assert str(afw.registry) in human.err
    before = afw.json("flow", "show", "echo")
    assert before["flow"]["intent_keywords"] == ["echo", "repeat"]
    assert "not recorded yet" in afw.ok("flow", "show", "echo").out
    asked = afw.json("ask", "echo one", "--flow", "echo")
    after = afw.json("flow", "show", "echo")
    assert after["state"]["fingerprint"] == asked["fingerprint"]
    assert len(after["changes"]) == 1
    shown = afw.ok("flow", "show", "echo").out
    for word in ("Echo", "python", "echo, repeat", asked["fingerprint"], "first seen ->", f"{afw.registry}:"):
        assert word in shown
    assert_error(afw.json("flow", "show", "ecko", code=1), "unknown_flow")


def test_the_registry_half_of_a_flow_is_shown_without_redis(afw: Afw) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    found = afw.json("flow", "show", "echo", "--redis-url", url)
    assert found["flow"]["key"] == "echo"
    assert found["state"] is None
    assert found["problem"]
    assert "warning: " in afw.ok("flow", "show", "echo", "--redis-url", url).err


def test_a_flow_is_added_changed_and_removed(afw: Afw) -> None:
    folder = afw.work / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\nEverybody has thirty days of paid leave in a year.\n")
    added = afw.ok(
        "flow", "add", "handbook", "--kind", "documents", "--folder", "handbook", "--name", "Handbook",
        "--keyword", "leave", "--keyword", "holiday", "--ttl", "36h",
    )  # fmt: skip
    assert added.out.startswith("added handbook\n")
    flow = afw.json("flow", "show", "handbook")["flow"]
    assert flow["options"]["folder"] == str(folder)
    assert (flow["ttl_seconds"], flow["intent_keywords"]) == (36 * 3600, ["leave", "holiday"])
    answer = afw.json("ask", "How much paid leave do I have?")
    assert (answer["flow"], answer["route"]["how"]) == ("handbook", "keywords")
    assert "thirty days" in answer["text"]
    duplicate = afw.json("flow", "add", "handbook", "--kind", "documents", "--folder", "handbook", code=2)
    assert_error(duplicate, "invalid_registry")

    changed = afw.json("flow", "edit", "handbook", "--ttl", "7d", "--sharing", "user", "--unset", "name")
    assert changed["action"] == "edited"
    assert changed["after"]["sharing"] == "user"
    flow = afw.json("flow", "show", "handbook")["flow"]
    assert (flow["ttl_seconds"], flow["sharing"], flow["name"]) == (7 * 86400, "user", "")
    assert "nothing changed" in afw.ok("flow", "edit", "handbook", "--sharing", "user").out
    afw.ok("flow", "edit", "handbook", "--inactive")
    assert "handbook" not in afw.ok("flow", "list").out
    assert "handbook (inactive)" in afw.ok("flow", "list", "--all").out
    assert_error(afw.json("ask", "leave?", "--flow", "handbook", code=1), "unknown_flow")
    afw.ok("flow", "edit", "handbook", "--active", "--sharing", "team")
    afw.ok("ask", "How much paid leave do I have?", "--flow", "handbook")

    shown = afw.json("flow", "remove", "handbook", code=1)
    assert (shown["dry_run"], shown["removed"]["flows"]) == (True, 1)
    assert shown["unreachable"] >= 1
    assert afw.json("flow", "show", "handbook")["flow"]["key"] == "handbook"
    removed = afw.ok("flow", "remove", "handbook", "--yes")
    assert "removed 1 flow" in removed.out
    assert_error(afw.json("flow", "show", "handbook", code=1), "unknown_flow")
    assert "# Kept by people" in afw.registry.read_text()


def test_a_flow_that_was_never_asked_is_removed(afw: Afw) -> None:
    afw.ok("flow", "edit", "echo", "--inactive")
    assert "never asked" in afw.ok("flow", "remove", "echo", "--yes").out


def test_a_flow_is_removed_without_redis_and_says_what_is_left(afw: Afw) -> None:
    receipt = afw.json("flow", "remove", "echo", "--yes", "--redis-url", f"redis://127.0.0.1:{free_port()}", code=2)
    assert receipt["removed"] == {"flows": 1}
    assert any("could not be cleared" in note for note in receipt["notes"])
    assert_error(afw.json("flow", "show", "echo", code=1), "unknown_flow")


def test_configuration_is_laid_over_and_taken_away(afw: Afw) -> None:
    afw.ok(
        "flow", "add", "support", "--kind", "flowise", "--id", "abc", "--base-url", "http://127.0.0.1:9",
        "--config", "temperature=0.2", "--config", "apiKey=sk-hidden", "--config", "rephrasePrompt=Say it",
    )  # fmt: skip
    done = afw.json("flow", "show", "support")
    assert done["flow"]["config"] == {"temperature": 0.2, "apiKey": "***", "rephrasePrompt": "Say it"}
    assert "sk-hidden" not in afw.ok("flow", "show", "support").out + afw.ok("flow", "list", "--json").out
    afw.ok("flow", "edit", "support", "--config", "temperature=0.9", "--unset", "config.rephrasePrompt")
    config = afw.json("flow", "show", "support")["flow"]["config"]
    assert config == {"temperature": 0.9, "apiKey": "***"}
    assert_error(afw.json("flow", "edit", "support", "--config", "temperature", code=2), "invalid_input")
    assert_error(afw.json("flow", "edit", "support", code=2), "invalid_input")
    assert_error(afw.json("flow", "edit", "nobody", "--ttl", "1d", code=1), "unknown_flow")
    assert_error(afw.json("flow", "add", "x", "--kind", "pyton", code=2), "invalid_input")


def test_a_changed_flow_is_not_served_stale(afw: Afw) -> None:
    first = afw.json("ask", "echo one", "--flow", "echo")
    afw.ok("flow", "edit", "echo", "--option", "version=2")
    second = afw.json("ask", "echo one", "--flow", "echo")
    assert (second["outcome"], second["reason"]) == ("miss", "flow_changed")
    assert second["fingerprint"] != first["fingerprint"]


def test_flows_are_checked_and_tried(afw: Afw) -> None:
    good = afw.json("flow", "check", "echo")
    assert (good["ok"], good["flows"]["echo"]["ok"]) == (True, True)
    assert afw.ok("flow", "check", "echo").out.startswith("ok    echo")
    afw.ok(
        "flow", "add", "gone", "--kind", "openai", "--model", "m", "--base-url", f"http://127.0.0.1:{free_port()}/v1"
    )
    bad = afw.run("flow", "check")
    assert bad.code == 2
    assert "fail  gone" in bad.out
    assert afw.json("flow", "check", code=2)["ok"] is False
    assert_error(afw.json("flow", "check", "nobody", code=1), "unknown_flow")

    tried = afw.json("flow", "test", "echo", "is it there?")
    assert tried["text"] == "You said: is it there?"
    assert afw.ok("flow", "test", "echo", "is it there?").out == "You said: is it there?\n"
    assert afw.asked() == ["is it there?"] * 2
    assert afw.json("session", "list")["sessions"] == []
    assert afw.json("cache", "list")["answers"] == []
    assert_error(afw.json("flow", "test", "echo", "please fail", code=2), "flow_unavailable")


def test_config_shows_values_and_origins(afw: Afw, valkey: Server) -> None:
    (afw.config / "config.toml").write_text("[session]\nturns = 3\n")
    shown = afw.json("config", "show", "--tenant", "acme", AFW_REDIS_URL="redis://ann:s3cret@127.0.0.1:1/2")
    values = {row["name"]: row for row in shown["settings"]}
    assert (values["tenant"]["value"], values["tenant"]["origin"]) == ("acme", "argument")
    assert (values["session.turns"]["value"], values["session.turns"]["origin"]) == (3, str(afw.config / "config.toml"))
    assert values["redis_url"]["origin"] == "environment AFW_REDIS_URL"
    assert "s3cret" not in json.dumps(shown)
    assert shown["redis"]["address"] == "redis://ann:***@127.0.0.1:1/2"
    assert shown["registry"] == {"path": str(afw.registry), "origin": "user", "problem": ""}
    human = afw.ok("config", "show", AFW_REDIS_URL="redis://ann:s3cret@127.0.0.1:1/2")
    assert "s3cret" not in human.out + human.err
    assert "session.turns" in human.out
    nonsense = afw.ok("config", "show", AFW_REDIS_URL=":s3cret@host")
    assert "s3cret" not in nonsense.out + nonsense.err
    assert "warning: " in nonsense.err


def test_a_file_of_variables_names_the_redis(afw: Afw, valkey: Server) -> None:
    del afw.environ["AFW_REDIS_URL"]
    file = afw.work / "redis.env"
    file.write_text(f"REDIS_URL={valkey.tcp_url()}\n")
    shown = afw.json("config", "show", "--env", "redis.env")["redis"]
    assert shown["address"] == valkey.tcp_url()
    assert "REDIS_URL" in shown["origin"]
    missing = afw.json("session", "list", "--env", "nowhere.env", code=2)
    assert_error(missing, "invalid_setting")


def test_doctor_tells_what_is_fine_and_what_is_not(afw: Afw) -> None:
    afw.registry.write_text("flows:\n  echo:\n    kind: python\n    callable: afw_test_flow:answer\n")
    fine = afw.json("doctor")
    assert fine["ok"] is True
    assert {check["name"] for check in fine["checks"]} >= {"registry", "redis", "flow echo"}
    assert afw.ok("doctor").out.startswith("ok    registry")
    url = f"redis://127.0.0.1:{free_port()}"
    broken = afw.json("doctor", "--redis-url", url, code=1)
    assert broken["ok"] is False
    problem = next(check for check in broken["checks"] if check["state"] == "fail")
    assert problem["name"] == "redis"
    assert problem["advice"]
    human = afw.run("doctor", "--redis-url", url)
    assert (human.code, "fail  redis" in human.out) == (1, True)
    afw.registry.write_text("flows:\n  echo:\n    kind: pyton\n")
    assert afw.json("doctor", code=1)["ok"] is False


def test_the_embedded_server_is_shown_and_stopped(embedded: Afw) -> None:
    assert embedded.json("redis", "status", code=1)["running"] is False
    resting = embedded.run("redis", "status")
    assert (resting.code, resting.out) == (1, "not running\n")
    assert embedded.json("redis", "stop", code=1) == {"stopped": False}
    first = embedded.json("ask", "echo one", "--flow", "echo", "--session", "talk")
    status = embedded.json("redis", "status")
    assert status["running"] is True
    assert status["pid"] > 0
    assert Path(status["socket"]).is_socket()
    assert status["server"] in {"valkey", "redis"}
    assert status["version"]
    assert status["used_memory_bytes"] > 0
    assert f"pid      {status['pid']}" in embedded.ok("redis", "status").out
    assert embedded.ok("redis", "path").out == f"{embedded.data / 'redis'}\n"
    assert embedded.json("redis", "path")["path"] == str(embedded.data / "redis")
    assert embedded.ok("redis", "stop").out == "stopped\n"
    wait_until(lambda: not Path(f"/proc/{status['pid']}").exists() or sys.platform != "linux", "the server to end")
    second = embedded.json("ask", "echo one", "--flow", "echo")
    assert (second["outcome"], second["origin_trace_id"]) == ("hit", first["trace_id"])
    assert len(embedded.json("session", "show", "talk")["turns"]) == 1


def test_the_embedded_server_comes_back_after_a_crash(embedded: Afw) -> None:
    embedded.ok("ask", "echo one", "--flow", "echo", "--session", "talk")
    os.kill(embedded.json("redis", "status")["pid"], signal.SIGKILL)
    wait_until(lambda: embedded.run("redis", "status").code == 1, "the killed server to be gone")
    thread = embedded.json("session", "resume", "talk")
    assert [turn["question"] for turn in thread["turns"]] == ["echo one"]


def test_mcp_serves_over_stdio_with_the_options_of_the_command_line(afw: Afw) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    started = afw.start("mcp", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = started.communicate(json.dumps(hello).encode() + b"\n", timeout=120)
    assert started.returncode == 0, errors
    reply = json.loads(out.splitlines()[0])
    assert reply["id"] == 1
    assert reply["result"]["serverInfo"]["name"]


def test_mcp_says_which_extra_to_install(afw: Afw) -> None:
    (afw.home / "sitecustomize.py").write_text("import sys\nsys.modules['mcp'] = None\n")  # as if not installed
    error = afw.json("mcp", code=2)
    assert_error(error, "extra_missing")
    assert "agentic-flywheel[mcp]" in error["error"]

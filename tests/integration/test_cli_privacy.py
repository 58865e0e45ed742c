"""`afw privacy` and REST: policies are shown, set and taken back, and another process follows at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from agentic_flywheel.callers import Scope
from flywheels import Oracle, opened
from http_app import app_on, client_of, key_for
from servers import Server

ECHO = ("--flow", "echo")


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_a_policy_is_set_shown_obeyed_and_taken_back(afw: Afw) -> None:
    assert "Nobody set a policy" in afw.ok("privacy", "show").err
    afw.ok("ask", "echo one", *ECHO, "--session", "before")
    done = afw.ok("privacy", "set", *ECHO, "--history", "off", "--cache", "off", "--retention", "30d", "--why", "law")
    assert done.out.splitlines() == ["flow echo: history off, cache off, retention 30 days", "  1 answer removed"]
    assert "`afw forget` removes them" in done.err
    asked = afw.json("ask", "echo one", *ECHO, "--session", "talk")
    assert (asked["outcome"], asked["reason"], asked["remembered"]) == ("bypass", "policy", False)
    assert asked["warnings"][0].startswith("No history: policy of flow echo")
    assert_error(afw.json("session", "show", "talk", code=1), "unknown_session")

    afw.ok("privacy", "set", *ECHO, "--history", "on", "--redact", "Email", "--redact", "iban")
    shown = afw.json("privacy", "show", *ECHO, "--user", "ann")
    (row,) = shown["in_force"]
    held = row["privacy"]
    assert (row["flow"], row["user"], held["history"], held["cache"]) == ("echo", "ann", True, False)
    assert sorted(held["redact"]) == ["email", "iban"]
    assert held["retention_days"] == 30
    words = afw.ok("privacy", "show").out
    assert "off (flow echo)" in words
    assert "30 days (flow echo)" in words
    assert "off (flow echo)" in afw.ok("flow", "show", "echo").out
    assert afw.json("flow", "show", "echo")["privacy"]["privacy"]["cache"] is False

    assert afw.ok("privacy", "clear", *ECHO).out.splitlines() == ["flow echo: says nothing"]
    assert afw.json("ask", "echo one", *ECHO)["outcome"] == "miss"
    log = [(entry["action"], entry["target"], entry["why"]) for entry in afw.json("audit", "list")["entries"]]
    assert log == [
        ("privacy.clear", "flow echo", ""),
        ("privacy.set", "flow echo", ""),
        ("privacy.set", "flow echo", "law"),
    ]


def test_a_policy_in_the_registry_is_shown_and_a_slip_in_it_is_refused(afw: Afw) -> None:
    written = afw.registry.read_text()
    afw.registry.write_text(written + "    privacy: {history: off, retention_days: 7}\n")
    (policy,) = afw.json("privacy", "show")["policies"]
    assert (policy["whose"], policy["name"], policy["origin"]) == ("flow", "echo", "registry")
    assert afw.json("ask", "echo one", *ECHO)["remembered"] is False
    slips = ("{histroy: off}", "{history: maybe}", "{retention_days: 0}", "{redact: email}", "{redact: [two words]}")
    for slip in slips:
        afw.registry.write_text(written + f"    privacy: {slip}\n")
        assert afw.run("privacy", "show").code == 2, slip


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "--history", "off"),
        ("set", "--flow", "echo", "--user", "ann", "--history", "off"),
        ("set", "--flow", "echo"),
        ("set", "--flow", "echo", "--history", "perhaps"),
        ("set", "--everybody", "--retention", "soon"),
        ("clear",),
    ],
    ids=" ".join,
)
def test_what_is_not_said_plainly_is_refused(afw: Afw, arguments: tuple[str, ...]) -> None:
    assert afw.run("privacy", *arguments).code == 2
    assert afw.json("audit", "list")["entries"] == []


def test_who_is_not_there_has_no_policy(afw: Afw) -> None:
    assert_error(afw.json("privacy", "set", "--flow", "ecko", "--history", "off", code=1), "unknown_flow")
    assert afw.json("audit", "list")["entries"] == []


@pytest.mark.anyio
async def test_what_another_process_sets_holds_at_the_next_question(valkey: Server, tmp_path: Path) -> None:
    afw = Afw(tmp_path / "afw", valkey.url)
    here = tmp_path / "afw" / "here"
    here.mkdir()
    async with opened(valkey, here, {"echo": Oracle()}) as flywheel:
        assert (await flywheel.ask("What is one?", flow="echo")).remembered
        assert (await flywheel.ask("What is one?", flow="echo")).outcome == "hit"
        await asyncio.to_thread(afw.ok, "privacy", "set", "--everybody", "--cache", "off", "--history", "off")
        answer = await flywheel.ask("What is one?", flow="echo")
        assert (answer.reason, answer.remembered) == ("policy", False)
        await asyncio.to_thread(afw.ok, "privacy", "clear", "--everybody")
        assert (await flywheel.ask("What is one?", flow="echo")).remembered


@pytest.mark.anyio
async def test_rest_sets_the_whole_policy_and_writes_it_down(valkey: Server, tmp_path: Path) -> None:
    async with app_on(valkey, tmp_path, serve_credentials="always") as app:
        app.service.registry.register("oracle", lambda question: f"You said: {question}")
        secret = await key_for(app, Scope.ADMIN, Scope.READ, Scope.ASK)
        async with client_of(app, secret) as client:
            path = "/api/v2/privacy"
            body = {"history": False, "redact": ["email"], "why": "asked for"}
            done = await client.put(f"{path}/user", params={"name": "ann/1"}, json=body)
            assert done.status_code == 200, done.text
            first = {"history": False, "cache": None, "retention_days": None, "redact": ["email"]}
            second = {"history": None, "cache": False, "retention_days": None, "redact": []}
            assert done.json()["after"] == first
            changed = (await client.put(f"{path}/user", params={"name": "ann/1"}, json={"cache": False})).json()
            assert (changed["before"], changed["after"]) == (first, second)
            (row,) = (await client.get(path, params={"user_id": "ann/1"})).json()["in_force"]
            assert (row["privacy"]["history"], row["privacy"]["cache"]) == (True, False)
            for whose, params, wrong in (
                ("user", {}, {"cache": False}),
                ("tenant", {"name": "x"}, {"cache": False}),
                ("somebody", {"name": "x"}, {"cache": False}),
                ("tenant", {}, {"retention_days": 0}),
                ("tenant", {}, {"retention": 1}),
                ("tenant", {}, {"redact": ["Two words"]}),
            ):
                refused = await client.put(f"{path}/{whose}", params=params, json=wrong)
                assert refused.status_code in {400, 422}, refused.text
            assert (await client.put(f"{path}/flow", params={"name": "nothing"}, json={})).status_code == 404
            back = (await client.delete(f"{path}/user", params={"name": "ann/1"})).json()
            assert (back["before"], back["after"]["cache"]) == (second, None)
            assert (await client.get(path)).json()["policies"] == []
            swept = (await client.post("/api/v2/sessions/sweep", json={"dry_run": True})).json()
            assert swept["removed"]["turns"] == 0
        entries, _ = await app.service.home.audit.list()
        assert [entry.action for entry in entries if entry.action.startswith("privacy")] == [
            "privacy.clear",
            "privacy.set",
            "privacy.set",
        ]

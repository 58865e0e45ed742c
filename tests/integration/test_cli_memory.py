"""`afw session`, `cache` and `ttl`: what is kept, shown, changed and removed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server

ECHO = ("--flow", "echo")


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_sessions_are_listed_newest_first(afw: Afw) -> None:
    assert "No sessions yet" in afw.ok("session", "list").err
    afw.ok("ask", "echo one", *ECHO, "--session", "first", "--user", "ann")
    afw.ok("ask", "echo two", *ECHO, "--session", "second", "--user", "bob")
    listed = afw.json("session", "list")
    assert [s["id"] for s in listed["sessions"]] == ["second", "first"]
    assert listed["sessions"][0]["owner"] == "bob"
    assert listed["sessions"][0]["turns"] == 1
    human = afw.ok("session", "list").out.splitlines()
    assert human[0].split() == ["session", "turns", "last", "active", "flow", "owner", "tags", "title"]
    assert human[1].startswith("second ")
    assert [s["id"] for s in afw.json("session", "list", "--user", "ann")["sessions"]] == ["first"]
    page = afw.json("session", "list", "--limit", "1")
    assert page["cursor"]
    assert [s["id"] for s in afw.json("session", "list", "--cursor", page["cursor"])["sessions"]] == ["first"]
    assert f"--cursor {page['cursor']}" in afw.ok("session", "list", "--limit", "1").err
    assert_error(afw.json("session", "list", "--cursor", "x", code=2), "invalid_input")
    assert_error(afw.json("session", "list", "--limit", "0", code=2), "invalid_input")


def test_a_session_reads_as_a_thread(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO, "--session", "talk", "--user", "ann")
    afw.ok("ask", "and two?", "--session", "talk", "--user", "ann")
    thread = afw.json("session", "show", "talk")
    assert [turn["question"] for turn in thread["turns"]] == ["echo one", "and two?"]
    assert thread["turns"][1]["context"] == [thread["turns"][0]["id"]]
    assert thread["turns"][1]["parent"] == thread["turns"][0]["id"]
    shown = afw.ok("session", "show", "talk").out
    assert "talk · owner ann · 2 turns · echo" in shown
    assert "  1  [miss] ann · " in shown
    assert "  2  [miss] ann · " in shown
    assert "ago (" in shown or "just now (" in shown
    assert "echo · not stored" in shown
    assert "enriched by turn 1" in shown
    assert "     You said: " in shown
    newest = afw.ok("session", "show", "talk", "--limit", "1").out
    assert "  2  [miss] ann" in newest
    assert "  1  [miss] ann" not in newest
    error = afw.json("session", "show", "nobody", code=1)
    assert_error(error, "unknown_session")


def test_long_answers_are_cut_on_a_terminal_unless_they_are_wanted_whole(afw: Afw) -> None:
    lines = "\n".join(f"line {number}." for number in range(40))
    afw.ok("ask", f"echo\n{lines}", *ECHO, "--session", "talk")
    for piped in (afw.ok("session", "show", "talk").out, afw.ok("session", "show", "talk", "--full").out):
        assert piped.count("line 39.") == 2, "the question and the whole answer"
        assert "more lines" not in piped
    cut = shown_on_terminal(afw, "session", "show", "talk")
    assert cut.count("line 39.") == 1
    assert "more lines" in cut
    assert "Whole answers: --full" in cut
    whole = shown_on_terminal(afw, "session", "show", "talk", "--full")
    assert whole.count("line 39.") == 2
    assert "more lines" not in whole
    assert "--full" not in whole


def shown_on_terminal(afw: Afw, *arguments: str) -> str:
    """All that a command that ends by itself writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    shown = b""
    with afw.start(*arguments, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other side has gone
            while part := os.read(ours, 65536):
                shown += part
        assert process.wait() == 0, shown
    os.close(ours)
    return shown.decode()


def test_a_session_is_resumed(afw: Afw) -> None:
    assert_error(afw.json("session", "resume", code=1), "unknown_session")
    afw.ok("ask", "echo one", *ECHO, "--session", "it's mine", "--user", "ann")
    afw.ok("ask", "echo two", *ECHO, "--session", "other", "--user", "bob")
    assert afw.json("session", "resume")["session"]["id"] == "other"
    assert afw.json("session", "resume", "--user", "ann")["session"]["id"] == "it's mine"
    done = afw.ok("session", "resume", "it's mine")
    assert "You said: echo one" in done.out
    assert "afw ask --session 'it'\"'\"'s mine'" in done.err
    assert afw.json("ask", "and now?", "--continue", "--user", "ann")["session_id"] == "it's mine"


def test_sessions_are_renamed_and_tagged(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO, "--session", "talk")
    assert afw.json("session", "rename", "talk", "A good  title")["title"] == "A good title"
    assert "A good title" in afw.ok("session", "rename", "talk", "A good title").out
    assert afw.json("session", "rename", "talk")["title"] == "echo one"
    assert afw.json("session", "tag", "talk", "ops", "urgent")["tags"] == ["ops", "urgent"]
    assert "tags ops" in afw.ok("session", "tag", "talk", "--remove", "urgent").out
    assert [s["id"] for s in afw.json("session", "list", "--tag", "ops")["sessions"]] == ["talk"]
    assert afw.json("session", "list", "--tag", "urgent")["sessions"] == []
    assert_error(afw.json("session", "tag", "talk", code=2), "invalid_input")
    assert_error(afw.json("session", "rename", "talk", " ", code=2), "invalid_input")
    assert_error(afw.json("session", "rename", "nobody", "x", code=1), "unknown_session")


def test_sessions_are_linked_and_exported(afw: Afw) -> None:
    for session in ("one", "two"):
        afw.ok("ask", f"How does Keycloak rotate certificates of realm {session}?", *ECHO, "--session", session)
    linked = afw.json("session", "link", "one", "two")
    assert [(link["session_id"], link["how"]) for link in linked["links"]] == [("two", "set")]
    assert "linked with one" in afw.ok("session", "show", "two").out
    assert_error(afw.json("session", "link", "one", "one", code=2), "invalid_input")
    assert_error(afw.json("session", "link", "one", "nobody", code=1), "unknown_session")
    assert afw.json("session", "unlink", "two", "one")["links"] == []
    found = afw.json("session", "links", "one")["links"]
    assert [(link["session_id"], link["how"]) for link in found] == [("two", "found")]
    assert "keycloak" in found[0]["words"]
    text = afw.ok("session", "export", "one").out
    assert text.startswith("# How does Keycloak rotate certificates of realm one?\n")
    assert "> You said: How does Keycloak rotate certificates of realm one?" in text
    assert afw.json("session", "export", "one")["format"] == "agentic-flywheel thread"
    afw.ok("session", "export", "one", str(afw.work / "one.md"))
    assert (afw.work / "one.md").read_text().startswith("# How does Keycloak")
    afw.ok("session", "export", "one", "one.json")
    assert json.loads((afw.work / "one.json").read_text())["format"] == "agentic-flywheel thread"


def test_a_session_is_deleted_only_with_yes(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO, "--session", "talk", "--private")
    shown = afw.json("session", "delete", "talk", code=1)
    assert (shown["dry_run"], shown["removed"]["turns"]) == (True, 1)
    human = afw.run("session", "delete", "talk")
    assert human.code == 1
    assert "would remove 1 session, 1 turn, 1 entry" in human.out
    assert "--yes" in human.err
    assert afw.json("session", "delete", "talk", "--dry-run")["dry_run"] is True
    assert len(afw.json("session", "show", "talk")["turns"]) == 1
    done = afw.ok("session", "delete", "talk", "--yes")
    assert "  removed 1 session, 1 turn, 1 entry" in done.out
    assert_error(afw.json("session", "show", "talk", code=1), "unknown_session")
    assert_error(afw.json("session", "delete", "talk", "--yes", code=1), "unknown_session")


def test_one_turn_of_a_session_is_deleted_only_with_yes(afw: Afw) -> None:
    turns = [afw.json("ask", f"echo {word}", *ECHO, "--session", "talk")["turn_id"] for word in ("kept", "gone")]
    assert afw.json("session", "delete", "talk", "--turn", turns[1], code=1)["removed"]["turns"] == 1
    assert len(afw.json("session", "show", "talk")["turns"]) == 2
    assert "removed 1 turn" in afw.ok("session", "delete", "talk", "--turn", turns[1], "--yes").out
    assert [turn["id"] for turn in afw.json("session", "show", "talk")["turns"]] == turns[:1]
    assert_error(afw.json("session", "delete", "talk", "--turn", turns[1], "--yes", code=1), "unknown_turn")


def test_old_sessions_are_swept(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO, "--session", "talk")
    kept = afw.json("session", "sweep", "--yes")
    assert (kept["dry_run"], kept["removed"]["sessions"]) == (False, 0)
    off = afw.json("session", "sweep", "--dry-run", AFW_SESSION_RETENTION_DAYS="0")
    assert off["removed"]["sessions"] == 0
    assert afw.run("session", "sweep").code == 1
    assert len(afw.json("session", "list")["sessions"]) == 1


def test_figures(afw: Afw) -> None:
    afw.ok("ask", "echo one", *ECHO)
    afw.ok("ask", "echo one", *ECHO)
    figures = afw.json("cache", "stats", "--flow", "echo")
    assert figures["total"]["outcomes"]["hit"] == 1
    assert figures["total"]["outcomes"]["miss"] == 1
    assert figures["total"]["hit_rate"] == 0.5
    assert figures["flows"][0]["entries"] == 1
    human = afw.ok("cache", "stats")
    assert human.out.splitlines()[1].split()[:3] == ["echo", "2", "50%"]
    assert "Over the last 7 days." in human.err
    assert_error(afw.json("cache", "stats", "--flow", "nix", code=1), "unknown_flow")
    assert_error(afw.json("cache", "stats", "--days", "91", code=2), "invalid_input")


def test_stored_answers_are_listed_and_shown(afw: Afw) -> None:
    assert "Nothing is stored" in afw.ok("cache", "list").err
    asked = afw.json("ask", "Echo one?", *ECHO, "--user", "ann")
    listed = afw.json("cache", "list")
    assert [stored["key"] for stored in listed["answers"]] == [asked["key"]]
    stored = listed["answers"][0]
    assert (stored["entry"]["asked"], stored["entry"]["answer"]) == ("Echo one?", "You said: Echo one?")
    assert (stored["servable"], stored["verdict"]) == (True, "exact")
    assert asked["key"] in afw.ok("cache", "list", "--flow", "echo").out
    shown = afw.json("cache", "show", asked["key"])
    assert shown["entry"]["trace_id"] == asked["trace_id"]
    human = afw.ok("cache", "show", asked["key"]).out
    for word in (asked["key"], "Echo one?", "You said: Echo one?", "served now", "ann", asked["trace_id"]):
        assert word in human
    assert_error(afw.json("cache", "show", "nothing", code=1), "unknown_key")


def test_the_key_of_a_question_can_be_known_beforehand(afw: Afw) -> None:
    key = afw.ok("cache", "key", "echo one", *ECHO).out.strip()
    assert afw.json("cache", "key", " ECHO one. ", *ECHO) == {"key": key}
    assert afw.json("ask", "echo one", *ECHO)["key"] == key
    assert afw.json("cache", "key", "echo one", *ECHO, "--session", "new", "--standalone")["key"] == key


@pytest.mark.parametrize("target", ["flow", "key", "session", "user", "all"])
def test_answers_are_cleared_only_with_yes(afw: Afw, target: str) -> None:
    asked = afw.json("ask", "echo one", *ECHO, "--session", "talk", "--user", "ann")
    named = {
        "flow": ("--flow", "echo"),
        "key": ("--key", asked["key"]),
        "session": ("--session", "talk"),
        "user": ("--user", "ann"),
        "all": ("--all",),
    }[target]
    shown = afw.json("cache", "clear", *named, code=1)
    assert (shown["dry_run"], shown["unreachable"]) == (True, 1)
    refused = afw.run("cache", "clear", *named)
    assert refused.code == 1
    assert "would remove 1 entry" in refused.out
    assert afw.json("ask", "echo one", *ECHO)["outcome"] == "hit"
    assert afw.json("cache", "clear", *named, "--yes")["dry_run"] is False
    assert afw.json("ask", "echo one", *ECHO)["outcome"] == "miss"
    assert len(afw.json("session", "show", "talk")["turns"]) == 1


@pytest.mark.parametrize("named", [(), ("--all", "--flow", "echo"), ("--flow", "echo", "--key", "x")])
def test_clearing_needs_exactly_one_target(afw: Afw, named: tuple[str, ...]) -> None:
    error = afw.json("cache", "clear", *named, "--yes", code=2)
    assert_error(error, "invalid_input")
    assert "exactly one" in error["error"]


def test_a_lifetime_that_cannot_be_is_refused_by_its_command(afw: Afw) -> None:
    assert "from 1 second to 3650 days, not 0 s" in afw.run("ttl", "set", "echo", "0d").err
    refused = afw.run("ttl", "set", "echo", "99999d").err
    assert "is longer than 36500 days" in refused
    assert "`afw ttl set --help`" in refused


def test_lifetimes_are_shown_set_and_reset(afw: Afw) -> None:
    rows = {row["name"]: row for row in afw.json("ttl", "show")["lifetimes"]}
    assert {name: row["ttl_seconds"] for name, row in rows.items() if row["kind"] == "type"} == {
        "technical": 7 * 86400,
        "creative": 30 * 86400,
        "document": 3 * 86400,
    }
    assert rows["echo"]["ttl_seconds"] == 7 * 86400
    assert afw.json("ttl", "set", "technical", "36h")["ttl_seconds"] == 36 * 3600
    human = afw.ok("ttl", "show").out
    assert "technical  type  36 h" in human
    assert afw.json("ttl", "set", "echo", "90m")["ttl_seconds"] == 5400
    answer = afw.json("ask", "echo one", *ECHO)
    assert 0.9 * 5400 < answer["ttl_seconds"] < 1.1 * 5400
    assert "36 h" in afw.ok("ttl", "reset", "echo").out
    assert afw.json("ttl", "reset", "technical")["ttl_seconds"] == 7 * 86400
    assert_error(afw.json("ttl", "set", "echo", "7x", code=2), "invalid_input")
    assert_error(afw.json("ttl", "set", "echo", "0", code=2), "invalid_input")
    assert_error(afw.json("ttl", "set", "ecko", "7d", code=1), "unknown_flow")

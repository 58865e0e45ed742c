"""`afw ask`, and what holds for every command: output, exit codes, errors, start-up."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server, free_port, wait_until

ANSWER_FIELDS = {
    "text", "flow", "flow_id", "flow_name", "session_id", "turn_id", "trace_id", "outcome", "reason", "key",
    "age_seconds", "ttl_seconds", "fingerprint", "origin_trace_id", "elapsed_ms", "question", "sources", "context",
}  # fmt: skip


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_a_question_is_answered_and_answered_again_from_memory(afw: Afw) -> None:
    first = afw.ok("ask", "echo one", "--flow", "echo")
    assert first.out == "You said: echo one\n"
    assert first.err.startswith("miss · not stored · echo · ")
    assert " · session s-" in first.err
    second = afw.ok("ask", "  Echo   ONE? ", "--flow", "echo")
    assert second.out == "You said: echo one\n"
    assert second.err.startswith("hit · exact · ")
    assert afw.asked() == ["echo one"]


def test_json_tells_the_whole_provenance(afw: Afw) -> None:
    miss = afw.json("ask", "echo one", "--flow", "echo", "--user", "ann")
    assert set(miss) >= ANSWER_FIELDS
    assert (miss["outcome"], miss["reason"], miss["flow"]) == ("miss", "not_stored", "echo")
    assert miss["text"] == "You said: echo one"
    assert miss["age_seconds"] == 0
    assert miss["remembered"] is True
    assert miss["origin_trace_id"] == miss["trace_id"]
    hit = afw.json("ask", "echo one", "--flow", "echo", "--user", "bob")
    assert (hit["outcome"], hit["reason"], hit["key"]) == ("hit", "exact", miss["key"])
    assert hit["origin_trace_id"] == miss["trace_id"] != hit["trace_id"]
    assert hit["age_seconds"] > 0
    assert 0.9 * 7 * 86400 < hit["ttl_seconds"] < 1.1 * 7 * 86400
    assert hit["session_id"] != miss["session_id"]


def test_the_packaged_documents_are_answered_with_sources(afw: Afw) -> None:
    afw.registry.unlink()
    answer = afw.json("ask", "How long do cached answers stay good?")
    assert answer["flow"] == "documents"
    assert answer["sources"]
    assert answer["sources"][0]["title"]
    human = afw.ok("ask", "How long do cached answers stay good?")
    assert f"[1] {answer['sources'][0]['title'][:20]}" in human.err
    assert f" · {answer['sources'][0]['uri']}\n" in human.err
    assert human.err.splitlines()[-1].startswith("hit · exact · ")


def test_the_question_may_come_from_stdin(afw: Afw) -> None:
    assert afw.ok("ask", "-", "--flow", "echo", stdin="écho\n").out == "You said: écho\n"
    refused = afw.run("ask", "-", stdin=b"\xff\xfe")
    assert refused.code == 2
    assert "not UTF-8" in refused.err


def test_a_follow_up_goes_with_its_session(afw: Afw) -> None:
    first = afw.json("ask", "echo first", "--flow", "echo", "--session", "talk")
    follow = afw.json("ask", "and then?", "--continue")
    assert (first["session_id"], follow["session_id"], follow["flow"]) == ("talk", "talk", "echo")
    assert follow["context"] == [first["turn_id"]]
    shown = afw.ok("ask", "and after that?", "--session", "talk", "--explain").err
    assert "with 2 earlier turns" in shown
    line = f"newest: turn {first['turn_id']}\n                 echo first\n"
    assert line in shown, "what an earlier turn asked is said with it"
    assert line in afw.ok("explain", "and after all?", "--session", "talk").out


def test_explain_shows_the_decision(afw: Afw) -> None:
    afw.ok("ask", "repeat this", "--flow", "echo")
    done = afw.ok("ask", "repeat this", "--flow", "echo", "--explain")
    key = afw.ok("cache", "key", "repeat this", "--flow", "echo").out.strip()
    assert key.startswith("afw:v1:default:")
    for word in ("route", "as named", "decision", "hit: exact", key, "lifetime", "left", "trace", "computed in"):
        assert word in done.err, word
    assert "just now old" not in done.err
    assert done.out == "You said: repeat this\n"


def test_a_question_is_routed_by_its_words_and_by_intent(afw: Afw) -> None:
    assert afw.json("ask", "please repeat after me")["route"]["flow"] == "echo"
    routed = afw.json("ask", "good morning", "--intent", "echo")
    assert (routed["flow"], routed["route"]["how"]) == ("echo", "intent")


def test_directives(afw: Afw) -> None:
    echo = ("--flow", "echo")
    nothing = afw.json("ask", "quiet", *echo, "--no-store")
    assert nothing["key"] is None
    assert afw.json("session", "list")["sessions"] == []
    missing = afw.json("ask", "quiet", *echo, "--only-if-cached", code=1)
    assert_error(missing, "not_cached")
    afw.ok("ask", "quiet", *echo)
    assert afw.json("ask", "quiet", *echo, "--only-if-cached")["outcome"] == "hit"
    assert afw.json("ask", "quiet", *echo, "--max-age", "1h")["outcome"] == "hit"
    assert afw.json("ask", "quiet", *echo, "--max-age", "0s")["outcome"] == "miss"
    assert afw.json("ask", "quiet", *echo, "--no-cache")["reason"] == "no_cache"
    private = afw.json("ask", "secret", *echo, "--private", "--session", "mine")
    assert ":session:" in private["key"]
    assert afw.json("ask", "secret", *echo)["outcome"] == "miss"
    alone = afw.json("ask", "quiet", *echo, "--session", "mine", "--standalone")
    assert (alone["outcome"], alone["context"]) == ("hit", [])
    assert afw.json("ask", "quiet", *echo, "--max-stale", "1d")["outcome"] == "hit"


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "says"),
    [
        (["ask", "q", "--flow", "ecko"], 1, "unknown_flow", "did you mean 'echo'"),
        (["ask", " "], 2, "invalid_question", ""),
        (["ask", "q" * 16001], 2, "invalid_question", "16000"),
        (["ask", "q", "--session", "a\nb"], 2, "invalid_id", ""),
        (["ask", "q", "--max-age", "soon"], 2, "invalid_input", "accepted: 7d"),
        (["ask", "q", "--session", "x", "--continue"], 2, "invalid_input", "exclude each other"),
        (["ask", "q", "--continue"], 1, "unknown_session", ""),
        (["ask"], 2, "invalid_input", "Missing argument 'QUESTION'"),
        (["ask", "q", "--flwo", "echo"], 2, "invalid_input", "--flow"),
        (["aks", "q"], 2, "invalid_input", "`afw ask`"),
        (["session", "lst"], 2, "invalid_input", "`afw session list`"),
        (["ask", "please fail", "--flow", "echo"], 2, "flow_unavailable", ""),
        (["ask", "q", "--redis-url", "http://x"], 2, "invalid_setting", "scheme"),
        (["ask", "q", "--registry", "/nowhere.yaml"], 2, "invalid_registry", "/nowhere.yaml"),
    ],
)
def test_bad_input_is_refused_the_same_way_everywhere(
    afw: Afw, arguments: list[str], code: int, kind: str, says: str
) -> None:
    error = afw.json(*arguments, code=code)
    assert_error(error, kind)
    assert says in error["error"]
    human = afw.run(*arguments)
    assert (human.code, human.out) == (code, "")
    assert says in human.err
    assert "Traceback" not in human.err


def test_an_error_in_the_environment_names_it(afw: Afw) -> None:
    error = afw.json("ask", "q", code=2, AFW_TENNANT="x")
    assert_error(error, "invalid_setting")
    assert "AFW_TENANT" in error["error"]


def test_a_broken_registry_names_file_and_line(afw: Afw) -> None:
    afw.registry.write_text("flows:\n  echo:\n    kind: pyton\n    callable: a:b\n")
    error = afw.json("ask", "q", code=2)
    assert_error(error, "invalid_registry")
    assert f"{afw.registry}:3" in error["error"]


def test_without_redis_the_flow_still_answers(afw: Afw) -> None:
    url = f"redis://:hidden@127.0.0.1:{free_port()}"
    done = afw.ok("ask", "echo one", "--flow", "echo", "--redis-url", url)
    assert done.out == "You said: echo one\n"
    assert "warning: " in done.err
    assert "hidden" not in done.err
    answer = afw.json("ask", "echo one", "--flow", "echo", "--redis-url", url)
    assert (answer["outcome"], answer["remembered"], answer["key"]) == ("bypass", True, None)
    assert "This turn waits in the local outbox until Redis is back." in answer["warnings"]
    assert len(afw.json("session", "list", "--redis-url", url)["sessions"]) == 2
    unavailable = afw.json("cache", "stats", "--redis-url", url, code=2)
    assert_error(unavailable, "store_unavailable")
    assert "hidden" not in json.dumps(unavailable)


def test_tenants_do_not_meet(afw: Afw) -> None:
    afw.ok("ask", "echo one", "--flow", "echo")
    assert afw.json("--tenant", "other", "ask", "echo one", "--flow", "echo")["outcome"] == "miss"
    assert afw.json("ask", "echo one", "--flow", "echo", "--tenant", "other")["outcome"] == "hit"


def _on_terminal(afw: Afw, *arguments: str, **environ: str) -> bytes:
    """What the command writes when stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        afw.command(*arguments),
        cwd=afw.work,
        env={**afw.environ, **environ},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the last writer has gone
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert started.wait(60) == 0, written
    return written


def test_colour_only_on_a_terminal_that_wants_it(afw: Afw) -> None:
    echo = ("ask", "echo one", "--flow", "echo")
    assert "\x1b" not in "".join(afw.ok(*echo)[1:])
    assert b"\x1b[" in _on_terminal(afw, *echo, TERM="xterm")
    assert b"\x1b" not in _on_terminal(afw, *echo, TERM="xterm", NO_COLOR="1")
    assert b"\x1b" not in _on_terminal(afw, *echo, TERM="dumb")


def test_an_answer_cannot_drive_the_terminal(afw: Afw) -> None:
    nasty = "echo \x1b]0;owned\x07 now"
    assert b"\x1b]0" not in _on_terminal(afw, "ask", nasty, "--flow", "echo", TERM="xterm")
    assert afw.ok("ask", nasty, "--flow", "echo").out == f"You said: {nasty}\n"  # a pipe gets every byte


def test_a_reader_that_goes_away_is_no_error(afw: Afw) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = afw.start("flow", "list", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 141
    assert b"Traceback" not in errors
    assert b"Exception" not in errors


def test_ctrl_c_ends_at_once_with_130(afw: Afw) -> None:
    running = afw.start("ask", "please hang", "--flow", "echo", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until((afw.home / "hanging").exists, "the flow to be asked")
        running.send_signal(signal.SIGINT)
        (afw.home / "release").touch()  # a thread of Python cannot be ended from outside
        out, errors = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert (running.returncode, out) == (130, b"")
    assert b"Traceback" not in errors


def test_the_table_of_commands_is_true() -> None:
    import click

    from agentic_flywheel.interfaces.cli.commands import COMMANDS, afw

    context = click.Context(afw)
    for name, late in COMMANDS.items():
        command = afw.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert late.help.endswith(".")

"""`afw warm` in processes of its own: files, reports, exit codes, Ctrl-C and going on."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server, wait_until

QUESTIONS = "echo the first thing\n# a remark\necho the second thing\nWhat about mobile?\n"


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    afw = Afw(tmp_path, valkey.url)
    (afw.work / "questions.txt").write_text(QUESTIONS)
    return afw


def test_a_file_is_warmed_shown_and_gone_on_with(afw: Afw) -> None:
    dry = afw.ok("warm", "questions.txt", "--dry-run", "--each")
    assert "due      echo the first thing  echo: it would be asked" in dry.out
    assert "3 questions: 2 would be asked, 1 refused" in dry.out
    assert afw.asked() == []
    left = afw.run("warm", "run", "questions.txt", "--budget-calls", "1", "--concurrency", "1")
    assert left.code == 1
    assert "left: the calls that were allowed are made" in left.out
    assert "3 questions: 1 stored, 1 refused, 1 left" in left.out
    assert "1 follow up" in left.out
    job = left.out.split()[0]
    assert f"afw warm --resume {job}  (with another budget)" in left.err
    done = afw.json("warm", "--resume", "last", "--budget-calls", "5", "--each")
    assert (done["job"], done["state"], done["stored"], done["asked"]) == (job, "done", 2, 2)
    assert {item["question"]: item["outcome"] for item in done["items"]} == {
        "echo the first thing": "stored",
        "echo the second thing": "stored",
        "What about mobile?": "refused",
    }
    assert sorted(afw.asked()) == ["echo the first thing", "echo the second thing"]
    shown = afw.json("warm", "show", job)
    assert (shown["stored"], shown["items"]) == (2, [])
    listed = afw.ok("warm", "show", "--list")
    assert job in listed.out
    assert afw.json("warm", "show", "--list")["warm_ups"][0]["job"] == job
    assert afw.json("ask", "Echo the first thing?", "--flow", "echo")["outcome"] == "hit"


def test_questions_come_from_stdin_with_their_path(afw: Afw) -> None:
    line = '{"question": "echo a path", "then": ["And what comes after it?"], "flow": "echo"}\n'
    report = afw.json("warm", "-", "--standalone", stdin=line)
    assert (report["stored"], report["sources"]) == (2, ["2 questions"])
    afw.ok("ask", "echo a path", "--flow", "echo", "--session", "s")
    assert afw.json("ask", "And what comes after it?", "--session", "s")["outcome"] == "hit"


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["nowhere.txt"], "invalid_input", 2),
        (["--resume", "w-nothing"], "unknown_warm_up", 1),
        (["show", "w-nothing"], "unknown_warm_up", 1),
        (["questions.txt", "--flow", "nowhere"], "unknown_flow", 1),
        (["questions.txt", "--budget-time", "soon"], "invalid_input", 2),
        (["questions.txt", "--resume", "last"], "invalid_input", 2),
        (["--resume", "last", "--flow", "echo"], "invalid_input", 2),
        (["questions.txt", "--follow-ups", "2"], "invalid_input", 2),
        (["--flow", "echo"], "invalid_input", 2),
    ],
)
def test_what_cannot_be_done_is_said(afw: Afw, arguments: list[str], kind: str, code: int) -> None:
    assert_error(afw.json("warm", *arguments, code=code), kind)
    assert afw.asked() == []


def test_nothing_is_begun_with_what_nobody_could_ask(afw: Afw) -> None:
    bytes_ = afw.run("warm", "-", "--json", stdin=b"What is this?\n\xff\xfe\x00")
    assert bytes_.code == 2
    assert_error(json.loads(bytes_.out), "invalid_input")
    assert "stdin is not UTF-8 text (byte 14)" in bytes_.out
    assert afw.json("warm", "show", "--list")["warm_ups"] == []


def test_what_failed_is_named_on_demand(afw: Afw) -> None:
    (afw.work / "strange.yaml").write_text("- {question: echo one}\n- {question: echo two, flow: ehco}\n")
    assert "Which:  the same with --each" in afw.run("warm", "strange.yaml", "--dry-run").err
    done = afw.run("warm", "strange.yaml")
    which = f"afw warm show {done.out.split()[0]} --each"
    assert (done.code, f"Which:  {which}" in done.err) == (1, True)
    assert "did you mean 'echo'?" in afw.ok(*which.split()[1:]).out


def test_without_redis_it_says_so_and_asks_nothing(afw: Afw) -> None:
    done = afw.run("warm", "questions.txt", "--redis-url", "redis://127.0.0.1:1")
    assert (done.code, "error" in done.err) == (2, True)
    assert afw.asked() == []


def test_ctrl_c_ends_with_the_report_and_the_way_on(afw: Afw) -> None:
    (afw.work / "questions.txt").write_text("echo the first thing\nplease hang\necho the third thing\n")
    ours, theirs = pty.openpty()
    running = afw.start(
        "warm", "questions.txt", "--flow", "echo", "--concurrency", "1", stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    try:
        wait_until((afw.home / "hanging").exists, "the flow to be asked")
        running.send_signal(signal.SIGINT)
        (afw.home / "release").touch()
        out, _ = running.communicate(timeout=60)
        terminal = os.read(ours, 65536).decode()
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert running.returncode == 130
    assert b"stopped" in out
    job = out.split()[0].decode()
    assert "1/3" in terminal
    assert f"afw warm --resume {job}" in terminal
    assert "another budget" not in terminal, "none was given"
    done = afw.json("warm", "--resume", job)
    assert (done["state"], done["stored"] + done["warm"]) == ("done", 3)
    assert sorted(set(afw.asked())) == ["echo the first thing", "echo the third thing", "please hang"]
    assert afw.asked().count("echo the first thing") == 1
    stopped = afw.json("warm", "stop", job)  # it does not run any more
    assert (stopped["state"], stopped["stopping"]) == ("done", False)

"""`afw chat`: a conversation over a pipe and over a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from afw_command import Afw, assert_error
from servers import Server, wait_until


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def test_every_line_is_a_question_of_one_session(afw: Afw) -> None:
    done = afw.ok("chat", "--flow", "echo", "--session", "talk", stdin="echo one\n\nand two?\n/explain\n/session\n")
    assert done.out.startswith("You said: echo one\n")
    assert len(done.out.split("You said: ")) >= 3
    assert "with 1 earlier turn" in done.err
    assert "decision" in done.err
    assert "\n                 echo one\n" in done.err.partition("context")[2], "what went along is told by its words"
    assert "talk · 2 turns" in done.err
    thread = afw.json("session", "show", "talk")
    assert [turn["question"] for turn in thread["turns"]] == ["echo one", "and two?"]


def test_json_gives_one_object_a_line(afw: Afw) -> None:
    done = afw.run("chat", "--flow", "echo", "--json", stdin="echo one\nplease fail\n/new\necho one\n")
    first, failed, again = (json.loads(line) for line in done.out.splitlines())
    assert first["outcome"] == "miss"
    assert_error(failed, "flow_unavailable")
    assert again["outcome"] == "hit"
    assert again["session_id"] != first["session_id"]
    assert done.code == 2


def test_the_newest_session_goes_on(afw: Afw) -> None:
    afw.ok("ask", "echo one", "--flow", "echo", "--session", "talk")
    afw.ok("chat", "--continue", stdin="and two?\n/quit\nnever asked\n")
    assert [t["question"] for t in afw.json("session", "show", "talk")["turns"]] == ["echo one", "and two?"]
    assert_error(afw.json("chat", "--continue", "--user", "nobody", code=1), "unknown_session")
    assert afw.run("chat", "--continue", "--session", "x").code == 2


def test_its_commands_explain_themselves(afw: Afw) -> None:
    done = afw.run("chat", stdin="/help\n/explain\n/session\n/nwe\n")
    assert done.code == 2
    for word in ("/session", "/explain", "/new", "/quit", "Nothing has been asked yet", "Did you mean /new?"):
        assert word in done.err
    assert done.out == ""


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, afw: Afw, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            afw.command(*arguments),
            cwd=afw.work,
            env={**afw.environ, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self.ours, False)

    def wait_for(self, text: str) -> None:
        """Read until `text` was shown, and forget what came up to it."""

        def shown() -> bool:
            with contextlib.suppress(OSError):  # nothing there yet, or the other side has gone
                self.seen += os.read(self.ours, 65536)
            return text.encode() in self.seen

        wait_until(shown, f"{text!r} on the terminal", 60)
        self.seen = self.seen.partition(text.encode())[2]

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def interrupt(self) -> None:
        """As Ctrl-C, once it waits for typing: readline does not see a signal that comes just before it waits."""
        main = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/stat")
        if main.exists():  # elsewhere than on Linux the moment is so short that it is never met
            wait_until(lambda: main.read_text().rpartition(")")[2].split()[0] == "S", "the prompt to wait for typing")
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for its end and return the exit code."""

        def ended() -> bool:
            with contextlib.suppress(OSError):  # nothing there yet, or the other side has gone
                os.read(self.ours, 65536)
            return self.process.poll() is not None

        wait_until(ended, "the conversation to end", 60)
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def talk(afw: Afw) -> Iterator[Terminal]:
    """`afw chat` on a terminal, in the session `talk`, waiting for the first line."""
    terminal = Terminal(afw, "chat", "--flow", "echo", "--session", "talk")
    try:
        terminal.wait_for("> ")
        yield terminal
    finally:
        terminal.close()


def test_a_conversation_on_a_terminal(afw: Afw, talk: Terminal) -> None:
    talk.type("echo one\n")
    talk.wait_for("You said: echo one")
    talk.wait_for("> ")
    talk.type("half a quest")
    talk.wait_for("half a quest")
    talk.interrupt()
    talk.wait_for("> ")
    talk.type("/session\n")
    talk.wait_for("talk · 1 turn")
    talk.wait_for("> ")
    talk.type("\x04")
    talk.wait_for("afw chat --session talk")
    assert talk.end() == 0


def test_a_question_that_takes_too_long_is_left_with_ctrl_c(afw: Afw, talk: Terminal) -> None:
    talk.type("please hang\n")
    wait_until((afw.home / "hanging").exists, "the flow to be asked")
    talk.process.send_signal(signal.SIGINT)
    talk.wait_for("Not waited for.")
    (afw.home / "release").touch()
    talk.wait_for("> ")
    talk.type("echo two\n")
    talk.wait_for("You said: echo two")
    talk.wait_for("> ")
    talk.type("/quit\n")
    assert talk.end() == 0
    # The flow went on, so what it said is kept too, whenever it came.
    assert {t["question"] for t in afw.json("session", "show", "talk")["turns"]} == {"echo two", "please hang"}

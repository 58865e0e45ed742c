"""The real command `afw` in a process and a home of its own, as tests run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

#: A flow of one Python function that tells how often it was asked, in the file `asked.txt` beside it.
FLOW_SOURCE = """
import time
from pathlib import Path

HERE = Path(__file__).parent


def answer(question):
    with (HERE / "asked.txt").open("a") as asked:
        asked.write(question.replace("\\n", " ") + "\\n")
    if "fail" in question:
        raise ValueError("the flow fell over")
    if "hang" in question:
        (HERE / "hanging").touch()
        while not (HERE / "release").exists():
            time.sleep(0.01)
    return "You said: " + question
"""

REGISTRY = """\
# Kept by people: this comment must survive every edit.
flows:
  documents:
    kind: documents
    folder: package:documentation
    name: Documentation
    type: document
    intent_keywords: [documentation, cache, session]
  echo:
    kind: python
    callable: afw_test_flow:answer
    name: Echo
    description: Says it again.
    type: technical
    intent_keywords: [echo, repeat]
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Afw:
    """`afw` with a home, a working directory and a Redis of its own; no variable of the caller's is passed on."""

    def __init__(self, home: Path, redis_url: str = "") -> None:
        self.home = home
        self.config = home / "config"
        self.data = home / "data"
        self.work = home / "work"
        for folder in (self.config, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.registry = self.config / "flow-registry.yaml"
        self.registry.write_text(REGISTRY)
        (home / "afw_test_flow.py").write_text(FLOW_SOURCE)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONPATH": str(home),
            "PYTHONWARNINGS": "error",
            "AFW_CONFIG_DIR": str(self.config),
            "AFW_DATA_DIR": str(self.data),
            "AFW_REDIS_COMMAND_TIMEOUT_SECONDS": "5",  # a busy test machine is not an outage
        }
        if redis_url:
            self.environ["AFW_REDIS_URL"] = redis_url

    def command(self, *arguments: str) -> list[str]:
        """What to start."""
        return [sys.executable, "-m", "agentic_flywheel.interfaces.cli.main", *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and leave it running; the caller waits for its end."""
        return subprocess.Popen(self.command(*arguments), cwd=self.work, env=self.environ, **options)

    def run(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Done:
        """Run it to its end."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=self.work,
            env={**self.environ, **environ},
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str, stdin: str | bytes = b"", **environ: str) -> Done:
        """Run it; it must end well."""
        done = self.run(*arguments, stdin=stdin, **environ)
        assert done.code == 0, done
        return done

    def json(self, *arguments: str, code: int = 0, stdin: str | bytes = b"", **environ: str) -> Any:
        """Run it with `--json`; it must end with `code` and print one JSON value and nothing else."""
        done = self.run(*arguments, "--json", stdin=stdin, **environ)
        assert done.code == code, done
        assert "\x1b" not in done.out
        return json.loads(done.out)

    def asked(self) -> list[str]:
        """The questions that reached the Python flow."""
        file = self.home / "asked.txt"
        return file.read_text().splitlines() if file.exists() else []


def assert_error(error: Any, kind: str) -> None:
    """`error` has the shape that every interface uses, and at least three things to do."""
    assert set(error) == {"error", "error_type", "details", "suggestions", "retry_after_seconds", "error_id"}
    assert error["error_type"] == kind
    assert len(error["suggestions"]) >= 3
    assert error["error_id"]

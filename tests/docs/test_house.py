"""What a newcomer runs: the lock files cover what is declared, and the demo holds what it claims."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from agentic_flywheel.settings import load_settings
from agentic_flywheel.store import watcher
from agentic_flywheel.store.embedded import EmbeddedServer
from pages import ROOT, read
from socket_watch import SocketWatch

PROJECT = tomllib.loads(read("pyproject.toml"))
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)


def _names(requirements: list[object]) -> set[str]:
    """The distributions named, groups that are included left out; `_`, `.` and `-` are one (PEP 503)."""
    named = [re.match(r"[A-Za-z0-9._-]+", text) for text in requirements if isinstance(text, str)]
    return {re.sub(r"[-_.]+", "-", found[0]).casefold() for found in named if found}


def _pins(lock: str) -> dict[str, str]:
    return {name: version for name, version, _ in _PINNED.findall(read(f"requirements/{lock}"))}


@pytest.mark.parametrize("lock", ["core.lock", "semantic.lock", "serve.lock", "dev.lock"])
def test_locks_are_hashed_and_name_no_index(lock: str) -> None:
    text = read(f"requirements/{lock}")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "\n--" not in text


def test_locks_cover_what_is_declared() -> None:
    groups = PROJECT["dependency-groups"]
    core = _names([*PROJECT["project"]["dependencies"], *groups["build"], *PROJECT["build-system"]["requires"]])
    extras = _names([name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra])
    assert core - set(_pins("core.lock")) == set()
    semantic = _names(PROJECT["project"]["optional-dependencies"]["semantic"])
    assert (core | semantic) - set(_pins("semantic.lock")) == set()
    serve = _names(PROJECT["project"]["optional-dependencies"]["serve"])
    assert (core | serve) - set(_pins("serve.lock")) == set()
    assert core | _names(groups["dev"]) | (extras - {PROJECT["project"]["name"]}) <= set(_pins("dev.lock"))


def test_locks_agree() -> None:
    dev = _pins("dev.lock")
    for lock in ("core.lock", "semantic.lock", "serve.lock"):
        assert {name: version for name, version in _pins(lock).items() if dev.get(name) != version} == {}


def test_all_extras_are_in_all() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    found = re.fullmatch(r"agentic-flywheel\[(.+)\]", extras["all"][0])
    assert found is not None
    assert sorted(found[1].split(",")) == sorted(set(extras) - {"all"})


def test_every_target_is_explained() -> None:
    makefile = read("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), f"make {target} is not explained"


def test_the_demo_holds_what_it_claims_leaves_nothing_and_calls_nobody(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    watch = SocketWatch(tmp_path_factory.mktemp("watch"))
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(tmp_path), "LANG": "C.UTF-8"}
    # A Redis of the user's must not be touched: this one is nobody, so using it would fail.
    environ |= {"AFW_REDIS_URL": "redis://127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        [watch.python, ROOT / "demo" / "demo.py"],
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "All 18 claims hold" in done.stdout
    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    place = re.search(r"\S+/afw-demo-\w+", done.stdout)
    assert place is not None
    settings = load_settings({"data_dir": f"{place[0]}/data"}, environ={}, directory=tmp_path)
    assert not EmbeddedServer(settings).socket.parent.exists()

    # Unix sockets alone, in every process: the demo, the commands that it runs, the server and its watcher.
    assert watch.abroad() == []
    assert {row["family"] for row in watch.seen("socket.")} == {"AF_UNIX"}
    assert len({row["pid"] for row in watch.seen("socket.connect")}) >= 5
    started = [row["what"] for row in watch.seen("subprocess.Popen")]
    servers = [one for one in started if one["configurations"]]
    assert len(servers) >= 2, "one at first, another after it was killed"
    assert all("port 0\n" in text and "\nbind" not in text for one in servers for text in one["configurations"])
    others = [one["words"] for one in started if one not in servers and one["words"][0] != str(watch.python)]
    assert {tuple(words[1:]) for words in others} <= {("--version",)}, others
    unwatched = [one["words"] for one in started if "-S" in one["words"]]
    assert {words[3] for words in unwatched} == {watcher.__file__}
    made = re.findall(r"socket\.socket\((.*?)\)", Path(watcher.__file__).read_text("utf-8"))
    assert made == ["socket.AF_UNIX"]


def test_the_watch_sees_what_would_go_abroad(tmp_path: Path) -> None:
    watch = SocketWatch(tmp_path)
    program = """
import contextlib, socket, subprocess, sys
for address in ("127.0.0.1", "0.0.0.0"):
    with socket.socket() as one:
        one.bind((address, 0))
with contextlib.suppress(OSError), socket.socket() as one:
    one.setblocking(False)
    one.connect(("127.0.0.2", 9))
child = "import socket; socket.getaddrinfo('localhost', 80); socket.getaddrinfo('127.0.0.1', 80)"
subprocess.run([sys.executable, "-c", child], env={}, check=True)
"""
    subprocess.run([watch.python, "-c", program], env={}, check=True, timeout=60)
    assert len(watch.seen("socket.")) == 5
    assert [(row["event"], row["what"]) for row in watch.abroad()] == [
        ("socket.bind", "0.0.0.0"),
        ("socket.getaddrinfo", "localhost"),
    ]
    assert len({row["pid"] for row in watch.seen("started")}) == 2

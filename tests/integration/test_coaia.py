"""`afw tash` and `afw fetch` beside the real `coaia` (coaiapy 0.6.2) on one Redis: values, lifetimes, words, codes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from afw_command import Afw, Done, assert_error
from servers import Server, free_port

pytestmark = pytest.mark.xdist_group("coaia")

COAIAPY = "coaiapy==0.6.2"
ENVIRONMENT = Path(__file__).parents[2] / ".cache" / "coaiapy-venv"
Coaia = Callable[..., Done]


def _installed() -> Path:
    """The real `coaia`, in an environment of its own that is made once; skips where it cannot be had."""
    program = ENVIRONMENT / "bin" / "coaia"
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "coaiapy-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if program.exists() and (ENVIRONMENT / "complete").exists():
            return program
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        install = [uv, "pip", "install", "--python"] if uv else [sys.executable, "-m", "pip", "--python"]
        try:
            venv.create(ENVIRONMENT, clear=True, with_pip=uv is None)
            python = str(ENVIRONMENT / "bin" / "python")
            command = [*install, python, COAIAPY] if uv else [*install, python, "install", "-q", COAIAPY]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            problem = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1:]
        except (OSError, subprocess.SubprocessError) as error:
            problem = str(error)
        if problem or not program.exists():
            if os.environ.get("CI") == "true":
                pytest.fail(f"{COAIAPY} cannot be installed: {problem}")
            pytest.skip(f"{COAIAPY} cannot be installed here: {problem}")
        (ENVIRONMENT / "complete").touch()
        return program


@pytest.fixture(scope="session")
def coaia_program() -> Path:
    return _installed()


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    """With the variable that coaia reads, so that both find the same server in the same way."""
    command = Afw(tmp_path)
    command.environ["REDIS_URL"] = valkey.tcp_url()
    return command


@pytest.fixture
def coaia(afw: Afw, coaia_program: Path) -> Coaia:
    def run(*arguments: str, redis_url: str = "") -> Done:
        environ = {name: afw.environ[name] for name in ("PATH", "HOME", "LANG", "REDIS_URL")}
        done = subprocess.run(
            [str(coaia_program), *arguments],
            capture_output=True,
            cwd=afw.work,
            env={**environ, **({"REDIS_URL": redis_url} if redis_url else {})},
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.mark.parametrize(
    "value", ["plain", "été — 東京 🙂", "two\nlines\n", '{"a": [1, 2]}', "  spaces  ", "-dash", "x" * 70000]
)
def test_values_go_both_ways(afw: Afw, coaia: Coaia, value: str) -> None:
    ours = afw.ok("tash", "note", "--", value)
    assert ours == Done(0, "Key: note  was just saved to memory.\n", "")
    theirs = coaia("fetch", "note")
    assert theirs == Done(0, value + "\n", "")
    assert afw.ok("fetch", "note") == theirs
    assert coaia("tash", "back", "--", value) == Done(0, "Key: back  was just saved to memory.\n", "")
    assert afw.ok("fetch", "back").out == value + "\n"


@pytest.mark.parametrize("minutes", [(), ("-T", "90"), ("--ttl", "1"), ("-T", "0"), ("-T", "-5")])
def test_lifetimes_agree(afw: Afw, coaia: Coaia, valkey: Server, minutes: tuple[str, ...]) -> None:
    afw.ok("tash", "ours", "v", *minutes)
    assert coaia("tash", "theirs", "v", *minutes).code == 0
    client = valkey.client()
    try:
        ours, theirs = client.ttl("ours"), client.ttl("theirs")
    finally:
        client.close()
    if minutes and int(minutes[1]) <= 0:
        assert (ours, theirs) == (-1, -1)
    else:
        expected = int(minutes[1] if minutes else "5555") * 60
        assert 0 <= expected - ours < 60
        assert 0 <= expected - theirs < 60


def test_files_go_both_ways(afw: Afw, coaia: Coaia) -> None:
    (afw.work / "in.txt").write_text("from a file\nétoile")
    both = ("tash", "note", "ignored", "-F", "in.txt")  # the file wins over the value
    assert afw.ok(*both).out == coaia(*both).out
    ours = afw.ok("fetch", "note", "-O", "ours.txt")
    theirs = coaia("fetch", "note", "-O", "theirs.txt")
    assert ours.out == theirs.out.replace("theirs", "ours") == "Key: note  fetched and saved to ours.txt\n"
    assert (
        (afw.work / "ours.txt").read_bytes() == (afw.work / "theirs.txt").read_bytes() == "from a file\nétoile".encode()
    )


def test_the_words_and_codes_of_failure_agree(afw: Afw, coaia: Coaia) -> None:
    ours, theirs = afw.run("fetch", "nothing"), coaia("fetch", "nothing")
    assert ours[:2] == theirs[:2] == (1, "Error: Key 'nothing' not found in Redis memory.\n")
    assert afw.run("fetch").code == coaia("fetch").code == 2
    for host in ("127.0.0.1", ":pw@localhost"):
        dead = f"redis://{host}:{free_port()}/0"
        gone, theirs = afw.run("fetch", "note", REDIS_URL=dead), coaia("fetch", "note", redis_url=dead)
        assert gone[:2] == theirs[:2]
        assert gone.out.startswith("Error: Redis connection failed - ")
        assert gone.code == 2


def test_a_key_of_another_type_is_refused_alike(afw: Afw, coaia: Coaia, valkey: Server) -> None:
    client = valkey.client()
    try:
        client.lpush("list", "x")
        client.expire("list", 60)
    finally:
        client.close()
    assert afw.run("fetch", "list").code == coaia("fetch", "list").code == 1
    assert afw.run("fetch", "list").out == ""


def test_a_stash_that_fails_says_so(afw: Afw) -> None:
    """Where coaia prints an error on stdout and ends with 0, and the caller believes that the value is kept."""
    dead = afw.run("tash", "note", "v", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert (dead.code, dead.out) == (2, "")
    assert "error: " in dead.err
    for arguments, says in (
        (("tash", "note"), "You must provide a value or use the --file flag"),
        (("tash", "note", ""), "You must provide a value or use the --file flag"),
        (("tash", "note", "-F", "nowhere.txt"), "File 'nowhere.txt' does not exist."),
        (("tash", "note", "v", "-T", "soon"), "not a valid integer"),
        (("tash", "note", "v", "-T", "9" * 30), "longer than Redis can count"),
        (("tash", "", "v"), "must not be empty"),
        (("tash", "afw:v1:default:flows", "v"), "belong to Agentic Flywheel"),
        (("fetch", ""), ""),
    ):
        refused = afw.run(*arguments)
        assert (refused.code, refused.out) == (2, ""), arguments
        assert says in refused.err
        assert "Traceback" not in refused.err
        assert_error(afw.json(*arguments, code=2), "invalid_input")


def test_bytes_survive(afw: Afw) -> None:
    raw = bytes(range(256)) * 3 + b"\n\n"
    (afw.work / "raw").write_bytes(raw)
    afw.ok("tash", "raw", "-F", "raw")
    afw.ok("fetch", "raw", "-O", "again")
    assert (afw.work / "again").read_bytes() == raw
    printed = subprocess.run(
        afw.command("fetch", "raw"), env=afw.environ, cwd=afw.work, capture_output=True, check=True
    )
    assert printed.stdout == raw + b"\n"
    assert set(afw.json("fetch", "raw")) == {"success", "key", "value_base64"}
    afw.ok("tash", "raw", "-", stdin=raw)
    afw.ok("fetch", "raw", "-O", "third")
    assert (afw.work / "third").read_bytes() == raw
    refused = afw.run("fetch", "raw", "-O", "no/such/folder")
    assert (refused.code, refused.out) == (2, "")


def test_json(afw: Afw) -> None:
    stored = afw.json("tash", "note", "été", "-T", "2")
    assert stored == {
        "success": True,
        "key": "note",
        "bytes": 5,
        "ttl_seconds": 120,
        "message": "Key: note  was just saved to memory.",
    }
    assert afw.json("tash", "note", "v", "-T", "0")["ttl_seconds"] is None
    assert afw.json("fetch", "note") == {"success": True, "key": "note", "value": "v"}
    assert afw.json("fetch", "note", "-O", "out") == {"success": True, "key": "note", "file": "out", "bytes": 1}
    assert_error(afw.json("fetch", "nothing", code=1), "unknown_key")
    dead = f"redis://127.0.0.1:{free_port()}"
    assert_error(afw.json("fetch", "note", code=2, REDIS_URL=dead), "store_unavailable")


def test_verbose_speaks_on_stderr(afw: Afw) -> None:
    stored = afw.ok("tash", "note", "v", "-v")
    assert (stored.out, stored.err) == ("Key: note  was just saved to memory.\n", "1 bytes, 5555 minutes\n")
    assert afw.ok("fetch", "note", "--verbose").out == "v\n"


def test_help_names_the_unit(afw: Afw) -> None:
    assert "minutes" in afw.ok("tash", "--help").out

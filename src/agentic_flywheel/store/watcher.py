"""Stops the embedded server when nobody has used it for a while. Runs as a process of its own, beside the server.

    python watcher.py SOCKET START_LOCK IDLE_SECONDS

Invariant: the server is never stopped while a client other than this one is connected, nor under the hands of a
process that is just arriving: whoever arrives pings the server while holding the start lock shared, and this process
looks a last time and stops the server while holding it exclusively. It ends when the server ends.

Uses the standard library alone, so that it starts quickly and stays small; the embedded server speaks to its child
through `Connection` too.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import time
from pathlib import Path


class ServerReply(Exception):
    """The server answered with an error; the message is its own."""


class Connection:
    """A connection that sends one command at a time and reads simple and bulk replies, which is all that is needed.

    Raises `OSError` (with `TimeoutError` and `ConnectionError`) where the server is not there, `ServerReply` where it
    refuses.
    """

    def __init__(self, path: str, timeout: float | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, *words: str) -> str:
        self._socket.sendall(" ".join(words).encode() + b"\r\n")  # an inline command: no word holds a space
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, text = line[:1], line[1:-2].decode("utf-8", "replace")
        if kind == b"-":
            raise ServerReply(text)
        if kind != b"$":
            return text
        body = self._stream.read(int(text) + 2)
        if len(body) != int(text) + 2:
            raise ConnectionResetError("the server closed the connection")
        return body[:-2].decode("utf-8", "replace")

    def facts(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        lines = (line.partition(":") for line in self.ask("INFO", section).splitlines())
        return {name: value for name, colon, value in lines if colon}


def use_of(server: Connection) -> tuple[int, str]:
    """How many others are connected, and a mark that moves when anybody connects."""
    return int(server.facts("clients")["connected_clients"]) - 1, server.facts("stats")["total_connections_received"]


def stop_if_unused(server: Connection, start_lock: Path, mark: str) -> None:
    """Stop the server, unless somebody is arriving or has been here since `mark`; `ConnectionError` when it is gone."""
    with start_lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody is arriving
        if use_of(server) == (0, mark):
            print(f"{time.strftime('%d %b %Y %H:%M:%S')} stopping: unused", file=sys.stderr, flush=True)
            server.ask("SHUTDOWN", "NOSAVE")  # the append-only file is flushed all the same


def watch(path: str, start_lock: Path, idle_seconds: float) -> None:
    """Look every few seconds until the server has ended, whoever ended it."""
    pause = min(5.0, max(0.05, idle_seconds / 4))
    with Connection(path) as server:
        others, mark = use_of(server)
        since = time.monotonic()
        while True:
            gone, _, _ = select.select([server], [], [], pause)
            if gone:
                return  # nothing is ever sent unasked: this is the end of the connection
            others, seen = use_of(server)
            if others or seen != mark:
                mark, since = seen, time.monotonic()
            elif time.monotonic() - since >= idle_seconds:
                try:
                    stop_if_unused(server, start_lock, mark)
                except ServerReply as refusal:  # it cannot flush, say: the disk is full; look again later
                    print(refusal, file=sys.stderr, flush=True)
                since = time.monotonic()


def main(arguments: list[str]) -> None:
    """Leave the process that started this one, so that it need not wait, and watch."""
    if os.fork():
        os._exit(0)
    path, start_lock, idle_seconds = arguments
    try:
        watch(path, Path(start_lock), float(idle_seconds))
    except OSError as error:
        if not isinstance(error, ConnectionError | FileNotFoundError):
            raise
        # The server ended, which is also what success looks like: SHUTDOWN has no reply.


if __name__ == "__main__":
    main(sys.argv[1:])

"""`afw serve` in a process of its own, on a real port, and clients of it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from afw_command import Afw
from servers import wait_until


class HttpServer:
    """A running `afw serve`: its address, its process, what it logs."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, log: Path) -> None:
        self.process = process
        self._out, self._log = out, log
        wait_until(lambda: process.poll() is not None or out.read_text().endswith("\n"), "the server to be ready", 120)
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}: {out.read_text()}{self.log}")
        self.said: dict[str, Any] = json.loads(out.read_text().splitlines()[0])
        self.url: str = self.said["url"]

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self._log.read_text()

    def client(self, key: str = "", **options: Any) -> httpx2.Client:
        """A client of it, with an API key where one is given; the caller closes it."""
        headers = {"X-API-Key": key} if key else {}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=120, **options)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Have it end, and give its exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def served(afw: Afw, *arguments: str) -> Iterator[HttpServer]:
    """A server that has ended when the block has; a free port unless told otherwise."""
    out, log = afw.home / "serve.out", afw.home / "serve.log"
    out.write_text("")
    with (
        out.open("wb") as stdout,
        log.open("ab") as stderr,
        afw.start("serve", "--port", "0", "--json", *arguments, stdout=stdout, stderr=stderr) as process,
    ):
        try:
            server = HttpServer(process, out, log)
            yield server
            if process.poll() is None:
                assert server.end() == 0, server.log
        finally:
            if process.poll() is None:
                process.kill()


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The response is a problem document of this kind (RFC 9457)."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert (found["status"], found["code"], found["type"]) == (status, code, f"/problems/{code}")
    assert found["title"]
    assert found["detail"]
    assert found["error_id"]
    assert found["request_id"] == response.headers["x-request-id"]
    return found

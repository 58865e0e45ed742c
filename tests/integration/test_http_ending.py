"""The service ends: under load, while draining, when a worker or the parent dies. What was answered is kept."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from afw_command import Afw, assert_error
from http_process import HttpServer, served
from servers import Server, wait_until


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def ask(client: httpx2.Client, question: str, **more: Any) -> httpx2.Response:
    message = {"role": "user", "content": question}
    return client.post("/v1/chat/completions", json={"model": "echo", "messages": [message], **more})


class Load:
    """Clients that ask one question after the other until nobody answers any more, and keep what was acknowledged."""

    def __init__(self, server: HttpServer, clients: int = 6) -> None:
        self.answered: list[str] = []
        self.torn: list[str] = []
        self._server = server
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with self._server.client() as client:
            for count in range(100_000):
                question = f"load {number} {count}"
                try:
                    response = ask(client, question)
                except httpx2.HTTPError:
                    return
                if response.status_code == 200:
                    assert response.json()["choices"][0]["message"]["content"] == f"You said: {question}"
                    self.answered.append(question)
                else:
                    self.torn.append(response.text)

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def remembered(afw: Afw) -> set[str]:
    """Every question that is in a session."""
    found: set[str] = set()
    file = afw.home / "all.afw"
    afw.ok("export", str(file), "--force") if file.exists() else afw.ok("export", str(file))
    for line in file.read_bytes().splitlines():
        record = json.loads(line)
        if record.get("kind") == "turn":
            found.add(record["value"]["question"])
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_turn_is_lost_when_it_ends_under_load(afw: Afw, workers: str) -> None:
    with served(afw, "--workers", workers) as server:
        load = Load(server)
        wait_until(lambda: len(load.answered) > 100, "the load to build up", 60)
        assert server.end() == 0, server.log
        load.wait()
    assert load.torn == []
    assert set(load.answered) - remembered(afw) == set()
    assert "Traceback" not in server.log
    assert "ERROR" not in server.log


def test_a_request_under_way_is_answered_though_it_ends(afw: Afw) -> None:
    answers: list[httpx2.Response] = []
    with served(afw) as server:
        thread = threading.Thread(target=lambda: answers.append(ask(server.client(), "please hang")))
        thread.start()
        wait_until((afw.home / "hanging").exists, "the flow to be asked", 60)
        server.process.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            try:
                with server.client() as client:
                    client.get("/healthz")
            except httpx2.HTTPError:
                return True
            return False

        wait_until(refuses, "no more connections to be accepted")
        assert server.process.poll() is None
        (afw.home / "release").touch()
        thread.join(60)
        assert server.process.wait(60) == 0
    assert answers[0].status_code == 200
    assert remembered(afw) == {"please hang"}


def test_it_says_that_it_is_not_ready_before_it_stops_accepting(afw: Afw) -> None:
    afw.environ["AFW_SERVE_DRAIN_SECONDS"] = "600"
    with served(afw) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/readyz").status_code == 503, "the service to be not ready")
        assert client.get("/readyz").json()["status"] == "closing"
        with server.client() as other:  # who has not heard yet is still served
            assert other.get("/healthz").status_code == 200
            assert ask(other, "still there?").status_code == 200
        assert server.end() == 0  # a second signal ends the drain
    assert remembered(afw) == {"still there?"}


def test_a_flow_that_hangs_does_not_hold_up_who_insists(afw: Afw) -> None:
    afw.environ["AFW_SERVE_GRACE_SECONDS"] = "600"
    with served(afw) as server:

        def ask_in_vain() -> None:
            with contextlib.suppress(httpx2.HTTPError):
                ask(server.client(), "please hang")

        thread = threading.Thread(target=ask_in_vain)
        thread.start()
        wait_until((afw.home / "hanging").exists, "the flow to be asked", 60)
        with server.client() as client:
            assert ask(client, "kept").status_code == 200
        try:
            for _ in range(3):  # end, do not drain, do not wait for requests
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: not _pending(server.process.pid), "the signal to be heard: two at once are one")
            assert server.process.wait(60) == 0
        finally:
            (afw.home / "release").touch()
            thread.join(60)
    assert "kept" in remembered(afw)


def test_a_worker_that_dies_is_replaced_and_its_counts_stay(afw: Afw) -> None:
    with served(afw, "--workers", "2") as server, server.client() as client:
        for number in range(10):
            assert ask(client, f"question {number}").status_code == 200
        for victim in server.said["workers"]:
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.log.count("ended with code -9") == 2, "the parent to see it", 60)

        def answers() -> bool:
            try:
                with server.client() as other:
                    return ask(other, "and now?").status_code == 200
            except httpx2.HTTPError:
                return False

        wait_until(answers, "other workers to serve", 120)
        with server.client() as other:
            figures = other.get("/metrics").text
        total = 'afw_answers_total{flow="echo",outcome="miss",reason="not_stored"} 11.0'
        assert total in figures


def test_workers_end_when_the_parent_is_gone(afw: Afw) -> None:
    with served(afw, "--workers", "2") as server:
        workers = server.said["workers"]
        server.process.kill()
        server.process.wait(20)
        for worker in workers:
            wait_until(lambda worker=worker: not _alive(worker), f"worker {worker} to end", 60)


def _pending(pid: int) -> bool:
    """Whether a signal waits to be delivered to a process; one that has ended has none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return any(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd")))


def _alive(pid: int) -> bool:
    """Whether a process that is not our child runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_workers_that_cannot_start_end_the_command(afw: Afw) -> None:
    (afw.home / "sitecustomize.py").write_text(
        "import sys\nif '--multiprocessing-fork' in sys.orig_argv: sys.exit(9)\n"
    )
    error = afw.json("serve", "--port", "0", "--workers", "2", code=2)
    assert_error(error, "service_failed")


def test_two_signals_of_a_terminal_reach_the_workers_once(afw: Afw) -> None:
    with served(afw, "--workers", "2") as server:
        for pid in [server.process.pid, *server.said["workers"]]:  # Ctrl-C reaches the whole group
            os.kill(pid, signal.SIGINT)
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.log
    assert "KeyboardInterrupt" not in server.log

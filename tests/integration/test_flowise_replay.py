"""The replaying Flowise itself: in a thread and as a process it behaves as in the test's own loop."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flowise_replay import FLOWS, KEY, ReplayFlowise

ROOT = Path(__file__).parents[2]


def call(url: str, body: Any = None, **headers: str) -> Any:
    sent = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, sent, headers), timeout=20) as reply:
        return json.loads(reply.read())


def test_it_serves_from_a_thread() -> None:
    with ReplayFlowise() as server:
        flow = FLOWS["llm"]
        first = call(f"{server.url}/api/v1/prediction/{flow}", {"question": "Hi", "chatId": "c"})
        assert first["text"] == "Answer 1 at temperature 0.5 after 0 messages: Hi"
        server.edit(flow, temperature=0.1)
        server.answer = lambda asked: f"{asked.temperature} {asked.call} {asked.body['chatId']}"
        assert call(f"{server.url}/api/v1/prediction/{flow}", {"question": "Hi", "chatId": "c"})["text"] == "0.1 2 c"
        assert [asked.question for asked in server.calls] == ["Hi", "Hi"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            call(f"{server.url}/api/v1/chatflows/{flow}")
        refused.value.close()
        assert refused.value.code == 401
        assert call(f"{server.url}/api/v1/chatflows/{flow}", authorization=f"Bearer {KEY}")["id"] == flow


def test_it_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "tests.flowise_replay", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, flow = process.stdout.readline().strip(), FLOWS["llm"]
            call(f"{url}/replay/edit", {"flow_id": flow, "inputs": {"temperature": 0.9}})
            assert "temperature 0.9" in call(f"{url}/api/v1/prediction/{flow}", {"question": "Hi"})["text"]
            assert [asked["flow_id"] for asked in call(f"{url}/replay/calls")] == [flow]
        finally:
            process.terminate()
            code = process.wait(timeout=20)
    assert code == 0

"""What the service says of itself: logs without anybody's words, metrics with bounded labels; and the demo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from afw_command import Afw
from http_process import served
from servers import Server

ROOT = Path(__file__).parents[2]
SECRET = "SECRETWORD"


@pytest.fixture
def afw(tmp_path: Path, valkey: Server) -> Afw:
    return Afw(tmp_path, valkey.url)


def ask(client: httpx2.Client, question: str, model: str = "echo", **more: Any) -> httpx2.Response:
    message = {"role": "user", "content": question}
    return client.post("/v1/chat/completions", json={"model": model, "messages": [message], **more})


def samples(client: httpx2.Client) -> dict[str, list[tuple[dict[str, str], float]]]:
    """All samples by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def trouble(client: httpx2.Client) -> None:
    """Everything that can go wrong with a question that nobody else may read."""
    ask(client, f"Which port has {SECRET}?")
    ask(client, f"Which port has {SECRET}?")
    ask(client, f"fail {SECRET}")
    assert SECRET in ask(client, f"fail {SECRET}", model="tells").text  # the asker is told, the log is not
    ask(client, f"stream {SECRET}", stream=True)
    ask(client, f"my {SECRET}", model=f"no-{SECRET}")
    client.get(f"/{SECRET}?q={SECRET}", headers={"X-Request-ID": "mine"})
    client.post("/v1/chat/completions", content=f"{{{SECRET}")
    client.get(f"/v1/models/{SECRET}")
    client.request(SECRET[:7], "/healthz")
    client.get("/whoami", headers={"Authorization": f"Bearer afw_{SECRET}"})


def test_logs_and_metrics_hold_nobodys_words(afw: Afw, valkey: Server) -> None:
    afw.environ["AFW_REDIS_COMMAND_TIMEOUT_SECONDS"] = "0.2"
    source = afw.home / "afw_test_flow.py"
    source.write_text(source.read_text() + "\n\ndef tells(question):\n    raise ValueError(question)\n")
    afw.registry.write_text(afw.registry.read_text() + "  tells: {kind: python, callable: 'afw_test_flow:tells'}\n")
    with served(afw, "--log-format", "json") as server, server.client() as client:
        trouble(client)
        valkey.pause()
        try:
            ask(client, f"away {SECRET}")
        finally:
            valkey.resume()
        metrics = client.get("/metrics").text
        assert 'afw_answers_total{flow="echo",outcome="hit",reason="exact"} 1.0' in metrics
        assert 'afw_failures_total{code="flow_' in metrics
        assert SECRET not in metrics
        assert server.end() == 0
    assert SECRET not in server.log
    entries = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in entries)
    assert len([entry for entry in entries if entry["logger"] == "agentic_flywheel.access"]) >= 11
    lost = next(entry for entry in entries if entry.get("request_id") == "mine")
    assert (lost["route"], lost["status"], lost["method"], lost["tenant"]) == ("none", 404, "GET", "default")


def test_metrics_are_those_of_all_workers_and_have_bounded_labels(afw: Afw) -> None:
    with served(afw, "--workers", "2") as server:
        for number in range(12):  # new connections, so that both come to answer
            with server.client() as client:
                assert ask(client, f"question {number % 4}").status_code == 200
        with server.client() as client:
            for _ in range(4):
                client.get("/nothing")
            found = samples(client)
    answers = {tuple(sorted(labels.items())): value for labels, value in found["afw_answers_total"]}
    assert sum(answers.values()) == 12
    assert answers[("flow", "echo"), ("outcome", "miss"), ("reason", "not_stored")] == 4
    counted = {labels["outcome"]: value for labels, value in found["afw_answer_seconds_count"]}
    assert sum(counted.values()) == 12
    requests = {(labels["route"], labels["status"]): value for labels, value in found["afw_http_requests_total"]}
    assert requests["/v1/chat/completions", "2xx"] == 12
    assert requests["none", "4xx"] == 4
    assert found["afw_redis_up"] == [({}, 1.0)]
    assert found["afw_http_requests_in_flight"] == [({}, 1.0)]  # this one
    labels = {name: set().union(*(pair[0] for pair in pairs)) for name, pairs in found.items()}
    bounded = {"flow", "outcome", "reason", "code", "route", "method", "status", "le", "state", "end"}
    assert set().union(*labels.values()) <= bounded | {"version", "python"}


def test_names_that_nobody_registered_are_no_labels_and_hostile_ones_stay_within_theirs(afw: Afw) -> None:
    hostile = 'x"} 7\nafw_forged_total{flow="y\\'
    text = afw.registry.read_text().replace("  echo:", f"  {json.dumps(hostile)}:", 1)
    afw.registry.write_text(text)
    with served(afw) as server, server.client() as client:
        assert ask(client, "one", model=hostile).status_code == 200
        before = samples(client)
        for number in range(200):
            name = f"{hostile}{number}"
            assert ask(client, "one", model=name).status_code == 404
            assert client.post("/api/v2/ask", json={"question": "one", "flow": name[:250]}).status_code == 404
            client.get(f"/{number}/nothing")
            client.request(f"M{number}", "/healthz")
        after = samples(client)
    assert "afw_forged_total" not in after
    flows = {labels["flow"] for pairs in after.values() for labels, _ in pairs if "flow" in labels}
    assert hostile in flows
    assert flows == {labels["flow"] for pairs in before.values() for labels, _ in pairs if "flow" in labels}
    series = {name: len(pairs) for name, pairs in after.items() if name.startswith("afw_http")}
    assert sum(series.values()) - sum(len(before.get(name, ())) for name in series) < 100
    assert sum(map(len, after.values())) < 3000


def test_one_process_tells_of_itself_too_and_every_metric_is_documented_and_shown(afw: Afw) -> None:
    with served(afw) as server, server.client() as client:
        ask(client, "one")
        ask(client, "fail")
        found = samples(client)
        plain = client.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain; version=")
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        assert client.get("/metrics", headers=wanted).text.endswith("# EOF\n")
    assert found["process_resident_memory_bytes"][0][1] > 1_000_000
    ours = {name for name in found if name.startswith("afw_")}
    page = (ROOT / "docs" / "server.md").read_text()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert {name for name in families if f"`{name}`" not in page} == set()
    declared = set(re.findall(r"^# TYPE (afw_\w+)", plain.text, re.MULTILINE))  # some count nothing yet
    assert set(re.findall(r"`(afw_[a-z_]+)`", page)) - families - declared - {"afw_key"} == set()
    for file in ("grafana/agentic-flywheel.json", "prometheus/alerts.yaml"):
        named = set(re.findall(r"\bafw_[a-z_]+", (ROOT / "ops" / file).read_text()))
        assert named - ours == set(), f"ops/{file} shows what there is not"
    shown = set(re.findall(r"\bafw_[a-z_]+", (ROOT / "ops/grafana/agentic-flywheel.json").read_text()))
    missing = families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert missing <= {"afw_ready", "afw_tenants_open"}


def test_the_demo_has_something_to_look_at_and_leaves_nothing(afw: Afw, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    afw.environ |= {
        "TMPDIR": str(temporary),
        "AFW_REDIS_URL": "redis://127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1",
    }
    with served(afw, "--demo") as server, server.client() as client:
        assert client.get("/readyz").json()["status"] == "ready"
        assert client.get("/whoami").json()["tenant"] == "demo"
        (folder,) = temporary.glob("afw-demo-*")
        again = ask(client, "How do I deploy to staging?", model="assistant")
        assert again.headers["x-afw-outcome"] == "hit"
        page = ask(client, "How long are answers kept?", model="documents")
        assert "7 days" in page.json()["choices"][0]["message"]["content"]
        socket = next(folder.rglob("redis.sock"), None)
        assert server.end() == 0
    assert list(temporary.iterdir()) == []
    assert socket is None or not socket.exists()
    assert not afw.data.exists()

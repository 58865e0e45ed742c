"""The benchmarks run: small, without looking at their times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


def _figures(script: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, BENCH / script, "--json", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_growth_is_measured_at_each_size() -> None:
    points = _figures("bench_growth.py", "--quick", "--samples", "5")
    assert [point["size"] for point in points] == [1_000, 10_000]
    for point in points:
        assert set(point["ratios"]) == {"hit", "append", "recall", "invalidate"}
        assert min(point["p50_us"].values()) > 0
    assert points[1]["used_bytes"] > points[0]["used_bytes"]


def test_the_weight_of_entries_and_turns_is_measured() -> None:
    figures = _figures("bench_footprint.py", "--answers", "200")
    entry = figures["weights"]["entry"]
    assert entry["redis"] > entry["value"] > 0
    by_name = {variant["name"]: variant["value"] for variant in figures["compression"]["entry"]}
    assert by_name["zstd 3"] < by_name["none"]
    assert figures["fields"]["entry"]["answer"] == pytest.approx(max(figures["fields"]["entry"].values()))


def test_what_an_outage_adds_is_measured() -> None:
    rows = _figures("bench_outage.py", "--seconds", "1")
    assert {(row["condition"], row["tasks"]) for row in rows} >= {("healthy", 1), ("hanging", 50), ("restarts", 50)}
    assert all(row["questions"] > 0 and row["not_kept"] == 0 for row in rows)
    assert all(0 <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["most_ms"] for row in rows)


def test_what_encryption_adds_is_measured() -> None:
    rows = _figures("bench_encryption.py", "--questions", "10", "--turns", "20")
    assert [row["arm"] for row in rows] == ["one-off", "fresh", "sixth", "search"]
    assert all(min(row["plain_ms"], row["sealed_ms"], row["plain_cpu_ms"], row["sealed_cpu_ms"]) > 0 for row in rows)


def test_what_counting_costs_is_measured() -> None:
    figures = _figures("bench_usage.py", "--days", "2")
    quiet, team, busy = figures["weights"]
    assert 0 < quiet["kept"] < team["kept"] < busy["kept"] < 5e6
    assert [cost["client_us"] > 0 for cost in figures["costs"]] == [True, True]
    assert len(figures["reads"]) == 7


def test_what_the_gate_of_the_service_costs_is_measured() -> None:
    figures = _figures("bench_gate.py", "--requests", "64")
    assert {"bare router", "gate", "gate, key", "gate, token"} <= set(figures)
    assert min(figures.values()) > 0


def test_what_counting_questions_costs_is_measured() -> None:
    figures = _figures("bench_popular.py", "--quick", "--hits", "100", "--days", "2")
    assert [hit["name"] for hit in figures["hits"]] == [
        f"{how}, {counted}" for how in ("one-off", "in a session") for counted in ("counted", "not counted")
    ]
    assert [(day["asked"], day["kept"]) for day in figures["days"]] == [(100, 100), (1000, 1000)]
    assert all(50 < day["bytes_each"] < 500 for day in figures["days"])


def test_the_service_is_measured_beside_a_bare_endpoint() -> None:
    options = ("--no-litellm", "--rounds", "1", "--seconds", "0.2", "--questions", "20", "--only", "near")
    bare, *ours = _figures("bench_service.py", *options)
    assert bare["many"]["share"] == 1.0
    assert {row["name"] for row in ours} >= {"Flowise proxy, near cache", "OpenAI proxy, near cache", "MCP, near cache"}
    assert all(row[many]["per_second"] > 0 and row[many]["p50_ms"] > 0 for row in ours for many in ("one", "many"))

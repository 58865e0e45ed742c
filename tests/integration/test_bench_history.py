"""The benchmark of history search, small: conversations made up here, through the real product, and its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "history"
_REMARKS = [
    ("Ann", "Good morning! How is the new flat?"),
    ("Bob", "We painted the kitchen green last week."),
    ("Ann", "Lovely. My sister bought a canoe."),
    ("Bob", "The landlord wants the lease signed by Friday."),
]
_CHAT = [
    ("user", "Which disk should the backup server have? ->-> 1,1", "A big one."),
    ("user", "My budget for the server is 900 euros.", "That is enough for two disks."),
]


def _locomo() -> Any:
    said = [{"speaker": who, "dia_id": f"D1:{number}", "text": text} for number, (who, text) in enumerate(_REMARKS, 1)]
    said[2]["blip_caption"] = "a boat on a lake"
    asked = [
        {"question": "Which colour has the kitchen?", "evidence": ["D1:2"], "category": 4},
        {"question": "What did Ann's sister buy?", "evidence": ["D1:3; D1:1"], "category": 1},
        {"question": "What is never answered?", "evidence": ["D1:4"], "category": 5},
        {"question": "What has no evidence?", "evidence": [], "category": 4},
    ]
    return [{"sample_id": "conv-1", "conversation": {"session_1": said, "session_1_date_time": "now"}, "qa": asked}]


def _beam(folder: Path) -> None:
    messages = [
        {"role": role, "content": text, "id": 2 * number + (role == "assistant")}
        for number, (_, question, answer) in enumerate(_CHAT)
        for role, text in (("user", question), ("assistant", answer))
    ]
    asked = {"multi": [{"question": "How much may the server cost?", "source_chat_ids": {"first": [2], "other": [3]}}]}
    folder.mkdir(parents=True)
    (folder / "chat.json").write_text(json.dumps([{"turns": [messages]}]))
    (folder / "probing_questions.json").write_text(json.dumps(asked))


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, "--data", data, "--cache", data / "vectors", "--jobs", "1", "--no-bm25s", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )


@pytest.mark.usefixtures("model")
def test_what_answers_a_question_is_found_in_its_conversation_and_in_all(tmp_path: Path) -> None:
    (tmp_path / "locomo_made_up.json").write_text(json.dumps(_locomo()))
    _beam(tmp_path / "beam" / "1")
    done = run(tmp_path, "--json", "--index", "local", "--only", "locomo,beam")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    found = {(one["set"], one["scope"]): one for one in figures["found"]}
    assert set(found) == {(name, scope) for name in ("locomo", "beam") for scope in ("conversation", "team")}
    assert [one["turns"] for one in found.values()] == [4, 4, 2, 2]
    locomo = found["locomo", "conversation"]
    assert set(locomo["ours"]["local"]) == {"words", "meaning", "both"}
    assert len(locomo["ours"]["local"]["both"]) == 2  # without the questions that nothing answers
    assert locomo["ours"]["local"]["words"][1] == [0.5, 0.5, 1.0, 1.0]  # "bought" is found by "buy"
    assert {"SQLite FTS5", "cosine of MiniLM", "FTS5 and MiniLM, by rank"} == set(locomo["others"])
    assert found["beam", "team"]["ours"]["local"]["both"] == [[1.0, 1.0, 1.0, 1.0]]
    assert "SQLite FTS5, question and answer" in found["beam", "team"]["others"]
    assert any("at least 57 / 66 %" in claim["text"] for claim in figures["claims"])


def test_the_speed_of_searches_is_measured() -> None:
    done = subprocess.run(
        [
            sys.executable,
            BENCH.parent / "bench_history_speed.py",
            "--quick",
            "--index",
            "local",
            "--samples",
            "3",
            "--json",
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)
    assert (point["index"], point["size"]) == ("local", 1000)
    kinds = {"words", "meaning", "both", "both, one flow", "both, one session", "both, last hours", "FTS5"}
    assert set(point["costs"]) == kinds
    assert all(0 < cost["p50"] <= cost["p95"] for cost in point["costs"].values())
    assert point["disk_mb"] > 0
    assert point["caught_up_per_second"] > 0


def test_without_conversations_nothing_is_measured(tmp_path: Path) -> None:
    done = run(tmp_path, "--check")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing measured" in done.stderr

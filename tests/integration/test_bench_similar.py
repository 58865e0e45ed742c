"""The benchmark of similar questions, small: questions made up here, through the real product, and its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "similar"
#: Wordings of one question, and one edit that makes another question of it.
QUESTIONS = [
    ("How do I reset the password of the router?", "reset"),
    ("How can I reset the password of the router?", "reset"),
    ("Which trains left the northern station in 2023?", "trains 2023"),
    ("Which trains left the northern station in 2024?", "trains 2024"),
    ("how do i reset the password of the router", "reset"),
    ("What does a day ticket for the museum cost?", "ticket"),
]


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, "--data", data, "--cache", data / "vectors", "--jobs", "1", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )


@pytest.mark.usefixtures("model")
def test_streams_are_asked_of_the_product_and_of_the_others(tmp_path: Path) -> None:
    lines = (json.dumps({"text": text, "answer_class": answer_class}) for text, answer_class in QUESTIONS)
    (tmp_path / "banking77_made_up.jsonl").write_text("\n".join(lines))
    done = run(tmp_path, "--json", "--order", "file", "--quick", "6")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["streams"]
    assert [runs["stream"]["name"] for runs in found] == ["banking77_made_up"]
    rows = {row["policy"]: row["outcomes"] for row in found[0]["rows"]}
    assert rows["exact only"] == "....x."
    assert rows["**strict**"] == ".s..x."
    assert rows["**learn, 1%**"] == "....x."  # six questions teach nothing
    static = next(outcomes for name, outcomes in rows.items() if name.startswith("cosine 0.8"))
    assert static == ".s.Sx."
    assert set(rows["vCache, 5% of requests"]) <= {".", "x"}


def test_without_question_sets_nothing_is_measured(tmp_path: Path) -> None:
    done = run(tmp_path, "--check")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing measured" in done.stderr

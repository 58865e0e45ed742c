"""The benchmark of a team's two days, small: questions made up here, through the real product, and its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "team_day.py"
#: Three wordings of three questions; the last one is about the asker's own things, whatever its words.
QUESTIONS = {
    "reset": ("How do I reset the router?", "How can I reset the router?", "What resets the router to its beginnings?"),
    "ticket": ("What does a day ticket cost?", "How much is a ticket for one day?", "Price of a day ticket?"),
    "mine": ("Where is my parcel?", "When will my parcel come?", "Has my parcel been sent?"),
}


def run(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--data", data, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("model")
def test_candidates_and_warming_are_measured_of_the_same_traffic(tmp_path: Path) -> None:
    lines = (json.dumps({"text": text, "answer_class": name}) for name, texts in QUESTIONS.items() for text in texts)
    (tmp_path / "banking77_made_up.jsonl").write_text("\n".join(lines))
    done = run(tmp_path, "--json", "--visits", "40", "--users", "4")
    assert done.returncode == 0, done.stderr
    exact, strict, faq = arms = json.loads(done.stdout)
    assert [arm["name"] for arm in arms] == ["exact only", "similar, strict", "similar, faq"]
    for arm in arms:
        days: dict[str, Any] = {name: arm[name] for name in ("first", "cold", "warm")}
        found = arm["found"]
        # what is about oneself is asked often, and is no candidate
        assert (found["truth"], found["all_truth"], found["of_all"]) == (2, 3, 2)
        assert (found["precision"], found["recall"], found["strangers"]) == (1.0, 1.0, 0)
        assert days["cold"]["asked"] == days["warm"]["asked"] > 40
        assert all(day["served"] + day["calls"] == day["asked"] for day in days.values())
        assert days["warm"]["calls"] < days["cold"]["calls"]
        assert 0 < arm["warm_used"] <= arm["warm_calls"]
    assert exact["cold"]["wrong"] == strict["cold"]["wrong"] == 0
    assert strict["found"]["again"] < exact["found"]["again"]  # wordings that were taken for each other are one
    assert faq["found"]["again"] <= strict["found"]["again"]


def test_without_question_sets_nothing_is_measured(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing measured" in done.stderr

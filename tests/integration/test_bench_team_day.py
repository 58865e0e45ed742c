"""The benchmark of a team's two days, small: questions made up here, through the real product, and its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
#: Three wordings of three questions; the last one is about the asker's own things, whatever its words.
QUESTIONS = {
    "reset": ("How do I reset the router?", "How can I reset the router?", "What resets the router to its beginnings?"),
    "ticket": ("What does a day ticket cost?", "How much is a ticket for one day?", "Price of a day ticket?"),
    "mine": ("Where is my parcel?", "When will my parcel come?", "Has my parcel been sent?"),
}


def run(data: Path, *arguments: str, script: str = "team_day.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH / script, "--data", data, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("model")
def test_candidates_and_warming_are_measured_of_the_same_traffic(tmp_path: Path) -> None:
    made_up(tmp_path)
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
    assert strict["first"]["served"] > exact["first"]["served"]  # some wordings were taken for each other
    assert faq["first"]["served"] >= strict["first"]["served"]


@pytest.mark.usefixtures("model")
def test_candidates_are_measured_in_every_way(tmp_path: Path) -> None:
    made_up(tmp_path)
    done = run(tmp_path, "--json", "--visits", "40", "--seeds", "1", script="bench_candidates.py")
    assert done.returncode == 0, done.stderr
    days = {(day["answers"], day["how"]): day for day in json.loads(done.stdout)}
    assert len(days) == 7
    assert {day["truth"] for day in days.values()} == {2}
    assert days["gone", "ungrouped"]["again"] > 0
    for answers in ("anew", "the same"):
        best = days[answers, "by vectors"]
        assert (best["found"], best["listed"], best["again"], best["strangers"]) == (2, 2, 0, 0)


def made_up(folder: Path) -> None:
    lines = (json.dumps({"text": text, "answer_class": name}) for name, texts in QUESTIONS.items() for text in texts)
    (folder / "banking77_made_up.jsonl").write_text("\n".join(lines))


def test_without_question_sets_nothing_is_measured(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing measured" in done.stderr

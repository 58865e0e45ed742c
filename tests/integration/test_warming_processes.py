"""Warm-ups in several processes: killed ones are gone on with, and no question is asked twice at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from askers import askers
from flywheels import opened
from servers import Server
from stages import Stage, eventually, flow

pytestmark = pytest.mark.anyio

QUESTIONS = [f"Question number {number}?" for number in range(6)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def asked(stage: Stage) -> Counter[str]:
    """How often the flow was asked each question."""
    file = stage.folder / "calls"
    return Counter(line.partition(" ")[2] for line in file.read_text().splitlines())


async def test_one_that_was_killed_is_gone_on_with(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 2) as (first, second):
        stage.hold_from(3)
        first.warm(QUESTIONS, job="w-killed", concurrency=1, refresh=True, budget={"calls": 6})
        await eventually(lambda: len(stage.calls) == 3 and len(first.heard) == 2, "two answers and one more call")
        under_way = (asked(stage) - Counter(question for _, question in first.heard)).popitem()[0]
        first.kill()
        await first.close()
        stage.release_all()
        (report,) = await second.warm([], resume="w-killed")
        # What was answered is not asked again, although fresh answers were to be had; the call that died counts.
        assert (report["asked"], report["stored"], report["left"], report["bound"]) == (6, 5, 1, "calls")
        assert "share" in report["warnings"][0]
        (report,) = await second.warm([], resume="w-killed", budget={"calls": 10})
    assert (report["asked"], report["stored"], report["state"]) == (7, 6, "done")
    assert asked(stage) == Counter(QUESTIONS) + Counter([under_way])


async def test_two_processes_ask_no_question_twice(valkey: Server, tmp_path: Path, stage: Stage) -> None:
    async with askers(valkey.url, tmp_path, 2) as processes:
        stage.hold()
        reports = [process.warm(QUESTIONS, concurrency=6) for process in processes]
        await eventually(lambda: len(stage.calls) == 6, "every question to be asked")
        stage.release()
        (one,), (two,) = [await report for report in reports]
        assert asked(stage) == Counter(QUESTIONS)
        assert one["asked"] + two["asked"] == one["stored"] + two["stored"] == 6
        assert one["stored"] + one["warm"] == two["stored"] + two["warm"] == 6

        others = [question.replace("number", "with number") for question in QUESTIONS]
        facts = {"job": "w-shared", "concurrency": 2, "budget": {"calls": 4}}
        for report in [process.warm(others, **facts) for process in processes]:
            await report
        async with opened(valkey, tmp_path, flow(tmp_path)) as flywheel:
            shown = await flywheel.warming.show("w-shared")
    assert (shown.asked, shown.stored, shown.left, shown.bound) == (4, 4, 2, "calls")
    assert asked(stage) - Counter(QUESTIONS) == Counter(item.question for item in shown.items)

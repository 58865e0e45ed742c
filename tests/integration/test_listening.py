"""Who listens to a flywheel is told of every question once, whichever way its answer came, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel.errors import FlowError, FlywheelError, NotCached, QuestionError
from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.model import Answer, Directives
from flywheels import Oracle, opened
from servers import Server

pytestmark = pytest.mark.anyio


class Ear:
    def __init__(self, *, breaks: bool = False) -> None:
        self.heard: list[str] = []
        self._breaks = breaks

    def answered(self, answer: Answer) -> None:
        self.heard.append(answer.outcome)
        if self._breaks:
            raise RuntimeError("a listener's own trouble")

    def failed(self, error: FlywheelError) -> None:
        self.heard.append(error.code)
        if self._breaks:
            raise RuntimeError("a listener's own trouble")


def falls_over(_question: FlowQuestion) -> str:
    raise ValueError("no")


async def ask_every_way(flywheel: Any) -> None:
    assert (await flywheel.ask("Which port?", flow="oracle")).text == "oracle 1: Which port?"
    for _ in range(3):  # stored, familiar, near at hand
        assert (await flywheel.ask("Which port?", flow="oracle")).text == "oracle 1: Which port?"
    events = [event async for event in flywheel.stream("Which port?", flow="oracle")]
    assert isinstance(events[-1], Answer)
    for question, given, error in (
        ("", {}, QuestionError),
        ("Which host?", {"directives": Directives(only_if_cached=True)}, NotCached),
        ("Which host?", {"flow": "broken"}, FlowError),
    ):
        with pytest.raises(error):
            await flywheel.ask(question, **{"flow": "oracle", **given})
        with pytest.raises(error):
            async for _ in flywheel.stream(question, **{"flow": "oracle", **given}):
                pass


EXPECTED = ["miss", *["hit"] * 4, *["invalid_question"] * 2, *["not_cached"] * 2, *["flow_unavailable"] * 2]


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("breaks", [False, True])
async def test_every_question_is_told_of_once(valkey: Server, tmp_path: Path, near: bool, breaks: bool) -> None:
    ear = Ear(breaks=breaks)
    flows = {"oracle": Oracle(), "broken": falls_over}
    async with opened(valkey, tmp_path, flows, given={"listener": ear}, near_enabled=near) as flywheel:
        await ask_every_way(flywheel)
    assert ear.heard == EXPECTED

"""What questions wait for a store that is away: one waits for all, the others one patience at most, then nobody.

Counted with a clock that stands still (see `frozen`), so it holds on every machine; `bench/bench_outage.py` measures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentic_flywheel import Answer, Flywheel, Reason
from agentic_flywheel.store.breaker import TIMEOUTS_TO_OPEN
from agentic_flywheel.store.link import QUESTION_SHARE
from agentic_flywheel.store.node import ELDEST_SECONDS
from campaign import DurableServer
from flywheels import opened
from frozen import FrozenLoop

COMMAND_SECONDS = 0.04
PATIENCE = COMMAND_SECONDS * QUESTION_SHARE
#: The clock does not stand perfectly still.
GRAIN = 1e-4
QUESTIONS = 10


async def flow(question: str) -> str:
    return f"answer to {question}"


async def asked(flywheel: Flywheel, number: int, session: str | None) -> tuple[float, Answer]:
    """How long a question waited, and its answer."""
    clock = asyncio.get_running_loop().time
    began = clock()
    answer = await flywheel.ask(f"What is number {number}?", flow="flow", session=session)
    return clock() - began, answer


def with_frozen_clock(test: Callable[[FrozenLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=FrozenLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, FrozenLoop)
        runner.run(test(loop))


@pytest.mark.parametrize("session", ["s", None])
@pytest.mark.parametrize("at_a_time", [1, 50])
@pytest.mark.parametrize("trouble", [DurableServer.pause, DurableServer.kill], ids=["hanging", "refused"])
def test_one_patience_and_then_none(
    durable: DurableServer, folder: Path, trouble: Callable[[DurableServer], None], at_a_time: int, session: str | None
) -> None:
    async def test(loop: FrozenLoop) -> None:
        settings = {"redis.command_timeout_seconds": COMMAND_SECONDS, "data_dir": str(folder / "data")}
        async with opened(durable, folder, {"flow": flow}, **settings) as flywheel:
            await asked(flywheel, 0, session)
            await flywheel.flush()
            trouble(durable)
            loop.freeze()
            waits: list[float] = []
            rounds: list[float] = []
            for round_ in range(QUESTIONS):
                numbers = range(1 + round_ * at_a_time, 1 + (round_ + 1) * at_a_time)
                ends = await asyncio.gather(*(asked(flywheel, number, session) for number in numbers))
                assert all(answer.reason is Reason.STORE_UNAVAILABLE for _, answer in ends)
                assert all(answer.remembered for _, answer in ends)
                waits += [wait for wait, _ in ends]
                rounds.append(max(wait for wait, _ in ends))
            eldest, *others = sorted(waits, reverse=True)
            assert eldest <= ELDEST_SECONDS + GRAIN
            assert others[0] <= PATIENCE + GRAIN
            assert sum(wait > GRAIN for wait in rounds) <= TIMEOUTS_TO_OPEN
            assert rounds[-1] <= GRAIN
            if trouble is DurableServer.pause:
                assert rounds[0] > GRAIN  # the clock does show what is waited for
            durable.kill()  # what hangs is not waited for at the end either

    with_frozen_clock(test)

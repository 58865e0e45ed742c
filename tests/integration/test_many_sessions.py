"""A thousand sessions at once: nobody gets another's answer, and every turn is there, in order.

The flow answers with a digest of the question and of all the context that it was given, so an answer that was computed
for somebody else's conversation cannot pass for one's own: what was served is compared with what the flow would have
said, worked out anew from the session's own turns. The questions are few, so that sessions cross at every step.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentic_flywheel import Flywheel, Outcome
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Exchange
from agentic_flywheel.settings import load_settings

if TYPE_CHECKING:
    from servers import Server

pytestmark = pytest.mark.anyio

SESSIONS = 1000
RECALLED = 5
IN_FLIGHT = 64
#: Asked first by somebody, these may serve a follow-up as well (the exception of docs/sharing.md) ...
STANDING_ALONE = (
    "How do I enable append-only persistence in Redis?",
    "Which eviction policy protects conversations from deletion?",
    "How are flow fingerprints computed after configuration changes?",
)
#: ... and these never.
LEANING = ("And what does that cost?", "Why?", "Is it on by default?", "What about a cluster?", "Can I see them?")


def digest(question: str, history: Sequence[Exchange]) -> str:
    """What the flow answers."""
    said = json.dumps([question, [(exchange.question, exchange.answer) for exchange in history]])
    return hashlib.blake2b(said.encode(), digest_size=12).hexdigest()


class Flow:
    """Answers with the digest, after others had their turn; counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, question: str, history: Sequence[Exchange]) -> str:
        self.calls += 1
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        return digest(question, history)


def session_of(number: int) -> str:
    return f"session {number}"


def questions_of(number: int) -> list[str]:
    """Three to seven questions of one session; the same in every process."""
    draw = random.Random(number)
    return draw.choices(STANDING_ALONE + LEANING, k=draw.randint(3, 7))


def open_flywheel(url: str, folder: Path, flow: Flow) -> Flywheel:
    settings = load_settings(
        {"redis_url": url, "redis.command_timeout_seconds": 10.0, "session.turns": RECALLED},
        environ={"AFW_CONFIG_DIR": str(folder)},
        directory=folder,
    )
    registry = Registry(settings)
    registry.register("digest", flow)
    return Flywheel.open(settings=settings, registry=registry)


async def check(flywheel: Flywheel, given: Mapping[int, Sequence[str]]) -> Counter[Outcome]:
    """Hold every session against what was asked in it, what was answered, and what the flow would have said."""
    outcomes: Counter[Outcome] = Counter()
    for number, answers in given.items():
        questions = questions_of(number)
        turns = (await flywheel.sessions.show(session_of(number))).turns
        assert [turn.question for turn in turns] == questions, f"the turns of {session_of(number)}"
        assert [turn.answer for turn in turns] == list(answers), f"the answers of {session_of(number)}"
        exchanges = [turn.exchange() for turn in turns]
        for index, turn in enumerate(turns):
            first = exchanges[:1] if index > RECALLED else []
            right = {digest(turn.question, [*first, *exchanges[max(0, index - RECALLED) : index]])}
            if turn.question in STANDING_ALONE:
                right.add(digest(turn.question, []))
            assert turn.answer in right, f"{session_of(number)}, turn {index}: another's answer was served: {turn}"
            assert turn.parent == (turns[index - 1].id if index else "")
            outcomes[turn.outcome] += 1
    return outcomes


async def test_in_one_process(valkey: Server, tmp_path: Path) -> None:
    flow, places = Flow(), asyncio.Semaphore(IN_FLIGHT)

    async with open_flywheel(valkey.url, tmp_path, flow) as flywheel:

        async def converse(number: int) -> list[str]:
            texts = []
            for question in questions_of(number):
                async with places:  # taken anew for each question, so that sessions take turns
                    answer = await flywheel.ask(question, session=session_of(number), flow="digest")
                assert answer.remembered, answer.warnings
                assert (answer.session_id, answer.question) == (session_of(number), question)
                texts.append(answer.text)
            return texts

        texts = await asyncio.gather(*(converse(number) for number in range(SESSIONS)))
        outcomes = await check(flywheel, dict(enumerate(texts)))

    assert set(outcomes) == {Outcome.HIT, Outcome.MISS, Outcome.JOINED}
    assert outcomes[Outcome.MISS] == flow.calls
    assert outcomes[Outcome.HIT] > SESSIONS


async def test_in_two_processes_that_hand_sessions_over(valkey: Server, tmp_path: Path) -> None:
    """Every session changes the process with every turn, so what a process remembers of it is always out of date."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *(__file__, valkey.url, str(tmp_path), str(share)),
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        for share in range(2)
    ]
    given: dict[int, list[str]] = {number: [] for number in range(SESSIONS)}
    try:
        async with asyncio.timeout(120):
            for step in range(max(len(questions_of(number)) for number in given)):
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write(f"{step}\n".encode())
                for process in processes:
                    assert process.stdout is not None
                    line = await process.stdout.readline()
                    assert line, "a process ended early; its error is on stderr"
                    for number, text in json.loads(line):
                        given[number].append(text)
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()  # the end of its input ends it
                await process.wait()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert [process.returncode for process in processes] == [0, 0]

    async with open_flywheel(valkey.url, tmp_path, Flow()) as flywheel:
        outcomes = await check(flywheel, given)
    assert set(outcomes) == {Outcome.HIT, Outcome.MISS, Outcome.JOINED}
    assert outcomes[Outcome.HIT] > SESSIONS


async def take_part(url: str, folder: Path, share: int) -> None:
    """One of two processes: for each step read from standard input, ask that question of its half of the sessions."""
    places = asyncio.Semaphore(IN_FLIGHT)
    async with open_flywheel(url, folder, Flow()) as flywheel:

        async def ask(number: int, question: str) -> tuple[int, str]:
            async with places:
                answer = await flywheel.ask(question, session=session_of(number), flow="digest")
            if not answer.remembered:
                raise RuntimeError(f"a turn was not kept: {answer.warnings}")
            return number, answer.text

        while line := await asyncio.to_thread(sys.stdin.readline):
            step = int(line)
            asked = [
                ask(number, questions_of(number)[step])
                for number in range(SESSIONS)
                if (number + step) % 2 == share and step < len(questions_of(number))
            ]
            print(json.dumps(await asyncio.gather(*asked)), flush=True)


if __name__ == "__main__":
    asyncio.run(take_part(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))

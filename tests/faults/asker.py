"""A process that asks: many conversations at once, each acknowledged turn written down before it goes on.

    python asker.py '{"name": ..., "ledger": ..., ...}'      see `Orders`

Its flow answers with a digest of the question and of all the context that it was given, and the moment at which it
did; so an answer that belongs to another question or another conversation cannot pass for the right one, and neither
can one past its lifetime. It asks until its standard input ends. On standard output it says one letter for each
turn: `r` acknowledged by Redis, `o` kept in the outbox, `n` not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel import Answer, Flywheel
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import Exchange
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.outbox import WAITS

TENANT = "faults"
#: Asked first by somebody, these may serve a follow-up as well (the exception of docs/sharing.md) ...
STANDING_ALONE = (
    "How do I enable append-only persistence in Redis?",
    "Which eviction policy protects conversations from deletion?",
    "How are flow fingerprints computed after configuration changes?",
)
#: ... and these never.
LEANING = ("And what does that cost?", "Why?", "Is it on by default?", "What about a cluster?", "Can I see them?")
SHARED_SESSIONS = 3
#: A ledger goes on in a new file beyond this size, so that a limit on the size of files spares it.
_LEDGER_BYTES = 16_000
_CLOCK_JUMP_SECONDS = 3600.0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What one asker is to do. `settings` are those of its flywheel; `file_limit` (bytes) is how its disk fills up;
    `clock_jumps` lets its clock go an hour ahead or back at any time."""

    name: str
    seed: int
    folder: str
    ledger: str
    settings: dict[str, Any]
    tasks: int = 3
    pause_seconds: float = 0.06
    flow_seconds: float = 0.01
    file_limit: int = 0
    clock_jumps: bool = False


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as the asker saw it; `began` and `ended` are of the machine's monotonic clock."""

    session: str
    turn: str
    question: str
    answer: str
    outcome: str
    context: tuple[str, ...]
    remembered: bool
    waits: bool
    began: float
    ended: float
    warnings: tuple[str, ...] = ()


def tag(question: str, history: Sequence[Exchange]) -> str:
    """What every right answer begins with."""
    told = json.dumps([question, [(exchange.question, exchange.answer) for exchange in history]])
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def made_at(answer: str) -> float:
    """When the flow gave this answer, by the monotonic clock."""
    return float(answer.split()[1])


class Ledger:
    """The asker's own files: a line that `write` returned from is on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._number = 0
        self._size = _LEDGER_BYTES
        self._file = -1

    def write(self, said: Said) -> None:
        if self._size >= _LEDGER_BYTES:
            path = self._folder / f"{self._name}-{self._number:05}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DSYNC)
            self._number, self._size = self._number + 1, 0
        line = msgspec.json.encode(said) + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"the ledger of {self._name} is short of room")
        self._size += len(line)


class Asker:
    """The conversations of one process."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._draw = random.Random(orders.seed)
        self._ledger = Ledger(Path(orders.ledger), orders.name)
        self._writing = asyncio.Lock()
        self._asked = 0
        self._done = asyncio.Event()

    async def run(self) -> None:
        orders = self._orders
        settings = load_settings(
            {"tenant": TENANT, **orders.settings},
            environ={"AFW_CONFIG_DIR": orders.folder},
            directory=Path(orders.folder),
        )
        registry = Registry(settings)
        # The version stands for the code: it is one flow in every process.
        registry.register("digest", self._answer, options={"version": "1"})
        jumping = asyncio.create_task(self._jump()) if orders.clock_jumps else None
        async with Flywheel.open(settings=settings, registry=registry) as flywheel, asyncio.TaskGroup() as tasks:
            for number in range(orders.tasks):
                tasks.create_task(self._converse(flywheel, number))
            asyncio.get_running_loop().add_reader(sys.stdin, self._end)
        if jumping is not None:
            jumping.cancel()

    async def _converse(self, flywheel: Flywheel, task: int) -> None:
        draw, conversation = random.Random(f"{self._orders.seed} {task}"), 0
        while not self._done.is_set():
            conversation += 1
            session = f"{self._orders.name}-{task}-{conversation}"
            for _ in range(draw.randint(2, 9)):
                crowd = draw.random() < 0.15
                where = f"shared-{draw.randrange(SHARED_SESSIONS)}" if crowd else session
                await self._ask(flywheel, where, draw.choice(STANDING_ALONE + LEANING))
                await asyncio.sleep(draw.expovariate(1 / self._orders.pause_seconds))
                if self._done.is_set():
                    break

    async def _ask(self, flywheel: Flywheel, session: str, question: str) -> None:
        self._asked += 1
        turn = f"{self._orders.name}.{self._asked}"
        began = time.monotonic()
        answer: Answer = await flywheel.ask(question, session=session, flow="digest", turn_id=turn)
        said = Said(
            session=session,
            turn=turn,
            question=question,
            answer=answer.text,
            outcome=answer.outcome.value,
            context=answer.context,
            remembered=answer.remembered,
            waits=WAITS in answer.warnings,
            began=began,
            ended=time.monotonic(),
            warnings=answer.warnings,
        )
        async with self._writing:
            await asyncio.to_thread(self._ledger.write, said)
        os.write(1, b"n" if not said.remembered else b"o" if said.waits else b"r")

    async def _answer(self, question: str, history: Sequence[Exchange]) -> str:
        await asyncio.sleep(self._draw.expovariate(1 / self._orders.flow_seconds))
        return f"{tag(question, history)} {time.monotonic()!r} " + "so it is " * 20

    def _end(self) -> None:
        if not os.read(sys.stdin.fileno(), 100):
            asyncio.get_running_loop().remove_reader(sys.stdin)
            self._done.set()

    async def _jump(self) -> None:
        real, ahead = time.time, 0.0
        time.time = lambda: real() + ahead
        while True:
            await asyncio.sleep(self._draw.uniform(0.05, 0.4))
            ahead = self._draw.choice((-_CLOCK_JUMP_SECONDS, 0.0, _CLOCK_JUMP_SECONDS))


def main() -> None:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    if orders.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (orders.file_limit, orders.file_limit))
    asyncio.run(Asker(orders).run())


if __name__ == "__main__":
    main()

"""A flow that several processes share and tests direct: it counts its calls, waits, fails and says what it is told to.

Its stage is a folder: what stands in it holds for every process from the next step of a call on, and a call that was
begun stays noted when its process is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentic_flywheel import errors
from agentic_flywheel.flows.protocol import FlowQuestion

T = TypeVar("T")


async def eventually(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """Let others work until `condition` is truthy and return it; fail with `what` was awaited after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.005)
    return value


class Stage:
    """What the flow does, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "stage"
        self.folder.mkdir(exist_ok=True)

    def hold(self, at: int = 0) -> None:
        """Calls wait before part `at` (after the last part, where there are no more)."""
        (self.folder / f"hold-{at}").touch()

    def hold_from(self, call: int) -> None:
        """Calls wait from the `call`th one on, counted from 1; `release_all` lets them go on."""
        write_whole(self.folder / "hold-from", str(call))

    def release_all(self) -> None:
        (self.folder / "hold-from").unlink()

    def release(self, at: int = 0) -> None:
        (self.folder / f"hold-{at}").unlink()

    def fail(self, kind: type[errors.FlowError], at: int = 0, message: str = "as directed", last: int = 1000) -> None:
        """Calls fail before part `at`, up to the `last` of them."""
        write_whole(self.folder / f"fail-{at}", json.dumps([kind.__name__, message, last]))

    def recover(self, at: int = 0) -> None:
        (self.folder / f"fail-{at}").unlink()

    def say(self, *parts: str) -> None:
        """What the calls answer from now on; else it tells their number and the question."""
        write_whole(self.folder / "parts", json.dumps(parts))

    @property
    def calls(self) -> list[int]:
        """The process of each call so far."""
        file = self.folder / "calls"
        return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def peak(self) -> int:
        """How many calls were under way at the same time, at most."""
        under_way = most = 0
        for mark in (self.folder / "traffic").read_text():
            under_way += 1 if mark == "+" else -1
            most = max(most, under_way)
        return most

    @property
    def told(self) -> int:
        """How many parts the calls have given in all."""
        file = self.folder / "told"
        return len(file.read_text()) if file.exists() else 0

    async def __call__(self, question: FlowQuestion) -> AsyncIterator[str]:
        append(self.folder / "traffic", "+")
        try:
            async for part in self._parts(question):
                yield part
        finally:
            append(self.folder / "traffic", "-")

    async def _parts(self, question: FlowQuestion) -> AsyncIterator[str]:
        append(self.folder / "calls", f"{os.getpid()} {question.text.splitlines()[-1]}\n")
        number = len(self.calls)
        while (held := read_whole(self.folder / "hold-from")) and number >= int(held):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        parts: Sequence[str] = [f"Answer {number}", " to ", question.text]
        if (script := self.folder / "parts").exists():
            parts = json.loads(script.read_text())
        for at, part in enumerate([*parts, ""]):
            while (self.folder / f"hold-{at}").exists():  # noqa: ASYNC110 (other processes know no Event of this one)
                await asyncio.sleep(0.005)
            if (failure := self.folder / f"fail-{at}").exists():
                kind, message, last = json.loads(failure.read_text())
                if number <= last:
                    raise getattr(errors, kind)(message)
            if part:
                yield part
                append(self.folder / "told", ".")


def append(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


def read_whole(file: Path) -> str:
    """What stands in a file that may be gone at any moment; "" then."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def write_whole(file: Path, text: str) -> None:
    """Write a file that others read at any moment."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def flow(folder: Path, **fields: Any) -> dict[str, Any]:
    """The flows of a flywheel: `oracle` on the stage in `folder`; `fields` are those of `FlowSpec`."""
    return {"oracle": (Stage(folder), fields)}

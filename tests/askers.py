"""Askers in processes of their own, on one Redis and one stage: started, told what to ask, stopped, killed.

A process reads one request a line on stdin and writes one line per event or answer on stdout.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel import Answer, Directives, Flywheel
from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.flows.protocol import Progress, TextPart
from agentic_flywheel.warmups import WarmBudget
from flywheels import opened
from stages import eventually, flow

READY = "ready"


class Asker:
    """One process with a flywheel."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._requests = 0
        self.events: dict[int, list[Any]] = {}
        self._answers: dict[int, asyncio.Future[list[dict[str, Any]]]] = {}
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, question: str, *, times: int = 1, **facts: Any) -> asyncio.Future[list[dict[str, Any]]]:
        """Have it asked so often at the same time; the answers, or errors, as JSON has them.

        `directives`, `session` and so on as for `Flywheel.ask`; with `stream`, what is heard is in `heard`.
        """
        self._requests += 1
        future = self._answers[self._requests] = asyncio.get_running_loop().create_future()
        request = {"id": self._requests, "question": question, "times": times, **facts}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return future

    def warm(self, questions: list[str], **facts: Any) -> asyncio.Future[list[dict[str, Any]]]:
        """Have a warm-up run; its report. Each question that is done is an event, as `heard` has them."""
        self._requests += 1
        future = self._answers[self._requests] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        request = {"id": self._requests, "warm": questions, "facts": facts}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return future

    @property
    def heard(self) -> list[Any]:
        """What the newest stream has said so far: text, or the name of a progress in a list."""
        return self.events.get(self._requests, [])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    async def close(self) -> int:
        """Let it end in order; its exit code."""
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        code = await self._process.wait()
        await self._reading
        return code

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if said == READY:
                continue
            if "event" in said:
                self.events.setdefault(said["id"], []).append(said["event"])
            else:
                self._answers.pop(said["id"]).set_result(said["answers"])
        for future in self._answers.values():
            future.cancel()


@asynccontextmanager
async def askers(url: str, folder: Path, count: int, **arguments: Any) -> AsyncIterator[list[Asker]]:
    """So many processes, ready; `fields` among the arguments are those of the flow, the others settings."""
    started = []
    try:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                __file__,
                json.dumps({"url": url, "folder": str(folder), **arguments}),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parent,
                env={**os.environ, "PYTHONWARNINGS": "error", "PYTHONPATH": str(Path(__file__).parent)},
                limit=10_000_000,
            )
            assert process.stdout is not None
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert json.loads(await process.stdout.readline()) == READY
        running = [Asker(process) for process in started]
        yield running
        for asker in running:
            assert await asker.close() in {0, -signal.SIGKILL}
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def serve(url: str, folder: str, *, fields: dict[str, Any] | None = None, **settings: Any) -> None:
    """The process's side."""
    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with opened(url, Path(folder), flow(Path(folder), **(fields or {})), **settings) as flywheel:
        await flywheel.sessions.list()  # imports and connects, so that what is asked next is asked at once
        tell(READY)
        tasks = []
        async for line in lines:
            request = json.loads(line)
            work_of = warm if "warm" in request else work
            tasks.append(asyncio.create_task(work_of(flywheel, **request)))
        await asyncio.gather(*tasks)
        pipe.close()


async def warm(flywheel: Flywheel, *, id: int, warm: list[str], facts: dict[str, Any]) -> None:  # noqa: A002
    facts["budget"] = WarmBudget(**facts.get("budget", {}))
    resumes = facts.pop("resume", "")
    warming = flywheel.warming
    warm_up = await (warming.resume(resumes, **facts) if resumes else warming.begin(warm, **facts))
    async for progress in warm_up:
        tell({"id": id, "event": [progress.item.outcome, progress.item.question]})
    report = msgspec.to_builtins(warm_up.report)
    tell({"id": id, "answers": [report]})


async def work(flywheel: Flywheel, *, id: int, question: str, times: int, stream: bool = False, **facts: Any) -> None:  # noqa: A002
    if "directives" in facts:
        words = facts["directives"]
        if "max_age" in words:
            words["max_age"] = timedelta(seconds=words["max_age"])
        facts["directives"] = Directives(**words)
    one = streamed(flywheel, id, question, facts) if stream else None
    asked = [one] if one else [flywheel.ask(question, **facts) for _ in range(times)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    tell({"id": id, "answers": [shown(result) for result in results]})


async def streamed(flywheel: Flywheel, number: int, question: str, facts: dict[str, Any]) -> Answer:
    async for event in flywheel.stream(question, **facts):
        if isinstance(event, Answer):
            return event
        if isinstance(event, TextPart):
            tell({"id": number, "event": event.text})
        elif isinstance(event, Progress):
            tell({"id": number, "event": [event.event]})
    raise AssertionError("a stream ended without its answer")


def shown(result: Answer | BaseException) -> dict[str, Any]:
    if isinstance(result, FlywheelError):
        return result.as_dict()
    if isinstance(result, BaseException):
        raise result
    return {
        "text": result.text,
        "outcome": result.outcome,
        "reason": result.reason,
        "key": result.key,
        "turn": result.turn_id,
        "trace": result.trace_id,
        "origin": result.origin_trace_id,
        "session": result.session_id,
        "warnings": result.warnings,
        "remembered": result.remembered,
    }


def tell(said: Any) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(**json.loads(sys.argv[1])))

__all__ = ["Asker", "askers", "eventually"]

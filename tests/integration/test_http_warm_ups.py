"""Warm-ups that callers begin over HTTP: they outlive the response, any worker knows them, and closing ends them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentic_flywheel.flows.protocol import FlowQuestion
from agentic_flywheel.interfaces.http.app import App
from http_app import app_on
from servers import Server
from stages import eventually

pytestmark = pytest.mark.anyio

QUESTIONS = ["The first question?", "The second question?", "The third question?"]


class Slow:
    """A flow that answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def __call__(self, question: FlowQuestion) -> str:
        self.asked.append(question.text)
        await self.gate.wait()
        return f"Answered: {question.text}"


async def begun(app: App, flow: Slow) -> str:
    app.service.registry.register("slow", flow)
    warm_up = await app.service.home.warming.begin(QUESTIONS, concurrency=1)
    return await app.service.warm_ups.begin("default", warm_up)


async def test_one_goes_on_after_the_response_and_another_worker_stops_it(valkey: Server, tmp_path: Path) -> None:
    flow = Slow()
    async with app_on(valkey, tmp_path) as app, app_on(valkey, tmp_path) as other:
        job = await begun(app, flow)
        assert (await other.service.home.warming.show(job)).state == "running"
        await eventually(lambda: flow.asked, "the first question to be asked")
        assert (await other.service.home.warming.stop(job)).stopping
        flow.gate.set()

        async with asyncio.timeout(60):
            await app.service.warm_ups.settled()
        report = await other.service.home.warming.show(job)
    assert (report.state, report.bound, report.asked, report.stored) == ("left", "stopped", 1, 1)
    assert flow.asked == QUESTIONS[:1]


async def test_closing_the_service_leaves_what_can_be_gone_on_with(valkey: Server, tmp_path: Path) -> None:
    flow = Slow()
    async with app_on(valkey, tmp_path) as app:
        job = await begun(app, flow)
        await eventually(lambda: flow.asked, "the first question to be asked")
    async with app_on(valkey, tmp_path) as app:
        report = await app.service.home.warming.show(job)
    assert (report.state, report.bound, report.left) == ("left", "stopped", 3)

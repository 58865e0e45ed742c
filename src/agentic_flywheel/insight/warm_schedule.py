"""Warm-ups that begin by themselves: so often, and after a flow changed or was cleared.

Invariant: of all programs on one Redis one does it, the one that takes a mark; it holds the mark while it works, so
that who dies over it is followed by somebody else, who goes on with the same warm-up and what is left of its budget.
Where nothing is to be warmed, Redis is not asked.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from agentic_flywheel.errors import FlywheelError, StoreError
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.insight.warming import Warming
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.keys import safe
from agentic_flywheel.store.store import Store
from agentic_flywheel.warmups import WarmBound, WarmBudget, WarmReport
from agentic_flywheel.watching import FlowWatch

#: A mark is held for so long, and renewed three times in that time.
MARK_SECONDS = 60

_log = logging.getLogger(__name__)


class WarmSchedule:
    """Looks, so often, whether something of one tenant is to be warmed."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        store: Store,
        clients: ClientPool,
        watch: FlowWatch,
        warming: Callable[[], Warming],
    ) -> None:
        self._registry = registry
        self._store = store
        self._clients = clients
        self._watch = watch
        self._warming = warming
        self._every = settings.number("warm.every_seconds")
        self._look_seconds = settings.number("warm.look_seconds")
        self._popular = int(settings["warm.popular"])
        self._follow_ups = int(settings["warm.follow_ups"])
        self._faq = bool(settings["warm.faq"])
        self._after_change = int(settings["warm.after_change"])
        self._budget = WarmBudget(calls=int(settings["warm.max_calls"]), seconds=settings.number("warm.max_seconds"))
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._work: dict[str, asyncio.Task[None]] = {}

    def begin(self) -> None:
        """Look from now on."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    async def aclose(self) -> None:
        """Stop, also what is under way: it can be gone on with. Safe to call twice."""
        tasks = [task for task in (self._looking, *self._work.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until no warm-up that began here is under way."""
        while self._work:
            await asyncio.wait(set(self._work.values()))
            await asyncio.sleep(0)  # the tasks' ends are noted first

    async def _keep_looking(self) -> None:
        while True:
            pause = min(self._look_seconds, self._every or self._look_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.look()
            except FlywheelError as error:
                _log.info("nothing is warmed now: %s", error)

    async def look(self) -> None:
        """Begin what is due now. Raises `StoreError` and `RegistryError`."""
        for spec in self._registry.current().active():
            most = self._after_change if spec.warm is None else spec.warm
            if most and spec.key not in self._work:
                await self._look_at(spec, most)
        if self._every and "" not in self._work and await self._store.take_mark("warm", seconds=MARK_SECONDS):
            self._go_on("", self._warm_all())

    async def _look_at(self, spec: FlowSpec, most: int) -> None:
        """Begin a warm-up of a flow that is another one than the one that was warmed last."""
        state = await self._store.flows.state(spec.key)
        if not state.generation:
            return  # nobody has asked it yet
        async with self._clients.use(spec) as client:
            standing = await self._watch.standing(spec, client, state, now=time.time())
        if not standing.verified:
            return
        warmed = await self._store.flows.warmed(spec.key)
        if warmed is None:  # from now on
            await self._store.flows.note_warmed(spec.key, standing.generation)
        elif standing.generation > warmed and await self._store.take_mark(_mark(spec), seconds=MARK_SECONDS):
            self._go_on(spec.key, self._warm_flow(spec, standing.generation, most))

    def _go_on(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._work[name] = asyncio.get_running_loop().create_task(self._quietly(work))
        task.add_done_callback(lambda _: self._work.pop(name, None))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except FlywheelError as error:
            _log.warning("a warm-up ended early: %s", error)

    async def _warm_flow(self, spec: FlowSpec, generation: int, most: int) -> None:
        async with self._holding(_mark(spec)):
            job = f"change-{spec.key}-{generation}"
            report = await self._run(job, popular=most, flow=spec.key, cause="change")
        if report is None or not _fails(report):  # else it is tried again soon, as long as the budget lasts
            await self._store.flows.note_warmed(spec.key, generation)
            await self._store.drop_mark(_mark(spec))

    async def _warm_all(self) -> None:
        began = time.monotonic()
        async with self._holding("warm"):
            await self._run(
                f"every-{int(time.time() // self._every)}",
                popular=self._popular,
                follow_ups=self._follow_ups,
                faq=self._faq,
                cause="schedule",
            )
        left = self._every - (time.monotonic() - began)
        await self._store.prolong_mark("warm", seconds=max(1, round(left)))

    async def _run(self, job: str, **sources: Any) -> WarmReport | None:
        """Run a warm-up, or go on with it; None where there is nothing to ask."""
        warm_up = await self._warming().begin(job=job, budget=self._budget, **sources)
        if not warm_up.total:
            return None
        try:
            async for _ in warm_up:
                pass
        finally:
            await warm_up.aclose()
        report = warm_up.report
        _log.info(
            "warm-up %s: asked %d of %d questions, stored %d answers", job, report.asked, report.total, report.stored
        )
        return report

    @asynccontextmanager
    async def _holding(self, mark: str) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(MARK_SECONDS / 3)
                with suppress(StoreError):
                    await self._store.prolong_mark(mark, seconds=MARK_SECONDS)

        renewing = asyncio.get_running_loop().create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)


def _fails(report: WarmReport) -> bool:
    """Whether the flow failed, rather than single questions."""
    nothing = not (report.stored or report.warm)
    return report.bound is WarmBound.FLOW or (report.bound is None and report.failed > 0 and nothing)


def _mark(spec: FlowSpec) -> str:
    return f"warm-{safe(spec.key)}"

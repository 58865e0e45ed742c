"""How everything is: what the doctor finds, Redis, the outbox, the index, the embedder, the service itself."""

from __future__ import annotations

import contextlib
import os
import platform
import time

import msgspec

from agentic_flywheel import __version__
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import FlywheelError, StoreError
from agentic_flywheel.findings import IndexState
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit
from agentic_flywheel.model import Check
from agentic_flywheel.store.outbox import OutboxStatus


class ServiceShown(msgspec.Struct, frozen=True, kw_only=True):
    """The process that answers; `workers` serve in all."""

    version: str
    python: str
    pid: int
    workers: int
    tenants: int


class HealthPage(msgspec.Struct, frozen=True, kw_only=True):
    """Every finding, worst first, and the figures of the parts; None where a part could not be asked."""

    checks: tuple[Check, ...]
    failed: int
    warned: int
    redis: str
    round_trip_ms: float | None
    memory_bytes: int | None
    outbox: OutboxStatus | None
    index: IndexState | None
    service: ServiceShown


async def show(visit: Visit) -> Page:
    """The findings of `afw doctor`, and the figures of each part."""
    flywheel = visit.flywheel
    checks = await flywheel.doctor()
    order = {"fail": 0, "warn": 1, "ok": 2}
    round_trip, memory, index, outbox = None, None, None, None
    with contextlib.suppress(FlywheelError):  # the findings say what is the matter
        began = time.perf_counter()
        await flywheel.ping()
        round_trip = (time.perf_counter() - began) * 1000
        memory = (await flywheel.cache.stats(days=1)).used_memory_bytes
        index = await flywheel.history.state()
    with contextlib.suppress(StoreError):
        outbox = await flywheel.outbox.status()
    service = visit.call.service
    page = HealthPage(
        checks=tuple(sorted(checks, key=lambda check: order.get(check.state, 0))),
        failed=sum(check.state == "fail" for check in checks),
        warned=sum(check.state == "warn" for check in checks),
        redis=flywheel.redis_address,
        round_trip_ms=round_trip,
        memory_bytes=memory,
        outbox=outbox,
        index=index,
        service=ServiceShown(
            version=__version__,
            python=platform.python_version(),
            pid=os.getpid(),
            workers=int(service.settings["serve.workers"]),
            tenants=len(service.tenants.everyone()),
        ),
    )
    return Page("health.html", page)


SCREENS = (Screen("/health", show, needs=Scope.ADMIN, name="health", place=90),)
ACTIONS: tuple[Action, ...] = ()

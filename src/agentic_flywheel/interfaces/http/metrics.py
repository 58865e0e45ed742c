"""`/metrics`: what the service did, for Prometheus.

Invariant: whichever worker answers, it answers for all: counts come from the folder that they share (`counting`), and
what is one for all (Redis, the outbox) is looked at when it is asked for.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from agentic_flywheel import __version__
from agentic_flywheel.callers import Scope
from agentic_flywheel.errors import StoreError
from agentic_flywheel.interfaces.http.call import call_of
from agentic_flywheel.interfaces.http.counting import FOLDER_VARIABLE
from agentic_flywheel.interfaces.http.rooms import Room
from agentic_flywheel.interfaces.http.routes import AccessRoute
from agentic_flywheel.store.outbox import OutboxStatus

if TYPE_CHECKING:
    from agentic_flywheel.interfaces.http.service import Service


class _Facts:
    """What is looked at when it is asked for, as metrics."""

    def __init__(self, *, redis: bool, closing: bool, tenants: int, outbox: OutboxStatus | None) -> None:
        self._redis = redis
        self._closing = closing
        self._tenants = tenants
        self._outbox = outbox

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("afw_build_info", "The release that runs.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        yield GaugeMetricFamily("afw_redis_up", "Whether Redis answers (1) or not (0).", value=self._redis)
        yield GaugeMetricFamily(
            "afw_ready", "Whether the process wants requests (1) or is closing (0).", value=not self._closing
        )
        yield GaugeMetricFamily(
            "afw_tenants_open", "Tenants that the process that answers keeps open.", value=self._tenants
        )
        if self._outbox is None:
            return
        turns = GaugeMetricFamily("afw_outbox_turns", "Turns on this machine's disk.", labels=("state",))
        turns.add_metric(("waiting",), self._outbox.waiting)
        turns.add_metric(("rejected",), self._outbox.rejected)
        yield turns
        ends = CounterMetricFamily("afw_outbox_turns_ended", "What became of turns in the outbox.", labels=("end",))
        ends.add_metric(("delivered",), self._outbox.delivered)
        ends.add_metric(("lost",), self._outbox.lost)
        yield ends


def room(_service: Service) -> Room:
    """The metrics."""
    return Room(
        "metrics", [AccessRoute("/metrics", _metrics, needs=Scope.METRICS)], "/metrics: what it did, for Prometheus"
    )


async def _metrics(request: Request) -> Response:
    service = call_of(request).service
    try:
        await service.ping()
        redis = True
    except StoreError:
        redis = False
    try:
        outbox = await service.home.outbox.status()
    except StoreError:
        outbox = None  # the disk cannot be read; `afw doctor` says why
    facts = _Facts(redis=redis, closing=service.closing, tenants=len(service.tenants.everyone()), outbox=outbox)
    gathered = CollectorRegistry()
    gathered.register(facts)
    shared = os.environ.get(FOLDER_VARIABLE)
    if shared:
        MultiProcessCollector(gathered, shared)  # type: ignore[no-untyped-call]
    else:
        gathered.register(_Own(service.metrics.registry))
        ProcessCollector(registry=gathered)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    text = await run_in_threadpool(encode, gathered) if shared else encode(gathered)
    return Response(text, headers={"Content-Type": media_type})


class _Own:
    """The counts of this process, beside what is looked at now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()

"""What a process of the service counts, for Prometheus.

Invariant: labels are bounded: flows of the registry, outcomes, reasons, kinds of errors, patterns of routes; never a
user, a session, a question or a path. With several workers each writes its counts into a folder that they share, where
those of a worker that has ended still count (prometheus-client's multiprocess mode, which begins with the import of it:
whoever starts workers sets `PROMETHEUS_MULTIPROC_DIR` for them).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.model import Answer

disable_created_metrics()  # type: ignore[no-untyped-call]

#: Where workers share their counts.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: More flows than this are counted as one: a registry may be edited for years while a service runs.
_MOST_FLOWS = 200
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: From a hit near at hand to a model that takes its time, in seconds.
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """What one process counts; it listens to the flywheels, and the gate tells it of requests."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._flows: set[str] = set()
        self._answers = Counter(
            "afw_answers",
            "Questions answered, by where the answer came from.",
            ("flow", "outcome", "reason"),
            registry=registry,
        )
        self._answer_seconds = Histogram(
            "afw_answer_seconds", "Time that an answer took.", ("flow", "outcome"), buckets=_BUCKETS, registry=registry
        )
        self._failures = Counter(
            "afw_failures", "Questions that were not answered, by the kind of error.", ("code",), registry=registry
        )
        self._traces = Counter(
            "afw_trace_parts",
            "Parts of traces, by what became of them: sent, dropped, failed.",
            ("end",),
            registry=registry,
        )
        self._unreadable = Counter(
            "afw_unreadable_values",
            "Encrypted values that could not be read, each a miss: unknown_key, or damaged.",
            ("reason",),
            registry=registry,
        )
        self._requests = Counter(
            "afw_http_requests",
            "Requests, by the pattern of their route.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "afw_http_request_seconds",
            "Time to the end of a response.",
            ("route",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "afw_http_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self._counted = lru_cache(4096)(self._children)
        self._heard = lru_cache(4096)(self._answer_children)

    def answered(self, answer: Answer) -> None:
        """A question was answered."""
        flow = self._flow(answer.flow)
        count, seconds = self._heard(flow, answer.outcome, answer.reason)
        count.inc()
        seconds.observe(answer.elapsed_ms / 1000)

    def failed(self, error: FlywheelError) -> None:
        """A question was not answered."""
        self._failures.labels(error.code).inc()

    def traced(self, end: str, traces: int) -> None:
        """So many traces were sent, dropped or failed; called from another thread as well."""
        self._traces.labels(end).inc(traces)

    def unreadable(self, reason: str) -> None:
        """An encrypted value could not be read."""
        self._unreadable.labels(reason).inc()

    def began(self) -> None:
        """A request came in."""
        self._in_flight.inc()

    def left(self) -> None:
        """A request that came in is answered, or broke off."""
        self._in_flight.dec()

    def ended(self, route: str, method: str, status: int, seconds: float) -> None:
        """A response was sent, or broke off."""
        count, took = self._counted(route or "none", method if method in _METHODS else "other", status // 100)
        count.inc()
        took.observe(seconds)

    def _children(self, route: str, method: str, hundreds: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, method, f"{hundreds}xx"), self._request_seconds.labels(route)

    def _answer_children(self, flow: str, outcome: str, reason: str) -> tuple[Counter, Histogram]:
        return self._answers.labels(flow, outcome, reason), self._answer_seconds.labels(flow, outcome)

    def _flow(self, flow: str) -> str:
        if flow not in self._flows:
            if len(self._flows) >= _MOST_FLOWS:
                return "other"
            self._flows.add(flow)
        return flow

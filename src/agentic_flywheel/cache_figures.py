"""The vocabulary of figures: what a tenant's cache came to.

Invariant: immutable values without I/O, as in `model`.
"""

from __future__ import annotations

import msgspec


class FlowFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one flow's cache did over a window: counts by outcome and reason, times in milliseconds (`hit_ms` and
    `flow_ms` are means, percentiles right within 9.1 %). `failed` questions ended in an error of the flow."""

    flow: str
    questions: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    hit_rate: float
    hit_ms: float | None
    flow_ms: float | None
    saved_seconds: float
    entries: int
    miss_rate: float = 0.0
    hit_p50_ms: float | None = None
    hit_p95_ms: float | None = None
    hit_p99_ms: float | None = None
    failed: int = 0


class CacheFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`FlowFigures` of every flow and their sum, over the last `days` days: from `since` on, up to `until`."""

    days: int
    since: float
    until: float
    total: FlowFigures
    flows: tuple[FlowFigures, ...]
    damaged_values: int = 0
    used_memory_bytes: int | None = None

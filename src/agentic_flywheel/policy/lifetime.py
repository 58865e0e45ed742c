"""How long an answer stays good.

Invariant: of several rules the most particular one holds: the flow's override at run time, the registry's `ttl` of
the flow, the type's override at run time, the setting of the type.
"""

from __future__ import annotations

import math
from datetime import timedelta

from agentic_flywheel.curated import Approved
from agentic_flywheel.model import Entry, FlowType, Lifetime


def lifetime_of(
    flow_type: FlowType,
    *,
    defaults: dict[FlowType, timedelta],
    registry_ttl: timedelta | None = None,
    sliding: bool = False,
    flow_override: float | None = None,
    type_override: float | None = None,
) -> Lifetime:
    """The lifetime in force for a flow; overrides are in seconds, as they are kept in Redis."""
    if flow_override is not None:
        return Lifetime(ttl=timedelta(seconds=flow_override), sliding=sliding, origin="flow")
    if registry_ttl is not None:
        return Lifetime(ttl=registry_ttl, sliding=sliding, origin="registry")
    if type_override is not None:
        return Lifetime(ttl=timedelta(seconds=type_override), sliding=sliding, origin="type")
    return Lifetime(ttl=defaults[flow_type], sliding=sliding, origin="default")


def stored_seconds(lifetime: Lifetime, *, jitter: float, draw: float) -> float:
    """The lifetime to store an answer with: varied by +-`jitter` so that entries do not expire together.

    `draw` is a random number from -1 to 1.
    """
    return max(1.0, lifetime.ttl.total_seconds() * (1 + jitter * draw))


def remaining_seconds(entry: Entry, lifetime: Lifetime, *, jitter: float, now: float) -> float:
    """What is left of an entry's life under the lifetime that holds *now*; negative once it is over.

    A lifetime that was shortened after the entry was stored counts at once. A longer one does not revive the entry:
    Redis expires it when it was stored to expire. A sliding one starts anew with every hit, so Redis alone knows;
    only where it was shortened since, when it last began is not known, and the entry's age decides. What a person
    approved has no lifetime.
    """
    if isinstance(entry, Approved):
        return math.inf
    longest = lifetime.ttl.total_seconds() * (1 + jitter)
    if lifetime.sliding and entry.ttl_seconds <= longest:
        return lifetime.ttl.total_seconds()
    allowed = min(entry.ttl_seconds, longest)
    return entry.created_at + allowed - now

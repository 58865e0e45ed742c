"""Persistent conversation memory and intelligent response caching, on Redis, for AI flows."""

from __future__ import annotations

TYPE_CHECKING = False  # known to type checkers by its name; the module of that name is not needed otherwise
if TYPE_CHECKING:
    from typing import Any

    from agentic_flywheel.errors import FlywheelError
    from agentic_flywheel.flows.protocol import Progress, SourcesFound, TextPart
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import (
        Answer,
        Decided,
        Directives,
        Entry,
        Exchange,
        FlowType,
        Origin,
        Outcome,
        Reason,
        Receipt,
        Session,
        Sharing,
        Source,
        Thread,
        Turn,
    )
    from agentic_flywheel.policy.context import Domain
    from agentic_flywheel.sync import FlywheelSync

__all__ = [
    "Answer",
    "Decided",
    "Directives",
    "Domain",
    "Entry",
    "Exchange",
    "FlowType",
    "Flywheel",
    "FlywheelError",
    "FlywheelSync",
    "Origin",
    "Outcome",
    "Progress",
    "Reason",
    "Receipt",
    "Session",
    "Sharing",
    "Source",
    "SourcesFound",
    "TextPart",
    "Thread",
    "Turn",
    "__version__",
]

__version__ = "0.1.0"

_HOMES = {
    "Domain": "agentic_flywheel.policy.context",
    "Flywheel": "agentic_flywheel.flywheel",
    "FlywheelError": "agentic_flywheel.errors",
    "FlywheelSync": "agentic_flywheel.sync",
    "Progress": "agentic_flywheel.flows.protocol",
    "SourcesFound": "agentic_flywheel.flows.protocol",
    "TextPart": "agentic_flywheel.flows.protocol",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import agentic_flywheel` costs nothing, which `afw --help` and MCP start-up rely on.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "agentic_flywheel.model")), name)

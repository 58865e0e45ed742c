"""Which flow a question goes to. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_flywheel.flows.snapshot import RegistrySnapshot
from agentic_flywheel.model import Route


def route(
    question: str,
    snapshot: RegistrySnapshot,
    *,
    flow: str | None = None,
    intent: str | None = None,
    session_flow: str | None = None,
    context: Sequence[str] = (),
) -> Route:
    """Pick the flow: explicit flow > explicit intent > the session's flow > keywords > fallback. Raises `UnknownFlow`."""
    raise NotImplementedError

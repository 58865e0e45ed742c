"""The service as Flowise's clients see it: predictions from memory, everything else from the Flowise behind."""

from __future__ import annotations

from agentic_flywheel.interfaces.http.flowise.routes import room

__all__ = ["room"]

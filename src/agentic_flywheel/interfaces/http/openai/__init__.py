"""The service as OpenAI clients see it: flows as models, under `/v1`."""

from __future__ import annotations

from agentic_flywheel.interfaces.http.openai.routes import room

__all__ = ["room"]

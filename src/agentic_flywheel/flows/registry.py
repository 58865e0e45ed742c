"""The flow registry: which file is in force, what it says now, and edits to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentic_flywheel.errors import RegistryError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.snapshot import RegistrySnapshot, RoutingRules
from agentic_flywheel.settings import Settings

__all__ = ["Registry", "RegistryChange", "RegistrySnapshot", "RoutingRules", "config_digest"]


class RegistryChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit did: `action` is added, edited or removed; `before` and `after` hold the fields that differ."""

    action: str
    key: str
    path: Path
    created: bool = False
    before: Mapping[str, Any] = {}
    after: Mapping[str, Any] = {}


class Registry:
    """The flow registry in force."""

    problem: RegistryError | None

    def __init__(self, settings: Settings) -> None:
        raise NotImplementedError

    def current(self) -> RegistrySnapshot:
        """The registry as it is now."""
        raise NotImplementedError

    def register(self, key: str, answer: Callable[..., Any], **fields: Any) -> FlowSpec:
        """A flow answered by a Python callable of this process."""
        raise NotImplementedError

    def add(self, key: str, **fields: Any) -> RegistryChange:
        """Add a flow to the file."""
        raise NotImplementedError

    def edit(self, key: str, **changes: Any) -> RegistryChange:
        """Change fields of a flow in the file; None removes a field."""
        raise NotImplementedError

    def remove(self, key: str) -> RegistryChange:
        """Remove a flow from the file."""
        raise NotImplementedError


def config_digest(spec: FlowSpec) -> str:
    """Digest of everything in the registry that decides an answer of this flow."""
    raise NotImplementedError

"""Flows as people name them, as the keys that the registry knows them by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentic_flywheel.errors import UnknownFlow

if TYPE_CHECKING:
    from agentic_flywheel.flows.snapshot import RegistrySnapshot

#: What Flowise calls its flows: one that no registry lists can be asked by its id through the proxy.
_FLOWISE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def keys_of(registry: RegistrySnapshot, names: Iterable[str]) -> list[str]:
    """The keys of the flows that are named, each once. Raises `UnknownFlow`.

    Ids of Flowise that are no flow of the registry stand for themselves.
    """
    found = {}
    for name in names:
        try:
            found[registry.get(name, inactive=True).key] = True
        except UnknownFlow:
            if not _FLOWISE_ID.fullmatch(name):
                raise
            found[name] = True
    return list(found)

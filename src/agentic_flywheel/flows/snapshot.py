"""One reading of the flow registry: all flows and routing rules at a moment, immutable.

Invariant: a snapshot never changes; whoever holds one sees one consistent registry, whatever is written meanwhile.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from agentic_flywheel.errors import UnknownFlow
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.words import fold


class RoutingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How questions find their flow: points per kind of keyword match, and what to do when none is sure enough.

    `fallback` is the key of the flow that takes questions below `threshold`, "" for the registry's default flow.
    """

    exact: float = 3.0
    partial: float = 1.5
    similarity: float = 1.0
    context: float = 2.0
    threshold: float = 0.6
    fallback: str = ""


class RegistrySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All flows of a registry file (and those registered from Python) as they were when it was read.

    `path` is the file, `origin` which step of the cascade it is (`argument`, `project`, `user`, `packaged`);
    `notes` are sentences for people about what was read but looks wrong (a near miss of a known key).

    >>> spec = FlowSpec(key="docs", id="docs", kind="documents")
    >>> snapshot = RegistrySnapshot(flows={"docs": spec}, path=Path("flow-registry.yaml"), origin="user")
    >>> snapshot.get("Docs").key, snapshot.default is spec
    ('docs', True)
    """

    flows: Mapping[str, FlowSpec]
    path: Path
    origin: str
    routing: RoutingRules = RoutingRules()
    notes: tuple[str, ...] = ()

    def get(self, key: str, *, inactive: bool = False) -> FlowSpec:
        """The flow of this key; else the only one whose key, id or name it is but for case and accents.

        Raises `UnknownFlow`, with the nearest keys; an inactive flow is only given where `inactive` is True.
        """
        spec = self.flows.get(key)
        if spec is None:
            wanted = fold(key.strip())
            alike = [s for s in self.flows.values() if wanted and wanted in {fold(s.key), fold(s.id), fold(s.name)}]
            if len(alike) != 1:
                raise self.unknown(key, f"no flow {key!r} in {self.path}")
            spec = alike[0]
        if not (spec.active or inactive):
            raise UnknownFlow(
                f"the flow {spec.key!r} is inactive in {self.path}",
                suggestions=(
                    f"Activate it: `afw flow edit {spec.key} --active`.",
                    f"Ask another flow: {', '.join(s.key for s in self.active()) or 'none is active'}.",
                    "Leave the flow out and let the question be routed.",
                ),
                flow=spec.key,
                file=str(self.path),
                inactive=True,
            )
        return spec

    def only(self, keys: Collection[str]) -> RegistrySnapshot:
        """The registry as it is for who may know of these flows alone."""
        return msgspec.structs.replace(self, flows={key: spec for key, spec in self.flows.items() if key in keys})

    def unknown(self, key: str, message: str) -> UnknownFlow:
        """The error for a name that is no flow, with the nearest names there are."""
        names = {fold(name): s.key for s in self.flows.values() for name in (s.name, s.key) if name}
        close = difflib.get_close_matches(fold(key), list(names), n=3, cutoff=0.5)
        nearest = list(dict.fromkeys(names[name] for name in close))
        hint = f"; did you mean {' or '.join(repr(name) for name in nearest)}?" if nearest else ""
        suggestions = tuple(f"Use {name!r}." for name in nearest)
        return UnknownFlow(
            message + hint,
            suggestions=(*suggestions, *UnknownFlow.default_suggestions),
            flow=key,
            file=str(self.path),
            nearest=nearest or None,
        )

    def active(self) -> list[FlowSpec]:
        """The flows that may be asked, in the order of the file."""
        return [spec for spec in self.flows.values() if spec.active]

    def routable(self) -> list[FlowSpec]:
        """The active flows that questions may be routed to without being named."""
        return [spec for spec in self.flows.values() if spec.active and spec.routable]

    @property
    def default(self) -> FlowSpec | None:
        """The flow for questions that fit none: the configured fallback, else the first routable one."""
        fallback = self.flows.get(self.routing.fallback)
        if fallback is not None and fallback.active:
            return fallback
        return next(iter(self.routable()), None)

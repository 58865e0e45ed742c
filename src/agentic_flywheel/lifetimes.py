"""Lifetimes as people see and set them; what is set holds at once in every process on the same Redis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from agentic_flywheel.durations import show_duration
from agentic_flywheel.errors import InputError
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.model import FlowState, FlowType, Lifetime, LifetimeRow
from agentic_flywheel.policy.lifetime import lifetime_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.flow_states import FlowStates

#: Longer is a slip of units: Redis itself refuses what overflows its milliseconds.
LONGEST = timedelta(days=3650)


class Lifetimes:
    """How long answers stay good, by flow type and by flow."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        states: FlowStates,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._forget = forget  # what this process has at hand rests on lifetimes
        self._states = states
        self._defaults = {kind: timedelta(seconds=settings.number(f"ttl.{kind}_seconds")) for kind in FlowType}
        self._settings = settings
        #: By how much of itself a stored lifetime may differ from the one in force.
        self.jitter = settings.number("ttl.jitter")

    def of(self, spec: FlowSpec, state: FlowState, type_override: float | None) -> Lifetime:
        """The lifetime of a flow's answers, given what Redis knows."""
        return lifetime_of(
            spec.type,
            defaults=self._defaults,
            registry_ttl=spec.ttl,
            sliding=spec.sliding,
            flow_override=state.ttl_seconds,
            type_override=type_override,
        )

    async def show(self) -> list[LifetimeRow]:
        """The lifetimes in force: the three types, then every flow of the registry."""
        overrides = await self._states.type_ttls()
        rows = [self._type_row(kind, overrides.get(kind)) for kind in FlowType]
        for spec in self._registry.current().flows.values():
            lifetime = self.of(spec, await self._states.state(spec.key), overrides.get(spec.type))
            rows.append(_flow_row(spec, lifetime))
        return rows

    async def set(self, name: str, ttl: timedelta) -> LifetimeRow:
        """Set the lifetime of a flow type, or of a flow; `flow:NAME` means a flow even if a type has this name.

        Raises `InputError` for durations that cannot be meant, `UnknownFlow` for names that are neither.
        """
        if not timedelta(seconds=1) <= ttl <= LONGEST:
            raise InputError(
                f"a lifetime is from 1 second to {LONGEST.days} days, not {show_duration(ttl)}",
                ttl_seconds=ttl.total_seconds(),
            )
        return await self._change(name, ttl.total_seconds())

    async def reset(self, name: str) -> LifetimeRow:
        """Take an override back; the registry or the settings hold again."""
        return await self._change(name, None)

    async def _change(self, name: str, seconds: float | None) -> LifetimeRow:
        if name in tuple(FlowType):
            await self._states.set_type_ttl(name, seconds)
            self._forget()
            return self._type_row(FlowType(name), seconds)
        spec = self._registry.current().get(name.removeprefix("flow:"), inactive=True)
        await self._states.set_ttl(spec.key, seconds)
        self._forget()
        overrides = await self._states.type_ttls()
        return _flow_row(spec, self.of(spec, await self._states.state(spec.key), overrides.get(spec.type)))

    def _type_row(self, kind: FlowType, override: float | None) -> LifetimeRow:
        if override is not None:
            return LifetimeRow(name=kind, kind="type", ttl_seconds=override, origin="set at run time")
        origin = self._settings.origin(f"ttl.{kind}_seconds")
        return LifetimeRow(name=kind, kind="type", ttl_seconds=self._defaults[kind].total_seconds(), origin=origin)


def _flow_row(spec: FlowSpec, lifetime: Lifetime) -> LifetimeRow:
    origins = {
        "flow": "set at run time",
        "registry": "registry",
        "type": f"type {spec.type}",
        "default": f"type {spec.type}",
    }
    return LifetimeRow(
        name=spec.key,
        kind="flow",
        ttl_seconds=lifetime.ttl.total_seconds(),
        origin=origins[lifetime.origin],
        sliding=lifetime.sliding,
    )

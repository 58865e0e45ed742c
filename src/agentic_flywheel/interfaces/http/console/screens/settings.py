"""Every setting in force and where it came from, secrets masked; what is set is set in files and the environment."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentic_flywheel.callers import Scope
from agentic_flywheel.configuration import RedisInForce, RegistryInForce, SettingInForce, configuration_of
from agentic_flywheel.interfaces.http.console.pages import Action, Page, Screen
from agentic_flywheel.interfaces.http.console.visit import Visit


class SettingGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Settings whose names begin alike, "" for those without a dot; `set` counts those that somebody set."""

    name: str
    set: int
    settings: tuple[SettingInForce, ...]


class SettingsPage(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that fit `query`; with `changed`, those that are not at their default."""

    query: str
    changed: bool
    total: int
    shown: int
    groups: tuple[SettingGroup, ...]
    registry: RegistryInForce
    redis: RedisInForce
    config_dir: str


async def show(visit: Visit) -> Page:
    """All settings; `q` narrows them to those that have its words, `set=1` to those that somebody set."""
    visit.call.require_operator()
    query, changed = visit.text("q"), visit.text("set") == "1"
    found = configuration_of(visit.call.service.settings)
    shown = tuple(one for one in found.settings if _fits(one, query) and (one.origin != "default" or not changed))
    page = SettingsPage(
        query=query,
        changed=changed,
        total=len(found.settings),
        shown=len(shown),
        groups=_grouped(shown),
        registry=found.registry,
        redis=found.redis,
        config_dir=found.config_dir,
    )
    return Page("settings.html", page)


def _grouped(settings: Sequence[SettingInForce]) -> tuple[SettingGroup, ...]:
    groups: dict[str, list[SettingInForce]] = {}
    for one in settings:
        section, dot, _ = one.name.partition(".")
        groups.setdefault(section if dot else "", []).append(one)
    return tuple(
        SettingGroup(name=name, set=sum(one.origin != "default" for one in found), settings=tuple(found))
        for name, found in groups.items()
    )


def _fits(setting: SettingInForce, query: str) -> bool:
    """Whether every word of the query stands somewhere in it."""
    text = f"{setting.name} {setting.variable} {setting.help} {setting.value}".casefold()
    return all(word in text for word in query.casefold().split())


SCREENS = (Screen("/settings", show, needs=Scope.ADMIN, name="settings", place=95),)
ACTIONS: tuple[Action, ...] = ()

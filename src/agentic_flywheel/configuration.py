"""What is set, as people look at it: every setting, where its value came from, and the registry and Redis that follow.

Invariant: no secret leaves this module; of an address with a password everything but that is shown.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentic_flywheel.errors import FlywheelError, RegistryError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.settings import Settings
from agentic_flywheel.settings_table import SETTINGS, Setting
from agentic_flywheel.store.address import Address, resolve_address


class SettingInForce(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: its value (a secret masked), where that came from, its variable, and what it is for."""

    name: str
    value: str | int | float | bool
    origin: str
    variable: str
    help: str


class RegistryInForce(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's file and which rule found it; `problem` is why it cannot be used, "" where it can."""

    path: str
    origin: str
    problem: str = ""


class RedisInForce(msgspec.Struct, frozen=True, kw_only=True):
    """The address of Redis, password masked, and where it came from; `problem` as for the registry."""

    address: str
    origin: str
    problem: str = ""


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All that is set, and what follows from it."""

    settings: tuple[SettingInForce, ...]
    registry: RegistryInForce
    redis: RedisInForce
    config_dir: str


def configuration_of(settings: Settings) -> Configuration:
    """The configuration in force; nothing is connected, and what is unusable is said and not raised."""
    return Configuration(
        settings=tuple(
            SettingInForce(
                name=setting.name,
                value=_shown(setting, settings),
                origin=settings.origin(setting.name),
                variable=setting.variable,
                help=setting.help,
            )
            for setting in SETTINGS
        ),
        registry=_registry(settings),
        redis=_redis(settings),
        config_dir=str(settings.config_dir),
    )


def _shown(setting: Setting, settings: Settings) -> Any:
    value = settings[setting.name]
    if not setting.secret or not value:
        return value
    return Address(value, "").masked if "://" in value else "***"  # without a scheme nobody knows what is secret


def _registry(settings: Settings) -> RegistryInForce:
    try:
        snapshot = Registry(settings).current()
    except RegistryError as error:
        return RegistryInForce(path=str(error.details.get("file", "")), origin="unusable", problem=error.message)
    return RegistryInForce(path=str(snapshot.path), origin=snapshot.origin)


def _redis(settings: Settings) -> RedisInForce:
    try:
        address = resolve_address(settings)
    except FlywheelError as error:
        return RedisInForce(address="", origin="unusable", problem=error.message)
    if address.embedded:
        from agentic_flywheel.store.embedded import EmbeddedServer

        return RedisInForce(address=f"unix://{EmbeddedServer(settings).socket}", origin=address.origin)
    return RedisInForce(address=address.masked, origin=address.origin)

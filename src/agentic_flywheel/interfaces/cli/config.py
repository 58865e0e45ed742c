"""`afw config`: every setting in force, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.settings import Setting, Settings


@click.group("config", cls=FlywheelGroup)
def config() -> None:
    """Settings, and where each came from."""


@config.command("show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show every setting and where it came from.

    Then the registry and the Redis that follow from them.
    """
    from agentic_flywheel.interfaces.cli.terminal import dim, note, pairs, print_json, table, warn
    from agentic_flywheel.settings import SETTINGS

    settings = invocation.settings()
    registry, redis = _registry(settings), _redis(settings)
    if invocation.as_json:
        rows = [
            {
                "name": setting.name,
                "value": _shown(setting, settings),
                "origin": settings.origin(setting.name),
                "variable": setting.variable,
                "help": setting.help,
            }
            for setting in SETTINGS
        ]
        print_json({"settings": rows, "registry": registry, "redis": redis, "config_dir": settings.config_dir})
        return
    rows_shown = [
        [setting.name, _plain(_shown(setting, settings)), settings.origin(setting.name)] for setting in SETTINGS
    ]
    table(rows_shown, ["setting", "value", "from"])
    print()
    pairs(
        [
            ("registry", f"{registry['path']} {dim('(' + registry['origin'] + ')')}"),
            ("redis", f"{redis['address']} {dim('(' + redis['origin'] + ')')}"),
            ("config_dir", str(settings.config_dir)),
        ]
    )
    for problem in (registry["problem"], redis["problem"]):
        if problem:
            warn(problem)
    note("Stronger first: argument, environment, project file, user file, default.")


def _shown(setting: Setting, settings: Settings) -> Any:
    from agentic_flywheel.store.address import Address

    value = settings[setting.name]
    if not setting.secret or not value:
        return value
    return Address(value, "").masked if "://" in value else "***"  # without a scheme nobody knows what is secret


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "-"


def _registry(settings: Settings) -> dict[str, str]:
    from agentic_flywheel.errors import RegistryError
    from agentic_flywheel.flows.registry import Registry

    try:
        snapshot = Registry(settings).current()
    except RegistryError as error:
        return {"path": str(error.details.get("file", "")), "origin": "unusable", "problem": error.message}
    return {"path": str(snapshot.path), "origin": snapshot.origin, "problem": ""}


def _redis(settings: Settings) -> dict[str, str]:
    from agentic_flywheel.errors import FlywheelError
    from agentic_flywheel.store.address import resolve_address

    try:
        address = resolve_address(settings)
    except FlywheelError as error:
        return {"address": "", "origin": "unusable", "problem": error.message}
    if address.embedded:
        from agentic_flywheel.store.embedded import EmbeddedServer

        return {"address": f"unix://{EmbeddedServer(settings).socket}", "origin": address.origin, "problem": ""}
    return {"address": address.masked, "origin": address.origin, "problem": ""}

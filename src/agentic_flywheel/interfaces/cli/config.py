"""`afw config`: every setting in force, and where it came from."""

from __future__ import annotations

from typing import Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation


@click.group("config", cls=FlywheelGroup)
def config() -> None:
    """Settings, and where each came from."""


@config.command("show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show every setting and where it came from.

    Then the registry and the Redis that follow from them.
    """
    from agentic_flywheel.configuration import configuration_of
    from agentic_flywheel.interfaces.cli.terminal import dim, note, pairs, print_json, table, warn

    found = configuration_of(invocation.settings())
    if invocation.as_json:
        print_json(found)
        return
    table([[one.name, _plain(one.value), one.origin] for one in found.settings], ["setting", "value", "from"])
    print()
    pairs(
        [
            ("registry", f"{found.registry.path} {dim('(' + found.registry.origin + ')')}"),
            ("redis", f"{found.redis.address} {dim('(' + found.redis.origin + ')')}"),
            ("config_dir", found.config_dir),
        ]
    )
    for problem in (found.registry.problem, found.redis.problem):
        if problem:
            warn(problem)
    note("Stronger first: argument, environment, project file, user file, default.")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or "-"

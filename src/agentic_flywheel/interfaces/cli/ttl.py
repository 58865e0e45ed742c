"""`afw ttl`: how long answers stay good, by type and by flow; a change takes effect at once, in every process."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.ask import read_duration
from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.model import LifetimeRow


@click.group("ttl", cls=FlywheelGroup)
def ttl() -> None:
    """How long answers stay good."""


@ttl.command("show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show the lifetimes in force.

    First the three types, then every flow.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    rows = invocation.run(lambda flywheel: flywheel.lifetimes.show())
    if invocation.as_json:
        print_json({"lifetimes": rows})
    else:
        _print_rows(list(rows))


def _print_rows(rows: list[LifetimeRow]) -> None:
    from agentic_flywheel.interfaces.cli.terminal import seconds, table

    table(
        [[row.name, row.kind, seconds(row.ttl_seconds) + ", sliding" * row.sliding, row.origin] for row in rows],
        ["name", "what", "lifetime", "set by"],
    )


@ttl.command("set", epilog="Example: afw ttl set technical 14d")
@click.argument("name")
@click.argument("duration", callback=read_duration)
@click.pass_obj
def set_lifetime(invocation: Invocation, name: str, duration: timedelta) -> None:
    """Set the lifetime of a flow type or a flow.

    NAME is technical, creative, document, or the key of a flow; flow:NAME where a flow has the name of a type.
    """
    _show_row(invocation, invocation.run(lambda flywheel: flywheel.lifetimes.set(name, duration)))


@ttl.command("reset")
@click.argument("name")
@click.pass_obj
def reset(invocation: Invocation, name: str) -> None:
    """Take back what `ttl set` said.

    The registry and the settings hold again.
    """
    _show_row(invocation, invocation.run(lambda flywheel: flywheel.lifetimes.reset(name)))


def _show_row(invocation: Invocation, row: LifetimeRow) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if invocation.as_json:
        print_json(row)
    else:
        _print_rows([row])

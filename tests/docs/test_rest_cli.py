"""Every command of `afw` is an operation of REST, or docs/rest.md says why it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from agentic_flywheel.interfaces.cli.commands import afw
from agentic_flywheel.interfaces.http.rest.operations import BASE
from agentic_flywheel.interfaces.http.rest.room import GROUPS
from pages import read


def commands(command: click.Command, path: str, context: click.Context) -> Iterator[str]:
    """Every command that does something, with the groups that it is in."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from commands(below, f"{path} {name}", context)


def test_every_command_has_its_row_and_no_other() -> None:
    section = read("docs/rest.md").split("\n## Command line and REST\n", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `(afw [^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert sorted(rows) == sorted(commands(afw, "afw", click.Context(afw)))
    served = {f"{one.method} {BASE}{one.path}" for group in GROUPS for one in group.all}
    for command, said in rows.items():
        named = re.findall(r"`([A-Z]+ [^`]+)`", said)
        assert {name.replace(" ", f" {BASE}", 1) for name in named} <= served, command
        assert named or said.startswith("not here: "), command

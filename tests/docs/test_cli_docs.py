"""docs/cli.md has every command with every option, nothing that does not exist, and examples that parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agentic_flywheel.interfaces.cli.commands import afw
from agentic_flywheel.interfaces.cli.frame import EVERYWHERE

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
_OPTION = re.compile(r"`(--[a-z][a-z0-9-]*)")


def _commands(group: click.Group, path: str, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}", click.Context(command, parent=context, info_name=name))
        else:
            yield f"{path} {name}", command


COMMANDS = dict(_commands(afw, "afw", click.Context(afw, info_name="afw")))


def _section(path: str) -> str:
    """What stands under the heading of a command, up to the next heading."""
    found = re.search(rf"^#+ {re.escape(path)}(?::[^\n]*)?\n(.*?)(?=^#+ |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section {path!r}"
    return found[1]


def _own_options(command: click.Command) -> dict[str, click.Option]:
    return {
        name: option
        for option in command.params
        if isinstance(option, click.Option) and option.opts[0] not in EVERYWHERE
        for name in [*option.opts, *option.secondary_opts]
        if name.startswith("--")
    }


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_its_section_with_every_option(path: str) -> None:
    section = _section(path)
    missing = [name for name in _own_options(COMMANDS[path]) if f"`{name}" not in section]
    assert not missing
    assert f"\n{path}" in section, f"{path} has no example"


@pytest.mark.parametrize("path", COMMANDS)
def test_no_section_tells_of_options_that_do_not_exist(path: str) -> None:
    table = "\n".join(line for line in _section(path).splitlines() if line.startswith("| `--"))
    known = set(_own_options(COMMANDS[path])) | set(EVERYWHERE)
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines())
    assert set(_OPTION.findall(first_cells)) <= known


def test_the_options_of_everywhere_are_told_once() -> None:
    table = PAGE.partition("| Accepted everywhere | |")[2].partition("\n\n")[0]
    assert set(_OPTION.findall(table)) == {*EVERYWHERE, "--help"}


def _examples() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"^.*\| (?=afw)", "", line) for line in lines]


@pytest.mark.parametrize("example", _examples())
def test_every_example_parses(example: str) -> None:
    program, *arguments = shlex.split(example)
    assert program == "afw"
    command: click.Command = afw
    context = click.Context(afw, info_name="afw")
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_context(context.info_name, arguments, parent=context.parent)


def test_exit_codes_and_error_fields_are_told() -> None:
    for code in ("| 0 |", "| 1 |", "| 2 |", "| 130 |", "| 141 |"):
        assert code in PAGE
    for field in ("error", "error_type", "details", "suggestions", "retry_after_seconds", "error_id"):
        assert f'"{field}"' in PAGE

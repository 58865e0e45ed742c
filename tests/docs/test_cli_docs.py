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


_ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`afw ([^`]*[^` ])`")


def _named() -> Iterator[tuple[str, str]]:
    """Every command that a text of the program or a page of the documentation names, and where."""
    for file in [_ROOT / "README.md", *(_ROOT / "docs").rglob("*.md"), *(_ROOT / "src").rglob("*.*")]:
        if file.suffix in {".py", ".md", ".toml", ".html"}:
            for said in _NAMED.findall(file.read_text("utf-8")):
                yield said.replace("\n", " "), str(file.relative_to(_ROOT))


def test_no_text_names_a_command_or_an_option_that_does_not_exist() -> None:
    strange = []
    for said, where in set(_named()):
        command: click.Command = afw
        context = click.Context(afw, info_name="afw")
        rest = said.split()
        while rest and isinstance(command, click.Group) and re.fullmatch("[a-z]+", rest[0]):
            found = command.get_command(context, rest[0])
            if found is None:
                break
            command, context = found, click.Context(found, parent=context, info_name=rest.pop(0))
        known = {name for below in _below(command, context) for name in [*below.opts, *below.secondary_opts]}
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(rest)))
        unknown = isinstance(command, click.Group) and rest and re.fullmatch("[a-z]+", rest[0])
        if unknown or options - known - set(EVERYWHERE) - {"--help", "--version"}:
            strange.append((said, where))
    assert not strange


def _below(command: click.Command, context: click.Context) -> Iterator[click.Parameter]:
    """The parameters of a command, or of all commands of a group: one of them may be left out."""
    if isinstance(command, click.Group):
        for _, found in _commands(command, "", context):
            yield from found.params
    else:
        yield from command.params


def test_exit_codes_and_error_fields_are_told() -> None:
    for code in ("| 0 |", "| 1 |", "| 2 |", "| 130 |", "| 141 |"):
        assert code in PAGE
    for field in ("error", "error_type", "details", "suggestions", "retry_after_seconds", "error_id"):
        assert f'"{field}"' in PAGE

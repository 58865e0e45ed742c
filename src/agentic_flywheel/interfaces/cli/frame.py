"""What all commands share: the options accepted everywhere, groups that load late, and how to reach the facade.

Invariant: importing this module, or showing the help of the whole command line, imports click and nothing else of
weight; everything that talks to Redis, HTTP or YAML is imported by the command that runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.interfaces.mcp.opening import Opening
    from agentic_flywheel.settings import Settings

T = TypeVar("T")


@dataclass
class Invocation:
    """One call of the command line: what the options accepted everywhere said. `arguments` are settings by name.

    `opening` is what `afw mcp` has already heard and said, `command` the command that runs, as it is typed.
    """

    as_json: bool = False
    env_file: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    opening: Opening | None = None
    command: str = "afw"

    def settings(self) -> Settings:
        """All settings, those of the command line on top. Raises `SettingsError`."""
        import os

        from agentic_flywheel.settings import load_settings

        environ = dict(os.environ)
        _log_to_stderr(environ.get("AFW_LOG_LEVEL") or "ERROR")
        if self.env_file is not None:
            environ["AFW_ENV_FILE"] = self.env_file
        return load_settings(self.arguments, environ=environ)

    def open(self) -> Flywheel:
        """The facade; nothing is connected yet. Use with `async with`."""
        from agentic_flywheel.flywheel import Flywheel

        return Flywheel.open(settings=self.settings(), background=False)

    @property
    def me(self) -> str:
        """Who runs the command, as the audit log names it."""
        import getpass
        import os

        try:
            return f"cli:{getpass.getuser()}"
        except (KeyError, OSError):  # a user id without a name
            return f"cli:{os.getuid()}"

    def run(self, work: Callable[[Flywheel], Coroutine[Any, Any, T]]) -> T:
        """Run `work` with an open facade, which is closed (and what is written behind flushed) before this returns."""
        import asyncio

        async def opened() -> T:
            async with self.open() as flywheel:
                return await work(flywheel)

        return asyncio.run(opened())


def _log_to_stderr(level: str) -> None:
    """Errors alone by default: what people should know of a degraded answer stands in its warnings."""
    import logging

    from agentic_flywheel.errors import SettingsError

    if level.upper() not in logging.getLevelNamesMapping():
        raise SettingsError(
            f"AFW_LOG_LEVEL: expected DEBUG, INFO, WARNING or ERROR, got {level!r}", variable="AFW_LOG_LEVEL"
        )
    logging.basicConfig(level=level.upper(), format="%(levelname)s %(name)s: %(message)s")


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option of everywhere in the `Invocation`; the one nearest to the command wins."""
    if not value:  # an option that was not given, or was given empty, leaves what the outer command said
        return value
    invocation = context.ensure_object(Invocation)
    match parameter.name:
        case "as_json":
            invocation.as_json = True
        case "env_file":
            invocation.env_file = value
        case name:
            invocation.arguments[str(name)] = value
    return value


def everywhere_options() -> list[click.Option]:
    """The options that every command accepts."""
    return [
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Answer as JSON on stdout, errors too.",
        ),
        click.Option(["--tenant"], expose_value=False, callback=_remember, metavar="NAME", help="Whose memory to use."),
        click.Option(
            ["--redis-url"],
            expose_value=False,
            callback=_remember,
            metavar="URL",
            help="Redis to use; a password is better kept in AFW_REDIS_URL.",
        ),
        click.Option(
            ["--registry"], expose_value=False, callback=_remember, metavar="PATH", help="Flow registry to use."
        ),
        click.Option(
            ["--env", "env_file"],
            expose_value=False,
            callback=_remember,
            metavar="FILE",
            help="File of variables (KEY=VALUE or JSON) that say where Redis is.",
        ),
    ]


EVERYWHERE = frozenset(option.opts[0] for option in everywhere_options())


def _write_options(command: click.Command, context: click.Context, formatter: click.HelpFormatter) -> None:
    """The command's own options, then those of everywhere under a heading of their own."""
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            (shared if parameter.opts[0] in EVERYWHERE else own).append(record)
    for heading, records in (("Options", own), ("Accepted everywhere", shared)):
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


class FlywheelCommand(click.Command):
    """A command that also accepts the options of everywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(everywhere_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ensure_object(Invocation).command = ctx.command_path
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would end the process with 1
            from agentic_flywheel.interfaces.cli.main import READER_GONE

            return READER_GONE

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)


class FlywheelGroup(click.Group):
    """A family of commands; a name that does not exist is answered with the nearest one that does."""

    command_class = FlywheelCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(everywhere_options())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise click.UsageError(no_such_command(name, self.list_commands(ctx), ctx.command_path), ctx=ctx)
        return super().resolve_command(ctx, args)


def no_such_command(name: str, known: Sequence[str], path: str) -> str:
    """The message for a command that does not exist."""
    import difflib

    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = " or ".join(f"`{path} {candidate}`" for candidate in close)
    return f"No such command {name!r}." + (f" Did you mean {hint}?" if hint else f" `{path} --help` lists them all.")


class Late(NamedTuple):
    """A command that is imported when it is used: the module in this package, its attribute, its one line of help."""

    module: str
    attribute: str
    help: str


class LateGroup(FlywheelGroup):
    """A group whose commands are imported when they are called; its help is written without importing them."""

    def __init__(self, *args: Any, table: Mapping[str, Late], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        late = self.table.get(cmd_name)
        if late is None:
            return None
        command = getattr(importlib.import_module(f"{__package__}.{late.module}"), late.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{late.module}.{late.attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, late.help) for name, late in self.table.items()])

"""The command `afw`: the table of its commands, and the one place where errors become words and exit codes.

Invariant: answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 not found or refused, 2 unavailable
or wrong usage, 130 interrupted, 141 when the reader of a pipe went away. With `--json` an error is one object on
stdout, in the shape that every interface uses.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from agentic_flywheel.interfaces.cli.frame import Invocation, Late, LateGroup

COMMANDS = {
    "ask": Late("ask", "ask", "Ask a question; the answer is remembered."),
    "chat": Late("chat", "chat", "Talk in one session."),
    "session": Late("session", "session", "List, read, resume, tag and delete sessions."),
    "cache": Late("cache", "cache", "Look at stored answers, and clear them."),
    "flow": Late("flow", "flow", "List, add, change, check and try flows."),
    "ttl": Late("ttl", "ttl", "How long answers stay good."),
    "config": Late("config", "config", "Settings, and where each came from."),
    "doctor": Late("doctor", "doctor", "What is fine, what is not, and what to do."),
    "redis": Late("redis", "redis", "The embedded Redis server."),
    "mcp": Late("mcp", "mcp", "Serve MCP clients over stdio."),
    "tash": Late("plain", "tash", "Store a value under a key, as `coaia tash` does."),
    "fetch": Late("plain", "fetch", "Read a value by its key, as `coaia fetch` does."),
}

INTERRUPTED = 130
READER_GONE = 141


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"afw {version('agentic-flywheel')}")
    context.exit()


@click.group(
    cls=LateGroup,
    table=COMMANDS,
    epilog="`afw COMMAND --help` tells more. Exit codes: 0 done, 1 not found or refused, 2 unavailable or wrong usage.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def afw(context: click.Context) -> None:
    """Ask AI flows, with a memory: answers are kept, served again when that is right, and explained."""
    context.ensure_object(Invocation)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `afw` and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run `afw` with these arguments and return the exit code."""
    as_json = "--json" in arguments
    try:
        result: Any = afw.main(list(arguments), prog_name="afw", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        return _report_usage(error, as_json=as_json)
    except Exception as error:
        # The tree of errors is imported late: a command line that only shows help needs none of it.
        from agentic_flywheel.errors import FlywheelError

        if not isinstance(error, FlywheelError):
            raise
        return _report(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not fail on the closed pipe."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a file descriptor has nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(error: click.ClickException, *, as_json: bool) -> int:
    if not as_json:
        error.show()
        return error.exit_code
    from agentic_flywheel.errors import InputError

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "afw"
    _report(InputError(error.format_message(), suggestions=(f"Read `{path} --help`.",), command=path), as_json=True)
    return error.exit_code


def _report(error: Any, *, as_json: bool) -> int:
    from agentic_flywheel.interfaces.cli.terminal import print_error

    try:
        print_error(error, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    return int(error.exit_code)


if __name__ == "__main__":
    main()

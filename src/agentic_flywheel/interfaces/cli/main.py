"""The command `afw`: where a call begins and ends, and the one place where errors become words and exit codes.

Invariant: answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 not found or refused, 2 unavailable
or wrong usage, 130 interrupted, 141 when the reader of a pipe went away. With `--json` an error is one object on
stdout, in the shape that every interface uses. Nothing of weight is imported before a client of `afw mcp` has its
first answer, click included.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    import click

    from agentic_flywheel.interfaces.mcp.opening import Opening

INTERRUPTED = 130
READER_GONE = 141


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `afw` and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run `afw` with these arguments and return the exit code."""
    opening = None
    if "mcp" in arguments:
        from agentic_flywheel.interfaces.mcp.opening import answer_opening, serves_mcp

        if serves_mcp(arguments):
            try:
                opening = answer_opening()
            except KeyboardInterrupt:
                return INTERRUPTED
    return _run(list(arguments), opening)


def _run(arguments: list[str], opening: Opening | None) -> int:
    import click

    from agentic_flywheel.interfaces.cli.commands import afw
    from agentic_flywheel.interfaces.cli.frame import Invocation

    as_json = "--json" in arguments
    invocation = Invocation(opening=opening)
    try:
        result: Any = afw.main(arguments, prog_name="afw", standalone_mode=False, obj=invocation)
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
        return _report(error, invocation.command, as_json=as_json)
    return result if isinstance(result, int) else 0


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit does not fail on the closed pipe."""
    import contextlib

    with contextlib.suppress(OSError, ValueError):  # a stdout without a file descriptor has nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_usage(error: click.ClickException, *, as_json: bool) -> int:
    if not as_json:
        error.show()
        return error.exit_code
    from agentic_flywheel.errors import InputError

    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "afw"
    _report(InputError(error.format_message(), command=path), path, as_json=True)
    return error.exit_code


def _report(error: Any, command: str, *, as_json: bool) -> int:
    from agentic_flywheel.interfaces.cli.terminal import print_error

    error.suggestions = tuple(advice.replace("afw COMMAND", command) for advice in error.suggestions)
    try:
        print_error(error, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return READER_GONE
    return int(error.exit_code)


if __name__ == "__main__":
    main()

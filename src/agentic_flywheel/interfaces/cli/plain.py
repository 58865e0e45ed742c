"""`afw tash` and `afw fetch`: drop-in companions of `coaia tash` and `coaia fetch` (see `agentic_flywheel.coaia`)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

REFUSED = 1


@click.command("tash", cls=FlywheelCommand, epilog="Example: afw tash note 'remember this' -T 60")
@click.argument("key")
@click.argument("value", required=False)
@click.option("-F", "--file", metavar="FILE", help="Store what is in this file; it wins over VALUE.")
@click.option(
    "-T", "--ttl", type=int, default=None, metavar="MINUTES", help="Lifetime in minutes; 0: no expiry. [5555]"
)
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.pass_obj
def tash(invocation: Invocation, key: str, value: str | None, file: str | None, ttl: int | None, verbose: bool) -> None:
    """Store VALUE ("-" reads it from stdin) under KEY, for `afw fetch` and `coaia fetch` to read."""
    from agentic_flywheel import coaia
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    minutes = coaia.DEFAULT_MINUTES if ttl is None else ttl
    raw = _content(value, file)
    line = invocation.run(lambda flywheel: coaia.stash(flywheel, key, raw, minutes))
    if verbose:
        until = counted(minutes, "minutes") if minutes > 0 else "no expiry"
        note(f"{len(raw)} bytes, {until}")
    if invocation.as_json:
        ttl_seconds = minutes * 60 if minutes > 0 else None
        print_json({"success": True, "key": key, "bytes": len(raw), "ttl_seconds": ttl_seconds, "message": line})
    else:
        print(line)


def _content(value: str | None, file: str | None) -> bytes:
    if file is not None:
        return _read(file)
    if value == "-":
        return sys.stdin.buffer.read()
    return b"" if value is None else value.encode("utf-8", "surrogateescape")


def _read(file: str) -> bytes:
    from agentic_flywheel.errors import InputError

    try:
        return Path(file).read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"File '{file}' does not exist.", suggestions=("Check the path; it is meant from here.",), file=file
        ) from error
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}", file=file) from error


@click.command("fetch", cls=FlywheelCommand, epilog="Example: afw fetch note -O note.txt")
@click.argument("key")
@click.option("-O", "--output", metavar="FILE", help="Write the value to this file, byte for byte.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.pass_obj
def fetch(invocation: Invocation, key: str, output: str | None, verbose: bool) -> int:
    """Print the value that `afw tash` or `coaia tash` stored under KEY. Exit code 1 if there is none."""
    from agentic_flywheel import coaia
    from agentic_flywheel.errors import StoreMisused, StoreRefused, StoreUnavailable, UnknownKey
    from agentic_flywheel.interfaces.cli.terminal import note, print_error

    try:
        value = invocation.run(lambda flywheel: coaia.fetch(flywheel, key))
    except StoreMisused as error:
        print_error(error, as_json=invocation.as_json)
        return REFUSED  # coaia's exit code for a key that holds something else
    except (UnknownKey, StoreUnavailable, StoreRefused) as error:
        if invocation.as_json:
            raise
        # Scripts written for coaia read these lines on stdout.
        print(f"Error: {error.message}" if isinstance(error, UnknownKey) else coaia.unreachable_lines(error))
        for suggestion in error.suggestions:
            note(f"  - {suggestion}")
        return error.exit_code
    if verbose:
        note(f"{len(value)} bytes")
    _give(invocation, key, value, output)
    return 0


def _give(invocation: Invocation, key: str, value: bytes, output: str | None) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if output is not None:
        _write(output, value)
    if invocation.as_json:
        import base64

        try:
            shown = {"value": value.decode()}
        except UnicodeDecodeError:
            shown = {"value_base64": base64.b64encode(value).decode()}
        print_json({"success": True, "key": key, **({"file": output, "bytes": len(value)} if output else shown)})
    elif output is not None:
        print(f"Key: {key}  fetched and saved to {output}")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(value + b"\n")
        sys.stdout.buffer.flush()


def _write(output: str, value: bytes) -> None:
    from agentic_flywheel.errors import InputError

    try:
        Path(output).write_bytes(value)
    except OSError as error:
        raise InputError(f"cannot write '{output}': {error.strerror}", file=output) from error

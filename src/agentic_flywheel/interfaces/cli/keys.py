"""`afw keys`: the keys that values are encrypted with; those of callers of the service are `afw key`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.encryption import KeyState

UNFIT = 1


@click.group("keys", cls=FlywheelGroup)
def keys() -> None:
    """Keys that values are encrypted with."""


@keys.command("show")
@click.pass_obj
def show(invocation: Invocation) -> int:
    """Say which keys are configured here, and which the tenant's values are encrypted with.

    Never a key itself. Exit code 1 if this process lacks one that is in use.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    found = invocation.run(lambda flywheel: flywheel.encryption.state())
    if invocation.as_json:
        print_json(found)
    else:
        _show(found)
    lacking = any(view.used and not view.here for view in found.keys)
    return UNFIT if found.problem or lacking else 0


def _show(found: KeyState) -> None:
    from agentic_flywheel.interfaces.cli.terminal import ago, note, pairs, table, warn

    since = f"encrypted since {ago(found.since)}" if found.since else "not encrypted"
    pairs(
        [
            ("tenant", f"{found.tenant}, {since}"),
            ("keys from", found.origin or "nowhere: none is configured"),
            ("rotation", "one was begun and is not at its end: `afw keys rotate` goes on" if found.rotating else ""),
        ]
    )
    rows = [
        [
            view.id,
            view.check,
            "yes" if view.here else "no",
            ", ".join(
                word
                for word, holds in (
                    ("encrypts", view.current),
                    ("values", view.used),
                    ("index", view.id == found.index),
                )
                if holds
            ),
        ]
        for view in found.keys
    ]
    if rows:
        table(rows, ["key", "check", "here", "in use for"])
    if found.problem:
        warn(found.problem)
    if not found.keys:
        note("`afw keys create` makes a key; docs/encryption.md says how to use it.")


@keys.command("create")
@click.argument("id_", metavar="[ID]", required=False)
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="Append it to this file, which you alone may read."
)
@click.pass_obj
def create(invocation: Invocation, id_: str | None, path: Path | None) -> None:
    """Make a key: print its line, or append it to a file.

    Without ID it is called by today's date. The first key of a file encrypts, unless encryption.current says otherwise;
    so a key that is appended to others decrypts alone, until every process has it.
    """
    import os
    from datetime import UTC, datetime

    from agentic_flywheel.errors import InputError
    from agentic_flywheel.interfaces.cli.terminal import note, print_json
    from agentic_flywheel.store.keyring import new_key, parsed

    name = id_ or datetime.now(UTC).strftime("k%Y%m%d")
    line = new_key(name)
    first = True
    if path is not None:
        try:
            text = path.read_text("utf-8") if path.exists() else ""
            if text.strip():
                first = False
                if name in parsed(text, str(path)).keys:
                    raise InputError(f"{path} has a key {name} already", suggestions=("Give the new one another id.",))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(("\n" if text and not text.endswith("\n") else "") + line + "\n")
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}", suggestions=("Name another file.",)
            ) from error
    if invocation.as_json:
        print_json({"id": name, "file": path, "key": None if path is not None else line})
    elif path is None:
        print(line)
    else:
        print(f"key {name} appended to {path}")
    if not invocation.as_json:
        if path is not None and first:
            note(f"Give it to every process: AFW_ENCRYPTION_KEY_FILE={path}. Keep a copy elsewhere.")
        elif path is not None:
            note(f"Once every process has it: encryption.current = {name}, then `afw keys rotate`.")
        else:
            note("Keep a copy of it: what is encrypted with a key that is lost is lost as well.")


@keys.command("rotate")
@click.pass_obj
def rotate(invocation: Invocation) -> int:
    """Encrypt everything with the current key: what is plain, and what was encrypted with another one.

    While others ask and answer; when it is stopped, the next one goes on where it was. Exit code 1 if something is
    left: programs go on writing with another key, or values are there that no key here opens.
    """
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, warn

    bar = _bar()
    done = invocation.run(lambda flywheel: flywheel.encryption.rotate(bar))
    if invocation.as_json:
        print_json(done)
    else:
        if done.resumed:
            note("It went on with a rotation that was stopped.")
        print(f"{counted(done.sealed, 'values')} encrypted with {done.key} in {done.seconds:.1f} s")
        if done.unreadable:
            warn(f"{counted(done.unreadable, 'values')} left as they are: no key here opens them")
        if done.complete:
            note("Nothing is left that another key encrypted, but for outboxes of other machines.")
        else:
            warn("Somebody goes on writing with another key, or none: give it the current one, and run this again.")
    return 0 if done.complete and not done.unreadable else UNFIT


def _bar() -> Callable[[int, int, int], None]:
    """A progress bar on stderr, where that is a terminal."""
    shown = [(-1, 0)]

    def draw(done: int, total: int, number: int) -> None:
        share = done * 100 // max(1, total)
        if (share, number) == shown[0] or not sys.stderr.isatty():
            return
        shown[0] = (share, number)
        filled = "█" * (share * 30 // 100)
        end = "\n" if share == 100 else ""
        print(f"\rpass {number} {filled:░<30} {share:3} % of {total:,}", end=end, file=sys.stderr, flush=True)

    return draw

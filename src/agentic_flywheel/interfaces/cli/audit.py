"""`afw audit`: who did what, and whether the log and the receipts for it are as they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.callers import AuditEntry

BROKEN = 1


@click.group("audit", cls=FlywheelGroup)
def audit() -> None:
    """Who administered what, when and why."""


@audit.command("list", epilog="Example: afw audit list --limit 20")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", default="", metavar="CURSOR", help="Go on where an earlier list ended.")
@click.pass_obj
def list_(invocation: Invocation, limit: int, cursor: str) -> None:
    """Show who administered what, when and why, newest first."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, table

    entries, more = invocation.run(lambda flywheel: flywheel.audit.list(limit=limit, cursor=cursor))
    if invocation.as_json:
        print_json({"entries": entries, "cursor": more})
        return
    if not entries:
        note("Nothing was administered yet.")
        return
    table([_row(entry) for entry in entries], ["", "when", "who", "what", "to", "with", "why"])
    if more:
        note(f"More: afw audit list --cursor {more}")


@audit.command("verify", epilog="Example: afw audit verify --against 41:9f86d0...")
@click.option("--against", default="", metavar="HEAD", help="What an earlier verify printed as the log's head.")
@click.pass_obj
def verify(invocation: Invocation, against: str) -> int:
    """Check that every entry stands where and as it was written.

    Note the head that it prints somewhere else: only against that can be seen that the end was cut off, or all of it
    written anew.
    """
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, say

    verdict = invocation.run(lambda flywheel: flywheel.audit.verify(against=against))
    if invocation.as_json:
        print_json(verdict)
    elif verdict.intact:
        say(verdict.head or "0:")
        note(f"{counted(verdict.entries, 'entries')}, each where and as it was written.")
    else:
        note(f"Broken: entry {verdict.broken_at} {verdict.fault}. {counted(verdict.entries, 'entries')} stand there.")
    return 0 if verdict.intact else BROKEN


@audit.command("receipt", epilog="Example: afw audit receipt forgotten.json")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--signed-by", default="", metavar="KEY", help="The public key of the installation that gave it.")
@click.pass_obj
def receipt(invocation: Invocation, file: str, signed_by: str) -> int:
    """Check a receipt that a command printed with --json.

    Its signature, whose it is (this installation's, unless --signed-by), and that the audit log bears it out.
    """
    import msgspec

    from agentic_flywheel.errors import InputError
    from agentic_flywheel.interfaces.cli.receipt import show_receipt
    from agentic_flywheel.interfaces.cli.terminal import note, print_json
    from agentic_flywheel.model import Receipt

    try:
        with click.open_file(file, "rb") as opened:
            given = msgspec.json.decode(opened.read(), type=Receipt)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InputError(
            f"{file} holds no receipt: {error}", suggestions=("Give what a command printed with --json.",)
        ) from error
    verdict = invocation.run(lambda flywheel: flywheel.audit.verify_receipt(given, signed_by=signed_by))
    if invocation.as_json:
        print_json(verdict)
        return 0 if verdict.valid else BROKEN
    show_receipt(given)
    if verdict.valid:
        note(f"As it was given: signed by {verdict.signer}, entry {verdict.audit.partition(':')[0]} of the audit log.")
    for fault in verdict.faults:
        note(f"Not to be relied on: {fault}.")
    return 0 if verdict.valid else BROKEN


def _row(entry: AuditEntry) -> list[str]:
    from agentic_flywheel.interfaces.cli.terminal import moment

    facts = ", ".join(f"{name} {value}" for name, value in entry.facts.items())
    return [str(entry.number), moment(entry.at), entry.by, entry.action, entry.target, facts, entry.why]

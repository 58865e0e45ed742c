"""Commands that remove things: they show what they would do, need `--yes`, and print a receipt.

Invariant: without `--yes` nothing is removed, and unless `--dry-run` said that this was the wish, the exit code is 1:
what was asked for has not been done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import Invocation

if TYPE_CHECKING:
    from agentic_flywheel.model import Receipt

NOT_DONE = 1


def confirmation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes` to do it, `--dry-run` to be shown only."""
    command = click.option("--dry-run", is_flag=True, help="Only show what would be removed.")(command)
    return click.option("--yes", is_flag=True, help="Remove it.")(command)


def report_removal(invocation: Invocation, receipt: Receipt, *, wanted_dry: bool) -> int:
    """Show the receipt and return the exit code."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    if invocation.as_json:
        print_json(receipt)
    else:
        show_receipt(receipt)
    if receipt.dry_run and not wanted_dry:
        note("Nothing has been removed. Run it again with --yes to do it.", bold=True)
        return NOT_DONE
    return 0


def show_receipt(receipt: Receipt) -> None:
    """What was removed, or would be, on stdout."""
    from agentic_flywheel.interfaces.cli.terminal import clean, counted, dim, moment

    counts = [counted(count, kind) for kind, count in receipt.removed.items() if count]
    verb = "would remove" if receipt.dry_run else "removed"
    at = f", {moment(receipt.at)}" if receipt.at and not receipt.dry_run else ""
    print(clean(f"{receipt.action} {receipt.target}{at}"))
    print(f"  {verb} {', '.join(counts) if counts else 'nothing'}")
    if receipt.unreachable:
        reach = "would no longer be served" if receipt.dry_run else "can no longer be served"
        print(f"  {counted(receipt.unreachable, 'answers')} {reach}")
    for remark in receipt.notes:
        print(dim(f"  {remark}"))

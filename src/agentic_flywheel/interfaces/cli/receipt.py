"""Commands that remove things: they show what they would do, need `--yes`, and print a receipt.

Invariant: without `--yes` nothing is removed, and unless `--dry-run` said that this was the wish, the exit code is 1:
what was asked for has not been done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Receipt

NOT_DONE = 1


def confirmation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes` to do it, `--dry-run` to be shown only."""
    command = click.option("--dry-run", is_flag=True, help="Only show what would be removed.")(command)
    return click.option("--yes", is_flag=True, help="Remove it.")(command)


def remove(
    invocation: Invocation,
    action: str,
    target: str,
    work: Callable[[Flywheel, bool], Coroutine[Any, Any, Receipt]],
    *,
    yes: bool,
    dry_run: bool,
    why: str = "",
    typed: str | None = None,
) -> int:
    """Have `work` (told whether it only is to look) done under an entry of the audit log; show the receipt and return
    the exit code. Where a person sits at a terminal, `typed` is what they have to type after they saw what would go."""
    if typed and not (yes or dry_run or invocation.as_json) and sys.stdin.isatty():
        show_receipt(invocation.run(lambda flywheel: work(flywheel, True)))
        yes = click.prompt(f"Type {typed!r} to have it removed", default="", show_default=False, err=True) == typed

    async def carried_out(flywheel: Flywheel) -> Receipt:
        return await flywheel.audit.carry_out(
            action,
            target,
            lambda only_look: work(flywheel, only_look),
            by=invocation.me,
            why=why,
            dry_run=dry_run or not yes,
        )

    return report_removal(invocation, invocation.run(carried_out), wanted_dry=dry_run)


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
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import clean, dim, moment

    counts = [counted(count, kind) for kind, count in receipt.removed.items() if count]
    verb = "would remove" if receipt.dry_run else "removed"
    at = f", {moment(receipt.at)}" if receipt.at and not receipt.dry_run else ""
    print(clean(f"{receipt.action} {receipt.target}{at}"))
    print(f"  {verb} {', '.join(counts) if counts else 'nothing'}")
    if receipt.unreachable:
        reach = "would no longer be served" if receipt.dry_run else "can no longer be served"
        print(f"  {counted(receipt.unreachable, 'answers')} {reach}")
    if receipt.waiting:
        print(f"  {counted(receipt.waiting, 'traces')} wait to be deleted (afw forget --receipt {receipt.erasure})")
    for remark in receipt.notes:
        print(dim(f"  {remark}"))
    if receipt.audit:
        print(dim(clean(f"  by {receipt.by}, entry {receipt.audit.partition(':')[0]} of the audit log")))
    if receipt.signature:
        print(dim(clean(f"  signed by {receipt.signer}")))

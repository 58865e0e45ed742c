"""`afw forget`: all that came of a conversation, of a person or of certain words, wherever it is kept."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation
from agentic_flywheel.interfaces.cli.receipt import NOT_DONE, confirmation_options, remove, show_receipt

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Receipt


@click.command("forget", cls=FlywheelCommand)
@click.option("--session", metavar="ID", help="This session.")
@click.option("--user", metavar="ID", help="Everything of this user: sessions, and what was counted.")
@click.option("--matching", metavar="WORDS", help="Turns and answers that hold these words; with --user, that user's.")
@click.option("--traces", is_flag=True, help="Go on with traces of what was forgotten that wait to be deleted.")
@click.option("--receipt", metavar="ID", help="Show the later receipt: that the traces of an erasure are deleted.")
@click.option("--why", default="", metavar="TEXT", help="For the audit log.")
@confirmation_options
@click.pass_obj
def forget(
    invocation: Invocation,
    session: str | None,
    user: str | None,
    matching: str | None,
    traces: bool,
    receipt: str | None,
    why: str,
    yes: bool,
    dry_run: bool,
) -> int:
    """Remove all that came of a session, a user or certain words, for good.

    Turns go, and the answers that were computed for them, those that others share included; vectors, counts, wordings,
    drafts for the FAQ, reports. What others asked themselves stays with them. On a terminal it shows what would go and
    asks; the receipt that it prints with --json can be verified later (`afw audit receipt`).
    """
    if receipt is not None or traces:
        if session or user or matching or (traces and receipt):
            raise click.UsageError("--traces and --receipt stand alone.")
        return _shown(invocation, receipt) if receipt is not None else _go_on(invocation, yes, dry_run, why)
    if (session is not None and (user is not None or matching is not None)) or not (session or user or matching):
        raise click.UsageError(
            "Name one of --session, --user and --matching (which may go with --user), --traces or --receipt."
        )

    async def work(flywheel: Flywheel, only_look: bool) -> Receipt:
        if matching is not None:
            return await flywheel.forgetting.matching(matching, user=user or "", dry_run=only_look)
        if session is not None:
            return await flywheel.forgetting.session(session, dry_run=only_look)
        return await flywheel.forgetting.user(user or "", dry_run=only_look)

    kind = "words" if matching is not None else "session" if session is not None else "user"
    named = session or user or "of everybody"
    return remove(
        invocation, f"{kind}.forget", named, work, yes=yes, dry_run=dry_run, why=why, typed=matching or session or user
    )


def _go_on(invocation: Invocation, yes: bool, dry_run: bool, why: str) -> int:
    def work(flywheel: Flywheel, only_look: bool) -> Coroutine[Any, Any, Receipt]:
        return flywheel.erasing.go_on(dry_run=only_look)

    return remove(invocation, "traces.forget", "what waits", work, yes=yes, dry_run=dry_run, why=why)


def _shown(invocation: Invocation, erasure: str) -> int:
    """Show how far an erasure is; 1 where it is not complete."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    found = invocation.run(lambda flywheel: flywheel.erasing.receipt(erasure))
    if invocation.as_json:
        print_json(found)
    else:
        show_receipt(found)
    if not found.audit:
        note("It is not complete yet.")
    return 0 if found.audit else NOT_DONE

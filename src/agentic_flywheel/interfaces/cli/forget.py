"""`afw forget`: all that came of a conversation, of a person or of certain words, wherever it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, remove

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Receipt


@click.command("forget", cls=FlywheelCommand)
@click.option("--session", metavar="ID", help="This session.")
@click.option("--user", metavar="ID", help="Everything of this user: sessions, and what was counted.")
@click.option("--matching", metavar="WORDS", help="Turns and answers that hold these words; with --user, that user's.")
@click.option("--why", default="", metavar="TEXT", help="For the audit log.")
@confirmation_options
@click.pass_obj
def forget(
    invocation: Invocation,
    session: str | None,
    user: str | None,
    matching: str | None,
    why: str,
    yes: bool,
    dry_run: bool,
) -> int:
    """Remove all that came of a session, a user or certain words, for good.

    Turns go, and the answers that were computed for them, those that others share included; vectors, counts, wordings,
    drafts for the FAQ, reports. What others asked themselves stays with them. On a terminal it shows what would go and
    asks; the receipt that it prints with --json can be verified later (`afw audit receipt`).
    """
    if (session is not None and (user is not None or matching is not None)) or not (session or user or matching):
        raise click.UsageError("Name one of --session, --user and --matching; --matching may go with --user.")

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

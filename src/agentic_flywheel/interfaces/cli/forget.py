"""`afw forget`: all that came of a conversation, or of a person, wherever it is kept."""

from __future__ import annotations

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, report_removal


@click.command("forget", cls=FlywheelCommand)
@click.option("--session", metavar="ID", help="This session.")
@click.option("--user", metavar="ID", help="Everything of this user: sessions, and what was counted.")
@confirmation_options
@click.pass_obj
def forget(invocation: Invocation, session: str | None, user: str | None, yes: bool, dry_run: bool) -> int:
    """Remove all that came of a session or a user, for good.

    Turns go, and the answers that were computed for them, those that others share included; vectors, counts, wordings,
    drafts for the FAQ, reports. What others asked themselves stays with them.
    """
    if (session is None) == (user is None):
        raise click.UsageError("Name exactly one of --session and --user.")
    dry = dry_run or not yes
    if session is not None:
        receipt = invocation.run(lambda flywheel: flywheel.forgetting.session(session, dry_run=dry))
    else:
        receipt = invocation.run(lambda flywheel: flywheel.forgetting.user(user or "", dry_run=dry))
    return report_removal(invocation, receipt, wanted_dry=dry_run)

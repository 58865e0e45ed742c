"""`afw privacy test`: what would be kept of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.privacy_tests import PrivacyTest


@click.command(
    "test",
    cls=FlywheelCommand,
    epilog="Example: afw privacy test 'Mail ann@example.org'",
)
@click.argument("text", default="-")
@click.option("--flow", metavar="KEY", help="As asked of this flow; else the question is routed.")
@click.option("--user", metavar="ID", help="As asked by this user.")
@click.pass_obj
def test(invocation: Invocation, text: str, flow: str | None, user: str | None) -> None:
    """Show what would be kept of TEXT ("-", or nothing, reads it from stdin), what was found in it, and who would be
    given the answer again.

    Nothing is asked, stored or counted.
    """
    from agentic_flywheel.interfaces.cli.ask import read_question
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, say, table

    if text == "-":
        text = read_question()

    async def look(flywheel: Flywheel) -> PrivacyTest:
        return await flywheel.privacy.test(text, flow=flow, user=user)

    found = invocation.run(look)
    if invocation.as_json:
        print_json(found)
        return
    say(found.stored)
    if found.found:
        rows = [
            (one.kind, text[one.start : one.end], f"{one.start}-{one.end}", "taken out" if one.redacted else "kept")
            for one in found.found
        ]
        table(rows, ["", "found", "where", ""])
    else:
        note("Nothing was found.")
    for why in found.why:
        note(why)
    note(f"Flow {found.flow} redacts {', '.join(found.redacts) or 'nothing'}; " + _told(found.scope))


def _told(scope: str) -> str:
    """Who would be given the answer again."""
    return f"the answer is kept for this {scope}." if scope else "no answer is stored."

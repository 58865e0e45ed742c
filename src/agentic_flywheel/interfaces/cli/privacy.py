"""`afw privacy`: what is kept of questions and answers, and what is taken out before."""

from __future__ import annotations

import click

from agentic_flywheel.interfaces.cli.frame import Late, LateGroup

COMMANDS = {
    "test": Late("privacy_trial", "test", "Show what would be kept of a text, and why."),
    "show": Late("privacy_policy", "show", "Show the policies, what holds because of them, and how old turns are."),
    "set": Late("privacy_policy", "set_policy", "Set the policy of a flow, a user or everybody."),
    "clear": Late("privacy_policy", "clear", "Take back what `privacy set` said."),
}


@click.group("privacy", cls=LateGroup, table=COMMANDS)
def privacy() -> None:
    """What is kept of questions and answers."""

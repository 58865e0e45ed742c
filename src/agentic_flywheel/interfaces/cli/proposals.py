"""`afw proposals`: changes that evidence suggests; nothing changes before a person accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.likeness import Proposal


@click.group("proposals", cls=FlywheelGroup, invoke_without_command=True)
@click.pass_context
def proposals(context: click.Context) -> None:
    """Changes that evidence suggests.

    Without a command the open ones are listed.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_proposals)


@proposals.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that were decided, too.")
@click.pass_obj
def list_proposals(invocation: Invocation, everything: bool = False) -> None:
    """List the proposals that wait for a decision."""
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    async def work(flywheel: Flywheel) -> tuple[list[Proposal], int]:
        found = await flywheel.similar.proposals(all=everything)
        return found, 0 if invocation.as_json else len((await flywheel.faq.list()).candidates)

    found, candidates = invocation.run(work)
    if invocation.as_json:
        print_json({"proposals": found})
        return
    if candidates:
        note(f"For the FAQ: {counted(candidates, 'questions')} that many ask. Read them:  afw faq")
    if not found:
        note("Nothing is proposed." if everything else "No proposal waits for a decision.")
        return
    for number, proposal in enumerate(found):
        if number:
            print()
        show_proposal(proposal)
    if any(proposal.state == "open" for proposal in found):
        note()
        note("Decide:  afw proposals accept ID")
        note("    or:  afw proposals reject ID --reason '...'")


@proposals.command("accept")
@click.argument("proposal_id", metavar="ID")
@click.option("--user", metavar="ID", help="Who accepts it.")
@click.pass_obj
def accept(invocation: Invocation, proposal_id: str, user: str | None) -> None:
    """Accept a proposal; it holds at once, in every process."""
    _show_decided(
        invocation,
        invocation.run(
            lambda flywheel: flywheel.similar.accept(
                proposal_id, by=flywheel.settings.text("user") if user is None else user
            )
        ),
    )


@proposals.command("reject")
@click.argument("proposal_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who come after.")
@click.option("--user", metavar="ID", help="Who rejects it.")
@click.pass_obj
def reject(invocation: Invocation, proposal_id: str, reason: str, user: str | None) -> None:
    """Reject a proposal; nothing changes."""
    _show_decided(
        invocation,
        invocation.run(
            lambda flywheel: flywheel.similar.reject(
                proposal_id, reason=reason, by=flywheel.settings.text("user") if user is None else user
            )
        ),
    )


def _show_decided(invocation: Invocation, decided: Proposal) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if invocation.as_json:
        print_json(decided)
    else:
        show_proposal(decided)


def show_proposal(proposal: Proposal) -> None:
    """One proposal: what would change, on what evidence, and what became of it."""
    from agentic_flywheel.interfaces.cli.explain import rows
    from agentic_flywheel.interfaces.cli.terminal import ago, bold, seconds

    now, proposed = proposal.now, proposal.proposed
    if proposal.setting == "ttl":
        now, proposed = seconds(float(now)), seconds(float(proposed))
    print(bold(f"{proposal.flow}: {proposal.setting} {now} -> {proposed}"))
    decided = ""
    if proposal.decided_at is not None:
        by = f" by {proposal.decided_by}" if proposal.decided_by else ""
        decided = f"{proposal.state} {ago(proposal.decided_at)}{by}"
    facts = (
        ("id", proposal.id),
        ("proposed", ago(proposal.at)),
        ("evidence", proposal.evidence),
        ("decided", decided),
        ("reason", proposal.reason),
    )
    for name, value in facts:
        for line in rows(name, (value,) if value else ()):
            print(line)

"""`afw outbox`: turns that Redis did not take, which wait on this machine until it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.store.outbox import OutboxStatus

LEFT = 1


@click.group("outbox", cls=FlywheelGroup)
def outbox() -> None:
    """Turns that wait until Redis is back."""


@outbox.command("status")
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Say how much waits, since when, and what became of all that ever did."""
    from agentic_flywheel.interfaces.cli.terminal import print_json

    found = invocation.run(lambda flywheel: flywheel.outbox.status())
    if invocation.as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: OutboxStatus) -> None:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import ago, pairs, size

    waiting = f"{counted(found.waiting, 'turns')} of {counted(found.sessions, 'sessions')}"
    pairs(
        [
            ("waiting", f"{waiting}, the oldest kept {ago(found.oldest_at)}" if found.oldest_at else "nothing"),
            ("set aside", counted(found.rejected, "turns") if found.rejected else ""),
            ("size", f"{size(found.size_bytes)} of {size(found.cap_bytes)}"),
            ("so far", f"{found.kept} kept, {found.delivered} delivered, {found.lost} lost"),
            ("path", str(found.path)),
            (
                "switched off",
                "" if found.enabled else "outbox.enabled is false: turns that Redis does not take are lost",
            ),
            *(("unreadable", file) for file in found.unreadable),
            *(("elsewhere", f"{size(amount)} for {address}") for address, amount in found.elsewhere.items()),
        ]
    )


@outbox.command("list")
@click.pass_obj
def list_turns(invocation: Invocation) -> None:
    """List the turns that wait, oldest first, and those that Redis refused for good.

    Only those of this tenant; `status` counts all.
    """
    from agentic_flywheel.interfaces.cli.terminal import ago, note, one_line, print_json, table

    async def work(flywheel: Flywheel) -> tuple[list[Any], list[Any]]:
        waiting = [turn for turns in (await flywheel.outbox.sessions()).values() for turn in turns]
        return waiting, await flywheel.outbox.rejected()

    waiting, rejected = invocation.run(work)
    if invocation.as_json:
        refused = [
            {"session_id": one.kept.session, "turn_id": one.kept.turn, "reason": one.reason, "at": one.at}
            for one in rejected
        ]
        print_json({"waiting": waiting, "rejected": refused})
        return
    if not waiting and not rejected:
        note("Nothing waits.")
        return
    rows = [[turn.session_id, turn.id, ago(turn.at), "waits", one_line(turn.question)] for turn in waiting]
    rows += [[one.kept.session, one.kept.turn, ago(one.at), "set aside", one_line(one.reason, 100)] for one in rejected]
    table(rows, ["session", "turn", "when", "state", "question or reason"])


@outbox.command("deliver")
@click.option("--rejected", is_flag=True, help="Also try again what Redis refused for good.")
@click.pass_obj
def deliver(invocation: Invocation, rejected: bool) -> int:
    """Deliver everything that waits, now.

    Exit code 1 if turns are left or were set aside, 2 if Redis cannot be reached.
    """
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    async def work(flywheel: Flywheel) -> tuple[int, OutboxStatus]:
        if rejected:
            await flywheel.outbox.deliver_rejected()
        return (await flywheel.outbox.deliver()).delivered, await flywheel.outbox.status()

    delivered, found = invocation.run(work)
    left = found.waiting + found.rejected
    if invocation.as_json:
        print_json({"delivered": delivered, "waiting": found.waiting, "rejected": found.rejected})
    else:
        print(f"{counted(delivered, 'turns')} delivered")
        if left:
            note(f"{counted(left, 'turns')} left: `afw outbox list` shows them.")
    return LEFT if left else 0


@outbox.command("path")
@click.pass_obj
def path(invocation: Invocation) -> None:
    """Print the directory of the outbox for the Redis in use."""
    from agentic_flywheel.interfaces.cli.terminal import print_json, say

    found = invocation.open().outbox.path
    if invocation.as_json:
        print_json({"path": found})
    else:
        say(str(found))

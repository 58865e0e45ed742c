"""`afw session`: conversations that are kept, as people look at them and put them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, report_removal

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Session, Thread, Turn


@click.group("session", cls=FlywheelGroup)
def session() -> None:
    """List, read, resume, rename, tag and delete sessions."""


@session.command("list")
@click.option("--user", metavar="ID", help="Only sessions of this user.")
@click.option("--tag", metavar="TAG", help="Only sessions with this tag.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.option("--cursor", default="", metavar="CURSOR", help="Go on where an earlier list ended.")
@click.pass_obj
def list_sessions(invocation: Invocation, user: str | None, tag: str | None, limit: int, cursor: str) -> None:
    """List sessions, the one that was active last first."""
    from agentic_flywheel.interfaces.cli.terminal import ago, note, one_line, print_json, table, warn

    page = invocation.run(lambda flywheel: flywheel.sessions.list(user=user, tag=tag, limit=limit, cursor=cursor))
    if invocation.as_json:
        print_json(page)
        return
    if not page.sessions:
        note("No sessions yet: `afw ask` begins one." if not (user or tag or cursor) else "No such sessions.")
        return
    rows = [
        [s.id, str(s.turns), ago(s.last_active_at), s.flow, s.owner, " ".join(s.tags), one_line(s.title)]
        for s in page.sessions
    ]
    table(rows, ["session", "turns", "last active", "flow", "owner", "tags", "title"])
    for warning in page.warnings:
        warn(warning)
    if page.cursor:
        note(f"More: afw session list --cursor {page.cursor}")


@session.command("show")
@click.argument("session_id", metavar="SESSION")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest N turns.")
@click.pass_obj
def show(invocation: Invocation, session_id: str, limit: int | None) -> None:
    """Show a session as a thread.

    Who asked what, when, how it was answered, and which earlier turns enriched it.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    thread = invocation.run(lambda flywheel: flywheel.sessions.show(session_id, limit=limit))
    if invocation.as_json:
        print_json(thread)
    else:
        show_thread(thread)


def show_thread(thread: Thread) -> None:
    """A session's head and its turns, oldest first, on stdout; what people should know of it on stderr."""
    from agentic_flywheel.interfaces.cli.terminal import warn

    for warning in thread.warnings:
        warn(warning)
    show_head(thread.session)
    first = max(1, thread.session.turns - len(thread.turns) + 1)
    numbers = {turn.id: number for number, turn in enumerate(thread.turns, first)}
    for turn in thread.turns:
        print()
        show_turn(turn, numbers)


def show_head(session: Session) -> None:
    """What is known of a session without its turns, in two lines."""
    from agentic_flywheel.interfaces.cli.terminal import ago, bold, counted, dim, one_line

    print(bold(one_line(session.title or "Untitled", 80)))
    parts = [
        session.id,
        f"owner {session.owner}" if session.owner else "",
        counted(session.turns, "turns"),
        session.flow,
        f"begun {ago(session.created_at)}",
        f"last active {ago(session.last_active_at)}",
        f"tags {', '.join(session.tags)}" if session.tags else "",
    ]
    print(dim(" · ".join(part for part in parts if part)))


def show_turn(turn: Turn, numbers: dict[str, int]) -> None:
    """One turn of a thread; `numbers` gives the place of each turn of the thread by its id."""
    from agentic_flywheel.interfaces.cli.terminal import ago, bold, dim, milliseconds, moment, origin, paragraphs

    said = [
        turn.user or "somebody",
        f"{ago(turn.at)} ({moment(turn.at)})",
        turn.flow,
        f"{turn.outcome}: {origin(turn.reason, turn.similarity, turn.matched_question)}",
        f"FAQ {turn.faq}" if turn.faq else "",
        milliseconds(turn.elapsed_ms),
        "private" if turn.private else "",
        f"turn {turn.id}",
    ]
    print(dim(f"{numbers[turn.id]:>3}  " + " · ".join(part for part in said if part)))
    if turn.context:
        places = [str(numbers[earlier]) if earlier in numbers else earlier for earlier in turn.context]
        print(dim(f"     enriched by turn{'s' * (len(places) > 1)} {', '.join(places)}"))
    question = paragraphs(turn.question, "     ")
    print("\n".join(bold(line) for line in question.splitlines()))
    print(paragraphs(turn.answer, "     "))


@session.command("resume")
@click.argument("session_id", metavar="[SESSION]", required=False)
@click.option("--user", metavar="ID", help="The newest session of this user.")
@click.option("--turns", type=click.IntRange(1, 100), default=3, show_default=True, help="Show the last N turns.")
@click.pass_obj
def resume(invocation: Invocation, session_id: str | None, user: str | None, turns: int) -> None:
    """Show where a session stands, and how to go on.

    Without SESSION it is the newest one.
    """
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    async def work(flywheel: Flywheel) -> Thread:
        found = await flywheel.sessions.resume(session_id, user=user)
        return await flywheel.sessions.show(found.id, limit=turns)

    thread = invocation.run(work)
    if invocation.as_json:
        print_json(thread)
        return
    show_thread(thread)
    import shlex

    named = shlex.quote(thread.session.id)
    note()
    note(f"Go on:  afw ask --session {named} 'your question'")
    note(f"   or:  afw chat --session {named}")


@session.command("rename")
@click.argument("session_id", metavar="SESSION")
@click.argument("title")
@click.pass_obj
def rename(invocation: Invocation, session_id: str, title: str) -> None:
    """Give a session a title."""
    _show_changed(invocation, invocation.run(lambda flywheel: flywheel.sessions.rename(session_id, title)))


@session.command("tag")
@click.argument("session_id", metavar="SESSION")
@click.argument("add", metavar="[TAG]...", nargs=-1)
@click.option("--remove", metavar="TAG", multiple=True, help="Take this tag away; may be repeated.")
@click.pass_obj
def tag(invocation: Invocation, session_id: str, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Add tags to a session, or take them away."""
    if not add and not remove:
        raise click.UsageError("Name a tag to add, or --remove TAG.")
    _show_changed(
        invocation, invocation.run(lambda flywheel: flywheel.sessions.tag(session_id, add=add, remove=remove))
    )


def _show_changed(invocation: Invocation, changed: Session) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if invocation.as_json:
        print_json(changed)
    else:
        show_head(changed)


@session.command("delete")
@click.argument("session_id", metavar="SESSION")
@confirmation_options
@click.pass_obj
def delete(invocation: Invocation, session_id: str, yes: bool, dry_run: bool) -> int:
    """Delete a session.

    Its turns go, and the answers that were kept for it alone.
    """
    receipt = invocation.run(lambda flywheel: flywheel.sessions.delete(session_id, dry_run=dry_run or not yes))
    return report_removal(invocation, receipt, wanted_dry=dry_run)


@session.command("sweep")
@confirmation_options
@click.pass_obj
def sweep(invocation: Invocation, yes: bool, dry_run: bool) -> int:
    """Delete sessions past their retention.

    These are the ones that nobody has used for longer than `session.retention_days`.
    """
    receipt = invocation.run(lambda flywheel: flywheel.sessions.sweep(dry_run=dry_run or not yes))
    return report_removal(invocation, receipt, wanted_dry=dry_run)

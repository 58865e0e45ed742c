"""`afw session`: conversations that are kept, as people look at them and put them in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, remove

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Session, Thread


@click.group("session", cls=FlywheelGroup)
def session() -> None:
    """List, read, export, resume, rename, tag, link and delete sessions."""


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
@click.option("--full", is_flag=True, help="Whole answers; on a terminal long ones are cut.")
@click.pass_obj
def show(invocation: Invocation, session_id: str, limit: int | None, full: bool) -> None:
    """Show a session as a thread.

    Who asked what, when, how it was answered, which earlier turns went along, and what changed in between.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json
    from agentic_flywheel.interfaces.cli.thread import show_thread

    thread = invocation.run(lambda flywheel: flywheel.sessions.show(session_id, limit=limit))
    if invocation.as_json:
        print_json(thread)
    else:
        show_thread(thread, full=full)


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
    from agentic_flywheel.interfaces.cli.thread import show_thread

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
@click.argument("title", required=False)
@click.pass_obj
def rename(invocation: Invocation, session_id: str, title: str | None) -> None:
    """Give a session a title.

    Without TITLE it is called by what was asked in it again.
    """
    _show_changed(invocation, invocation.run(lambda flywheel: flywheel.sessions.rename(session_id, title)))


@session.command("link")
@click.argument("session_id", metavar="SESSION")
@click.argument("other")
@click.pass_obj
def link(invocation: Invocation, session_id: str, other: str) -> None:
    """Tie two sessions of one user to each other."""
    _show_links(invocation, invocation.run(lambda flywheel: flywheel.sessions.link(session_id, other)))


@session.command("unlink")
@click.argument("session_id", metavar="SESSION")
@click.argument("other")
@click.pass_obj
def unlink(invocation: Invocation, session_id: str, other: str) -> None:
    """Untie two sessions."""
    _show_links(invocation, invocation.run(lambda flywheel: flywheel.sessions.unlink(session_id, other)))


@session.command("links")
@click.argument("session_id", metavar="SESSION")
@click.option("--user", metavar="ID", help="Who looks: nothing that is only for others plays a part.")
@click.option(
    "--limit", type=click.IntRange(0, 50), default=5, show_default=True, help="Find at most so many on the same topic."
)
@click.pass_obj
def links(invocation: Invocation, session_id: str, user: str | None, limit: int) -> None:
    """Show which sessions belong to one: those that were tied to it, and those of the same user on the same topic."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, warn
    from agentic_flywheel.interfaces.cli.thread import link_text

    found = invocation.run(lambda flywheel: flywheel.links.of(session_id, user=user, limit=limit))
    if invocation.as_json:
        print_json(found)
        return
    for warning in found.warnings:
        warn(warning)
    for one in found.links:
        print(link_text(one))
    if not found.links:
        note("No session belongs to it.")


@session.command("export")
@click.argument("session_id", metavar="SESSION")
@click.argument("file", required=False, type=click.Path(dir_okay=False, writable=True))
@click.option(
    "--format", "form", type=click.Choice(["markdown", "json"]), help="As what. [json if FILE ends so, else markdown]"
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest N turns.")
@click.option("--without-private", is_flag=True, help="Leave out private turns.")
@click.pass_obj
def export(
    invocation: Invocation,
    session_id: str,
    file: str | None,
    form: str | None,
    limit: int | None,
    without_private: bool,
) -> None:
    """Write a session as a document, to FILE or to stdout: Markdown to read, or JSON."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    if invocation.as_json or (form is None and file is not None and file.endswith(".json")):
        form = "json"
    text = invocation.run(
        lambda flywheel: flywheel.sessions.export(
            session_id, form=form or "markdown", limit=limit, private=not without_private
        )
    )
    if file is None:
        click.echo(text, nl=False)
        return
    from pathlib import Path

    try:
        Path(file).write_text(text, "utf-8")
    except OSError as error:
        from agentic_flywheel.errors import InputError

        raise InputError(f"{file} cannot be written: {error.strerror or error}", file=file) from error
    if invocation.as_json:
        print_json({"file": file, "characters": len(text)})
    else:
        note(f"Written to {file}.")


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


def _show_links(invocation: Invocation, thread: Thread) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json
    from agentic_flywheel.interfaces.cli.thread import show_head

    if invocation.as_json:
        print_json({"session": thread.session, "links": thread.links})
    else:
        show_head(thread.session, thread.links)


def _show_changed(invocation: Invocation, changed: Session) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json
    from agentic_flywheel.interfaces.cli.thread import show_head

    if invocation.as_json:
        print_json(changed)
    else:
        show_head(changed)


@session.command("delete")
@click.argument("session_id", metavar="SESSION")
@click.option("--turn", metavar="ID", help="Only this turn of it.")
@confirmation_options
@click.pass_obj
def delete(invocation: Invocation, session_id: str, turn: str | None, yes: bool, dry_run: bool) -> int:
    """Delete a session, or one turn of it.

    Its turns go, and the answers that were kept for it alone.
    """
    if turn is not None:
        return remove(
            invocation,
            "turn.delete",
            f"{session_id} {turn}",
            lambda flywheel, only_look: flywheel.sessions.delete_turn(session_id, turn, dry_run=only_look),
            yes=yes,
            dry_run=dry_run,
        )
    return remove(
        invocation,
        "session.delete",
        session_id,
        lambda flywheel, only_look: flywheel.sessions.delete(session_id, dry_run=only_look),
        yes=yes,
        dry_run=dry_run,
    )


@session.command("sweep")
@confirmation_options
@click.pass_obj
def sweep(invocation: Invocation, yes: bool, dry_run: bool) -> int:
    """Delete sessions and turns past their retention.

    Sessions that nobody has used for longer than `session.retention_days`, and turns that a privacy policy lets be no
    older, also in sessions that go on.
    """
    return remove(
        invocation,
        "session.sweep",
        "past their retention",
        lambda flywheel, only_look: flywheel.retention.sweep(dry_run=only_look),
        yes=yes,
        dry_run=dry_run,
    )

"""`afw faq`: what asks for a place in the FAQ, and all that a person does about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, remove

if TYPE_CHECKING:
    from agentic_flywheel.curated import FaqCandidate, FaqChange, FaqView
    from agentic_flywheel.flywheel import Flywheel

_Command = TypeVar("_Command", bound=Callable[..., Any])
STANDARD = "-"


@click.group("faq", cls=FlywheelGroup, invoke_without_command=True)
@click.pass_context
def faq(context: click.Context) -> None:
    """Answers that somebody stands behind.

    Without a command, what there is, and what asks for a place.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_entries)


def _words_options(command: _Command) -> _Command:
    """What is said of an entry: its answer and other wordings, or a turn that has them."""
    for option in (
        click.option("--turn", metavar="ID", help="Take the answer of this turn."),
        click.option(
            "--answer-file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True), help="It is in FILE."
        ),
        click.option("--answer", metavar="TEXT", help="The answer; `-` reads it from stdin."),
        click.option("--wording", "wordings", multiple=True, metavar="TEXT", help="Another way to ask it; repeatable."),
    ):
        command = option(command)
    return command


_user_option = click.option("--user", metavar="ID", help="Who does this; else the setting `user`.")


@faq.command("list")
@click.option("--flow", metavar="KEY", help="Only this flow's.")
@click.option("--all", "everything", is_flag=True, help="Retired entries, too.")
@click.option("--days", type=click.IntRange(1, 90), default=30, show_default=True, help="Count candidates over N days.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Show at most N candidates.")
@click.pass_obj
def list_entries(
    invocation: Invocation, flow: str | None = None, everything: bool = False, days: int = 30, limit: int = 20
) -> None:
    """List the FAQ: what waits for a person first.

    Then the candidates: questions that many ask and that are in no entry yet.
    """
    from agentic_flywheel.interfaces.cli.faq_showing import show_list
    from agentic_flywheel.interfaces.cli.terminal import print_json

    found = invocation.run(lambda flywheel: flywheel.faq.list(flow=flow, retired=everything, days=days, limit=limit))
    if invocation.as_json:
        print_json(found)
    else:
        show_list(found)


@faq.command("show")
@click.argument("faq_id", metavar="ID")
@click.pass_obj
def show(invocation: Invocation, faq_id: str) -> None:
    """Show an entry with its history, or a candidate; IDs may be shortened."""
    from agentic_flywheel.interfaces.cli.faq_showing import show_candidate, show_entry
    from agentic_flywheel.interfaces.cli.terminal import print_json

    async def work(flywheel: Flywheel) -> tuple[FaqView, tuple[FaqChange, ...]] | FaqCandidate:
        from agentic_flywheel.errors import UnknownFaqEntry

        try:
            view = await flywheel.faq.show(faq_id)
        except UnknownFaqEntry:
            return await flywheel.faq.candidate(faq_id)
        return view, tuple(await flywheel.faq.history(view.id))

    found = invocation.run(work)
    if not isinstance(found, tuple):
        print_json({"candidate": found}) if invocation.as_json else show_candidate(found)
        return
    view, history = found
    if invocation.as_json:
        print_json({"state": view.state, "why": view.why, "entry": view.entry, "history": history})
    else:
        show_entry(view, history)


@faq.command("add", epilog="Example: afw faq add 'How long are answers kept?' --flow docs --answer 'For 7 days.'")
@click.argument("question", required=False, default="")
@click.option("--flow", metavar="KEY", help="Of which flow it is; else that of the turn.")
@_words_options
@_user_option
@click.pass_obj
def add(
    invocation: Invocation,
    question: str,
    flow: str | None,
    wordings: tuple[str, ...],
    answer: str | None,
    answer_file: str | None,
    turn: str | None,
    user: str | None,
) -> None:
    """Begin an entry; it is served once it is approved.

    Without --answer, --answer-file or --turn your editor opens.
    """
    said = _said(answer, answer_file)
    if not question and turn is None:
        raise click.UsageError("Say the QUESTION, or a --turn that asked it.")
    if said is None and turn is None:
        from agentic_flywheel.insight.faq_page import Page

        page = _written(Page(question, wordings, ""), "Write the answer below its heading, save, and leave.")
        question, wordings, said = page
    _show_changed(
        invocation,
        invocation.run(
            lambda flywheel: flywheel.faq.add(
                question, said or "", flow=flow, wordings=wordings, turn=turn, by=_who(flywheel, user)
            )
        ),
    )


@faq.command("edit")
@click.argument("faq_id", metavar="ID")
@click.option("--question", metavar="TEXT", help="The question as it is to be asked.")
@_words_options
@click.option("--no-wordings", is_flag=True, help="No other wordings than the question.")
@click.option("--revision", type=click.IntRange(1), metavar="N", help="Only if it is still at this revision.")
@_user_option
@click.pass_obj
def edit(
    invocation: Invocation,
    faq_id: str,
    question: str | None,
    wordings: tuple[str, ...],
    answer: str | None,
    answer_file: str | None,
    turn: str | None,
    no_wordings: bool,
    revision: int | None,
    user: str | None,
) -> None:
    """Change the words of an entry, or begin one from a candidate.

    What is served changes once it is approved. --wording replaces all other wordings. Without any option your editor
    opens.
    """
    if wordings and no_wordings:
        raise click.UsageError("--wording and --no-wordings exclude each other.")
    said = _said(answer, answer_file)
    others = wordings or (() if no_wordings else None)
    if (question, said, turn, others) == (None, None, None, None):
        _edit_by_hand(invocation, faq_id, revision, user)
        return
    _show_changed(
        invocation,
        invocation.run(
            lambda flywheel: flywheel.faq.edit(
                faq_id,
                question=question,
                answer=said,
                wordings=others,
                turn=turn,
                by=_who(flywheel, user),
                revision=revision,
            )
        ),
    )


@faq.command("join", epilog="Example: afw faq join 3fa9c1 'Where is the manual?'")
@click.argument("faq_id", metavar="ID")
@click.argument("wordings", nargs=-1)
@_user_option
@click.pass_obj
def join(invocation: Invocation, faq_id: str, wordings: tuple[str, ...], user: str | None) -> None:
    """Say that questions ask the same: they become wordings of a candidate or an entry.

    WORDINGS are texts or ids of candidates. Without any, all that seem to ask what the candidate asks. An entry answers
    them once it is approved.
    """
    _show_left(
        invocation, invocation.run(lambda flywheel: flywheel.faq.join(faq_id, *wordings, by=_who(flywheel, user)))
    )


@faq.command("split", epilog="Example: afw faq split 3fa9c1 'Where is the manual of the other one?'")
@click.argument("faq_id", metavar="ID")
@click.argument("wordings", nargs=-1, required=True)
@_user_option
@click.pass_obj
def split(invocation: Invocation, faq_id: str, wordings: tuple[str, ...], user: str | None) -> None:
    """Say that wordings of a candidate or an entry ask something else.

    They are not shown with the candidate again, and never given its answer as a similar question.
    """
    _show_left(
        invocation, invocation.run(lambda flywheel: flywheel.faq.split(faq_id, *wordings, by=_who(flywheel, user)))
    )


@faq.command("approve", epilog="Example: afw faq approve 3fa9c1 --owner ann --review 90d")
@click.argument("faq_id", metavar="ID")
@click.option("--owner", metavar="NAME", help="Who answers for it; else who did before, or the setting `user`.")
@click.option("--review", metavar="WHEN", help="To be looked at again: 90d, 2027-03-01, never. [faq.review_days]")
@click.option("--revision", type=click.IntRange(1), metavar="N", help="Only if it is still at this revision.")
@_user_option
@click.pass_obj
def approve(
    invocation: Invocation,
    faq_id: str,
    owner: str | None,
    review: str | None,
    revision: int | None,
    user: str | None,
) -> None:
    """Have an entry, or a candidate with its stored answer, served as it is now.

    It holds at once and in every process, until its flow changes or somebody retires it.
    """
    review_at = None if review is None else _moment(review)

    _show_changed(
        invocation,
        invocation.run(
            lambda flywheel: flywheel.faq.approve(
                faq_id, owner=owner or "", review_at=review_at, by=_who(flywheel, user), revision=revision
            )
        ),
    )


@faq.command("retire")
@click.argument("faq_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who come after.")
@click.option("--purge", is_flag=True, help="Remove the entry with its history, for good.")
@_user_option
@confirmation_options
@click.pass_obj
def retire(
    invocation: Invocation, faq_id: str, reason: str, purge: bool, user: str | None, yes: bool, dry_run: bool
) -> int:
    """Take an entry out of service, or a candidate off the list.

    Its words and its history are kept, unless --purge.
    """
    return remove(
        invocation,
        "faq.purge" if purge else "faq.retire",
        faq_id,
        lambda flywheel, only_look: flywheel.faq.retire(
            faq_id, reason=reason, purge=purge, by=_who(flywheel, user), dry_run=only_look
        ),
        yes=yes,
        dry_run=dry_run,
        why=reason,
    )


@faq.command("export")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--flow", metavar="KEY", help="Only this flow's.")
@click.option("--all", "everything", is_flag=True, help="What was approved and is not served now, too.")
@click.pass_obj
def export(invocation: Invocation, file: str | None, flow: str | None, everything: bool) -> None:
    """Write what is served as a Markdown document, or as JSON with --json.

    To stdout, or to FILE; a FILE that ends in .json gets JSON.
    """
    as_json = invocation.as_json or (file is not None and file.endswith(".json"))
    form = "json" if as_json else "markdown"

    async def work(flywheel: Flywheel) -> tuple[str, int]:
        text = await flywheel.faq.export(form=form, flow=flow, everything=everything)
        views = () if everything else await flywheel.faq.entries(flow=flow)
        return text, sum(view.entry.published is not None and not view.state.served for view in views)

    text, left = invocation.run(work)
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.errors import InputError
    from agentic_flywheel.interfaces.cli.terminal import note

    if file in (None, STANDARD):
        sys.stdout.write(text)
        sys.stdout.flush()  # so that the note comes after it where both go to one place
    else:
        try:
            Path(str(file)).write_text(text, "utf-8")
        except OSError as error:
            raise InputError(f"cannot write '{file}': {error.strerror}", file=str(file)) from error
        note(f"wrote {file}")
    if left:
        note(f"Left out, since not served now: {counted(left, 'entries')} (--all has them).")


def _who(flywheel: Flywheel, user: str | None) -> str:
    return flywheel.settings.text("user") if user is None else user


def _said(answer: str | None, file: str | None) -> str | None:
    """The answer as it was given, None where it was not."""
    if answer is not None and file is not None:
        raise click.UsageError("--answer and --answer-file exclude each other.")
    if STANDARD in {answer, file}:
        return _text(sys.stdin.buffer.read(), "in stdin")
    if file is None:
        return answer if answer is None else _text(answer.encode("utf-8", "surrogateescape"), "given")
    from agentic_flywheel.errors import InputError

    try:
        return _text(Path(file).read_bytes(), f"in '{file}'")
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}", file=file) from error


def _text(raw: bytes, where: str) -> str:
    from agentic_flywheel.errors import InputError

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the answer {where} is not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise InputError(f"the answer {where} is empty")
    return text


def _edit_by_hand(invocation: Invocation, faq_id: str, revision: int | None, user: str | None) -> None:
    """Open the entry in an editor; it is changed only if nobody else has changed it meanwhile."""
    from agentic_flywheel.curated import FaqView as View
    from agentic_flywheel.errors import FlywheelError, UnknownFaqEntry
    from agentic_flywheel.insight.faq_page import Page, page_of

    async def read(flywheel: Flywheel) -> FaqView | FaqCandidate:
        try:
            return await flywheel.faq.show(faq_id)
        except UnknownFaqEntry:
            return await flywheel.faq.candidate(faq_id)

    found = invocation.run(read)
    words = found.entry if isinstance(found, View) else found
    seen = revision if revision is not None or not isinstance(found, View) else found.entry.revision
    page = _written(
        Page(words.question, words.wordings, words.answer),
        f"{found.id}, revision {seen or 'none yet'}: it is served in these words once somebody approves it.",
    )
    try:
        changed = invocation.run(
            lambda flywheel: flywheel.faq.edit(
                found.id,
                question=page.question,
                answer=page.answer,
                wordings=page.wordings,
                by=_who(flywheel, user),
                revision=seen,
            )
        )
    except FlywheelError:
        import tempfile

        from agentic_flywheel.interfaces.cli.terminal import note

        with tempfile.NamedTemporaryFile("w", prefix="afw-faq-", suffix=".md", delete=False) as kept:
            kept.write(page_of(page))
        note(f"What you wrote is in {kept.name}", bold=True)
        raise
    _show_changed(invocation, changed)


def _written(page: Any, note: str) -> Any:
    """The page as a person leaves the editor. Aborts where nothing was saved."""
    from agentic_flywheel.insight.faq_page import page_of, read_page

    text = click.edit(page_of(page, note), extension=".md")
    if text is None:
        raise click.UsageError("Nothing was saved in the editor, so nothing is done. (VISUAL or EDITOR names it.)")
    return read_page(text)


def _moment(text: str) -> float:
    """What `--review` names, in epoch seconds: a day (UTC), so long from now, or never (0)."""
    import time
    from datetime import UTC, datetime

    from agentic_flywheel.durations import parse_duration
    from agentic_flywheel.errors import InputError

    if text.strip().casefold() == "never":
        return 0.0
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        pass
    try:
        return time.time() + parse_duration(text).total_seconds()
    except InputError as error:
        raise InputError(
            f"--review: {text[:40]!r} is no day to come: write 2027-03-01, 90d or never",
            suggestions=("Leave it out: `faq.review_days` says when.",),
        ) from error


def _show_left(invocation: Invocation, found: FaqCandidate | FaqView | None) -> None:
    from agentic_flywheel.curated import FaqView as View
    from agentic_flywheel.interfaces.cli.faq_showing import show_candidate
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    if isinstance(found, View):
        _show_changed(invocation, found)
    elif invocation.as_json:
        print_json({"candidate": found})
    elif found is None:
        note("What is left of it asks for no place any more: too few asked it.")
    else:
        show_candidate(found)


def _show_changed(invocation: Invocation, view: FaqView) -> None:
    from agentic_flywheel.interfaces.cli.faq_showing import show_entry, show_next
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if invocation.as_json:
        print_json(view)
    else:
        show_entry(view, ())
        show_next(view)

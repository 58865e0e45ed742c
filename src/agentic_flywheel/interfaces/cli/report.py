"""`afw report`: an answer is wrong, outdated or private; what that does at once is shown as a receipt."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.likeness import Report, ReportReceipt
    from agentic_flywheel.model import Answer, Turn

KINDS = ("wrong", "outdated", "private")
LAST = "last"


@click.command("report", cls=FlywheelCommand, epilog="Example: afw report last --wrong --note 'That is version 2.'")
@click.argument("turn")
@click.option("--wrong", is_flag=True, help="It does not answer the question.")
@click.option("--outdated", is_flag=True, help="It was right once.")
@click.option("--private", is_flag=True, help="It should not have been kept for others.")
@click.option("--note", default="", metavar="TEXT", help="What is the matter, for those who look after it.")
@click.option("--session", metavar="ID", help="The session of the turn; with `last`, else the newest.")
@click.option("--user", metavar="ID", help="Who reports.")
@click.option("--fresh", is_flag=True, help="Ask the flow again at once, and print what it says.")
@click.pass_obj
def report(
    invocation: Invocation,
    turn: str,
    wrong: bool,
    outdated: bool,
    private: bool,
    note: str,
    session: str | None,
    user: str | None,
    fresh: bool,
) -> None:
    """Report the answer of TURN: an id as it stands below every answer, or `last`.

    The answer is served no more. Where it was given since another question is alike, the two are never taken for each
    other again. The report counts into what is known of the flow's similar answers.
    """
    kinds = [kind for kind, said in zip(KINDS, (wrong, outdated, private), strict=True) if said]
    if len(kinds) != 1:
        raise click.UsageError("Say exactly one of --wrong, --outdated and --private.")

    async def work(flywheel: Flywheel) -> tuple[ReportReceipt, Answer | None, Turn | None]:
        inside = (await flywheel.sessions.resume(None, user=user)).id if turn == LAST and session is None else session
        receipt, answer = await flywheel.similar.report(
            turn, kinds[0], note=note, session=inside, user=user, fresh=fresh
        )
        if answer is not None or invocation.as_json:
            return receipt, answer, None
        turns = (await flywheel.sessions.show(receipt.report.session_id)).turns
        return receipt, None, next((kept for kept in turns if kept.id == receipt.report.turn_id), None)

    receipt, answer, reported = invocation.run(work)
    if invocation.as_json:
        from agentic_flywheel.interfaces.cli.terminal import print_json

        print_json({"receipt": receipt, "answer": answer})
        return
    show_report(receipt)
    if answer is not None:
        from agentic_flywheel.interfaces.cli.ask import show_answer

        print()
        show_answer(answer)
    elif reported is not None:
        from agentic_flywheel.interfaces.cli.terminal import note as remark

        remark(f"A fresh answer:  {asking_again(reported, private=private)}")


def show_report(receipt: ReportReceipt) -> None:
    """What a report did, on stdout."""
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.explain import rows

    show_reported(receipt.report)
    removed = ", ".join(counted(count, kind) for kind, count in receipt.removed.items() if count)
    for line in (*rows("removed", [removed or "nothing"]), *rows("done", receipt.done)):
        print(line)


def show_reported(said: Report) -> None:
    """What somebody said of an answer, on stdout."""
    from agentic_flywheel.interfaces.cli.explain import rows
    from agentic_flywheel.interfaces.cli.terminal import bold, likeness, moment

    print(bold(f"{said.flow}: reported as {said.kind}, {moment(said.at)}") + (f" by {said.by}" if said.by else ""))
    like = "" if said.similarity is None else f"{likeness(said.similarity)} like: {said.matched_question}"
    facts = (("turn", said.turn_id), ("question", said.question), ("answered as", like), ("note", said.note))
    for name, value in facts:
        for line in rows(name, [value] if value else []):
            print(line)


def asking_again(turn: Turn, *, private: bool) -> str:
    """The command that asks the flow afresh, as --fresh would have."""
    words = ["afw", "ask", turn.question, "--flow", turn.flow, "--session", turn.session_id, "--no-cache"]
    words += ["--user", turn.user] if turn.user else []
    words += [] if turn.context else ["--standalone"]
    words += ["--private"] if private else []
    return shlex.join(words)

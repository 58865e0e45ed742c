"""`afw popular`: what is asked often; `afw paths`: what is asked next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.insight.popular import PopularQuestion

NOTHING_KNOWN = 1
#: Other wordings of a question that are shown; JSON has them all.
_WORDINGS = 3


@click.command("popular", cls=FlywheelCommand)
@click.option("--days", type=click.IntRange(1, 90), default=30, show_default=True, help="Over the last N days.")
@click.option("--flow", metavar="KEY", help="Only questions to this flow.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.pass_obj
def popular(invocation: Invocation, days: int, flow: str | None, limit: int) -> None:
    """The questions that are asked most.

    Other wordings of a question stand below it. Only what everybody of the tenant may see is counted.
    """
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, table

    found = invocation.run(lambda flywheel: flywheel.popular.list(days, flow, limit))
    if invocation.as_json:
        print_json({"days": days, "questions": found})
        return
    if not found:
        note(f"Nothing that all may see was asked over the last {counted(days, 'days')}.")
        return
    rows = [row for question in found for row in _rows(question)]
    table(rows, ["asked", "by", "from memory", "saved", "last", "flow", "question"])
    note(f"Over the last {counted(days, 'days')}. What is asked next: afw paths QUESTION")


def _rows(question: PopularQuestion) -> list[list[str]]:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import ago, seconds

    others = question.wordings[1:]
    known = f"  (FAQ: {question.faq})" if question.faq else "" if question.entry_key else "  (no answer is stored now)"
    first = [
        str(question.asked),
        str(question.askers),
        f"{question.hit_rate:.0%}",
        seconds(question.saved_seconds) if question.saved_seconds else "-",
        ago(question.last_at),
        question.flow,
        question.question + known,
    ]
    below = [f"  {wording.count} x {wording.text}" for wording in others[:_WORDINGS]]
    if len(others) > _WORDINGS:
        below.append(f"  and {counted(len(others) - _WORDINGS, 'wordings')} more")
    return [first, *([*[""] * 6, line] for line in below)]


@click.command("paths", cls=FlywheelCommand)
@click.argument("question")
@click.argument("then", nargs=-1)
@click.option("--days", type=click.IntRange(1, 90), default=30, show_default=True, help="Over the last N days.")
@click.option("--flow", metavar="KEY", help="Only this flow.")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="At most so many.")
@click.pass_obj
def paths(invocation: Invocation, question: str, then: tuple[str, ...], days: int, flow: str | None, limit: int) -> int:
    """What people ask next, after a question.

    QUESTION is its text, or the name of its cluster; THEN what they asked after it, two questions at most. A step is
    shown once two different people took it. Exit code 1 if none is known.
    """
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, table

    found = invocation.run(lambda flywheel: flywheel.popular.next(question, *then, days=days, flow=flow, limit=limit))
    if invocation.as_json:
        print_json({"question": question, "then": then, "days": days, "next": found})
    elif found:
        rows = [[str(step.count), f"{step.share:.0%}", str(step.askers), step.flow, step.question] for step in found]
        table(rows, ["asked", "share", "by", "flow", "next question"])
    else:
        note("No two people asked the same after that. It is found in words in which it was asked: afw popular")
    return 0 if found else NOTHING_KNOWN

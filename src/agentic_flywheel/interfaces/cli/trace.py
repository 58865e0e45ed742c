"""`afw trace`: one answered question: what was done, where its answer came from, where its trace is to be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.traced import Judgement, TraceStep, TraceView

LAST = "last"


@click.command("trace", cls=FlywheelCommand, epilog="Example: afw trace last --quality 8 --feedback 'Right, but long.'")
@click.argument("turn")
@click.option("--session", metavar="ID", help="The session of the turn; with `last`, else the newest.")
@click.option("--user", metavar="ID", help="Who looks, or judges.")
@click.option("--quality", type=click.FloatRange(1, 10), metavar="N", help="Say how good the answer was, 1 to 10.")
@click.option("--feedback", default="", metavar="TEXT", help="With --quality: why.")
@click.pass_obj
def trace(
    invocation: Invocation, turn: str, session: str | None, user: str | None, quality: float | None, feedback: str
) -> None:
    """Show what became of TURN: the id of a turn or a trace, or `last`.

    The link leads to its trace, where traces are made (setting trace.exporter); everything else is what its session has
    kept.
    """
    if feedback and quality is None:
        raise click.UsageError("--feedback says why a --quality is what it is: give both.")

    async def work(flywheel: Flywheel) -> TraceView:
        inside = (await flywheel.sessions.resume(None, user=user)).id if turn == LAST and session is None else session
        if quality is not None:
            await flywheel.traces.judge(quality, id=turn, session=inside, feedback=feedback, user=user)
        return await flywheel.traces.view(turn, session=inside, user=user)

    view = invocation.run(work)
    if invocation.as_json:
        from agentic_flywheel.interfaces.cli.terminal import print_json

        print_json(view)
    else:
        show_trace(view)


def show_trace(view: TraceView) -> None:
    """A trace on stdout; what should be known of it on stderr."""
    from agentic_flywheel.interfaces.cli.explain import rows
    from agentic_flywheel.interfaces.cli.terminal import bold, dim, moment, note, paragraphs, words

    turn = view.turn
    print(bold(paragraphs(view.name, "")))
    print()
    origin = "" if turn.origin_trace_id in {"", turn.trace_id} else f"trace {turn.origin_trace_id}"
    facts: tuple[tuple[str, list[str]], ...] = (
        ("trace", [view.trace_id, view.link]),
        ("turn", [turn.id]),
        ("session", [turn.session_id]),
        ("asked", [moment(turn.at) + (f" by {turn.user}" if turn.user else "")]),
        ("answered", [f"{turn.outcome.value}: {words(turn.reason.value)}"]),
        ("computed in", [origin, view.origin_link]),
        ("after", [f"trace {view.previous_trace_id}" if view.previous_trace_id else ""]),
        ("tokens", [f"{view.tokens_in} read, {view.tokens_out} written" if view.tokens_in + view.tokens_out else ""]),
        ("took", [f"{turn.elapsed_ms:.1f} ms"]),
        ("judged", [judged(one) for one in view.judgements]),
    )
    for name, values in facts:
        for line in rows(name, [value for value in values if value]):
            print(line)
    print(f"\n{dim('Steps')}")
    for step in view.steps:
        for line in rows(step.name.removeprefix("afw."), [told(step)]):
            print(line)
    for remark in view.notes:
        note(remark)


def judged(judgement: Judgement) -> str:
    """What somebody said of an answer, in one line."""
    value = f" {judgement.value:g}/10" if judgement.name == "quality" else ""
    who = f" by {judgement.by}" if judgement.by else ""
    whole = "" if judgement.turn_id else ", of the whole session"
    return f"{judgement.name}{value}{who}{whole}" + (f": {judgement.why}" if judgement.why else "")


def told(step: TraceStep) -> str:
    """What a step has to say, in one line."""
    facts = [f"{name} {_said(value)}" for name, value in step.facts.items() if value not in ("", [], None)]
    if step.ms is not None:
        facts.append(f"{step.ms:.1f} ms")
    return ", ".join(facts) or "done"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)

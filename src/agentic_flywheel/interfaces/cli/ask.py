"""`afw ask`: one question, its answer on stdout, where it came from on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.likeness import Cut
    from agentic_flywheel.model import Answer, Candidate, Directives


def read_duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    """A duration option or argument: `7d`, `36h`, `90m`, `45s` or seconds. Raises `InputError`."""
    from agentic_flywheel.durations import parse_duration

    return None if value is None else parse_duration(value)


_BESIDE = 15  # columns in front of what an explanation says
#: How a flow was picked, for people.
ROUTES = {
    "explicit": "as named",
    "intent": "by the intent named",
    "session": "the session's flow",
    "keywords": "by its keywords",
    "fallback": "the fallback: no other fits well enough",
    "only": "the only flow",
}

#: Whose words an answer has, for people.
SOURCES = {"flow": "the flow", "cache": "a stored answer of the flow", "faq": "the FAQ: a person approved it"}

_DIRECTIVES = (
    click.option("--no-store", is_flag=True, help="Keep nothing of this question: no answer, no turn."),
    click.option("--no-cache", is_flag=True, help="Ask the flow afresh, and store what it says."),
    click.option("--only-if-cached", is_flag=True, help="Answer from memory or not at all (exit 1)."),
    click.option("--private", is_flag=True, help="Keep the answer for this session alone."),
    click.option("--standalone", is_flag=True, help="The question needs no earlier turn."),
    click.option(
        "--max-age", callback=read_duration, metavar="DURATION", help="Take no stored answer older than this."
    ),
    click.option(
        "--max-stale", callback=read_duration, metavar="DURATION", help="Take an answer so long past its lifetime."
    ),
)


def directive_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what the asker wants of the cache."""
    for option in reversed(_DIRECTIVES):
        command = option(command)
    return command


def directives_of(options: dict[str, Any]) -> Directives:
    """The directives that `directive_options` collected."""
    from agentic_flywheel.model import Directives

    return Directives(**{name: value for name, value in options.items() if value is not None})


@click.command("ask", cls=FlywheelCommand, epilog="Example: afw ask 'How long do answers stay good?' --explain")
@click.argument("question")
@click.option("--flow", metavar="KEY", help="Ask this flow; else the question is routed.")
@click.option("--session", metavar="ID", help="Ask in this session; else a new one begins.")
@click.option("--continue", "go_on", is_flag=True, help="Ask in the newest session.")
@click.option("--user", metavar="ID", help="Who asks.")
@click.option("--intent", metavar="WORD", help="What the question is for; it helps to pick the flow.")
@directive_options
@click.option("--stream", is_flag=True, help="Print the answer as it comes; with --json one event a line.")
@click.option("--explain", is_flag=True, help="Show the whole decision: route, candidates, context, key, lifetime.")
@click.pass_obj
def ask(
    invocation: Invocation,
    /,
    question: str,
    flow: str | None,
    session: str | None,
    go_on: bool,
    user: str | None,
    intent: str | None,
    stream: bool,
    explain: bool,
    **directives: Any,
) -> int:
    """Ask QUESTION ("-" reads it from stdin) and print the answer.

    The same question is answered from memory the next time, where its flow allows and has not changed. One line on
    stderr says where the answer came from.
    """
    if session is not None and go_on:
        raise click.UsageError("--session and --continue exclude each other.")
    if question == "-":
        question = read_question()

    from agentic_flywheel.interfaces.cli.voice import Voice

    voice = Voice(as_json=invocation.as_json)

    async def work(flywheel: Flywheel) -> tuple[Answer, Cut | None, Mapping[str, str]]:
        inside = (await flywheel.sessions.resume(None, user=user)).id if go_on else session
        asked: dict[str, Any] = {"session": inside, "flow": flow, "user": user, "intent": intent}
        asked["directives"] = directives_of(directives)
        if stream:
            answer = await voice.follow(flywheel.stream(question, **asked))
        else:
            answer = await flywheel.ask(question, **asked)
        cut: Cut | None = None
        earlier: Mapping[str, str] = {}
        if explain and not invocation.as_json:
            from agentic_flywheel.interfaces.cli.explain import questions_of

            cut = await _cut(flywheel, answer)
            earlier = await questions_of(flywheel, answer.session_id, answer.enrichment)
        if not stream:  # at once: what the end of the program has to wait for is none of the reader's business
            show(answer, cut, earlier)
            sys.stdout.flush()
        return answer, cut, earlier

    def show(answer: Answer, cut: Cut | None, earlier: Mapping[str, str]) -> None:
        if not invocation.as_json:
            show_notes(answer) if stream else show_answer(answer)
            if explain:
                explain_answer(answer, cut, earlier)
        elif not stream:
            from agentic_flywheel.interfaces.cli.terminal import print_json

            print_json(answer)

    if stream:
        from agentic_flywheel.errors import FlywheelError

        try:
            told = invocation.run(work)
        except FlywheelError as error:
            voice.fail(error)
            return error.exit_code
        show(*told)
    else:
        invocation.run(work)
    return 0


async def _cut(flywheel: Flywheel, answer: Answer) -> Cut | None:
    """The cut in force where a question was compared with others; None where it was not, or Redis cannot say."""
    from agentic_flywheel.errors import StoreError

    if not compared(answer):
        return None
    try:
        return (await flywheel.similar.status(answer.flow)).cut
    except StoreError:  # the answer's own warnings tell of it
        return None


def compared(answer: Answer) -> list[Candidate]:
    """The similar questions that an answer's question was compared with."""
    return [candidate for candidate in answer.considered if candidate.similarity is not None]


def read_question() -> str:
    """The question on stdin. Raises `InputError` if it is not text."""
    from agentic_flywheel.errors import InputError

    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the question on stdin is not UTF-8 text") from error


def show_answer(answer: Answer) -> None:
    """The answer on stdout; on stderr its sources, its warnings and where it came from."""
    from agentic_flywheel.interfaces.cli.terminal import say

    say(answer.text)
    sys.stdout.flush()  # so that the notes come after it where both go to one place
    show_notes(answer)


def show_notes(answer: Answer) -> None:
    """What stands below an answer, on stderr: its sources, its warnings and where it came from."""
    from agentic_flywheel.interfaces.cli.terminal import note, one_line, warn

    for number, source in enumerate(answer.sources, 1):
        place = f" · {one_line(source.uri, 100)}" if source.uri and source.uri != source.title else ""
        note(f"[{number}] {one_line(source.title, 80)}{place}")
    for warning in answer.warnings:
        warn(warning)
    note(provenance(answer))


def provenance(answer: Answer) -> str:
    """One line: outcome, reason, age, flow, time, session, turn."""
    from agentic_flywheel.interfaces.cli.terminal import clean, milliseconds, old, origin

    parts = [
        str(answer.outcome),
        origin(answer.reason, answer.similarity, answer.matched_question),
        f"FAQ {answer.faq}" if answer.faq else "",
        old(answer.age_seconds) if answer.age_seconds else "",
        answer.flow,
        milliseconds(answer.elapsed_ms),
        f"with {len(answer.context)} earlier turn{'s' * (len(answer.context) != 1)}" if answer.context else "",
        f"session {answer.session_id}" if answer.session_id else "",
        f"turn {answer.turn_id}" if answer.remembered else "",
    ]
    return clean(" · ".join(part for part in parts if part))


def explain_answer(answer: Answer, cut: Cut | None, earlier: Mapping[str, str]) -> None:
    """The whole decision, on stderr; `cut` is the one in force for the flow's similar questions, `earlier` has the
    questions of turns that went along."""
    from agentic_flywheel.interfaces.cli.explain import candidate_lines, context_lines, cut_text, wrapped
    from agentic_flywheel.interfaces.cli.terminal import clean, milliseconds, note, old, origin, seconds, words

    def row(name: str, *values: str) -> None:
        for number, value in enumerate(values):
            note(f"  {'' if number else name:<{_BESIDE - 2}}{clean(value)}", dim=False)

    note()
    route = answer.route
    if route is not None:
        row("route", f"{route.flow}, {ROUTES.get(route.how, words(route.how))}, confidence {route.confidence:.2f}")
        if route.intent:
            row("", f"intent {route.intent}")
        for score in route.scores:
            matched = f": {', '.join(score.matched)}" if score.matched else ""
            row("", f"{score.score:6.2f}  {score.flow}{matched}")
    row("decision", f"{answer.outcome}: {origin(answer.reason, answer.similarity, answer.matched_question)}")
    for candidate in answer.considered:
        if candidate.similarity is None:
            age = "" if candidate.age_seconds is None else f", {old(candidate.age_seconds)}"
            row("", f"{candidate.scope}: {words(candidate.verdict)}{age}")
            row("", f"  {candidate.key}")
    if not answer.considered:
        row("", "no stored answer was looked for")
    for number, candidate in enumerate(compared(answer)):
        for place, line in enumerate(candidate_lines(candidate, _BESIDE)):
            row("" if number + place else "similar", line)
    row("cut", *([] if cut is None else wrapped(cut_text(cut), _BESIDE)))
    row("context", *context_lines(answer.enrichment, earlier))
    row("source", SOURCES[answer.source] + (f" (entry {answer.faq})" if answer.faq else ""))
    row("key", answer.key or "nothing is stored")
    if answer.scope:
        row("shared with", answer.scope)
    unending = "until its flow changes or a person takes it out" if answer.faq else "nothing is stored"
    row("lifetime", f"{seconds(answer.ttl_seconds)} left" if answer.ttl_seconds is not None else unending)
    row(
        "flow", f"{answer.flow_name or answer.flow} ({answer.flow_id}), configuration {answer.fingerprint or 'unknown'}"
    )
    if answer.flow_ms is not None:
        row("flow took", milliseconds(answer.flow_ms))
    row("turn", answer.turn_id + ("" if answer.remembered else " (not kept)"))
    row("trace", answer.trace_id)
    if answer.origin_trace_id and answer.origin_trace_id != answer.trace_id:
        row("computed in", f"trace {answer.origin_trace_id}")

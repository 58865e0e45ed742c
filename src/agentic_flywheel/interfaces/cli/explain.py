"""`afw explain`: what would become of a question and why; nothing is asked, stored or counted.

Invariant: only what the facade says of a question is laid out here; nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.likeness import Considered, Cut, Explanation
    from agentic_flywheel.model import Candidate, Thread
    from agentic_flywheel.threads import ContextTurn

_NAMES = 15  # columns of what stands in front of a line
_MARGIN = 2
_SIMILARITY = 7  # columns of a similarity and the space after it


@click.command("explain", cls=FlywheelCommand, epilog="Example: afw explain 'How do I turn persistence off?'")
@click.argument("question")
@click.option("--flow", metavar="KEY", help="As asked of this flow; else the question is routed.")
@click.option("--session", metavar="ID", help="As asked in this session.")
@click.option("--user", metavar="ID", help="As asked by this user.")
@click.option("--intent", metavar="WORD", help="As asked with this intent.")
@click.option("--standalone", is_flag=True, help="As asked with --standalone.")
@click.option(
    "--count", type=click.IntRange(1, 50), default=5, show_default=True, help="Show the N nearest stored questions."
)
@click.pass_obj
def explain(
    invocation: Invocation,
    question: str,
    flow: str | None,
    session: str | None,
    user: str | None,
    intent: str | None,
    standalone: bool,
    count: int,
) -> None:
    """Show what would become of QUESTION ("-" reads it from stdin), and why.

    Nothing is asked, stored or counted. Route, key, configuration, earlier turns that go with it; the stored answers
    that were looked for; the nearest stored questions with what each guard says of them; the cut; the decision.
    """
    from agentic_flywheel.interfaces.cli.ask import read_question
    from agentic_flywheel.interfaces.cli.terminal import print_json
    from agentic_flywheel.model import Directives

    if question == "-":
        question = read_question()

    async def work(flywheel: Flywheel) -> tuple[Explanation, Mapping[str, str]]:
        found = await flywheel.similar.explain(
            question,
            session=session,
            flow=flow,
            user=user,
            intent=intent,
            directives=Directives(standalone=standalone),
            count=count,
        )
        return found, {} if invocation.as_json else await questions_of(flywheel, session, found.context)

    found, earlier = invocation.run(work)
    if invocation.as_json:
        print_json(found)
    else:
        show_explanation(found, earlier)


async def questions_of(flywheel: Flywheel, session: str | None, enrichment: Sequence[ContextTurn]) -> Mapping[str, str]:
    """The questions of the turns that go with one, by id; none where they cannot be read now."""
    from agentic_flywheel.errors import StoreError, UnknownSession

    if not session or not enrichment:
        return {}
    try:
        return asked_in(await flywheel.sessions.show(session))
    except (StoreError, UnknownSession):
        return {}


def asked_in(thread: Thread) -> Mapping[str, str]:
    """The questions of a session by the ids of their turns."""
    return {turn.id: turn.question for turn in thread.turns}


def show_explanation(found: Explanation, earlier: Mapping[str, str]) -> None:
    """The whole decision on stdout; `earlier` has the questions of turns that go along."""
    from agentic_flywheel.interfaces.cli.ask import ROUTES, SOURCES
    from agentic_flywheel.interfaces.cli.terminal import bold, dim, paragraphs, words

    print("\n".join(bold(line) for line in paragraphs(found.question, "").splitlines()))
    print()
    decided = found.outcome if found.outcome == found.reason else f"{found.outcome}: {words(found.reason)}"
    terms = found.terms
    facts = (
        ("decision", (decided, found.decision)),
        ("source", (SOURCES.get(found.source, ""), f"entry {found.faq} (afw faq show {found.faq})" * bool(found.faq))),
        ("flow", (f"{found.flow}, {ROUTES.get(found.route, found.route)}",)),
        ("shared with", (found.scope or "nobody",)),
        ("key", (found.key or "nothing would be stored",)),
        ("configuration", (found.fingerprint or "unknown",)),
        ("context", context_lines(found.context, earlier)),
        ("exact", found.exact or ("no stored answer is looked for",)),
        ("similar", () if terms is None else (f"{terms.profile}, mode {terms.mode}", terms.origin)),
        ("cut", () if found.cut is None else (cut_text(found.cut),)),
        ("embedder", (found.embedder,)),
        ("partition", (found.partition,)),
    )
    for name, values in facts:
        for line in rows(name, (value for value in values if value)):
            print(line)
    if found.similar:
        print(f"\n{dim('Nearest stored questions')}")
        for considered in found.similar:
            for line in considered_lines(considered):
                print(" " * _MARGIN + line)
    elif found.terms is not None:
        print(f"\n{dim('No stored question is near.')}")
    for remark in found.notes:
        print(f"\n{paragraphs(remark, '')}")


def context_lines(enrichment: Sequence[ContextTurn], earlier: Mapping[str, str]) -> list[str]:
    """The earlier turns that go with a question, oldest first, each with why and, as far as known, its question."""
    from agentic_flywheel.interfaces.cli.terminal import one_line

    if not enrichment:
        return ["no earlier turn goes with the question"]
    lines = []
    for turn in enrichment:
        has = f" (has {', '.join(turn.words)})" if turn.words else ""
        lines.append(f"{turn.why.value}: turn {turn.turn_id}{has}")
        if turn.turn_id in earlier:
            lines.append(f"  {one_line(earlier[turn.turn_id])}")
    return lines


def cut_text(cut: Cut, standing: str = "") -> str:
    """A cut and why it is where it is; `standing` has been said already."""
    why = cut.why.removeprefix(f"{standing}: ")
    return why if cut.value is None else f"{cut.value:.3f}: {why}"


def considered_lines(considered: Considered) -> Iterator[str]:
    """A stored question that was weighed: how near, what came of it, what every guard says."""
    from agentic_flywheel.interfaces.cli.terminal import dim

    yield from _beside(considered.similarity, considered.question, considered.age_seconds, _MARGIN)
    yield from _below(f"{'served' if considered.served else 'not served'}: {considered.why}", _MARGIN)
    for verdict in considered.guards:
        if not verdict.passed and verdict.evidence not in considered.why:
            yield from _below(f"refused by {verdict.guard} too: {verdict.evidence}", _MARGIN)
    passed = [verdict.guard for verdict in considered.guards if verdict.passed]
    if passed:
        yield from _below(f"passed: {', '.join(passed)}", _MARGIN)
    if considered.faq:
        yield from _below(f"approved: entry {considered.faq} of the FAQ", _MARGIN)
    yield from (dim(line) for line in _below(considered.key, _MARGIN))


def candidate_lines(candidate: Candidate, margin: int) -> Iterator[str]:
    """A stored question that an answer's question was compared with, for a place `margin` columns from the left."""
    from agentic_flywheel.interfaces.cli.terminal import words
    from agentic_flywheel.model import Reason

    yield from _beside(candidate.similarity or 0, candidate.question, candidate.age_seconds, margin)
    told = ("served",) if candidate.verdict is Reason.SIMILAR else candidate.refusals or (words(candidate.verdict),)
    for sentence in told:
        yield from _below(sentence, margin)


def rows(name: str, values: Iterable[str]) -> Iterator[str]:
    """`name` once in front of `values`, each wrapped beside it; nothing where there are none."""
    from agentic_flywheel.interfaces.cli.terminal import dim

    for number, value in enumerate(values):
        for place, line in enumerate(wrapped(value, _NAMES)):
            yield dim((name if not number + place else "").ljust(_NAMES)) + line


def wrapped(text: str, taken: int) -> list[str]:
    """`text` in lines as wide as the terminal less `taken` columns; long keys stay whole."""
    import textwrap

    from agentic_flywheel.interfaces.cli.terminal import clean, width

    return textwrap.wrap(clean(text), width() - taken, break_long_words=False, break_on_hyphens=False) or [""]


def _beside(similarity: float, question: str, age_seconds: float | None, margin: int) -> Iterator[str]:
    """A similarity, and beside it the stored question with its answer's age."""
    from agentic_flywheel.interfaces.cli.terminal import old

    text = question if age_seconds is None else f"{question} · {old(age_seconds)}"
    for place, line in enumerate(wrapped(text or "(gone)", margin + _SIMILARITY)):
        yield ("" if place else f"{similarity:.3f}").ljust(_SIMILARITY) + line


def _below(text: str, margin: int) -> Iterator[str]:
    return (" " * _SIMILARITY + line for line in wrapped(text, margin + _SIMILARITY))

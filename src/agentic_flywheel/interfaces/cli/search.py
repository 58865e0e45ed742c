"""`afw search`: what was asked and answered, found again; `afw index`: the index that finds it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, remove

if TYPE_CHECKING:
    from agentic_flywheel.findings import Found, HistoryPage, IndexState

NOTHING_FOUND = 1
#: Most of a question that is shown, in characters.
_SHOWN = 400
_BAR = 30
_FACETS = 5
_COMPARED = {"words": "by words", "meaning": "by meaning", "both": "by words and meaning"}


@click.command("search", cls=FlywheelCommand)
@click.argument("query", nargs=-1)
@click.option(
    "--mode",
    type=click.Choice(["words", "meaning", "both"]),
    default="both",
    show_default=True,
    help="How to compare; without an embedder only words are.",
)
@click.option("--flow", metavar="KEY", help="Only answers of this flow.")
@click.option("--user", metavar="ID", help="Who searches: nothing that is only for others is shown.")
@click.option("--session", metavar="ID", help="Only this session, with what it keeps for itself.")
@click.option("--outcome", metavar="WORD", help="Only answers that came to be so: hit, similar, miss, stale, ...")
@click.option("--tag", metavar="TAG", help="Only sessions with this tag.")
@click.option("--since", metavar="WHEN", help="From then on: 2026-11-01, yesterday, '2 days'.")
@click.option("--until", metavar="WHEN", help="Up to then; a whole day is included.")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="At most so many.")
@click.option("--cursor", default="", metavar="CURSOR", help="Go on where an earlier page ended.")
@click.option(
    "--sort",
    type=click.Choice(["relevance", "time"]),
    default="relevance",
    show_default=True,
    help="What comes first: the best, or the newest of the good ones.",
)
@click.pass_obj
def search(
    invocation: Invocation,
    query: tuple[str, ...],
    mode: str,
    flow: str | None,
    user: str | None,
    session: str | None,
    outcome: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    cursor: str,
    sort: str,
) -> int:
    """Search what was asked and answered.

    QUERY is words, "phrases" in quotes, and filters such as flow:docs, user:ann, since:2d; a word after `-` must not
    stand in it (write `--` before a query that begins so). Without words, the newest turns that the filters leave are
    listed. Exit code 1 if nothing is found.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    page = invocation.run(
        lambda flywheel: flywheel.history.search(
            " ".join(query),
            mode=mode,
            flow=flow,
            user=user,
            session=session,
            outcome=outcome,
            tag=tag,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            sort=sort,
        )
    )
    if invocation.as_json:
        print_json(page)
    else:
        _show_page(page)
    return 0 if page.found else NOTHING_FOUND


def _show_page(page: HistoryPage) -> None:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import dim, milliseconds, note, one_line, warn

    for warning in page.warnings:
        warn(warning)
    for found in page.found:
        _show_found(found)
        print()
    if not page.found:
        note("Nothing found.")
        return
    total = counted(page.total, "turns") + (" or more" if page.more_than_total else "")
    how = _COMPARED[page.mode.value] if any(found.score for found in page.found) else "newest first"
    note(f"{total}, {how}, in {milliseconds(page.elapsed_ms)}.")
    for name, counts in page.facets.items():
        if counts:
            said = ", ".join(f"{one_line(value, 30)} {count}" for value, count in list(counts.items())[:_FACETS])
            note(dim(f"  {name}: {said}" + (", ..." if len(counts) > _FACETS else "")))
    if page.cursor:
        note(f"More: the same with --cursor {page.cursor}")


def _show_found(found: Found) -> None:
    from agentic_flywheel.interfaces.cli.terminal import ago, clean, dim

    said = [
        ago(found.at),
        found.user,
        found.flow,
        found.outcome,
        f"session {found.session_id}",
        f"turn {found.turn_id}",
        " ".join(found.tags),
    ]
    print(dim(clean(" · ".join(part for part in said if part))))
    print(f"  {_marked(found.question[:_SHOWN], found.question_marks, bold=True)}")
    if found.excerpt.strip():
        print(f"  {_marked(found.excerpt, found.excerpt_marks)}")


def _marked(text: str, marks: tuple[tuple[int, int], ...], *, bold: bool = False) -> str:
    """A text in one line with what was found in it shown, harmless to a terminal."""
    from agentic_flywheel.interfaces.cli.terminal import clean, styled

    def plain(part: str) -> str:
        return clean(re.sub(r"\s+", " ", part))

    shown, at = [], 0
    for start, end in marks:
        if end > len(text):
            break
        shown.append(styled(plain(text[at:start]), sys.stdout, bold=bold) if text[at:start] else "")
        shown.append(styled(plain(text[start:end]), sys.stdout, bold=True, underline=True))
        at = end
    rest = plain(text[at:])
    return "".join(shown) + (styled(rest, sys.stdout, bold=bold) if rest else "")


@click.group("index", cls=FlywheelGroup)
def index() -> None:
    """The index that searches use: a view of what is in Redis, on this machine or on the server (search.index)."""


@index.command("show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Say what the index holds, after bringing it up to date."""
    state = invocation.run(lambda flywheel: flywheel.history.state())
    _show_state(invocation, state)


@index.command("rebuild")
@click.pass_obj
def rebuild(invocation: Invocation) -> None:
    """Make the index anew from Redis, vectors included; searches find what is in it by then."""
    bar = _Bar()
    try:
        state = invocation.run(lambda flywheel: flywheel.history.rebuild(bar.show))
    finally:
        bar.end()
    _show_state(invocation, state)


@index.command("drop")
@confirmation_options
@click.pass_obj
def drop(invocation: Invocation, yes: bool, dry_run: bool) -> int:
    """Give up the index that is in use, and the room that it takes; no turn is lost.

    Where it was the server's, all who leave the choice to us (search.index auto) go back to an index on their machines.
    """
    return remove(
        invocation,
        "index.drop",
        "history",
        lambda flywheel, only_look: flywheel.history.drop(dry_run=only_look),
        yes=yes,
        dry_run=dry_run,
    )


def _show_state(invocation: Invocation, state: IndexState) -> None:
    from agentic_flywheel.interfaces.cli.terminal import pairs, print_json, size, warn

    if invocation.as_json:
        print_json(state)
        return
    for warning in state.warnings:
        warn(warning)
    pairs(
        [
            ("kind", state.kind),
            ("where", state.where),
            ("sessions", str(state.sessions)),
            ("turns", str(state.turns)),
            ("vectors", f"{state.vectors} ({state.embedder})" if state.embedder else "none: there is no embedder"),
            ("size", size(state.size_bytes)),
            ("behind", f"{state.behind} events" if state.behind else ""),
        ]
    )


class _Bar:
    """Progress on stderr, where somebody looks at it."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, what: str, done: int, total: int) -> None:
        """So much of so many is done."""
        if sys.stderr.isatty():
            share = done / max(1, total)
            filled = "█" * round(share * _BAR)
            sys.stderr.write(f"\r{what:<9}{filled:░<{_BAR}} {done}/{total} ")
            sys.stderr.flush()
            self._shown = True

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            sys.stderr.write("\n")

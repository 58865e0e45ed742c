"""A session as people read it: its head, its turns one below the other, what changed in between.

Invariant: no line is wider than the terminal (ids apart); colour only where a terminal wants it; into a pipe goes all
of it, so that a pager shows everything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentic_flywheel.model import Session, Thread, Turn
    from agentic_flywheel.threads import SessionLink, ThreadChange

#: Lines of an answer that a terminal shows without --full; one more is not worth cutting.
_LINES = 12
_MARGIN = "     "
_COLOURS = {"hit": "green", "similar": "cyan", "joined": "green", "stale": "yellow", "bypass": "magenta"}


def show_thread(thread: Thread, *, full: bool = True) -> None:
    """A session's head and its turns, oldest first, on stdout; what people should know of it on stderr."""
    from agentic_flywheel.interfaces.cli.terminal import dim, warn

    for warning in thread.warnings:
        warn(warning)
    show_head(thread.session, thread.links)
    first = max(1, thread.session.turns - len(thread.turns) + 1)
    numbers = {turn.id: number for number, turn in enumerate(thread.turns, first)}
    for turn in thread.turns:
        print()
        for change in thread.changes:
            if change.turn_id == turn.id:
                _print_wrapped([f"-- {_change_text(change)} --"], "")
                print()
        _show_turn(turn, numbers, full=full or not sys.stdout.isatty())
    if thread.turns and not full and sys.stdout.isatty():
        print(dim("\nWhole answers: --full"))


def show_head(session: Session, links: Sequence[SessionLink] = ()) -> None:
    """What is known of a session without its turns."""
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import ago, bold, one_line, width

    print(bold(one_line(session.title or "Untitled", min(80, width()))))
    parts = [
        session.id,
        f"owner {session.owner}" if session.owner else "",
        counted(session.turns, "turns"),
        session.flow,
        f"begun {ago(session.created_at)}",
        f"last active {ago(session.last_active_at)}",
        f"tags {', '.join(session.tags)}" if session.tags else "",
    ]
    _print_wrapped(parts, "")
    for link in links:
        _print_wrapped([f"linked with {link.session_id}", link.title], "")


def link_text(link: SessionLink) -> str:
    """A linked session in a line."""
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import ago, clean, likeness, one_line

    how = "tied" if link.likeness is None else f"{likeness(link.likeness)} alike"
    words = f"both on {', '.join(link.words)}" if link.words else ""
    parts = [
        link.session_id, how, one_line(link.title or "Untitled"), counted(link.turns, "turns"),
        ago(link.last_active_at), words,
    ]  # fmt: skip
    return clean(" · ".join(part for part in parts if part))


def _show_turn(turn: Turn, numbers: dict[str, int], *, full: bool) -> None:
    from agentic_flywheel.interfaces.cli.terminal import ago, bold, milliseconds, moment, origin, paragraphs

    said = [
        turn.user or "somebody",
        f"{ago(turn.at)} ({moment(turn.at)})",
        turn.flow,
        origin(turn.reason, turn.similarity, turn.matched_question),
        milliseconds(turn.elapsed_ms),
        "private" if turn.private else "",
        f"turn {turn.id}",
    ]
    _print_wrapped(said, f"{numbers[turn.id]:>3}  ", str(turn.outcome))
    if turn.context:
        _print_wrapped([f"enriched by {_turns_text(turn.context, numbers)}"], _MARGIN)
    print("\n".join(bold(line) for line in paragraphs(turn.question, _MARGIN).splitlines()))
    lines = paragraphs(turn.answer, _MARGIN).splitlines()
    shown = lines if full or len(lines) <= _LINES + 1 else lines[:_LINES]
    print("\n".join(shown))
    if len(shown) < len(lines):
        _print_wrapped([f"... {len(lines) - len(shown)} more lines"], _MARGIN)


def _turns_text(context: Iterable[str], numbers: dict[str, int]) -> str:
    """Turns by their numbers, neighbours put together, and how many there are besides that are not shown."""
    runs: list[list[int]] = []
    others = 0
    for turn in context:
        if turn not in numbers:
            others += 1
        elif runs and numbers[turn] == runs[-1][-1] + 1:
            runs[-1].append(numbers[turn])
        else:
            runs.append([numbers[turn]])
    shown: list[str] = []
    for run in runs:
        shown += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
    several = sum(map(len, runs)) > 1
    told = [f"turn{'s' * several} {', '.join(shown)}"] if shown else []
    if others:
        told.append(f"{others} earlier turn{'s' * (others > 1)}, not shown")
    return " and ".join(told)


def _change_text(change: ThreadChange) -> str:
    if change.kind.value == "flow":
        return f"from here on {change.new} answers, before it was {change.old}"
    return f"the configuration of {change.flow} changed ({change.old[:8]} to {change.new[:8]})"


def _print_wrapped(parts: Iterable[str], margin: str, badge: str = "") -> None:
    """Facts side by side as far as the terminal is wide, the badge before them in its colour; ids stay whole."""
    from agentic_flywheel.interfaces.cli.terminal import clean, dim, styled, width

    lead = f"[{badge}] " if badge else ""
    lines: list[str] = []
    line = ""
    for part in filter(None, map(clean, parts)):
        joined = f"{line} · {part}" if line else part
        taken = len(margin) + (0 if lines else len(lead))
        if line and len(joined) > width() - taken - 2:
            lines.append(f"{line} ·")
            line = part
        else:
            line = joined
    for number, one in enumerate([*lines, line]):
        coloured = styled(lead, sys.stdout, fg=_COLOURS.get(badge), bold=True) if lead and not number else ""
        print(dim(margin if not number else " " * len(margin)) + coloured + dim(one))

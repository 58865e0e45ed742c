"""The rows as tables, and what is claimed of them.

Invariant: every figure comes from the runs of one call. Shares are means over questions; behind them stands the
standard error of the mean, which is what another sample of such questions would differ by.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from history.measures import Row, Score, paired_error
from history.sets import HistorySet
from performance_page import circumstances, markdown_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "search.md"
_BEGIN, _END = "<!-- history -->\n", "<!-- /history -->"
_WORDS, _BOTH = "**words**", "**both**"
#: Least R@5 and R@10, in percent, by set, scope and row: what can be reached without a language model, as it was found
#: with all of both sets before this search was built.
GOALS = (
    ("locomo", "conversation", _WORDS, 57.0, 66.0),
    ("locomo", "conversation", _BOTH, 61.0, 71.0),
    ("locomo", "team", _WORDS, 53.0, 0.0),
    ("beam", "conversation", _BOTH, 57.0, 67.0),
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One set in one scope: our rows by index, and the others'."""

    history: HistorySet
    scope: str
    ours: dict[str, list[Row]]
    others: list[Row]


class Claim(msgspec.Struct, frozen=True):
    """Something said of the product, with its figure, and whether it holds."""

    text: str
    met: bool


def recall_5(score: Score) -> float:
    return score.recall_5


def recall_10(score: Score) -> float:
    return score.recall_10


def claims(found: Sequence[Found]) -> list[Claim]:
    """What is claimed, set by set and index by index."""
    said: list[Claim] = []
    for one in found:
        for index, rows in one.ours.items():
            named = {row.name: row for row in rows}
            for name, scope, mode, least_5, least_10 in GOALS:
                if (name, scope) == (one.history.name, one.scope):
                    said.append(_reaches(one, index, named[mode], least_5, least_10))
            said.append(_leads(one, index, named[_BOTH]))
    return said


def _reaches(one: Found, index: str, row: Row, least_5: float, least_10: float) -> Claim:
    at_5, at_10 = 100 * row.mean(recall_5), 100 * row.mean(recall_10)
    goal = f"{least_5:g} / {least_10:g} %" if least_10 else f"{least_5:g} %"
    shown = f"{at_5:.1f} / {at_10:.1f} %" if least_10 else f"{at_5:.1f} %"
    text = f"{_title(one)}, {row.name.strip('*')}, {index} index: {shown} (at least {goal})"
    return Claim(text, at_5 >= least_5 and at_10 >= least_10)


def _leads(one: Found, index: str, both: Row) -> Claim:
    best = max(one.others, key=lambda row: row.mean(recall_5))
    ahead, error = both.mean(recall_5) - best.mean(recall_5), paired_error(both, best, recall_5)
    text = (
        f"{_title(one)}, both, {index} index: {100 * ahead:+.1f} points of R@5 (standard error {100 * error:.1f}) "
        f"to the best of the others, {best.name}"
    )
    return Claim(text, ahead > 0)


def _title(one: Found) -> str:
    return f"{one.history.title}, {'one conversation' if one.scope == 'conversation' else 'all conversations'}"


def set_table(one: Found) -> str:
    """One set in one scope."""
    halves = one.history.halves()
    chosen = [[half == which for half in halves] for which in (0, 1)]
    rows = []
    for index, ours in one.ours.items():
        rows += [_line(f"{row.name}, {index} index", row, chosen) for row in ours]
    rows += [_line(row.name, row, chosen) for row in one.others]
    head = ["", "R@5", "R@10", "hit@5", "MRR", "R@5 of each half", "R@10 of each half"]
    sizes = f"{len(one.history.sessions)} conversations, {one.history.turns:,} turns, {len(halves):,} questions"
    return f"**{_title(one)}**: {sizes}\n\n{markdown_table(head, rows)}"


def _line(name: str, row: Row, chosen: list[list[bool]]) -> list[str]:
    def shown(measure: Callable[[Score], float]) -> str:
        return f"{100 * row.mean(measure):.1f} ±{100 * row.error(measure):.1f}"

    def parts(measure: Callable[[Score], float]) -> str:
        return " / ".join(f"{100 * row.mean(measure, half):.1f}" for half in chosen)

    return [
        name,
        shown(recall_5),
        shown(recall_10),
        f"{100 * row.mean(lambda score: score.hit_5):.1f}",
        f"{row.mean(lambda score: score.reciprocal_rank):.3f}",
        parts(recall_5),
        parts(recall_10),
    ]


def plain(one: Found) -> dict[str, object]:
    """One set for programs: the scores of every question, without the questions."""
    return {
        "set": one.history.name,
        "scope": one.scope,
        "turns": one.history.turns,
        "ours": {index: {row.name.strip("*"): row.scores for row in rows} for index, rows in one.ours.items()},
        "others": {row.name: row.scores for row in one.others},
    }


def page(found: Sequence[Found], servers: Sequence[str], embedder: str, seconds: float) -> str:
    """All of it, as docs/search.md shows it."""
    said = [f"- {'met' if claim.met else '**missed**'}: {claim.text}" for claim in claims(found)]
    below = f"{circumstances(', '.join(servers))} Vectors by {embedder}. {seconds / 60:.0f} minutes."
    return "\n\n".join([*map(set_table, found), _wrapped(said), _wrapped([below])])


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(line, 118, subsequent_indent="  " if line.startswith("- ") else "", break_long_words=False)
        for line in lines
    )


def write(text: str) -> None:
    """Put the tables in their place in docs/search.md."""
    whole = PAGE.read_text("utf-8")
    if _BEGIN not in whole or _END not in whole:
        raise SystemExit(f"{PAGE} has no place for the tables")
    PAGE.write_text(f"{whole.split(_BEGIN)[0]}{_BEGIN}{text}\n{_END}{whole.split(_END)[1]}", "utf-8")

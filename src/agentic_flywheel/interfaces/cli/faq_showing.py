"""The FAQ on a terminal: at a glance, and one entry with all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentic_flywheel.amounts import counted
from agentic_flywheel.interfaces.cli.terminal import ago, bold, clean, dim, note, paragraphs, table, warn

if TYPE_CHECKING:
    from agentic_flywheel.curated import FaqCandidate, FaqChange, FaqList, FaqView

_ID = 12
#: Questions that seem to ask the same, shown in a list.
_ALIKE = 3


def show_list(found: FaqList) -> None:
    """The entries, and below them what asks for a place."""
    if found.entries:
        rows = [
            [
                view.id,
                view.state.value + "*" * view.entry.pending,
                view.entry.flow,
                view.entry.owner or "-",
                _review(view),
                view.entry.question,
            ]
            for view in found.entries
        ]
        table(rows, ["id", "state", "flow", "owner", "review", "question"])
    if any(view.entry.pending for view in found.entries):
        note("* changed since it was approved; what is served are the words of then.")
    if found.candidates:
        if found.entries:
            print()
        rows = [row for one in found.candidates for row in _candidate_rows(one)]
        table(rows, ["candidate", "flow", "asked", "askers", "answer", "question"])
        if any(one.alike for one in found.candidates):
            note("~ seems to ask the same, and is counted with it. If so:  afw faq join ID")
            note("  If one of them asks something else:  afw faq split ID 'TEXT'")
        if any(one.near for one in found.candidates):
            note("? may ask what the one above it, or the named entry, asks. If so:  afw faq join ID ID")
    for warning in found.warnings:
        warn(warning)
    if not found.entries and not found.candidates:
        note("The FAQ is empty, and nothing asks for a place in it.")
        note("Begin one:  afw faq add 'QUESTION' --flow FLOW --answer 'ANSWER'")
        return
    note("Read one:  afw faq show ID      Have it served:  afw faq approve ID --owner NAME")


def _candidate_rows(one: FaqCandidate) -> list[list[str]]:
    """A candidate, and below it what is counted with it."""
    lead = "? " if one.near else ""
    first = [
        lead + one.id[:_ID],
        one.flow,
        str(one.asked),
        str(one.askers),
        "yes" if one.answer else "no",
        one.question,
    ]
    below = [f"  ~ {text}" for text in one.alike[:_ALIKE]]
    if len(one.alike) > _ALIKE:
        below.append(f"  ~ and {len(one.alike) - _ALIKE} more")
    return [first, *([*[""] * 5, line] for line in below)]


def show_entry(view: FaqView, history: Sequence[FaqChange]) -> None:
    """One entry: its words, how it stands, where its answer is from, who did what."""
    from agentic_flywheel.insight.faq_page import day

    entry, said = view.entry, view.entry.published
    print(bold(entry.question))
    approved = ""
    if said is not None:
        by = f" by {said.by}" if said.by else ""
        approved = f"{day(said.at)}{by}, owner {said.owner}, review {_review(view)}"
    changed = f"{ago(entry.changed_at)}" + (f" by {entry.changed_by}" if entry.changed_by else "")
    facts = (
        ("id", f"{view.id}, revision {entry.revision}"),
        ("state", view.state.value + (f": {view.why}" if view.why else "")),
        ("flow", entry.flow),
        *(("asked as", wording) for wording in entry.wordings),
        ("approved", approved),
        ("owner", "" if said is not None else entry.owner),
        ("changed", changed),
        ("from turn", entry.turn_id),
    )
    _facts(facts)
    print()
    print(paragraphs(entry.answer or "(no answer yet)", "  "))
    _sources([(source.title, source.uri) for source in entry.sources])
    if said is not None and entry.pending:
        print(f"\n{dim('Served until this is approved')}")
        print(f"  {bold(said.question)}")
        for wording in said.wordings:
            print(f"  {dim('also')} {clean(wording)}")
        print(paragraphs(said.answer, "  "))
    if history:
        print(f"\n{dim('History')}")
        for change in history:
            who = f" by {change.by}" if change.by else ""
            told = ", ".join(
                name if name in {"question", "wordings", "answer"} else f"{name} {text}"
                for name, text in change.said.items()
            )
            print(
                clean(f"  {change.revision:>3}  {change.what}{who}, {ago(change.at)}" + (f": {told}" if told else ""))
            )


def show_candidate(candidate: FaqCandidate) -> None:
    """A question that asks for a place in the FAQ, with the answer that would be offered."""
    print(bold(candidate.question))
    _facts(
        (
            ("id", candidate.id),
            ("state", "candidate"),
            ("flow", candidate.flow),
            ("asked", f"{counted(candidate.asked, 'times')} by {counted(candidate.askers, 'askers')}"),
            *(("asked as", wording) for wording in candidate.wordings),
            *(("alike", wording) for wording in candidate.alike),
            ("near", candidate.near),
            ("answered", ago(candidate.answered_at) if candidate.answer else ""),
            ("from turn", candidate.turn_id),
        )
    )
    print()
    print(paragraphs(candidate.answer or "(no stored answer may be offered: write one)", "  "))
    _sources([(source.title, source.uri) for source in candidate.sources])
    show = candidate.id[:_ID]
    note()
    if candidate.alike:
        note(f"Those alike ask the same:  afw faq join {show}   (one of them does not: afw faq split {show} 'TEXT')")
    note(f"Have it served as it is:  afw faq approve {show} --owner NAME")
    note(f"Put it into other words:  afw faq edit {show}")
    note(f"Turn it down:             afw faq retire {show} --yes")


def show_next(view: FaqView) -> None:
    """What to do after a change."""
    if view.state.value in {"draft", "reported", "stale"} or view.entry.pending:
        note()
        note(f"Have it served:  afw faq approve {view.id} --owner NAME")


def _review(view: FaqView) -> str:
    from agentic_flywheel.insight.faq_page import day

    said = view.entry.published
    if said is None:
        return "-"
    return day(said.review_at) if said.review_at else "never"


def _facts(rows: Sequence[tuple[str, str]]) -> None:
    from agentic_flywheel.interfaces.cli.explain import rows as beside

    seen = ""
    for name, value in rows:
        for line in beside("" if name == seen else name, (value,) if value else ()):
            print(line)
        seen = name if value else seen


def _sources(sources: Sequence[tuple[str, str]]) -> None:
    for number, (title, uri) in enumerate(sources, 1):
        print(dim(f"  [{number}] {title}" + (f" · {uri}" if uri and uri != title else "")))

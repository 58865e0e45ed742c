"""`afw cache`: the stored answers, their figures, and how to clear them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, remove

if TYPE_CHECKING:
    from agentic_flywheel.cache_figures import FlowFigures
    from agentic_flywheel.model import StoredAnswer


@click.group("cache", cls=FlywheelGroup)
def cache() -> None:
    """Look at stored answers, and clear them."""


@cache.command("stats")
@click.option("--flow", metavar="KEY", help="Only this flow.")
@click.option("--days", type=click.IntRange(1, 90), default=7, show_default=True, help="Over the last N days.")
@click.pass_obj
def stats(invocation: Invocation, flow: str | None, days: int) -> None:
    """Hits, misses, times and memory, by flow."""
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, size, table, words

    figures = invocation.run(lambda flywheel: flywheel.cache.stats(flow=flow, days=days))
    if invocation.as_json:
        print_json(figures)
        return
    rows = [_figures_row(row, row.flow) for row in figures.flows]
    if len(rows) != 1:
        rows.append(_figures_row(figures.total, "all"))
    table(rows, ["flow", "questions", "hit rate", "similar", "mean hit", "mean flow", "saved", "stored"])
    reasons = sorted(figures.total.reasons.items(), key=lambda item: -item[1])
    if reasons:
        print("Why: " + ", ".join(f"{words(reason)} {count}" for reason, count in reasons))
    if figures.damaged_values:
        print(f"Damaged values met: {figures.damaged_values}")
    if figures.used_memory_bytes is not None:
        print(f"Redis uses {size(figures.used_memory_bytes)}.")
    note(f"Over the last {counted(figures.days, 'days')}.")


def _figures_row(row: FlowFigures, name: str) -> list[str]:
    from agentic_flywheel.interfaces.cli.terminal import milliseconds, seconds

    return [
        name,
        str(row.questions),
        f"{row.hit_rate:.0%}" if row.questions else "-",
        str(row.outcomes.get("similar", 0)),
        "-" if row.hit_ms is None else milliseconds(row.hit_ms),
        "-" if row.flow_ms is None else milliseconds(row.flow_ms),
        seconds(row.saved_seconds) if row.saved_seconds else "-",
        str(row.entries),
    ]


@cache.command("list")
@click.option("--flow", metavar="KEY", help="Only this flow.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--cursor", default="", metavar="CURSOR", help="Go on where an earlier list ended.")
@click.pass_obj
def list_answers(invocation: Invocation, flow: str | None, limit: int, cursor: str) -> None:
    """List stored answers."""
    from agentic_flywheel.interfaces.cli.terminal import note, one_line, print_json, seconds, table, words

    answers, following = invocation.run(lambda flywheel: flywheel.cache.list(flow=flow, limit=limit, cursor=cursor))
    if invocation.as_json:
        print_json({"answers": answers, "cursor": following})
        return
    if not answers:
        note("Nothing is stored." if not flow else f"Nothing is stored for {flow}.")
        return
    rows = [
        [
            stored.entry.flow,
            stored.scope,
            _age(stored),
            seconds(stored.ttl_seconds),
            "yes" if stored.servable else words(stored.verdict),
            one_line(stored.entry.asked or stored.entry.question),
            stored.key,
        ]
        for stored in answers
    ]
    table(rows, ["flow", "scope", "age", "left", "served", "question", "key"])
    if following:
        note(f"More: afw cache list --cursor {following}")


def _age(stored: StoredAnswer) -> str:
    from datetime import timedelta

    from agentic_flywheel.durations import show_age

    return show_age(timedelta(seconds=stored.age_seconds))


@cache.command("show")
@click.argument("key")
@click.pass_obj
def show(invocation: Invocation, key: str) -> None:
    """Show one stored answer.

    KEY is its Redis key, as `cache list`, `cache key` and `ask --json` give it.
    """
    from agentic_flywheel.interfaces.cli.terminal import (
        ago,
        moment,
        pairs,
        paragraphs,
        print_json,
        seconds,
        size,
        words,
    )

    stored = invocation.run(lambda flywheel: flywheel.cache.show(key))
    if invocation.as_json:
        print_json(stored)
        return
    entry = stored.entry
    pairs(
        [
            ("key", stored.key),
            ("question", entry.asked or entry.question),
            ("flow", f"{entry.flow} ({entry.flow_id})"),
            ("configuration", f"{entry.fingerprint}, generation {entry.generation}"),
            ("shared with", stored.scope),
            ("computed", f"{ago(entry.created_at)} ({moment(entry.created_at)})"),
            ("left", seconds(stored.ttl_seconds)),
            ("served now", "yes" if stored.servable else f"no: {words(stored.verdict)}"),
            ("session", entry.session_id),
            ("asked by", entry.user),
            ("turn", entry.turn_id),
            ("trace", entry.trace_id),
            ("size", size(stored.size_bytes)),
            *(("source", source.uri or source.title) for source in entry.sources),
        ]
    )
    print()
    print(paragraphs(entry.answer, ""))


@cache.command("key")
@click.argument("question")
@click.option("--flow", metavar="KEY", help="The flow; else the question is routed.")
@click.option("--user", metavar="ID", help="Who would ask.")
@click.option("--session", metavar="ID", help="The session it would be asked in.")
@click.option("--standalone", is_flag=True, help="As asked with --standalone.")
@click.pass_obj
def key(
    invocation: Invocation, question: str, flow: str | None, user: str | None, session: str | None, standalone: bool
) -> None:
    """Print the Redis key of a question.

    It is the key under which an answer to QUESTION is looked for first.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json, say

    found = invocation.run(
        lambda flywheel: flywheel.cache.key(question, flow=flow, user=user, session=session, standalone=standalone)
    )
    if invocation.as_json:
        print_json({"key": found})
    else:
        say(found)


@cache.command("clear")
@click.option("--flow", metavar="KEY", help="Every answer of this flow.")
@click.option("--session", metavar="ID", help="Every answer that this session contributed.")
@click.option("--user", metavar="ID", help="Every answer that this user contributed.")
@click.option("--key", metavar="KEY", help="One answer, by its Redis key.")
@click.option("--all", "everything", is_flag=True, help="Every answer of the tenant.")
@confirmation_options
@click.pass_obj
def clear(
    invocation: Invocation,
    flow: str | None,
    session: str | None,
    user: str | None,
    key: str | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Clear stored answers; conversations stay.

    Say exactly one of --flow, --session, --user, --key and --all.
    """
    if sum(chosen is not None for chosen in (flow, session, user, key)) + everything != 1:
        raise click.UsageError("Say exactly one of --flow, --session, --user, --key and --all.")
    return remove(
        invocation,
        "entries.clear",
        flow or session or user or key or "everything",
        lambda flywheel, only_look: flywheel.cache.clear(
            flow=flow, session=session, user=user, key=key, everything=everything, dry_run=only_look
        ),
        yes=yes,
        dry_run=dry_run,
    )

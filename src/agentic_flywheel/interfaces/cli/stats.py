"""`afw stats`: what the memory comes to, in figures and small charts."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.insight.figures import Figures
    from agentic_flywheel.insight.latency import Latency
    from agentic_flywheel.insight.rows import Breakdown, Row, Series, UsageReport

DIMENSIONS = ("hour", "day", "flow", "reason", "intent", "user")
_LABEL = 13
#: How long bars are at most; where there is no room for the shortest, there are none.
_BAR = 12
_SHORTEST_BAR = 3
#: How much of a name is shown.
_NAME = 20


@click.command("stats", cls=FlywheelCommand, epilog="Example: afw stats --since 2d --by hour")
@click.option("--since", metavar="WHEN", help="From then on: 2026-11-01, yesterday, '2 days'. [7 days ago]")
@click.option("--until", metavar="WHEN", help="Up to then; a whole day is included. [now]")
@click.option("--flow", metavar="KEY", help="Only this flow.")
@click.option("--by", "dimension", type=click.Choice(DIMENSIONS), help="A row for each of these.")
@click.option("--user", metavar="ID", help="Who looks: by user, others than the operator see themselves alone.")
@click.pass_obj
def stats(
    invocation: Invocation,
    since: str | None,
    until: str | None,
    flow: str | None,
    dimension: str | None,
    user: str | None,
) -> None:
    """Hits and misses, times, time and money saved, sessions.

    Hours and days are those of UTC.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json, width

    if dimension is not None:
        broken = invocation.run(
            lambda flywheel: flywheel.usage.by(dimension, since=since, until=until, flow=flow, user=user)
        )
        if invocation.as_json:
            print_json(broken)
        else:
            _show_rows(broken)
        return

    async def work(flywheel: Flywheel) -> tuple[UsageReport, Series]:
        room = width() - _LABEL - 12
        report = await flywheel.usage.report(since=since, until=until, flow=flow)
        return report, await flywheel.usage.series(since=since, until=until, flow=flow, most=room)

    report, series = invocation.run(work)
    if invocation.as_json:
        print_json({"report": report, "series": series})
    else:
        _show_report(report, series)


def _show_report(report: UsageReport, series: Series) -> None:
    from agentic_flywheel.interfaces.cli.terminal import bold, note, words

    total = report.total
    print(bold(f"{_utc(report.since)} to {_utc(report.until)} UTC, {report.flow or 'all flows'}"))
    print()
    served = {name: n for name, n in total.outcomes.items() if n}
    _say("questions", f"{total.questions:,}" + (": " if served else "") + _counts(served))
    _say("from memory", _share(total.hit_rate))
    _say("failed", _counts(total.failures) if total.failed else "")
    _say("hits", _times(total.hits))
    failed = f"{total.failed_calls:,} failed ({_share(total.error_rate)})" if total.failed_calls else ""
    warm = f" ({total.warm_calls:,} to warm)" if total.warm_calls else ""
    calls = f"{total.calls:,} call{'' if total.calls == 1 else 's'}{warm}"
    _say("flow", "; ".join(part for part in (calls, _times(total.flow), failed) if part))
    _say("saved", _saved(total, report.currency))
    _say("sessions", _sessions(total))
    if total.questions or total.failed:
        print()
        _show_charts(series)
    if len(report.flows) > 1:
        print()
        _show_flows(report)
    if total.reasons:
        print()
        _say("why", _counts({words(name): count for name, count in total.reasons.items()}))
    if not total.questions:
        note("Nothing was asked in this time.")


def _show_charts(series: Series) -> None:
    from agentic_flywheel.interfaces.cli.charts import draws_blocks, fitted, spark
    from agentic_flywheel.interfaces.cli.terminal import dim, seconds, width

    room, blocks = width() - _LABEL - 12, draws_blocks(sys.stdout)
    questions = fitted(series.questions, room)
    served = fitted([sum(each) for each in zip(*(series.outcomes[n] for n in _SERVED), strict=True)], room)
    rates = [hits / asked if asked else None for hits, asked in zip(served, questions, strict=True)]
    failed = fitted(series.failed, room)
    step = series.step_seconds * -(-len(series.questions) // len(questions))
    _chart("questions", spark(questions, blocks=blocks), f"most {max(questions):,}")
    _chart("from memory", spark(rates, top=1.0, blocks=blocks), "of 100 %")
    if any(failed):
        _chart("failed", spark(failed, blocks=blocks), f"most {max(failed):,}")
    begin, end = _utc(series.since), _utc(series.until)
    label = f"{seconds(step) + ' a step':<{_LABEL - 1}} "
    gap = max(1, len(questions) - len(begin) - len(end) - (len(label) - _LABEL))
    print(dim(f"{label}{begin}{' ' * gap}{end}"))


_SERVED = ("hit", "similar", "stale", "joined")


def _chart(label: str, line: str, scale: str) -> None:
    from agentic_flywheel.interfaces.cli.terminal import dim

    print(f"{dim(f'{label:<{_LABEL}}')}{line}  {dim(scale)}")


def _show_flows(report: UsageReport) -> None:
    from agentic_flywheel.interfaces.cli.terminal import seconds

    flows = sorted(report.flows, key=lambda figures: -figures.questions)
    rows = [
        [
            _cut(figures.name),
            f"{figures.questions:,}",
            _share(figures.hit_rate) or "-",
            str(figures.failed or "-"),
            _time(figures.hits.p50_ms),
            _time(figures.flow.p50_ms),
            seconds(figures.saved_seconds) if figures.saved_seconds else "-",
        ]
        for figures in flows
    ]
    headings = ["flow", "asked", "memory", "failed", "hit", "flow took", "saved"]
    _table_with_bars(rows, headings, [figures.questions for figures in flows])


def _show_rows(broken: Breakdown) -> None:
    from agentic_flywheel.interfaces.cli.terminal import note

    note(f"{_utc(broken.since)} to {_utc(broken.until)} UTC{f', {broken.flow}' if broken.flow else ''}")
    if not broken.rows:
        note("Nothing was counted in this time.")
        return
    columns = _COLUMNS[broken.by]
    if any(row.saved for row in broken.rows):
        columns = (*columns, broken.currency)
    rows = [[_name(row, broken.by), f"{row.questions:,}", *(_cell(row, c) for c in columns)] for row in broken.rows]
    _table_with_bars(rows, [broken.by, "asked", *columns], [row.questions for row in broken.rows])


def _table_with_bars(rows: list[list[str]], headings: list[str], counts: list[int]) -> None:
    """A table with a bar behind each row, as long as the terminal lets it be."""
    from agentic_flywheel.interfaces.cli.charts import bar, draws_blocks
    from agentic_flywheel.interfaces.cli.terminal import table, width

    used = sum(max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True))
    room, most, blocks = min(_BAR, width() - used), max(counts) or 1, draws_blocks(sys.stdout)
    if room < _SHORTEST_BAR:
        table(rows, headings)
        return
    drawn = [bar(count / most, room, blocks=blocks) for count in counts]
    table([[*row, each] for row, each in zip(rows, drawn, strict=True)], [*headings, ""])


def _name(row: Row, dimension: str) -> str:
    from agentic_flywheel.interfaces.cli.terminal import words

    if row.at is not None:
        return _utc(row.at, day=dimension == "day")
    return _cut(words(row.name) if dimension == "reason" else row.name)


def _cut(name: str) -> str:
    """A name that fits its column, in characters that can be written."""
    from agentic_flywheel.interfaces.cli.charts import draws_blocks
    from agentic_flywheel.interfaces.cli.terminal import clean

    if draws_blocks(sys.stdout):
        return name if len(name := clean(name)) <= _NAME else f"{name[: _NAME - 1]}…"
    name = clean(name).encode("ascii", "replace").decode()
    return name if len(name) <= _NAME else f"{name[: _NAME - 2]}.."


_TIMES = ("memory", "failed", "hit", "flow took", "p95", "saved")
_COLUMNS = {
    "hour": _TIMES,
    "day": _TIMES,
    "flow": _TIMES,
    "reason": ("share",),
    "intent": ("share", "memory"),
    "user": ("memory", "failed", "saved"),
}


def _cell(row: Row, column: str) -> str:
    from agentic_flywheel.interfaces.cli.terminal import seconds

    match column:
        case "memory":
            return _share(row.hit_rate) or "-"
        case "share":
            return _share(row.share) or "-"
        case "failed":
            return str(row.failed or "-")
        case "hit":
            return _time(row.hit_p50_ms)
        case "flow took":
            return _time(row.flow_p50_ms)
        case "p95":
            return _time(row.flow_p95_ms)
        case "saved":
            return seconds(row.saved_seconds) if row.saved_seconds else "-"
        case _:
            return _money(row.saved) if row.saved else "-"


def _say(label: str, said: str) -> None:
    """A fact with its name, wrapped to the terminal; nothing where there is nothing to say."""
    from agentic_flywheel.interfaces.cli.terminal import clean, dim, width

    if said:
        first, *rest = textwrap.wrap(clean(said), min(width(), 80) - _LABEL) or [""]
        print(dim(f"{label:<{_LABEL}}") + first)
        for line in rest:
            print(" " * _LABEL + line)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _times(latency: Latency) -> str:
    if not latency.count:
        return ""
    named = (("p50", latency.p50_ms), ("p95", latency.p95_ms), ("p99", latency.p99_ms))
    return ", ".join(f"{name} {_time(value)}" for name, value in named)


def _time(value: float | None) -> str:
    from agentic_flywheel.interfaces.cli.terminal import milliseconds

    if value is None:
        return "-"
    return f"{value * 1000:.0f} us" if value < 0.1 else milliseconds(value)


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share * 100:.1f} %" if 0 < share < 0.01 or 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")


def _saved(total: Figures, currency: str) -> str:
    from agentic_flywheel.interfaces.cli.terminal import seconds

    said: Iterable[str] = (
        seconds(total.saved_seconds) if total.saved_seconds else "",
        f"p50 {seconds(total.saved_p50_seconds)}" if total.saved_p50_seconds else "",
        "" if total.saved is None else f"{_money(total.saved)} {currency} (spent {_money(total.spent or 0.0)})",
    )
    return "; ".join(part for part in said if part)


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.01 or not amount else f"{amount:.4f}"


def _sessions(total: Figures) -> str:
    sessions = total.sessions
    said = [f"{sessions.new:,} new" + (f" ({sessions.alone:,} one-off)" if sessions.alone else "")]
    if sessions.active is not None:
        said.append(f"{sessions.active:,} active")
    if sessions.resumed:
        said.append(f"{sessions.after_pause:,} resumed after a pause")
    if sessions.continuity is not None:
        said.append(f"continuity {_share(sessions.continuity)}")
    return ", ".join(said) if sessions.new or sessions.resumed or sessions.unread else ""


def _utc(at: float, *, day: bool = False) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%d %b" if day else "%d %b %H:%M").lstrip("0")

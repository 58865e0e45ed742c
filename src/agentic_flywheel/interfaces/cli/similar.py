"""`afw similar`: what holds for similar questions, what is known, since when; and how to change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.likeness import Band, CutChange, SimilarStatus

_MODES = ("learn", "fixed", "shadow", "off")
_PROFILES = ("strict", "balanced", "faq")
_CHANGES_SHOWN = 5
_BAR = 30


@click.group("similar", cls=FlywheelGroup)
def similar() -> None:
    """How similar questions share answers."""


@similar.command("show")
@click.argument("flow", required=False)
@click.pass_obj
def show(invocation: Invocation, flow: str | None) -> None:
    """Show how a flow stands, or all of them.

    What holds and who said so, the cut and why, the labels that it rests on, the measured error, reports.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    async def work(flywheel: Flywheel) -> list[SimilarStatus]:
        names = [flow] if flow is not None else [spec.key for spec in flywheel.flows.list()]
        return [await flywheel.similar.status(name) for name in names]

    found = invocation.run(work)
    if flow is not None:
        _show_one(invocation, found[0])
    elif invocation.as_json:
        print_json({"flows": found})
    else:
        _show_all(found)


def _show_one(invocation: Invocation, status: SimilarStatus) -> None:
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if invocation.as_json:
        print_json(status)
    else:
        show_status(status)


def _show_all(found: Sequence[SimilarStatus]) -> None:
    from agentic_flywheel.interfaces.cli.report import KINDS
    from agentic_flywheel.interfaces.cli.terminal import note, table

    rows = [
        [
            status.flow,
            status.terms.mode,
            status.terms.profile,
            "closed" if status.cut.value is None else f"{status.cut.value:.3f}",
            str(status.labels),
            _error(status) or "-",
            str(sum(status.reports.get(kind, 0) for kind in KINDS)),
        ]
        for status in found
    ]
    table(rows, ["flow", "mode", "profile", "cut", "labels", "measured error", "reports"])
    note("More: afw similar show FLOW")


def show_status(status: SimilarStatus) -> None:
    """How one flow stands, on stdout."""
    from agentic_flywheel.interfaces.cli.explain import cut_text, rows
    from agentic_flywheel.interfaces.cli.terminal import bold, dim, words

    terms = status.terms
    print(bold(f"{status.flow}: {terms.profile}, mode {terms.mode}"))
    reports = ", ".join(f"{count} {words(kind)}" for kind, count in status.reports.items() if count)
    facts = (
        ("set by", terms.origin),
        ("floor", f"{terms.floor:.3f}"),
        *((f"cut, {words(name)}", cut_text(cut, name)) for name, cut in status.cuts.items()),
        ("budget", f"at most {_percent(terms.max_error)} of similar answers may be wrong"),
        ("measured", f"{_error(status)} of those that were checked" if status.measured_error else "nothing yet"),
        ("labels", str(status.labels)),
        ("audits", f"{status.audits}, {status.audits_wrong} wrong; {_percent(terms.audit_share)} are audited"),
        ("reports", reports or "none"),
        ("vectors", "" if status.vectors is None else str(status.vectors)),
        ("embedder", status.embedder or "none"),
    )
    for name, value in facts:
        for line in rows(name, (value,) if value else ()):
            print(line)
    if status.bands:
        print(f"\n{dim('Labels by similarity: same answer (#) or another (x)')}")
        for line in _chart(status.bands):
            print(line)
    if status.changes:
        print(f"\n{dim('Changes of the cut')}")
        for change in status.changes[:_CHANGES_SHOWN]:
            _print_change(change)


def _chart(bands: Sequence[Band]) -> list[str]:
    """One bar per band: a `#` for labels with the same answer, an `x` for others, to one scale."""
    from math import ceil

    scale = min(1.0, _BAR / max(1, *(band.right + band.wrong for band in bands)))
    lines = []
    for band in bands:
        right, wrong = (ceil(count * scale) for count in (band.right, band.wrong))  # a single one is still seen
        lines.append(
            f"  {band.low:.2f} to {band.high:.2f}  {band.right:>5} {band.wrong:>5}  {'#' * right}{'x' * wrong}"
        )
    return lines


def _error(status: SimilarStatus) -> str:
    """The measured share of wrong similar answers with its interval, "" without any."""
    if status.measured_error is None:
        return ""
    share, low, high = status.measured_error
    return f"{_percent(share)} wrong ({_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _print_change(change: CutChange) -> None:
    from agentic_flywheel.interfaces.cli.explain import rows
    from agentic_flywheel.interfaces.cli.terminal import ago

    bound = "" if change.bound is None else f", at most {_percent(change.bound)} wrong"
    moved = f"{change.standing}: " * bool(change.standing) + f"{_cut(change.old)} -> {_cut(change.new)}"
    for line in rows(
        ago(change.at),
        (
            f"{moved} ({change.right} right, {change.wrong} wrong{bound})",
            change.why.removeprefix(f"{change.standing}: "),
        ),
    ):
        print(line)


def _cut(value: float | None) -> str:
    return "closed" if value is None else f"{value:.3f}"


def _read_share(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A share, as `0.02` or `2%`."""
    if value is None:
        return None
    try:
        return float(value.rstrip("% ")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a share; write it as 0.02 or 2%.") from None


@similar.command("set", epilog="Example: afw similar set support --profile balanced --max-error 2%")
@click.argument("flow")
@click.option("--profile", type=click.Choice(_PROFILES), help="How alike questions must be.")
@click.option("--mode", type=click.Choice(_MODES), help="Whether similar questions share answers.")
@click.option(
    "--max-error", callback=_read_share, metavar="SHARE", help="Largest share of wrong similar answers: 0.02 or 2%."
)
@click.option("--reset", is_flag=True, help="Take back what was set so: registry and settings hold again.")
@click.pass_obj
def set_terms(
    invocation: Invocation, flow: str, profile: str | None, mode: str | None, max_error: float | None, reset: bool
) -> None:
    """Set what holds for a flow's similar questions, at once and in every process; what is known stays."""
    given = (profile, mode, max_error) != (None, None, None)
    if given == reset:
        raise click.UsageError("Say --profile, --mode or --max-error, or else --reset.")

    if reset:
        status = invocation.run(lambda flywheel: flywheel.similar.reset(flow))
    else:
        status = invocation.run(
            lambda flywheel: flywheel.similar.set(flow, profile=profile, mode=mode, max_error=max_error)
        )
    _show_one(invocation, status)


@similar.command("changes")
@click.argument("flow")
@click.pass_obj
def changes(invocation: Invocation, flow: str) -> None:
    """List every change of a flow's cut with its evidence, newest first."""
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    found = invocation.run(lambda flywheel: flywheel.similar.changes(flow))
    if invocation.as_json:
        print_json({"changes": found})
        return
    if not found:
        note("The cut has not changed yet.")
    for change in found:
        _print_change(change)


@similar.command("reports")
@click.argument("flow", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@click.pass_obj
def reports(invocation: Invocation, flow: str | None, limit: int) -> None:
    """List what people reported, newest first; of one flow where it is named."""
    from agentic_flywheel.interfaces.cli.report import show_reported
    from agentic_flywheel.interfaces.cli.terminal import note, print_json

    found = invocation.run(lambda flywheel: flywheel.similar.reports(limit=limit, flow=flow))
    if invocation.as_json:
        print_json({"reports": found})
        return
    if not found:
        note("Nothing was reported.")
    for number, said in enumerate(found):
        if number:
            print()
        show_reported(said)

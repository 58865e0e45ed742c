"""`afw warm`: questions are asked before anybody asks them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.insight.warming import WarmUp
    from agentic_flywheel.warmups import WarmItem, WarmReport

STANDARD = "-"
LAST = "last"
NOT_ALL = 1
_BAR = 24


class WarmGroup(FlywheelGroup):
    """`afw warm FILE` is `afw warm run FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            return "run", self.commands["run"], args
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[FILE] [OPTIONS]   (see `afw warm run --help`)")
        formatter.write_usage(ctx.command_path, "show [JOB] [OPTIONS]")
        formatter.write_usage(ctx.command_path, "stop [JOB]")


@click.group(
    "warm",
    cls=WarmGroup,
    no_args_is_help=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def warm() -> None:
    """Ask questions before anybody does, so that whoever asks them finds the answer.

    Only what would be stored for the whole team is asked, and it counts as nobody's question.
    """


@warm.command("run")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--popular", metavar="N", type=click.IntRange(0), default=0, help="The N most popular questions.")
@click.option(
    "--follow-ups",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    help="N of what is asked next after each of them.",
)
@click.option("--faq", is_flag=True, help="The questions of the FAQ.")
@click.option("--flow", metavar="KEY", help="Only this flow; the one of questions that name none.")
@click.option("--budget-calls", metavar="N", type=click.IntRange(1), help="Make at most N calls of flows.")
@click.option("--budget-time", metavar="DURATION", help="Begin no call after so long: 10m, 1h30m.")
@click.option("--budget-money", metavar="AMOUNT", type=float, help="Spend at most so much, by the flows' prices.")
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 32), help="Ask N questions at a time.")
@click.option("--refresh", is_flag=True, help="Ask although a fresh answer is stored.")
@click.option("--standalone", is_flag=True, help="No question needs an earlier one, whatever its words.")
@click.option("--resume", metavar="JOB", help="Go on with a warm-up that was cut off; `last` is the last one.")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked.")
@click.option("--each", is_flag=True, help="Say what came of each question.")
@click.pass_obj
def run(invocation: Invocation, /, resume: str | None, dry_run: bool, each: bool, **options: Any) -> int:
    """Warm the questions of FILE (text, JSON lines, YAML; `-` is stdin), popular ones, the FAQ.

    A budget given with --resume counts from now on.
    """
    from agentic_flywheel.interfaces.cli.main import INTERRUPTED

    ordered = ("file", "popular", "faq", "flow", "follow_ups", "refresh", "standalone")
    if resume and (dry_run or any(options[name] for name in ordered)):
        raise click.UsageError("--resume goes on with what was ordered; besides it only budgets and --concurrency fit.")
    if options["follow_ups"] and not options["popular"]:
        raise click.UsageError("--follow-ups N are asked after popular questions: say how many of these, --popular N.")
    last: list[WarmUp] = []

    async def work(flywheel: Flywheel) -> None:
        warm_up = await _begun(flywheel, resume, dry_run=dry_run, **options)
        last.append(warm_up)
        bar = _Bar(quiet=each and sys.stdout.isatty())
        try:
            async for progress in warm_up:
                if each and not invocation.as_json:
                    _show_item(progress.item)
                bar.show(progress.done, progress.total, progress.asked)
        finally:
            bar.end()
            await warm_up.aclose()

    try:
        invocation.run(work)
    except KeyboardInterrupt:
        if last:
            _show(invocation, last[0].report, each=each)
        return INTERRUPTED
    except Exception:
        if last and not invocation.as_json:
            _show(invocation, last[0].report, each=each)
        raise
    report = last[0].report
    _show(invocation, report, each=each)
    return NOT_ALL if report.failed or report.left else 0


async def _begun(
    flywheel: Flywheel,
    resume: str | None,
    *,
    file: str | None,
    budget_calls: int | None,
    budget_time: str | None,
    budget_money: float | None,
    concurrency: int | None,
    dry_run: bool,
    **sources: Any,
) -> WarmUp:
    from agentic_flywheel.durations import parse_duration
    from agentic_flywheel.insight.warm_file import read_questions
    from agentic_flywheel.interfaces.cli.terminal import warn
    from agentic_flywheel.warmups import WarmBudget

    seconds = parse_duration(budget_time).total_seconds() if budget_time else None
    budget = WarmBudget(calls=budget_calls, seconds=seconds, money=budget_money)
    if resume:
        job = "" if resume == LAST else resume
        warm_up = await flywheel.warming.resume(job, budget=budget, concurrency=concurrency)
    else:
        questions = read_questions(sys.stdin.buffer.read(), "stdin") if file == STANDARD else ()
        warm_up = await flywheel.warming.begin(
            questions,
            file=None if file == STANDARD else file,
            budget=budget,
            concurrency=concurrency,
            dry_run=dry_run,
            **sources,
        )
    for warning in warm_up.report.warnings:
        warn(warning)
    return warm_up


@warm.command("show")
@click.argument("job", metavar="[JOB]", default=LAST)
@click.option("--list", "listed", is_flag=True, help="The last warm-ups, one a line.")
@click.option("--each", is_flag=True, help="Say what came of each question.")
@click.option("--limit", metavar="N", type=click.IntRange(1, 100), default=10, help="List at most so many. [10]")
@click.pass_obj
def show(invocation: Invocation, job: str, listed: bool, each: bool, limit: int) -> None:
    """Say what came of a warm-up: the last one, or JOB; also while it runs, here or elsewhere."""
    if listed:
        _show_list(invocation, invocation.run(lambda flywheel: flywheel.warming.recent(limit)))
        return
    report = invocation.run(lambda flywheel: flywheel.warming.show("" if job == LAST else job, items=each))
    if each and not invocation.as_json:
        for item in report.items:
            _show_item(item)
    _show(invocation, report, each=each)


@warm.command("stop")
@click.argument("job", metavar="[JOB]", default=LAST)
@click.pass_obj
def stop(invocation: Invocation, job: str) -> None:
    """Stop a warm-up, the last one or JOB, whichever program runs it; what is under way ends first."""
    report = invocation.run(lambda flywheel: flywheel.warming.stop("" if job == LAST else job))
    _show(invocation, report, each=False)


def _show(invocation: Invocation, report: WarmReport, *, each: bool) -> None:
    import msgspec

    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import bold, clean, note, print_json, seconds, words

    if invocation.as_json:
        print_json(report if each else msgspec.structs.replace(report, items=()))
        return
    state = f"left: {_BOUNDS[report.bound.value]}" if report.bound else _STATES.get(report.state, report.state)
    state = "stops" if report.stopping else state
    print(
        f"{bold(report.job or 'dry run')}  {state}" + clean(f"  {', '.join(report.sources)}" if report.sources else "")
    )
    parts = [("stored", report.stored), ("warm already", report.warm), ("would be asked", report.due)]
    parts += [("refused", report.refused), ("failed", report.failed), ("left", report.left)]
    counts = ", ".join(f"{count} {name}" for name, count in parts if count) or "nothing to do"
    print(f"  {counted(report.total, 'questions')}: {counts}")
    if report.state != "dry":
        money = "" if report.money is None else f", {report.money:g} {report.currency} spent"
        print(f"  {counted(report.asked, 'calls')} of flows in {seconds(report.seconds) or '0 s'}{money}")
    for name, reasons in (("refused", report.refusals), ("failed", report.failures)):
        if reasons:
            print(clean(f"  {name}: " + ", ".join(f"{count} {words(reason)}" for reason, count in reasons.items())))
    if report.failed and not each:
        note("Which:  " + (f"afw warm show {report.job} --each" if report.job else "the same with --each"))
    if report.job and (report.failed or report.left) and report.state != "running":
        spent = report.bound is not None and report.bound.value in _BUDGETS
        note(f"Go on:  afw warm --resume {report.job}" + ("  (with another budget)" if spent else ""))


def _show_list(invocation: Invocation, reports: list[WarmReport]) -> None:
    from agentic_flywheel.interfaces.cli.terminal import ago, note, print_json, table

    if invocation.as_json:
        print_json({"warm_ups": reports})
    elif not reports:
        note("Nothing has been warmed yet.")
    else:
        rows = [
            (
                report.job,
                ago(report.at),
                _BOUNDS[report.bound.value] if report.bound else _STATES.get(report.state, report.state),
                str(report.asked),
                f"{report.stored + report.warm} of {report.total}",
                ", ".join(report.sources),
            )
            for report in reports
        ]
        table(rows, ("job", "ordered", "state", "calls", "warm", "what"))


def _show_item(item: WarmItem) -> None:
    from agentic_flywheel.interfaces.cli.terminal import bold, clean, dim, milliseconds, one_line, words

    asked = " > ".join([*(one_line(earlier, 30) for earlier in item.path), one_line(item.question, 70)])
    why = item.note or words(item.reason)
    took = f", {milliseconds(item.flow_ms)}" if item.flow_ms is not None else ""
    told = dim(f"{item.flow}: {why}{took}" if item.flow else why)
    print(f"{bold(item.outcome.value.ljust(7))}  {clean(asked) or '(its words are not kept)'}  {told}")


_STATES = {"running": "running", "broken": "broken off", "dry": "nothing was asked", "done": "done", "left": "left"}
_BOUNDS = {
    "calls": "the calls that were allowed are made",
    "time": "the time is over",
    "money": "the money is spent",
    "flow": "a flow fails",
    "stopped": "stopped",
}
_BUDGETS = frozenset({"calls", "time", "money"})


class _Bar:
    """Progress on stderr, where somebody looks at it."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = sys.stderr.isatty() and not quiet
        self._shown = False

    def show(self, done: int, total: int, asked: int) -> None:
        if self._on:
            filled = "█" * round(done / max(1, total) * _BAR)
            sys.stderr.write(f"\r{filled:░<{_BAR}} {done}/{total}, {asked} asked ")
            sys.stderr.flush()
            self._shown = True

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False

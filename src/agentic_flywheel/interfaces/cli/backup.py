"""`afw export` and `afw import`: all that a tenant knows in one file, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentic_flywheel.backup import BackupReceipt
    from agentic_flywheel.flywheel import Flywheel

STANDARD = "-"
OWN_DATA = ".zip"
PASSED_OVER = 1
#: What people call the kinds of records, in the plural.
NOUNS = {
    "flow": "flows",
    "lifetime": "lifetimes",
    "privacy": "privacy policies",
    "similar": "settings of similar questions",
    "blocked": "blocked pairs",
    "report": "reports",
    "proposal": "proposals",
    "faq": "FAQ entries",
    "joined": "joined wordings",
    "asked": "counted questions",
    "session": "sessions",
    "turn": "turns",
    "entry": "entries",
}


@click.command("export", cls=FlywheelCommand)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--sessions", is_flag=True, help="Sessions with their turns.")
@click.option("--policies", is_flag=True, help="Lifetimes, decisions on similar questions, reports, proposals.")
@click.option("--faq", is_flag=True, help="The FAQ with its history.")
@click.option("--counts", is_flag=True, help="What was asked how often, and what next.")
@click.option("--entries", is_flag=True, help="Stored answers.")
@click.option("--user", metavar="ID", default="", help="Only this user's; alone: all that is kept about them.")
@click.option("--since", metavar="WHEN", help="Only what was active since: 7d, 36h, 2026-11-01.")
@click.option("--resume", is_flag=True, help="Go on with an export to FILE that was cut off.")
@click.pass_obj
def export(
    invocation: Invocation,
    file: str | None,
    sessions: bool,
    policies: bool,
    faq: bool,
    counts: bool,
    entries: bool,
    user: str,
    since: str | None,
    resume: bool,
) -> None:
    """Write a backup to FILE, compressed if it ends in .zst; `-` is stdout. With --user alone, or a FILE that ends in
    .zip: all that is kept about that person, to read (own-data.md) and for programs (own-data.json).

    Without --sessions, --policies, --faq, --counts or --entries it has all of them. Without FILE its name says tenant
    and time. It works while others ask; only you may read the file.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if resume and file in (None, STANDARD):
        raise click.UsageError("--resume needs the FILE that was being written.")
    if file == STANDARD and invocation.as_json:
        raise click.UsageError("With --json the receipt would stand among the records: name a FILE.")
    if user and (file.endswith(OWN_DATA) if file else not (sessions or entries or since)):
        if sessions or policies or faq or counts or entries or since or resume:
            raise click.UsageError("What is kept about a person is written whole: --user ID and FILE alone.")
        _own_data(invocation, user, file)
        return
    chosen = {"sessions": sessions, "policies": policies, "faq": faq, "counts": counts, "entries": entries}
    moment = _moment(since) if since else None
    named = file or _name(invocation.settings().text("tenant"))
    with _Progress("records", "" if file == STANDARD else f"{'' if file else f'{named} '}--resume") as progress:
        receipt = invocation.run(
            lambda flywheel: flywheel.backup.export(
                named,
                sections=[name for name, wanted in chosen.items() if wanted],
                user=user,
                since=moment,
                resume=resume,
                progress=progress,
            )
        )
    if invocation.as_json:
        print_json(receipt)
    else:
        _show_export(receipt, quiet=file == STANDARD)


def _own_data(invocation: Invocation, user: str, file: str | None) -> None:
    """Write all that is kept about a person."""
    import re
    from datetime import datetime
    from pathlib import Path

    from agentic_flywheel.interfaces.cli.terminal import clean, print_json, size, warn
    from agentic_flywheel.own_data_pages import OwnDataReceipt, write

    at = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    target = Path(file or f"afw-own-data-{re.sub(r'[^A-Za-z0-9_.-]+', '-', user)[:60]}-{at}{OWN_DATA}")

    async def work(flywheel: Flywheel) -> OwnDataReceipt:
        await flywheel.audit.record("user.export", user, by=invocation.me)
        return write(await flywheel.own_data.of(user), target)

    receipt = invocation.run(work)
    if invocation.as_json:
        print_json(receipt)
        return
    held = [f"{count} {part.replace('_', ' ')}" for part, count in receipt.holds.items() if count]
    print(clean(f"what is kept about {user} is in {receipt.file} ({size(receipt.size_bytes)})"))
    print(f"  {', '.join(held) or 'nothing'}")
    for warning in receipt.warnings:
        warn(warning)


@click.command("import", cls=FlywheelCommand)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--dry-run", is_flag=True, help="Only say what would be put back.")
@click.option("--resume", is_flag=True, help="Go on where an import of this file was cut off.")
@click.option("--skip-damaged", is_flag=True, help="Pass over damaged lines, and count them.")
@click.pass_obj
def import_(invocation: Invocation, file: str, dry_run: bool, resume: bool, skip_damaged: bool) -> int:
    """Put back what an export wrote; `-` is stdin.

    Nothing that is here is removed or replaced by something older, so an import may be repeated.
    """
    from agentic_flywheel.errors import InputError
    from agentic_flywheel.interfaces.cli.terminal import print_json

    with _Progress("lines", "" if dry_run or file == STANDARD else "--resume", vain=InputError) as progress:
        receipt = invocation.run(
            lambda flywheel: flywheel.backup.restore(
                file, dry_run=dry_run, resume=resume, skip_damaged=skip_damaged, progress=progress
            )
        )
    if invocation.as_json:
        print_json(receipt)
    else:
        _show_import(receipt)
    return PASSED_OVER if receipt.damaged else 0


def _show_export(receipt: BackupReceipt, *, quiet: bool) -> None:
    """What was written; on stderr where the backup itself went to stdout."""
    from agentic_flywheel.interfaces.cli.terminal import clean, dim, note, size, warn

    def told(line: str) -> None:
        note(line) if quiet else print(line)

    told(clean(f"export of {receipt.tenant} to {receipt.file}"))
    told(f"  wrote {_counts(receipt.records)}")
    if receipt.resumed:
        told(f"  went on behind line {receipt.resumed} of an export that was cut off")
    if receipt.size_bytes:
        told(f"  {size(receipt.size_bytes)} in {receipt.seconds:.1f} s")
    if not quiet:
        print(dim("  Vectors are not in it (they are made anew), nor the flow registry, which is a file of its own."))
    for warning in receipt.warnings:
        warn(warning)


def _show_import(receipt: BackupReceipt) -> None:
    from agentic_flywheel.interfaces.cli.terminal import clean, note, warn

    print(clean(f"import of {receipt.file} into {receipt.tenant}"))
    print(f"  {'would put' if receipt.dry_run else 'put'} back {_counts(receipt.records)}")
    if receipt.there:
        print(f"  there already: {_counts(receipt.there)}")
    for reason, count in receipt.skipped.items():
        kind, _, why = reason.partition(": ")
        print(clean(f"  skipped {_counts({kind: count})}: {why}"))
    if receipt.resumed:
        print(f"  went on behind line {receipt.resumed}; the counts are those of all lines")
    for warning in receipt.warnings:
        warn(warning)
    if receipt.damaged:
        lines = ", ".join(map(str, receipt.damaged_lines))
        more = ", …" if receipt.damaged > len(receipt.damaged_lines) else ""
        warn(f"{receipt.damaged} damaged line(s) passed over: {lines}{more}")
    if receipt.dry_run:
        note("Nothing has been put back. Run it again without --dry-run to do it.", bold=True)


def _counts(counts: dict[str, int]) -> str:
    from agentic_flywheel.amounts import counted

    shown = [_counted(counts[kind], kind, counted) for kind in dict.fromkeys([*NOUNS, *counts]) if counts.get(kind)]
    return ", ".join(shown) or "nothing"


def _counted(count: int, kind: str, counted: Callable[[int, str], str]) -> str:
    noun = NOUNS.get(kind, kind)
    if kind == "similar":
        return f"{count} {noun}" if count != 1 else f"1 {noun.replace('settings', 'setting', 1)}"
    return counted(count, noun)


def _name(tenant: str) -> str:
    """Where a backup goes that was given no name."""
    import re
    from datetime import datetime

    at = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return f"afw-{re.sub(r'[^A-Za-z0-9_.-]+', '-', tenant)}-{at}.jsonl.zst"


def _moment(text: str) -> float:
    """What `--since` names, in epoch seconds, as everywhere. Raises `InputError`."""
    import time

    from agentic_flywheel.errors import InputError
    from agentic_flywheel.search.history.query import moment_of

    now = time.time()
    if (moment := moment_of(text, end=False, now=now)) > now:
        raise InputError(f"--since {text} lies ahead: nothing was active since then")
    return moment


class _Progress:
    """A line on a terminal that says how far it is; nothing where stderr goes elsewhere.

    Where the work ends before its time, and something was done, it says how to go on: with the same and `more`; not
    after an error that is `vain` to go on from.
    """

    def __init__(self, noun: str, more: str, *, vain: type[Exception] | tuple[()] = ()) -> None:
        self._noun = noun
        self._more = more
        self._vain = vain
        self._done = 0
        self._next = 0.0

    def __call__(self, done: int) -> None:
        import sys
        import time

        self._done = done
        if sys.stderr.isatty() and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            sys.stderr.write(f"\r  {done:,} {self._noun}")
            sys.stderr.flush()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        import sys

        from agentic_flywheel.interfaces.cli.terminal import note

        if self._next:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        if kind is not None and self._done and self._more and not issubclass(kind, self._vain):
            note(f"{self._done:,} {self._noun} are done. Go on:  the same with {self._more}")

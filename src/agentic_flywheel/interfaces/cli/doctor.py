"""`afw doctor`: what is fine, what is not, and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.model import Check

PROBLEM = 1
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", cls=FlywheelCommand)
@click.option(
    "--acl", is_flag=True, help="Print the Redis rights that are needed, as words of ACL SETUSER, and look at nothing."
)
@click.pass_obj
def doctor(invocation: Invocation, acl: bool) -> int:
    """Look at everything: Redis, the registry, the flows. Exit code 1 if something is broken; warnings are not."""
    from agentic_flywheel.interfaces.cli.terminal import print_json

    if acl:
        from agentic_flywheel.store.rights import MORE, access_list

        rights = access_list("flywheel", *MORE)
        if invocation.as_json:
            print_json({"acl": rights})
        else:
            print(*rights)
        return 0
    checks = invocation.run(lambda flywheel: flywheel.doctor())
    broken = any(check.state == "fail" for check in checks)
    if invocation.as_json:
        print_json({"ok": not broken, "checks": checks})
    else:
        _print_checks(list(checks))
    return PROBLEM if broken else 0


def _print_checks(checks: list[Check]) -> None:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import clean, note, paragraphs, styled

    size = max((len(check.name) for check in checks), default=0)
    for check in checks:
        state = styled(f"{check.state:<4}", sys.stdout, fg=_COLOURS.get(check.state))
        print(f"{state}  {clean(check.name).ljust(size)}  {clean(check.message)}")
        if check.advice:
            print(paragraphs(check.advice, " " * (size + 8)))
    failed = sum(check.state == "fail" for check in checks)
    warned = sum(check.state == "warn" for check in checks)
    note(
        "Everything is fine."
        if not failed + warned
        else f"{counted(failed, 'problems')}, {counted(warned, 'warnings')}."
    )

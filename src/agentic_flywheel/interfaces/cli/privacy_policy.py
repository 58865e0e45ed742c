"""`afw privacy show`, `set`, `clear`: the policies of flows, users and the tenant, of which the strictest holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.privacy import InForce, PolicyChange, Privacy, PrivacyPolicy, PrivacyShown, SweepNote, Whose

_DAY = 86_400.0
_ON_OFF = click.Choice(["on", "off"])


def _whose_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whose policy it is; exactly one of them."""
    command = click.option("--everybody", is_flag=True, help="The tenant's policy: for everybody.")(command)
    command = click.option("--user", metavar="USER", help="The policy of this user.")(command)
    return click.option("--flow", metavar="FLOW", help="The policy of this flow.")(command)


def _whose(flow: str | None, user: str | None, *, everybody: bool) -> tuple[Whose, str]:
    from agentic_flywheel.privacy import Whose

    if sum((flow is not None, user is not None, everybody)) != 1:
        raise click.UsageError("Name exactly one of --flow FLOW, --user USER, --everybody.")
    if flow is not None:
        return Whose.FLOW, flow
    return (Whose.USER, user) if user is not None else (Whose.TENANT, "")


@click.command("show", cls=FlywheelCommand, epilog="Example: afw privacy show --flow legal --user ann")
@click.option("--flow", metavar="FLOW", help="What holds for questions to this flow.")
@click.option("--user", metavar="USER", help="What holds for this user's questions.")
@click.pass_obj
def show(invocation: Invocation, flow: str | None, user: str | None) -> None:
    """Show the policies, what holds because of them, and how old turns are.

    With --flow and --user: what holds for that user's questions to that flow.
    """
    from agentic_flywheel.interfaces.cli.terminal import print_json

    shown = invocation.run(lambda flywheel: flywheel.policies.show(flow=flow, user=user))
    if invocation.as_json:
        print_json(shown)
    else:
        _print_shown(shown)


def _print_shown(shown: PrivacyShown) -> None:
    from agentic_flywheel.interfaces.cli.terminal import note, table

    table([_row(one) for one in shown.in_force], ["whose", "history", "cache", "retention", "redacted", "oldest turn"])
    if shown.policies:
        print()
        rows = [
            [f"{one.whose} {one.name}".strip(), ", ".join(one.policy.words()), one.origin] for one in shown.policies
        ]
        table(rows, ["policy of", "says", "set by"])
    else:
        note("Nobody set a policy: everything is kept. `afw privacy set --help`")
    for sweep, told in ((shown.running_sweep, "A sweep is under way"), (shown.last_sweep, "Last swept")):
        if sweep is not None:
            note(f"{told} {_swept(sweep)}.")
    if shown.last_sweep is None:
        note("Not swept yet: ages are known after the first sweep; `afw session sweep` previews one.")
    if shown.idle_days:
        note(f"Sessions that nobody used for {shown.idle_days:g} days go as a whole (session.retention_days).")


def _row(one: InForce) -> list[str]:
    from agentic_flywheel.interfaces.cli.terminal import ago

    names = [f"flow {one.flow}"] if one.flow else []
    names += [f"user {one.user}"] if one.user else []
    return [
        " and ".join(names) or f"tenant {one.tenant}",
        *privacy_words(one.privacy),
        "" if one.oldest_at is None else ago(one.oldest_at),
    ]


def privacy_words(privacy: Privacy) -> list[str]:
    """History, cache, retention and redaction in words, with whose policies say so."""

    def by(said: str, whose: tuple[str, ...]) -> str:
        return f"{said} ({', '.join(whose)})" if whose else said

    days = privacy.retention_days
    return [
        by("on" if privacy.history else "off", privacy.history_by),
        by("on" if privacy.cache else "off", privacy.cache_by),
        by("for ever" if days is None else f"{days:g} days", privacy.retention_by),
        by(", ".join(sorted(privacy.redact)) or "nothing", privacy.redact_by),
    ]


def _swept(sweep: SweepNote) -> str:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import ago

    at = sweep.began_at if sweep.done_at is None else sweep.done_at
    did = f"{counted(sweep.removed, 'turns')} removed, {counted(sweep.ended, 'sessions')} with them"
    return f"{ago(at)}: {counted(sweep.sessions, 'sessions')} looked at, {did}"


@click.command("set", cls=FlywheelCommand, epilog="Example: afw privacy set --flow legal --history off --retention 30d")
@_whose_options
@click.option("--history", type=_ON_OFF, help="Whether turns are kept.")
@click.option("--cache", type=_ON_OFF, help="Whether answers are stored and served again; off removes those stored.")
@click.option("--retention", metavar="DURATION", help="Older turns go (30d); none: it sets no limit.")
@click.option("--redact", metavar="KIND", multiple=True, help="Take this out (email); may be repeated; none: nothing.")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the audit log.")
@click.pass_obj
def set_policy(
    invocation: Invocation,
    flow: str | None,
    user: str | None,
    everybody: bool,
    history: str | None,
    cache: str | None,
    retention: str | None,
    redact: tuple[str, ...],
    why: str,
) -> None:
    """Set the policy of a flow, a user or everybody.

    What is not named stays as it was set. Of all policies that concern a question, the strictest holds.
    """
    whose, name = _whose(flow, user, everybody=everybody)
    said: dict[str, Any] = {}
    if history is not None:
        said["history"] = history == "on"
    if cache is not None:
        said["cache"] = cache == "on"
    if retention is not None:
        said["retention_days"] = None if retention == "none" else _days(retention)
    if redact:
        said["redact"] = frozenset() if redact == ("none",) else frozenset(word.casefold() for word in redact)
    if not said:
        raise click.UsageError("Say what is to hold: --history, --cache, --retention or --redact.")

    async def work(flywheel: Flywheel) -> PolicyChange:
        import msgspec

        policy: PrivacyPolicy = msgspec.structs.replace(await flywheel.policies.at(whose, name), **said)
        words = ", ".join(policy.words())
        target = f"{whose} {name}".strip()
        await flywheel.audit.record("privacy.set", target, by=invocation.me, why=why, policy=words)
        return await flywheel.policies.set(whose, name, policy=policy)

    _show_change(invocation, invocation.run(work))


def _days(text: str) -> float:
    from agentic_flywheel.durations import parse_duration

    return parse_duration(text).total_seconds() / _DAY


@click.command("clear", cls=FlywheelCommand, epilog="Example: afw privacy clear --user ann")
@_whose_options
@click.option("--why", default="", metavar="TEXT", help="The reason, for the audit log.")
@click.pass_obj
def clear(invocation: Invocation, flow: str | None, user: str | None, everybody: bool, why: str) -> None:
    """Take back what `privacy set` said.

    What the registry says, and other policies, hold on.
    """
    whose, name = _whose(flow, user, everybody=everybody)

    async def work(flywheel: Flywheel) -> PolicyChange:
        await flywheel.policies.at(whose, name)  # refused before it is written down
        await flywheel.audit.record("privacy.clear", f"{whose} {name}".strip(), by=invocation.me, why=why)
        return await flywheel.policies.clear(whose, name)

    _show_change(invocation, invocation.run(work))


def _show_change(invocation: Invocation, change: PolicyChange) -> None:
    from agentic_flywheel.amounts import counted
    from agentic_flywheel.interfaces.cli.terminal import clean, note, print_json

    if invocation.as_json:
        print_json(change)
        return
    after = ", ".join(change.after.words()) or "says nothing"
    print(clean(f"{change.whose} {change.name}".strip() + f": {after}"))
    if change.removed_answers:
        print(f"  {counted(change.removed_answers, 'answers')} removed")
    for remark in change.notes:
        note(f"  {remark}")

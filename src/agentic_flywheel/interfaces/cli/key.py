"""`afw key`: who may call the service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from agentic_flywheel.interfaces.cli.ask import read_duration
from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, report_removal

if TYPE_CHECKING:
    from agentic_flywheel.callers import ApiKey, NewApiKey
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import Receipt

SCOPES = ("ask", "read", "admin", "metrics")


@click.group("key", cls=FlywheelGroup)
def key() -> None:
    """API keys of the service."""


@key.command("create", epilog="Example: afw key create docs-widget --scope ask --expires 90d --rate 60")
@click.argument("name")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="What it may do; repeat it."
)
@click.option("--user", metavar="ID", help="Whom it speaks for; without it, for whomever a request names.")
@click.option("--expires", metavar="DURATION", callback=read_duration, help="End it after so long (90d).")
@click.option("--rate", type=click.IntRange(0), metavar="N", help="Calls a minute; 0: no limit.")
@click.option("--flow", "flows", metavar="FLOW", multiple=True, help="Limit it to this flow; repeat it.")
@click.option("--why", default="", metavar="TEXT", help="For the audit log.")
@click.pass_obj
def create(
    invocation: Invocation,
    name: str,
    scopes: tuple[str, ...],
    user: str | None,
    expires: timedelta | None,
    rate: int | None,
    flows: tuple[str, ...],
    why: str,
) -> None:
    """Make a key and print its secret, once.

    The secret is the one line on stdout; nobody can see it again. A key that is limited to flows can ask and read those
    alone, wherever it is used.
    """
    from agentic_flywheel.callers import Scope
    from agentic_flywheel.flows.named import keys_of

    async def work(flywheel: Flywheel) -> NewApiKey:
        return await flywheel.api_keys.create(
            name,
            {Scope(scope) for scope in scopes},
            by=invocation.me,
            user=user,
            expires=expires,
            rate_per_minute=rate,
            flows=keys_of(flywheel.registry.current(), flows) if flows else None,
            why=why,
        )

    made = invocation.run(work)
    from agentic_flywheel.interfaces.cli.terminal import moment, note, print_json, say

    if invocation.as_json:
        print_json(made)
        return
    say(made.secret)
    until = f"until {moment(made.key.expires_at)}" if made.key.expires_at else "until it is revoked"
    note(f"The key {made.key.name!r} ({made.key.id}) of the tenant {made.key.tenant!r} may {_may(made.key)}, {until}.")
    note("Keep the secret now: it is not stored.", bold=True)


@key.command("list")
@click.option("--all-tenants", is_flag=True, help="Those of all tenants.")
@click.pass_obj
def list_keys(invocation: Invocation, all_tenants: bool) -> None:
    """List the keys, newest first.

    Those that were revoked or have expired stay listed for 90 days.
    """
    import time

    from agentic_flywheel.interfaces.cli.terminal import ago, as_wire, moment, note, print_json, table

    keys = invocation.run(lambda flywheel: flywheel.api_keys.list(all_tenants=all_tenants))
    now = time.time()
    if invocation.as_json:
        print_json({"keys": [{**as_wire(key), "state": key.state(now)} for key in keys]})
        return
    if not keys:
        note("No keys yet: `afw key create NAME --scope ask` makes one.")
        return
    rows = [
        [
            one.id,
            one.name,
            one.tenant,
            one.user or "",
            " ".join(sorted(one.scopes)),
            one.state(now),
            ago(one.used_at or 0, now),
            moment(one.expires_at) if one.expires_at else "",
            "all" if one.flows is None else ", ".join(sorted(one.flows)),
        ]
        for one in keys
    ]
    table(rows, ["id", "name", "tenant", "user", "scopes", "state", "last used", "expires", "flows"])


@key.command("revoke", epilog="Example: afw key revoke docs-widget --yes --why 'left the team'")
@click.argument("name", metavar="NAME|ID")
@click.option("--why", default="", metavar="TEXT", help="For the audit log.")
@confirmation_options
@click.pass_obj
def revoke(invocation: Invocation, name: str, why: str, yes: bool, dry_run: bool) -> int:
    """End a key, at once and in every process."""
    only_show = dry_run or not yes

    async def work(flywheel: Flywheel) -> Receipt:
        return await flywheel.api_keys.revoke(name, by=invocation.me, why=why, dry_run=only_show)

    return report_removal(invocation, invocation.run(work), wanted_dry=dry_run)


def _may(made: ApiKey) -> str:
    whom = f" as {made.user}" if made.user else ""
    of = "" if made.flows is None else f" of {', '.join(sorted(made.flows))} alone"
    return ", ".join(sorted(made.scopes)) + of + whom

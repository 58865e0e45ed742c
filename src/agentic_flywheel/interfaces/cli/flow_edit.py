"""`afw flow add`, `edit` and `remove`: changes to the registry's file, which keeps its comments and its order."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentic_flywheel.interfaces.cli.ask import read_duration
from agentic_flywheel.interfaces.cli.frame import FlywheelCommand, Invocation
from agentic_flywheel.interfaces.cli.receipt import confirmation_options, report_removal

if TYPE_CHECKING:
    from agentic_flywheel.flows.registry import RegistryChange
    from agentic_flywheel.flywheel import Flywheel

KINDS = ("flowise", "openai", "langflow", "documents", "python")
TYPES = ("technical", "creative", "document")
SHARING = ("team", "user", "session", "none")
_TEXT = ("id", "model", "callable", "name", "description", "purpose", "base_url", "api_key_env", "session_format")
_TEXT_HELP = {
    "id": "What the service calls the flow (Flowise: the chatflow's id).",
    "model": "Model to ask (kind openai).",
    "callable": "Function to call, as MODULE:NAME (kind python).",
    "name": "Name for people.",
    "description": "What it answers; people and clients pick flows by it.",
    "purpose": "What it is for.",
    "base_url": "Address of the service.",
    "api_key_env": "Variable that holds the API key; the key itself never stands in the registry.",
    "session_format": "Session id in the shape of an existing registry file.",
}
_PRICE = click.FloatRange(0, 1e6, max_open=True)


def _read_assignments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`NAME=VALUE` options as a mapping; VALUE is JSON where it parses as such, else text."""
    read: dict[str, Any] = {}
    for written in values:
        name, equals, text = written.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{written!r} is not NAME=VALUE.", context, parameter)
        try:
            read[name.strip()] = json.loads(text)
        except ValueError:
            read[name.strip()] = text
    return read


def _field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--kind", type=click.Choice(KINDS), help="Who answers."),
        *(click.option("--" + name.replace("_", "-"), metavar="TEXT", help=_TEXT_HELP[name]) for name in _TEXT),
        click.option("--folder", metavar="PATH", help="Folder to answer from (kind documents)."),
        click.option("--type", "type_", type=click.Choice(TYPES), help="What it knows; decides the lifetime."),
        click.option("--sharing", type=click.Choice(SHARING), help="Who may be served an answer."),
        click.option("--keyword", "intent_keywords", multiple=True, metavar="WORD", help="Routes to it; repeatable."),
        click.option("--ttl", callback=read_duration, metavar="DURATION", help="How long its answers stay good."),
        click.option("--sliding/--absolute", default=None, help="Whether a hit extends the lifetime."),
        click.option("--active/--inactive", default=None, help="Whether it may be asked."),
        click.option("--routable/--not-routable", default=None, help="Whether it may be picked without being named."),
        click.option("--timeout", callback=read_duration, metavar="DURATION", help="Longest wait for its answer."),
        click.option(
            "--check-every", callback=read_duration, metavar="DURATION", help="How old may be what is known of it."
        ),
        click.option("--context-turns", type=click.IntRange(0), metavar="N", help="Earlier turns that enrich."),
        click.option("--context-relevant", type=click.IntRange(0), metavar="N", help="Turns further back that do."),
        click.option("--context-tokens", type=click.IntRange(0), metavar="N", help="Most tokens these may take."),
        click.option("--verbatim/--not-verbatim", default=None, help="Word-for-word exception for follow-ups."),
        click.option(
            "--similar",
            callback=_read_assignments,
            multiple=True,
            metavar="NAME=VALUE",
            help="Similar questions: mode, profile, max_error, floor, audit_share.",
        ),
        click.option("--price-per-call", type=_PRICE, metavar="AMOUNT", help="What a call of it costs."),
        click.option(
            "--price-per-1000-tokens-in", type=_PRICE, metavar="AMOUNT", help="What 1,000 tokens cost that it reads."
        ),
        click.option(
            "--price-per-1000-tokens-out", type=_PRICE, metavar="AMOUNT", help="What 1,000 tokens cost that it writes."
        ),
        click.option("--acts/--not-acts", default=None, help="Whether it acts on the world (books, sends, deletes)."),
        click.option(
            "--warm", type=click.IntRange(0), metavar="N", help="Popular questions to ask again after it changed."
        ),
        click.option(
            "--config", callback=_read_assignments, multiple=True, metavar="NAME=VALUE", help="Ask it with this."
        ),
        click.option(
            "--option",
            "options",
            callback=_read_assignments,
            multiple=True,
            metavar="NAME=VALUE",
            help="Setting of its kind.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The registry's fields of what was given; a folder becomes absolute, since it is meant from here."""
    fields = {name: value for name, value in given.items() if value not in (None, (), {})}
    if "type_" in fields:
        fields["type"] = fields.pop("type_")
    if "intent_keywords" in fields:
        fields["intent_keywords"] = list(fields["intent_keywords"])
    if (folder := fields.get("folder")) and not folder.startswith("package:"):
        fields["folder"] = str(Path(folder).expanduser().absolute())
    for name in ("timeout", "check_every"):
        if isinstance(fields.get(name), timedelta):
            fields[name + "_seconds"] = fields.pop(name)
    return fields


@click.command("add", cls=FlywheelCommand, epilog="Example: afw flow add handbook --kind documents --folder ./handbook")
@click.argument("key")
@_field_options
@click.pass_obj
def add(invocation: Invocation, /, key: str, **given: Any) -> None:
    """Add a flow to the registry.

    KEY is the name that people use. Running processes see the flow at once.
    """

    async def work(flywheel: Flywheel) -> RegistryChange:
        return flywheel.registry.add(key, **_fields(given))

    _show_change(invocation, invocation.run(work))


@click.command("edit", cls=FlywheelCommand, epilog="Example: afw flow edit support --ttl 36h --config temperature=0.2")
@click.argument("key")
@_field_options
@click.option("--unset", multiple=True, metavar="FIELD", help="Take a field away (also config.NAME); repeatable.")
@click.pass_obj
def edit(invocation: Invocation, /, key: str, unset: tuple[str, ...], **given: Any) -> None:
    """Change fields of a flow.

    Where this changes what it answers with, answers of the old configuration are not served as fresh any more.
    """
    changes = _fields(given)
    if not changes and not unset:
        raise click.UsageError("Say what to change, such as --ttl 36h.")

    async def work(flywheel: Flywheel) -> RegistryChange:
        spec = flywheel.registry.current().get(key, inactive=True)
        for name in ("config", "options", "similar"):
            inner = {field.partition(".")[2] for field in unset if field.startswith(name + ".")}
            if name in changes or inner:
                merged = {**_parts(getattr(spec, name)), **changes.get(name, {})}
                changes[name] = {part: value for part, value in merged.items() if part not in inner} or None
        changes.update({field.replace("-", "_"): None for field in unset if "." not in field})
        return flywheel.registry.edit(spec.key, **changes)

    _show_change(invocation, invocation.run(work))


def _parts(field: Any) -> dict[str, Any]:
    """What a field that is a mapping in the file says now."""
    from agentic_flywheel.flows.registry_values import said_of
    from agentic_flywheel.likeness import SimilarPolicy

    return said_of(field) if isinstance(field, SimilarPolicy) else dict(field)


def _show_change(invocation: Invocation, change: RegistryChange) -> None:
    from agentic_flywheel.interfaces.cli.terminal import note, print_json, say

    if invocation.as_json:
        print_json(change)
        return
    say(f"{change.action} {change.key}")
    for name in dict.fromkeys((*change.before, *change.after)):
        before, after = (json.dumps(side.get(name), ensure_ascii=False) for side in (change.before, change.after))
        if name not in change.before:
            say(f"  {name}: {after}")
        else:
            say(f"  {name}: {before} -> {after if name in change.after else 'taken away'}")
    if change.action == "edited" and not change.before and not change.after:
        say("  nothing changed")
    note(f"In {change.path}" + (", which was made for it." if change.created else "."))


@click.command("remove", cls=FlywheelCommand)
@click.argument("key")
@confirmation_options
@click.pass_obj
def remove(invocation: Invocation, key: str, yes: bool, dry_run: bool) -> int:
    """Remove a flow and its stored answers.

    Conversations stay.
    """
    from agentic_flywheel.flow_removal import remove_flow

    dry = dry_run or not yes
    receipt, problem = invocation.run(lambda flywheel: remove_flow(flywheel, key, dry_run=dry))
    code = report_removal(invocation, receipt, wanted_dry=dry_run)
    return problem.exit_code if problem else code

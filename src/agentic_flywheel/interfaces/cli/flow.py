"""`afw flow`: who answers; what each flow is, whether it can be asked, and when it changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from agentic_flywheel.interfaces.cli.flow_edit import add, edit, remove
from agentic_flywheel.interfaces.cli.frame import FlywheelGroup, Invocation

if TYPE_CHECKING:
    from agentic_flywheel.flows.protocol import FlowHealth, FlowSpec
    from agentic_flywheel.flywheel import Flywheel
    from agentic_flywheel.model import FlowChange, FlowState
    from agentic_flywheel.privacy import InForce

    _Looked: TypeAlias = tuple[FlowSpec, str, FlowState | None, Sequence[FlowChange], InForce | None, str]

UNAVAILABLE = 2
_SECRET_WORDS = ("key", "token", "secret", "password", "authorization")


@click.group("flow", cls=FlywheelGroup)
def flow() -> None:
    """List, add, change, check and try flows."""


for _command in (add, edit, remove):
    flow.add_command(_command)


@flow.command("list")
@click.option("--all", "inactive", is_flag=True, help="Inactive flows too.")
@click.pass_obj
def list_flows(invocation: Invocation, inactive: bool) -> None:
    """List the flows of the registry in force."""
    from agentic_flywheel.interfaces.cli.terminal import note, one_line, print_json, seconds, table, warn

    async def work(flywheel: Flywheel) -> tuple[list[FlowSpec], Any, Any]:
        return flywheel.flows.list(inactive=inactive), flywheel.registry.current(), flywheel.registry.problem

    flows, snapshot, problem = invocation.run(work)
    notes = [*([f"{problem}; the last good reading is used"] if problem else []), *snapshot.notes]
    if invocation.as_json:
        print_json(
            {
                "flows": [shown_flow(spec) for spec in flows],
                "registry": snapshot.path,
                "origin": snapshot.origin,
                "notes": notes,
            }
        )
        return
    rows = [
        [
            spec.key if spec.active else f"{spec.key} (inactive)",
            spec.kind,
            spec.type.value,
            spec.sharing.value,
            seconds(spec.ttl.total_seconds()) if spec.ttl else "by type",
            one_line(spec.description or spec.name or spec.id, 80),
        ]
        for spec in flows
    ]
    table(rows, ["flow", "kind", "type", "shared with", "lifetime", "description"])
    for remark in notes:
        warn(remark)
    note(f"From {snapshot.path} ({snapshot.origin}).")


def shown_flow(spec: FlowSpec) -> dict[str, Any]:
    """A flow as JSON shows it: nothing that looks like a credential leaves the registry."""
    from agentic_flywheel.interfaces.cli.terminal import as_wire

    shown: dict[str, Any] = as_wire(spec)
    return {**shown, "config": _masked(shown["config"]), "options": _masked(shown["options"])}


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "***" if _is_secret(name) and isinstance(content, str) and content else _masked(content)
            for name, content in value.items()
        }
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _is_secret(name: str) -> bool:
    folded = name.casefold()
    return any(folded.endswith(word) for word in _SECRET_WORDS)


@flow.command("show")
@click.argument("key")
@click.pass_obj
def show(invocation: Invocation, key: str) -> None:
    """Show one flow, its configuration and when that changed."""
    from agentic_flywheel.errors import StoreError
    from agentic_flywheel.interfaces.cli.terminal import print_json, warn

    async def work(flywheel: Flywheel) -> _Looked:
        spec = flywheel.flows.show(key)
        address = flywheel.flows.address(spec.key)
        try:
            state, changes = await flywheel.flows.state(spec.key), await flywheel.flows.changes(spec.key)
            (privacy,) = (await flywheel.policies.show(flow=spec.key)).in_force
        except StoreError as error:  # the registry's half is worth showing without Redis
            return spec, address, None, [], None, error.message
        return spec, address, state, changes, privacy, ""

    spec, address, state, changes, privacy, problem = invocation.run(work)
    if invocation.as_json:
        found = {"flow": shown_flow(spec), "address": address, "state": state, "changes": changes, "privacy": privacy}
        print_json({**found, "problem": problem} if problem else found)
        return
    _print_flow(spec, address, state, changes, privacy)
    if problem:
        warn(f"what the team's Redis knows of this flow is missing: {problem}")


def _print_flow(
    spec: FlowSpec, address: str, state: FlowState | None, changes: Sequence[FlowChange], privacy: InForce | None
) -> None:
    import json

    from agentic_flywheel.interfaces.cli.terminal import bold, dim, moment, pairs, seconds

    def mapping(value: Any) -> str:
        return json.dumps(_masked(dict(value)), ensure_ascii=False, default=str) if value else ""

    print(bold(spec.name or spec.key))
    pairs(
        [
            ("key", spec.key),
            ("kind", spec.kind),
            ("id", spec.id),
            ("address", address or spec.base_url),
            ("active", "" if spec.active else "no"),
            ("routed to", "" if spec.routable else "only when named"),
            ("description", spec.description),
            ("purpose", spec.purpose),
            ("keywords", ", ".join(spec.intent_keywords)),
            ("type", spec.type.value),
            ("shared with", spec.sharing.value),
            ("lifetime", f"{seconds(spec.ttl.total_seconds())}{', sliding' * spec.sliding}" if spec.ttl else "by type"),
            ("similar", _similar_of(spec)),
            *_kept_of(privacy),
            ("warmed", f"{spec.warm} popular questions after a change" if spec.warm else ""),
            ("key from", spec.api_key_env),
            ("asked with", mapping(spec.config)),
            ("options", mapping(spec.options)),
            ("written in", spec.origin),
            *_known_of(state),
        ]
    )
    for change in changes[:5]:
        print(dim(f"  {moment(change.at)}  {change.old or 'first seen'} -> {change.new}"))


def _similar_of(spec: FlowSpec) -> str:
    """What the registry says of similar questions, "" where the settings hold."""
    from agentic_flywheel.flows.registry_values import said_of

    if spec.acts:
        return "never, since it acts on the world"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said_of(spec.similar).items())


def _kept_of(found: InForce | None) -> list[tuple[str, str]]:
    """What is kept of the flow's questions, where a policy says something."""
    from agentic_flywheel.interfaces.cli.privacy_policy import privacy_words
    from agentic_flywheel.interfaces.cli.terminal import ago

    if found is None:
        return []
    privacy = found.privacy
    said = zip(("history", "cache", "retention", "redacted"), privacy_words(privacy), strict=True)
    by = (privacy.history_by, privacy.cache_by, privacy.retention_by, privacy.redact_by)
    rows = [(name, words) for (name, words), whose in zip(said, by, strict=True) if whose]
    return [*rows, ("oldest turn", ago(found.oldest_at))] if found.oldest_at is not None else rows


def _known_of(state: FlowState | None) -> list[tuple[str, str]]:
    from agentic_flywheel.interfaces.cli.terminal import ago, moment, seconds

    if state is None:
        return []
    if not state.fingerprint:
        return [("configuration", "not recorded yet: it is when the flow is first asked")]
    return [
        ("configuration", f"{state.fingerprint}, generation {state.generation}"),
        ("since", f"{ago(state.changed_at)} ({moment(state.changed_at)})" if state.changed_at else ""),
        ("checked", ago(state.checked_at) if state.checked_at else ""),
        ("lifetime set", seconds(state.ttl_seconds)),
    ]


@flow.command("check")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.pass_obj
def check(invocation: Invocation, keys: tuple[str, ...]) -> int:
    """Look whether flows can be asked.

    They are not asked a question. Without KEY all active flows are looked at. Exit code 2 if one cannot be asked.
    """
    from agentic_flywheel.interfaces.cli.terminal import clean, milliseconds, print_json, styled

    async def work(flywheel: Flywheel) -> dict[str, FlowHealth]:
        import asyncio

        names = [flywheel.flows.show(key).key for key in keys] or [spec.key for spec in flywheel.flows.list()]
        results = await asyncio.gather(*(flywheel.flows.check(name) for name in names))
        return dict(zip(names, results, strict=True))

    found = invocation.run(work)
    if invocation.as_json:
        print_json({"flows": found, "ok": all(health.ok for health in found.values())})
    else:
        import sys

        for name, health in found.items():
            word = styled("ok  ", sys.stdout, fg="green") if health.ok else styled("fail", sys.stdout, fg="red")
            version = f", version {health.version}" if health.version else ""
            print(f"{word}  {clean(name)}  {milliseconds(health.elapsed_ms)}{clean(version)}")
            for remark in health.notes:
                print(f"      {clean(remark)}")
    return 0 if all(health.ok for health in found.values()) else UNAVAILABLE


@flow.command("test")
@click.argument("key")
@click.argument("question")
@click.pass_obj
def test(invocation: Invocation, key: str, question: str) -> None:
    """Ask one flow a question, past the memory.

    Nothing is looked up and nothing is kept.
    """
    from agentic_flywheel.interfaces.cli.ask import show_answer
    from agentic_flywheel.interfaces.cli.terminal import print_json

    answer = invocation.run(lambda flywheel: flywheel.flows.test(key, question))
    if invocation.as_json:
        print_json(answer)
    else:
        show_answer(answer)

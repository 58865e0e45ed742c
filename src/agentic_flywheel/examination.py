"""What `afw doctor` looks at: registry, Redis, outbox, flows; each finding with what to do about it."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agentic_flywheel.curated import FaqState
from agentic_flywheel.curation import Flows
from agentic_flywheel.durations import show_duration
from agentic_flywheel.errors import ExtraMissing, FlywheelError, IndexUnusable, RegistryError, StoreError
from agentic_flywheel.flows.registry import Registry
from agentic_flywheel.history_indexes import HistoryIndexes
from agentic_flywheel.insight.faq import Faq
from agentic_flywheel.model import Check
from agentic_flywheel.near import NearCache
from agentic_flywheel.search.embedding import Embedding
from agentic_flywheel.store import probe
from agentic_flywheel.store.breaker import State
from agentic_flywheel.store.keys import SHARDS
from agentic_flywheel.store.outbox import Outbox
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Tracing

#: How long the doctor waits for the near cache's channel to prove itself.
NEAR_PROOF_SECONDS = 2.0
#: How long it waits for the embedder to be loaded.
EMBEDDER_SECONDS = 30.0
#: How entries of the FAQ stand that wait for a person.
_WAITING = (FaqState.REPORTED, FaqState.STALE, FaqState.DUE)


async def examine(
    registry: Registry,
    store: Store,
    flows: Flows,
    near: NearCache | None,
    embedding: Embedding,
    faq: Faq,
    indexes: HistoryIndexes,
    traces: Tracing | FlywheelError | None = None,
) -> list[Check]:
    """Every finding, in the order in which a person would ask: configuration, Redis, flows."""
    return [
        *_registry_checks(registry),
        *await _redis_checks(store),
        *await _encryption_checks(store),
        *await _near_checks(store, near),
        *await _outbox_checks(store.outbox),
        *await _similar_checks(embedding, store),
        *await _faq_checks(faq),
        *await _history_checks(indexes, store),
        *await _trace_checks(traces),
        *await _flow_checks(registry, flows),
    ]


async def _encryption_checks(store: Store) -> list[Check]:
    """Which key encrypts, and what is missing; nothing where the tenant is plain."""
    from agentic_flywheel.encryption import Encryption

    name = "encryption"
    try:
        state = await Encryption(store).state()
    except StoreError:
        return []  # said already
    if state.problem:
        advice = "Give this process the key that the others have; `afw keys show` says which."
        return [Check(name=name, state="fail", message=state.problem, advice=advice)]
    if not state.origin:
        return []
    current = next(view.id for view in state.keys if view.current)
    checks = [Check(name=name, state="ok", message=f"values are encrypted with {current}, from {state.origin}")]
    if lacking := [view.id for view in state.keys if not view.here]:
        message = f"values may be there that are encrypted with {', '.join(lacking)}, which is not configured here"
        advice = "Add the key, or run `afw keys rotate` where it is configured."
        checks.append(Check(name=name, state="warn", message=message, advice=advice))
    if state.rotating:
        message = "a rotation was begun, and is not at its end"
        checks.append(Check(name=name, state="warn", message=message, advice="`afw keys rotate` goes on with it."))
    file = store.link.settings.text("encryption.key_file")
    if file and _open_to_all(Path(file)):
        message = f"everybody on this machine may read the keys in {file}"
        checks.append(Check(name=name, state="warn", message=message, advice=f"chmod 600 {file}"))
    return checks


def _open_to_all(path: Path) -> bool:
    return bool(path.expanduser().stat().st_mode & 0o007)


async def _similar_checks(embedding: Embedding, store: Store) -> list[Check]:
    if await embedding.ready(EMBEDDER_SECONDS):
        embedder = embedding.embedder
        found = f"{embedder.name}, {embedder.dimension} dimensions, fingerprint {embedder.fingerprint[:12]}"
        checks = [Check(name="similar questions", state="ok", message=f"questions are compared by {found}")]
        if store.link.settings.text("similar.recall") == "server":
            checks += await _engine_checks(store)
        return checks
    failure = embedding.failure
    advice = failure.suggestions[0] if failure is not None and failure.suggestions else ""
    state = "fail" if embedding.state == "failed" else "warn"
    return [Check(name="similar questions", state=state, message=f"exact words only: {embedding.why}", advice=advice)]


async def _faq_checks(faq: Faq) -> list[Check]:
    """What of the FAQ waits for a person; nothing where there is none and nothing asks for a place in it."""
    try:
        found = await faq.list()
    except (StoreError, RegistryError):
        return []  # said already
    counts = Counter(view.state for view in found.entries)
    waiting = [f"{counts[state]} {state.value}" for state in _WAITING if counts[state]]
    served = sum(count for state, count in counts.items() if state.served)
    told = [f"{served} served"] * bool(found.entries) + waiting
    told += [f"{len(found.candidates)} question(s) ask for a place"] * bool(found.candidates)
    if not told and not found.warnings:
        return []
    message = "; ".join([", ".join(told), *(warning.rstrip(".") for warning in found.warnings)])
    if waiting or found.warnings:
        advice = "`afw faq` lists them; `afw faq approve ID` has one served (on)."
        return [Check(name="faq", state="warn", message=message, advice=advice)]
    return [Check(name="faq", state="ok", message=message)]


async def _trace_checks(traces: Tracing | FlywheelError | None) -> list[Check]:
    """Whether traces would be taken; nothing where none are made."""
    name = "traces"
    if traces is None:
        return []
    if isinstance(traces, FlywheelError):
        return [Check(name=name, state="fail", message=traces.message, advice=traces.suggestions[0])]
    began = time.perf_counter()
    problem = await traces.knock()
    if isinstance(problem, ExtraMissing):
        return [Check(name=name, state="fail", message=problem.message, advice=problem.suggestions[0])]
    if problem is not None:
        advice = "Questions are answered all the same. See trace.endpoint and trace.headers: `afw config show`."
        return [Check(name=name, state="warn", message=f"none arrive: {problem}", advice=advice)]
    took = (time.perf_counter() - began) * 1000
    message = f"taken by {traces.place.shown} ({took:.0f} ms); text {traces.text}"
    return [Check(name=name, state="ok", message=message)]


async def _engine_checks(store: Store) -> list[Check]:
    try:
        if await store.vectors.has_engine():
            return []
    except StoreError:
        return []  # said already
    return [
        Check(
            name="similar questions",
            state="fail",
            message="similar.recall is server, and this Redis has no query engine that can be used (FT.*)",
            advice="Set similar.recall to auto: similar questions are found in this process then.",
        )
    ]


async def _history_checks(indexes: HistoryIndexes, store: Store) -> list[Check]:
    """Which index finds turns, and why."""
    name = "history index"
    try:
        kind, why = await indexes.choice()
        if kind == "local":
            return [Check(name=name, state="ok", message=f"local, on this machine: {why}")]
        state = await store.history.state()
    except IndexUnusable as error:
        return [Check(name=name, state="fail", message=error.message, advice=error.suggestions[0])]
    except StoreError:
        return []  # said already
    if len(state.places) < SHARDS:
        advice = "The next search fills it, or `afw index rebuild`."
        return [Check(name=name, state="warn", message=f"engine, on the server, not filled yet: {why}", advice=advice)]
    return [Check(name=name, state="ok", message=f"engine, on the server, {state.docs} turn(s): {why}")]


def _registry_checks(registry: Registry) -> list[Check]:
    try:
        snapshot = registry.current()
    except RegistryError as error:
        return [Check(name="registry", state="fail", message=error.message, advice=error.suggestions[0])]
    active = len(snapshot.active())
    found = f"{active} active flow(s) in {snapshot.path} ({snapshot.origin})"
    checks = [Check(name="registry", state="ok", message=found)]
    if not active:
        checks = [Check(name="registry", state="fail", message=found, advice="Add a flow: `afw flow add`.")]
    if registry.problem is not None:
        checks.append(
            Check(
                name="registry",
                state="fail",
                message=f"the last good reading is in force: {registry.problem.message}",
                advice=registry.problem.suggestions[0],
            )
        )
    checks += [Check(name="registry", state="warn", message=note) for note in snapshot.notes]
    return checks


async def _redis_checks(store: Store) -> list[Check]:
    address = store.link.address
    where = address.shown
    breaker = _breaker_checks(store)
    try:
        capabilities = await probe.probe(store.link)
    except StoreError as error:
        return [
            *breaker,
            Check(
                name="redis", state="fail", message=f"{where}: {error.message}", advice=" ".join(error.suggestions[:2])
            ),
        ]
    return [*breaker, Check(name="redis", state="ok", message=where), *probe.examine(capabilities, address)]


def _breaker_checks(store: Store) -> list[Check]:
    """Whether this process leaves Redis alone, which another process need not do."""
    health = store.link.health
    if health.state is State.CLOSED:
        return []
    since = show_duration(timedelta(seconds=max(0, round(time.time() - health.since))))
    message = f"questions have been answered without Redis for {since}: {health.reason}"
    return [Check("breaker", "warn", message, "It is tried again every few seconds; nothing has to be restarted.")]


async def _near_checks(store: Store, near: NearCache | None) -> list[Check]:
    if near is None:
        if not store.link.settings["near.enabled"]:
            return []
        message = "off: on a cluster no channel tells of all changes"
        return [Check(name="near cache", state="warn", message=message, advice="Set AFW_NEAR_ENABLED=false.")]
    if await near.channel.proven(NEAR_PROOF_SECONDS):
        return [Check(name="near cache", state="ok", message="on: Redis tells what changes")]
    why = near.channel.problem or f"no word within {NEAR_PROOF_SECONDS:g} s"
    message = f"on, but nothing is served from it while Redis does not tell what changes: {why}"
    advice = "The user needs CLIENT TRACKING and TRACKINGINFO, and what stands before Redis must pass on its pushes."
    return [Check(name="near cache", state="warn", message=message, advice=advice)]


async def _outbox_checks(outbox: Outbox) -> list[Check]:
    try:
        await outbox.settle()
        found = await outbox.status()
    except StoreError as error:
        return [Check(name="outbox", state="fail", message=error.message, advice=error.suggestions[0])]
    if not found.enabled:
        message = "switched off: turns that Redis does not take are lost"
        return [Check(name="outbox", state="warn", message=message, advice="Set AFW_OUTBOX_ENABLED=true.")]
    checks = []
    if found.waiting:
        age = show_duration(timedelta(seconds=max(0, int(time.time() - (found.oldest_at or 0.0)))))
        message = f"{found.waiting} turn(s) of {found.sessions} session(s), {found.size_bytes} bytes, wait since {age}"
        advice = "They are delivered by themselves once Redis takes them; `afw outbox deliver` tries it now."
        checks.append(Check(name="outbox", state="warn", message=message, advice=advice))
    if found.rejected:
        message = f"{found.rejected} turn(s) that Redis refuses for good were set aside"
        advice = "`afw outbox list` shows why. Mend it, then `afw outbox deliver --rejected`."
        checks.append(Check(name="outbox", state="fail", message=message, advice=advice))
    for file in found.unreadable:
        message = f"{file} is no outbox that this release can read"
        advice = "A newer release may have written it: let that one deliver it."
        checks.append(Check(name="outbox", state="fail", message=message, advice=advice))
    for address, size in found.elsewhere.items():
        message = f"turns for another Redis wait on this machine: {address} ({size} bytes)"
        advice = "`afw outbox deliver --redis-url URL` delivers them to that one."
        checks.append(Check(name="outbox", state="warn", message=message, advice=advice))
    return checks or [Check(name="outbox", state="ok", message="nothing waits")]


async def _flow_checks(registry: Registry, flows: Flows) -> list[Check]:
    checks = []
    for spec in registry.current().active() if registry.problem is None else []:
        health = await flows.check(spec.key)
        checks.append(
            Check(
                name=f"flow {spec.key}",
                state="ok" if health.ok else "fail",
                message="; ".join(health.notes) or ("can be asked" if health.ok else "cannot be asked"),
                advice="" if health.ok else f"`afw flow show {spec.key}` shows its configuration.",
            )
        )
    return checks

"""Whether a flow is still what it was: its fingerprint, kept current and shared with all processes.

Invariant: an answer is called fresh only under a fingerprint that was confirmed within the flow's `check_every`;
what could not be confirmed is said to be unverified, never assumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import msgspec

from agentic_flywheel.errors import FlowError, StoreError
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import FlowClient, FlowSpec, Revision
from agentic_flywheel.flows.registry import config_digest
from agentic_flywheel.model import FlowState
from agentic_flywheel.policy.identity import fingerprint_of
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.flow_states import FlowStates

_log = logging.getLogger(__name__)


class Standing(msgspec.Struct, gc=False, frozen=True):
    """What a flow answers with now. `verified` is False where that could not be confirmed recently enough."""

    fingerprint: str
    generation: int
    verified: bool = True


class FlowWatch:
    """Keeps the fingerprints of one tenant's flows."""

    def __init__(
        self,
        settings: Settings,
        clients: ClientPool,
        states: FlowStates,
        on_change: Callable[[str, int], None] = lambda _flow, _generation: None,
    ) -> None:
        self._clients = clients
        self._states = states
        self._on_change = on_change  # told the flow and its new generation
        self._check_every = timedelta(seconds=settings.number("flow.check_every_seconds"))
        self._unverified_seconds = settings.number("flow.max_unverified_seconds")
        self._digests: dict[str, tuple[FlowSpec, str]] = {}
        self._running: set[asyncio.Task[Standing]] = set()
        self._checks: dict[str, tuple[str, asyncio.Task[Standing]]] = {}

    def config_digest(self, spec: FlowSpec) -> str:
        """The digest of the registry's configuration of a flow, computed once per reading of the registry."""
        known = self._digests.get(spec.key)
        if known is None or known[0] is not spec:
            known = self._digests[spec.key] = (spec, config_digest(spec))
        return known[1]

    async def standing(self, spec: FlowSpec, client: FlowClient, state: FlowState, *, now: float) -> Standing:
        """The flow's standing, given what Redis knows of it. Raises `StoreError` where a change cannot be recorded.

        A remote flow is asked for its configuration at most every `check_every`: in the background once half of that
        has passed, before the answer once all of it has.
        """
        if not client.revision_is_remote:
            revision = await client.revision(Revision(state.revision, state.etag))
            return await self._settle(spec, state, revision, checked_at=now, now=now)
        age = now - state.checked_at
        limit = (self._check_every if spec.check_every is None else spec.check_every).total_seconds()
        if state.checked_at and 0 <= age <= limit:
            if age > limit / 2:
                self._check(spec, state, now)
            return await self._settle(
                spec, state, Revision(state.revision, state.etag), checked_at=state.checked_at, now=now
            )
        try:
            return await asyncio.shield(self._check(spec, state, now))
        except FlowError as error:
            _log.warning("flow %s: its configuration could not be confirmed: %s", spec.key, error)
            fingerprint = fingerprint_of(self.config_digest(spec), state.revision)
            recent = bool(state.checked_at) and age <= max(limit, self._unverified_seconds)
            known = fingerprint == state.fingerprint
            return Standing(fingerprint, state.generation if known else -1, verified=recent)

    def known(self, spec: FlowSpec, client: FlowClient, state: FlowState, *, now: float) -> Standing | None:
        """What `standing` would say where it need not ask anybody or record anything; None where it has to."""
        if not client.revision_is_remote or not state.checked_at:
            return None
        limit = (self._check_every if spec.check_every is None else spec.check_every).total_seconds()
        if not 0 <= now - state.checked_at <= limit / 2:
            return None
        fingerprint = fingerprint_of(self.config_digest(spec), state.revision)
        return Standing(fingerprint, state.generation) if fingerprint == state.fingerprint else None

    def alone(self, spec: FlowSpec) -> Standing:
        """The flow's standing as far as it can be told without Redis."""
        return Standing(fingerprint_of(self.config_digest(spec), ""), 0, verified=False)

    async def current(self, spec: FlowSpec, *, now: float) -> Standing:
        """The flow's standing now, as a question would find it; a change is recorded. Raises `StoreError`."""
        state = await self._states.state(spec.key)
        async with self._clients.use(spec) as client:
            return await self.standing(spec, client, state, now=now)

    async def refresh(self, spec: FlowSpec, *, now: float) -> Standing:
        """Ask the flow for its configuration now, and record it. Raises `FlowError` and `StoreError`."""
        return await self._ask_revision(spec, await self._states.state(spec.key), now)

    def _check(self, spec: FlowSpec, state: FlowState, now: float) -> asyncio.Task[Standing]:
        """The running check of a flow, or a new one: one at a time per process and flow.

        A check that began under another configuration of the registry says nothing about this one.
        """
        config = self.config_digest(spec)
        began_under, running = self._checks.get(spec.key, ("", None))
        if running is None or running.done() or began_under != config:
            running = asyncio.get_running_loop().create_task(self._ask_revision(spec, state, now))
            # Retrieved here so that a background check that nobody awaits leaves no warning behind.
            running.add_done_callback(_note_failure)
            running.add_done_callback(self._running.discard)
            self._running.add(running)
            self._checks[spec.key] = (config, running)
        return running

    async def _ask_revision(self, spec: FlowSpec, state: FlowState, now: float) -> Standing:
        async with self._clients.use(spec) as client:
            revision = await client.revision(Revision(state.revision, state.etag))
        return await self._settle(spec, state, revision, checked_at=now, now=now, record=True)

    async def _settle(
        self,
        spec: FlowSpec,
        state: FlowState,
        revision: Revision,
        *,
        checked_at: float,
        now: float,
        record: bool = False,
    ) -> Standing:
        fingerprint = fingerprint_of(self.config_digest(spec), revision.digest)
        if fingerprint == state.fingerprint and not record:
            return Standing(fingerprint, state.generation)
        generation = await self._states.observe(
            spec.key,
            fingerprint=fingerprint,
            revision=revision.digest,
            etag=revision.etag,
            checked_at=checked_at,
            now=now,
        )
        if generation != state.generation and state.generation:
            self._on_change(spec.key, generation)
        return Standing(fingerprint, generation)

    async def aclose(self) -> None:
        """End checks that still run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _note_failure(task: asyncio.Task[Standing]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), (FlowError, StoreError)):
        _log.info("a check of a flow's configuration failed: %s", error)

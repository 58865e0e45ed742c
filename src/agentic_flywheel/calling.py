"""One flow call for everyone who asks the same: take the lease or listen to its owner, ask the flow, store, tell.

Invariant: only complete answers are stored; an error is told to those who wait and stored nowhere; the lease is given
up on every way out, so that nobody waits for a call that no longer runs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress

from agentic_flywheel import errors
from agentic_flywheel.admission import Admission
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.errors import FlowError, FlowGarbled, FlowTimeout, FlowUnavailable, StoreDamaged, StoreError
from agentic_flywheel.flights import Flight, Landed
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import AnswerDone, FlowQuestion, TextPart
from agentic_flywheel.model import Entry, Reason, Sharing
from agentic_flywheel.policy.context import compose
from agentic_flywheel.policy.decision import Found, verdict
from agentic_flywheel.policy.identity import digest
from agentic_flywheel.policy.lifetime import stored_seconds
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.leases import LEASE_SECONDS, Begun, Ended, Lease, Part, Silence
from agentic_flywheel.store.store import Store

_log = logging.getLogger(__name__)
#: Text is passed on to other processes in pieces of so many seconds, not token by token.
_TELL_SECONDS = 0.1
_ERRORS = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlowError)}


class Calling:
    """Makes the flow calls of one tenant."""

    def __init__(
        self, settings: Settings, clients: ClientPool, store: Store, behind: WriteBehind, admission: Admission
    ) -> None:
        self._clients = clients
        self._store = store
        self._behind = behind
        self._admission = admission
        self._jitter = settings.number("ttl.jitter")
        self._stale_seconds = settings.number("ttl.stale_seconds")
        self._join_seconds = settings.number("flow.join_seconds")

    async def fly(self, step: Step, flight: Flight, *, shared: str | None, refresh: bool = False) -> Landed:
        """Answer a question for everyone aboard. `shared` is the flight's name across processes, None for a call that
        is nobody else's. Raises `FlowError`."""
        lease: Lease | None = None
        if shared is not None:
            try:
                boarded = await self._board(step, flight, shared, refresh=refresh)
            except StoreError as error:
                _log.warning("asked without a lease: %s", error)
                boarded = None
            if isinstance(boarded, Landed):
                return boarded
            lease = boarded
        speaker = _Speaker(lease)
        ended = Ended(code=FlowUnavailable.code, message="the call was given up", takeover=True)
        entry: Entry | None = None
        try:
            done, flow_ms = await self._call(step, flight, speaker)
            entry = self._entry(step, done, flow_ms)
            ended = Ended(encode(entry), complete=done.complete)
        except FlowError as error:
            passing = isinstance(error, FlowUnavailable) and not isinstance(error, FlowTimeout)
            ended = Ended(b"", error.code, error.message, error.retry_after_seconds, takeover=passing)
            self._behind.count(step.plan.spec.key, step.asked.at, errors=1, **{f"error:{error.code}": 1})
            raise
        finally:
            await speaker.stop()
            if entry is None and lease is not None:
                with suppress(StoreError):  # the lease runs out by itself
                    await asyncio.shield(lease.finish(ended))
        stored = await self._store_entry(step, entry, lease, ended)
        return Landed(entry, own=True, complete=ended.complete, stored=stored)

    async def _board(self, step: Step, flight: Flight, name: str, *, refresh: bool) -> Lease | Landed | None:
        """The lease, or how another process's flight landed, or None where waiting was too long."""
        wanted = step.plan.wanted[0]
        deadline = asyncio.get_running_loop().time() + self._join_seconds
        failures = 0
        while True:
            lease, (raw,) = await self._store.leases.acquire(name, ("GET", wanted.key))
            if lease is not None:
                found = self._store.entries.looked(raw).entry
                if found is not None and self._serves(step, found, refresh=refresh):
                    await lease.finish(Ended(encode(found)))
                    flight.complete(found.answer)
                    return Landed(found, own=False, found=True)
                return lease
            try:
                async with asyncio.timeout_at(deadline):
                    ended = await self._listen(flight, name)
            except TimeoutError:
                return None
            if ended is None:
                continue  # its owner died: whoever is first takes over
            if ended.entry:
                with suppress(StoreDamaged):  # told by another release: ask again
                    entry = decode(ended.entry, Entry)
                    flight.complete(entry.answer)
                    return Landed(entry, own=False, complete=ended.complete)
            failures += 1
            if not ended.takeover or failures > 1:
                raise _ERRORS.get(ended.code, FlowError)(
                    ended.message, retry_after_seconds=ended.retry_after_seconds, shared=True
                )

    async def _listen(self, flight: Flight, name: str) -> Ended | None:
        async for heard in self._store.leases.listen(name):
            if isinstance(heard, Part):
                flight.tell(TextPart(heard.text))
            elif isinstance(heard, Begun):
                flight.restart()
            elif isinstance(heard, Ended):
                return heard
            elif isinstance(heard, Silence):
                break
        flight.restart()
        return None

    def _serves(self, step: Step, found: Entry, *, refresh: bool) -> bool:
        """Whether what stands in the store by now makes the call unnecessary."""
        wanted = step.plan.wanted[0]
        before = next((f.entry for f in step.read.found if f.wanted is wanted and f.entry is not None), None)
        if refresh and before is not None and found.created_at <= before.created_at:
            return False
        return verdict(Found(wanted, found), step.facts) is Reason.EXACT

    async def _call(self, step: Step, flight: Flight, speaker: _Speaker) -> tuple[AnswerDone, float]:
        asked, plan = step.asked, step.plan
        history = plan.enrichment.exchanges
        async with self._clients.use(plan.spec) as client, self._admission.place(plan.spec):
            question = FlowQuestion(
                text=compose(asked.text, () if client.accepts_history else history, asked.domain),
                history=history if client.accepts_history else (),
                config=plan.config,
                conversation=f"afw-{asked.turn}",
                # A flow whose answers the team shares is not told who asks, so they cannot depend on it.
                user="" if plan.spec.sharing is Sharing.TEAM else asked.user,
                trace_id=asked.trace,
            )
            began = time.perf_counter()
            async for event in client.stream(question):
                if isinstance(event, AnswerDone):
                    if not event.text.strip():
                        break
                    flight.complete(event.text)
                    return event, (time.perf_counter() - began) * 1000
                if isinstance(event, TextPart):
                    speaker.add(event.text)
                flight.tell(event)
        raise FlowGarbled(f"the flow {plan.spec.key!r} answered nothing", flow=plan.spec.key)

    def _entry(self, step: Step, done: AnswerDone, flow_ms: float) -> Entry:
        asked, plan = step.asked, step.plan
        return Entry(
            question=plan.normal,
            identity=plan.identity,
            answer=done.text,
            flow=plan.spec.key,
            flow_id=plan.spec.id,
            flow_name=plan.spec.name,
            fingerprint=step.facts.fingerprint,
            generation=step.facts.generation,
            created_at=asked.at,
            ttl_seconds=stored_seconds(step.facts.lifetime, jitter=self._jitter, draw=random.uniform(-1, 1)),
            trace_id=asked.trace,
            turn_id=asked.turn,
            session_id=asked.session,
            user=asked.user,
            asked=asked.text,
            first=step.read.recalled.session is None,
            flow_ms=flow_ms,
            sources=done.sources,
            config=plan.config,
        )

    async def _store_entry(self, step: Step, entry: Entry, lease: Lease | None, ended: Ended) -> bool:
        """Store the answer if it is to be kept, and end the flight; False where it could not be stored."""
        commands = []
        if step.keeps and ended.complete:
            key = step.plan.wanted[0].key
            commands = self._store.entries.put_commands(key, entry, stale_seconds=self._stale_seconds)
        try:
            if lease is not None:
                await lease.finish(ended, *commands)
            elif commands:
                await self._store.link.run(*commands)
        except StoreError as error:
            _log.warning("an answer was not stored: %s", error)
            return False
        return bool(commands)


class _Speaker:
    """Keeps a lease alive while its flow answers, and passes the text on to other processes."""

    def __init__(self, lease: Lease | None) -> None:
        self._lease = lease
        self._pieces: list[str] = []
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._speak(lease)) if lease else None

    def add(self, text: str) -> None:
        """Text to pass on soon."""
        if self._lease is not None:
            self._pieces.append(text)
            self._news.set()

    async def stop(self) -> None:
        """Say no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _speak(self, lease: Lease) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEASE_SECONDS / 3):
                    await self._news.wait()
                    await asyncio.sleep(_TELL_SECONDS)
            text, self._pieces = "".join(self._pieces), []
            self._news.clear()
            try:
                if not await lease.speak(text):
                    _log.warning("another process has taken the call over")
                    return
            except StoreError as error:
                _log.warning("the lease of a call could not be prolonged: %s", error)


def flight_name(key: str, fingerprint: str, generation: int) -> str:
    """The name of the call that would fill a key: a changed flow is another call."""
    return digest("flight", key, fingerprint, str(generation))

"""One flow call for everyone who asks the same: take the lease or listen to its owner, ask the flow, store, tell.

Invariant: only complete answers are stored; an error is told to those who wait and stored nowhere; the lease is given
up on every way out, so that nobody waits for a call that no longer runs. Of those who wait for a call that failed, one
makes another attempt where that may help; what comes of it is the end for all.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import aclosing, nullcontext, suppress
from typing import TYPE_CHECKING, assert_never

from agentic_flywheel import errors
from agentic_flywheel.admission import Admission, GaveWay, Spare
from agentic_flywheel.behind import WriteBehind
from agentic_flywheel.counting import called
from agentic_flywheel.errors import FlowError, FlowGarbled, FlowTimeout, FlowUnavailable, StoreDamaged, StoreError
from agentic_flywheel.flights import Flight, Landed
from agentic_flywheel.flows.clients import ClientPool
from agentic_flywheel.flows.protocol import AnswerDone, FlowClient, FlowQuestion, TextPart
from agentic_flywheel.matching import Matching
from agentic_flywheel.model import Entry, Reason, Sharing
from agentic_flywheel.policy.context import compose
from agentic_flywheel.policy.decision import Found, verdict
from agentic_flywheel.policy.lifetime import stored_seconds
from agentic_flywheel.settings import Settings
from agentic_flywheel.steps import Step
from agentic_flywheel.store.codec import decode, packed
from agentic_flywheel.store.gone import is_gone
from agentic_flywheel.store.leases import LEASE_SECONDS, Begun, Ended, Lease, Part, Silence
from agentic_flywheel.store.link import Command
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.tracing import Tracing

_log = logging.getLogger(__name__)
#: Text is passed on to other processes in pieces of so many seconds, not token by token.
_TELL_SECONDS = 0.1
_ERRORS = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlowError)}


class Calling:
    """Makes the flow calls of one tenant."""

    def __init__(
        self,
        settings: Settings,
        clients: ClientPool,
        store: Store,
        behind: WriteBehind,
        admission: Admission,
        matching: Matching,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._clients = clients
        self._store = store
        self._behind = behind
        self._admission = admission
        self._matching = matching
        self._jitter = settings.number("ttl.jitter")
        self._stale_seconds = settings.number("ttl.stale_seconds")
        self._join_seconds = settings.number("flow.join_seconds")

    async def fly(
        self,
        step: Step,
        flight: Flight,
        *,
        shared: str | None,
        refresh: bool = False,
        spare: Spare | None = None,
        audit: bool = False,
    ) -> Landed:
        """Answer a question for everyone aboard. `shared` is the flight's name across processes, None for a call that
        is nobody else's. `refresh` asks for a newer answer than the one that was found. With a `spare` place nobody has
        asked: the call is counted apart, and gives way. An `audit` checks what was served. Raises `FlowError`."""
        lease, second = None, False
        if shared is not None:
            try:
                boarded = await self._board(step, flight, shared, refresh=refresh)
            except StoreError as error:
                _log.warning("asked without a lease: %s", error)
                boarded = None, False
            if isinstance(boarded, Landed):
                return boarded
            lease, second = boarded
            flight.restart()  # what an owner said that did not come to an end is void
        if refresh and spare is None:
            self._behind.count(step.plan.spec.key, step.asked.at, refreshes=1)
        flight.asked_at = asyncio.get_running_loop().time()
        kept = step.plan.kept
        speaker = _Speaker(lease, tells=kept.redactor is None)
        ended = Ended(code=FlowUnavailable.code, message="the call was given up", takeover=not second)
        entry: Entry | None = None
        withheld: Reason | None = None
        purpose = "warm" if spare else "refresh" if refresh else "audit" if audit else "answer"
        began = time.perf_counter()
        try:
            done, flow_ms = await self._call(step, flight, speaker, spare)
            warm = {} if spare is None else {"warm_calls": 1}
            self._behind.count(step.plan.spec.key, step.asked.at, **called(done, flow_ms), **warm)
            entry = self._entry(step, done, flow_ms, refresh=refresh)
            withheld = Reason.REDACTED if kept.holds_back(done.text, done.sources, done.wire) else None
            ended = Ended(unshared=True) if withheld else Ended(packed(entry), complete=done.complete)
            if self._tracing is not None:
                self._tracing.called(step, purpose, began, done=done)
        except FlowError as error:
            if self._tracing is not None and not isinstance(error, GaveWay):
                self._tracing.called(step, purpose, began, error=error)
            passing = isinstance(error, FlowUnavailable) and not isinstance(error, FlowTimeout)
            ended = Ended(
                code=error.code,
                message=kept.text(error.outline),
                retry_after_seconds=error.retry_after_seconds,
                takeover=passing and (not second or isinstance(error, GaveWay)),
                suggestions=error.suggestions,
            )
            if not isinstance(error, GaveWay):
                self._behind.count(step.plan.spec.key, step.asked.at, errors=1, **{f"error:{error.code}": 1})
            raise
        finally:
            await speaker.stop()
            if entry is None and lease is not None:
                with suppress(StoreError):  # the lease runs out by itself
                    await asyncio.shield(lease.finish(ended))
        with step.patience:
            stored, marked = await self._store_entry(step, entry, lease, ended)
        withheld = Reason.WITHDRAWN if marked else withheld
        return Landed(entry, own=True, complete=ended.complete, stored=stored, withheld=withheld)

    async def _board(
        self, step: Step, flight: Flight, name: str, *, refresh: bool
    ) -> tuple[Lease | None, bool] | Landed:
        """How another process's flight landed; or the lease (None where waiting was too long), and whether the call
        is a second attempt, after another's that failed."""
        wanted = step.plan.wanted[0]
        deadline = asyncio.get_running_loop().time() + self._join_seconds
        second, after = False, ""
        while True:
            with step.patience:
                lease, (raw,) = await self._store.leases.acquire(name, ("GET", wanted.key), after=after)
            if lease is not None:
                found = self._store.entries.looked(raw).entry
                if found is not None and self._serves(step, found, refresh=refresh):
                    with suppress(StoreError):  # the lease runs out by itself
                        await lease.finish(Ended(packed(found)))
                    flight.complete(found.answer)
                    return Landed(found, own=False, found=True)
                return lease, second
            try:
                async with asyncio.timeout_at(deadline):
                    ended, after = await self._listen(flight, name)
            except TimeoutError:
                return None, second
            if ended is None:
                continue  # its owner died: whoever is first takes over
            if ended.entry:
                with suppress(StoreDamaged):  # told by another release: ask again
                    entry = decode(ended.entry, Entry)
                    flight.complete(entry.answer)
                    return Landed(entry, own=False, complete=ended.complete, stored=ended.complete)
            if ended.unshared:
                return None, second  # what was said may not be passed on
            if second or not (ended.takeover or ended.entry):
                raise _ERRORS.get(ended.code, FlowError)(
                    ended.message or "another asker's call of the flow failed",
                    suggestions=ended.suggestions,
                    retry_after_seconds=ended.retry_after_seconds,
                    shared=True,
                )
            second = True

    async def _listen(self, flight: Flight, name: str) -> tuple[Ended | None, str]:
        """How the owner ended, None where it died, and who it was."""
        length, owner = 0, ""
        async with aclosing(self._store.leases.listen(name)) as said:
            async for heard in said:
                if isinstance(heard, Part):
                    # A part that was sent twice is told once; after one that is missing the end tells the rest.
                    if heard.at <= length < heard.at + len(heard.text):
                        flight.tell(TextPart(heard.text[length - heard.at :]))
                        length = heard.at + len(heard.text)
                elif isinstance(heard, Begun):
                    flight.restart()
                    length, owner = 0, heard.owner
                elif isinstance(heard, Ended):
                    return heard, owner
                elif isinstance(heard, Silence):
                    break
                else:
                    assert_never(heard)
        return None, owner

    def _serves(self, step: Step, found: Entry, *, refresh: bool) -> bool:
        """Whether what stands in the store by now makes the call unnecessary."""
        before = self._before(step)
        if step.read.state.gone and is_gone(found, step.read.state.gone):
            return False  # it was put back
        if refresh and before is not None and found.created_at <= before.created_at:
            return False
        if step.plan.kept.holds_back_entry(found):
            return False  # it was stored when that was still allowed
        return verdict(Found(step.plan.wanted[0], found), step.facts) is Reason.EXACT

    def _before(self, step: Step) -> Entry | None:
        """What was found where the answer will be stored."""
        wanted = step.plan.wanted[0]
        return next((f.entry for f in step.read.found if f.wanted is wanted and f.entry is not None), None)

    async def _call(
        self, step: Step, flight: Flight, speaker: _Speaker, spare: Spare | None
    ) -> tuple[AnswerDone, float]:
        asked, plan = step.asked, step.plan
        history = plan.enrichment.exchanges
        place = self._admission.place(plan.spec) if spare is None else nullcontext()
        async with self._clients.use(plan.spec) as client, place:
            question = FlowQuestion(
                text=compose(
                    asked.text,
                    () if client.accepts_history else history,
                    asked.domain,
                    "" if client.accepts_instructions else asked.instructions,
                ),
                instructions=asked.instructions if client.accepts_instructions else "",
                history=history if client.accepts_history else (),
                config=plan.config,
                conversation=f"afw-{asked.turn}",
                # A flow whose answers the team shares is not told who asks, so they cannot depend on it.
                user="" if plan.spec.sharing is Sharing.TEAM else asked.user,
                trace_id=asked.trace,
                verbatim=asked.verbatim,
            )
            flight.called = True
            if spare is None:
                return await self._heard(step, flight, speaker, client, question)
            heard = self._heard(step, flight, speaker, client, question)
            return await spare.within(heard, gives_way=flight.leave)

    async def _heard(
        self, step: Step, flight: Flight, speaker: _Speaker, client: FlowClient, question: FlowQuestion
    ) -> tuple[AnswerDone, float]:
        """The flow's answer, told to everyone aboard as it comes, and what it took in milliseconds."""
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
        key = step.plan.spec.key
        raise FlowGarbled(f"the flow {key!r} answered nothing", flow=key)

    def _entry(self, step: Step, done: AnswerDone, flow_ms: float, *, refresh: bool) -> Entry:
        asked, plan = step.asked, step.plan
        before = self._before(step) if refresh else None
        # Where no history is kept, an answer that the team shares says nothing of who asked, and of no conversation can
        # be known that it began with the question.
        kept = plan.privacy.history
        began = step.read.recalled.session is None and (kept or not asked.resumed)
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
            session_id=asked.session if kept else "",
            user=asked.user if kept else "",
            asked=asked.text,
            first=began or (before is not None and before.first),
            flow_ms=flow_ms,
            sources=done.sources,
            config=plan.config,
            alone=not plan.enrichment.exchanges,
            wire=done.wire,
            tokens_in=done.tokens.read if done.tokens else 0,
            tokens_out=done.tokens.written if done.tokens else 0,
        )

    async def _store_entry(self, step: Step, entry: Entry, lease: Lease | None, ended: Ended) -> tuple[bool, bool]:
        """Store the answer if it is to be kept, and end the flight. Whether it is stored; and whether it is not since
        one to the question was reported as private while the flow was asked."""
        if not (step.keeps and ended.complete and not ended.unshared):
            if lease is not None:
                with suppress(StoreError):  # the lease runs out by itself
                    await lease.finish(ended)
            return False, False
        key = step.plan.wanted[0].key
        # Redis alone knows when a sliding life ends, so such an entry goes when its life does.
        stale_seconds = 0.0 if step.facts.lifetime.sliding else self._stale_seconds
        commands = self._store.entries.put_commands(key, entry, stale_seconds=stale_seconds)
        if step.match is not None:  # so the next question finds it by its meaning as well
            commands += self._matching.keep_commands(step.match, key, entry)
        look: Command = ("GET", key)
        try:
            if lease is not None:
                before = await lease.finish_after(ended, look, *commands)
            else:
                before = await self._store.link.run_after(look, *commands)
            mark = self._store.entries.looked(before).entry
            if mark is not None and mark.withdrawn:
                await self._store.entries.put(key, mark)
                return False, True
        except StoreError as error:
            _log.warning("an answer was not stored: %s", error)
            return False, False
        if step.match is not None:
            self._matching.kept(step.match, key, entry)
        return True, False


class _Speaker:
    """Keeps a lease alive while its flow answers, and passes the text on to other processes."""

    def __init__(self, lease: Lease | None, *, tells: bool) -> None:
        self._tells = tells  # else what is said may have to be held back, and only its end shows that
        self._lease = lease
        self._pieces: list[str] = []
        self._said = 0
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._speak(lease)) if lease else None

    def add(self, text: str) -> None:
        """Text to pass on soon."""
        if self._lease is not None and self._tells:
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
                if not await lease.speak(text, self._said):
                    _log.warning("the lease of a call was lost: another process may have taken the call over")
                    return
                self._said += len(text)
            except StoreError as error:
                _log.warning("the lease of a call could not be prolonged: %s", error)
                self._pieces.insert(0, text)

"""Has what was forgotten deleted where traces went, now and as long as it takes.

Invariant: what is to be deleted is written down before anything is tried (`store.erasures`), so it survives whoever
began it, and a Langfuse that is away. Nothing here takes longer than `ATTEMPT_SECONDS` at a time. An erasure is
complete once everything known of it was taken for deletion, and a later look, after traces that were under way have
arrived, found nothing more: Langfuse deletes behind its answer and never says that it has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from agentic_flywheel.errors import FlywheelError, NotFound
from agentic_flywheel.identifiers import new_id
from agentic_flywheel.model import Receipt
from agentic_flywheel.observe.names import Attribute
from agentic_flywheel.observe.places import LANGFUSE, OFF, place_of
from agentic_flywheel.observe.sending import Refused, Unreachable
from agentic_flywheel.observe.spans import is_trace_id, outward_id
from agentic_flywheel.settings import Settings
from agentic_flywheel.store.erasures import Erasure
from agentic_flywheel.store.store import Store

if TYPE_CHECKING:
    from agentic_flywheel.auditing import Audit
    from agentic_flywheel.observe.langfuse_erasing import LangfuseEraser

ATTEMPT_SECONDS = 15.0
#: Traces may be under way to Langfuse, and in it, for some ten minutes (its documentation); deleting takes 15.
LOOK_AGAIN_SECONDS = 1800.0
#: How long an erasure that is complete can be asked for.
_KEPT_SECONDS = 90 * 86400
_MARK_SECONDS = 120
_BY = "housekeeping"

_ASKED = (
    "Langfuse was asked to delete these traces: it does so within some 15 minutes, and is looked at once more then."
)
_WAITS = "What waits is tried again by every process that runs on, and with `afw forget --traces`: {}."
_OTLP = (
    "Traces went to an OpenTelemetry collector, which cannot be asked to delete any: delete there what has these "
    "sessions or users."
)
_NOT_NOW = "trace.exporter is {}, so Langfuse was not asked; set it to langfuse, with its keys, to go on."

_log = logging.getLogger(__name__)


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it so far; `id` finds the rest later, "" for nothing to find."""

    traces: int = 0
    waiting: int = 0
    id: str = ""
    notes: tuple[str, ...] = ()
    reached: bool = False

    def on(self, receipt: Receipt) -> Receipt:
        """The receipt with this in it."""
        removed = receipt.removed | ({"traces": self.traces} if self.reached else {})
        return msgspec.structs.replace(
            receipt, removed=removed, waiting=self.waiting, erasure=self.id, notes=(*receipt.notes, *self.notes)
        )


class Pending:
    """What traces may tell of something that is being forgotten. `add` it before it is removed here, so that whoever
    is cut off meanwhile leaves behind what is still to be deleted; `done` has it deleted, or counts it."""

    def __init__(self, erasing: Erasing, erasure: Erasure, *, dry_run: bool) -> None:
        self._erasing = erasing
        self._erasure = erasure
        self._dry_run = dry_run

    @property
    def wanted(self) -> bool:
        """Whether anything can be deleted where traces go."""
        return self._erasing.kind == LANGFUSE

    async def add(
        self,
        *,
        traces: Iterable[str] = (),
        sessions: Iterable[str] = (),
        users: Iterable[str] = (),
        scores: Iterable[str] = (),
    ) -> None:
        """Traces by id, whole sessions and users (with their ids as they are here), and ids of scores that were given
        to whole sessions. Raises `StoreError`."""
        if not self.wanted:
            return
        erasure = self._erasure
        erasure.traces = sorted({*erasure.traces, *filter(is_trace_id, traces)})
        erasure.sessions = sorted({*erasure.sessions, *map(outward_id, sessions)})
        erasure.users = sorted({*erasure.users, *map(outward_id, users)})
        erasure.scores = sorted({*erasure.scores, *scores})
        if not self._dry_run:
            await self._erasing.keep(erasure)

    async def done(self) -> Erased:
        """What became of it."""
        erasure = self._erasure
        if not self.wanted:
            return Erased(notes=(_OTLP,) if self._erasing.kind != OFF else ())
        if self._dry_run or not (erasure.traces or erasure.sessions or erasure.users or erasure.scores):
            return await self._erasing.look(erasure)
        return await self._erasing.erase(erasure)


class Erasing:
    """Deletes traces for one tenant. `handed_over` waits a moment for what this process has still to send."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        audit: Callable[[], Audit],
        handed_over: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._audit = audit
        self._handed_over = handed_over
        self._clock = clock

    def begin(self, *, dry_run: bool) -> Pending:
        """Something is about to be forgotten: say what of it traces may tell, then have that deleted."""
        return Pending(self, Erasure(id=new_id(), at=self._clock()), dry_run=dry_run)

    @property
    def kind(self) -> str:
        """Where traces go: `off`, `otlp`, `langfuse`."""
        return self._settings.text("trace.exporter")

    async def keep(self, erasure: Erasure) -> None:
        """Write down what has to go. Raises `StoreError`: then nothing may be removed that it was known by."""
        await self._store.erasures.put(erasure)

    async def erase(self, erasure: Erasure) -> Erased:
        """Have it deleted; what cannot be, waits."""
        await self._handed_over()
        await self._attempt(erasure)
        notes = (_WAITS.format(erasure.problem),) if erasure.problem else (_ASKED,) if erasure.deleted else ()
        waiting = erasure.waiting
        if erasure.problem and not waiting:  # what there is could not be looked for
            waiting = len(erasure.sessions) + len(erasure.users)
        return Erased(traces=len(erasure.deleted), waiting=waiting, id=erasure.id, notes=notes, reached=True)

    async def look(self, erasure: Erasure) -> Erased:
        """How many traces would go."""
        traces, notes = set(erasure.traces), tuple[str, ...]()
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS), self._eraser() as langfuse:
                traces |= set(await self._found(langfuse, erasure))
        except (Unreachable, Refused, FlywheelError, TimeoutError) as error:
            notes = (_WAITS.format(_said(error)),)
        return Erased(traces=len(traces), notes=notes, reached=True)

    async def known_of(self, user: str) -> tuple[list[str], str]:
        """The traces that Langfuse has of a user, and why they are not known ("" where they are)."""
        if self.kind != LANGFUSE:
            return [], ""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS), self._eraser() as langfuse:
                return await langfuse.find(Attribute.USER, outward_id(user)), ""
        except (Unreachable, Refused, FlywheelError, TimeoutError) as error:
            return [], _said(error)

    def link_to(self, trace: str) -> str:
        """Where people look at a trace; "" where nobody said."""
        try:
            place = place_of(self._settings)
        except FlywheelError:
            return ""
        return place.link_to(trace) if place is not None else ""

    async def go_on(self, *, dry_run: bool = False) -> Receipt:
        """Go on with all that waits, at once; what that came to."""
        removed, waiting, notes, named = 0, 0, list[str](), list[str]()
        for erasure in await self._store.erasures.all():
            if erasure.completed_at:
                continue
            named.append(erasure.id)
            before = len(erasure.deleted)
            if not dry_run:
                await self._attempt(erasure)
            removed += erasure.waiting if dry_run else len(erasure.deleted) - before
            waiting += 0 if dry_run else erasure.waiting
            if erasure.problem:
                notes.append(_WAITS.format(erasure.problem))
        return Receipt(
            action="forget traces",
            target=f"of what was forgotten ({len(named)} due)",
            dry_run=dry_run,
            removed={"traces": removed},
            waiting=waiting,
            erasure=" ".join(named),
            notes=tuple(dict.fromkeys(notes)),
            at=self._clock(),
        )

    async def keep_at_it(self) -> None:
        """What housekeeping does: go on with what is due, give receipts for what is complete, and drop old ones.

        One process at a time does it, whoever takes the mark. Raises `StoreError`.
        """
        if not await self._store.take_mark("erasing", seconds=_MARK_SECONDS):
            return
        now = self._clock()
        for erasure in await self._store.erasures.all():
            if erasure.completed_at:
                if now - erasure.completed_at > _KEPT_SECONDS:
                    await self._store.erasures.drop(erasure.id)
            elif erasure.look_at <= now:
                await self._attempt(erasure)

    async def receipt(self, id_: str) -> Receipt:
        """The signed receipt of an erasure that is complete; of another one, one without a signature that says how
        far it is. Raises `NotFound`."""
        for erasure in await self._store.erasures.all():
            if erasure.id == id_:
                if erasure.receipt:
                    return msgspec.json.decode(erasure.receipt, type=Receipt)
                return self._receipt(erasure)
        raise NotFound(
            f"nothing is known of the erasure {id_!r}",
            suggestions=("It stands in the receipt of what was forgotten, under `erasure`.",),
        )

    def _receipt(self, erasure: Erasure) -> Receipt:
        done = bool(erasure.completed_at)
        note = _WAITS.format(erasure.problem or "a last look is due")
        return Receipt(
            action="forget traces",
            target=f"of what was forgotten as {erasure.id}",
            dry_run=False,
            removed={"traces": len(erasure.deleted)},
            waiting=erasure.waiting,
            erasure=erasure.id,
            notes=() if done else (note,),
            at=erasure.completed_at or self._clock(),
        )

    async def _attempt(self, erasure: Erasure) -> None:
        """Try all of it once; keeps how far that came."""
        erasure.tries += 1
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS), self._eraser() as langfuse:
                found = await self._found(langfuse, erasure)
                first = erasure.look_at == 0.0 or bool(erasure.problem)
                # Traces that were under way when they were first deleted are deleted once more.
                again = [] if first else erasure.deleted
                await self._delete(langfuse, erasure, [*erasure.traces, *found, *again])
                while erasure.scores:
                    await langfuse.delete_score(erasure.scores[-1])
                    erasure.scores.pop()
        except (Unreachable, Refused, FlywheelError, TimeoutError) as error:
            erasure.problem = _said(error)
            erasure.look_at = self._clock()
            _log.info("traces of what was forgotten wait to be deleted: %s", erasure.problem)
        else:
            erasure.problem = ""
            if first or found:
                erasure.look_at = self._clock() + LOOK_AGAIN_SECONDS
            else:
                await self._complete(erasure)
        await self._store.erasures.put(erasure)

    async def _delete(self, langfuse: LangfuseEraser, erasure: Erasure, traces: Iterable[str]) -> None:
        from agentic_flywheel.observe.langfuse_erasing import AT_ONCE

        waiting, deleted = list(dict.fromkeys(traces)), dict.fromkeys(erasure.deleted)
        known = set(deleted)
        try:
            while waiting:
                some = waiting[:AT_ONCE]
                await langfuse.delete(some)
                deleted |= dict.fromkeys(some)
                waiting = waiting[AT_ONCE:]
        finally:
            erasure.traces = [one for one in waiting if one not in known]
            erasure.deleted = list(deleted)

    async def _complete(self, erasure: Erasure) -> None:
        """Write down that it is done, and keep the receipt of that."""
        erasure.completed_at = self._clock()

        async def told(only_look: bool) -> Receipt:
            return msgspec.structs.replace(self._receipt(erasure), dry_run=only_look)

        receipt = await self._audit().carry_out("traces.forget", erasure.id, told, by=_BY)
        erasure.receipt = msgspec.json.encode(receipt).decode()
        # Who it was is known no longer than it is needed.
        erasure.sessions, erasure.users, erasure.deleted = [], [], []

    async def _found(self, langfuse: LangfuseEraser, erasure: Erasure) -> list[str]:
        """Traces that Langfuse has of these sessions and users."""
        found: dict[str, None] = {}
        for attribute, names in ((Attribute.SESSION, erasure.sessions), (Attribute.USER, erasure.users)):
            for name in names:
                found |= dict.fromkeys(await langfuse.find(attribute, name))
        return list(found)

    def _eraser(self) -> LangfuseEraser:
        from agentic_flywheel.observe.langfuse_erasing import LangfuseEraser

        place = place_of(self._settings)
        if place is None or not place.api:
            raise Refused(_NOT_NOW.format(self._settings.text("trace.exporter")))
        seconds = self._settings.number("trace.timeout_seconds")
        return LangfuseEraser(place, self._settings.text("tenant"), seconds=seconds)


def _said(error: BaseException) -> str:
    if isinstance(error, FlywheelError):
        return error.message
    return str(error) or f"Langfuse took longer than {ATTEMPT_SECONDS:g} s"

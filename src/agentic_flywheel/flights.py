"""Flow calls that any number of askers share, in this process and across processes.

Invariant: of identical questions asked at the same time, one reaches the flow; the others hear what it says, as it
says it, or its error. A flight goes on when its askers leave, until it ends or the flywheel is closed. Nobody waits
for an owner that is dead or has failed for longer than the lease lasts, and nobody longer than the bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentic_flywheel.errors import FlowUnavailable, FlywheelError
from agentic_flywheel.flows.protocol import FlowEvent, Progress, TextPart
from agentic_flywheel.model import Entry, Reason

#: Tells a listener that the text so far is void, since another answer takes its place.
RESTARTED = Progress("restarted")

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Landed:
    """How a flight ended well: the answer as an entry, whether it came from this process's own call, and whether it
    is complete and stored."""

    __slots__ = ("complete", "entry", "found", "own", "stored", "withheld")

    def __init__(
        self,
        entry: Entry,
        *,
        own: bool,
        complete: bool = True,
        stored: bool = True,
        found: bool = False,
        withheld: Reason | None = None,
    ) -> None:
        self.entry = entry
        self.own = own
        self.complete = complete
        self.stored = stored
        self.withheld = withheld  # why nobody may be given it later: REDACTED, WITHDRAWN
        self.found = found  # it stood in the store already when the lease was had


class Flight:
    """One call under way. Events are kept, so who joins late hears the answer from its beginning."""

    def __init__(self) -> None:
        #: When the flow was asked, by the event loop's clock; None while another process's call is listened to.
        self.asked_at: float | None = None
        #: Whether somebody who asks came aboard a flight that was begun for nobody.
        self.joined = False
        #: Whether the flow itself was called.
        self.called = False
        #: Whether it is being given up, so that nobody should come aboard any more.
        self.leaving = False
        self._events: list[FlowEvent] = []
        self._said: list[str] = []
        self._news = asyncio.Event()
        self._landed: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()
        # A flight that failed with nobody aboard is not an unhandled error; its failure was counted and logged.
        self._landed.add_done_callback(lambda future: future.cancelled() or future.exception())

    def tell(self, event: FlowEvent) -> None:
        """Let everyone aboard hear an event."""
        if isinstance(event, TextPart):
            self._said.append(event.text)
        self._events.append(event)
        self._news.set()

    def restart(self) -> None:
        """What was heard so far is void: somebody else answers now."""
        if any(self._said):
            self._said.clear()
            self.tell(RESTARTED)

    def leave(self) -> bool:
        """Whether it may be given up, since nobody came aboard; from now on nobody does."""
        self.leaving = not self.joined
        return self.leaving

    def complete(self, text: str) -> None:
        """Let everyone hear what the whole answer has beyond what was told."""
        said = "".join(self._said)
        if not text.startswith(said):
            self.restart()
            said = ""
        if rest := text[len(said) :]:
            self.tell(TextPart(rest))

    async def events(self, until: asyncio.Future[Any]) -> AsyncIterator[FlowEvent]:
        """Every event, from the first one on; ends with the flight, however it ended, or as soon as `until` is done."""
        until.add_done_callback(lambda _: self._news.set())
        heard = 0
        while True:
            while heard < len(self._events):
                heard += 1
                yield self._events[heard - 1]
            if self._landed.done() or until.done():
                return
            self._news.clear()
            await self._news.wait()

    async def landed(self) -> Landed:
        """The end. Raises what the flight failed with. Whoever stops waiting does not end it."""
        return await asyncio.shield(self._landed)

    def land(self, outcome: Landed | BaseException) -> None:
        """End the flight."""
        if not self._landed.done():
            if isinstance(outcome, Landed):
                self._landed.set_result(outcome)
            else:
                self._landed.set_exception(outcome)
        self._news.set()


class Flights:
    """The flights of this process, and the work that must go on when an asker leaves."""

    def __init__(self) -> None:
        self._by_name: dict[str, Flight] = {}
        self._work: set[asyncio.Task[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()

    def under_way(self, name: str) -> Flight | None:
        """The flight of this name, None where there is none."""
        flight = self._by_name.get(name)
        return None if flight is None or flight.leaving else flight

    def launch(self, name: str | None, fly: Callable[[Flight], Awaitable[Landed]]) -> Flight:
        """Begin a flight; with a name, others can come aboard."""
        flight = Flight()
        if name is not None:
            self._by_name[name] = flight

        async def run() -> None:
            try:
                flight.land(await fly(flight))
            except asyncio.CancelledError:
                flight.land(FlowUnavailable("the call was given up, since the flywheel was closed"))
                raise
            except BaseException as error:
                flight.land(error)
                if not isinstance(error, FlywheelError):
                    raise
            finally:
                if name is not None and self._by_name.get(name) is flight:
                    del self._by_name[name]

        task = self.go_on(run())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return flight

    def go_on(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run work that is not given up when whoever asked for it leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, FlywheelError):
            _log.error("work that nobody waited for failed", exc_info=error)

    async def settled(self) -> None:
        """Wait until nothing is under way any more; what failed is none of this caller's business."""
        while self._work:
            await asyncio.wait(set(self._work))

    async def aclose(self, *, patience: float) -> None:
        """Let what is under way end within `patience` seconds, then give up the calls, whose askers hear of it, and
        after `patience` once more the rest."""
        for doomed in (self._calls, self._work):
            if self._work:
                await asyncio.wait(set(self._work), timeout=patience)
            for task in (left := set(doomed)):
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

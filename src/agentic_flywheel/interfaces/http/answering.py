"""uvicorn's protocol, which looks whether a request came before (`again`) before it starts the application for it.

Invariant: to the connection there is no difference: one response for each request in their order, keep-alive, limits
and the end of the service as uvicorn has them. Only a whole request on a connection that stays open, whose client reads
what it is sent, is looked at; everything else is the application's. One that comes in one piece between two others, as
one did before, is not even parsed where its answer needs no asking: the parser neither hears of it nor waits for it.
"""

from __future__ import annotations

import inspect
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from agentic_flywheel.interfaces.http.again import LONGEST, SENT, Repeats

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


_log = logging.getLogger(__name__)
#: What of uvicorn's inside is relied on, as 0.54 has it.
_RELIED_ON = {
    "data_received": ["self", "data"],
    "_start_asgi_task": ["self", "cycle", "app"],
    "on_message_begin": ["self"],
    "on_message_complete": ["self"],
    "on_response_complete": ["self"],
}


def fits(base: type) -> bool:
    """Whether a protocol has what is relied on; with another release's, every request goes the whole way."""
    return all(
        callable(found := getattr(base, name, None)) and list(inspect.signature(found).parameters) == wanted
        for name, wanted in _RELIED_ON.items()
    )


def answering(base: type[HttpToolsProtocol], repeats: Repeats) -> type[HttpToolsProtocol]:
    """The protocol `base`, for an application with these requests."""

    class Answering(base):  # type: ignore[misc, valid-type]
        #: While data comes in: a request whose application waits for the rest of it.
        _held: tuple[RequestResponseCycle, Any] | None = None
        _receiving = False
        #: And what was just answered as it came in, and how many requests began.
        _met: Any = None
        _starts = 0
        #: A request has begun and is not all there.
        _underway = False

        def data_received(self, data: bytes) -> None:
            rests = self._rests()
            if rests and (told := repeats.at_once(data)) is not None:
                self._respond(self.cycle, told)
                return
            self._receiving, self._met, self._starts = True, None, 0
            super().data_received(data)
            self._receiving = False
            if rests and self._met is not None and self._starts == 1:
                repeats.note(data, self._met)
            if self._held is not None:
                held, self._held = self._held, None
                super()._start_asgi_task(*held)

        def _rests(self) -> bool:
            """Whether all requests so far have been answered, and the next one would be by the same rules."""
            cycle = self.cycle
            return (
                cycle is not None
                and cycle.response_complete
                and cycle.keep_alive
                and not (self._underway or self.pipeline or self.flow.write_paused or self.transport.is_closing())
            )

        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            if self._receiving:
                self._held = (cycle, app)
            else:  # it waited for the response to the request before it
                super()._start_asgi_task(cycle, app)

        def on_message_begin(self) -> None:
            self._starts += 1
            self._underway = True
            super().on_message_begin()

        def on_message_complete(self) -> None:
            self._underway = False
            super().on_message_complete()
            if self._held is not None and self._held[0] is self.cycle and self._answers(*self._held):
                self._held = None

        def _answers(self, cycle: RequestResponseCycle, app: Any) -> bool:
            """Whether the request is answered here; it may be some time later."""
            scope = cycle.scope
            if scope["method"] != "POST" or len(cycle.body) > LONGEST:
                return False
            sent = repeats.sent(self.url, scope["headers"], cycle.body)
            if sent is None:
                return False
            scope[SENT] = sent  # type: ignore[typeddict-unknown-key]
            known = repeats.known(sent)
            if known is None or not cycle.keep_alive or cycle.waiting_for_100_continue or self.flow.write_paused:
                return False
            began = perf_counter()
            if repeats.waits(known):
                task = self.loop.create_task(self._confirmed(cycle, app, known, began))
                task.add_done_callback(self.tasks.discard)
                self.tasks.add(task)
                return True
            told = repeats.near(known, began)
            if told is None:
                return False
            self._respond(cycle, told)
            self._met = known
            return True

        async def _confirmed(self, cycle: RequestResponseCycle, app: Any, known: Any, began: float) -> None:
            told: bytes | None = None
            try:
                told = await repeats.confirmed(known, cycle.scope, began)
            except Exception as error:  # noqa: BLE001 -- whoever asks is told of it on the whole way
                _log.debug("a request goes the whole way: %s", error)
            if told is None:
                await cycle.run_asgi(app)
            else:
                self._respond(cycle, told)

        def _respond(self, cycle: RequestResponseCycle, told: bytes) -> None:
            cycle.response_started = cycle.response_complete = True
            if cycle.disconnected:
                return
            parts = [STATUS_LINE[200]]
            for name, value in self.server_state.default_headers:
                parts += (name, b": ", value, b"\r\n")
            parts.append(told)
            if not cycle.keep_alive:  # the service ends
                parts[-1] = b"connection: close\r\n" + told
            self.transport.write(b"".join(parts))
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()

    return Answering

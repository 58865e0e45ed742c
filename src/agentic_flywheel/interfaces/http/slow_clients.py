"""Clients that begin a request and do not go on with it: their connections are ended.

Invariant: the head of a request has to be there `serve.client_seconds` after the connection was made, or after its
first byte on a connection that was used before; of its body the next piece after the one before. What the service
itself holds up (an upload that waits for the service behind) is not on the client's account. Between requests
uvicorn's own bound for idle connections holds.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def impatient(seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with this much patience."""

    class Impatient(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _begun = False
        _head_is_there = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self._begun:
                self._stop_waiting()
            elif self._head_is_there or self._timer is None:
                self._wait()

        def on_message_begin(self) -> None:
            self._begun, self._head_is_there = True, False
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._head_is_there = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._begun = False
            super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop_waiting()
            self._timer = self.loop.call_later(seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            if self.flow.read_paused:  # it may be sending: nobody looks
                self._wait()
            else:  # whatever came while this process was busy is read before the last moment has passed
                self._timer = self.loop.call_later(seconds / 4, self.transport.close)

    return Impatient

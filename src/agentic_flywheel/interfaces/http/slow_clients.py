"""Clients that begin a request and do not go on with it, or whose heads have no end: their connections are ended.

Invariant: the head of a request has to be there `serve.client_seconds` after the connection was made, or after its
first byte on a connection that was used before; of its body the next piece after the one before. What the service
itself holds up (an upload that waits for the service behind) is not on the client's account. Between requests
uvicorn's own bound for idle connections holds. A head that is not at its end after `LONGEST_HEAD` bytes (and what was
read at once) is refused: nothing else bounds what a client can have a process hold before it has said who it is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a request's line and headers. Flowise's own server takes 16 KB, nginx 32.
LONGEST_HEAD = 131_072
_LINGER_SECONDS = 1.0
_TOLD = b"The head of a request has at most %d bytes.\n" % LONGEST_HEAD
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_TOLD), _TOLD)
)


def impatient(seconds: float) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, with this much patience."""

    class Impatient(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _begun = False
        _head_is_there = False
        _head_bytes = 0
        _begins = 0
        _refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            idle, self._begins = not self._begun, 0
            super().data_received(data)
            if self._head_is_there or not self._begun:
                self._head_bytes = 0
            elif self._begins:  # in this very piece, which is all of it only where nothing came before
                self._head_bytes = len(data) if idle and self._begins == 1 else 0
            else:
                self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD:
                self._refuse()
                return
            if not self._begun:
                self._stop_waiting()
            elif self._head_is_there or self._timer is None:
                self._wait()

        def on_message_begin(self) -> None:
            self._begun, self._head_is_there = True, False
            self._begins += 1
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

        def _refuse(self) -> None:
            """Say that the head is too large. What still comes is read for a moment, or nobody would hear it."""
            self._refused = True
            self._stop_waiting()
            if not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.write_eof()
                self.loop.call_later(_LINGER_SECONDS, self.transport.close)

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

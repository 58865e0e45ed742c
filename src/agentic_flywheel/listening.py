"""How a program hears of every answer that a flywheel gives, for metrics and the like.

Invariant: whoever listens is told of each question once, after it was answered or had failed, on the event loop and in
no way that could change the answer: what a listener raises is logged and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.flows.protocol import StreamEvent
from agentic_flywheel.model import Answer

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """What is told of answers; both methods must be quick.

    One that has a method `traced(end: str, traces: int)` is told as well, from another thread, how many traces were
    sent, dropped or failed.
    """

    def answered(self, answer: Answer) -> None:
        """A question was answered."""

    def failed(self, error: FlywheelError) -> None:
        """A question was refused, or its flow did not answer."""


class Listening:
    """Tells a listener, whatever that does."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def answered(self, answer: Answer) -> Answer:
        """Tell of an answer, and give it back."""
        try:
            self._listener.answered(answer)
        except Exception:  # noqa: BLE001 -- an answer must not fail for who listens
            _log.exception("a listener failed")
        return answer

    def failed(self, error: FlywheelError) -> None:
        """Tell of a failure."""
        try:
            self._listener.failed(error)
        except Exception:  # noqa: BLE001 -- an answer must not fail for who listens
            _log.exception("a listener failed")

    async def stream(self, events: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[StreamEvent, None]:
        """The same events; their end is told of."""
        async with aclosing(events):
            try:
                async for event in events:
                    if isinstance(event, Answer):
                        self.answered(event)
                    yield event
            except FlywheelError as error:
                self.failed(error)
                raise

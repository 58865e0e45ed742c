"""An answer on stdout as it comes.

Invariant: what has been printed ends with a line's end, however the stream ends; each piece is flushed, so whoever
reads along sees it at once. Text that turned out to be void stays where it is, and a note says so: a stream has
no way back.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from agentic_flywheel.errors import FlywheelError
from agentic_flywheel.flows.protocol import Progress, SourcesFound, StreamEvent, TextPart
from agentic_flywheel.interfaces.cli.terminal import clean, note, print_error, print_json
from agentic_flywheel.model import Answer


class Voice:
    """Says one answer: as text, or with `as_json` as one JSON object per event and line."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._mid_line = False

    async def follow(self, events: AsyncGenerator[StreamEvent, None]) -> Answer:
        """Say everything, and return the answer, which is the last event."""
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Answer):
                        return self._finish(event)
                    self._say(event)
        except asyncio.CancelledError:  # Ctrl-C
            self.end()
            raise
        raise RuntimeError("a stream ended without its answer")

    def follow_now(self, events: Iterable[StreamEvent]) -> Answer:
        """As `follow`, without an event loop."""
        for event in events:
            if isinstance(event, Answer):
                return self._finish(event)
            self._say(event)
        raise RuntimeError("a stream ended without its answer")

    def fail(self, error: FlywheelError) -> None:
        """Say that it failed."""
        if self._as_json:
            print_json({"event": "error", **error.as_dict()}, indent=0)
            sys.stdout.flush()
        else:
            self.end()
            print_error(error, as_json=False)

    def end(self) -> None:
        """End the line that is being written."""
        if self._mid_line:
            sys.stdout.write("\n")
            self._mid_line = False
        sys.stdout.flush()

    def _finish(self, answer: Answer) -> Answer:
        if self._as_json:
            print_json({"event": "answer", "answer": answer}, indent=0)
        else:
            self._mid_line = True  # an answer ends with a line's end of its own, as without streaming
        self.end()
        return answer

    def _say(self, event: StreamEvent) -> None:
        if self._as_json:
            if isinstance(event, TextPart):
                print_json({"event": "text", "text": event.text}, indent=0)
            elif isinstance(event, SourcesFound):
                print_json({"event": "sources", "sources": event.sources}, indent=0)
            elif isinstance(event, Progress):
                print_json({"event": "progress", "name": event.event, "payload": event.payload}, indent=0)
            sys.stdout.flush()
        elif isinstance(event, TextPart):
            text = clean(event.text) if sys.stdout.isatty() else event.text
            sys.stdout.write(text)
            sys.stdout.flush()
            self._mid_line = True
        elif isinstance(event, Progress) and event.event == "restarted":
            self.end()
            note("What stands above is void: another answer takes its place.")

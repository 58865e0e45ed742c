"""An answer that is passed on while it comes, to clients from whom nothing can be taken back.

Invariant: what a client was told is a beginning of the answer that it gets. Where another answer takes the place of one
that is half said, it goes on only as far as it says the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from agentic_flywheel.errors import FlowUnavailable
from agentic_flywheel.flows.protocol import Progress, StreamEvent, TextPart
from agentic_flywheel.model import Answer


class Spoken:
    """What a client was told so far.

    >>> spoken = Spoken()
    >>> spoken.fresh("Seven "), spoken.restart(), spoken.fresh("Sev"), spoken.fresh("en days")
    ('Seven ', None, '', 'days')
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._before = ""  # what was said when the answer began anew
        self._heard = 0

    def restart(self) -> None:
        """The answer begins anew."""
        self._before = "".join(self._pieces)
        self._heard = 0

    def fresh(self, text: str) -> str:
        """What of a piece the client was not told yet. Raises `FlowUnavailable` where it contradicts what was said."""
        known = self._before[self._heard : self._heard + len(text)]
        self._heard += len(text)
        if not text.startswith(known):
            raise _taken_back()
        fresh = text[len(known) :]
        self._pieces.append(fresh)
        return fresh

    def end(self, answer: Answer) -> None:
        """The whole answer is known. Raises `FlowUnavailable` where it is another than was said."""
        if answer.text != "".join(self._pieces):
            raise _taken_back()


async def spoken_of(
    events: AsyncGenerator[StreamEvent, None], first: StreamEvent | None = None
) -> AsyncIterator[StreamEvent]:
    """Events with their texts cut to what is new, `first` before all others; the last is the answer.

    Raises `FlowUnavailable` where what was said would have to be taken back, and whatever the call fails with.
    """
    spoken = Spoken()
    async with aclosing(events):
        if first is not None and (told := _cut(first, spoken)) is not None:
            yield told
        async for event in events:
            if (told := _cut(event, spoken)) is not None:
                yield told


def _cut(event: StreamEvent, spoken: Spoken) -> StreamEvent | None:
    if isinstance(event, TextPart):
        fresh = spoken.fresh(event.text)
        return TextPart(fresh) if fresh else None
    if isinstance(event, Progress) and event.event == "restarted":
        spoken.restart()
    elif isinstance(event, Answer):
        spoken.end(event)
    return event


def _taken_back() -> FlowUnavailable:
    return FlowUnavailable("the call broke off, and another answer takes its place: ask again")

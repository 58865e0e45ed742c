"""How many may listen to what happens at a time: pages that are open, and programs that follow the feed.

Invariant: a process holds at most `MOST` such streams, whichever interface they came by; one that has ended, however it
ended, is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from agentic_flywheel.errors import ServiceBusy

MOST: Final = 200
#: How long one stream lasts, how often a line goes out that keeps it open, and how soon a browser comes back.
LONGEST_SECONDS: Final = 300.0
PING_SECONDS: Final = 15.0
AGAIN_MS: Final = 2000
#: How soon a stream sees that the service closes.
LOOK_SECONDS: Final = 0.5


class Listeners:
    """The streams of this process."""

    def __init__(self, most: int = MOST) -> None:
        self.open = 0
        self._most = most

    def check(self) -> None:
        """Raises `ServiceBusy` where no more may listen."""
        if self.open >= self._most:
            raise ServiceBusy(f"{self._most} are listening to what happens, and no more may", most=self._most)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one, as long as the block lasts."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


LISTENERS = Listeners()

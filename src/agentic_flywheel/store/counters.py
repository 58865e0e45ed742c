"""What questions came to, per flow and day.

Invariant: labels are outcomes and reasons, never a user or a question; every counter expires after 90 days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link

KEPT = timedelta(days=90)


def day_of(moment: float) -> str:
    """The UTC day of an epoch time, as it stands in keys."""
    return _day(int(moment // 86400))


@lru_cache(maxsize=128)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y%m%d")


class Counters:
    """The counters of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def commands(self, tally: Sequence[tuple[str, str, str, int]]) -> list[Command]:
        """What to send to add up `(flow, day, field, amount)`; equal fields are summed first."""
        sums: defaultdict[tuple[str, str], defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        for flow, day, field, amount in tally:
            sums[self._keys.count(flow, day), day][field] += amount
        commands: list[Command] = []
        for (key, _day), fields in sums.items():
            commands += [("HINCRBY", key, field, amount) for field, amount in fields.items()]
            commands.append(("EXPIRE", key, int(KEPT.total_seconds())))
        return commands

    async def read(self, flow: str, *, days: int, now: float) -> dict[str, int]:
        """The sums of a flow's fields over the last `days` days, today included."""
        stamps = [day_of(now - 86400 * back) for back in range(days)]
        replies = await self._link.run(*(("HGETALL", self._keys.count(flow, d)) for d in stamps), slow=True)
        totals: defaultdict[str, int] = defaultdict(int)
        for reply in replies:
            pairs: Any = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
            for field, amount in pairs:
                totals[field.decode()] += int(amount)
        return dict(totals)

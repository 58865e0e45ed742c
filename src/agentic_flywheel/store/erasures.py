"""What is still to be deleted where traces went, after somebody or something was forgotten.

    afw:v1:T:erasures    hash    id: one `Erasure`

Invariant: an erasure is here before anything is tried, and stays until all of it was done and looked at once more; then
it tells of that for 90 days. Whoever goes on with it may be another process than the one that began it; what both do
is done twice, which harms nothing.
"""

from __future__ import annotations

import logging

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.store.codec import decode, encode, place
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link

_log = logging.getLogger(__name__)


class Erasure(msgspec.Struct, kw_only=True):
    """What has to go. `traces` and `scores` are ids that wait; `sessions` and `users` (as traces name them) are what
    more is found by; `deleted` are the traces that were taken for deletion.

    `look_at` is when it is to be gone on with, `completed_at` when it ended (0 before), `problem` what stood in the way
    last, `receipt` (JSON) the signed one of its end. Times are epoch seconds.
    """

    id: str
    at: float
    traces: list[str] = []
    sessions: list[str] = []
    users: list[str] = []
    scores: list[str] = []
    deleted: list[str] = []
    look_at: float = 0.0
    completed_at: float = 0.0
    tries: int = 0
    problem: str = ""
    receipt: str = ""

    @property
    def waiting(self) -> int:
        """How many traces and scores are known to wait."""
        return len(self.traces) + len(self.scores)


class ErasureStore:
    """The erasures of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._key = keys.erasures

    async def put(self, erasure: Erasure) -> None:
        """Keep an erasure as it is now."""
        await self._link.run(("HSET", self._key, erasure.id, encode(erasure, place(self._key, erasure.id))), slow=True)

    async def all(self) -> list[Erasure]:
        """Every erasure, the oldest first; damaged ones are left out and logged."""
        (reply,) = await self._link.run(("HGETALL", self._key), slow=True)
        found = []
        for raw in reply.values() if isinstance(reply, dict) else reply[1::2]:
            try:
                found.append(decode(raw, Erasure))
            except StoreDamaged as error:
                _log.warning("what was to be deleted where traces went cannot be read: %s", error)
        return sorted(found, key=lambda one: one.at)

    async def drop(self, id_: str) -> None:
        """Forget an erasure."""
        await self._link.run(("HDEL", self._key, id_), slow=True)

"""How far the sweep of turns past their retention has come, for all processes.

    afw:v1:T:retention    hash    sweep

Invariant: what is written here never decides what goes, only where a sweep is taken up again: a lost or damaged note
makes it begin anew.
"""

from __future__ import annotations

import logging

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.privacy import SweepNote
from agentic_flywheel.store.codec import decode, encode
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link

_FIELD = "sweep"

_log = logging.getLogger(__name__)


class SweepNotes(msgspec.Struct, frozen=True, kw_only=True):
    """The sweep that is under way (or was cut off), and the last one that came to its end."""

    running: SweepNote | None = None
    last: SweepNote | None = None


class SweepStore:
    """The notes of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._key = keys.retention

    async def read(self) -> SweepNotes:
        """The notes. Raises `StoreError`."""
        (raw,) = await self._link.run(("HGET", self._key, _FIELD), slow=True)
        if raw is None:
            return SweepNotes()
        try:
            return decode(raw, SweepNotes)
        except StoreDamaged as error:
            _log.warning("the sweep begins anew: %s", error)
            return SweepNotes()

    async def write(self, notes: SweepNotes) -> None:
        """Note them. Raises `StoreError`."""
        await self._link.run(("HSET", self._key, _FIELD, encode(notes)), slow=True)

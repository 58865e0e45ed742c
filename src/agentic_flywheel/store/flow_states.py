"""What all processes know of each flow: fingerprint, generation, and lifetimes that were set at run time.

Invariant: every change of a fingerprint and every clearing raises the flow's generation, in one atomic write;
an entry of an older generation is unreachable from that moment, whatever the number of entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.model import FlowChange, FlowState
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.gone import remember_command
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script

_FIELDS = ("fingerprint", "generation", "changed_at", "revision", "etag", "checked_at", "ttl_seconds", "faq", "gone")
_CHANGES_KEPT = 100

# Records what was learnt of a flow. A new fingerprint raises the generation and is written down with its predecessor;
# the first sight of a flow does too. Returns the generation in force.
OBSERVE = Script("""
local state, changes = KEYS[1], KEYS[2]
local fingerprint, revision, etag, checked_at, now, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local old = redis.call('HGET', state, 'fingerprint') or ''
local generation = tonumber(redis.call('HGET', state, 'generation') or '0')
if old ~= fingerprint then
    generation = redis.call('HINCRBY', state, 'generation', 1)
    redis.call('HSET', state, 'fingerprint', fingerprint, 'changed_at', now)
    redis.call('LPUSH', changes, cjson.encode({old, fingerprint, tonumber(now), generation}))
    redis.call('LTRIM', changes, 0, kept - 1)
end
redis.call('HSET', state, 'revision', revision, 'etag', etag, 'checked_at', checked_at)
return generation
""")


class FlowStates:
    """The flows of one tenant, as shared by all processes."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    def read_command(self, flow: str) -> Command:
        """What to send to read a flow's state; see `state_of`."""
        return ("HMGET", self._keys.flow(flow), *_FIELDS)

    def type_ttl_command(self, flow_type: str) -> Command:
        """What to send to read the override of a flow type's lifetime, in seconds (None: no override)."""
        return ("HGET", self._keys.lifetimes, flow_type)

    def state_of(self, reply: Sequence[bytes | None]) -> FlowState:
        """The reply to `read_command`."""
        fingerprint, generation, changed_at, revision, etag, checked_at, ttl, faq, gone = reply
        try:
            return FlowState(
                fingerprint=fingerprint.decode() if fingerprint else "",
                generation=int(generation or 0),
                changed_at=float(changed_at or 0),
                revision=revision.decode() if revision else "",
                etag=etag.decode() if etag else "",
                checked_at=float(checked_at or 0),
                ttl_seconds=seconds_of(ttl),
                faq=faq.decode() if faq else "",
                gone=gone or b"",
            )
        except ValueError as error:
            raise StoreDamaged(f"what is known of a flow is not what was written: {error}") from error

    async def state(self, flow: str) -> FlowState:
        """What is known of a flow; all defaults where nothing is."""
        (reply,) = await self._link.run(self.read_command(flow), slow=True)
        return self.state_of(reply)

    async def observe(
        self, flow: str, *, fingerprint: str, revision: str, etag: str, checked_at: float, now: float
    ) -> int:
        """Record what was learnt; the generation in force afterwards."""
        generation, _ = await self._link.run(
            OBSERVE.call(
                (self._keys.flow(flow), self._keys.changes(flow)),
                fingerprint,
                revision,
                etag,
                repr(checked_at),
                repr(now),
                _CHANGES_KEPT,
            ),
            ("SADD", self._keys.flows, flow),
        )
        try:
            return int(generation)
        except NONSENSE as error:
            raise nonsense(error, "a flow's generation") from error

    async def clear(self, flow: str) -> int:
        """Make every answer of a flow unreachable, in O(1); the new generation."""
        (generation,) = await self._link.run(("HINCRBY", self._keys.flow(flow), "generation", 1), slow=True)
        return int(generation)

    def gone_command(self, flow: str) -> Command:
        """What to send to read which of the flow's answers were forgotten; see `store.gone`."""
        return ("HGET", self._keys.flow(flow), "gone")

    async def remember_gone(self, flow: str, told: Sequence[bytes], *, now: float) -> None:
        """Remember whose answers of the flow are about to be forgotten."""
        await self._link.run(remember_command(self._keys.flow(flow), told, now=now), slow=True)

    async def warmed(self, flow: str) -> int | None:
        """The generation whose answers were last asked for without an asker; None where that was never noted."""
        (generation,) = await self._link.run(("HGET", self._keys.flow(flow), "warmed"), slow=True)
        return None if generation is None else int(generation)

    async def note_warmed(self, flow: str, generation: int) -> None:
        """Note the generation whose popular questions need not be asked any more."""
        await self._link.run(("HSET", self._keys.flow(flow), "warmed", generation), slow=True)

    async def known(self) -> list[str]:
        """Every flow of this tenant that was ever asked."""
        (members,) = await self._link.run(("SMEMBERS", self._keys.flows), slow=True)
        return sorted(member.decode() for member in members)

    async def changes(self, flow: str) -> list[FlowChange]:
        """The flow's last changes, newest first."""
        (raw,) = await self._link.run(("LRANGE", self._keys.changes(flow), 0, -1), slow=True)
        return [msgspec.json.decode(item, type=FlowChange) for item in raw]

    async def type_ttls(self) -> dict[str, float]:
        """The lifetimes that were set for flow types at run time, in seconds."""
        (reply,) = await self._link.run(("HGETALL", self._keys.lifetimes), slow=True)
        pairs: Any = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        found = {name.decode("utf-8", "replace"): seconds_of(value) for name, value in pairs}
        return {name: seconds for name, seconds in found.items() if seconds is not None}

    async def set_type_ttl(self, flow_type: str, seconds: float | None) -> None:
        """Set the lifetime of a flow type, or take the override back."""
        key = self._keys.lifetimes
        change = ("HDEL", key, flow_type) if seconds is None else ("HSET", key, flow_type, repr(seconds))
        await self._link.run(change, slow=True)

    async def set_ttl(self, flow: str, seconds: float | None) -> None:
        """Set the lifetime of one flow, or take the override back."""
        key = self._keys.flow(flow)
        await self._link.run(
            ("HDEL", key, "ttl_seconds") if seconds is None else ("HSET", key, "ttl_seconds", repr(seconds)),
            ("SADD", self._keys.flows, flow),
            slow=True,
        )


def seconds_of(reply: bytes | None) -> float | None:
    """A lifetime as it is kept, None where there is none. Raises `StoreDamaged`."""
    try:
        return float(reply) if reply else None
    except ValueError as error:
        raise StoreDamaged(f"a lifetime that was set is not a number: {error}") from error

"""Single flight across processes: one owner asks the flow, everyone else hears what it says.

Invariant: a lease has one owner at a time, named by a token; only the owner can prolong, speak or finish, each
checked and done in one script, so that a script that was sent twice acts once. An owner that dies is noticed when its
lease runs out, and the first of those who wait takes over. What the owner says is kept in a stream beside the lease
until shortly after the end, so nobody can miss the word that wakes it: waiting is a blocking read, never polling.

    afw:v1:T:lease:{H}:V            string   the owner's token, expiring
    afw:v1:T:lease:{H}:V:parts      stream   begin, parts of the answer with their place in it, one end; expiring
    afw:v1:T:lease:{H}:V:refresh    string   whoever refreshes an answer before its end, expiring
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.store.codec import DAMAGED, decode, encode, stored
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.store.wire import Refusal

#: An owner that says nothing for so long is taken for dead; it prolongs its lease three times in that time.
LEASE_SECONDS = 3.0
#: What was said stays readable so long after the end, for those who were just about to listen.
KEPT_SECONDS = 15.0
#: Once somebody has begun to refresh an answer, nobody else does for so long, however it ended.
REFRESH_PAUSE_SECONDS = 30.0
#: Waiting connections of one process; who comes when all are taken asks the flow itself.
MOST_LISTENERS = 32

# 1: the lease is ours. Where an owner to follow is named, only if nobody has followed it already.
ACQUIRE = Script("""
local owner = redis.call('GET', KEYS[1])
if owner then return owner == ARGV[1] and 1 or 0 end
if ARGV[4] ~= '' then
    local begun = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
    if begun and begun[2][2] ~= ARGV[4] then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[2], '*', 'begin', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
""")

# Prolongs the lease, and adds a part where there is one. 0: the lease is no longer ours.
SPEAK = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[4] ~= '' then redis.call('XADD', KEYS[2], '*', 'part', ARGV[4], 'at', ARGV[5]) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
""")

FINISH = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('XADD', KEYS[2], '*', 'end', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
return 1
""")


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """How a flight ended: with an encoded entry, or with an error (its code, message, when to retry, what to do).

    `complete` is False for an answer that is shown but not stored. `takeover` says that another attempt may succeed,
    so one who waits should make it. `unshared` says that the answer may not be passed on: who waits asks the flow.
    """

    entry: bytes = b""
    code: str = ""
    message: str = ""
    retry_after_seconds: float = 0.0
    takeover: bool = False
    complete: bool = True
    suggestions: tuple[str, ...] = ()
    unshared: bool = False


class Begun(msgspec.Struct, frozen=True):
    """A (new) owner began: what was heard before is void."""

    owner: str


class Part(msgspec.Struct, frozen=True):
    """A piece of the answer's text, and how many characters stand before it."""

    text: str
    at: int


class Silence(msgspec.Struct, frozen=True):
    """The owner said nothing until its lease ran out."""


Heard = Begun | Part | Ended | Silence


class Lease:
    """A lease that this process owns."""

    def __init__(self, link: Link, keys: tuple[str, str], token: str) -> None:
        self._link = link
        self._keys = keys
        self._token = token

    async def speak(self, text: str = "", at: int = 0) -> bool:
        """Prolong the lease, and let those who wait hear a part that begins after `at` characters.

        False where somebody else has taken over.
        """
        lease, kept = _milliseconds(LEASE_SECONDS), _milliseconds(LEASE_SECONDS + KEPT_SECONDS)
        part = stored(text.encode(), self._keys[1]) if text else ""
        (held,) = await self._link.run(SPEAK.call(self._keys, self._token, lease, kept, part, at))
        return bool(held)

    async def finish(self, ended: Ended, *also: Command) -> None:
        """End the flight and wake everyone, after sending other commands in the same round trip.

        Without effect on the flight where somebody else has taken over.
        """
        await self._link.run(*also, self._end(ended))

    async def finish_after(self, ended: Ended, look: Command, *also: Command) -> Any:
        """As `finish`, after a read whose reply is returned, whatever it is."""
        return await self._link.run_after(look, *also, self._end(ended))

    def _end(self, ended: Ended) -> Command:
        return FINISH.call(self._keys, self._token, _milliseconds(KEPT_SECONDS), encode(ended, self._keys[1]))


class Leases:
    """The flights of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._listeners = 0

    async def acquire(self, name: str, *also: Command, after: str = "") -> tuple[Lease | None, list[Any]]:
        """Try to become the owner of a flight; in the same round trip, after that, send reads to look again.

        The lease (None: somebody else owns it) and the replies to `also`. With `after`, an owner whose end was heard,
        also None if somebody followed that one already: what came of it is there to be listened to.
        """
        keys, token = self._keys.lease(name), secrets.token_hex(8)
        lease_ms, kept_ms = _milliseconds(LEASE_SECONDS), _milliseconds(LEASE_SECONDS + KEPT_SECONDS)
        acquire = ACQUIRE.call(keys, token, lease_ms, kept_ms, after)
        ours, *replies = await self._link.run_each(acquire, *also, reads_follow=True)
        if isinstance(ours, Refusal):
            raise self._link.error(ours, "acquiring a lease") from ours
        return (Lease(self._link, keys, token) if ours else None), replies

    async def forget(self, name: str) -> None:
        """Remove what is left of a flight: who listens to it now asks anew."""
        lease, parts = self._keys.lease(name)
        await self._link.run(("UNLINK", lease, parts), slow=True)

    async def may_refresh(self, name: str) -> bool:
        """Whether nobody has begun to refresh this answer lately; from now on somebody has."""
        pause = _milliseconds(REFRESH_PAUSE_SECONDS)
        (ours,) = await self._link.run(("SET", self._keys.refresh(name), "1", "NX", "PX", pause))
        return ours is not None

    async def listen(self, name: str) -> AsyncGenerator[Heard, None]:
        """What the owner of a flight says, from its beginning on; ends with `Ended` or `Silence`.

        Raises `StoreError`, also where this process listens to too many flights already.
        """
        lease, parts = self._keys.lease(name)
        if self._listeners >= MOST_LISTENERS:
            raise self._link.error(ConnectionError(f"{MOST_LISTENERS} flights are listened to already"), "XREAD")
        self._listeners += 1
        try:
            wire = await self._link.dedicated(key=parts, patience=LEASE_SECONDS * 2)
            try:
                place: str | bytes = "0"
                while True:
                    left = _number(*await self._said(wire, ("PTTL", lease)))
                    # Without a lease, its end may still stand in the stream: one look that does not wait.
                    block = ("BLOCK", max(left, 1) + 50) if left > 0 else ()
                    (reply,) = await self._said(wire, ("XREAD", "COUNT", 100, *block, "STREAMS", parts, place))
                    try:
                        said = _heard(reply)
                    except NONSENSE as error:
                        raise nonsense(error, "what a flight's owner says") from error
                    place = said[-1][0] if said else place
                    for _, heard in said:
                        yield heard
                        if isinstance(heard, Ended):
                            return
                    if not reply and left <= 0:
                        yield Silence()
                        return
            finally:
                wire.close()
        finally:
            self._listeners -= 1

    async def _said(self, wire: Any, command: Command) -> list[Any]:
        try:
            replies: list[Any] = await wire.exchange([command])
        except (OSError, TimeoutError) as error:
            raise self._link.error(error, str(command[0])) from error
        if isinstance(replies[0], Refusal):
            raise self._link.error(replies[0], str(command[0])) from replies[0]
        return self._link.seals.opened([command], replies)


def _number(reply: Any) -> int:
    try:
        return int(reply)
    except NONSENSE as error:
        raise nonsense(error, "what is left of a lease") from error


def _heard(reply: Any) -> list[tuple[bytes, Heard]]:
    """The entries of an XREAD reply, each with its place."""
    if not reply:
        return []
    entries = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    heard: list[tuple[bytes, Heard]] = []
    for place, fields in entries:
        said = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        if b"begin" in said:
            heard.append((place, Begun(said[b"begin"].decode())))
        elif b"part" in said:
            if said[b"part"] == DAMAGED:
                raise ValueError("a part of an answer cannot be opened")
            heard.append((place, Part(said[b"part"].decode(), int(said[b"at"]))))
        else:
            heard.append((place, _ended(said[b"end"])))
    return heard


def _ended(raw: bytes) -> Ended:
    try:
        return decode(raw, Ended)
    except StoreDamaged as error:
        return Ended(code=error.code, message=error.message, takeover=True)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)

"""What requests with an `Idempotency-Key` came to, for those who send them again.

Invariant: of any number of requests with one key at most one is under way; whoever is, is named by a token, and only
that token can end it. Everything expires: a request that died gives its key free again after `UNDER_WAY_MS`, what one
came to is kept for `KEPT_MS`. The value is sealed by whoever has the key (`agentic_flywheel.repeats`).

    afw:v1:T:repeat:{D}   string   the token of the request, then what it came to, sealed; expiring
"""

from __future__ import annotations

from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link, Script

#: Longer than any flow is waited for by default, twice over.
UNDER_WAY_MS = 300_000
KEPT_MS = 86_400_000
TOKEN = 16

# Takes the key for a token, or tells what stands there: "" where it was taken.
BEGIN = Script("""
local there = redis.call('GET', KEYS[1])
if there then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''
""")

# Ends what the token stands for: with what it came to, or giving the key free where that is "". 0: it is not ours.
END = Script("""
local there = redis.call('GET', KEYS[1])
if not there or string.sub(there, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3]) end
return 1
""")

SCRIPTS = (BEGIN, END)


class RepeatStore:
    """The repeatable requests of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def begin(self, name: str, token: bytes) -> bytes | None:
        """Take a key. None where it was free; else what it came to, b"" while that is under way."""
        (there,) = await self._link.run(BEGIN.call((self._keys.repeat(name),), token, UNDER_WAY_MS), slow=True)
        return None if there == b"" or there[:TOKEN] == token else there[TOKEN:]

    async def end(self, name: str, token: bytes, outcome: bytes = b"") -> None:
        """Keep what it came to; without anything the key is free again."""
        await self._link.run(END.call((self._keys.repeat(name),), token, outcome, KEPT_MS), slow=True)

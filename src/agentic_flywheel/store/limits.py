"""How many calls of a flow may be under way, and how many begin in a minute, over all processes.

Invariant: a place is taken and counted in one script, and freed by its holder or, if that died, when it runs out; the
rate is a token bucket that fills evenly and holds at most one minute's worth. The clock is the server's, since those
of several machines differ.
"""

from __future__ import annotations

import secrets

from agentic_flywheel.store.failures import nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Link, Script

# Takes a place. Returns 0, or the milliseconds after which trying again makes sense.
ENTER = Script("""
local calls, bucket = KEYS[1], KEYS[2]
local token, held_ms, most, per_minute = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if most > 0 then
    if redis.call('ZSCORE', calls, token) then return 0 end
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', now)
    if redis.call('ZCARD', calls) >= most then return 100 end
end
if per_minute > 0 then
    local kept = redis.call('HMGET', bucket, 'tokens', 'at')
    local tokens = tonumber(kept[1]) or per_minute
    local since = now - (tonumber(kept[2]) or now)
    tokens = math.min(per_minute, tokens + math.max(since, 0) * per_minute / 60000)
    if tokens < 1 then return math.ceil((1 - tokens) * 60000 / per_minute) end
    redis.call('HSET', bucket, 'tokens', tostring(tokens - 1), 'at', tostring(now))
    redis.call('PEXPIRE', bucket, 120000)
end
if most > 0 then
    redis.call('ZADD', calls, now + held_ms, token)
    redis.call('PEXPIRE', calls, held_ms)
end
return 0
""")


class Limits:
    """The limited flows of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def enter(
        self, flow: str, *, held_seconds: float, most: int | None, per_minute: int | None
    ) -> tuple[str, float]:
        """Take a place: its token, and 0; or the seconds after which trying again makes sense.

        A place is held for `held_seconds` at most.
        """
        token = secrets.token_hex(8)
        (wait,) = await self._link.run(
            ENTER.call(
                self._keys.calls(flow),
                token,
                round(held_seconds * 1000),
                most or 0,
                per_minute or 0,
            )
        )
        if type(wait) is not int:
            raise nonsense(TypeError(f"a {type(wait).__name__}"), "a place among a flow's calls")
        return token, wait / 1000

    async def leave(self, flow: str, token: str) -> None:
        """Free a place."""
        calls, _ = self._keys.calls(flow)
        await self._link.run(("ZREM", calls, token))

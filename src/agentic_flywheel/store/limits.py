"""How many calls of a flow may be under way, and how many begin in a minute, over all processes.

Invariant: a place is taken and counted in one script, and freed by its holder or, if that died, when it runs out; the
rate is a token bucket that fills evenly and holds at most one minute's worth. The clock is the server's, since those
of several machines differ.

A spare place is for a call that nobody waits for. It is given only where people do not miss it: one place stays free
where there are several, the bucket must be full, and nobody may be waiting. Who asks and finds no place has a spare one
called back; its holder looks for that, and leaves.
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
local spare = string.sub(token, 1, 6) == 'spare:'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if most > 0 then
    if redis.call('ZSCORE', calls, token) then return 0 end
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', now)
    local under_way = redis.call('ZCARD', calls)
    if spare then
        if under_way >= math.max(most - 1, 1) then return 100 end
        if tonumber(redis.call('HGET', bucket, 'wanted_until') or '0') > now then return 100 end
    elseif under_way >= most then
        -- Whoever waits comes again before this runs out; till then no spare place is given.
        redis.call('HSET', bucket, 'wanted_until', now + 300)
        redis.call('PEXPIRE', bucket, 120000)
        local found = nil
        for _, member in ipairs(redis.call('ZREVRANGE', calls, 0, -1)) do
            if string.sub(member, 1, 7) == 'called:' then return 100 end
            if string.sub(member, 1, 6) == 'spare:' then found = member end
        end
        if found then
            redis.call('ZADD', calls, redis.call('ZSCORE', calls, found), 'called:' .. string.sub(found, 7))
            redis.call('ZREM', calls, found)
        end
        return 100
    end
end
if per_minute > 0 then
    local kept = redis.call('HMGET', bucket, 'tokens', 'at')
    local tokens = tonumber(kept[1]) or per_minute
    local since = now - (tonumber(kept[2]) or now)
    tokens = math.min(per_minute, tokens + math.max(since, 0) * per_minute / 60000)
    local needed = spare and math.max(per_minute, 2) or 1
    if tokens < needed then return math.ceil((needed - tokens) * 60000 / per_minute) end
    redis.call('HSET', bucket, 'tokens', tostring(tokens - 1), 'at', tostring(now))
    redis.call('PEXPIRE', bucket, 120000)
end
if most > 0 then
    redis.call('ZADD', calls, now + held_ms, token)
    redis.call('PEXPIRE', calls, held_ms)
end
return 0
""")

# Makes a spare place an ordinary one, called back or not. 0: it has run out.
STAY = Script("""
local score = redis.call('ZSCORE', KEYS[1], 'spare:' .. ARGV[1]) or redis.call('ZSCORE', KEYS[1], 'called:' .. ARGV[1])
if not score then return 0 end
redis.call('ZREM', KEYS[1], 'spare:' .. ARGV[1], 'called:' .. ARGV[1])
redis.call('ZADD', KEYS[1], score, ARGV[1])
return 1
""")


class Limits:
    """The limited flows of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def enter(
        self, flow: str, *, held_seconds: float, most: int | None, per_minute: int | None, spare: bool = False
    ) -> tuple[str, float]:
        """Take a place: its token, and 0; or the seconds after which trying again makes sense.

        A place is held for `held_seconds` at most. A `spare` one may be called back: see `called_back`.
        """
        token = secrets.token_hex(8)
        (wait,) = await self._link.run(
            ENTER.call(
                self._keys.calls(flow),
                f"spare:{token}" if spare else token,
                round(held_seconds * 1000),
                most or 0,
                per_minute or 0,
            )
        )
        if type(wait) is not int:
            raise nonsense(TypeError(f"a {type(wait).__name__}"), "a place among a flow's calls")
        return token, wait / 1000

    async def called_back(self, flow: str, token: str) -> bool:
        """Whether somebody who asks waits for this spare place (or it has run out)."""
        calls, _ = self._keys.calls(flow)
        (score,) = await self._link.run(("ZSCORE", calls, f"spare:{token}"))
        return score is None

    async def stay(self, flow: str, token: str) -> None:
        """Keep a spare place as if somebody had asked for it, since somebody does by now."""
        calls, _ = self._keys.calls(flow)
        await self._link.run(STAY.call((calls,), token))

    async def leave(self, flow: str, token: str) -> None:
        """Free a place, of whichever kind."""
        calls, _ = self._keys.calls(flow)
        await self._link.run(("ZREM", calls, token, f"spare:{token}", f"called:{token}"))

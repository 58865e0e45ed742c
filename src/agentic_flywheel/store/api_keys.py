"""API keys: who may call the service, and how often.

Invariant: a secret is never stored, only the SHA-256 of it (256 random bits need no slow hash), and every use of a key
is decided by what Redis holds at that moment: a key that was revoked or has expired is refused by every process from
the next request on. Looking a key up and taking its token of the rate is one script. Digests are compared in Lua, where
equal strings are one object, so the time it takes tells nothing of them. The clock is the server's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from agentic_flywheel.callers import ApiKey, Scope
from agentic_flywheel.store.failures import NONSENSE, nonsense
from agentic_flywheel.store.keys import Keys
from agentic_flywheel.store.link import Command, Link, Script

#: How long a key that no longer opens anything is still listed.
KEPT_SECONDS = 90 * 86400
_FIELDS = ("name", "tenant", "user", "scopes", "created_at", "expires_at", "revoked_at", "rate", "used_at", "flows")

# Takes a token of a bucket that fills evenly and holds one minute's worth; leaves `wait` (ms) and `left`.
_SPEND = """
local function spend(bucket, per_minute, now)
    if per_minute <= 0 then return 0, -1 end
    local kept = redis.call('HMGET', bucket, 'tokens', 'at')
    local tokens = tonumber(kept[1]) or per_minute
    local since = now - (tonumber(kept[2]) or now)
    tokens = math.min(per_minute, tokens + math.max(since, 0) * per_minute / 60000)
    if tokens < 1 then return math.ceil((1 - tokens) * 60000 / per_minute), 0 end
    redis.call('HSET', bucket, 'tokens', tostring(tokens - 1), 'at', tostring(now))
    redis.call('PEXPIRE', bucket, 120000)
    return 0, math.floor(tokens - 1)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# A key's record, if the digest is its own, and a token of its rate if it is in force. The moment of its use is written
# down once a minute.
LOOK = Script(
    _SPEND
    + """
local fields = redis.call('HMGET', KEYS[1], 'digest', 'rate', 'expires_at', 'revoked_at', 'used_at')
if not fields[1] or fields[1] ~= ARGV[1] then return {} end
local dead = (fields[4] or '') ~= '' or ((fields[3] or '') ~= '' and tonumber(fields[3]) * 1000 <= now)
local wait, left = 0, -1
local per_minute = tonumber(fields[2] or '') or tonumber(ARGV[2])
if not dead then
    wait, left = spend(KEYS[2], per_minute, now)
    if now - (tonumber(fields[5] or '') or 0) * 1000 > 60000 then
        redis.call('HSET', KEYS[1], 'used_at', string.format('%.3f', now / 1000))
    end
end
local names = {}
for i = 3, #ARGV do names[#names + 1] = ARGV[i] end
return {redis.call('HMGET', KEYS[1], unpack(names)), dead and 1 or 0, wait, left, per_minute}
"""
)

# The same for callers that have no record here: only the rate.
SPEND = Script(_SPEND + "local wait, left = spend(KEYS[1], tonumber(ARGV[1]), now)\nreturn {wait, left}")

SCRIPTS = (LOOK, SPEND)


class Allowance(NamedTuple):
    """What is left of a rate: calls a minute (0: no limit), calls left at once, seconds to wait before the next."""

    per_minute: int
    left: int
    wait_seconds: float


class ApiKeyStore:
    """The keys of all tenants on one Redis: who presents one is known by it, before any tenant is."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def add(self, key: ApiKey, digest: str) -> None:
        """Keep a new key; it is listed before it can be used."""
        record, _ = self._keys.api_key(key.id)
        index: Command = ("ZADD", self._keys.api_keys, key.created_at, key.id)
        await self._link.run(index, slow=True)
        fields = [word for pair in {"digest": digest, **_words(key)}.items() for word in pair]
        commands: list[Command] = [("HSET", record, *fields)]
        if key.expires_at is not None:
            commands.append(("EXPIRE", record, int(key.expires_at - key.created_at) + KEPT_SECONDS))
        # Once more, since who listed the keys in between has struck off what had no record yet.
        await self._link.run(*commands, index, slow=True)

    async def listed(self) -> list[ApiKey]:
        """All keys, those that no longer open anything included for a while; newest first."""
        (ids,) = await self._link.run(("ZREVRANGE", self._keys.api_keys, 0, -1), slow=True)
        names = [raw.decode() for raw in ids]
        if not names:
            return []
        rows = await self._link.run(*(("HMGET", self._keys.api_key(id_)[0], *_FIELDS) for id_ in names), slow=True)
        found, gone = [], []
        for id_, row in zip(names, rows, strict=True):
            if row[0] is None:
                gone.append(id_)
            else:
                found.append(_key(id_, row))
        if gone:
            await self._link.run(("ZREM", self._keys.api_keys, *gone), slow=True)
        return found

    async def revoke(self, id_: str, *, at: float) -> None:
        """End a key now."""
        record, _ = self._keys.api_key(id_)
        await self._link.run(("HSET", record, "revoked_at", repr(at)), ("EXPIRE", record, KEPT_SECONDS))

    async def look(self, id_: str, digest: str, *, per_minute: int) -> tuple[ApiKey, bool, Allowance] | None:
        """A key, whether it is in force, and what is left of its rate (`per_minute` where it has none of its own).

        None where there is no such key with this digest. A key that has to wait took nothing.
        """
        call = LOOK.call(self._keys.api_key(id_), digest, per_minute, *_FIELDS)
        (reply,) = await self._link.run(call)
        if not reply:
            return None
        try:
            row, dead, wait, left, rate = reply
            return _key(id_, row), not dead, Allowance(int(rate), int(left), int(wait) / 1000)
        except NONSENSE as error:
            raise nonsense(error, "an API key") from error

    async def spend(self, who: str, *, per_minute: int) -> Allowance:
        """Take one call of the rate of somebody without a key here."""
        (reply,) = await self._link.run(SPEND.call((self._keys.rate(who),), per_minute))
        try:
            wait, left = reply
            return Allowance(per_minute, int(left), int(wait) / 1000)
        except NONSENSE as error:
            raise nonsense(error, "a rate") from error


def _words(key: ApiKey) -> dict[str, str]:
    return {
        "name": key.name,
        "tenant": key.tenant,
        "user": key.user or "",
        "scopes": " ".join(sorted(key.scopes)),
        "created_at": repr(key.created_at),
        "expires_at": "" if key.expires_at is None else repr(key.expires_at),
        "rate": "" if key.rate_per_minute is None else str(key.rate_per_minute),
        "flows": "" if key.flows is None else msgspec.json.encode(sorted(key.flows)).decode(),
    }


def _key(id_: str, row: Sequence[bytes | None]) -> ApiKey:
    """A record as it was read. Raises `StoreDamaged`."""
    try:
        name, tenant, user, scopes, created, expires, revoked, rate, used, flows = (
            (raw or b"").decode() for raw in row
        )
        return ApiKey(
            id=id_,
            name=name,
            tenant=tenant,
            user=user or None,
            scopes=frozenset(Scope(scope) for scope in scopes.split()),
            created_at=float(created),
            expires_at=float(expires) if expires else None,
            revoked_at=float(revoked) if revoked else None,
            rate_per_minute=int(rate) if rate else None,
            used_at=float(used) if used else None,
            flows=frozenset(msgspec.json.decode(flows, type=list[str])) if flows else None,
        )
    except NONSENSE as error:
        raise nonsense(error, "an API key") from error

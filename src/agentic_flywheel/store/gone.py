"""Which stored answers were forgotten, so that one that somebody puts back is not served again.

    afw:v1:T:flow:{F}    field `gone`: records of 12 bytes, 8 of a digest of who or what was forgotten, 4 of when

Invariant: what every question reads of its flow anyway says it, so knowing costs no round trip, and nothing where
nobody was forgotten. Ids stand there as 64 bits of BLAKE2b; at most `MOST` records are kept, the newest, for as long as
answers may live.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from agentic_flywheel.model import Entry
from agentic_flywheel.store.link import Command, Script

#: 256 records are 3 KB with every question of the flow.
MOST = 256
#: Longer than any answer is kept.
KEPT_SECONDS = 400 * 86_400
_RECORD = 12
_DIGEST = 8

# KEYS: flow. ARGV: how many records are kept, since when (epoch seconds), then records. Newer ones stand at the end.
REMEMBER = Script("""
local all = redis.call('HGET', KEYS[1], 'gone') or ''
for i = 3, #ARGV do all = all .. ARGV[i] end
local kept = {}
for i = 1, #all, 12 do
    local one = string.sub(all, i, i + 11)
    local a, b, c, d = string.byte(one, 9, 12)
    if d and ((a * 256 + b) * 256 + c) * 256 + d >= tonumber(ARGV[2]) then kept[#kept + 1] = one end
end
local most = tonumber(ARGV[1])
redis.call('HSET', KEYS[1], 'gone', table.concat(kept, '', math.max(1, #kept - most + 1)))
return #kept
""")


def records(
    *, users: Iterable[str] = (), sessions: Iterable[str] = (), turns: Iterable[str] = (), at: float
) -> list[bytes]:
    """What to remember of those whose answers were removed at a moment (epoch seconds)."""
    when = math.ceil(at).to_bytes(4, "big")
    named = [("user", one) for one in users] + [("session", one) for one in sessions] + [("turn", one) for one in turns]
    return [_digest(kind, id_) + when for kind, id_ in named if id_]


def remember_command(key: str, told: Sequence[bytes], *, now: float) -> Command:
    """What to send to remember records in a flow's hash."""
    return REMEMBER.call((key,), MOST, math.floor(now - KEPT_SECONDS), *told[-MOST:])


def is_gone(entry: Entry, raw: bytes) -> bool:
    """Whether an answer is one of those that the records `raw` say are forgotten: of that user, session or turn, and
    stored before.
    """
    named = (("user", entry.user), ("session", entry.session_id), ("turn", entry.turn_id))
    own = {_digest(kind, id_) for kind, id_ in named if id_}
    for place in range(0, len(raw) - _RECORD + 1, _RECORD):
        if raw[place : place + _DIGEST] in own:
            when = int.from_bytes(raw[place + _DIGEST : place + _RECORD], "big")
            if entry.created_at < when:
                return True
    return False


def _digest(kind: str, id_: str) -> bytes:
    return blake2b(f"{kind} {id_}".encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()

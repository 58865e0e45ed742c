"""What people said of the answers of a session.

Invariant: kept beside the session's turns and deleted with them; nothing is kept of a session that does not exist. The
same person says one thing of one answer under one name: what they say later takes its place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agentic_flywheel.errors import StoreDamaged
from agentic_flywheel.store.codec import decode, encode, place
from agentic_flywheel.store.keys import Keys, safe
from agentic_flywheel.store.link import Command, Link, Script
from agentic_flywheel.traced import Judgement

_log = logging.getLogger(__name__)

# KEYS: session, its judgements. ARGV: field, judgement. 1 where there is such a session.
JUDGE = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
""")

# KEYS: the judgements of a session. ARGV: what the fields of a turn begin with.
UNJUDGE = Script("""
local said = redis.call('HGETALL', KEYS[1])
for i = 1, #said, 2 do
    if string.sub(said[i], 1, #ARGV[1]) == ARGV[1] then redis.call('HDEL', KEYS[1], said[i]) end
end
return 1
""")

SCRIPTS = (JUDGE, UNJUDGE)


class Judgements:
    """The judgements of one tenant."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def put(self, session: str, judgement: Judgement) -> bool:
        """Keep a judgement; False where there is no such session."""
        key = self._keys.judgements(session)
        field = f"{safe(judgement.turn_id)}:{judgement.name}:{safe(judgement.by)}"
        command = JUDGE.call((self._keys.session(session), key), field, encode(judgement, place(key, field)))
        (kept,) = await self._link.run(command, slow=True)
        return bool(kept)

    async def of(self, sessions: Sequence[str]) -> dict[str, tuple[Judgement, ...]]:
        """The judgements of each session, oldest first; damaged ones are left out and logged. One round trip."""
        if not sessions:
            return {}
        replies = await self._link.run(*(("HGETALL", self._keys.judgements(one)) for one in sessions), slow=True)
        found: dict[str, tuple[Judgement, ...]] = {}
        for session, reply in zip(sessions, replies, strict=True):
            values = reply.values() if isinstance(reply, dict) else reply[1::2]
            read = []
            for raw in values:
                try:
                    read.append(decode(raw, Judgement))
                except StoreDamaged as error:
                    _log.warning("a judgement is left out: %s", error)
            found[session] = tuple(sorted(read, key=lambda one: one.at))
        return found


def unjudge_command(keys: Keys, session: str, turn: str) -> Command:
    """What to send to remove what was said of one turn."""
    return UNJUDGE.call((keys.judgements(session),), f"{safe(turn)}:")

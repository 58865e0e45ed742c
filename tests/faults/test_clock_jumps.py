"""The clocks of the askers jump by an hour, ahead and back, each by itself.

Order in a session is the server's, lifetimes and leases are the server's; so no jump can break a promise.
"""

from __future__ import annotations

import random
from pathlib import Path

from asker import made_at
from audit import read_ledgers
from campaign import ROUNDS, Askers, DurableServer, verdict

KILLS = 5
LIFETIME_SECONDS = 2
JITTER = 0.05


def test_promises_hold(durable: DurableServer, folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    settings = {
        "redis_url": durable.url,
        "ttl.technical_seconds": LIFETIME_SECONDS,
        "ttl.jitter": JITTER,
        "ttl.stale_seconds": 0,
    }
    with Askers(folder, seed, settings, clock_jumps=True) as askers:
        askers.start(3)
        for _ in range(KILLS * ROUNDS):
            askers.await_turns(draw.randint(50, 150), "r")
            durable.kill()
            askers.await_turns(draw.randint(10, 30), "o")
            durable.start()
        askers.await_turns(100, "r")
        counts = verdict(askers, folder, settings, durable.client()).counts
        assert counts["acknowledged"] == counts["turns"]
        said = read_ledgers(askers.ledger)
        # An answer was stored before its first asker had it, and the server forgets it a lifetime later.
        had_at = {made_at(one.answer): one.ended for one in said if one.outcome == "miss"}
        ages = [
            one.began - had_at[made_at(one.answer)]
            for one in said
            if one.outcome == "hit" and made_at(one.answer) in had_at
        ]
        assert ages
        assert max(ages) <= LIFETIME_SECONDS * (1 + JITTER)

"""The server is killed and started again, at random points, while several processes ask.

200 times in all: half of them here for each of two servers, so that two workers share the time.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from audit import audit, read_ledgers
from campaign import ROUNDS, Askers, DurableServer, settle

KILLS = 100


@pytest.mark.parametrize("half", ["first", "second"])
def test_nothing_acknowledged_is_lost(durable: DurableServer, tmp_path: Path, seed: int, half: str) -> None:
    draw, settings = random.Random(f"{seed} {half}"), {"redis_url": durable.url}
    with Askers(tmp_path, seed, settings) as askers:
        askers.start(3)
        askers.await_turns(30)
        for _ in range(KILLS * ROUNDS):
            if draw.random() < 0.75:  # most fall when all is well, ...
                askers.await_turns(draw.randint(1, 25), "r")
            else:  # ... some while the outbox is filled, or delivered
                askers.await_turns(draw.randint(1, 20))
            durable.kill()
            if draw.random() < 0.5:
                askers.await_turns(draw.randint(1, 10))
            durable.start()
        askers.await_turns(30, "r")
        askers.stop()
        outbox = settle(tmp_path, settings)
        findings = audit(durable, read_ledgers(askers.ledger))
        print(half, findings.counts, outbox)
        assert not findings.faults()
        assert (outbox.waiting, outbox.rejected, outbox.lost, outbox.unreadable) == (0, 0, 0, ())
        assert findings.counts["acknowledged"] == findings.counts["turns"]
        assert findings.counts["by the outbox"]

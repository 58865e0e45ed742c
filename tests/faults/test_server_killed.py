"""The server is killed and started again, at random points, while several processes ask.

200 times in all where every command is on disk before it is answered (`appendfsync always`): 100 times each on two
servers, so that two workers share the time. Then the embedded server, which the askers start again themselves.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from audit import read_ledgers
from campaign import ROUNDS, Askers, DurableServer, EmbeddedData, verdict

KILLS = 100
EMBEDDED_KILLS = 20
#: With `appendfsync everysec`, what was answered so long before a crash may not have left the server's memory: it
#: writes before it answers, but not while a slow fsync runs, which it bears with for two seconds.
UNWRITTEN_SECONDS = 2.0


@pytest.mark.parametrize("part", range(2 * ROUNDS))
def test_nothing_acknowledged_is_lost(durable: DurableServer, folder: Path, seed: int, part: int) -> None:
    draw, settings = random.Random(f"{seed} {part}"), {"redis_url": durable.url}
    with Askers(folder, seed, settings) as askers:
        askers.start(3)
        askers.await_turns(30)
        for _ in range(KILLS):
            if draw.random() < 0.75:  # most fall when all is well, ...
                askers.await_turns(draw.randint(1, 25), "r")
            else:  # ... some while the outbox is filled, or delivered
                askers.await_turns(draw.randint(1, 20))
            durable.kill()
            if draw.random() < 0.5:
                askers.await_turns(draw.randint(1, 10))
            durable.start()
        askers.await_turns(30, "r")
        counts = verdict(askers, folder, settings, durable.client()).counts
        assert counts["acknowledged"] == counts["turns"]
        assert counts["by the outbox"]


def test_the_embedded_server_keeps_what_it_promises(embedded: EmbeddedData, folder: Path, seed: int) -> None:
    """`everysec`: what was acknowledged in the last two seconds before a crash may be lost, and nothing else."""
    draw, kills = random.Random(seed), []
    with Askers(folder, seed, {}) as askers:
        askers.start(3)
        for _ in range(EMBEDDED_KILLS * ROUNDS):
            askers.await_turns(draw.randint(1, 40), "r")
            kills.append(time.monotonic())
            embedded.kill()
        askers.await_turns(30, "r")
        said = read_ledgers(askers.ledger)
        # When a turn of the outbox was delivered is not known here.
        unwritten = [one for one in said if one.waits or any(0 <= k - one.ended < UNWRITTEN_SECONDS for k in kills)]
        counts = verdict(askers, folder, {}, embedded.client(), may_lose=unwritten).counts
        assert counts["acknowledged"] == counts["turns"]

"""Askers are killed at random points: no half turn, no lease that stays, an outbox that stays whole."""

from __future__ import annotations

import random
from pathlib import Path

from agentic_flywheel.store.keys import Keys
from asker import TENANT
from campaign import DEADLINE_SECONDS, ROUNDS, Askers, DurableServer, EmbeddedData, verdict
from servers import wait_until

KILLS = 15


def test_the_embedded_server_does_not_notice(embedded: EmbeddedData, folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    with Askers(folder, seed, {}, flow_seconds=0.05) as askers:
        askers.start(3)
        askers.await_turns(10, "r")
        server = embedded.pid
        for _ in range(KILLS * ROUNDS):
            askers.await_turns(draw.randint(1, 60))
            askers.kill(draw.choice(askers.names))
            askers.start()
        askers.await_turns(30, "r")
        counts = verdict(askers, folder, {}, embedded.client()).counts
        assert counts["acknowledged"] == counts["turns"]
        assert embedded.pid == server
        with embedded.client() as client:
            leases = f"{Keys(TENANT).root}:lease:*"
            # What the dead held runs out by itself.
            wait_until(
                lambda: not [key for key in client.scan_iter(leases) if client.type(key) == b"string"],
                "the leases of the dead to run out",
                DEADLINE_SECONDS,
            )


def test_the_outbox_stays_whole(durable: DurableServer, folder: Path, seed: int) -> None:
    draw, settings = random.Random(seed), {"redis_url": durable.url}
    with Askers(folder, seed, settings) as askers:
        askers.start(3)
        askers.await_turns(30, "r")
        for number in range(KILLS * ROUNDS):
            if number % 3 == 0:
                durable.kill()
                askers.await_turns(draw.randint(1, 20), "o")  # the outbox is written, ...
            elif number % 3 == 2:
                durable.start()  # ... and delivered
            askers.await_turns(draw.randint(1, 15))
            askers.kill(draw.choice(askers.names))
            askers.start()
        durable.start()
        askers.await_turns(30, "r")
        counts = verdict(askers, folder, settings, durable.client()).counts
        assert counts["acknowledged"] == counts["turns"]
        assert counts["by the outbox"]

"""The connection to the server fails in every way that a connection can, while several processes ask."""

from __future__ import annotations

import random
import time
from pathlib import Path

from campaign import DEADLINE_SECONDS, ROUNDS, Askers, DurableServer, verdict
from proxy import Fault, Proxy
from servers import wait_until

TIMES = 3
STALL_SECONDS = 2.0


def test_nothing_is_lost_or_mistaken(durable: DurableServer, folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    with Proxy(durable.port, seed) as proxy, Askers(folder, seed, {"redis_url": proxy.url}) as askers:
        askers.start(3)
        askers.await_turns(30, "r")
        for _ in range(TIMES * ROUNDS):
            for fault in draw.sample(list(Fault), len(Fault)):
                struck, since = proxy.struck[fault], time.monotonic()
                proxy.become(fault)
                askers.await_turns(draw.randint(1, 60))
                if fault is not Fault.NONE:
                    wait_until(lambda f=fault, s=struck: proxy.struck[f] > s, f"{fault} to strike", DEADLINE_SECONDS)
                if fault is Fault.STALL:
                    wait_until(lambda s=since: time.monotonic() - s > STALL_SECONDS, "two seconds to pass")
                proxy.become(Fault.NONE)
                askers.await_turns(draw.randint(1, 10), "r")
        counts = verdict(askers, folder, {"redis_url": proxy.url}, durable.client()).counts
        print({fault.value: times for fault, times in proxy.struck.items()})
        assert counts["acknowledged"] == counts["turns"]
        assert counts["by the outbox"]

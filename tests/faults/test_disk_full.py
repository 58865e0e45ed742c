"""The server is away and the disk is full: questions are answered, and nothing is called kept that is not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from campaign import ROUNDS, Askers, DurableServer, verdict

TIMES = 2
FILE_LIMIT = 100_000


@pytest.mark.parametrize(
    ("orders", "more"),
    [({"file_limit": FILE_LIMIT}, {}), ({"tasks": 8}, {"outbox.max_megabytes": 1})],
    ids=["no room on the disk", "the outbox's own limit"],
)
def test_what_is_called_kept_is_kept(
    durable: DurableServer, folder: Path, seed: int, orders: dict[str, Any], more: dict[str, Any]
) -> None:
    draw, settings = random.Random(seed), {"redis_url": durable.url, **more}
    with Askers(folder, seed, settings, pause_seconds=0.01, **orders) as askers:
        askers.start(2)
        for _ in range(TIMES * ROUNDS):
            askers.await_turns(draw.randint(10, 40), "r")
            durable.kill()
            askers.await_turns(draw.randint(1, 60), "n")
            durable.start()
        askers.await_turns(30, "r")
        counts = verdict(askers, folder, settings, durable.client()).counts
        assert counts["by the outbox"]
        assert counts["turns"] - counts["acknowledged"] == askers.heard("n") > 0

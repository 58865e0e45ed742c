"""The seed of a campaign, and the server that it is waged against."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from campaign import DurableServer


@pytest.fixture
def seed() -> int:
    """Where all that is random here comes from; printed where a test fails. `AFW_FAULTS_SEED` gives it again."""
    chosen = int(os.environ.get("AFW_FAULTS_SEED") or random.randrange(10**6))
    print(f"AFW_FAULTS_SEED={chosen}")
    return chosen


@pytest.fixture
def durable() -> Iterator[DurableServer]:
    """A server that has every command on disk before it answers (`appendfsync always`)."""
    server = DurableServer()
    server.start()
    yield server
    server.close()

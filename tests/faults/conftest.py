"""The seed of a campaign, and the server that it is waged against."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaign import DurableServer, EmbeddedData


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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a path that is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="afw-faults-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def embedded(folder: Path) -> Iterator[EmbeddedData]:
    """What the askers make of `folder` when they are given no server."""
    data = EmbeddedData(folder)
    yield data
    data.close()

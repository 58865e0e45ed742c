"""What all tests share: asyncio, and real Redis servers of several versions (see servers.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from agentic_flywheel.errors import WeightsMissing
from agentic_flywheel.settings import load_settings
from histories import INDEXES, Home, home_of
from servers import MATRIX, PASSWORD, Server, Servers

#: A busy test machine is not an outage: tests of impatience say how impatient.
os.environ.setdefault("AFW_REDIS_COMMAND_TIMEOUT_SECONDS", "5")
#: What this machine has of models plays no part: tests of similar questions name what they use.
os.environ.setdefault("AFW_EMBEDDER_MODEL", "off")
#: How long an example takes says nothing: the machine is shared.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one `xdist_group` run in one worker, so that what they share is made once.

    xdist 3.8 writes a group into `_nodeid`, where pytest 9.2 does not look any more.
    """
    from _pytest.nodeid import coerce_node_id

    for item in items:
        if named := vars(item).get("_nodeid"):
            item._id = coerce_node_id(named)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """All servers of this worker; `servers.get(name)` gives one, running and empty."""
    matrix = Servers()
    yield matrix
    matrix.close()


def _lent(server: Server) -> Iterator[Server]:
    """The server for one test, which fails if it leaves keys behind that would live for ever."""
    yield server
    if server.running and (leaked := server.leaks()):
        pytest.fail(f"keys without expiry that are not on the list in servers.py: {leaked}")


@pytest.fixture(params=MATRIX)
def redis_server(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Server]:
    """Every server in turn, empty; `.url` is its unix socket."""
    yield from _lent(servers.get(request.param))


@pytest.fixture
def valkey(servers: Servers) -> Iterator[Server]:
    """The server that ships with the product, for tests in which the version plays no part."""
    yield from _lent(servers.get("valkey9"))


@pytest.fixture(params=MATRIX)
def redis_tcp(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """Every server in turn, as a `redis://` URL on 127.0.0.1."""
    for server in _lent(servers.get(request.param)):
        yield server.tcp_url()


@pytest.fixture(params=MATRIX)
def redis_password(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Server]:
    """Every server in turn, with a password full of characters that URLs give a meaning to."""
    yield from _lent(servers.get(request.param, PASSWORD))


@pytest.fixture
def model() -> None:
    """The real model, or no test."""
    from agentic_flywheel.search.embedders.minilm import open_minilm

    try:
        open_minilm(load_settings(), int8=False).close()
    except WeightsMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"{error}: `make embedder` fetches it")
        pytest.skip("the model has not been fetched: make embedder")


@pytest.fixture(params=INDEXES)
def home(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Home]:
    """Every index of history in turn, on a server that has what it needs."""
    found = home_of(request.param, servers, tmp_path)
    for _ in _lent(found.server):
        yield found

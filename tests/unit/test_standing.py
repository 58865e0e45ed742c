"""What is known of a flow's standing without asking anybody is what asking would say, or nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agentic_flywheel.flows.protocol import FlowSpec, Revision
from agentic_flywheel.model import FlowState
from agentic_flywheel.policy.identity import fingerprint_of
from agentic_flywheel.settings import load_settings
from agentic_flywheel.watching import FlowWatch

pytestmark = pytest.mark.anyio

SPEC = FlowSpec(key="docs", id="docs", kind="flowise", base_url="http://127.0.0.1:9")
NOW = 1_000_000.0


class Asked:
    """A flow at a service, and the place where changes of it are recorded: both say when they are turned to."""

    revision_is_remote = True

    def __init__(self) -> None:
        self.times = 0

    async def revision(self, _before: Revision) -> Revision:
        self.times += 1
        return Revision("new", "")

    async def observe(self, *_: Any, **__: Any) -> int:
        self.times += 1
        return 2

    def use(self, _spec: FlowSpec) -> Asked:
        return self

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: Any) -> None:
        return None


def state_of(watch: FlowWatch, age: float, **other: Any) -> FlowState:
    known = {"fingerprint": fingerprint_of(watch.config_digest(SPEC), "r1"), "generation": 1, "revision": "r1"}
    return FlowState(**(known | {"checked_at": NOW - age} | other))


@pytest.mark.parametrize(
    ("age", "other", "known"),
    [
        (0.0, {}, True),
        (4.9, {}, True),
        (5.1, {}, False),  # due to be looked at in the background
        (11.0, {}, False),
        (-1.0, {}, False),
        (1.0, {"fingerprint": "another"}, False),
        (1.0, {"revision": "another"}, False),
        (0.0, {"checked_at": 0.0}, False),
    ],
)
async def test_it_is_known_where_nobody_is_asked(age: float, other: dict[str, Any], known: bool) -> None:
    settings = load_settings({"flow.check_every_seconds": 10.0}, environ={"AFW_CONFIG_DIR": "/nonexistent"})
    client: Any = Asked()
    watch = FlowWatch(settings, client, client)
    state = state_of(watch, age, **other)
    found = watch.known(SPEC, client, state, now=NOW)
    asked = await watch.standing(SPEC, client, state, now=NOW)
    await watch.aclose()
    assert (found is not None) == known
    if known:
        assert found == asked
        assert client.times == 0


async def test_what_is_in_this_process_is_always_asked() -> None:
    settings = load_settings({}, environ={"AFW_CONFIG_DIR": "/nonexistent"})
    nobody: Any = SimpleNamespace()
    watch = FlowWatch(settings, nobody, nobody)
    client: Any = SimpleNamespace(revision_is_remote=False)
    assert watch.known(SPEC, client, state_of(watch, 1.0), now=NOW) is None

"""Similar questions on a real cluster: vectors spread over it, and what is written together lies together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentic_flywheel.likeness import CutChange, Profile, Report, ReportKind
from agentic_flywheel.model import Outcome, Reason, Turn
from agentic_flywheel.settings import load_settings
from agentic_flywheel.store.store import Store
from clusters import ClusterOfSix

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("cluster")]

E, P = "e" * 32, "0" * 32


@pytest.fixture(scope="module")
def six() -> Iterator[ClusterOfSix]:
    cluster = ClusterOfSix()
    yield cluster
    cluster.close()


@pytest.fixture
async def store(six: ClusterOfSix) -> AsyncIterator[Store]:
    six.heal()
    patient = {"redis.command_timeout_seconds": 10.0, "redis.connect_timeout_seconds": 10.0}
    store = Store(load_settings({"redis_url": six.url, **patient}, environ={}, directory=Path("/")))
    yield store
    await store.aclose()


async def test_vectors_spread_and_are_learnt_in_one_round_trip(six: ClusterOfSix, store: Store) -> None:
    keys = [store.keys.entry("team", "f", f"{number:032x}") for number in range(200)]
    for key in keys:
        await store.vectors.put(E, P, key, b"\0\x3c" * 8, seconds=100, now=time.time())
    assert min(member.ask("DBSIZE") for member in six.primaries()) > 20
    found = await store.vectors.news(E, P, ())
    assert sorted(item.key for item in found.items) == sorted(keys)
    before = store.link.round_trips
    assert (await store.vectors.news(E, P, found.places)).items == ()
    assert store.link.round_trips == before + 1
    assert await store.vectors.remove(E, P, keys) == 200
    assert (await store.vectors.news(E, P, ())).items == ()


async def test_a_cluster_has_no_engine(store: Store) -> None:
    assert not await store.vectors.has_engine()
    assert store.link.round_trips == 0, "it is not even asked"


async def test_labels_cuts_reports_and_turns(store: Store) -> None:
    for flow in ("one", "two", "three", "four"):
        await store.similar.set_override(flow, profile=Profile.FAQ)
        state = await store.similar.record(flow, E, {"miss:97:right": 2})
        change = CutChange(at=1.0, old=None, new=0.97, why="labels")
        assert await store.similar.set_cut(flow, E, version=state.version, cut=0.97, change=change)
        await store.similar.block(flow, "pair")
        state = await store.similar.state(flow, E, ["pair"])
        assert (state.cut, state.profile, state.blocked) == (0.97, Profile.FAQ, (True,))
        assert state.evidence == {"miss:97:right": 2}
        assert await store.similar.changes(flow, E) == [change]
        await store.similar.reset(flow, E)
        report = Report(id=flow, kind=ReportKind.WRONG, turn_id="t", session_id="s", flow=flow, question="q")
        await store.similar.add_report(report)
    assert [one.flow for one in await store.similar.reports(10)] == ["four", "three", "two", "one"]


async def test_the_session_of_a_turn(store: Store) -> None:
    for number in range(40):
        await store.sessions.append(
            Turn(
                id=f"t{number}",
                session_id=f"s{number}",
                at=1.0,
                question="q",
                answer="a",
                flow="f",
                fingerprint="p",
                outcome=Outcome.MISS,
                reason=Reason.NOT_STORED,
                trace_id="x",
            )
        )
    assert await store.sessions.find("t33") == "s33"
    await store.link.run(*(("UNLINK", feed) for feed in store.keys.feeds()))
    assert await store.sessions.find("t7") == "s7"
    assert await store.sessions.find("t40") is None

"""Similar questions as all processes share them: no label is lost, and no cut outlives its evidence."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from agentic_flywheel.errors import StoreDamaged, StoreError, StoreMisused
from agentic_flywheel.likeness import (
    CutChange,
    Profile,
    Proposal,
    Report,
    ReportKind,
    SimilarMode,
    SimilarState,
)
from agentic_flywheel.store.store import Store
from servers import Server
from stores import stored

pytestmark = pytest.mark.anyio

E = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


def change(new: float | None = 0.97, **fields: Any) -> CutChange:
    return CutChange(**{"at": 1_700_000_000.5, "old": None, "new": new, "why": "é: 30 labels", **fields})


def report(number: int, **fields: Any) -> Report:
    whole: dict[str, Any] = {
        "id": f"r{number}",
        "kind": ReportKind.WRONG,
        "turn_id": f"t{number}",
        "session_id": "s",
        "flow": "f",
        "question": "Où est-ce ?",
        "at": float(number),
    }
    return Report(**{**whole, **fields})


def proposal(id_: str = "p", **fields: Any) -> Proposal:
    whole = {"flow": "f", "setting": "profile", "now": "strict", "proposed": "faq", "evidence": "300 labels", "at": 1.0}
    return Proposal(id=id_, **{**whole, **fields})


async def test_nothing_is_known_at_first_and_nothing_is_served(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.similar.state("f", E) == SimilarState()
        assert await store.similar.state("f", E, ["a", "b"]) == SimilarState(blocked=(False, False))
        assert await store.similar.changes("f", E) == []
        assert await store.similar.reports(10) == []
        assert await store.similar.proposals() == []


async def test_labels_add_up_by_flow_and_embedder(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.similar.set_override("f", profile=Profile.FAQ)
        before = await store.similar.record("f", E, {"miss:97:right": 1})
        after = await store.similar.record("f", E, {"miss:97:right": 2, "audit:98:wrong": 1})
        assert after.evidence == {"miss:97:right": 3, "audit:98:wrong": 1}
        assert after.version == before.version + 1
        assert after.profile is Profile.FAQ
        assert await store.similar.state("f", E) == after
        assert (await store.similar.state("f", OTHER)).evidence == {}
        assert (await store.similar.state("g", E)) == SimilarState()


async def test_a_cut_is_taken_for_the_version_it_was_reckoned_from(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        known = await store.similar.record("f", E, {"miss:97:right": 1})
        await store.similar.record("f", E, {"miss:97:wrong": 1})
        assert not await store.similar.set_cut("f", E, version=known.version, cut=0.97, change=change())
        state = await store.similar.state("f", E)
        assert state.cut is None
        assert await store.similar.changes("f", E) == []
        assert await store.similar.set_cut("f", E, version=state.version, cut=0.97, change=change())
        assert (await store.similar.state("f", E)).cut == 0.97
        assert await store.similar.changes("f", E) == [change()]


async def test_a_cut_that_serves_less_is_taken_whatever_the_version(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.similar.set_cut("f", E, version=0, cut=0.95, change=change(0.95))
        await store.similar.record("f", E, {"miss:97:wrong": 1})
        assert await store.similar.set_cut("f", E, version=0, cut=0.98, change=change(0.98, old=0.1))
        assert (await store.similar.state("f", E)).cut == 0.98
        assert not await store.similar.set_cut("f", E, version=0, cut=0.95, change=change(0.95))
        assert await store.similar.set_cut("f", E, version=0, cut=None, change=change(None))
        assert (await store.similar.state("f", E)).cut is None
        assert not await store.similar.set_cut("f", E, version=0, cut=0.99, change=change(0.99)), "closed is tightest"
        # What is written down as the cut before is the one that was in force, whatever the caller believed.
        assert [(c.old, c.new) for c in await store.similar.changes("f", E)] == [
            (0.98, None),
            (0.95, 0.98),
            (None, 0.95),
        ]


async def test_a_cut_that_is_in_force_is_not_written_down_again(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for _ in range(3):
            assert await store.similar.set_cut("f", E, version=0, cut=0.97, change=change())
        assert len(await store.similar.changes("f", E)) == 1


async def test_the_last_200_changes_are_kept(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        for number in range(205):
            assert await store.similar.set_cut("f", E, version=0, cut=number / 1000, change=change(number / 1000))
        changes = await store.similar.changes("f", E)
        assert [c.new for c in changes] == [number / 1000 for number in range(204, 4, -1)]


async def test_a_decision_of_people_voids_cuts_that_were_reckoned_before(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        known = await store.similar.record("f", E, {"miss:97:right": 1})
        await store.similar.set_override("f", max_error=0.005)
        assert not await store.similar.set_cut("f", E, version=known.version, cut=0.97, change=change())
        assert (await store.similar.state("f", E)).cut is None


async def test_overrides_are_set_one_by_one_and_taken_back(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.similar.set_override("f", profile=Profile.BALANCED, mode=SimilarMode.FIXED, max_error=0.02)
        await store.similar.set_override("f", mode=SimilarMode.OFF)
        state = await store.similar.state("f", E)
        assert (state.profile, state.mode, state.max_error) == (Profile.BALANCED, SimilarMode.OFF, 0.02)
        await store.similar.set_override("f", profile=None, max_error=None)
        state = await store.similar.state("f", E)
        assert (state.profile, state.mode, state.max_error) == (None, SimilarMode.OFF, None)
        await store.similar.set_override("f")
        assert await store.similar.state("f", E) == state


async def test_a_reset_forgets_labels_and_cut_and_no_cut_from_before_comes_back(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        known = await store.similar.record("f", E, {"miss:97:right": 30})
        await store.similar.set_cut("f", E, version=known.version, cut=0.97, change=change())
        await store.similar.block("f", "pair")
        await store.similar.reset("f", E, change(None, why="forgotten"))
        state = await store.similar.state("f", E, ["pair"])
        assert (state.cut, state.evidence, state.blocked) == (None, {}, (True,))
        assert state.version > known.version
        assert not await store.similar.set_cut("f", E, version=known.version, cut=0.97, change=change())
        newest, _ = await store.similar.changes("f", E)
        assert (newest.old, newest.new, newest.why) == (0.97, None, "forgotten")
        await store.similar.reset("f", E, change(None))
        assert len(await store.similar.changes("f", E)) == 2, "a cut that was closed does not change"
        assert store.similar.damaged == 0


async def test_blocked_pairs_are_found_among_those_asked_about(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.similar.block("f", "one")
        assert not await store.similar.block("f", "one")
        assert (await store.similar.state("f", E, ["zero", "one", "two"])).blocked == (False, True, False)
        assert (await store.similar.state("g", E, ["one"])).blocked == (False,)


async def test_everything_is_read_in_one_round_trip(valkey: Server) -> None:
    async with stored(valkey) as store:
        await store.similar.state("f", E)
        before = store.link.round_trips
        await store.similar.state("f", E, ["a", "b"])
        assert store.link.round_trips == before + 1


def cut_of(state: SimilarState) -> float | None:
    """A rule that opens and closes as labels come in: enough to tell a cut from another version's."""
    total = sum(state.evidence.values())
    return None if total % 5 == 0 else 1 - total / 1000


async def test_no_label_is_lost_and_the_last_cut_is_that_of_all_labels(redis_server: Server) -> None:
    """Many askers of two processes label and move the cut at the same time."""

    async def learn(store: Store, number: int) -> None:
        state = await store.similar.record("f", E, {f"miss:{number % 7}:right": 1})
        while True:
            cut = cut_of(state)
            if await store.similar.set_cut("f", E, version=state.version, cut=cut, change=change(cut)):
                return
            state = await store.similar.state("f", E)

    async with stored(redis_server) as one, stored(redis_server) as other:
        await asyncio.gather(*(learn((one, other)[number % 2], number) for number in range(203)))
        state = await one.similar.state("f", E)
        assert sum(state.evidence.values()) == state.version == 203
        # Whoever was last either put its own cut in force, or found a more careful one of somebody before it.
        expected = cut_of(state)
        assert expected is not None
        assert state.cut is None or state.cut >= expected
        known = await other.similar.state("f", E)
        assert await other.similar.set_cut("f", E, version=known.version, cut=cut_of(known), change=change())
        assert (await one.similar.state("f", E)).cut == cut_of(state)
        changes = await one.similar.changes("f", E)
        assert all(newer.old == older.new for newer, older in pairwise(changes))


async def test_a_wrong_label_is_never_undone_by_a_cut_from_before_it(redis_server: Server) -> None:
    """Half of the processes have seen right labels only; the one that saw the wrong one closes the cut for good."""
    async with stored(redis_server) as store:
        seen = [await store.similar.record("f", E, {"miss:97:right": 1}) for _ in range(20)]
        wrong = await store.similar.record("f", E, {"audit:97:wrong": 1})
        closing = store.similar.set_cut("f", E, version=wrong.version, cut=None, change=change(None))
        opening = (store.similar.set_cut("f", E, version=state.version, cut=0.97, change=change()) for state in seen)
        closed, *opened = await asyncio.gather(closing, *opening)
        assert closed
        assert not any(opened)
        assert (await store.similar.state("f", E)).cut is None


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("evidence", "cut", "high"),
        ("evidence", "version", "x"),
        ("evidence", "miss:97:right", "many"),
        ("similar", "profile", "reckless"),
        ("similar", "mode", "\xff"),
        ("similar", "max_error", "little"),
    ],
)
async def test_a_damaged_state_says_so_and_can_be_put_right(valkey: Server, key: str, field: str, value: str) -> None:
    async with stored(valkey) as store:
        await store.similar.record("f", E, {"miss:97:right": 1})
        name = store.keys.similar("f") if key == "similar" else store.keys.evidence("f", E)
        await store.link.run(("HSET", name, field, value))
        with pytest.raises(StoreDamaged, match="similar questions"):
            await store.similar.state("f", E)
        if field != "version":
            with pytest.raises(StoreDamaged):
                await store.similar.record("f", E, {"miss:98:right": 1})
        await store.similar.set_override("f", profile=None, mode=None, max_error=None)
        if field != "version":
            await store.similar.reset("f", E)
            assert (await store.similar.state("f", E)).evidence == {}


async def test_keys_of_another_type_are_refused(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        await store.link.run(("SADD", store.keys.evidence("f", E), "x"))
        with pytest.raises(StoreMisused):
            await store.similar.state("f", E)
        with pytest.raises(StoreError):
            await store.similar.record("f", E, {"miss:97:right": 1})


async def test_damaged_changes_are_left_out_and_counted(valkey: Server) -> None:
    async with stored(valkey) as store:
        await store.similar.set_cut("f", E, version=0, cut=0.97, change=change())
        await store.link.run(("LPUSH", store.keys.cut_changes("f", E), "{nonsense"))
        assert await store.similar.changes("f", E) == [change()]
        assert store.similar.damaged == 1


async def test_reports_come_newest_first_and_by_flow(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        reports = [report(number, flow=("f", "g")[number % 2]) for number in range(450)]
        for one in reports:
            await store.similar.add_report(one)
        assert await store.similar.reports(3) == reports[:-4:-1]
        assert await store.similar.reports(1000) == reports[::-1]
        assert await store.similar.reports(300, "g") == reports[::-2]
        assert await store.similar.reports(1, "h") == []


async def test_a_report_that_was_sent_twice_counts_once(valkey: Server) -> None:
    async with stored(valkey) as store:
        await store.similar.add_report(report(1))
        await store.similar.add_report(report(1))
        assert await store.similar.reports(10) == [report(1)]


async def test_damaged_reports_and_proposals_are_left_out_and_counted(valkey: Server) -> None:
    async with stored(valkey) as store:
        await store.similar.add_report(report(1))
        await store.similar.put_proposal(proposal())
        await store.link.run(
            ("XADD", store.keys.reports, "*", "r", b"\x01\x00damaged"),
            ("XADD", store.keys.reports, "*", "other", "field"),
            ("HSET", store.keys.proposals, "x", "damaged"),
        )
        assert await store.similar.reports(10) == [report(1)]
        assert await store.similar.proposals() == [proposal()]
        assert store.similar.damaged == 3
        with pytest.raises(StoreDamaged):
            await store.similar.decide_proposal("x", "accepted", by="ana", reason="", at=1.0)


async def test_a_proposal_is_kept_once_and_decided_once(redis_server: Server) -> None:
    async with stored(redis_server) as store:
        assert await store.similar.put_proposal(proposal("a", at=1.0))
        assert await store.similar.put_proposal(proposal("b", at=2.0))
        assert not await store.similar.put_proposal(proposal("a", at=3.0))
        assert [one.id for one in await store.similar.proposals()] == ["b", "a"]
        decided = await store.similar.decide_proposal("a", "rejected", by="ana", reason="not yet", at=9.0)
        expected = proposal("a", state="rejected", decided_at=9.0, decided_by="ana", reason="not yet")
        assert decided == expected
        assert await store.similar.proposals() == [proposal("b", at=2.0), expected]
        assert await store.similar.decide_proposal("a", "accepted", by="bob", reason="", at=10.0) is None
        assert await store.similar.decide_proposal("c", "accepted", by="bob", reason="", at=10.0) is None
        assert not await store.similar.put_proposal(proposal("a")), "a decision is not forgotten"


async def test_of_many_who_decide_at_once_one_does(redis_server: Server) -> None:
    async with stored(redis_server) as one, stored(redis_server) as other:
        await one.similar.put_proposal(proposal())
        deciding = (
            (one, other)[number % 2].similar.decide_proposal("p", "accepted", by=f"u{number}", reason="", at=1.0)
            for number in range(40)
        )
        decided = [found for found in await asyncio.gather(*deciding) if found is not None]
        assert decided == await one.similar.proposals()
        assert len(decided) == 1


async def test_tenants_share_nothing(valkey: Server) -> None:
    async with stored(valkey) as one, stored(valkey, "other") as other:
        await one.similar.record("f", E, {"miss:97:right": 1})
        await one.similar.block("f", "pair")
        await one.similar.add_report(report(1))
        await one.similar.put_proposal(proposal())
        assert await other.similar.state("f", E, ["pair"]) == SimilarState(blocked=(False,))
        assert await other.similar.reports(10) == []
        assert await other.similar.proposals() == []

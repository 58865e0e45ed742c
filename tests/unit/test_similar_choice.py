"""Which similar question's answer is served: everything an exact one must pass, guards, people, the cut."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from agentic_flywheel.likeness import Cut, GuardVerdict, Profile, SimilarMode, Terms
from agentic_flywheel.model import Directives, Entry, Lifetime, Reason
from agentic_flywheel.policy.decision import Facts, Wanted
from agentic_flywheel.policy.similarity.budget import Standing
from agentic_flywheel.policy.similarity.choice import Prospect, choose, name_in, pair_of, partition_of, same_place

PLACE = "afw:v1:t:team:flow:f:q:"
WANTED = Wanted(key=PLACE + "{" + "0" * 32 + "}", scope="team", question="how do i reset it", identity="")
TERMS = Terms(mode=SimilarMode.FIXED, profile=Profile.STRICT, floor=0.97, max_error=0.01, audit_share=0.05)
CUT = Cut(value=0.97, why="fixed at the floor")
CUTS = dict.fromkeys(Standing, CUT)
FINE = (GuardVerdict("numbers", True),)
FACTS = Facts(
    directives=Directives(),
    found=(),
    fingerprint="fp",
    generation=3,
    lifetime=Lifetime(ttl=timedelta(seconds=100)),
    now=50.0,
)
ENTRY = Entry(
    question="how can i reset it",
    identity="",
    answer="press the button",
    flow="f",
    flow_id="f",
    flow_name="f",
    fingerprint="fp",
    generation=3,
    created_at=0.0,
    ttl_seconds=100.0,
    trace_id="t",
    turn_id="u",
    asked="How can I reset it?",
    alone=True,
)


def prospect(similarity: float = 0.98, number: int = 1, **changes: Any) -> Prospect:
    entry = msgspec.structs.replace(ENTRY, **changes)
    return Prospect(key=f"{PLACE}{{{number:032x}}}", similarity=similarity, entry=entry, guards=FINE)


def test_the_nearest_that_passes_is_served() -> None:
    choice = choose([prospect(0.99), prospect(0.98, 2)], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert choice.serve is not None
    assert choice.serve.reason is Reason.SIMILAR
    assert choice.serve.entry.answer == "press the button"
    assert choice.serve.ttl_seconds == pytest.approx(50.0)
    assert [considered.served for considered in choice.considered] == [True, False]
    assert choice.considered[1].why == "a nearer one is served"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fingerprint": "other"}, "another configuration"),
        ({"generation": 2}, "cleared"),
        ({"ttl_seconds": 40.0}, "past its lifetime"),
        ({"identity": "asked with overrides"}, "the same place"),
        ({"alone": False}, "the same place"),
        ({"withdrawn": "private"}, "private"),
    ],
)
def test_an_answer_that_an_exact_question_would_not_get_is_not_served(changes: dict[str, Any], why: str) -> None:
    choice = choose([prospect(1.0, **changes)], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert choice.serve is None
    assert choice.nearest is None, "and it teaches nothing about the cut"
    assert why in choice.considered[0].why


def test_what_is_gone_is_neither_served_nor_learnt_from() -> None:
    gone = Prospect(key=PLACE + "{" + "1" * 32 + "}", similarity=1.0, entry=None)
    choice = choose([gone], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert (choice.serve, choice.nearest) == (None, None)


def test_a_guard_refuses_however_near_and_a_farther_one_that_passes_is_served() -> None:
    refused = (GuardVerdict("numbers", False, "asked: 2023, stored: 2024"),)
    near = msgspec.structs.replace(prospect(0.999), guards=refused)
    choice = choose([near, prospect(0.975, 2)], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert choice.served is not None
    assert choice.served.similarity == 0.975
    assert choice.considered[0].why == "refused by numbers: asked: 2023, stored: 2024"
    assert choice.considered[0].refusals == ("numbers: asked: 2023, stored: 2024",)


def test_a_blocked_pair_is_never_served_nor_counted_again() -> None:
    blocked = msgspec.structs.replace(prospect(1.0), blocked=True)
    choice = choose([blocked], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert (choice.serve, choice.nearest) == (None, None)


@pytest.mark.parametrize("cut", [Cut(value=None, why="closed"), Cut(value=0.985, why="tightened")])
def test_what_only_the_cut_held_back_is_what_a_miss_labels(cut: Cut) -> None:
    choice = choose(
        [prospect(0.98), prospect(0.9, 2)], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=dict.fromkeys(Standing, cut)
    )
    assert choice.serve is None
    assert choice.nearest is not None
    assert choice.nearest.similarity == 0.98


def test_an_unverified_flow_serves_no_similar_answer() -> None:
    facts = msgspec.structs.replace(FACTS, verified=False)
    assert choose([prospect()], facts=facts, wanted=WANTED, terms=TERMS, cuts=CUTS).serve is None


def test_an_asker_with_max_age_gets_nothing_older() -> None:
    facts = msgspec.structs.replace(FACTS, directives=Directives(max_age=timedelta(seconds=10)))
    choice = choose([prospect()], facts=facts, wanted=WANTED, terms=TERMS, cuts=CUTS)
    assert choice.serve is None
    assert "max-age" in choice.considered[0].why


@pytest.mark.parametrize(
    "other",
    ["afw:v1:t2:team:flow:f:q:{%s}", "afw:v1:t:team:flow:g:q:{%s}", "afw:v1:t:user:{u}:flow:f:q:%s"],
)
def test_a_neighbour_of_another_place_is_not_served(other: str) -> None:
    stray = msgspec.structs.replace(prospect(1.0), key=other % ("1" * 32))
    assert not same_place(stray.key, WANTED.key)
    assert choose([stray], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=CUTS).serve is None


def test_every_part_of_a_partition_counts() -> None:
    parts: dict[str, Any] = {
        "scope": "team",
        "owner": "",
        "flow": "f",
        "fingerprint": "fp",
        "generation": 1,
        "identity": "",
        "language": "en",
    }
    names = {partition_of(**parts)}
    for part, value in parts.items():
        names.add(partition_of(**parts | {part: value + 1 if isinstance(value, int) else value + "x"}))
    assert len(names) == len(parts) + 1


def test_a_pair_has_one_name_whatever_the_scope_of_the_stored_answer() -> None:
    team, user = PLACE + "{" + "a" * 32 + "}", "afw:v1:t:user:{u}:flow:f:q:" + "a" * 32
    assert name_in(team) == name_in(user) == "a" * 32
    assert pair_of("question", team) == pair_of("question", user) != pair_of("other", team)


def test_other_neighbours_decide_which_cut_holds() -> None:
    shut, cut = Cut(value=None, why="closed"), Cut(value=0.9, why="proved")
    cuts = {Standing.AGREED: cut, Standing.ALONE: shut, Standing.CONTESTED: shut}

    def served(*others: Prospect) -> str | None:
        choice = choose([prospect(0.93), *others], facts=FACTS, wanted=WANTED, terms=TERMS, cuts=cuts)
        assert (choice.serve is None) == (choice.standing is not Standing.AGREED)
        return choice.standing.value if choice.standing else None

    assert served() == "alone"
    assert served(prospect(0.70, 2, answer="far away, so it says nothing")) == "alone"
    assert served(prospect(0.88, 2)) == "agreed"
    assert served(prospect(0.88, 2), prospect(0.85, 3, answer="another")) == "contested"
    # Two texts that were compared and found to say the same have one name.
    named = msgspec.structs.replace(prospect(0.88, 2, answer="push the knob"), answer=f"{1:032x}")
    assert served(named) == "agreed"
    # A neighbour that a guard refuses cannot be served, but it still has a say.
    refused = msgspec.structs.replace(
        prospect(0.88, 2, answer="another"), guards=(GuardVerdict("numbers", False, "asked: 1, stored: 2"),)
    )
    assert served(refused) == "contested"
    # One whose answer is gone has none.
    assert served(Prospect(key=PLACE + "{" + "9" * 32 + "}", similarity=0.9, entry=None)) == "alone"

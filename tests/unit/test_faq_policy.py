"""What the FAQ may serve: pure rules, each against a table of its own."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import msgspec
import pytest

from agentic_flywheel.curated import (
    Approved,
    FaqCandidate,
    FaqEntry,
    FaqState,
    Publication,
    approved_entry,
    wordings_of,
)
from agentic_flywheel.likeness import Cut, GuardVerdict, Profile, SimilarMode, Terms
from agentic_flywheel.model import Directives, Entry, Lifetime, Reason, Sharing
from agentic_flywheel.policy.decision import Ask, Bypass, Facts, Found, Refuse, Serve, ServeStale, Wanted, decide
from agentic_flywheel.policy.faq import candidates, place_of, stands, taken_by, unfit
from agentic_flywheel.policy.lifetime import remaining_seconds
from agentic_flywheel.policy.similarity.budget import Standing
from agentic_flywheel.policy.similarity.choice import Prospect, choose

NOW = 10_000.0
SAID = Publication("Why?", ("How come?",), "So.", "now", NOW - 500, "ann", "ann", trace_id="run")
ENTRY = FaqEntry("e", "f", "Why?", ("How come?",), "So.", 0.0, 0.0, "ann", published=SAID)
WANTED = Wanted(key="afw:v1:t:team:flow:f:q:{" + "0" * 32 + "}", scope="team", question="why", identity="")
STORED = Entry(
    question="why",
    identity="",
    answer="stored",
    flow="f",
    flow_id="f",
    flow_name="f",
    fingerprint="now",
    generation=3,
    created_at=NOW - 10,
    ttl_seconds=1000.0,
    trace_id="t",
    turn_id="t",
)


def approved(**changes: Any) -> Approved:
    return msgspec.structs.replace(approved_entry(ENTRY, SAID, "Why?", "why"), **changes)


def facts(entry: Approved | None, stored: Entry | None = None, *, wanted: Wanted = WANTED, **changes: Any) -> Facts:
    whole: dict[str, Any] = {
        "directives": Directives(),
        "found": (Found(wanted, stored),),
        "fingerprint": "now",
        "generation": 3,
        "lifetime": Lifetime(ttl=timedelta(seconds=1)),
        "now": NOW,
        "curated": Found(wanted, entry) if entry is not None else None,
    }
    return Facts(**whole | changes)


def test_it_comes_before_what_is_stored_and_has_no_end() -> None:
    decision, considered = decide(facts(approved(), STORED))
    assert isinstance(decision, Serve)
    assert (decision.reason, decision.entry.answer, decision.refresh) == (Reason.CURATED, "So.", False)
    assert decision.ttl_seconds == float("inf")
    assert [(one.scope, one.verdict) for one in considered] == [("faq", Reason.CURATED), ("team", Reason.EXPIRED)]


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("refresh_after", [0.0, 0.8, 1.0])
def test_neither_lifetime_nor_generation_takes_it(sliding: bool, refresh_after: float) -> None:
    lifetime = Lifetime(ttl=timedelta(seconds=1), sliding=sliding)
    assert remaining_seconds(approved(), lifetime, jitter=0.0, now=NOW * 1000) == float("inf")
    decision, _ = decide(facts(approved(), generation=99, lifetime=lifetime, refresh_after=refresh_after))
    assert isinstance(decision, Serve)
    assert not decision.refresh


def test_every_directive_against_every_state() -> None:
    """The FAQ's answer is served exactly if nothing speaks against it; a flaw of its own leaves the stored one."""
    flags = product((False, True), repeat=6)
    for no_store, no_cache, only_if_cached, limited, verified, changed in flags:
        directives = Directives(
            no_store=no_store,
            no_cache=no_cache,
            only_if_cached=only_if_cached,
            max_age=timedelta(seconds=100) if limited else None,
        )
        entry = approved(fingerprint="before") if changed else approved()
        decision, _ = decide(facts(entry, directives=directives, verified=verified))
        if no_store:
            expected: tuple[type, Reason] = (Bypass, Reason.NO_STORE)
        elif no_cache:
            expected = (Ask, Reason.NO_CACHE)
        elif changed:
            expected = (Ask, Reason.FLOW_CHANGED)
        elif limited:  # it was approved 500 s ago
            expected = (Ask, Reason.TOO_OLD)
        else:
            expected = (Serve, Reason.CURATED) if verified else (ServeStale, Reason.FLOW_UNVERIFIED)
        if only_if_cached and expected[0] in {Ask, Bypass}:
            expected = (Refuse, expected[1])
        assert (type(decision), decision.reason) == expected, directives
        if changed and not (no_store or no_cache):
            fresh, _ = decide(facts(entry, STORED, directives=directives, lifetime=Lifetime(ttl=timedelta(hours=1))))
            assert isinstance(fresh, Serve)
            assert fresh.reason is Reason.EXACT


def test_what_was_called_private_is_served_by_nobody() -> None:
    mark = msgspec.structs.replace(STORED, withdrawn="private")
    decision, _ = decide(facts(approved(), mark))
    assert decision == Bypass(Reason.WITHDRAWN)


def test_it_counts_as_first_of_a_session_and_a_hash_alone_never_decides() -> None:
    first_only = Wanted(key="k", scope="team", question="why", identity="", first_only=True)
    assert isinstance(decide(facts(approved(), wanted=first_only))[0], Serve)
    other = Wanted(key="k", scope="team", question="why not", identity="")
    assert decide(facts(approved(), wanted=other))[0] == Ask(Reason.COLLISION)


def test_the_place_is_the_teams_and_of_the_bare_words() -> None:
    def wanted(scope: str = "team", identity: str = "", *, first_only: bool = False) -> Wanted:
        return Wanted(key="k", scope=scope, question="why", identity=identity, first_only=first_only)

    assert place_of(()) is None
    assert place_of((wanted("user"),)) is None
    assert place_of((wanted("session"),)) is None
    assert place_of((wanted(identity="config"),)) is None
    exception = wanted(first_only=True)
    assert place_of((wanted(identity="context"), exception)) is exception


@pytest.mark.parametrize(
    ("changes", "sharing", "fingerprint", "now", "state"),
    [
        ({}, Sharing.TEAM, "now", NOW, FaqState.PUBLISHED),
        ({"published": msgspec.structs.replace(SAID, review_at=NOW)}, Sharing.TEAM, "now", NOW, FaqState.DUE),
        ({"published": msgspec.structs.replace(SAID, review_at=NOW + 1)}, Sharing.TEAM, "now", NOW, FaqState.PUBLISHED),
        ({"published": msgspec.structs.replace(SAID, review_at=1.0)}, Sharing.TEAM, "other", NOW, FaqState.STALE),
        ({}, Sharing.TEAM, "", NOW, FaqState.STALE),
        ({}, Sharing.USER, "now", NOW, FaqState.UNSHARED),
        ({}, None, "now", NOW, FaqState.UNSHARED),
        ({"published": None}, Sharing.TEAM, "now", NOW, FaqState.DRAFT),
        ({"published": None, "reported": "wrong"}, Sharing.TEAM, "now", NOW, FaqState.REPORTED),
        ({"published": None, "reported": "wrong", "retired": True}, Sharing.TEAM, "now", NOW, FaqState.RETIRED),
    ],
)
def test_how_an_entry_stands(
    changes: dict[str, Any], sharing: Sharing | None, fingerprint: str, now: float, state: FaqState
) -> None:
    entry = msgspec.structs.replace(ENTRY, **changes)
    view = stands(entry, sharing=sharing, fingerprint=fingerprint, now=now)
    assert view.state is state
    assert view.state.served is (state in {FaqState.PUBLISHED, FaqState.DUE})
    assert bool(view.why) is (state not in {FaqState.PUBLISHED, FaqState.RETIRED})


def test_changes_that_wait_are_told() -> None:
    edited = msgspec.structs.replace(ENTRY, answer="Other.")
    assert edited.pending
    assert "approves" in stands(edited, sharing=Sharing.TEAM, fingerprint="now", now=NOW).why
    assert not ENTRY.pending
    assert not msgspec.structs.replace(ENTRY, published=None, answer="Other.").pending


def test_no_two_answer_the_same_words() -> None:
    other = msgspec.structs.replace(ENTRY, id="o", question="Well?", wordings=("HOW COME",), published=None)
    assert taken_by(other, [ENTRY, other]) == ("HOW COME", ENTRY)
    assert taken_by(ENTRY, [ENTRY, other]) is None, "a draft takes nothing"
    edited = msgspec.structs.replace(ENTRY, question="When?", wordings=())
    assert taken_by(other, [edited]) is not None, "what is served counts, not what is being written"


def candidate(question: str = "Which?", **changes: Any) -> FaqCandidate:
    whole: dict[str, Any] = {"id": question, "flow": "f", "question": question, "wordings": (), "asked": 3, "askers": 2}
    return FaqCandidate(**whole | changes)


@pytest.mark.parametrize(
    ("changes", "proposed"),
    [
        ({}, True),
        ({"asked": 2}, False),
        ({"askers": 1}, False),
        ({"flow": "closed"}, False),
        ({"question": "Which is my own?"}, False),
        ({"question": "why"}, False),
        ({"wordings": ("how come!",)}, False),
        ({"flow": "other", "question": "why"}, True),
    ],
)
def test_what_asks_for_a_place(changes: dict[str, Any], proposed: bool) -> None:
    one = candidate(**changes)
    found = candidates([one], {"f": [ENTRY]}, shared=lambda flow: flow != "closed", least_asked=3, least_askers=2)
    assert found == [one] * proposed


def test_what_was_made_of_a_candidate_or_turned_down_is_known() -> None:
    retired = msgspec.structs.replace(
        ENTRY, question="Other words", wordings=(), published=None, retired=True, cluster="Which?"
    )
    assert candidates([candidate()], {"f": [retired]}, shared=lambda _: True, least_asked=1, least_askers=1) == []


def test_words_about_oneself_and_none_at_all_have_no_place() -> None:
    assert unfit("How is it reset?") == ""
    for text in ("", "  ", "Where is my account?", "Où est notre compte ?"):
        assert unfit(text)
    assert wordings_of("Why?", ["Why?", " How come? ", "", "How come?"]) == ("How come?",)


def test_among_similar_questions_only_a_runs_own_words_are_compared() -> None:
    terms = Terms(mode=SimilarMode.SHADOW, profile=Profile.STRICT, floor=0.97, max_error=0.01, audit_share=0.05)
    closed = dict.fromkeys(Standing, Cut(value=None, why="shadow"))
    wanted = Wanted(key="afw:v1:t:team:flow:f:q:{" + "1" * 32 + "}", scope="team", question="why so", identity="")

    def chosen(entry: Approved, mode_cuts: dict[Standing, Cut], generation: int = 3) -> Any:
        near = Prospect(key=WANTED.key, similarity=0.98, entry=entry, guards=(GuardVerdict("numbers", True),))
        facts_now = facts(None, wanted=wanted, generation=generation)
        return choose([near], facts=facts_now, wanted=wanted, terms=terms, cuts=mode_cuts)

    assert chosen(approved(), closed).nearest is not None
    assert chosen(approved(trace_id=""), closed).nearest is None
    fixed = dict.fromkeys(Standing, Cut(value=0.97, why="fixed"))
    learn = msgspec.structs.replace(terms, mode=SimilarMode.FIXED)
    near = Prospect(key=WANTED.key, similarity=0.98, entry=approved(), guards=(GuardVerdict("numbers", True),))
    served = choose([near], facts=facts(None, wanted=wanted, generation=99), wanted=wanted, terms=learn, cuts=fixed)
    assert served.serve is not None
    assert (served.serve.reason, served.considered[0].faq) == (Reason.SIMILAR, "e")
    stale = msgspec.structs.replace(near, entry=approved(fingerprint="before"))
    gone = choose([stale], facts=facts(None, wanted=wanted), wanted=wanted, terms=learn, cuts=fixed)
    assert gone.serve is None


def test_wordings_of_one_entry_do_not_speak_for_each_other() -> None:
    """What the neighbours say decides which cut holds; an entry with many wordings is still one voice."""
    terms = Terms(mode=SimilarMode.FIXED, profile=Profile.STRICT, floor=0.9, max_error=0.01, audit_share=0.05)
    cuts = {
        Standing.AGREED: Cut(value=0.9, why="agreed"),
        Standing.ALONE: Cut(value=0.99, why="alone"),
        Standing.CONTESTED: Cut(value=None, why="contested"),
    }
    wanted = Wanted(key=WANTED.key.replace("0", "1"), scope="team", question="why so", identity="")

    def near(number: int, similarity: float, **changes: Any) -> Prospect:
        key = f"afw:v1:t:team:flow:f:q:{{{number:032x}}}"
        return Prospect(
            key=key, similarity=similarity, entry=approved(**changes), guards=(GuardVerdict("numbers", True),)
        )

    own = choose([near(1, 0.97), near(2, 0.96)], facts=facts(None), wanted=wanted, terms=terms, cuts=cuts)
    assert [one.standing for one in own.considered] == ["alone", "alone"]
    assert own.serve is None
    two = choose([near(1, 0.97), near(2, 0.96, faq="other")], facts=facts(None), wanted=wanted, terms=terms, cuts=cuts)
    assert two.considered[0].standing == "agreed"
    assert two.serve is not None

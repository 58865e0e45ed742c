"""The decision, exhaustively, against a table of rules written independently of it."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_flywheel.model import Directives, Entry, Lifetime, Reason
from agentic_flywheel.policy.decision import (
    Ask,
    Bypass,
    Decision,
    Facts,
    Found,
    Refuse,
    Serve,
    ServeStale,
    Wanted,
    decide,
)

NOW = 10_000.0
TTL = 1_000.0
MAX_AGE = timedelta(seconds=100)
MAX_STALE = timedelta(seconds=500)

#: What may be wrong with a stored answer, in the order in which it disqualifies.
FLAWS = ("damaged", "collision", "flow_changed", "cleared", "not_first", "too_old", "expired")


def entry(*, age: float = 10.0, question: str = "q", **fields: Any) -> Entry:
    whole: dict[str, Any] = {
        "question": question,
        "identity": "",
        "answer": "a",
        "flow": "f",
        "flow_id": "f",
        "flow_name": "f",
        "fingerprint": "now",
        "generation": 3,
        "created_at": NOW - age,
        "ttl_seconds": TTL,
        "trace_id": "t",
        "turn_id": "t",
        "first": True,
    }
    return Entry(**{**whole, **fields})


def found(flaw: str, *, key: str = "k", first_only: bool = False) -> Found:
    """One place with exactly one flaw, or with nothing in it ("nothing"), or with a good answer ("")."""
    wanted = Wanted(key=key, scope="team", question="q", identity="", first_only=first_only)
    match flaw:
        case "nothing":
            return Found(wanted)
        case "damaged":
            return Found(wanted, None, damaged=True)
        case "collision":
            return Found(wanted, entry(question="another"))
        case "identity":
            return Found(wanted, entry(identity="x"))
        case "flow_changed":
            return Found(wanted, entry(fingerprint="before"))
        case "cleared":
            return Found(wanted, entry(generation=2))
        case "not_first":
            return Found(Wanted(key=key, scope="team", question="q", identity="", first_only=True), entry(first=False))
        case "too_old":
            return Found(wanted, entry(age=200))
        case "expired":
            return Found(wanted, entry(age=1_200))
        case "long_expired":
            return Found(wanted, entry(age=1_600))
    return Found(wanted, entry())


class Case(NamedTuple):
    no_store: bool
    no_cache: bool
    only_if_cached: bool
    limited: bool  # max_age
    stale: bool  # max_stale
    shareable: bool
    verified: bool
    first: str
    second: str


STATES = ("", "nothing", "identity", "long_expired", *FLAWS)


def facts_of(case: Case) -> Facts:
    return Facts(
        directives=Directives(
            no_store=case.no_store,
            no_cache=case.no_cache,
            only_if_cached=case.only_if_cached,
            max_age=MAX_AGE if case.limited else None,
            max_stale=MAX_STALE if case.stale else None,
        ),
        found=(found(case.first, key="k1"), found(case.second, key="k2")),
        fingerprint="now",
        generation=3,
        lifetime=Lifetime(ttl=timedelta(seconds=TTL)),
        now=NOW,
        verified=case.verified,
        shareable=case.shareable,
    )


def oracle_verdict(state: str, case: Case) -> Reason:
    """What one place is worth, from the state's name alone."""
    if state in {"expired", "long_expired"}:
        return Reason.TOO_OLD if case.limited else Reason.EXPIRED
    if state == "too_old":
        return Reason.TOO_OLD if case.limited else Reason.EXACT
    return {"": Reason.EXACT, "nothing": Reason.NOT_STORED, "identity": Reason.COLLISION}.get(state) or Reason(state)


#: Of two places without a servable answer, this one's reason is told.
NEARNESS = [
    "too_old",
    "expired",
    "flow_changed",
    "cleared",
    "damaged",
    "collision",
    "not_first",
    "not_stored",
]


def oracle(case: Case) -> tuple[str, Reason, str]:
    """Kind of decision, reason, and the key served."""
    verdicts = [oracle_verdict(state, case) for state in (case.first, case.second)]
    if case.no_store or not case.shareable:
        kind, reason = "bypass", Reason.NO_STORE if case.no_store else Reason.NOT_SHARED
    elif case.no_cache:
        kind, reason = "ask", Reason.NO_CACHE
    elif Reason.EXACT in verdicts:
        key = "k1" if verdicts[0] is Reason.EXACT else "k2"
        return ("serve", Reason.EXACT, key) if case.verified else ("stale", Reason.FLOW_UNVERIFIED, key)
    else:
        tolerable = [
            key
            for key, state in (("k1", case.first), ("k2", case.second))
            if state == "expired" and case.stale and not case.limited
        ]
        if tolerable:
            return "stale", Reason.MAX_STALE, tolerable[0]
        kind, reason = "ask", min(verdicts, key=lambda verdict: NEARNESS.index(verdict.value))
    return ("refuse" if case.only_if_cached else kind), reason, ""


def shape(decision: Decision) -> tuple[str, Reason, str]:
    match decision:
        case Serve():
            return "serve", decision.reason, decision.wanted.key
        case ServeStale():
            return "stale", decision.reason, decision.wanted.key
        case Ask():
            return "ask", decision.reason, ""
        case Bypass():
            return "bypass", decision.reason, ""
        case Refuse():
            return "refuse", decision.reason, ""


def test_every_combination() -> None:
    flags = product((False, True), repeat=7)
    cases = [
        Case(a, b, c, d, e, f, g, first, second)
        for (a, b, c, d, e, f, g), first, second in product(flags, STATES, STATES)
    ]
    assert len(cases) == 128 * len(STATES) ** 2
    for case in cases:
        decision, considered = decide(facts_of(case))
        assert shape(decision) == oracle(case), case
        looked_at = not (case.no_store or not case.shareable or case.no_cache)
        assert [c.key for c in considered] == (["k1", "k2"] if looked_at else []), case
        if looked_at:
            assert [c.verdict for c in considered] == [
                oracle_verdict(case.first, case),
                oracle_verdict(case.second, case),
            ]


@pytest.mark.parametrize(("one", "worse"), [(a, b) for i, a in enumerate(FLAWS) for b in FLAWS[:i]])
def test_of_several_flaws_the_gravest_is_told(one: str, worse: str) -> None:
    """A stored answer with two flaws: never served, and the flaw that disqualifies first is the verdict."""
    if worse == "damaged":
        return  # nothing is left in which there could be a second flaw
    changes: dict[str, dict[str, Any]] = {
        "collision": {"question": "another"},
        "flow_changed": {"fingerprint": "before"},
        "cleared": {"generation": 2},
        "not_first": {"first": False},
        "too_old": {"age": 200.0},
        "expired": {"age": 1_200.0},
    }
    value = entry(**{**changes[worse], **changes[one]})
    wanted = Wanted(key="k", scope="team", question="q", identity="", first_only=True)
    facts = Facts(
        directives=Directives(max_age=MAX_AGE),
        found=(Found(wanted, value),),
        fingerprint="now",
        generation=3,
        lifetime=Lifetime(ttl=timedelta(seconds=TTL)),
        now=NOW,
    )
    decision, (candidate,) = decide(facts)
    assert isinstance(decision, Ask)
    assert candidate.verdict == decision.reason == Reason(worse)


@pytest.mark.parametrize("places", [(), ("nothing",)])
def test_nothing_stored(places: tuple[str, ...]) -> None:
    facts = Facts(
        directives=Directives(),
        found=tuple(found(state) for state in places),
        fingerprint="now",
        generation=3,
        lifetime=Lifetime(ttl=timedelta(seconds=TTL)),
        now=NOW,
    )
    assert decide(facts)[0] == Ask(Reason.NOT_STORED)


ages = st.floats(-100, 3_000)
entries = st.builds(
    entry,
    age=ages,
    question=st.sampled_from(["q", "Q", ""]),
    identity=st.sampled_from(["", "x"]),
    fingerprint=st.sampled_from(["now", "before", ""]),
    generation=st.sampled_from([-1, 2, 3, 4]),
    first=st.booleans(),
    ttl_seconds=st.floats(1, 2_000),
)
wanteds = st.builds(
    Wanted,
    key=st.just("k"),
    scope=st.just("team"),
    question=st.sampled_from(["q", "Q"]),
    identity=st.sampled_from(["", "x"]),
    first_only=st.booleans(),
)
founds = st.one_of(
    st.builds(Found, wanteds, entries),
    st.builds(Found, wanteds),
    st.builds(Found, wanteds, st.none(), st.just(True)),
    st.builds(Found, wanteds, entries, st.just(True)),
)
durations = st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(seconds=3_000)))
facts_strategy = st.builds(
    Facts,
    directives=st.builds(
        Directives,
        no_store=st.booleans(),
        no_cache=st.booleans(),
        only_if_cached=st.booleans(),
        private=st.booleans(),
        standalone=st.booleans(),
        max_age=durations,
        max_stale=durations,
    ),
    found=st.lists(founds, max_size=4),
    fingerprint=st.sampled_from(["now", "before"]),
    generation=st.sampled_from([-1, 2, 3]),
    lifetime=st.builds(
        Lifetime, ttl=st.timedeltas(timedelta(seconds=1), timedelta(seconds=2_000)), sliding=st.booleans()
    ),
    now=st.just(NOW),
    jitter=st.sampled_from([0.0, 0.05]),
    verified=st.booleans(),
    shareable=st.booleans(),
)


@settings(max_examples=500)
@given(facts_strategy)
def test_nothing_is_served_unless_every_condition_holds(facts: Facts) -> None:
    decision, considered = decide(facts)
    asked = facts.directives
    assert decision.reason
    if isinstance(decision, Serve | ServeStale):
        value, wanted = decision.entry, decision.wanted
        assert any(f.entry is value and f.wanted is wanted and not f.damaged for f in facts.found)
        assert (value.question, value.identity) == (wanted.question, wanted.identity)
        assert (value.fingerprint, value.generation) == (facts.fingerprint, facts.generation)
        assert value.first or not wanted.first_only
        assert facts.shareable
        assert not asked.no_store
        assert not asked.no_cache
        age = facts.now - value.created_at
        assert asked.max_age is None or age <= asked.max_age.total_seconds()
        overdue = age - min(value.ttl_seconds, facts.lifetime.ttl.total_seconds() * (1 + facts.jitter))
        fresh = overdue < 0 or facts.lifetime.sliding
        if isinstance(decision, Serve):
            assert fresh
            assert facts.verified
        elif decision.reason is Reason.MAX_STALE:
            assert asked.max_stale is not None
            assert overdue <= asked.max_stale.total_seconds() + 1e-6
        else:
            assert decision.reason is Reason.FLOW_UNVERIFIED
            assert fresh
            assert not facts.verified
    if asked.only_if_cached:
        assert isinstance(decision, Serve | ServeStale | Refuse)
    if asked.no_store:
        assert isinstance(decision, Bypass | Refuse)
    assert len(considered) in {0, len(facts.found)}
    assert decide(facts) == (decision, considered)

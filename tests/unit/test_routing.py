"""Routing: precedence, scoring, confidence and the refusal to misroute silently."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.errors import UnknownFlow
from agentic_flywheel.flows.protocol import FlowSpec
from agentic_flywheel.flows.routing import confidence_of, route
from agentic_flywheel.flows.snapshot import RegistrySnapshot, RoutingRules
from agentic_flywheel.model import RouteScore


def registry(*specs: FlowSpec, **rules: object) -> RegistrySnapshot:
    return RegistrySnapshot(
        flows={spec.key: spec for spec in specs}, path=Path("r.yaml"), origin="user", routing=RoutingRules(**rules)
    )


def flow(key: str, *keywords: str, **fields: object) -> FlowSpec:
    return FlowSpec(key=key, id=key, kind="flowise", intent_keywords=keywords, **fields)


OPS = flow("ops", "deploy", "release notes", "kubernetes", name="Operations")
STORY = flow("story", "creative", "poème", "tale")
BILLING = flow("billing", "invoice", "payment")
OLD = flow("old", "legacy", active=False)
CLASSIFIER = flow("classifier", "invoice", routable=False)
ALL = registry(OPS, STORY, BILLING, OLD, CLASSIFIER)


@pytest.mark.parametrize(
    ("question", "expected", "matched"),
    [
        ("How do I deploy this?", "ops", "deploy"),
        ("How are deployments rolled back?", "ops", "deploy"),
        ("Where are the RELEASE-NOTES?", "ops", "release notes"),
        ("kubernets pods keep dying", "ops", "kubernetes"),
        ("Écris un POEME", "story", "poeme"),
        ("two invoices are missing", "billing", "invoice"),
        ("ask billing about it", "billing", "billing"),
    ],
)
def test_keywords(question: str, expected: str, matched: str):
    found = route(question, ALL)
    assert (found.flow, found.how) == (expected, "keywords")
    assert matched in found.scores[0].matched
    assert found.confidence >= 0.6
    assert {score.flow for score in found.scores} == {"ops", "story", "billing"}


def test_points_are_those_of_the_rules():
    assert route("deploy", ALL).scores[0] == RouteScore(flow="ops", score=3.0, matched=("deploy",))
    assert route("deployments", ALL).scores[0].score == 1.5
    assert route("notes", ALL).scores[0].score == 0.75
    assert route("nothing here", ALL, context=["we will deploy", "soon"]).scores[0].score == 2.0


def test_context_settles_a_tie():
    assert route("deploy the invoice", ALL).how == "fallback"
    found = route("deploy the invoice", ALL, context=["the payment was late"])
    assert (found.flow, found.how) == ("billing", "keywords")


def test_without_a_match_the_fallback_answers():
    assert (route("Who?", ALL).flow, route("Who?", ALL).how, route("Who?", ALL).confidence) == ("ops", "fallback", 0.0)
    assert route("Who?", registry(OPS, STORY, fallback="story")).flow == "story"
    assert route("Who?", registry(OPS, STORY, OLD, fallback="old")).flow == "ops"


def test_only_one_flow():
    found = route("Who?", registry(STORY, OLD, CLASSIFIER))
    assert (found.flow, found.how, found.confidence) == ("story", "only", 1.0)


def test_precedence():
    every = {"flow": "story", "intent": "invoice", "session_flow": "ops"}
    assert (route("deploy", ALL, **every).flow, route("deploy", ALL, **every).how) == ("story", "explicit")
    del every["flow"]
    assert (route("deploy", ALL, **every).flow, route("deploy", ALL, **every).how) == ("billing", "intent")
    del every["intent"]
    assert (route("invoice", ALL, **every).flow, route("invoice", ALL, **every).how) == ("ops", "session")
    assert route("invoice", ALL, session_flow="old").flow == "billing"
    assert route("invoice", ALL, session_flow="removed").flow == "billing"


@pytest.mark.parametrize("intent", ["billing", "Payment", "operations", "Release Notes", "classifier"])
def test_an_intent_that_names_a_flow_is_followed(intent: str):
    found = route("tell me a tale", ALL, intent=intent)
    assert found.how == "intent"
    assert found.intent == intent
    assert found.flow in {"billing", "ops", "classifier"}


def test_an_intent_shared_by_flows_is_settled_by_the_question():
    shared = registry(flow("a", "help", "red"), flow("b", "help", "blue"), flow("c", "green"))
    assert (route("the blue one", shared, intent="help").flow, route("green", shared, intent="help").how) == (
        "b",
        "intent",
    )


def test_an_unknown_intent_is_scored_or_refused_never_guessed():
    assert route("hm", ALL, intent="deploying things").flow == "ops"
    assert route("hm", ALL, intent="billling").flow == "billing"
    with pytest.raises(UnknownFlow) as caught:
        route("hm", ALL, intent="weather")
    assert "weather" in caught.value.message
    assert len(caught.value.suggestions) >= 3
    assert route("hm", registry(OPS, STORY, fallback="story"), intent="quite other").how == "fallback"


def test_what_was_named_and_is_inactive_or_unknown_is_refused():
    with pytest.raises(UnknownFlow, match="inactive"):
        route("x", ALL, flow="old")
    with pytest.raises(UnknownFlow, match="inactive"):
        route("x", ALL, intent="old")
    with pytest.raises(UnknownFlow, match="did you mean 'billing'"):
        route("x", ALL, flow="biling")
    with pytest.raises(UnknownFlow, match="no active flow"):
        route("x", registry(OLD))


TEXTS = st.text(alphabet="abcde é-.?`_", max_size=30)
FLOWS = st.lists(
    st.builds(
        lambda key, keywords, active, routable: flow(key, *keywords, active=active, routable=routable),
        st.text(alphabet="abcde", min_size=1, max_size=4),
        st.lists(TEXTS, max_size=3),
        st.booleans(),
        st.booleans(),
    ),
    max_size=5,
    unique_by=lambda spec: spec.key,
)


@given(FLOWS, TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.lists(TEXTS, max_size=2))
def test_a_route_is_an_active_flow_or_a_refusal_and_always_the_same(specs, question, intent, session_flow, context):
    snapshot = registry(*specs)
    asked = {"intent": intent, "session_flow": session_flow, "context": context}
    try:
        found = route(question, snapshot, **asked)
    except UnknownFlow:
        assert intent or not snapshot.routable()
        return
    assert snapshot.flows[found.flow].active
    assert 0 <= found.confidence <= 1
    assert found == route(question, snapshot, **asked)
    assert [s.score for s in found.scores] == sorted((s.score for s in found.scores), reverse=True)
    if found.how == "keywords":
        assert found.flow == found.scores[0].flow
        assert found.confidence >= snapshot.routing.threshold


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_confidence_grows_with_the_best_and_falls_with_the_second(best, second, more):
    best, second = max(best, second), min(best, second)

    def sure(first: float, other: float) -> float:
        return confidence_of([RouteScore(flow="a", score=first), RouteScore(flow="b", score=other)])

    assert 0 <= sure(best, second) <= 1
    assert sure(best + more, second) >= sure(best, second)
    assert sure(best, best) < 0.6

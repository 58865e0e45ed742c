"""Privacy policies: of several the strictest holds, in each thing by itself."""

from __future__ import annotations

from itertools import permutations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.policy.privacy import no_cache, no_history, resolve
from agentic_flywheel.privacy import EVERYTHING, Privacy, PrivacyPolicy, Rule, Whose

WORDS = st.frozensets(st.sampled_from(["email", "phone", "card", "iban", "names"]))
POLICIES = st.builds(
    PrivacyPolicy,
    history=st.none() | st.booleans(),
    cache=st.none() | st.booleans(),
    retention_days=st.none() | st.floats(min_value=0.01, max_value=3650),
    redact=WORDS,
)
RULES = st.builds(Rule, st.sampled_from(Whose), st.sampled_from(["", "docs", "ann"]), POLICIES)


def keeps_no_more(one: Privacy, other: Privacy) -> bool:
    """Whether nothing is kept under `one` that is not kept under `other`."""
    days = (one.retention_days, other.retention_days)
    shorter = days[1] is None or (days[0] is not None and days[0] <= days[1])
    return one.history <= other.history and one.cache <= other.cache and shorter and one.redact >= other.redact


@given(st.lists(RULES, max_size=5), RULES)
def test_one_policy_more_never_keeps_more(rules: list[Rule], more: Rule) -> None:
    assert keeps_no_more(resolve([*rules, more]), resolve(rules))


@given(st.lists(RULES, max_size=5))
def test_what_holds_is_as_strict_as_each_policy_and_no_stricter_than_all(rules: list[Rule]) -> None:
    found = resolve(rules)
    assert all(keeps_no_more(found, resolve([rule])) for rule in rules)
    assert found.history or any(rule.policy.history is False for rule in rules)
    assert found.cache or any(rule.policy.cache is False for rule in rules)
    assert found.retention_days in {None, *(rule.policy.retention_days for rule in rules)}
    assert found.redact == frozenset().union(*(rule.policy.redact for rule in rules))


@given(st.lists(RULES, max_size=4))
def test_neither_order_nor_repetition_counts(rules: list[Rule]) -> None:
    found = resolve(rules)
    assert all(resolve(order) == found for order in permutations(rules))
    assert resolve([*rules, *rules]) == found


@given(st.lists(RULES, max_size=5))
def test_who_says_so_is_named_exactly_where_somebody_does(rules: list[Rule]) -> None:
    found = resolve(rules)
    assert (found.history_by == ()) is found.history
    assert (found.cache_by == ()) is found.cache
    assert (found.retention_by == ()) is (found.retention_days is None)
    assert (found.redact_by == ()) is (not found.redact)
    assert set(found.history_by) == {str(rule) for rule in rules if rule.policy.history is False}


@given(POLICIES)
def test_a_policy_is_read_as_it_was_written(policy: PrivacyPolicy) -> None:
    assert msgspec.json.decode(msgspec.json.encode(policy), type=PrivacyPolicy) == policy


def test_saying_that_something_is_on_allows_nothing_that_another_forbids() -> None:
    allowed = Rule(Whose.USER, "ann", PrivacyPolicy(history=True, cache=True, retention_days=3650))
    tenant = Rule(Whose.TENANT, "", PrivacyPolicy(history=False, cache=False, retention_days=1))
    found = resolve([allowed, tenant])
    assert (found.history, found.cache, found.retention_days) == (False, False, 1)
    assert no_history(found) == "no history: policy of tenant"
    assert no_cache(found) == "no cache: policy of tenant"


def test_where_nobody_says_anything_all_is_kept() -> None:
    assert resolve([]) == resolve([Rule(Whose.TENANT, "", PrivacyPolicy())]) == EVERYTHING
    assert not PrivacyPolicy()
    assert PrivacyPolicy(cache=True)
    assert (no_history(EVERYTHING), no_cache(EVERYTHING)) == ("", "")

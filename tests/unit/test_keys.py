"""Keys: no user text in them, no two ids in one, and what a script touches in one slot."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.policy.identity import question_hash
from agentic_flywheel.store.keys import SHARDS, Keys, flight_name, safe, scope_of_key, shard_of, team_question

HASH = question_hash("q")
ids = st.text(min_size=1, max_size=80)


def slot(key: str) -> str:
    """What a cluster hashes of a key: the first non-empty `{...}`, else all of it."""
    tag = re.search(r"\{([^}]*)\}", key)
    return tag[1] if tag and tag[1] else key


def every_key(tenant: str, name: str) -> list[str]:
    keys = Keys(tenant)
    return [
        keys.flows,
        keys.lifetimes,
        *(keys.entry(scope, name, HASH, user=name, session=name) for scope in ("team", "user", "session")),
        keys.flow(name),
        keys.changes(name),
        keys.entries(name, 3),
        keys.session(name),
        keys.turns(name),
        keys.turn_ids(name),
        keys.sessions(3),
        keys.user_sessions(name),
        keys.feed(name),
        keys.similar(name),
        keys.evidence(name, name),
        keys.cut_changes(name, name),
        keys.blocked(name),
        keys.reports,
        keys.proposals,
        keys.vector(name, name, keys.entry("team", name, HASH)),
        keys.vector_log(name, name),
        keys.count(name, "20260101"),
        keys.popular(name, "20260101"),
        keys.paths(name, "20260101"),
        keys.joined(name),
        keys.hidden(name),
        keys.minutes(name, "2026010107"),
        *keys.calls(name),
        *keys.lease(flight_name(keys.entry("user", name, HASH, user=name), "1")),
        keys.refresh(flight_name(keys.entry("team", name, HASH), "1")),
    ]


@given(ids, ids)
def test_keys_are_plain_whatever_the_ids_are(tenant: str, name: str) -> None:
    for key in every_key(tenant, name):
        assert re.fullmatch(r"[A-Za-z0-9_.~:{}-]+", key)
        assert key.count("{") == key.count("}") <= 1
        assert len(key) < 300


@pytest.mark.parametrize(
    "name", ["Ana Lovelace", "é", "a:b", "a{b}", "{x}", "*", "a\nb", ".hidden", "-x", "x" * 65, ""]
)
def test_unsafe_ids_are_hashed(name: str) -> None:
    assert re.fullmatch(r"~[0-9a-f]{32}", safe(name))


@pytest.mark.parametrize("name", ["a", "s-0123456789abcdef", "Flow_1.2", "x" * 64])
def test_plain_ids_stay_readable(name: str) -> None:
    assert safe(name) == name


@given(ids, ids)
def test_different_ids_never_share_a_key(one: str, other: str) -> None:
    assert (safe(one) == safe(other)) == (one == other)


def test_an_id_that_looks_hashed_is_not_taken_for_the_hashed_one() -> None:
    assert safe(safe("a:b")) != safe("a:b")


@given(ids, ids)
def test_tenants_share_no_key(one: str, other: str) -> None:
    if one != other:
        assert not set(every_key(one, "x")) & set(every_key(other, "x"))


def test_no_two_purposes_share_a_key() -> None:
    names = ["a", "a:turns", "flows", "ttl", "team", "x:flow:{a}", "1", "20260101"]
    keys = [key for name in names for key in every_key("t", name)]
    shared = {keys_ for keys_ in keys if keys.count(keys_) > 1}
    k = Keys("t")
    # What belongs to the whole tenant or to a shard is the same for every name.
    assert shared <= {k.flows, k.lifetimes, k.reports, k.proposals, k.sessions(3), *(k.feed(name) for name in names)}


@given(ids)
def test_all_keys_of_one_script_share_a_slot(name: str) -> None:
    keys = Keys("t")
    assert len({slot(key) for key in (keys.session(name), keys.turns(name), keys.turn_ids(name))}) == 1
    assert len({slot(key) for key in (keys.flow(name), keys.changes(name))}) == 1
    similar = (keys.similar(name), keys.evidence(name, "e"), keys.cut_changes(name, "e"), keys.blocked(name))
    assert {slot(key) for key in similar} == {slot(keys.flow(name))}
    asked = (keys.popular(name, "20260101"), keys.paths(name, "20260101"), keys.joined(name), keys.hidden(name))
    assert len({slot(key) for key in asked}) == 1
    counted = (keys.minutes(name, "2026010107"), keys.count(name, "2026010107"), keys.count(name, "20260101"))
    assert {slot(key) for key in counted} == {slot(keys.flow(name))}


@given(ids)
def test_near_caches_are_not_told_of_counts(name: str) -> None:
    keys = Keys("t")
    told = keys.shared_prefixes()
    for key in (keys.popular(name, "20260101"), keys.paths(name, "20260101"), keys.count(name, "20260101")):
        assert not key.startswith(told)


@given(ids, ids)
def test_only_a_team_answers_key_names_a_question_of_all(name: str, owner: str) -> None:
    keys = Keys("t")
    assert team_question(keys.entry("team", name, HASH)) == HASH
    for scope in ("user", "session"):
        assert team_question(keys.entry(scope, name, HASH, user=owner, session=owner)) == ""
    assert team_question(keys.flow(name)) == team_question("") == ""


def test_answers_shared_by_the_team_spread_over_a_cluster() -> None:
    keys = Keys("t")
    assert len({slot(keys.entry("team", "f", question_hash(str(n)))) for n in range(50)}) == 50


def test_vectors_spread_over_a_cluster_and_begin_as_their_index_expects() -> None:
    keys = Keys("t")
    vectors = [keys.vector("e" * 32, "p", str(n)) for n in range(50)]
    assert len({slot(vector) for vector in vectors}) == 50
    assert all(vector.startswith(keys.vector_prefix("e" * 32)) for vector in vectors)
    assert not keys.vector_log("e" * 32, "p").startswith(keys.vector_prefix("e" * 32))


def test_embedders_are_told_apart_by_the_beginning_of_their_fingerprints() -> None:
    keys = Keys("t")
    assert keys.evidence("f", "a" * 32) == keys.evidence("f", "a" * 16)
    assert keys.evidence("f", "a" * 15 + "b") != keys.evidence("f", "a" * 16)


@given(ids, st.sampled_from(["team", "user", "session"]))
def test_keys_of_answers_are_known_as_such(name: str, scope: str) -> None:
    keys = Keys(name)
    key = keys.entry(scope, name, HASH, user=name, session=name)
    assert keys.is_entry(key)
    assert scope_of_key(key) == scope
    assert keys.is_entry_of_session(key, name) == (scope == "session")
    assert not Keys(name + "x").is_entry(key)
    assert not keys.is_entry_of_session(key, name + "x")


def test_other_keys_are_not_taken_for_answers() -> None:
    keys = Keys("t")
    answers = {keys.entry(scope, "x", HASH, user="x", session="x") for scope in ("team", "user", "session")}
    others = [key for key in every_key("t", "x") if key not in answers]
    assert not any(keys.is_entry(key) or scope_of_key(key) for key in [*others, "", "x", "afw:v1:t:"])
    assert not any(keys.is_entry(key + "x") or keys.is_entry("x" + key) for key in answers)


@given(ids)
def test_shards_are_within_bounds_and_fixed(member: str) -> None:
    assert 0 <= shard_of(member) < SHARDS
    assert shard_of("s-1") == 14


@given(name=ids)
def test_a_flight_lies_in_the_slot_of_the_entry_that_it_fills(name: str) -> None:
    """So on a cluster too, an entry is written before its lease is given up, and looked at after it was taken."""
    keys = Keys("t")
    entries = [keys.entry(scope, "f", HASH, user=name, session=name) for scope in ("team", "user", "session")]
    flights = [flight_name(entry, version) for entry in entries for version in ("1", "2")]
    assert len(set(flights)) == 6
    for entry, flight in zip([entry for entry in entries for _ in range(2)], flights, strict=True):
        assert {slot(key) for key in (*keys.lease(flight), keys.refresh(flight))} == {slot(entry)}


@given(name=ids)
def test_what_limits_a_flow_lies_in_one_slot(name: str) -> None:
    assert len({slot(key) for key in Keys("t").calls(name)}) == 1

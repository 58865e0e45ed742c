"""Which terms hold: the most particular rule, floors per embedder, and nothing served where nothing was measured."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from agentic_flywheel.likeness import Profile, SimilarMode, SimilarPolicy, Terms
from agentic_flywheel.policy.similarity.budget import Standing
from agentic_flywheel.policy.similarity.profiles import AGREED_FLOORS, FLOORS, floor_of, floors_of, terms_of
from agentic_flywheel.settings import load_settings

FP32 = "minilm-fp32"


def held(
    *,
    registry: SimilarPolicy | None = None,
    overrides: SimilarPolicy | None = None,
    calibration: str = FP32,
    **settings: Any,
) -> Terms:
    values = {"mode": "learn", "profile": "strict", "max_error": 0.01, "floor": 0.0, "audit_share": 0.05, **settings}
    named = {f"similar.{name}": value for name, value in values.items()}
    return terms_of(named, registry=registry, overrides=overrides, calibration=calibration)


def test_the_defaults_of_the_settings_are_strict_and_learn() -> None:
    terms = terms_of(load_settings({}, environ={}), calibration=FP32)
    assert (terms.mode, terms.profile, terms.floor, terms.max_error, terms.audit_share) == (
        SimilarMode.LEARN,
        Profile.STRICT,
        0.97,
        0.01,
        0.05,
    )
    assert terms.origin == (
        "mode learn by the settings; profile strict by the settings; floor 0.97 of the profile (minilm-fp32); "
        "max_error 0.01 by the settings"
    )


@pytest.mark.parametrize("given_rules", list(product((False, True), repeat=2)), ids=str)
def test_a_person_comes_before_the_registry_and_the_registry_before_the_settings(
    given_rules: tuple[bool, bool],
) -> None:
    person, registry = given_rules
    terms = held(
        overrides=SimilarPolicy(mode=SimilarMode.OFF, profile=Profile.FAQ, max_error=0.03) if person else None,
        registry=SimilarPolicy(mode=SimilarMode.FIXED, profile=Profile.BALANCED, max_error=0.02, audit_share=0.5)
        if registry
        else None,
    )
    expected = (
        (SimilarMode.OFF, Profile.FAQ, 0.03, 0.90, "a person's choice")
        if person
        else (SimilarMode.FIXED, Profile.BALANCED, 0.02, 0.95, "the registry")
        if registry
        else (SimilarMode.LEARN, Profile.STRICT, 0.01, 0.97, "the settings")
    )
    assert (terms.mode, terms.profile, terms.max_error, terms.floor) == expected[:4]
    assert f"mode {terms.mode} by {expected[4]}" in terms.origin
    assert terms.audit_share == (0.5 if registry else 0.05)


def test_what_a_rule_leaves_open_the_next_one_says() -> None:
    terms = held(overrides=SimilarPolicy(max_error=0.1), registry=SimilarPolicy(profile=Profile.FAQ), mode="fixed")
    assert (terms.mode, terms.profile, terms.max_error) == (SimilarMode.FIXED, Profile.FAQ, 0.1)


@pytest.mark.parametrize(
    ("written", "registry", "overrides", "floor"),
    [
        (0.80, None, None, 0.80),
        (0.99, None, None, 0.99),
        (0.80, SimilarPolicy(floor=0.85), None, 0.85),
        (0.0, SimilarPolicy(profile=Profile.FAQ, floor=0.80), None, 0.80),
        (0.80, SimilarPolicy(profile=Profile.BALANCED), None, 0.95),  # a flow's own profile is not undercut in general
        (0.96, SimilarPolicy(profile=Profile.BALANCED), None, 0.96),
        (0.0, SimilarPolicy(floor=0.80), SimilarPolicy(profile=Profile.STRICT), 0.97),  # nor is a person's
        (0.0, SimilarPolicy(floor=0.95), SimilarPolicy(profile=Profile.FAQ), 0.95),
    ],
)
def test_a_written_floor_replaces_the_profiles_of_the_same_or_a_more_general_rule(
    written: float, registry: SimilarPolicy | None, overrides: SimilarPolicy | None, floor: float
) -> None:
    terms = held(registry=registry, overrides=overrides, floor=written)
    assert terms.floor == floor
    assert f"floor {floor:g} " in terms.origin


@pytest.mark.parametrize("mode", ["learn", "fixed"])
def test_without_a_measured_or_written_floor_nothing_is_served(mode: str) -> None:
    terms = held(calibration="", mode=mode)
    assert (terms.mode, terms.floor) == (SimilarMode.SHADOW, 1.0)
    assert f"mode shadow instead of {mode}" in terms.origin
    assert "no floor is measured for this embedder" in terms.origin


def test_an_embedder_without_measured_floors_follows_a_written_one() -> None:
    assert held(calibration="", floor=0.9).mode is SimilarMode.LEARN
    fixed = held(calibration="", floor=0.9, mode="fixed")
    assert (fixed.mode, fixed.floor) == (SimilarMode.FIXED, 0.9)
    assert held(calibration="", mode="off").mode is SimilarMode.OFF


@pytest.mark.parametrize("calibration", FLOORS)
def test_stricter_profiles_have_higher_floors_and_agreement_lowers_them(calibration: str) -> None:
    floors = [floor_of(profile, calibration) for profile in (Profile.STRICT, Profile.BALANCED, Profile.FAQ)]
    assert floors == sorted(floors, key=lambda floor: -(floor or 0))
    agreed = [AGREED_FLOORS[calibration][profile] for profile in (Profile.STRICT, Profile.BALANCED, Profile.FAQ)]
    assert all(floor is not None and lower < floor for floor, lower in zip(floors, agreed, strict=True))


def test_floors_by_standing_follow_the_profile_but_not_a_written_floor() -> None:
    assert floors_of(held(), FP32) == {Standing.AGREED: 0.90, Standing.ALONE: 0.97, Standing.CONTESTED: 0.97}
    assert set(floors_of(held(floor=0.98), FP32).values()) == {0.98}
    assert set(floors_of(held(floor=0.8), FP32).values()) == {0.8}
    assert set(floors_of(held(calibration=""), "").values()) == {1.0}

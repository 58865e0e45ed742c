"""What is suggested to people, and that nothing is suggested without evidence."""

from __future__ import annotations

import pytest

from agentic_flywheel.likeness import Profile, SimilarMode, Terms
from agentic_flywheel.policy.similarity.budget import Evidence, Label, Standing
from agentic_flywheel.policy.similarity.profiles import floor_of
from agentic_flywheel.policy.similarity.proposals import (
    LEAST_LABELS,
    Draft,
    Refreshes,
    drafts_of,
    profile_draft,
    ttl_draft,
)

FP32 = "minilm-fp32"
DAY = 86400.0


def terms(profile: Profile = Profile.STRICT, *, floor: float | None = None, max_error: float = 0.02) -> Terms:
    measured = floor_of(profile, FP32)
    assert measured is not None
    return Terms(
        mode=SimilarMode.LEARN, profile=profile, floor=floor or measured, max_error=max_error, audit_share=0.05
    )


def evidence(*groups: tuple[float, int, int], standing: Standing = Standing.ALONE) -> Evidence:
    return Evidence.of(
        Label(similarity, n >= wrong, standing=standing)
        for similarity, right, wrong in groups
        for n in range(right + wrong)
    )


def test_a_looser_profile_is_suggested_where_its_floor_would_keep_the_budget() -> None:
    draft = profile_draft(evidence((0.975, 80, 0), (0.955, 60, 0)), terms(), FP32)
    assert draft == Draft(
        "profile",
        "strict",
        "balanced",
        "0 of 140 labels at or above 0.95 had another answer: at most 1.63%, 90% sure, within 2.0%",
    )


@pytest.mark.parametrize(
    "known",
    [
        evidence((0.955, LEAST_LABELS - 1, 0)),  # too few
        evidence((0.975, 200, 0)),  # none below the present floor
        evidence((0.975, 80, 0), (0.955, 60, 3)),  # would not keep it
        evidence((0.975, 80, 0), (0.945, 60, 0)),  # below the looser floor
        evidence((0.975, 80, 0), (0.955, 60, 0), standing=Standing.CONTESTED),
    ],
)
def test_no_looser_profile_without_evidence(known: Evidence) -> None:
    assert profile_draft(known, terms(max_error=0.02), FP32) is None


def test_a_stricter_profile_is_suggested_where_the_present_one_does_not_keep_the_budget() -> None:
    known = evidence((0.905, 100, 12), (0.975, 50, 0))
    draft = profile_draft(known, terms(Profile.FAQ), FP32)
    assert draft is not None
    assert (draft.now, draft.proposed) == ("faq", "balanced")
    assert draft.evidence.startswith("12 of 162 labels at or above 0.9 had another answer (7.4%)")
    assert profile_draft(evidence((0.975, 100, 30)), terms(Profile.STRICT), FP32) is None  # there is none stricter
    assert profile_draft(evidence((0.905, 60, 12)), terms(Profile.FAQ), FP32) is None  # too few


def test_no_profile_is_suggested_where_a_floor_was_written_or_none_is_measured() -> None:
    known = evidence((0.975, 80, 0), (0.955, 60, 0))
    assert profile_draft(known, terms(floor=0.96), FP32) is None
    assert profile_draft(known, terms(), "") is None


@pytest.mark.parametrize(
    ("refreshes", "proposed"),
    [
        (Refreshes(same=29), None),
        (Refreshes(same=30), 14),
        (Refreshes(same=57, different=3), 14),
        (Refreshes(same=94, different=6), None),
        (Refreshes(same=80, different=20), None),
        (Refreshes(same=79, different=21), 3.5),
        (Refreshes(same=30, outdated=1), None),
        (Refreshes(same=30, outdated=3), 3.5),
        (Refreshes(outdated=3), 3.5),
        (Refreshes(outdated=2), None),
    ],
)
def test_a_lifetime_follows_what_became_of_answers(refreshes: Refreshes, proposed: float | None) -> None:
    draft = ttl_draft(7 * DAY, refreshes)
    assert (None if draft is None else float(draft.proposed) / DAY) == proposed
    assert draft is None or (draft.setting, draft.now) == ("ttl", "604800")


def test_a_lifetime_has_an_end_either_way() -> None:
    assert ttl_draft(90 * DAY, Refreshes(same=100)) is None
    longer = ttl_draft(60 * DAY, Refreshes(same=100))
    assert longer is not None
    assert float(longer.proposed) == 90 * DAY
    assert longer.evidence == "100 of 100 refreshed answers said the same (100%)"
    assert ttl_draft(60.0, Refreshes(outdated=5)) is None


def test_all_that_is_suggested_comes_together() -> None:
    known = evidence((0.975, 80, 0), (0.955, 60, 0))
    both = drafts_of(known, terms(), FP32, ttl_seconds=DAY, refreshes=Refreshes(same=40))
    assert [draft.setting for draft in both] == ["profile", "ttl"]
    assert drafts_of(Evidence(), terms(), FP32, ttl_seconds=DAY, refreshes=Refreshes()) == ()

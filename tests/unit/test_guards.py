"""The guards refuse near misses and let rewordings pass, whatever side is the stored one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_flywheel.likeness import Profile
from agentic_flywheel.policy.identity import normalise
from agentic_flywheel.policy.similarity.guards import GUARDS, refused, weigh
from agentic_flywheel.policy.similarity.tokens import READ_CHARACTERS
from traps import HELD_OUT, TUNED, harmless, traps

WORDS = st.sampled_from(
    "how what why le la ne pas not from to de and or vs Paris C++ enable disable 2 two deux 3.10 $20 20% - < `x y` one"
    " un x_y --go the is are cats dogs between difference never sans with half first II World est-ce don't l'eau".split(
        " "
    )
)
questions = st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=60))
profiles = st.sampled_from(Profile)


def _refusals(one: str, other: str, profile: Profile) -> dict[str, str]:
    return {verdict.guard: verdict.evidence for verdict in weigh(one, other, profile) if not verdict.passed}


@pytest.mark.parametrize(("table", "enough"), [(TUNED, 400), (HELD_OUT, 150)], ids=["tuned", "held out"])
def test_strict_refuses_traps_by_guards_alone(table: str, enough: int) -> None:
    pairs = traps(table)
    passed = [pair for pair in pairs if not refused(weigh(pair.one, pair.other, Profile.STRICT))]
    assert len(pairs) >= enough
    assert len(passed) <= 0.01 * len(pairs), passed


def test_harmless_rewordings_pass() -> None:
    pairs = harmless()
    passed = [pair for pair in pairs if not refused(weigh(pair.one, pair.other, Profile.STRICT))]
    assert len(passed) >= 0.9 * len(pairs), set(pairs) - set(passed)


@pytest.mark.parametrize(
    ("one", "other", "guard", "evidence"),
    [
        ("Who won in 2023?", "Who won in 2024?", "numbers", "asked: 2023, stored: 2024"),
        ("Is Python 3.10 out?", "Is Python 3.1 out?", "numbers", "asked: 3.10, stored: 3.1"),
        ("a run of 10 km", "a run of 10 miles", "numbers", "asked: 10 km, stored: 10 mi"),
        ("Does it float?", "Doesn't it float?", "negation", "asked: none, stored: not"),
        ("Il ne pleut plus ici", "Il pleut ici", "negation", "asked: ne, stored: none"),
        ("enable dark mode", "disable dark mode", "opposites", "enable / disable"),
        ("What is there in Oslo?", "what is there in bergen?", "names", "only asked: Oslo"),
        ("run `ls -a`", "run `ls -l`", "names", "asked: ls -a, stored: ls -l"),
        ("What is 5+3?", "What is 5-3?", "symbols", "asked: +, stored: -"),
        ("from Rome to Cairo", "from Cairo to Rome", "order", "to cairo / from cairo"),
        ("When did it open?", "Where did it open?", "focus", "asked: when, stored: where"),
        ("how to grow basil", "how to grow mint", "content", "asked: basil, stored: mint"),
        ("Wie kann ich das und was ist der Preis", "Wie geht das", "language", "no guards for de"),
    ],
)
def test_a_refusal_names_its_evidence(one: str, other: str, guard: str, evidence: str) -> None:
    assert _refusals(one, other, Profile.STRICT).get(guard) == evidence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("two apples", "2 apples"),
        ("twenty-three people", "23 people"),
        ("quatre-vingt-dix-neuf jours", "99 jours"),
        ("soixante-dix euros", "70 €"),
        ("1,000 users", "1k users"),
        ("$20", "20 dollars"),
        ("World War II", "World War 2"),
        ("the 2nd day", "the second day"),
        ("20 %", "20 percent"),
        ("1 000,5 m", "1000.5 m"),
        ("Can't I stay?", "cannot I stay"),
        ("salt & pepper", "salt and pepper"),
    ],
)
def test_the_same_in_another_writing_passes(one: str, other: str) -> None:
    assert _refusals(one, other, Profile.STRICT) == {}


def test_every_profile_has_its_guards_in_order() -> None:
    assert tuple(verdict.guard for verdict in weigh("a", "b", Profile.STRICT)) == GUARDS
    assert tuple(verdict.guard for verdict in weigh("a", "b", Profile.BALANCED)) == GUARDS
    assert tuple(verdict.guard for verdict in weigh("a", "b", Profile.FAQ)) == GUARDS[:8]


def test_what_nobody_reads_is_not_trusted() -> None:
    long = "word " * READ_CHARACTERS
    assert "length" in _refusals(long, long + "more", Profile.FAQ)
    assert _refusals(long, long.upper() + "?", Profile.STRICT) == {}


@given(questions, questions, profiles)
def test_either_side_may_be_the_stored_one(one: str, other: str, profile: Profile) -> None:
    assert _refusals(one, other, profile).keys() == _refusals(other, one, profile).keys()


@given(questions, profiles)
def test_a_question_never_refuses_itself(question: str, profile: Profile) -> None:
    for form in (question, normalise(question), f"  {question} ?"):
        assert normalise(form) != normalise(question) or _refusals(question, form, profile) == {}


@given(questions, questions, st.sampled_from([Profile.FAQ, Profile.BALANCED]))
def test_strict_refuses_what_others_refuse(one: str, other: str, profile: Profile) -> None:
    if refused(weigh(one, other, profile)):
        assert refused(weigh(one, other, Profile.STRICT))


@settings(max_examples=50)
@given(st.text("a1 .,'-/+$`@é_#\\:&", min_size=1, max_size=8), profiles)
def test_long_input_is_read_to_the_end_of_what_is_compared(part: str, profile: Profile) -> None:
    """Quadratic patterns would make this the slowest test by minutes, not by milliseconds."""
    weigh(part * (16000 // len(part)), "a", profile)

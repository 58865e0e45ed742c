"""What a question is: one name for the same words, different names for everything a careful reader tells apart."""

from __future__ import annotations

import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Exchange
from agentic_flywheel.policy.identity import (
    canonical,
    context_digest,
    digest,
    fingerprint_of,
    identity_of,
    normalise,
    question_hash,
)

#: Characters that have troubled normal forms: case that grows, composition, compatibility forms of ` . ? ! and space.
AWKWARD = "aAbİıßſΣςK…﹖！？．｀`´`\u0300\u0345\u0130\u00a0\u3000\u2028 \t\n.?!5+#-_éÉœ'’"
questions = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(AWKWARD)), max_size=40)


@given(questions)
def test_the_normal_form_is_its_own(question: str) -> None:
    assert normalise(normalise(question)) == normalise(question)


@given(st.text(st.sampled_from(AWKWARD), max_size=12))
def test_the_normal_form_of_awkward_characters_is_its_own(question: str) -> None:
    assert normalise(normalise(question)) == normalise(question)


@given(st.text(st.characters(codec="ascii"), max_size=40).filter(lambda text: any(c.isalnum() for c in text)))
def test_plain_words_are_folded_alike_alone_and_among_others(question: str) -> None:
    # The letter in front takes the question the long way, through normal forms and patterns.
    assert normalise(f"é {question}") == f"é {normalise(question)}"


def test_a_wide_backtick_that_becomes_a_plain_one_does_not_open_code_elsewhere() -> None:
    once = normalise("｀a `B` c")
    assert normalise(once) == once


@given(questions)
def test_case_space_and_closing_marks_make_no_difference(question: str) -> None:
    if "`" in unicodedata.normalize("NFKC", question):
        return  # inside of code they do
    assert normalise(f"  {normalise(question)} \n") == normalise(question)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I deploy?", "how do i deploy"),
        ("How  do\tI\ndeploy", "How do I deploy"),
        ("How do I deploy?!", "How do I deploy..."),
        ("How do I deploy…", "How do I deploy ?"),
        ("Qu’est-ce que Redis ?", "qu’est-ce que REDIS"),
        ("Où est l'ÉTÉ ?", "où est l'été"),
        ("Cafe\u0301?", "café"),
        ("STRASSE", "straße"),
        ("ｆｕｌｌ　ｗｉｄｔｈ？", "full width"),
        ("What is x\u00a0y", "what is x y"),
        ("`SET k v` ?", "`SET k v`"),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is C++?", "What is C?"),
        ("What is C#?", "What is C++?"),
        ("What is `Set`?", "What is `set`?"),
        ("What does `a  b` do?", "What does `a b` do?"),
        ("```\nif X:\n  y\n```", "```\nif x:\n  y\n```"),
        ("What is 5!", "What is 5?"),
        ("What is -3", "What is +3"),
        ("What is .NET", "What is NET"),
        ("Where is the été?", "Where is the ete?"),
        ("Is it 1.5", "Is it 15"),
        ("enable it", "disable it"),
    ],
)
def test_different_words(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)
    assert question_hash(normalise(one)) != question_hash(normalise(other))


def test_a_factorial_keeps_its_mark_and_an_exclamation_does_not() -> None:
    assert normalise("What is 5!?") == "what is 5!"
    assert normalise("Stop!") == "stop"


@pytest.mark.parametrize("marks", ["?", "!!", "…", " . . ."])
def test_marks_alone_stay_a_question(marks: str) -> None:
    assert normalise(marks)


@given(st.lists(st.text(max_size=6), max_size=5), st.lists(st.text(max_size=6), max_size=5))
def test_parts_never_run_together(one: list[str], other: list[str]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


def test_digests_are_32_hexadecimal_digits_and_fixed_for_ever() -> None:
    # Stored keys depend on these: a change of any of them makes every stored answer unreachable.
    assert digest("ab", "c") == "d301c71d527a1a9ae0e1e1e5bee135f5"
    assert question_hash("what is redis") == "404105ee0007c54e4ea9271b2b8fc1d7"
    assert digest("\ud800") != digest("?")


def test_an_identity_is_empty_only_where_nothing_counts_besides_the_words() -> None:
    assert identity_of() == identity_of(config={}) == ""
    some = [
        identity_of(context="x"),
        identity_of(domain="x"),
        identity_of(config={"x": 1}),
        identity_of(config={"x": "1"}),
        identity_of(context="x", config={"x": 1}),
        identity_of(context="x", domain="x"),
    ]
    assert all(one != other for one, other in combinations(some, 2))
    assert "" not in some


@given(st.dictionaries(st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=4), st.none()), max_size=5))
def test_equal_overrides_are_one_identity_in_any_order(config: dict[str, object]) -> None:
    turned = dict(reversed(config.items()))
    assert canonical(config) == canonical(turned)
    assert identity_of(config=config) == identity_of(config=turned)


def test_the_context_is_named_by_its_words_in_their_order() -> None:
    one, two = Exchange("q1", "a1"), Exchange("q2", "a2")
    assert context_digest([]) == ""
    assert context_digest([one, two]) == context_digest(iter([Exchange("q1", "a1"), two]))
    named = [context_digest(turns) for turns in ([one], [one, two], [two, one], [Exchange("q1a1", "")])]
    assert len(set(named)) == 4


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_hash_and_fingerprint_cover_both_sides(a: str, b: str, c: str, d: str) -> None:
    assert (question_hash(a, b) == question_hash(c, d)) == ((a, b) == (c, d))
    assert (fingerprint_of(a, b) == fingerprint_of(c, d)) == ((a, b) == (c, d))

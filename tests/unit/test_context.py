"""Which turns enrich a question: the newest within the budget, deterministically, and how they are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.model import Exchange, Outcome, Reason, Turn
from agentic_flywheel.policy.context import (
    CHARACTERS_PER_TOKEN,
    MOST_READ,
    Domain,
    Enrichment,
    carried,
    compose,
    enrich,
)
from agentic_flywheel.policy.relevance import SIDE_CHARACTERS, Earlier
from agentic_flywheel.threads import Carried


def turn(number: int, *, question: str = "", answer: str = "", private: bool = False) -> Turn:
    return Turn(
        id=f"t{number}",
        session_id="s",
        at=float(number),
        question=question or f"question {number}",
        answer=answer or f"answer {number}",
        flow="f",
        fingerprint="p",
        outcome=Outcome.MISS,
        reason=Reason.NOT_STORED,
        trace_id="",
        private=private,
    )


ASKED = "And what about that?"
TEN = [turn(number) for number in range(10)]


def test_the_newest_turns_and_the_first_oldest_first() -> None:
    enriched = enrich(ASKED, TEN, TEN[0], limit=3, tokens=1000)
    assert enriched.turn_ids == ("t0", "t7", "t8", "t9")
    assert enriched.exchanges[-1] == Exchange("question 9", "answer 9")
    assert not enriched.private


def test_the_first_turn_is_given_once() -> None:
    assert enrich(ASKED, TEN[:3], TEN[0], limit=5, tokens=1000).turn_ids == ("t0", "t1", "t2")


def test_nothing_without_turns_or_room() -> None:
    assert enrich(ASKED, [], None, limit=5, tokens=1000) == Enrichment()
    assert enrich(ASKED, TEN, TEN[0], limit=0, tokens=1000) == Enrichment()
    assert enrich(ASKED, TEN, TEN[0], limit=5, tokens=0) == Enrichment()


def test_the_first_turn_goes_first_when_room_is_short() -> None:
    size = len("question 0" + "answer 0")
    assert enrich(ASKED, TEN, TEN[0], limit=2, tokens=(2 * size) // CHARACTERS_PER_TOKEN).turn_ids == ("t8", "t9")
    assert enrich(ASKED, TEN, TEN[0], limit=2, tokens=size // CHARACTERS_PER_TOKEN + 1).turn_ids == ("t9",)


def test_a_turn_that_does_not_fit_ends_the_choice_so_that_no_gap_arises() -> None:
    turns = [turn(0), turn(1, question="x" * 5000), turn(2)]
    assert enrich(ASKED, turns, turns[0], limit=5, tokens=100).turn_ids == ("t2",)


def test_long_answers_are_cut_and_say_so() -> None:
    (exchange,) = enrich(ASKED, [turn(0, answer="x" * 5000)], None, limit=5, tokens=1000).exchanges
    assert len(exchange.answer) == SIDE_CHARACTERS
    assert exchange.answer.endswith("x…")
    (whole,) = enrich(ASKED, [turn(0, answer="x" * SIDE_CHARACTERS)], None, limit=5, tokens=1000).exchanges
    assert whole.answer == "x" * SIDE_CHARACTERS


def test_one_private_turn_makes_the_context_private_if_it_is_used() -> None:
    turns = [turn(0, private=True), turn(1), turn(2)]
    assert enrich(ASKED, turns, turns[0], limit=1, tokens=1000).private
    assert not enrich(ASKED, turns[1:], None, limit=1, tokens=1000).private


texts = st.text(min_size=1, max_size=900)


@given(st.lists(st.tuples(texts, texts), max_size=8), st.integers(0, 8), st.integers(0, 400))
def test_the_budget_holds_and_the_choice_is_the_newest_end(
    sides: list[tuple[str, str]], limit: int, tokens: int
) -> None:
    turns = [turn(n, question=question, answer=answer) for n, (question, answer) in enumerate(sides)]
    first = turns[0] if turns else None
    enriched = enrich(ASKED, turns, first, limit=limit, tokens=tokens)
    assert enriched == enrich(ASKED, tuple(turns), first, limit=limit, tokens=tokens)
    assert sum(len(e.question) + len(e.answer) for e in enriched.exchanges) <= tokens * CHARACTERS_PER_TOKEN
    ids = [t.id for t in turns]
    recent = [id_ for id_ in enriched.turn_ids if id_ in ids[max(0, len(ids) - limit) :]]
    assert recent == ids[len(ids) - len(recent) :]
    assert set(enriched.turn_ids) <= {*recent, *ids[:1]}
    assert len(enriched.turn_ids) == len(enriched.exchanges)


def test_how_the_flow_is_told() -> None:
    domain = Domain(name="Redis", description="A store.", stack_info="Valkey 9", cultural_info="Québec")
    assert compose("Why?") == "Why?"
    assert compose("Why?", [Exchange("Is it fast?", "Yes.")], domain) == (
        "Domain: Redis (general)\nA store.\nTechnical setting: Valkey 9\nCultural setting: Québec\n\n"
        "Earlier in this conversation:\nQ: Is it fast?\nA: Yes.\n\n"
        "Question: Why?"
    )


def test_every_field_of_a_domain_counts() -> None:
    plain = Domain(name="a")
    others = [Domain(name="a", **{field: "x"}) for field in Domain.__struct_fields__ if field != "name"]
    assert len({domain.digest() for domain in (plain, Domain(name="b"), *others)}) == len(others) + 2


def test_those_further_back_that_bear_on_the_question_come_along_in_their_order() -> None:
    turns = [
        turn(n, question=q) for n, q in enumerate(["start", "the port", "a", "the proxy port", "b", "c", "d", "e"])
    ]
    enriched = further("Which port is the proxy on?", turns, further=2)
    assert enriched.turn_ids == ("t0", "t1", "t3", "t6", "t7")
    assert [(chosen.why, chosen.words) for chosen in enriched.turns] == [
        (Carried.FIRST, ()),
        (Carried.RELEVANT, ("port",)),
        (Carried.RELEVANT, ("port", "proxy")),
        (Carried.NEWEST, ()),
        (Carried.NEWEST, ()),
    ]
    assert enriched.exchanges[1] == Exchange("the port", "answer 1")
    assert further("Which port is the proxy on?", turns, further=1).turn_ids == ("t0", "t3", "t6", "t7")
    assert further("Which port is the proxy on?", turns, further=0).turn_ids == ("t0", "t6", "t7")


def test_where_no_words_tell_the_next_newest_come_along() -> None:
    turns = [turn(n, question=q) for n, q in enumerate(["start", "the port", "a", "b", "c", "d", "e"])]
    assert further("And that one?", turns, further=2).turn_ids == ("t0", "t3", "t4", "t5", "t6")
    mixed = further("And the port?", turns, further=2)
    assert mixed.turn_ids == ("t0", "t1", "t4", "t5", "t6")
    assert [chosen.why.value for chosen in mixed.turns] == ["first", "relevant", "newest", "newest", "newest"]


def test_the_newest_and_the_first_come_before_those_further_back_where_room_is_short() -> None:
    turns = [turn(n, question="the port", answer="x" * 92) for n in range(6)]  # 100 characters each
    assert further("the port?", turns, further=3, tokens=100).turn_ids == ("t0", "t3", "t4", "t5")
    assert further("the port?", turns, further=3, tokens=74).turn_ids == ("t4", "t5")
    large = [*turns[:2], turn(2, question="port port port", answer="y" * 500), *turns[3:]]
    assert further("the port?", large, further=1, tokens=100).turn_ids == ("t0", "t3", "t4", "t5")


def test_a_private_turn_further_back_makes_the_context_private_if_it_is_used() -> None:
    turns = [turn(0), turn(1, question="my salary", private=True), turn(2), turn(3), turn(4)]
    assert further("What was the salary?", turns, further=1).private
    assert not further("What was the weather?", [turns[0], turns[1], turn(2), *turns[2:]], further=1).private


@given(st.lists(st.tuples(texts, texts), max_size=12), texts, st.integers(0, 4), st.integers(0, 5), st.integers(0, 900))
def test_the_budget_holds_however_far_back_turns_come_from(
    sides: list[tuple[str, str]], question: str, limit: int, count: int, tokens: int
) -> None:
    turns = [turn(n, question=q, answer=a) for n, (q, a) in enumerate(sides)]
    enriched = further(question, turns, further=count, limit=limit, tokens=tokens)
    without = further(question, turns, further=0, limit=limit, tokens=tokens)
    assert sum(len(e.question) + len(e.answer) for e in enriched.exchanges) <= tokens * CHARACTERS_PER_TOKEN
    places = [int(id_[1:]) for id_ in enriched.turn_ids]
    assert places == sorted(set(places))
    assert set(without.turn_ids) <= set(enriched.turn_ids)
    assert len(enriched.turn_ids) <= len(without.turn_ids) + count


def further(question: str, turns: list[Turn], *, further: int, limit: int = 2, tokens: int = 1000) -> Enrichment:
    """As a planner asks for it: all turns known."""
    between = [Earlier.of(one) for one in turns[1 : len(turns) - limit]]
    first = turns[0] if turns else None
    return enrich(question, turns, first, between, limit=limit, tokens=tokens, further=further)


def test_what_is_brought_along_is_ones_own_where_it_says_so_or_is_too_long_to_be_read() -> None:
    assert not carried([Exchange("What is a salary?", "my " * 100_000)]).own
    assert carried([Exchange("What is a salary?", ""), Exchange("And what is my salary?", "")]).own
    assert carried([Exchange("é" * MOST_READ, ""), Exchange("And?", "")]).own

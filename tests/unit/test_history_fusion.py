"""Two lists become one, neighbours help each other, and what was found is shown where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_flywheel.findings import HistoryQuery, Hit
from agentic_flywheel.search.history import stems
from agentic_flywheel.search.history.fusion import NEIGHBOUR_BONUS, bonus_of, fused
from agentic_flywheel.search.history.highlights import EXCERPT, excerpt_of, marks_of
from agentic_flywheel.search.history.query import parse_query
from agentic_flywheel.search.history.spoken import texts_of, without_names
from agentic_flywheel.search.history.words import placed_stems_of


def hit(
    name: str, score: float, *, place: int = 0, session: str = "", at: float = 0.0, words: int = 0, holds: int = 0
) -> Hit:
    return Hit(name, score, session or name, place, at, "", "", "", words, holds)


def names(hits: list[Hit]) -> list[str]:
    return [one.id for one in hits]


def test_what_both_ways_find_comes_before_what_one_finds() -> None:
    words, meaning = [hit("a", 9.0), hit("b", 8.0)], [hit("c", 0.9), hit("b", 0.8), hit("d", 0.2)]
    assert names(fused(words, meaning))[0] == "b"


def test_one_way_alone_keeps_its_order() -> None:
    assert names(fused([hit("a", 2.0), hit("b", 1.0)], [])) == ["a", "b"]
    assert names(fused([], [hit("a", 0.2), hit("b", 0.7)])) == ["b", "a"]
    assert fused([], []) == []


def test_a_turn_beside_a_good_one_of_its_session_is_raised() -> None:
    lone, beside, good = (
        hit("lone", 4.0),
        hit("beside", 3.9, place=4, session="s"),
        hit("good", 9.0, place=5, session="s"),
    )
    assert names(fused([good, lone, beside], [])) == ["good", "beside", "lone"]
    next_but_one = hit("next but one", 3.9, place=7, session="s")
    assert names(fused([good, lone, next_but_one], [])) == ["good", "next but one", "lone"]
    apart = hit("apart", 3.9, place=8, session="s")
    assert names(fused([good, lone, apart], [])) == ["good", "lone", "apart"]
    assert 0 < NEIGHBOUR_BONUS < 1


def test_what_stands_beside_counts_the_more_the_shorter_turns_are() -> None:
    def order(words: int) -> list[str]:
        good, beside = (
            hit(name, 9.0 - 6 * place, place=place, session="s", words=words) for place, name in enumerate("gb")
        )
        return names(fused([good, hit("lone", 4.5, words=words), beside], []))

    assert order(10) == ["g", "b", "lone"]
    assert order(300) == ["g", "lone", "b"]
    assert bonus_of([hit("a", 1.0, words=5)]) > bonus_of([hit("a", 1.0)]) > bonus_of([hit("a", 1.0, words=500)]) > 0
    assert bonus_of([]) == 0


def test_words_of_a_neighbour_help_to_cover_the_query() -> None:
    def order(words: int, beside: int) -> list[str]:
        named = hit("named", 4.0, place=4, session="s", words=words, holds=0b001)
        next_one = hit("next", 0.1, place=5, session="s", words=words, holds=beside)
        same = hit("same", 0.1, place=6, session="t", words=words, holds=0b001)
        other = hit("other", 4.1, place=5, session="t", words=words, holds=0b001)
        order = names(fused([other, named, next_one, same], [], weights=(2.0, 2.0, 2.0)))
        return [name for name in order if name in {"named", "other"}]

    assert order(10, 0b110) == ["named", "other"]
    assert order(10, 0b001) == ["other", "named"]  # what both hold covers nothing more
    assert order(900, 0b110) == ["other", "named"]


def test_the_length_of_a_turn_counts_for_less_than_indexes_make_of_it() -> None:
    long, short = hit("long", 3.9, words=40, holds=1), hit("short", 4.0, words=10, holds=1)
    assert names(fused([short, long], [], weights=(1.0,))) == ["long", "short"]
    assert names(fused([short, hit("much longer", 2.0, words=160, holds=1)], [], weights=(1.0,)))[0] == "short"


def test_how_long_a_single_turn_is_does_not_raise_it() -> None:
    good = hit("good", 9.0, place=4, session="s", words=50)
    short, long = (hit(f"{words}", 3.0, place=place, session="s", words=words) for place, words in ((3, 2), (5, 90)))
    scores = {one.id: one.score for one in fused([good, short, long], [])}
    assert scores["2"] == scores["90"]


def test_age_only_decides_between_equals() -> None:
    assert names(fused([hit("old", 2.0, at=1.0), hit("new", 1.9, at=9e9)], [])) == ["old", "new"]
    assert names(fused([hit("old", 2.0, at=1.0), hit("new", 2.0, at=9e9)], [])) == ["new", "old"]


_HITS = st.lists(st.builds(hit, st.sampled_from("abcdef"), st.floats(0.01, 50), place=st.integers(0, 3)), max_size=6)


@settings(max_examples=100)
@given(_HITS, _HITS)
def test_nothing_is_lost_added_or_said_twice(words: list[Hit], meaning: list[Hit]) -> None:
    words, meaning = list({h.id: h for h in words}.values()), list({h.id: h for h in meaning}.values())
    both = fused(words, meaning)
    assert sorted(names(both)) == sorted({h.id for h in (*words, *meaning)})
    assert both == fused(words[::-1], meaning[::-1])
    assert [h.score for h in both] == sorted((h.score for h in both), reverse=True)


def test_words_are_marked_in_any_form_and_phrases_only_whole() -> None:
    query = parse_query('persistence "append only"', now=0.0)
    text = "Persisting, append only; append later"
    assert [text[start:end] for start, end in marks_of(text, query)] == ["Persisting", "append", "only", "append"]
    phrase = HistoryQuery(phrases=((("append", "onli"),),))
    assert [text[start:end] for start, end in marks_of(text, phrase)] == ["append", "only"]


@settings(max_examples=300)
@given(st.lists(st.from_regex(r"[A-Za-z']{1,9}( |, |\+\+ )", fullmatch=True), max_size=12).map("".join), st.data())
def test_words_are_found_as_if_every_word_had_been_cut(text: str, data: st.DataObject) -> None:
    every = placed_stems_of(text)
    wanted = data.draw(st.sets(st.sampled_from([cut for _, _, cut in every]))) if every else set()
    assert placed_stems_of(text, wanted) == [one for one in every if one[2] in wanted]


def test_no_rule_reaches_further_than_the_last_letter_of_a_stem() -> None:
    roots = ("a", "ab", "hop", "hopp", "conv", "sky", "io", "tt", "vis", "probab", "journ")
    endings = (*(e for rules in (stems._STEP_2, stems._STEP_3) for e, _ in rules), *stems._STEP_4)
    endings = ("", "s", "ies", "ed", "eed", "ing", "y", "ly", "ity", "at", "bl", "iz", "aux", *endings)
    for word in (root + one + two for root in roots for one in endings for two in (*endings, *stems._FRENCH_ENDINGS)):
        for cut in (stems.english(word), stems.french(word)):
            assert word.startswith(stems.heads_of(frozenset([cut]))), (word, cut)


@pytest.mark.parametrize(
    "text", ["We ate, they bought; people's mice", "Ils mangeaient les journaux", "eying dyes skies"]
)
def test_irregular_and_short_words_are_found(text: str) -> None:
    for one in placed_stems_of(text):
        assert one in placed_stems_of(text, {one[2]})


def test_the_excerpt_shows_what_was_found() -> None:
    answer = "filler words " * 30 + "then the needle stands here " + "and more follows " * 20
    excerpt, marks = excerpt_of(answer, HistoryQuery(terms=("needl",)))
    assert [excerpt[start:end] for start, end in marks] == ["needle"]
    assert excerpt.startswith("… ")
    assert excerpt.endswith(" …")
    assert len(excerpt) <= EXCERPT + 4


@settings(max_examples=200)
@given(st.text(max_size=900), st.text(max_size=40))
def test_marks_are_in_order_and_never_overlap(text: str, asked: str) -> None:
    query = parse_query(asked, now=0.0)
    for shown, marks in ((text, marks_of(text, query)), excerpt_of(text, query)):
        ends = [offset for mark in marks for offset in mark]
        assert ends == sorted(ends)
        assert all(start < end <= len(shown) for start, end in marks)


def test_what_is_embedded_is_what_a_question_is_about() -> None:
    assert texts_of("Can you tell me what Ann said about the lease?") == (
        "what Ann said about the lease?",
        "what said about the lease?",
    )
    assert texts_of("lease of the office") == ("lease of the office",)


def test_names_inside_a_question_count_half() -> None:
    assert without_names("When did Caroline go to the support group?") == "When did go to the support group?"
    assert without_names("when did she go to the support group?") == ""
    assert without_names("What is Redis Sentinel?") == ""

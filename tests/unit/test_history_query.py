"""Whatever is typed is a query that no index can be broken by, and says what a person would expect of it."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentic_flywheel.errors import InputError
from agentic_flywheel.findings import HistoryQuery
from agentic_flywheel.search.history.local_words import any_of
from agentic_flywheel.search.history.query import FILTERS, LONGEST, moment_of, parse_query
from agentic_flywheel.search.history.subject import subject_of
from agentic_flywheel.search.history.words import stems_of, words_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY = 86_400
TRAPS = (
    *(f"{name}:x" for name in FILTERS),
    "👍🏽",
    "C++",
    "is it hello",
    '"',
    '""',
    "(a|b)",
    "a AND OR NOT",
    "NEAR(a b)",
    "-",
    '-"',
    "*",
    "question:x",
    "\x00",
    "a\x00b",
)


def parsed(text: str) -> HistoryQuery:
    return parse_query(text, now=NOW)


def test_words_phrases_exclusions_and_filters_are_told_apart() -> None:
    query = parsed('How do I set "append only" persistence -cluster -"read replica" flow:docs user:"Ann B" tag:x')
    assert query.terms[:3] == ("set", "append", "persist")
    assert query.phrases == ((("append", "onli"),),)
    assert ("cluster",) in query.excluded
    assert ("read", "replica") in query.excluded
    assert (query.flow, query.user, query.tag) == ("docs", "Ann B", "x")
    assert "flow" not in query.text
    assert "cluster" not in query.text
    assert not query.notes


@pytest.mark.parametrize(
    ("asked", "terms"),
    [
        ("Can you give me a comprehensive summary of how the budget developed over time?", ("budget", "develop")),
        ("Could you please remind me about the leases?", ("leas",)),
        ("Give us an overview of the backups", ("backup",)),
        ("a short summary of the backups", ("backup",)),
        ("List the order in which I brought up different aspects of the garden", ("list", "garden")),
        ("Which budget did we discuss in our last conversation?", ("budget",)),
        ("Have I ever mentioned a cat?", ("cat",)),
        ("What keys did you tell me throughout our chats?", ("kei",)),
        ("Peux-tu me donner un résumé de ce que coûte le serveur ?", ("cout", "serveur")),
        ("Avons-nous parlé de la sauvegarde dans nos échanges ?", ("sauvegard",)),
    ],
)
def test_how_something_is_asked_is_not_looked_for(asked: str, terms: tuple[str, ...]) -> None:
    assert parsed(asked).terms == terms


@pytest.mark.parametrize(
    "asked",
    [
        "Can you give me a summary?",
        "summary of",
        "our conversation",
        "order of the items",
        "cookies in my sessions",
        "time series over timescale",
        "Did the customer mention a refund?",
        "chat summary feature",
    ],
)
def test_what_may_be_a_subject_is_looked_for(asked: str) -> None:
    content = {"summary", "order", "items", "cookies", "sessions", "time", "mention", "refund", "chat", "conversation"}
    wanted = {term for word in words_of(asked) if word.folded in content for term in stems_of(word.folded).split()}
    assert wanted <= set(parsed(asked).terms)


@given(st.text(max_size=200))
def test_a_subject_is_never_nothing(text: str) -> None:
    assert bool(subject_of(text)) == bool(text.split())
    assert subject_of(subject_of(text)) is not None


def test_a_query_of_stop_words_alone_looks_for_them() -> None:
    assert parsed("what is it").terms == ("what", "is", "it")


def test_an_unknown_filter_is_told_with_the_nearest_and_looked_for_as_a_word() -> None:
    query = parsed("flw:docs redis")
    assert "flw" in query.terms
    assert "did you mean flow:?" in query.notes[0]
    assert query.flow == ""


def test_addresses_are_no_filters() -> None:
    assert parsed("https://example.org/x").notes == ()


def test_an_outcome_that_there_is_not_is_told_with_the_nearest() -> None:
    query = parsed("outcome:mis redis")
    assert query.outcome == ""
    assert "'miss'" in query.notes[0]


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("since:2026-11-20", datetime(2026, 11, 20, tzinfo=UTC).timestamp()),
        ("until:2026-11-20", datetime(2026, 11, 21, tzinfo=UTC).timestamp()),
        ("until:2026-11-20T10:00", datetime(2026, 11, 20, 10, tzinfo=UTC).timestamp()),
        ("since:2026-11-20T10:00+02:00", datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()),
        ("since:2d", NOW - 2 * DAY),
        ('since:"2 days"', NOW - 2 * DAY),
        ('since:"2 days ago"', NOW - 2 * DAY),
        ("since:today", datetime(2026, 11, 22, tzinfo=UTC).timestamp()),
        ("until:yesterday", datetime(2026, 11, 22, tzinfo=UTC).timestamp()),
    ],
)
def test_moments_are_understood_as_they_are_written(written: str, moment: float) -> None:
    query = parsed(written)
    assert (query.until if written.startswith("until") else query.since) == moment
    assert not query.notes


@pytest.mark.parametrize("written", ["tomato", "2026-13-01", "9999999999d", "2026-", ""])
def test_what_is_no_moment_is_refused_with_what_is(written: str) -> None:
    with pytest.raises(InputError, match="write 2026-11-01"):
        moment_of(written, end=False, now=NOW)
    if written:
        assert "was left out" in parsed(f"since:{written} redis").notes[0]


@pytest.fixture(scope="module")
def table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5 (question, answer, content='', tokenize='ascii')")
    connection.execute("INSERT INTO words (rowid, question, answer) VALUES (1, 'is it hello', 'a b')")
    return connection


@settings(max_examples=300)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*TRAPS, *(f"{f}:x" for f in FILTERS), "👍🏽", "C++"])).map(" ".join))
)
@example("x" * 20_000)
@example('"' * 999)
@example("\ud800 lone")
def test_no_text_can_break_a_query(table: sqlite3.Connection, text: str) -> None:
    query = parsed(text)
    stems = [*query.terms, *(s for variants in query.phrases for p in variants for s in p), *sum(query.excluded, ())]
    assert all(stem and not any(char in stem for char in " \"'\x00():*^-+") for stem in stems)
    query.text.encode()
    for phrases in ([(term,) for term in query.terms], *query.phrases, query.excluded):
        if phrases:
            table.execute("SELECT rowid FROM words WHERE words MATCH ?", (any_of(phrases),)).fetchall()


@settings(max_examples=200)
@given(st.text(max_size=300))
def test_words_stand_where_they_say_and_every_stem_is_one_word(text: str) -> None:
    found = list(words_of(text))
    assert all(0 <= word.start < word.end <= len(text) for word in found)
    assert [word.start for word in found] == sorted(word.start for word in found)
    stems = stems_of(text)
    assert len(stems.split(" ") if stems else []) == len([w for w in found if w.folded.replace("'", "")])


def test_endless_text_is_cut_and_said() -> None:
    query = parsed("word " * LONGEST)
    assert query.terms == ("word",)
    assert str(LONGEST) in query.notes[0]


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("persisting", "persistence"),
        ("activer la persistance", "la persistance est activée"),
        ("l'hôte", "HOTE"),
        ("C++", "how fast is C++ here"),
        ("redis_url", "AFW_REDIS_URL"),
        ("记忆", "长期记忆系统"),
        ("👍", "good 👍 work"),
        ("users' keys", "the user's key"),
        ("what did she buy", "she bought a lamp"),
        ("children", "every child"),
    ],
)
def test_what_is_asked_is_found_however_it_is_written(asked: str, written: str) -> None:
    assert set(parsed(asked).terms) & set(stems_of(written).split())


def test_shortened_words_are_not_looked_for() -> None:
    assert parsed("what we've said I'm sure you'd like: they'll see redis").terms == ("said", "sure", "redi")


def test_different_languages_of_machines_are_different_words() -> None:
    assert not set(parsed("C++").terms) & set(stems_of("C#").split())


def test_english_words_that_are_french_stop_words_are_looked_for() -> None:
    assert {"css", "font", "comment"} <= set(parsed("CSS font comment").terms)

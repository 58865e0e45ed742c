"""Answers as they are compared: their sentences, refusals, contradictions; and how far a comparer is trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.policy.similarity.answers import (
    LONGEST,
    LONGEST_PIECE,
    MOST,
    contradiction,
    is_refusal,
    opposed,
    pieces,
    plain,
    polarity,
    same_words,
)
from agentic_flywheel.policy.similarity.budget import ComparerError, Evidence, Label, increments
from agentic_flywheel.policy.similarity.probes import (
    PRIOR,
    Probe,
    error_of,
    label_increments,
    probe_increments,
    probe_of,
)

PROSE = st.text(alphabet=st.sampled_from("ab cé.!?\n-*`#[](1)"), max_size=400)


def test_marks_that_only_look_are_taken_off_and_the_rest_stays():
    text = "## Steps\n\n1. Open **Settings**\n2. Press `Save`\n\n| a | b |\n|---|---|\n> See [here](http://x/y).\n"
    text += "```sh\nls -l\n```"
    assert plain(text) == "Steps\nOpen Settings\nPress Save\n| a | b |\nSee here.\nls -l"


def test_a_number_at_the_beginning_of_a_sentence_is_no_list_item():
    assert plain("30 days are enough.\n3.5 GB are needed.") == "30 days are enough.\n3.5 GB are needed."


@given(PROSE)
def test_pieces_hold_all_words_in_order_and_fit(text: str):
    found = pieces(text)
    assert " ".join(found).split() == text.split()
    assert all(len(piece) <= LONGEST_PIECE for piece in found)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 20_000,
        "x" * 60_000,
        "Short. " * 9_000,
        "* " * 30_000,
        "[" * 30_000,
        "\n" * 60_000,
        " " * 60_000 + "x",
        "|: " * 20_000,
        "1. " * 20_000,
        ". " + '"' * 60_000,
        "é " * 30_000,
        "[a](" * 15_000,
        "a.b" * 20_000,
    ],
)
def test_long_answers_are_bounded(text: str):
    read = plain(text)
    assert len(read) <= LONGEST
    assert len(pieces(read)) <= MOST


@given(PROSE)
def test_an_answer_has_its_own_words(text: str):
    assert same_words(plain(text), plain(text))
    assert same_words(text.upper(), f"  {text.upper()}\n")


def test_symbols_are_words_of_an_answer():
    assert not same_words("Use C++.", "Use C.")
    assert same_words("It costs 5 €.", "it  costs 5 €")


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "Sorry, I can't help with that.",
        "I'm sorry, but I do not have any information about this in the documents.",
        "Unfortunately, I couldn't find anything on this.",
        "As an AI language model, I cannot answer that.",
        "No information was found.",
        "The documents do not mention this.",
        "Je ne sais pas.",
        "Désolé, je ne peux pas répondre à cette question.",
        "Malheureusement, je n’ai pas trouvé d'information.",
        "Aucune information disponible.",
    ],
)
def test_refusals_are_told(text: str):
    assert is_refusal(plain(text))


@pytest.mark.parametrize(
    "text",
    [
        "You cannot change it afterwards.",
        "I don't know of any limit. " + "The server takes as many connections as the system allows. " * 8,
        "No, it is not possible.",
        "Sorry messages are shown in red.",
        "Je vous conseille la version 2.",
        "",
    ],
)
def test_answers_that_deny_are_no_refusals(text: str):
    assert not is_refusal(plain(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes.", True),
        ("Yes, of course", True),
        ("Oui : c'est possible", True),
        ("No", False),
        ("Non, jamais.", False),
        ("No more than 5", None),
        ("Yesterday", None),
        ("", None),
    ],
)
def test_polarity_is_an_opening_word_of_its_own(text: str, said: bool | None):
    assert polarity(text) is said


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ("Returns are accepted for 30 days.", "Returns are accepted for 14 days.", "30 / 14"),
        ("It is enabled by default.", "It is disabled by default.", "enabled / disabled"),
        ("Backups are kept for a week.", "Backups are not kept for a week.", "none / not"),
        ("The office in Lyon opens early.", "The office in Nantes opens early.", "lyon / nantes"),
        ("Les retours sont acceptés.", "Les retours ne sont pas acceptés.", "negation"),
        ("Le prix augmente en mai.", "Le prix diminue en mai.", "augmente / diminue"),
    ],
)
def test_an_edited_sentence_contradicts_whichever_comes_first(one: str, other: str, word: str):
    there, back = contradiction(one, other), contradiction(other, one)
    assert there is not None
    assert back is not None
    assert there.plain
    assert back.plain
    assert word in there.evidence


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It takes 4 years.", "It takes four years."),
        ("Returns are accepted for 30 days.", "Returns are accepted."),
        ("The capital of Suriname is small.", "The capital of Surinam is small."),
        ("No, it is not there.", "It is not there."),
        ("Open the settings and press Save.", "Press Save in the settings."),
    ],
)
def test_what_says_the_same_or_only_says_less_is_no_contradiction(one: str, other: str):
    assert contradiction(one, other) is None
    assert contradiction(other, one) is None


def test_a_contradiction_in_other_words_is_only_suspected():
    found = contradiction(
        "A script is optional where the data are in a known format.", "No mandatory file has to be there."
    )
    assert found is None or not found.plain
    suspected = contradiction(
        "It is not needed in most of these cases.", "Most cases are served well by leaving the file out."
    )
    assert suspected is not None
    assert not suspected.plain


def test_only_sentences_about_one_thing_are_held_against_each_other():
    one, other = ["Plan A has 5 users.", "It is fast."], ["It is fast.", "Plan B has 9 users."]
    assert opposed(one, other, [(1, 0)]) is None
    found = opposed(one, other, [(1, 0), (0, 1)])
    assert found is not None
    assert found.plain


def test_yes_and_no_contradict_each_other_whatever_follows():
    found = opposed(["Yes, it does."], ["No: see below."], [])
    assert found is not None
    assert found.plain
    assert opposed(["Yes, it does."], ["It does."], []) is None


WHO, OTHER = "0123456789abcdef" * 2, "f" * 32


def total(*parts: dict[str, int]) -> dict[str, int]:
    fields: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            fields[name] = fields.get(name, 0) + count
    return fields


def test_which_pairs_are_probes():
    assert probe_of(0.49) is Probe.FAR
    assert probe_of(0.5) is None


@pytest.mark.parametrize(
    ("probe", "same", "names"),
    [
        (Probe.REFRESH, True, {"same"}),
        (Probe.REFRESH, None, {"same"}),
        (Probe.REFRESH, False, {"same", "mistaken"}),
        (Probe.REPORT, True, {"different", "missed"}),
        (Probe.REPORT, None, {"different", "missed"}),
        (Probe.REPORT, False, {"different"}),
        (Probe.FAR, False, {"far"}),
        (Probe.FAR, True, {"far", "far_missed"}),
    ],
)
def test_what_a_probe_counts(probe: Probe, same: bool | None, names: set[str]):
    assert probe_increments(WHO, probe, same) == {f"comparer:{WHO[:8]}:{name}": 1 for name in names}


def test_counts_of_a_comparer_are_no_labels():
    label = increments(Label(0.975, same=True))
    fields = total(probe_increments(WHO, Probe.REFRESH, False), label_increments(WHO), label, label)
    assert Evidence.read(fields).count() == (2, 0)


def test_probes_of_a_comparer_that_gave_no_label_do_not_count():
    assert error_of(total(*[probe_increments(WHO, Probe.REPORT, True)] * 50)) == PRIOR


def test_live_probes_are_added_to_the_prior():
    live = total(label_increments(WHO), *[probe_increments(WHO, Probe.REPORT, True)] * 3)
    assert error_of(live) == ComparerError(PRIOR.false_same + 3, PRIOR.different + 3, PRIOR.false_different, PRIOR.same)


def test_the_worst_of_those_who_gave_labels_counts_and_they_are_never_added_up():
    good = total(label_increments(WHO), *[probe_increments(WHO, Probe.REPORT, False)] * 500)
    bad = total(label_increments(OTHER), *[probe_increments(OTHER, Probe.REPORT, True)] * 40)
    assert error_of(total(good, bad)) == error_of(bad)
    assert error_of(good).different == PRIOR.different + 500


def test_pairs_far_apart_can_only_add_doubt():
    labels = label_increments(WHO)
    well = total(labels, *[probe_increments(WHO, Probe.FAR, False)] * 5000)
    badly = total(labels, *[probe_increments(WHO, Probe.FAR, True)] * 300)
    few = total(labels, *[probe_increments(WHO, Probe.FAR, True)] * 5)
    assert error_of(well) == error_of(few) == PRIOR
    assert (error_of(badly).false_same, error_of(badly).different) == (300, 300)

"""A redactor: what it takes out, what it leaves, what names are found by, and that nothing of it can be undone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_flywheel.personal_data import ALL_KINDS, PLACEHOLDERS, Found, Kind, kinds_of, spoken
from agentic_flywheel.policy.redaction.finding import Redactor

ANY = Redactor(ALL_KINDS)
#: Pieces that texts with something in them are made of.
PIECES = (
    "ann@example.org", "@", ".", "+33 6 39 98 12 34", "0639981234", "4242 4242 4242 4242", "203.0.113.7", "2001:db8::1",
    "GB29 NWBK 6016 1331 9268 19", "password", " is ", ": ", "=", "hunter2!", "token", "q7Tz2LmX9vRb4KcW8nYd3PfH",
    "code ", "PIN 4512", "\n", " ", "'", '"', "mot de passe", " est ", "[e-mail]", "[secret]", "(at)", "İ", "ß", "é",
    "-----BEGIN PRIVATE KEY-----",
)  # fmt: skip
texts = st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@given(texts)
def test_spans_are_in_order_within_the_text_and_apart(text: str) -> None:
    place = 0
    for found in ANY.find(text):
        assert place <= found.start < found.end <= len(text)
        place = found.end


@given(texts)
def test_what_stands_between_stays_and_the_rest_becomes_placeholders(text: str) -> None:
    redacted = ANY.redact(text)
    pieces, place = [], 0
    for found in redacted.found:
        pieces += [text[place : found.start], PLACEHOLDERS[found.kind]]
        place = found.end
    assert redacted.text == "".join(pieces) + text[place:]


@given(texts)
def test_redacting_twice_adds_nothing_to_what_is_a_placeholder(text: str) -> None:
    once = ANY.redact(text).text
    for found in ANY.find(once):
        assert once[found.start : found.end] not in PLACEHOLDERS.values()


def test_values_that_are_kept_stay_however_they_are_written() -> None:
    redactor = Redactor(ALL_KINDS, keep=["*@acme.example", "+33 1 99 00 12 34", "203.0.113.*"])
    text = "Help@ACME.example, 01.99.00.12.34, 0033199001234 or 203.0.113.9"
    assert redactor.redact(text).text == text
    other = "x@acme.example.org, 01 99 00 12 35, 203.0.114.9"
    assert redactor.redact(other).text == "[e-mail], [phone], [IP]"


def test_a_number_of_another_country_is_not_taken_for_one_that_is_kept() -> None:
    redactor = Redactor([Kind.PHONE], keep=["01 99 00 12 34"])
    assert redactor.redact("+33 1 99 00 12 34").text == "+33 1 99 00 12 34"
    assert redactor.redact("+33 6 99 00 12 34").text == "[phone]"


def test_names_are_found_by_whoever_finds_names() -> None:
    def titled(text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\b(?:Mme|Mr) [A-Z]\w+", text)]

    redactor = Redactor([Kind.NAME, Kind.EMAIL], names=titled)
    redacted = redactor.redact("Mr Brown is b@example.org")
    assert redacted.text == "[name] is [e-mail]"
    assert redacted.counts == {"name": 1, "email": 1}
    assert Redactor([Kind.EMAIL], names=titled).find("Mr Brown") == ()
    assert Redactor(ALL_KINDS).find("Mr Brown") == ()


def test_a_detector_that_points_beyond_the_text_is_held_to_it() -> None:
    redactor = Redactor([Kind.NAME], names=lambda text: [(4, 400), (-3, 2), (3, 3)])
    assert redactor.redact("one two").text == "one [name]"


def test_what_two_kinds_claim_is_taken_out_once_as_what_says_more() -> None:
    assert ANY.find("password: ann@example.org") == (Found(Kind.SECRET, 10, 25),)


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("", set()),
        ("off", set()),
        ("all", set(Kind)),
        ("e-mail, IBAN", {Kind.EMAIL, Kind.IBAN}),
        (["ip", "secret"], {Kind.IP, Kind.SECRET}),
    ],
)
def test_kinds_as_people_write_them(words: str | list[str], kinds: set[Kind]) -> None:
    assert kinds_of(words) == kinds


def test_a_kind_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="'mail' is none of email, phone, card, iban, ip, secret, name, all"):
        kinds_of("phone, mail")


def test_kinds_in_a_sentence() -> None:
    assert spoken([]) == ""
    assert spoken([Kind.SECRET]) == "a key, token or password"
